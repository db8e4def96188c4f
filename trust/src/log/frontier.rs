//! The right edge of the tree: all that one needs to append to it.

use super::{
    MAX_SIZE,
    tree::{Node, TreeError, empty_root, node_hash, root_nodes},
};
use crate::digest::Digest;

/// The complete subtrees that a tree is made of, the largest first: at most 63 hashes, from which
/// follow its root and every later node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    hashes: Vec<Digest>,
}

/// Why there is no such frontier, or none after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrontierError {
    /// What was stored is not the frontier of a tree of that size.
    #[error("the frontier of a tree of {size} leaves has {} hashes, what was stored has {hashes}", size.count_ones())]
    Hashes { size: u64, hashes: usize },
    /// The log has as many leaves as it can have.
    #[error("a log has at most {MAX_SIZE} leaves")]
    Full,
}

impl Frontier {
    /// The frontier of the tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// The frontier of [`Self::size`] and [`Self::hashes`] as they were stored.
    ///
    /// # Errors
    /// The two do not belong together.
    pub fn from_parts(size: u64, hashes: Vec<Digest>) -> Result<Self, FrontierError> {
        if size > MAX_SIZE {
            return Err(FrontierError::Full);
        }
        if hashes.len() != size.count_ones() as usize {
            return Err(FrontierError::Hashes { size, hashes: hashes.len() });
        }
        Ok(Self { size, hashes })
    }

    /// The frontier of the first `size` leaves, read from the nodes [`root_nodes`] tells.
    ///
    /// # Errors
    /// [`TreeError::Missing`] if `hash` does not know one.
    pub fn read(size: u64, hash: impl Fn(Node) -> Option<Digest>) -> Result<Self, TreeError> {
        let hashes = root_nodes(size).into_iter().map(|node| hash(node).ok_or(TreeError::Missing(node)));
        Ok(Self { size, hashes: hashes.collect::<Result<_, _>>()? })
    }

    /// The number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hashes of the complete subtrees, the largest first.
    pub fn hashes(&self) -> &[Digest] {
        &self.hashes
    }

    /// The root of the tree.
    pub fn root(&self) -> Digest {
        let root = self.hashes.iter().rev().copied().reduce(|right, left| node_hash(&left, &right));
        root.unwrap_or_else(empty_root)
    }

    /// Appends a leaf by its hash and tells the nodes that are complete since: the leaf, and each
    /// subtree that it ends, upwards.
    ///
    /// # Errors
    /// [`FrontierError::Full`]; nothing is changed then.
    pub fn append(&mut self, leaf: Digest) -> Result<Vec<(Node, Digest)>, FrontierError> {
        if self.size >= MAX_SIZE {
            return Err(FrontierError::Full);
        }
        let mut node = Node::leaf(self.size);
        let mut hash = leaf;
        let mut complete = vec![(node, hash)];
        while !node.index.is_multiple_of(2)
            && let Some(left) = self.hashes.pop()
        {
            hash = node_hash(&left, &hash);
            node = Node { level: node.level + 1, index: node.index / 2 };
            complete.push((node, hash));
        }
        self.hashes.push(hash);
        self.size += 1;
        Ok(complete)
    }
}
