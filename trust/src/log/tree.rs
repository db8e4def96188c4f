//! The Merkle tree of RFC 6962, section 2.1, and RFC 9162, section 2.1: hashes, roots and proofs, made
//! from the hashes of complete subtrees.

use std::ops::Range;

use crate::digest::{Digest, sha256};

/// A complete subtree: the leaves from `index << level` on, `1 << level` of them. Once they are
/// written, its hash never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// The height, a leaf's being 0; at most 63.
    pub level: u8,
    /// The place among the nodes of its level, from 0.
    pub index: u64,
}

/// Why a root or a proof can't be made: who asks is at fault, or the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The leaf is not in the tree.
    #[error("a tree of {size} leaves has none with index {index}: ask for one below its size")]
    NoLeaf { index: u64, size: u64 },
    /// A tree does not shrink.
    #[error(
        "a tree of {new} leaves is no later one than a tree of {old}: ask from the smaller to the larger"
    )]
    Shrinks { old: u64, new: u64 },
    /// The reader has no hash for a node that the tree has.
    #[error("the log's store lacks the hash of node {} of level {}", .0.index, .0.level)]
    Missing(Node),
}

/// SHA-256(0x00, entry): the hash of a leaf.
pub fn leaf_hash(entry: &[u8]) -> Digest {
    sha256(&[&[0], entry].concat())
}

/// SHA-256(0x01, left, right): the hash of two subtrees side by side.
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut bytes = [1; 65];
    let (_, hashes) = bytes.split_at_mut(1);
    hashes.iter_mut().zip(left.0.iter().chain(&right.0)).for_each(|(place, byte)| *place = *byte);
    sha256(&bytes)
}

/// SHA-256 of nothing: the root of a tree without leaves.
pub fn empty_root() -> Digest {
    sha256(&[])
}

/// The root of the tree of the first `size` leaves.
///
/// # Errors
/// [`TreeError::Missing`] if `hash` does not know one of [`root_nodes`].
pub fn root(size: u64, hash: impl Fn(Node) -> Option<Digest>) -> Result<Digest, TreeError> {
    subtree(0..size, &hash)
}

/// The proof that the leaf at `index` is in the tree of the first `size` leaves: the hashes beside the
/// way from the leaf to the root, the leaf's sibling first.
///
/// # Errors
/// There is no such leaf, or `hash` does not know one of [`inclusion_nodes`].
pub fn inclusion(
    index: u64,
    size: u64,
    hash: impl Fn(Node) -> Option<Digest>,
) -> Result<Vec<Digest>, TreeError> {
    inclusion_ranges(index, size)?.into_iter().map(|range| subtree(range, &hash)).collect()
}

/// The proof that the tree of the first `old` leaves is the beginning of the tree of the first `new`:
/// empty if one of them is empty or both are the same.
///
/// # Errors
/// `old` is larger than `new`, or `hash` does not know one of [`consistency_nodes`].
pub fn consistency(
    old: u64,
    new: u64,
    hash: impl Fn(Node) -> Option<Digest>,
) -> Result<Vec<Digest>, TreeError> {
    consistency_ranges(old, new)?.into_iter().map(|range| subtree(range, &hash)).collect()
}

/// The nodes that [`root`] reads.
pub fn root_nodes(size: u64) -> Vec<Node> {
    cover(0..size)
}

/// The nodes that [`inclusion`] reads, so that they can be fetched at once.
///
/// # Errors
/// There is no such leaf.
pub fn inclusion_nodes(index: u64, size: u64) -> Result<Vec<Node>, TreeError> {
    Ok(inclusion_ranges(index, size)?.into_iter().flat_map(cover).collect())
}

/// The nodes that [`consistency`] reads, so that they can be fetched at once.
///
/// # Errors
/// `old` is larger than `new`.
pub fn consistency_nodes(old: u64, new: u64) -> Result<Vec<Node>, TreeError> {
    Ok(consistency_ranges(old, new)?.into_iter().flat_map(cover).collect())
}

impl Node {
    /// The node of a leaf.
    pub fn leaf(index: u64) -> Self {
        Self { level: 0, index }
    }

    /// Its leaves, in a tree of 2^63 - 1 leaves at most.
    pub(super) fn leaves(self) -> Range<u64> {
        let first = |index: u64| index << self.level;
        first(self.index)..first(self.index + 1)
    }
}

/// The leaves below each hash of an inclusion proof (RFC 9162, 2.1.3.1): going down to the leaf, the
/// half that it is not in.
pub(super) fn inclusion_ranges(index: u64, size: u64) -> Result<Vec<Range<u64>>, TreeError> {
    if index >= size {
        return Err(TreeError::NoLeaf { index, size });
    }
    let (mut start, mut end) = (0, size);
    let mut ranges = Vec::new();
    while end - start > 1 {
        let middle = middle(start, end);
        if index < middle {
            ranges.push(middle..end);
            end = middle;
        } else {
            ranges.push(start..middle);
            start = middle;
        }
    }
    ranges.reverse();
    Ok(ranges)
}

/// The leaves below each hash of a consistency proof (RFC 9162, 2.1.4.1): going down to where the old
/// tree ends, the other half; and what is left of the old tree, unless that is all of it.
pub(super) fn consistency_ranges(old: u64, new: u64) -> Result<Vec<Range<u64>>, TreeError> {
    if old > new {
        return Err(TreeError::Shrinks { old, new });
    }
    let (mut start, mut end) = (0, new);
    let mut ranges = Vec::new();
    while old > 0 && old < end {
        let middle = middle(start, end);
        if old <= middle {
            ranges.push(middle..end);
            end = middle;
        } else {
            ranges.push(start..middle);
            start = middle;
        }
    }
    if start > 0 {
        ranges.push(start..end);
    }
    ranges.reverse();
    Ok(ranges)
}

/// Where a subtree of two leaves or more divides: the largest power of two smaller than their number
/// lie to the left.
fn middle(start: u64, end: u64) -> u64 {
    start + (1 << (end - start - 1).ilog2())
}

/// The complete subtrees that a subtree is made of, the largest first.
fn cover(range: Range<u64>) -> Vec<Node> {
    let Range { mut start, end } = range;
    let mut nodes = Vec::new();
    while let Some(level) = (end - start).checked_ilog2() {
        nodes.push(Node { level: level as u8, index: start >> level });
        start += 1 << level;
    }
    nodes
}

/// The hash of a subtree: of the complete ones it is made of, the smaller ones are the deeper.
pub(super) fn subtree(
    range: Range<u64>,
    hash: &impl Fn(Node) -> Option<Digest>,
) -> Result<Digest, TreeError> {
    let mut below = None;
    for node in cover(range).into_iter().rev() {
        let left = hash(node).ok_or(TreeError::Missing(node))?;
        below = Some(below.map_or(left, |right| node_hash(&left, &right)));
    }
    Ok(below.unwrap_or_else(empty_root))
}
