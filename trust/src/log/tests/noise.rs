//! Nothing that a stranger sends makes the readers and verifiers panic, and what they read they write
//! again as it was.

use proptest::prelude::*;

use super::*;

/// Numbers at the edges, where sums and shifts go wrong.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..20_u64,
        any::<u64>(),
        (0..64_u32, 0..3_u64).prop_map(|(bits, less)| (1 << bits) - less.min(1 << bits)),
        (0..3_u64).prop_map(|less| u64::MAX - less),
    ]
}

fn hashes() -> impl Strategy<Value = Vec<Digest>> {
    proptest::collection::vec(any::<[u8; 32]>().prop_map(Digest), 0..70)
}

/// Text that is nearly what is expected.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\n".to_owned()),
        Just("\n\n".to_owned()),
        Just("— ".to_owned()),
        Just("— be/log HAyFyLLicu1EK3yXmdSJdaobKS/JlHz8iAaS/NN3skFvaIr5MQ5pub0hTTby0qVf0JlKyzr1HkvjD75pSHSqwN7/0gc=\n".to_owned()),
        Just("be/log\n".to_owned()),
        Just("5\nyf2q51YPSzHDNZuG7IcgDUmiOqgxDQcYKXkV2VAjXEs=\n".to_owned()),
        Just("c2sp.org/tlog-proof@v1\n".to_owned()),
        Just("extra AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgJyZWNvcmQgMg==\n".to_owned()),
        Just("index ".to_owned()),
        Just("be/log+1c0c85c8+".to_owned()),
        Just("AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c".to_owned()),
        Just("tile/".to_owned()),
        Just("entries/".to_owned()),
        "x?[0-9]{1,3}/?",
        "(\\.p/)?[0-9]{1,3}",
        "[0-9]{1,20}\n?",
        "[A-Za-z0-9+/]{0,44}=?\n?",
        any::<String>(),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn proofs(
        [a, b] in [number(), number()],
        [one, other] in any::<[[u8; 32]; 2]>(),
        proof in hashes(),
    ) {
        let (one, other) = (Digest(one), Digest(other));
        prop_assert!(verify_inclusion(&one, a, b, &proof, &other).is_err());
        let verified = verify_consistency(a, &one, b, &other, &proof);
        prop_assert!(verified.is_err());
        let equal = verify_consistency(a, &one, b, &one, &proof);
        prop_assert_eq!(equal.is_ok(), a == b && a > 0 && proof.is_empty());
    }

    #[test]
    fn making_proofs([a, b] in [number(), number()], level in any::<u8>()) {
        let hash = |node: Node| Some(leaf_hash(format!("{node:?}").as_bytes()));
        let _ = (Frontier::read(a, hash), Tile::holding(Node { level, index: a }, b));
        let mut tiles = TileHashes::new();
        let _ = tiles.insert(Tile::new(level % 64, a >> 9, 256).unwrap(), &[0; 8192]);
        let _ = tiles.hash(Node { level, index: b });
        let _ = (new_tiles(a, b).next(), new_bundles(a, b).next());
        prop_assert!(root(a, hash).is_ok());
        prop_assert_eq!(inclusion(a, b, hash).is_ok(), a < b);
        prop_assert_eq!(consistency(a, b, hash).is_ok(), a <= b);
        // A proof that is as long as it should be, of hashes that are no tree's.
        if let Ok(proof) = inclusion(a, b, hash) {
            let verified = verify_inclusion(&empty_root(), a, b, &proof, &leaf_hash(b"root"));
            prop_assert_eq!(verified, Err(ProofError::Root));
        }
        if let Ok(proof) = consistency(a, b, hash) && 0 < a && a < b {
            let verified = verify_consistency(a, &empty_root(), b, &leaf_hash(b"root"), &proof);
            // Where the old tree is complete, its root is where the proof begins.
            let expected = if a.is_power_of_two() { ProofError::Root } else { ProofError::OldRoot };
            prop_assert_eq!(verified, Err(expected));
        }
    }

    #[test]
    fn texts(text in text()) {
        if let Ok(note) = Note::parse(text.as_bytes()) {
            prop_assert_eq!(note.to_string(), text.clone());
        }
        if let Ok(checkpoint) = text.parse::<Checkpoint>() {
            prop_assert_eq!(checkpoint.to_string(), text.clone());
        }
        if let Ok(receipt) = Receipt::parse(text.as_bytes()) {
            prop_assert_eq!(receipt.to_string(), text.clone());
        }
        if let Ok(key) = text.parse::<LogKey>() {
            prop_assert_eq!(key.to_string(), text.clone());
        }
        if let Ok(tile) = text.parse::<Tile>() {
            prop_assert_eq!(tile.to_string(), text.clone());
        }
        if let Ok(bundle) = text.parse::<EntryBundle>() {
            prop_assert_eq!(bundle.to_string(), text.clone());
        }
        if let Ok(line) = NoteSignature::parse(&text) {
            prop_assert_eq!(line.to_string(), text.clone());
        }
        if let Ok(name) = text.parse::<KeyName>() {
            prop_assert_eq!(name.to_string(), text.clone());
        }
        let _ = text.parse::<WitnessKey>();
    }

    #[test]
    fn bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600), width in 1..=256_u16) {
        let _ = (Note::parse(&bytes), Receipt::parse(&bytes));
        let bundle = EntryBundle::new(0, width).unwrap();
        if let Ok(entries) = bundle.decode(&bytes) {
            prop_assert_eq!(bundle.encode(&entries), Ok(bytes.clone()));
        }
        let _ = TileHashes::new().insert(Tile::new(0, 0, width).unwrap(), &bytes);
    }
}
