//! Continuations: all that shows, without the log and offline, that an earlier head of it is the beginning
//! of a later one. A file of one is named `*.tlog-consistency`.
//!
//! ```text
//! liaison/tlog-consistency@v1
//! old <number of leaves under the earlier head> <base64 of its root>
//! <base64 of a hash of the consistency proof (RFC 9162, 2.1.4), in its order>
//! ...
//!
//! <the later head's checkpoint, a signed note: origin, size and root stand in it>
//! ```

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    checkpoint::{LogKey, OpenError},
    note::{NOTE_BYTES, Note, NoteError},
    proof::{HASH_LINE, HASHES, ProofError, read_hash, verify_consistency},
    tile_path::decimal,
    tlog_proof::Proven,
};
use crate::digest::Digest;

/// The longest continuation, in bytes.
const BYTES: usize = NOTE_BYTES + (HASHES + 2) * HASH_LINE + 128;

/// An earlier head of a log, a later one that is signed, and the proof that the log only grew in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// Leaves under the earlier head.
    pub old: u64,
    /// The earlier root.
    pub old_root: Digest,
    /// The consistency proof, as [`super::consistency`] makes it.
    pub proof: Vec<Digest>,
    /// The later checkpoint.
    pub checkpoint: Note,
}

/// Why a text is no continuation, or shows nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContinuationError {
    /// Longer than any.
    #[error("a consistency proof has at most {BYTES} bytes")]
    TooLong,
    /// Not the lines of one: `expected` is the first that is missing or ill-formed.
    #[error("this is no consistency proof: {expected} is missing or ill-formed")]
    Form { expected: &'static str },
    /// The checkpoint is no signed note.
    #[error("the consistency proof's checkpoint: {0}")]
    Note(#[from] NoteError),
    /// The checkpoint is not the log's.
    #[error("the consistency proof's checkpoint: {0}")]
    Checkpoint(#[from] OpenError),
    /// The later head does not continue the earlier one.
    #[error("the log is not shown to have only grown: {0}")]
    Proof(#[from] ProofError),
}

impl Continuation {
    /// The first line.
    pub const HEADER: &str = "liaison/tlog-consistency@v1";

    /// Reads a continuation. What [`fmt::Display`] writes is again the same bytes. Nothing in it is
    /// believed before [`Self::verify`].
    ///
    /// # Errors
    /// The bytes are not one within the limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, ContinuationError> {
        if bytes.len() > BYTES {
            return Err(ContinuationError::TooLong);
        }
        let form = |expected| ContinuationError::Form { expected };
        let text = std::str::from_utf8(bytes).map_err(|_| form("UTF-8"))?;
        let (head, note) = text.split_once("\n\n").ok_or(form("the empty line before the checkpoint"))?;
        let mut lines = head.split('\n');
        if lines.next() != Some(Self::HEADER) {
            return Err(form("the first line, liaison/tlog-consistency@v1,"));
        }
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(|old| old.split_once(' '));
        let old = old.and_then(|(size, root)| Some((decimal(size)?, read_hash(root)?)));
        let (old, old_root) = old.ok_or(form("the line 'old' with size and root"))?;
        // One more than a proof has, so that a longer one is seen.
        let proof: Option<Vec<Digest>> = lines.take(HASHES + 2).map(read_hash).collect();
        // The old tree's own part, and a hash for each level.
        let proof = proof.filter(|proof| proof.len() <= HASHES + 1).ok_or(form("the consistency proof"))?;
        Ok(Self { old, old_root, proof, checkpoint: Note::parse(note.as_bytes())? })
    }

    /// Verifies that the log with this key signed the later head, and that the earlier one is its
    /// beginning; tells the later one, and all subtrees that follow. Whether the log ever signed the earlier one is the caller's to know.
    ///
    /// # Errors
    /// The log did not sign the checkpoint, or did not only grow.
    pub fn verify(&self, log: &LogKey) -> Result<Proven, ContinuationError> {
        let checkpoint = log.open(&self.checkpoint)?;
        let (size, root) = (checkpoint.size(), checkpoint.root());
        let subtrees = verify_consistency(self.old, &self.old_root, size, &root, &self.proof)?;
        Ok(Proven { checkpoint, subtrees })
    }
}

impl fmt::Display for Continuation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\nold {} {}", Self::HEADER, self.old, STANDARD.encode(self.old_root))?;
        self.proof.iter().try_for_each(|hash| writeln!(f, "{}", STANDARD.encode(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}
