//! What the log says: a record that stays outside the tree, and the entry in the tree that commits to
//! it. See the module above for the bytes.

use std::fmt;

use liaison_proto::limits::ACCEPTANCES_BYTES;

use super::{
    checkpoint::Checkpoint,
    proof::{ProofError, Subtree, verify_inclusion},
    tree::leaf_hash,
};
use crate::{
    digest::{Digest, hash},
    random,
};

/// Under this label a record and its salt are hashed.
const LABEL: &str = "log-entry/v1";
/// The bytes of a salt.
pub(super) const SALT_BYTES: usize = 32;
/// The longest record, in bytes: the largest is an acceptance with all its decisions.
pub(super) const RECORD_BYTES: usize = ACCEPTANCES_BYTES;

/// A record with the salt that hides it: without both nobody can tell what an entry stands for.
#[derive(Clone, PartialEq, Eq)]
pub struct SaltedRecord {
    salt: [u8; SALT_BYTES],
    record: Vec<u8>,
}

/// What the tree holds of a record: 32 bytes that tell nothing once record and salt are erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry(Digest);

/// A record that no log takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record has at most {RECORD_BYTES} bytes, this has {0}")]
pub struct RecordTooLong(pub usize);

impl SaltedRecord {
    /// The record under a new random salt.
    ///
    /// # Errors
    /// The record is too long.
    pub fn new(record: Vec<u8>) -> Result<Self, RecordTooLong> {
        Self::from_parts(random::bytes(&mut random::System), record)
    }

    /// The record with the salt it was stored with.
    ///
    /// # Errors
    /// The record is too long.
    pub fn from_parts(salt: [u8; 32], record: Vec<u8>) -> Result<Self, RecordTooLong> {
        if record.len() > RECORD_BYTES {
            return Err(RecordTooLong(record.len()));
        }
        Ok(Self { salt, record })
    }

    /// The salt: as secret as the record.
    pub fn salt(&self) -> &[u8; 32] {
        &self.salt
    }

    /// The record.
    pub fn record(&self) -> &[u8] {
        &self.record
    }

    /// The entry that commits to salt and record.
    pub fn entry(&self) -> Entry {
        Entry(hash(LABEL, &[&self.salt, &self.record]))
    }
}

impl Entry {
    /// The 32 bytes, as an entry bundle has them.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The hash of its leaf, to append to the tree.
    pub fn leaf_hash(&self) -> Digest {
        leaf_hash(self.as_bytes())
    }

    /// Verifies that the entry is at `index` in the log of which this is a head, and tells all the subtrees that this
    /// shows.
    ///
    /// # Errors
    /// The proof does not show it.
    pub fn verify_in(
        &self,
        checkpoint: &Checkpoint,
        index: u64,
        proof: &[Digest],
    ) -> Result<Vec<Subtree>, ProofError> {
        verify_inclusion(&self.leaf_hash(), index, checkpoint.size(), proof, &checkpoint.root())
    }
}

impl From<[u8; 32]> for Entry {
    /// The entry of these bytes, where its record is not at hand.
    fn from(bytes: [u8; 32]) -> Self {
        Self(Digest(bytes))
    }
}

impl AsRef<[u8]> for Entry {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// Shows neither salt nor record.
impl fmt::Debug for SaltedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SaltedRecord({} bytes of entry {})", self.record.len(), self.entry().0)
    }
}
