//! Notes, checkpoints and cosignatures, against the examples of C2SP, Go's and a public log's.

use proptest::prelude::*;

use super::*;
use crate::keys::SigningKey;

/// The example of signed-note.
const EXAMPLE_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const EXAMPLE: &str = "This is an example message.\n\n\
    — example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

/// A checkpoint of a public Certificate Transparency log, signed by it in two ways and cosigned.
const PUBLIC: &str = "arche2025h1.staging.ct.transparency.dev\n\
    1432088532\n\
    U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=\n\
    \n\
    — arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=\n\
    — arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=\n\
    — transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==\n\
    — remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==\n";
const PUBLIC_LOG: &str =
    "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f";
const PUBLIC_WITNESS: &str = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2";

fn note(text: &str) -> Note {
    Note::parse(text.as_bytes()).unwrap()
}

fn signer(name: &str, seed: u8) -> LogSigner {
    LogSigner::new(super::name(name), SigningKey::from_seed(&[seed; 32]))
}

fn witness(name: &str, seed: u8) -> Witness {
    Witness::new(super::name(name), SigningKey::from_seed(&[seed; 32]))
}

#[test]
fn the_example_verifies() {
    let key: LogKey = EXAMPLE_KEY.parse().unwrap();
    assert_eq!(key.to_string(), EXAMPLE_KEY);
    let read = note(EXAMPLE);
    assert_eq!(read.text(), "This is an example message.\n");
    assert_eq!(read.to_string(), EXAMPLE);
    assert_eq!(key.verify(&read), Ok(()));
    assert_eq!(key.open(&read), Err(OpenError::Checkpoint(CheckpointError::Form)));
    let changed = note(&EXAMPLE.replace("an example", "no example"));
    assert_eq!(key.verify(&changed), Err(NoteError::BadSignature(name("example.com/foo"))));
}

#[test]
fn a_public_checkpoint_verifies() {
    let log: LogKey = PUBLIC_LOG.parse().unwrap();
    let witness: WitnessKey = PUBLIC_WITNESS.parse().unwrap();
    assert_eq!((log.to_string(), witness.to_string()), (PUBLIC_LOG.into(), PUBLIC_WITNESS.into()));
    let read = note(PUBLIC);
    assert_eq!(read.to_string(), PUBLIC);
    let checkpoint = log.open(&read).unwrap();
    assert_eq!((checkpoint.origin(), checkpoint.size()), (log.name().as_str(), 1_432_088_532));
    assert_eq!(checkpoint.to_string(), read.text());
    // The bytes 6a122120.
    assert_eq!(witness.verify(&read), Ok(0x6a12_2120));

    let changed = note(&PUBLIC.replace("1432088532", "1432088533"));
    assert_eq!(log.open(&changed), Err(NoteError::BadSignature(log.name().clone()).into()));
    assert_eq!(witness.verify(&changed), Err(NoteError::BadSignature(witness.name().clone()).into()));
    let later = note(&PUBLIC.replace("2net5wAAAABqEiEg", "2net5wAAAABqEiEh"));
    assert_eq!(witness.verify(&later), Err(NoteError::BadSignature(witness.name().clone()).into()));
    assert_eq!(log.open(&later), Ok(checkpoint), "another's bad signature is not the log's");
}

/// The key, text and signature of Go's sumdb/note.
#[test]
fn signs_as_go_does() {
    let seed = hex::decode("810a1402d5146c8d84f2443330f54080ebf98ee17d9c74f6252fc5d5c7283173").unwrap();
    let secret = SigningKey::from_seed(&seed.try_into().unwrap());
    let key = LogKey::new(name("PeterNeumann"), secret.public());
    assert_eq!(key.to_string(), "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW");
    let text = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n";
    let signature = secret.sign_text(text).to_vec();
    let signature = NoteSignature { name: key.name().clone(), key_id: 0xc74f_20a3, signature };
    let line = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
    assert_eq!(signature.to_string(), line);
    assert_eq!(key.verify(&Note::signed(text.into(), signature).unwrap()), Ok(()));
}

