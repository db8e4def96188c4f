//! Against an independent implementation, ct-merkle: its roots, its proofs here, and ours there.

use ct_merkle::{ConsistencyProof, InclusionProof, RootHash, mem_backed_tree::MemoryBackedTree};
use proptest::prelude::*;
use sha2::Sha256;

use super::*;

type Oracle = MemoryBackedTree<Sha256, [u8; 8]>;

fn oracle(size: u64) -> Oracle {
    let mut oracle = Oracle::new();
    entries(size).for_each(|entry| oracle.push(entry));
    oracle
}

fn root_of(oracle: &Oracle) -> Digest {
    Digest(oracle.root().as_bytes().as_slice().try_into().unwrap())
}

fn theirs(root: Digest, size: u64) -> RootHash<Sha256> {
    RootHash::new(root.0.into(), size)
}

fn ours(proof: &[u8]) -> Vec<Digest> {
    proof.as_chunks().0.iter().copied().map(Digest).collect()
}

fn bytes(proof: &[Digest]) -> Vec<u8> {
    proof.iter().flat_map(|hash| hash.0).collect()
}

#[test]
fn roots_of_all_small_sizes() {
    let nodes = nodes(entries(300));
    let hash = |node| nodes.get(&node).copied();
    let (mut frontier, mut oracle) = (Frontier::new(), Oracle::new());
    for (size, entry) in (0..).zip(entries(301)) {
        let expected = root_of(&oracle);
        assert_eq!(frontier.root(), expected, "{size}");
        assert_eq!(root(size, hash), Ok(expected), "{size}");
        assert_eq!(Frontier::read(size, hash), Ok(frontier.clone()), "{size}");
        frontier.append(leaf_hash(&entry)).unwrap();
        oracle.push(entry);
    }
}

#[test]
fn proofs_of_all_small_sizes() {
    let nodes = nodes(entries(65));
    let hash = |node| nodes.get(&node).copied();
    for size in 1..=65 {
        let oracle = oracle(size);
        for index in 0..size {
            let expected = ours(oracle.prove_inclusion(index as usize).as_bytes());
            assert_eq!(inclusion(index, size, hash), Ok(expected), "{index} of {size}");
        }
        for old in 1..=size {
            let expected = ours(oracle.prove_consistency((size - old) as usize).as_bytes());
            assert_eq!(consistency(old, size, hash), Ok(expected), "{old} to {size}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn proofs_hold_in_both_implementations(
        size in 1..10_000_u64,
        places in proptest::collection::vec(any::<proptest::sample::Index>(), 16),
    ) {
        let nodes = nodes(entries(size));
        let hash = |node| nodes.get(&node).copied();
        let oracle = oracle(size);
        let new_root = root_of(&oracle);
        prop_assert_eq!(root(size, hash), Ok(new_root));
        for place in places {
            let index = place.index(size as usize) as u64;
            let entry = index.to_be_bytes();

            let proof = inclusion(index, size, hash).unwrap();
            let its = oracle.prove_inclusion(index as usize);
            prop_assert_eq!(&proof, &ours(its.as_bytes()));
            let leaf = leaf_hash(&entry);
            prop_assert_eq!(verify_inclusion(&leaf, index, size, &ours(its.as_bytes()), &new_root).map(drop), Ok(()));
            let read = InclusionProof::<Sha256>::try_from_bytes(bytes(&proof)).unwrap();
            theirs(new_root, size).verify_inclusion(&entry, index, &read).unwrap();

            let old = index + 1;
            let old_root = root(old, hash).unwrap();
            let proof = consistency(old, size, hash).unwrap();
            let its = oracle.prove_consistency((size - old) as usize);
            prop_assert_eq!(&proof, &ours(its.as_bytes()));
            let its = ours(its.as_bytes());
            prop_assert_eq!(verify_consistency(old, &old_root, size, &new_root, &its).map(drop), Ok(()));
            let read = ConsistencyProof::<Sha256>::try_from_bytes(bytes(&proof)).unwrap();
            theirs(new_root, size).verify_consistency(&theirs(old_root, old), &read).unwrap();
        }
    }
}
