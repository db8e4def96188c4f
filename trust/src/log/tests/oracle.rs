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

/// The most leaves that are compared.
const MOST: u64 = 10_000;

#[test]
fn roots_of_all_sizes() {
    let nodes = nodes(entries(MOST));
    let hash = |node| nodes.get(&node).copied();
    let (mut frontier, mut oracle) = (Frontier::new(), Oracle::new());
    for (size, entry) in (0..=MOST).zip(entries(MOST + 1)) {
        let expected = root_of(&oracle);
        assert_eq!(frontier.root(), expected, "{size}");
        assert_eq!(root(size, hash), Ok(expected), "{size}");
        assert_eq!(Frontier::read(size, hash), Ok(frontier.clone()), "{size}");
        frontier.append(leaf_hash(&entry)).unwrap();
        oracle.push(entry);
    }
    assert_eq!(frontier.size(), MOST + 1);
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

/// Proofs of these leaves, and of the growth from the trees that they are the last of: ours and theirs are the same, and
/// hold in both implementations.
fn proofs_hold_in_both(size: u64, indexes: impl IntoIterator<Item = u64>) {
    let nodes = nodes(entries(size));
    let hash = |node| nodes.get(&node).copied();
    let oracle = oracle(size);
    let new_root = root_of(&oracle);
    assert_eq!(root(size, hash), Ok(new_root));
    for index in indexes {
        let entry = index.to_be_bytes();

        let proof = inclusion(index, size, hash).unwrap();
        let its = ours(oracle.prove_inclusion(index as usize).as_bytes());
        assert_eq!(proof, its, "{index} of {size}");
        let shown = verify_inclusion(&leaf_hash(&entry), index, size, &its, &new_root);
        assert_eq!(shown.map(drop), Ok(()), "{index} of {size}");
        let read = InclusionProof::<Sha256>::try_from_bytes(bytes(&proof)).unwrap();
        theirs(new_root, size).verify_inclusion(&entry, index, &read).unwrap();

        let old = index + 1;
        let old_root = root(old, hash).unwrap();
        let proof = consistency(old, size, hash).unwrap();
        let its = ours(oracle.prove_consistency((size - old) as usize).as_bytes());
        assert_eq!(proof, its, "{old} to {size}");
        let shown = verify_consistency(old, &old_root, size, &new_root, &its);
        assert_eq!(shown.map(drop), Ok(()), "{old} to {size}");
        let read = ConsistencyProof::<Sha256>::try_from_bytes(bytes(&proof)).unwrap();
        theirs(new_root, size).verify_consistency(&theirs(old_root, old), &read).unwrap();
    }
}

#[test]
fn proofs_of_the_largest_size_hold_in_both_implementations() {
    // The first and the last leaves, and those about the complete subtrees.
    let edges = (0..14).flat_map(|level| [(1 << level) - 1, 1 << level]).chain([MOST - 2, MOST - 1]);
    proofs_hold_in_both(MOST, edges);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn proofs_hold_in_both_implementations(
        size in 1..=MOST,
        places in proptest::collection::vec(any::<proptest::sample::Index>(), 16),
    ) {
        proofs_hold_in_both(size, places.iter().map(|place| place.index(size as usize) as u64));
    }
}
