//! Noise: no input makes anything panic, and no flipped byte goes unseen.

use liaison_proto::strict;
use proptest::prelude::*;

use super::*;
use crate::envelope::head::Head;
use liaison_proto::message::v1::{Acceptance, SignedAcceptance, SignedKeyRecord};

/// The bytes with some of them changed, cut or doubled.
fn disturbed(bytes: &[u8], changes: &[(usize, u8)], cut: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (place, value) in changes {
        let place = place % bytes.len();
        bytes[place] = *value;
    }
    bytes.truncate(bytes.len().saturating_sub(cut));
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let scene = Scene::new(Kem::X25519);
        let all = bytes::Bytes::from(bytes.clone());
        let _ = Head::read(&bytes);
        let _ = strict::decode::<Envelope>(&bytes).map(|envelope| verify(envelope, NOW).is_ok());
        let _ = strict::decode::<SealedCopy>(&bytes).map(|copy| scene.receive(&copy).is_ok());
        let record = SignedKeyRecord { record: all.clone(), signature: all.clone(), predecessor_signature: all.clone() };
        prop_assert!(key_record::prove(&record).is_err());
        prop_assert!(key_record::prove_chain(&[record]).is_err());
        let signature = scene.gateway.sign("acceptance/v1", &bytes).to_vec().into();
        let _ = statement::read::<Acceptance>(&SignedAcceptance { acceptance: all, signature }, &scene.gateway.public());
        let signed = scene.sender.sign_bytes(&scene.envelope(), bytes);
        let _ = verify(signed, NOW);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn disturbed_messages_are_read_without_panic(
        changes in proptest::collection::vec(
            (proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4), 0..3_usize), 200),
    ) {
        let scene = Scene::new(Kem::X25519);
        let (envelope, copy) = (scene.envelope(), scene.copy());
        let (whole, mine) = (envelope.encode_to_vec(), copy.encode_to_vec());
        for (changes, cut) in changes {
            let bytes = disturbed(&whole, &changes, cut);
            let _ = strict::decode::<Envelope>(&bytes).map(|envelope| verify(envelope, NOW).is_ok());
            let bytes = disturbed(&mine, &changes, cut);
            let _ = strict::decode::<SealedCopy>(&bytes).map(|copy| scene.receive(&copy).is_ok());
            let signed = scene.sender.sign_bytes(&envelope, disturbed(&envelope.manifest, &changes, cut));
            let _ = verify(signed, NOW);
        }
    }

    #[test]
    fn any_flipped_byte_of_a_copy_is_refused(
        x_wing: bool,
        released in 0..=SCENE.len(),
        flips in proptest::collection::vec((any::<usize>(), 1..=255_u8), 300),
    ) {
        let scene = Scene::new(if x_wing { Kem::XWing } else { Kem::X25519 });
        let verified = verify(scene.envelope(), NOW).unwrap();
        let copy = release(&verified, 0, &SCENE[..released], &scene.gateway).encode_to_vec();
        for (place, flip) in flips {
            let mut bytes = copy.clone();
            let place = place % bytes.len();
            bytes[place] ^= flip;
            let accepted = strict::decode::<SealedCopy>(&bytes).is_ok_and(|copy| scene.receive(&copy).is_ok());
            prop_assert!(!accepted, "byte {place} of {} changed by {flip:#x}", copy.len());
        }
    }
}
