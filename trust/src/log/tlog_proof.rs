//! The lines of a C2SP tlog-proof: what stands in every receipt.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    checkpoint::{Checkpoint, LogKey, OpenError},
    note::{NOTE_BYTES, Note, NoteError},
    proof::{HASH_LINE, HASHES, ProofError, Subtree, read_hash, verify_inclusion},
    tile_path::decimal,
};
use crate::digest::Digest;

/// The first line.
pub(super) const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// The longest, in bytes, without the line `extra`.
pub(super) const BYTES: usize = NOTE_BYTES + HASHES * HASH_LINE + 128;

/// Why a text is no receipt, or shows nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Longer than any receipt.
    #[error("it is longer than any receipt")]
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

/// What a proof shows of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The head that the log signed.
    pub checkpoint: Checkpoint,
    /// All subtrees of the log that follow from it; see [`super::History`].
    pub subtrees: Vec<Subtree>,
}

/// A tlog-proof. What its line `extra` is, the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TlogProof {
    pub extra: Vec<u8>,
    pub index: u64,
    pub proof: Vec<Digest>,
    pub checkpoint: Note,
}

impl TlogProof {
    /// Reads one; what [`fmt::Display`] writes is again the same text.
    pub(super) fn parse(text: &str) -> Result<Self, ReceiptError> {
        let form = |expected| ReceiptError::Form { expected };
        let (head, note) = text.split_once("\n\n").ok_or(form("the empty line before the checkpoint"))?;
        let mut lines = head.split('\n');
        if lines.next() != Some(HEADER) {
            return Err(form("the first line, c2sp.org/tlog-proof@v1,"));
        }
        let extra = lines.next().and_then(|line| line.strip_prefix("extra "));
        let extra = extra.and_then(|extra| STANDARD.decode(extra).ok()).ok_or(form("the line 'extra'"))?;
        let index = lines.next().and_then(|line| line.strip_prefix("index "));
        let index = index.and_then(decimal).ok_or(form("the line 'index'"))?;
        // One more than a proof has, so that a longer one is seen.
        let proof: Option<Vec<Digest>> = lines.take(HASHES + 1).map(read_hash).collect();
        let proof = proof.filter(|proof| proof.len() <= HASHES).ok_or(form("the inclusion proof"))?;
        Ok(Self { extra, index, proof, checkpoint: Note::parse(note.as_bytes())? })
    }

    /// Verifies that the log with this key has this leaf.
    pub(super) fn verify(
        checkpoint: &Note,
        log: &LogKey,
        leaf: &Digest,
        index: u64,
        proof: &[Digest],
    ) -> Result<Proven, ReceiptError> {
        let checkpoint = log.open(checkpoint)?;
        let subtrees = verify_inclusion(leaf, index, checkpoint.size(), proof, &checkpoint.root())?;
        Ok(Proven { checkpoint, subtrees })
    }

    /// Writes one.
    pub(super) fn write(
        f: &mut fmt::Formatter<'_>,
        extra: &[u8],
        index: u64,
        proof: &[Digest],
        checkpoint: &Note,
    ) -> fmt::Result {
        writeln!(f, "{HEADER}\nextra {}\nindex {index}", STANDARD.encode(extra))?;
        proof.iter().try_for_each(|hash| writeln!(f, "{}", STANDARD.encode(hash)))?;
        write!(f, "\n{checkpoint}")
    }
}