#[test]
fn a_log_signs_its_own_heads() {
    let log = signer("be/log", 1);
    let signed = log.sign(5, leaf_hash(b"root")).unwrap();
    let read = note(&signed.to_string());
    assert_eq!(read, signed);
    let checkpoint = log.key().open(&read).unwrap();
    assert_eq!(
        (checkpoint.origin(), checkpoint.size(), checkpoint.root()),
        ("be/log", 5, leaf_hash(b"root"))
    );
    assert_eq!(log.key().to_string().parse(), Ok(log.key().clone()));

    assert_eq!(
        signer("be/log", 2).key().open(&read),
        Err(NoteError::NotSignedBy(name("be/log")).into()),
        "another key of the same name has another id"
    );
    let foreign = Checkpoint::new(&name("hu/log"), 5, leaf_hash(b"root")).unwrap();
    let refused = OpenError::Origin { key: name("be/log"), origin: "hu/log".into() };
    assert_eq!(log.sign_checkpoint(&foreign), Err(refused));
    assert_eq!(log.sign(MAX_SIZE + 1, empty_root()), Err(CheckpointError::Size.into()));
}

/// What a log signs does not pass for another log's head, though the key be the same.
#[test]
fn the_origin_is_the_name_of_the_key() {
    let signed = signer("hu/log", 1).sign(5, leaf_hash(b"root")).unwrap();
    let mut other = signed.signatures()[0].clone();
    other.name = name("be/log");
    other.key_id = 0x1234;
    let key = signer("be/log", 1).key().to_string();
    other.key_id = u32::from_str_radix(key.split('+').nth(1).unwrap(), 16).unwrap();
    let forged = signed.with(other).unwrap();
    let refused = OpenError::Origin { key: name("be/log"), origin: "hu/log".into() };
    assert_eq!(signer("be/log", 1).key().open(&forged), Err(refused));
}

#[test]
fn a_witness_cosigns() {
    let (log, witness) = (signer("be/log", 1), witness("hu/witness", 2));
    let signed = log.sign(5, leaf_hash(b"root")).unwrap();
    assert_eq!(witness.key().verify(&signed), Err(NoteError::NotSignedBy(name("hu/witness")).into()));
    let checkpoint = log.key().open(&signed).unwrap();
    let cosignature = witness.cosign(&checkpoint, 1_700_000_000).unwrap();
    assert_eq!(NoteSignature::parse(&cosignature.to_string()), Ok(cosignature.clone()));
    let both = note(&signed.with(cosignature).unwrap().to_string());
    assert_eq!(log.key().open(&both), Ok(checkpoint.clone()));
    assert_eq!(witness.key().verify(&both), Ok(1_700_000_000));
    assert_eq!(witness.key().to_string().parse(), Ok(witness.key().clone()));

    // A later one takes the place of the earlier.
    let later = both.with(witness.cosign(&checkpoint, 1_700_000_060).unwrap()).unwrap();
    assert_eq!(later.signatures().len(), 2);
    assert_eq!(witness.key().verify(&later), Ok(1_700_000_060));

    let late = witness.cosign(&checkpoint, u64::MAX);
    assert_eq!(late, Err(CosignatureError::Time));
    assert!(witness.cosign(&checkpoint, i64::MAX as u64).is_ok());
    assert_eq!(
        witness.key().to_string().parse::<LogKey>(),
        Err(VkeyError::Type { expected: 1, got: 4 }),
        "a witness is no log"
    );
}

/// Though its key signed both: no checkpoint, and a time that no witness has.
#[test]
fn what_a_witness_can_not_cosign_is_refused() {
    let (secret, witness) = (SigningKey::from_seed(&[2; 32]), witness("hu/witness", 2));
    let id = witness.cosign(&Checkpoint::new(&name("be/log"), 0, empty_root()).unwrap(), 0).unwrap().key_id;
    let cosigned = |text: &str, time: u64| {
        let signature = secret.sign_text(&format!("cosignature/v1\ntime {time}\n{text}"));
        let signature = [time.to_be_bytes().as_slice(), &signature].concat();
        let signature = NoteSignature { name: name("hu/witness"), key_id: id, signature };
        Note::signed(text.into(), signature).unwrap()
    };
    let head = Checkpoint::new(&name("be/log"), 0, empty_root()).unwrap().to_string();
    assert_eq!(witness.key().verify(&cosigned(&head, 5)), Ok(5));
    assert_eq!(witness.key().verify(&cosigned("text\n", 5)), Err(CheckpointError::Form.into()));
    let refused = CosignatureError::Note(NoteError::BadSignature(name("hu/witness")));
    assert_eq!(witness.key().verify(&cosigned(&head, 1 << 63)), Err(refused));
}

