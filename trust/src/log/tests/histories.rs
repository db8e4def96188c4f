//! Proofs of one log go together; those of two do not, whatever the sizes of their heads.

use proptest::{prelude::*, sample::Index};

use super::*;

/// The entries of a log, where one of them may be another.
fn log(size: u64, other: Option<u64>) -> Nodes {
    nodes((0..size).map(|index| if Some(index) == other { [0xff; 8] } else { index.to_be_bytes() }))
}

/// What the inclusion proof of a leaf shows.
fn included(nodes: &Nodes, index: u64, size: u64) -> Vec<Subtree> {
    let hash = |node| nodes.get(&node).copied();
    let (proof, root) = (inclusion(index, size, hash).unwrap(), root(size, hash).unwrap());
    verify_inclusion(&nodes[&Node::leaf(index)], index, size, &proof, &root).unwrap()
}

/// What the proof between two heads shows.
fn grown(nodes: &Nodes, old: u64, new: u64) -> Vec<Subtree> {
    let hash = |node| nodes.get(&node).copied();
    let [old_root, new_root] = [old, new].map(|size| root(size, hash).unwrap());
    verify_consistency(old, &old_root, new, &new_root, &consistency(old, new, hash).unwrap()).unwrap()
}

/// Whether a history holds all of these.
fn agree(shown: &[Vec<Subtree>]) -> bool {
    let mut history = History::default();
    shown.iter().all(|shown| history.add(shown).is_ok())
        && shown.iter().all(|shown| history.check(shown).is_ok())
}

#[test]
fn a_leaf_that_a_larger_tree_has_otherwise_is_seen() {
    let (one, other) = (log(7, None), log(8, Some(1)));
    // The sibling of leaf 0 is leaf 1; leaf 2 and leaf 0 have the subtree of both in common.
    assert!(!agree(&[included(&one, 0, 7), included(&other, 1, 8)]));
    assert!(!agree(&[included(&one, 2, 7), included(&other, 0, 8)]));
    assert!(!agree(&[included(&one, 5, 7), included(&other, 6, 8)]), "the first four leaves");
    assert!(agree(&[included(&one, 0, 7), included(&log(8, Some(7)), 7, 8)]), "the seven are the same");
    // Leaves 4 to 6 are one subtree of the smaller tree alone: it is made of two of the larger.
    let other = log(8, Some(6));
    assert!(!agree(&[included(&one, 0, 7), included(&other, 6, 8)]));
    assert!(!agree(&[grown(&one, 4, 7), included(&other, 6, 8)]));
    assert!(!agree(&[grown(&one, 3, 5), grown(&log(9, Some(2)), 3, 9)]));
    // Nothing that the one shows has a hash in the other.
    assert!(agree(&[included(&log(1, None), 0, 1), included(&log(9, Some(8)), 8, 9)]));
}

#[test]
fn of_what_contradicts_nothing_is_kept() {
    let (one, other) = (log(7, None), log(8, Some(1)));
    let mut history = History::default();
    history.add(&included(&one, 0, 7)).unwrap();
    assert_eq!(history.add(&included(&other, 5, 8)), Err(Contradiction(0..4)));
    history.add(&included(&log(8, None), 5, 8)).unwrap();
}

proptest! {
    #[test]
    fn proofs_of_one_log_agree(
        sizes in prop::collection::vec((1..200_u64, any::<Index>(), any::<Index>()), 1..8),
    ) {
        let nodes = log(200, None);
        let shown = sizes.iter().flat_map(|(size, index, old)| {
            let [index, old] = [index, old].map(|place| place.index(*size as usize) as u64);
            [included(&nodes, index, *size), grown(&nodes, old, *size)]
        });
        prop_assert!(agree(&shown.collect::<Vec<_>>()));
    }

    /// Two receipts of a leaf and of another, where that leaf is another: whoever shows the root of the smaller tree in
    /// the larger one shows it.
    #[test]
    fn a_consistency_proof_ties_all_to_one_log(
        (old, new) in (1..100_u64, 100..200_u64), place in any::<[Index; 2]>(),
    ) {
        let [index, other] = place.map(|place| place.index(old as usize) as u64);
        let (one, forked) = (log(200, None), log(200, Some(other)));
        let shown = [included(&one, index, old), grown(&one, old, new), included(&forked, index, new)];
        prop_assert!(!agree(&shown));
    }
}
