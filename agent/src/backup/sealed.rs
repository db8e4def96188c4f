//! The file format of a backup: one stream of bytes, sealed under a passphrase.
//!
//! ```text
//! header  "liaison-backup/v1\n"  iterations u32  salt [16]  checksum [32]  proof [32]
//! chunk   last u8  length u32  AES-256-GCM of up to 1 MiB
//! ```
//! Numbers are big-endian. The checksum is over the header before it: where it does not hold, the file
//! is damaged. The proof is of the key: where the checksum holds and the proof does not, the passphrase
//! is another. Key = PBKDF2-HMAC-SHA256(passphrase, salt, iterations). A chunk's nonce is its number, its
//! additional data the header and whether it is the last: chunks can't be changed, moved or cut off.

use std::{
    io::{self, Read, Write},
    num::NonZeroU32,
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey},
    constant_time::verify_slices_are_equal,
    pbkdf2,
};
use liaison_trust::digest::{hash, sha256};
use zeroize::Zeroizing;

const MAGIC: &[u8; 18] = b"liaison-backup/v1\n";
/// What OWASP asks of PBKDF2-HMAC-SHA256 at least.
const ITERATIONS: u32 = 600_000;
/// What this version is willing to compute, so that a forged file can't stop it.
const MOST_ITERATIONS: u32 = 10_000_000;
const CHUNK_BYTES: usize = 1 << 20;
const SALT: usize = 16;
const FACTS: usize = MAGIC.len() + 4 + SALT;
const HEADER: usize = FACTS + 32 + 32;