#[test]
fn extensions_are_signed() {
    let log = signer("be/log", 1);
    let checkpoint = Checkpoint::new(&name("be/log"), 0, empty_root()).unwrap();
    let checkpoint = checkpoint.with_extension("after be/log.1 5").unwrap();
    let signed = log.sign_checkpoint(&checkpoint).unwrap();
    assert_eq!(log.key().open(&signed), Ok(checkpoint.clone()));
    let forged = note(&signed.to_string().replace("after be/log.1 5", "after be/log.1 6"));
    assert_eq!(log.key().open(&forged), Err(NoteError::BadSignature(name("be/log")).into()));
    for line in ["", "a\nb", "a\tb", &"x".repeat(1025)] {
        assert_eq!(checkpoint.clone().with_extension(line), Err(CheckpointError::Extension));
    }
    let full = (0..15).try_fold(checkpoint, |checkpoint, _| checkpoint.with_extension("x")).unwrap();
    assert_eq!(full.with_extension("x"), Err(CheckpointError::Extension));
}

#[test]
fn what_is_no_note_is_refused() {
    let line = "— a AAAAAAA=\n";
    assert!(Note::parse(format!("text\n\n{line}").as_bytes()).is_ok());
    assert!(Note::parse(format!("text\n\n\n\n{line}").as_bytes()).is_ok(), "a text may have empty lines");
    for (bytes, error) in [
        ("", NoteError::Form),
        ("text\n", NoteError::Form),
        ("text\n\n", NoteError::Form),
        ("text\n\n\n", NoteError::Form),
        ("text\n— a AAAAAAA=\n", NoteError::Form),
        ("text\n\n— a AAAAAAA=", NoteError::Form),
        ("te\txt\n\n— a AAAAAAA=\n", NoteError::Characters),
        ("text\r\n\n— a AAAAAAA=\n", NoteError::Characters),
        ("text\n\n- a AAAAAAA=\n", NoteError::SignatureLine),
        ("text\n\n—  AAAAAAA=\n", NoteError::SignatureLine),
        ("text\n\n— a+b AAAAAAA=\n", NoteError::SignatureLine),
        ("text\n\n— a\u{a0}b AAAAAAA=\n", NoteError::SignatureLine),
        ("text\n\n— a\n", NoteError::SignatureLine),
        ("text\n\n— a AAAAAAA\n", NoteError::SignatureLine),
        ("text\n\n— a AAAAAAB=\n", NoteError::SignatureLine),
        ("text\n\n— a AAAAAAA= \n", NoteError::SignatureLine),
        ("text\n\n— a AAAAAA==\n", NoteError::SignatureLine),
        ("text\n\n— a _AAAAAA=\n", NoteError::SignatureLine),
    ] {
        assert_eq!(Note::parse(bytes.as_bytes()), Err(error), "{bytes:?}");
    }
    assert_eq!(Note::parse(b"te\xffxt\n\n"), Err(NoteError::Characters));
    let of = |signatures| format!("text\n\n{}", line.repeat(signatures));
    assert!(Note::parse(of(64).as_bytes()).is_ok());
    assert_eq!(Note::parse(of(65).as_bytes()), Err(NoteError::TooLong));
    assert_eq!(Note::parse(&vec![b'x'; (128 << 10) + 1]), Err(NoteError::TooLong));
    let more = NoteSignature::parse("— b AAAAAAA=").unwrap();
    assert_eq!(note(&of(64)).with(more), Err(NoteError::TooLong));
    let long = format!("— a {}", "A".repeat(4 * (1 << 20)));
    assert_eq!(NoteSignature::parse(&long), Err(NoteError::SignatureLine));
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    let of = |lines: &[&str]| (lines.join("\n") + "\n").parse::<Checkpoint>();
    let read = of(&["example.com/behind-the-sofa", "20852163", root]).unwrap();
    assert_eq!((read.size(), read.extensions()), (20_852_163, [].as_slice()));
    assert_eq!(of(&["a b", "0", root, "ext"]).unwrap().extensions(), ["ext"]);
    assert!(of(&["a", "9223372036854775807", root]).is_ok());
    for (lines, error) in [
        (["a", "1", ""].as_slice(), CheckpointError::Root),
        (&["a", "1"], CheckpointError::Form),
        (&["a"], CheckpointError::Form),
        (&[""], CheckpointError::Form),
        (&["", "1", root], CheckpointError::Origin),
        (&["a", "01", root], CheckpointError::Size),
        (&["a", "+1", root], CheckpointError::Size),
        (&["a", "-1", root], CheckpointError::Size),
        (&["a", "", root], CheckpointError::Size),
        (&["a", "1 ", root], CheckpointError::Size),
        (&["a", "9223372036854775808", root], CheckpointError::Size),
        (&["a", "99999999999999999999", root], CheckpointError::Size),
        (&["a", "1", "AAAA"], CheckpointError::Root),
        (&["a", "1", &root[1..]], CheckpointError::Root),
        (&["a", "1", root, ""], CheckpointError::Extension),
        (&["a", "1", root, "", "x"], CheckpointError::Extension),
    ] {
        assert_eq!(of(lines), Err(error), "{lines:?}");
    }
    assert_eq!(of(&[&"x".repeat(256), "1", root]), Err(CheckpointError::Origin));
    assert_eq!(format!("a\n1\n{root}").parse::<Checkpoint>(), Err(CheckpointError::Form));
}

