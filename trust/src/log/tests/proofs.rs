//! Proofs hold for what they are made for, and for nothing else.

use proptest::{prelude::*, sample::Index};

use super::*;

#[test]
fn the_empty_tree_is_the_beginning_of_every_tree() {
    let (empty, other) = (empty_root(), leaf_hash(b"x"));
    assert_eq!(consistency(0, 7, |_| None), Ok(Vec::new()));
    assert_eq!(verify_consistency(0, &empty, 0, &empty, &[]).map(drop), Ok(()));
    assert_eq!(verify_consistency(0, &empty, 7, &other, &[]).map(drop), Ok(()));
    assert_eq!(verify_consistency(0, &empty, 7, &other, &[other]), Err(ProofError::Length));
    assert_eq!(verify_consistency(0, &other, 7, &other, &[]), Err(ProofError::OldRoot));
    assert_eq!(verify_consistency(0, &empty, 0, &other, &[]), Err(ProofError::Root));
}

#[test]
fn a_fork_is_seen() {
    let (one, other) = (nodes(entries(10)), nodes(entries(9).chain([[0xff; 8]])));
    let [one, other] = [one, other].map(|nodes| root(10, |node| nodes.get(&node).copied()).unwrap());
    assert_eq!(verify_consistency(10, &one, 10, &other, &[]), Err(ProofError::Root));
    assert_eq!(verify_consistency(10, &one, 9, &other, &[]), Err(ProofError::Shrinks { old: 10, new: 9 }));
}

#[test]
fn what_can_not_be_proven_is_refused() {
    let nodes = nodes(entries(4));
    let hash = |node| nodes.get(&node).copied();
    assert_eq!(inclusion(4, 4, hash), Err(TreeError::NoLeaf { index: 4, size: 4 }));
    assert_eq!(inclusion_nodes(0, 0), Err(TreeError::NoLeaf { index: 0, size: 0 }));
    assert_eq!(consistency(5, 4, hash), Err(TreeError::Shrinks { old: 5, new: 4 }));
    let missing = TreeError::Missing(Node { level: 0, index: 4 });
    assert_eq!(root(5, hash), Err(missing));
    assert_eq!(inclusion(0, 5, hash), Err(missing));
    assert_eq!(consistency(4, 5, hash), Err(missing));
    assert_eq!(Frontier::read(5, hash), Err(missing));
}

#[test]
fn a_frontier_is_what_its_size_says() {
    let hash = leaf_hash(b"x");
    assert!(Frontier::from_parts(5, vec![hash; 2]).is_ok());
    assert_eq!(Frontier::from_parts(5, vec![hash]), Err(FrontierError::Hashes { size: 5, hashes: 1 }));
    assert_eq!(Frontier::from_parts(MAX_SIZE + 1, vec![hash]), Err(FrontierError::Full));
    let mut full = Frontier::from_parts(MAX_SIZE, vec![hash; 63]).unwrap();
    let before = full.clone();
    assert_eq!(full.append(hash), Err(FrontierError::Full));
    assert_eq!(full, before);
}

/// One place of a proof changed, or a hash more or less, or another place or size.
#[derive(Debug, Clone)]
enum Change {
    Flip(Index, u8),
    Drop(Index),
    Add(Index, [u8; 32]),
    Swap(Index, Index),
}

impl Change {
    fn apply(&self, proof: &mut Vec<Digest>) {
        match self {
            Self::Flip(place, bit) if !proof.is_empty() => {
                place.get_mut(proof).0[usize::from(bit / 8)] ^= 1 << (bit % 8);
            }
            Self::Drop(place) if !proof.is_empty() => drop(proof.remove(place.index(proof.len()))),
            Self::Add(place, hash) => proof.insert(place.index(proof.len() + 1), Digest(*hash)),
            Self::Swap(one, other) if !proof.is_empty() => {
                let [one, other] = [one, other].map(|place| place.index(proof.len()));
                proof.swap(one, other);
            }
            _ => {}
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(place, bit)| Change::Flip(place, bit)),
        any::<Index>().prop_map(Change::Drop),
        (any::<Index>(), any::<[u8; 32]>()).prop_map(|(place, hash)| Change::Add(place, hash)),
        (any::<Index>(), any::<Index>()).prop_map(|(one, other)| Change::Swap(one, other)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_changed_proof_is_refused(size in 1..600_u64, place in any::<Index>(), change in change()) {
        let nodes = nodes(entries(size));
        let hash = |node| nodes.get(&node).copied();
        let index = place.index(size as usize) as u64;
        let (old, leaf) = (index + 1, leaf_hash(&index.to_be_bytes()));
        let (old_root, new_root) = (root(old, hash).unwrap(), root(size, hash).unwrap());

        let proof = inclusion(index, size, hash).unwrap();
        prop_assert_eq!(verify_inclusion(&leaf, index, size, &proof, &new_root).map(drop), Ok(()));
        let mut changed = proof.clone();
        change.apply(&mut changed);
        let verified = verify_inclusion(&leaf, index, size, &changed, &new_root);
        prop_assert_eq!(verified.is_ok(), changed == proof);

        let proof = consistency(old, size, hash).unwrap();
        prop_assert_eq!(verify_consistency(old, &old_root, size, &new_root, &proof).map(drop), Ok(()));
        let mut changed = proof.clone();
        change.apply(&mut changed);
        let verified = verify_consistency(old, &old_root, size, &new_root, &changed);
        prop_assert_eq!(verified.is_ok(), changed == proof);
    }

    #[test]
    fn a_proof_of_another_leaf_place_or_root_is_refused(size in 2..600_u64, place in any::<[Index; 2]>()) {
        let nodes = nodes(entries(size));
        let hash = |node| nodes.get(&node).copied();
        let [index, other] = place.map(|place| place.index(size as usize) as u64);
        prop_assume!(index != other);
        let [leaf, other_leaf] = [index, other].map(|index| leaf_hash(&index.to_be_bytes()));
        let root_of_all = root(size, hash).unwrap();
        let proof = inclusion(index, size, hash).unwrap();
        prop_assert!(verify_inclusion(&other_leaf, index, size, &proof, &root_of_all).is_err());
        prop_assert!(verify_inclusion(&leaf, other, size, &proof, &root_of_all).is_err());
        prop_assert!(verify_inclusion(&leaf, index, size, &proof, &leaf_hash(b"other")).is_err());

        let (old, new) = (index.min(other) + 1, index.max(other) + 1);
        let (old_root, new_root) = (root(old, hash).unwrap(), root(new, hash).unwrap());
        let proof = consistency(old, new, hash).unwrap();
        let forged = leaf_hash(b"other");
        prop_assert!(verify_consistency(old, &forged, new, &new_root, &proof).is_err());
        prop_assert!(verify_consistency(old, &old_root, new, &forged, &proof).is_err());
    }
}
