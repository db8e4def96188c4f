//! Receipts (C2SP tlog-proof): all that shows, without the log and offline, that it holds a record. A
//! file of one is named `*.tlog-proof`.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <base64 of the salt's 32 bytes and the record>
//! index <index of the leaf>
//! <base64 of a hash of the inclusion proof, the leaf's sibling first>
//! ...
//!
//! <the checkpoint, a signed note>
//! ```

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    checkpoint::{Checkpoint, LogKey, OpenError},
    note::{NOTE_BYTES, Note, NoteError},
    proof::{HASH_LINE, HASHES, ProofError, read_hash},
    record::{RECORD_BYTES, SALT_BYTES, SaltedRecord},
    tile_path::decimal,
};
use crate::digest::Digest;

const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// The longest receipt, in bytes.
const RECEIPT_BYTES: usize =
    NOTE_BYTES + (SALT_BYTES + RECORD_BYTES).div_ceil(3) * 4 + HASHES * HASH_LINE + 128;

/// A record, where it stands in a log, and the signed head that holds it. Its text tells salt and
/// record: whoever has the receipt has the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// What is shown to be in the log.
    pub record: SaltedRecord,
    /// The index of its leaf, from 0.
    pub index: u64,
    /// The inclusion proof, as [`super::inclusion`] makes it.
    pub proof: Vec<Digest>,
    /// The checkpoint, with the log's signature and whatever cosignatures it has.
    pub checkpoint: Note,
}

/// Why a text is no receipt, or shows nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Longer than any receipt.
    #[error("a receipt has at most {RECEIPT_BYTES} bytes")]
    TooLong,
    /// Not the lines of a receipt: `expected` is the first that is missing or ill-formed.
    #[error("this is no receipt (C2SP tlog-proof): {expected} is missing or ill-formed")]
    Form { expected: &'static str },
    /// The checkpoint is no signed note.
    #[error("the receipt's checkpoint: {0}")]
    Note(#[from] NoteError),
    /// The checkpoint is not the log's.
    #[error("the receipt's checkpoint: {0}")]
    Checkpoint(#[from] OpenError),
    /// The record is not in the log, or not there.
    #[error("the receipt does not show its record in the log: {0}")]
    Proof(#[from] ProofError),
}

impl Receipt {
    /// Reads a receipt. What [`fmt::Display`] writes is again the same bytes. Nothing in it is
    /// believed before [`Self::verify`].
    ///
    /// # Errors
    /// The bytes are not a receipt within the limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReceiptError> {
        if bytes.len() > RECEIPT_BYTES {
            return Err(ReceiptError::TooLong);
        }
        let form = |expected| ReceiptError::Form { expected };
        let text = std::str::from_utf8(bytes).map_err(|_| form("UTF-8"))?;
        let (head, note) = text.split_once("\n\n").ok_or(form("the empty line before the checkpoint"))?;
        let mut lines = head.split('\n');
        if lines.next() != Some(HEADER) {
            return Err(form("the first line, c2sp.org/tlog-proof@v1,"));
        }
        let extra = lines.next().and_then(|line| line.strip_prefix("extra "));
        let record = extra.and_then(salted_record).ok_or(form("the line 'extra' with salt and record"))?;
        let index = lines.next().and_then(|line| line.strip_prefix("index "));
        let index = index.and_then(decimal).ok_or(form("the line 'index'"))?;
        // One more than a proof has, so that a longer one is seen.
        let proof: Option<Vec<Digest>> = lines.take(HASHES + 1).map(read_hash).collect();
        let proof = proof.filter(|proof| proof.len() <= HASHES).ok_or(form("the inclusion proof"))?;
        Ok(Self { record, index, proof, checkpoint: Note::parse(note.as_bytes())? })
    }

    /// Verifies that the log with this key holds the record, and tells under which head. Whether
    /// enough witnesses cosigned that head is the caller's to ask, each by its
    /// [`super::WitnessKey::verify`].
    ///
    /// # Errors
    /// The log did not sign the checkpoint, or the record is not where the receipt says.
    pub fn verify(&self, log: &LogKey) -> Result<Checkpoint, ReceiptError> {
        let checkpoint = log.open(&self.checkpoint)?;
        self.record.entry().verify_in(&checkpoint, self.index, &self.proof)?;
        Ok(checkpoint)
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extra = [self.record.salt().as_slice(), self.record.record()].concat();
        writeln!(f, "{HEADER}\nextra {}\nindex {}", STANDARD.encode(extra), self.index)?;
        self.proof.iter().try_for_each(|hash| writeln!(f, "{}", STANDARD.encode(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

fn salted_record(extra: &str) -> Option<SaltedRecord> {
    let extra = STANDARD.decode(extra).ok()?;
    let (salt, record) = extra.split_first_chunk()?;
    SaltedRecord::from_parts(*salt, record.to_vec()).ok()
}
