use proptest::prelude::*;

use super::*;
use crate::keys::SigningKey;

/// Made with Python's hashlib and cryptography, from the module's documentation and C2SP's: the third
/// of five records in `be/log`, whose head `hu/witness` cosigned.
const VECTOR: &str = include_str!("../../../tests/vectors/receipt.tlog-proof");
const LOG: &str = "be/log+1c0c85c8+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c";
const WITNESS: &str = "hu/witness+9d87d528+BIE5dw6ofRdfVqNUZsNMfszLjYqRtO43ol32D1uPybOU";

fn log() -> LogSigner {
    LogSigner::new(name("be/log"), SigningKey::from_seed(&[1; 32]))
}

fn witness() -> Witness {
    Witness::new(name("hu/witness"), SigningKey::from_seed(&[2; 32]))
}

fn record(index: u8) -> SaltedRecord {
    SaltedRecord::from_parts([index; 32], format!("record {index}").into_bytes()).unwrap()
}

/// The receipt of the vector, made here.
fn receipt() -> Receipt {
    let nodes = nodes((0..5).map(|index| record(index).entry()));
    let hash = |node| nodes.get(&node).copied();
    let signed = log().sign(5, root(5, hash).unwrap()).unwrap();
    let cosignature = witness().cosign(&log().key().open(&signed).unwrap(), 1_700_000_000).unwrap();
    Receipt {
        record: record(2),
        index: 2,
        proof: inclusion(2, 5, hash).unwrap(),
        checkpoint: signed.with(cosignature).unwrap(),
        signer: None,
    }
}

#[test]
fn an_independent_receipt_is_the_same() {
    assert_eq!(receipt().to_string(), VECTOR);
    assert_eq!((log().key().to_string(), witness().key().to_string()), (LOG.into(), WITNESS.into()));
    let read = Receipt::parse(VECTOR.as_bytes()).unwrap();
    assert_eq!(read, receipt());
    let head = read.verify(&LOG.parse().unwrap()).unwrap().checkpoint;
    assert_eq!((head.origin(), head.size()), ("be/log", 5));
    assert_eq!(WITNESS.parse::<WitnessKey>().unwrap().verify(&read.checkpoint), Ok(1_700_000_000));
}

#[test]
fn a_receipt_shows_one_record_of_one_log() {
    let key = log().key().clone();
    let other = Receipt { record: record(3), ..receipt() };
    assert_eq!(other.verify(&key), Err(ProofError::Root.into()));
    let elsewhere = Receipt { index: 3, ..receipt() };
    assert_eq!(elsewhere.verify(&key), Err(ProofError::Root.into()));
    let short = Receipt { proof: receipt().proof[1..].to_vec(), ..receipt() };
    assert_eq!(short.verify(&key), Err(ProofError::Length.into()));
    let salted = SaltedRecord::from_parts([3; 32], b"record 2".to_vec()).unwrap();
    assert_eq!(Receipt { record: salted, ..receipt() }.verify(&key), Err(ProofError::Root.into()));
    let stranger = LogKey::new(name("be/log"), SigningKey::from_seed(&[9; 32]).public());
    let refused = ReceiptError::Checkpoint(NoteError::NotSignedBy(name("be/log")).into());
    assert_eq!(receipt().verify(&stranger), Err(refused));
}

#[test]
fn what_is_no_receipt_is_refused() {
    let refused = |text: &str| Receipt::parse(text.as_bytes()).unwrap_err();
    let changed = |from: &str, to: &str| {
        assert!(VECTOR.contains(from), "{from}");
        refused(&VECTOR.replacen(from, to, 1))
    };
    let form = |expected| ReceiptError::Form { expected };
    assert_eq!(changed("proof@v1", "proof@v2"), form("the first line, c2sp.org/tlog-proof@v1,"));
    let extra = form("the line 'extra'");
    assert_eq!(changed("extra AgIC", "extra *gIC"), extra);
    assert_eq!(changed("extra AgIC", "extr AgIC"), extra);
    let extra = form("the line 'extra' with salt and record");
    assert_eq!(refused("c2sp.org/tlog-proof@v1\nextra AgIC\nindex 2\n\nx\n\n\u{2014} x AAAAAAA=\n"), extra);
    for index in
        ["index 02", "index -2", "index +2", "index", "index ", "index 2 ", "index 18446744073709551616"]
    {
        assert_eq!(changed("index 2", index), form("the line 'index'"), "{index}");
    }
    let proof = form("the inclusion proof");
    assert_eq!(changed("JEXBHMUB", "*EXBHMUB"), proof);
    assert_eq!(changed("JEXBHMUB", "JEXB"), proof);
    assert_eq!(changed("JEXBHMUB", "JEXBHMUBJEXB"), proof);
    assert_eq!(changed("index 2\n", "index 2\nproof\n"), proof);
    let hashes =
        |count| format!("index 2\n{}", "JEXBHMUB0rYhy8nnJs0OjyXxcYZvcCZwhHDWmeWySWY=\n".repeat(count));
    assert!(Receipt::parse(VECTOR.replace("index 2\n", &hashes(60)).as_bytes()).is_ok());
    assert_eq!(changed("index 2\n", &hashes(61)), proof);
    assert_eq!(changed("\n\n", "\n"), form("the inclusion proof"));
    assert_eq!(changed("— be/log", "- be/log"), NoteError::SignatureLine.into());
    assert_eq!(refused(""), form("the empty line before the checkpoint"));
    assert_eq!(Receipt::parse(b"\xff"), Err(form("UTF-8")));
    assert_eq!(Receipt::parse(&vec![b'x'; 24 << 20]), Err(ReceiptError::TooLong));
}

#[test]
fn the_largest_record_fits() {
    let record = SaltedRecord::new(vec![7; 16 << 20]).unwrap();
    let signed = log().sign(1, record.entry().leaf_hash()).unwrap();
    let receipt = Receipt { record, index: 0, proof: Vec::new(), checkpoint: signed, signer: None };
    let read = Receipt::parse(receipt.to_string().as_bytes()).unwrap();
    assert_eq!(read.verify(log().key()).map(|shown| shown.checkpoint.size()), Ok(1));
}

proptest! {
    #[test]
    fn a_changed_receipt_shows_nothing(place in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = VECTOR.as_bytes().to_vec();
        let place = place.index(bytes.len());
        let same = std::mem::replace(&mut bytes[place], byte) == byte;
        let shown = Receipt::parse(&bytes).is_ok_and(|receipt| {
            receipt.verify(log().key()).is_ok() && witness().key().verify(&receipt.checkpoint).is_ok()
        });
        prop_assert_eq!(shown, same);
    }
}
