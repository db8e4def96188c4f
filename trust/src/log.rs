//! The log of evidence: an append-only Merkle tree whose head is signed, so that whoever holds a
//! receipt can show that an event was recorded, and nobody can take one back or tell two stories.
//!
//! Everything is what other logs use, so that other verifiers read it: the tree of RFC 6962 and
//! RFC 9162 over SHA-256, and of C2SP the tiles (tlog-tiles), signed notes (signed-note), checkpoints
//! (tlog-checkpoint), cosignatures (tlog-cosignature, `cosignature/v1`) and receipts (tlog-proof). No
//! I/O here: who keeps the log gives the nodes and keeps what comes out.
//!
//! # The bytes of an entry
//! What is recorded stays outside the tree, with a random salt, so that it can be erased while every
//! proof stays valid, and so that nobody finds it by guessing. `||` is concatenation, `u32` four bytes,
//! big-endian.
//!
//! ```text
//! entry     = SHA-256( u32(12) || "log-entry/v1" || u32(32) || salt || u32(length of record) || record )
//! leaf hash = SHA-256( 0x00 || entry )
//! node hash = SHA-256( 0x01 || left || right )
//! root of the empty tree = SHA-256( "" )
//! ```
//!
//! The salt has 32 bytes, the entry is 32 bytes as they are, no text. An entry bundle
//! (`tile/entries/...`) holds entries, each as `0x0020 || entry`.
//!
//! # The bytes of a receipt
//! A tlog-proof whose `extra` line is base64(salt || record). To verify one: the checkpoint's signature
//! under the log's key; the checkpoint's origin, which is the key's name; the leaf hash of salt and
//! record; and from it, along the proof, the checkpoint's root. Behind that of an acknowledgement stands a second
//! tlog-proof, whose `extra` line is an entry of the log of keys, the key record of who signed it: see [`Signer`].
//!
//! # The bytes of a continuation
//! C2SP has no file for a consistency proof; ours looks like a tlog-proof: see [`Continuation`].

mod bundle;
mod checkpoint;
mod continuation;
mod cosignature;
mod frontier;
mod history;
mod note;
mod proof;
mod receipt;
mod record;
mod signer;
mod submission;
mod succession;
#[cfg(test)]
mod tests;
mod tile;
mod tile_path;
mod tlog_proof;
mod tree;
mod vkey;

pub use bundle::{BundleError, EntryBundle, new_bundles};
pub use checkpoint::{Checkpoint, CheckpointError, LogKey, LogSigner, OpenError};
pub use continuation::{Continuation, ContinuationError};
pub use cosignature::{CosignatureError, Witness, WitnessKey};
pub use frontier::{Frontier, FrontierError};
pub use history::{Contradiction, History};
pub use note::{Note, NoteError, NoteSignature};
pub use proof::{ProofError, Subtree, verify_consistency, verify_inclusion};
pub use receipt::Receipt;
pub use record::{Entry, RecordTooLong, SaltedRecord};
pub use signer::{Signer, SignerError};
pub use submission::{SUBMISSION_BYTES, Submission, SubmissionError};
pub use succession::{LOGS_FOLLOWED, Succession, SuccessionError, log_number};
pub use tile::{Tile, TileError, TileHashes, new_tiles};
pub use tile_path::PathError;
pub use tlog_proof::{Proven, ReceiptError};
pub use tree::{
    Node, TreeError, consistency, consistency_nodes, empty_root, inclusion, inclusion_nodes, leaf_hash,
    node_hash, root, root_nodes,
};
pub use vkey::{KeyName, VkeyError};

/// The most leaves of a log: what a signed integer of 64 bits counts, as databases and other
/// implementations have it.
pub const MAX_SIZE: u64 = i64::MAX as u64;