#[test]
fn what_is_no_vkey_is_refused() {
    for (vkey, error) in [
        ("", VkeyError::Form),
        ("example.com/foo", VkeyError::Form),
        ("example.com/foo+530d903a", VkeyError::Form),
        ("example.com/foo+530d903a+", VkeyError::Form),
        ("example.com/foo+530d903a+AQ==", VkeyError::Form),
        ("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2", VkeyError::Form),
        ("example.com/foo+530D903A+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", VkeyError::Id),
        ("example.com/foo+0530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", VkeyError::Id),
        ("example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", VkeyError::Id),
        ("example.com/fop+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", VkeyError::Id),
        ("a b+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", VkeyError::Name),
        ("+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", VkeyError::Name),
        (PUBLIC_WITNESS, VkeyError::Type { expected: 1, got: 4 }),
    ] {
        assert_eq!(vkey.parse::<LogKey>(), Err(error), "{vkey}");
    }
    // The base64 of this one, from Go's tests of cosignatures, has a plus.
    assert!("TEST+7997405c+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6".parse::<LogKey>().is_ok());
    assert_eq!("x".repeat(256).parse::<KeyName>(), Err(VkeyError::Name));
    assert_eq!("a\u{2003}b".parse::<KeyName>(), Err(VkeyError::Name));
}

proptest! {
    #[test]
    fn a_changed_note_is_refused(place in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let (log, witness) = (signer("be/log", 1), witness("hu/witness", 2));
        let signed = log.sign(5, leaf_hash(b"root")).unwrap();
        let checkpoint = log.key().open(&signed).unwrap();
        let signed = signed.with(witness.cosign(&checkpoint, 1_700_000_000).unwrap()).unwrap();
        let mut bytes = signed.to_string().into_bytes();
        let place = place.index(bytes.len());
        let same = std::mem::replace(&mut bytes[place], byte) == byte;
        // Whatever is changed, one of the two signatures at least is gone.
        let both = Note::parse(&bytes).is_ok_and(|note| {
            log.key().open(&note).is_ok() && witness.key().verify(&note).is_ok()
        });
        prop_assert_eq!(both, same);
    }
}
