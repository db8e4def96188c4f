//! Verification of proofs (RFC 9162, sections 2.1.3.2 and 2.1.4.2). Everything here is a stranger's
//! word until it is verified: nothing panics, and the work is at most one hash for each one given.

use std::{iter::Peekable, ops::Range};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::tree::{consistency_ranges, empty_root, inclusion_ranges, node_hash};
use crate::digest::Digest;

/// The most hashes of a proof: the levels below the root of the largest tree.
pub(super) const HASHES: usize = 63;
/// The characters of 32 bytes in base64, and a newline.
pub(super) const HASH_LINE: usize = 45;

/// Why a proof proves nothing: whoever gave it, or signed the root, is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The proof is for a leaf that the tree does not have.
    #[error("the proof is for leaf {index}, which a tree of {size} leaves does not have")]
    NoLeaf { index: u64, size: u64 },
    /// A tree does not shrink.
    #[error("the log went back from {old} leaves to {new}")]
    Shrinks { old: u64, new: u64 },
    /// There are more hashes or fewer than a tree of that size has on the way.
    #[error("the proof has not as many hashes as the sizes demand")]
    Length,
    /// The hashes lead elsewhere: to another leaf, another place, or another tree.
    #[error("the proof does not lead to the root that was signed")]
    Root,
    /// The hashes lead elsewhere than to the root of the old tree: the log changed its past, or the
    /// proof is not for these trees.
    #[error("the log's earlier root is not in its later one")]
    OldRoot,
}

/// The leaves from one place to another, and the hash of the tree over them. As a log only grows, nothing changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subtree {
    /// Which leaves, by their indexes.
    pub leaves: Range<u64>,
    /// RFC 9162's MTH of them.
    pub hash: Digest,
}

/// Verifies that the tree of `size` leaves with this `root` has at `index` the leaf with this hash. Tells all the
/// subtrees that this shows: the leaf, the root, and those on the way and beside it.
///
/// # Errors
/// [`ProofError`] in every other case.
pub fn verify_inclusion(
    leaf: &Digest,
    index: u64,
    size: u64,
    proof: &[Digest],
    root: &Digest,
) -> Result<Vec<Subtree>, ProofError> {
    let beside = inclusion_ranges(index, size).map_err(|_| ProofError::NoLeaf { index, size })?;
    let mut way = Subtree { leaves: index..index.saturating_add(1), hash: *leaf };
    let mut shown = vec![way.clone()];
    for beside in subtrees(beside, proof)? {
        way = way.beside(&beside);
        shown.extend([beside, way.clone()]);
    }
    if way.hash == *root { Ok(shown) } else { Err(ProofError::Root) }
}

/// Verifies that the tree of `old` leaves with root `old_root` is the beginning of the tree of `new`
/// leaves with root `new_root`. The empty tree is the beginning of every tree. Tells all the subtrees that this
/// shows: both roots, and those on the way and beside it.
///
/// # Errors
/// [`ProofError`] in every other case.
pub fn verify_consistency(
    old: u64,
    old_root: &Digest,
    new: u64,
    new_root: &Digest,
    proof: &[Digest],
) -> Result<Vec<Subtree>, ProofError> {
    if old == 0 && *old_root != empty_root() {
        return Err(ProofError::OldRoot);
    }
    let ranges = consistency_ranges(old, new).map_err(|_| ProofError::Shrinks { old, new })?;
    if old == 0 || old == new {
        return match proof {
            [_, ..] => Err(ProofError::Length),
            [] if old == new && old_root != new_root => Err(ProofError::Root),
            [] => Ok(vec![Subtree { leaves: 0..new, hash: *new_root }]),
        };
    }
    let mut given = subtrees(ranges, proof)?;
    // Where the old tree is complete it is the first hash itself, and is not given.
    let first = match given.next_if(|first| first.leaves.end == old) {
        Some(first) => first,
        None => Subtree { leaves: 0..old, hash: *old_root },
    };
    let (mut earlier, mut later) = (first.clone(), first.clone());
    let mut shown = vec![first];
    for beside in given {
        if beside.leaves.end == later.leaves.start {
            earlier = earlier.beside(&beside);
            shown.push(earlier.clone());
        }
        later = later.beside(&beside);
        shown.extend([beside, later.clone()]);
    }
    if earlier.hash != *old_root {
        return Err(ProofError::OldRoot);
    }
    if later.hash == *new_root { Ok(shown) } else { Err(ProofError::Root) }
}

/// The subtrees that a proof gives, whose leaves follow from the sizes.
fn subtrees(
    ranges: Vec<Range<u64>>,
    proof: &[Digest],
) -> Result<Peekable<impl Iterator<Item = Subtree>>, ProofError> {
    if ranges.len() != proof.len() {
        return Err(ProofError::Length);
    }
    let hashes = proof.to_vec();
    Ok(ranges.into_iter().zip(hashes).map(|(leaves, hash)| Subtree { leaves, hash }).peekable())
}

impl Subtree {
    /// The subtree of which this is one half and the other the other.
    fn beside(&self, other: &Self) -> Self {
        let (left, right) =
            if other.leaves.start < self.leaves.start { (other, self) } else { (self, other) };
        Self { leaves: left.leaves.start..right.leaves.end, hash: node_hash(&left.hash, &right.hash) }
    }
}

/// Reads a hash of a proof from its line.
pub(super) fn read_hash(line: &str) -> Option<Digest> {
    if line.len() >= HASH_LINE {
        return None;
    }
    Digest::try_from(STANDARD.decode(line).ok()?.as_slice()).ok()
}
