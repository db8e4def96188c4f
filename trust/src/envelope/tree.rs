//! The recipients' Merkle tree. Its depth is fixed and its empty places look like others, so that
//! neither root nor path tells how many recipients there are.

use std::collections::BTreeMap;

use liaison_proto::limits::{RECIPIENT_TREE_DEPTH, RECIPIENTS};

use crate::digest::{Digest, hash};

/// The digests that stand beside the way from a leaf to the root, from the leaf's level on.
pub(super) type Path = [Digest; RECIPIENT_TREE_DEPTH];

/// A tree with the nodes that some path needs.
pub(super) struct Tree {
    /// By level, the leaves' being 0, then by index.
    levels: Vec<BTreeMap<u32, Digest>>,
    root: Digest,
}

impl Tree {
    /// The tree over recipients' leaves by index, the rest of it empty under `seed`.
    pub(super) fn new(leaves: BTreeMap<u32, Digest>, seed: &[u8]) -> Self {
        let mut levels = Vec::with_capacity(RECIPIENT_TREE_DEPTH);
        let mut level = leaves;
        for height in 0..RECIPIENT_TREE_DEPTH {
            let missing: Vec<u32> =
                level.keys().map(|index| index ^ 1).filter(|index| !level.contains_key(index)).collect();
            level.extend(missing.into_iter().map(|index| (index, empty(seed, height, index))));
            let above = level
                .iter()
                .filter(|(index, _)| index.is_multiple_of(2))
                .filter_map(|(index, left)| Some((index / 2, node(left, level.get(&(index + 1))?))))
                .collect();
            levels.push(std::mem::replace(&mut level, above));
        }
        let root = level.remove(&0).unwrap_or_else(|| empty(seed, RECIPIENT_TREE_DEPTH, 0));
        Self { levels, root }
    }

    /// The root.
    pub(super) fn root(&self) -> Digest {
        self.root
    }

    /// The path of a leaf that the tree was made with.
    pub(super) fn path(&self, index: u32) -> Option<Path> {
        let mut path = [Digest([0; 32]); RECIPIENT_TREE_DEPTH];
        for (height, (place, level)) in path.iter_mut().zip(&self.levels).enumerate() {
            *place = *level.get(&((index >> height) ^ 1))?;
        }
        Some(path)
    }
}

/// The root that a leaf at `index` has with this path; none where the index is outside the tree.
pub(super) fn root_of(leaf: Digest, index: u32, path: &Path) -> Option<Digest> {
    if !is_index(index) {
        return None;
    }
    Some(path.iter().enumerate().fold(leaf, |below, (height, sibling)| {
        if (index >> height).is_multiple_of(2) { node(&below, sibling) } else { node(sibling, &below) }
    }))
}

/// Whether the tree has a leaf of this index.
pub(super) fn is_index(index: u32) -> bool {
    usize::try_from(index).is_ok_and(|index| index < RECIPIENTS)
}

fn node(left: &Digest, right: &Digest) -> Digest {
    hash("node/v1", &[left.as_ref(), right.as_ref()])
}

fn empty(seed: &[u8], height: usize, index: u32) -> Digest {
    // The height is 12 at most.
    let height = u32::try_from(height).unwrap_or(u32::MAX);
    hash("empty/v1", &[seed, &height.to_be_bytes(), &index.to_be_bytes()])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaf(index: u32) -> Digest {
        hash("leaf", &[&index.to_be_bytes()])
    }

    /// The tree as ENVELOPE.md defines it, node by node.
    fn by_definition(leaves: &BTreeMap<u32, Digest>, seed: &[u8], height: usize, index: u32) -> Digest {
        let width = 1 << height;
        if leaves.range(index * width..(index + 1) * width).next().is_none() {
            return empty(seed, height, index);
        }
        match height {
            0 => leaves[&index],
            _ => node(
                &by_definition(leaves, seed, height - 1, index * 2),
                &by_definition(leaves, seed, height - 1, index * 2 + 1),
            ),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_path_leads_to_the_root(
            indices in proptest::collection::btree_set(0..4096_u32, 1..60),
            seed: [u8; 32],
            other in 0..4096_u32,
        ) {
            let leaves: BTreeMap<_, _> = indices.iter().map(|index| (*index, leaf(*index))).collect();
            let tree = Tree::new(leaves.clone(), &seed);
            prop_assert_eq!(tree.root(), by_definition(&leaves, &seed, 12, 0));
            for index in &indices {
                let path = tree.path(*index).unwrap();
                prop_assert_eq!(root_of(leaf(*index), *index, &path), Some(tree.root()));
                prop_assert_ne!(root_of(leaf(index + 1), *index, &path), Some(tree.root()));
                prop_assert_eq!(root_of(leaf(*index), index + 4096, &path), None);
                if other != *index {
                    prop_assert_ne!(root_of(leaf(*index), other, &path), Some(tree.root()));
                }
            }
            prop_assert_ne!(tree.root(), Tree::new(leaves, b"another seed").root());
        }
    }

    #[test]
    fn holds_4096() {
        let tree = Tree::new((0..4096).map(|index| (index, leaf(index))).collect(), &[0; 32]);
        for index in [0, 1, 2047, 4095] {
            assert_eq!(root_of(leaf(index), index, &tree.path(index).unwrap()), Some(tree.root()));
        }
    }
}
