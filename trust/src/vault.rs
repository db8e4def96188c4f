//! Seals small things for their own owner: what is kept on a disk.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use zeroize::{Zeroize, Zeroizing};

/// Length of a nonce and of a tag, bytes.
const NONCE: usize = 12;
const TAG: usize = 16;

/// AES-256-GCM under one key with random nonces: for fewer than 2^32 things.
pub struct Vault(RandomizedNonceKey);

/// What could not be opened: sealed by another key, for another context, or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what is stored was sealed by another key or was changed")]
pub struct VaultError;

impl Vault {
    /// The vault of a key.
    #[allow(clippy::expect_used, reason = "any 32 bytes are a key of AES-256")]
    pub fn from_key(mut key: [u8; 32]) -> Self {
        let vault = Self(RandomizedNonceKey::new(&AES_256_GCM, &key).expect("32 bytes are a key"));
        key.zeroize();
        vault
    }

    /// Seals `plaintext`. `context` says what it is and where it is kept, so that nothing sealed can
    /// be put in another's place. Gives the nonce, the ciphertext and the tag.
    #[allow(clippy::expect_used, reason = "fails only past 64 GiB or without randomness")]
    pub fn seal(&self, context: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(NONCE + plaintext.len() + TAG);
        sealed.extend_from_slice(plaintext);
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(context), &mut sealed)
            .expect("AES-256-GCM seals what is in memory");
        sealed.splice(0..0, nonce.as_ref().iter().copied());
        sealed
    }

    /// Opens what [`Vault::seal`] gave for the same context.
    ///
    /// # Errors
    /// [`VaultError`], whatever is wrong.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE>().ok_or(VaultError)?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let length = self
            .0
            .open_in_place(Nonce::from(nonce), Aad::from(context), &mut buffer)
            .map_err(|_| VaultError)?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_for_the_same_key_and_context_alone() {
        let vault = Vault::from_key([1; 32]);
        let sealed = vault.seal(b"inbox/1", b"secret");
        assert_eq!(sealed.len(), NONCE + 6 + TAG);
        assert_ne!(sealed, vault.seal(b"inbox/1", b"secret"));
        assert_eq!(vault.open(b"inbox/1", &sealed).unwrap().as_slice(), b"secret");
        assert_eq!(vault.open(b"inbox/2", &sealed), Err(VaultError));
        assert_eq!(Vault::from_key([2; 32]).open(b"inbox/1", &sealed), Err(VaultError));
        for cut in 0..sealed.len() {
            assert_eq!(vault.open(b"inbox/1", &sealed[..cut]), Err(VaultError));
        }
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert_eq!(vault.open(b"inbox/1", &changed), Err(VaultError));
        }
    }
}