/// Why a backup can't be made or read.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("this is not a backup of a Liaison agent, or one of a version that this one does not know")]
    NotABackup,
    #[error("the passphrase is not the one that the backup was made with")]
    Passphrase,
    #[error("the backup is damaged: {0}; take another copy of it")]
    Damaged(&'static str),
    #[error("the backup could not be sealed")]
    Crypto,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Seals what is written to it.
pub(super) struct Sealer<W> {
    to: W,
    chunks: Chunks,
    buffer: Zeroizing<Vec<u8>>,
}

impl<W: Write> Sealer<W> {
    /// Begins a backup.
    pub(super) fn new(mut to: W, passphrase: &[u8]) -> Result<Self, SealError> {
        let salt: [u8; SALT] = rand::random();
        let facts = [MAGIC.as_slice(), &ITERATIONS.to_be_bytes(), &salt].concat();
        let key = key(passphrase, &salt, ITERATIONS)?;
        let header = [facts.as_slice(), sha256(&facts).as_bytes(), &proof(&key)].concat();
        to.write_all(&header)?;
        let chunks = Chunks::new(&key, &header)?;
        Ok(Self { to, chunks, buffer: Zeroizing::new(Vec::with_capacity(CHUNK_BYTES)) })
    }

    /// Writes the last chunk. Without it the backup does not open.
    pub(super) fn finish(mut self) -> Result<W, SealError> {
        self.chunk(true)?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn chunk(&mut self, last: bool) -> Result<(), SealError> {
        let mut sealed = std::mem::take(&mut *self.buffer);
        self.chunks.seal(&mut sealed, last)?;
        let length = u32::try_from(sealed.len()).map_err(|_| SealError::Crypto)?;
        self.to.write_all(&[u8::from(last)])?;
        self.to.write_all(&length.to_be_bytes())?;
        self.to.write_all(&sealed)?;
        self.buffer.reserve(CHUNK_BYTES);
        Ok(())
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == CHUNK_BYTES {
            self.chunk(false).map_err(io::Error::other)?;
        }
        let room = CHUNK_BYTES - self.buffer.len();
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.buffer.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens a backup: what is read from it was sealed by somebody with the passphrase.
pub(super) struct Opener<R> {
    from: R,
    chunks: Chunks,
    plain: io::Cursor<Zeroizing<Vec<u8>>>,
    ended: bool,
}

impl<R: Read> Opener<R> {
    /// Reads the header, and tells a wrong passphrase from a damaged file.
    pub(super) fn new(mut from: R, passphrase: &[u8]) -> Result<Self, SealError> {
        let mut header = [0; HEADER];
        exactly(&mut from, &mut header, SealError::NotABackup)?;
        let (facts, sums) = header.split_at(FACTS);
        let (checksum, given) = sums.split_at(32);
        let facts_after = facts.strip_prefix(MAGIC.as_slice()).ok_or(SealError::NotABackup)?;
        let (iterations, salt) = facts_after.split_first_chunk::<4>().ok_or(SealError::NotABackup)?;
        let iterations = u32::from_be_bytes(*iterations);
        if sha256(facts).as_bytes() != checksum || !(ITERATIONS..=MOST_ITERATIONS).contains(&iterations) {
            return Err(SealError::Damaged("its header does not hold"));
        }
        let key = key(passphrase, salt, iterations)?;
        verify_slices_are_equal(&proof(&key), given).map_err(|_| SealError::Passphrase)?;
        Ok(Self { from, chunks: Chunks::new(&key, &header)?, plain: io::Cursor::default(), ended: false })
    }

    /// Checks that nothing follows.
    pub(super) fn finish(mut self) -> Result<(), SealError> {
        let mut one = [0];
        if self.read(&mut one).map_err(from_read)? > 0 || self.from.read(&mut one)? > 0 {
            return Err(SealError::Damaged("more follows its end"));
        }
        Ok(())
    }

    fn chunk(&mut self) -> Result<(), SealError> {
        let cut = || SealError::Damaged("it ends too early");
        let mut head = [0; 5];
        exactly(&mut self.from, &mut head, cut())?;
        let [last, length @ ..] = head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if !(MAX_TAG_LEN..=CHUNK_BYTES + MAX_TAG_LEN).contains(&length) {
            return Err(SealError::Damaged("a part of it has no possible length"));
        }
        let mut sealed = Zeroizing::new(vec![0; length]);
        exactly(&mut self.from, &mut sealed, cut())?;
        self.ended = last == 1;
        self.chunks.open(&mut sealed, self.ended)?;
        self.plain = io::Cursor::new(sealed);
        Ok(())
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.plain.get_ref().get(position(&self.plain)..).unwrap_or_default().read(into)?;
            if read > 0 || self.ended || into.is_empty() {
                self.plain.set_position(self.plain.position() + read as u64);
                return Ok(read);
            }
            self.chunk().map_err(io::Error::other)?;
        }
    }
}

fn position(cursor: &io::Cursor<Zeroizing<Vec<u8>>>) -> usize {
    usize::try_from(cursor.position()).unwrap_or(usize::MAX)
}

/// What reading an [`Opener`] failed with.
pub(super) fn from_read(error: io::Error) -> SealError {
    match error.downcast::<SealError>() {
        Ok(error) => error,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => SealError::Damaged("it ends too early"),
        Err(error) => SealError::Io(error),
    }
}

/// The cipher of the chunks, and which comes next.
struct Chunks {
    key: LessSafeKey,
    header: [u8; 32],
    next: u64,
}

impl Chunks {
    fn new(key: &[u8; 32], header: &[u8]) -> Result<Self, SealError> {
        let key = hash("backup-chunks/v1", &[key]);
        let key = UnboundKey::new(&AES_256_GCM, key.as_bytes()).map_err(|_| SealError::Crypto)?;
        Ok(Self { key: LessSafeKey::new(key), header: sha256(header).0, next: 0 })
    }

    fn seal(&mut self, chunk: &mut Vec<u8>, last: bool) -> Result<(), SealError> {
        let (nonce, aad) = (self.nonce(), self.aad(last));
        self.next += 1;
        self.key.seal_in_place_append_tag(nonce, Aad::from(aad), chunk).map_err(|_| SealError::Crypto)
    }

    fn open(&mut self, chunk: &mut Vec<u8>, last: bool) -> Result<(), SealError> {
        let (nonce, aad) = (self.nonce(), self.aad(last));
        self.next += 1;
        let opened = self.key.open_in_place(nonce, Aad::from(aad), chunk);
        let length = opened.map_err(|_| SealError::Damaged("a part of it was changed"))?.len();
        chunk.truncate(length);
        Ok(())
    }

    fn nonce(&self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        for (to, from) in nonce.iter_mut().rev().zip(self.next.to_be_bytes().iter().rev()) {
            *to = *from;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    fn aad(&self, last: bool) -> [u8; 33] {
        let mut aad = [u8::from(last); 33];
        for (to, from) in aad.iter_mut().zip(self.header) {
            *to = from;
        }
        aad
    }
}

fn key(passphrase: &[u8], salt: &[u8], iterations: u32) -> Result<Zeroizing<[u8; 32]>, SealError> {
    let iterations = NonZeroU32::new(iterations).ok_or(SealError::NotABackup)?;
    let mut key = Zeroizing::new([0; 32]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, passphrase, key.as_mut_slice());
    Ok(key)
}

fn proof(key: &[u8; 32]) -> [u8; 32] {
    hash("backup-proof/v1", &[key]).0
}

fn exactly(from: &mut impl Read, into: &mut [u8], cut: SealError) -> Result<(), SealError> {
    match from.read_exact(into) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(cut),
        done => Ok(done?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(plain: &[u8]) -> Vec<u8> {
        let mut sealer = Sealer::new(Vec::new(), b"correct horse battery").unwrap();
        sealer.write_all(plain).unwrap();
        sealer.finish().unwrap()
    }

    fn opened(sealed: &[u8], passphrase: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut opener = Opener::new(sealed, passphrase)?;
        let mut plain = Vec::new();
        opener.read_to_end(&mut plain).map_err(from_read)?;
        opener.finish()?;
        Ok(plain)
    }

    #[test]
    fn what_was_sealed_opens() {
        for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1] {
            let plain: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let sealed = sealed(&plain);
            assert!(opened(&sealed, b"correct horse battery").unwrap() == plain, "{length}");
        }
    }

    #[test]
    fn a_wrong_passphrase_and_a_damaged_file_are_told_apart() {
        let sealed = sealed(&vec![7; CHUNK_BYTES + 10]);
        assert!(matches!(opened(&sealed, b"incorrect"), Err(SealError::Passphrase)));
        assert!(matches!(opened(b"PK not a backup", b"x"), Err(SealError::NotABackup)));

        let changed = |at: usize| {
            let mut sealed = sealed.clone();
            sealed[at] ^= 1;
            opened(&sealed, b"correct horse battery").unwrap_err()
        };
        assert!(matches!(changed(0), SealError::NotABackup));
        assert!(matches!(changed(MAGIC.len() + 3), SealError::Damaged(_)), "iterations");
        assert!(matches!(changed(FACTS - 1), SealError::Damaged(_)), "salt");
        assert!(matches!(changed(FACTS), SealError::Damaged(_)), "checksum");
        assert!(matches!(changed(HEADER), SealError::Damaged(_)), "last");
        assert!(matches!(changed(HEADER + 1), SealError::Damaged(_)), "length");
        assert!(matches!(changed(HEADER + 5), SealError::Damaged(_)), "chunk");
        assert!(matches!(changed(sealed.len() - 1), SealError::Damaged(_)), "tag");
    }

    #[test]
    fn nothing_is_cut_off_added_or_moved() {
        let sealed = sealed(&vec![7; 2 * CHUNK_BYTES + 10]);
        let damaged =
            |file: &[u8]| matches!(opened(file, b"correct horse battery"), Err(SealError::Damaged(_)));
        assert!(damaged(&sealed[..sealed.len() - 1]));
        let chunk = 5 + CHUNK_BYTES + MAX_TAG_LEN;
        assert!(damaged(&sealed[..HEADER + chunk]), "whole chunks cut off");
        assert!(damaged(&[sealed.as_slice(), b"x"].concat()));
        let mut moved = sealed.clone();
        let (first, second) = moved[HEADER..HEADER + 2 * chunk].split_at_mut(chunk);
        first.swap_with_slice(second);
        assert!(damaged(&moved));
    }
}
