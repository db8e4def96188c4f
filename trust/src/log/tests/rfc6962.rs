//! The test vectors of Certificate Transparency's merkle_tree test, which every implementation of
//! RFC 6962 shares.

use super::*;

const LEAVES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];
const N10: &str = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
const N12: &str = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
const N24: &str = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";
const N4: &str = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
const N67: &str = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
const N45: &str = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";
const N6: &str = "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f";

/// Index, size, proof.
const INCLUSION: [(u64, u64, &[&str]); 5] = [
    (0, 1, &[]),
    (0, 8, &[N10, N12, N24]),
    (5, 8, &[N4, N67, ROOTS[4]]),
    (2, 3, &[ROOTS[2]]),
    (1, 5, &[ROOTS[1], N12, N4]),
];
/// Old size, new size, proof.
const CONSISTENCY: [(u64, u64, &[&str]); 5] = [
    (1, 1, &[]),
    (1, 8, &[N10, N12, N24]),
    (6, 8, &[N45, N67, ROOTS[4]]),
    (2, 5, &[N12, N4]),
    (6, 7, &[N45, N6, ROOTS[4]]),
];

fn leaves() -> impl Iterator<Item = Vec<u8>> {
    LEAVES.iter().map(|leaf| hex::decode(leaf).unwrap())
}

fn digests(proof: &[&str]) -> Vec<Digest> {
    proof.iter().map(|hash| digest(hash)).collect()
}

#[test]
fn roots() {
    let nodes = nodes(leaves());
    let mut frontier = Frontier::new();
    assert_eq!(empty_root(), digest(ROOTS[0]));
    assert_eq!(frontier.root(), digest(ROOTS[0]));
    for (size, leaf) in (1..).zip(leaves()) {
        frontier.append(leaf_hash(&leaf)).unwrap();
        assert_eq!(frontier.root(), digest(ROOTS[size as usize]), "{size}");
        assert_eq!(root(size, |node| nodes.get(&node).copied()), Ok(digest(ROOTS[size as usize])), "{size}");
    }
}

#[test]
fn inclusion_proofs() {
    let nodes = nodes(leaves());
    let hash = |node| nodes.get(&node).copied();
    for (index, size, expected) in INCLUSION {
        let proof = inclusion(index, size, hash).unwrap();
        assert_eq!(proof, digests(expected), "{index} of {size}");
        let leaf = leaf_hash(&leaves().nth(index as usize).unwrap());
        let root = digest(ROOTS[size as usize]);
        assert_eq!(
            verify_inclusion(&leaf, index, size, &proof, &root).map(drop),
            Ok(()),
            "{index} of {size}"
        );
    }
}

#[test]
fn consistency_proofs() {
    let nodes = nodes(leaves());
    let hash = |node| nodes.get(&node).copied();
    for (old, new, expected) in CONSISTENCY {
        let proof = consistency(old, new, hash).unwrap();
        assert_eq!(proof, digests(expected), "{old} to {new}");
        let (old_root, new_root) = (digest(ROOTS[old as usize]), digest(ROOTS[new as usize]));
        assert_eq!(
            verify_consistency(old, &old_root, new, &new_root, &proof).map(drop),
            Ok(()),
            "{old} to {new}"
        );
    }
}
