//! Verification of proofs (RFC 9162, sections 2.1.3.2 and 2.1.4.2). Everything here is a stranger's
//! word until it is verified: nothing panics, and the work is at most one hash for each one given.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::tree::{empty_root, node_hash};
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

/// Verifies that the tree of `size` leaves with this `root` has at `index` the leaf with this hash.
///
/// # Errors
/// [`ProofError`] in every other case.
pub fn verify_inclusion(
    leaf: &Digest,
    index: u64,
    size: u64,
    proof: &[Digest],
    root: &Digest,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::NoLeaf { index, size });
    }
    let mut way = Way { place: index, last: size - 1 };
    let mut hash = *leaf;
    for beside in proof {
        hash = match way.step()? {
            Side::Left => node_hash(beside, &hash),
            Side::Right => node_hash(&hash, beside),
        };
    }
    way.at_the_root()?;
    if hash == *root { Ok(()) } else { Err(ProofError::Root) }
}

/// Verifies that the tree of `old` leaves with root `old_root` is the beginning of the tree of `new`
/// leaves with root `new_root`. The empty tree is the beginning of every tree.
///
/// # Errors
/// [`ProofError`] in every other case.
pub fn verify_consistency(
    old: u64,
    old_root: &Digest,
    new: u64,
    new_root: &Digest,
    proof: &[Digest],
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::Shrinks { old, new });
    }
    if old == 0 && *old_root != empty_root() {
        return Err(ProofError::OldRoot);
    }
    if old == 0 || old == new {
        return match proof {
            [_, ..] => Err(ProofError::Length),
            [] if old == new && old_root != new_root => Err(ProofError::Root),
            [] => Ok(()),
        };
    }
    let mut way = Way { place: old - 1, last: new - 1 };
    // Where the old tree is complete it is the first hash itself, and is not given.
    let (first, proof) = if old.is_power_of_two() {
        (old_root, proof)
    } else {
        proof.split_first().ok_or(ProofError::Length)?
    };
    way.skip_right_children();
    let (mut old_hash, mut new_hash) = (*first, *first);
    for beside in proof {
        match way.step()? {
            Side::Left => {
                old_hash = node_hash(beside, &old_hash);
                new_hash = node_hash(beside, &new_hash);
            }
            Side::Right => new_hash = node_hash(&new_hash, beside),
        }
    }
    way.at_the_root()?;
    if old_hash != *old_root {
        return Err(ProofError::OldRoot);
    }
    if new_hash == *new_root { Ok(()) } else { Err(ProofError::Root) }
}

/// Reads a hash of a proof from its line.
pub(super) fn read_hash(line: &str) -> Option<Digest> {
    if line.len() >= HASH_LINE {
        return None;
    }
    Digest::try_from(STANDARD.decode(line).ok()?.as_slice()).ok()
}

/// The way from a node to the root: its place on its level, and the last place there.
struct Way {
    place: u64,
    last: u64,
}

/// Where the next hash of a proof stands.
enum Side {
    Left,
    Right,
}

impl Way {
    /// Goes up to the next node that has a sibling, and tells on which side that is.
    fn step(&mut self) -> Result<Side, ProofError> {
        if self.last == 0 {
            return Err(ProofError::Length);
        }
        let side = if self.place % 2 == 1 || self.place == self.last {
            // A last node without a sibling is its own parent.
            while self.place.is_multiple_of(2) && self.place > 0 {
                self.up();
            }
            Side::Left
        } else {
            Side::Right
        };
        self.up();
        Ok(side)
    }

    /// Goes up while the node is the right child: the old tree has all below the parent.
    fn skip_right_children(&mut self) {
        while self.place % 2 == 1 {
            self.up();
        }
    }

    fn up(&mut self) {
        self.place /= 2;
        self.last /= 2;
    }

    fn at_the_root(&self) -> Result<(), ProofError> {
        if self.last == 0 { Ok(()) } else { Err(ProofError::Length) }
    }
}
