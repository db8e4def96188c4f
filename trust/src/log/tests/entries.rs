use super::*;
use crate::digest::sha256;

/// Computed with Python's hashlib, from the module's documentation.
#[test]
fn an_entry_has_the_documented_bytes() {
    let record = SaltedRecord::from_parts([2; 32], b"record 2".to_vec()).unwrap();
    let entry = record.entry();
    assert_eq!(
        hex::encode(entry.as_bytes()),
        "c5918fbd7ec72765166916259fb89469a6f923e9d35fa6bd07cbc954d3c11694"
    );
    assert_eq!(entry.leaf_hash(), digest("ac6fc1bb4cdb8529160d966fcd5a0c8735a6bfff5113cd0a01542cff16dbede6"));
    let bytes = [b"\0\0\0\x0clog-entry/v1".as_slice(), b"\0\0\0\x20", &[2; 32], b"\0\0\0\x08record 2"];
    assert_eq!(entry.as_bytes(), sha256(&bytes.concat()).as_bytes());
    assert_eq!(entry.leaf_hash(), sha256(&[[0].as_slice(), entry.as_bytes()].concat()));
    assert_eq!(Entry::from(*entry.as_bytes()), entry);
}

#[test]
fn a_salt_hides_a_record() {
    let [one, other] = [(); 2].map(|()| SaltedRecord::new(b"record".to_vec()).unwrap());
    assert_ne!(one.salt(), other.salt());
    assert_ne!(one.entry(), other.entry());
    let shown = format!("{:?}", SaltedRecord::from_parts([0xa5; 32], b"Antwerp".to_vec()).unwrap());
    assert!(!shown.contains("a5a5") && !shown.contains("165") && !shown.contains("Antwerp"), "{shown}");
    assert!(SaltedRecord::new(vec![0; 16 << 20]).is_ok());
    assert_eq!(SaltedRecord::new(vec![0; (16 << 20) + 1]), Err(RecordTooLong((16 << 20) + 1)));
}

#[test]
fn an_entry_is_shown_in_a_head() {
    let records: Vec<SaltedRecord> = (0..5).map(|index| SaltedRecord::new(vec![index]).unwrap()).collect();
    let nodes = nodes(records.iter().map(SaltedRecord::entry));
    let hash = |node| nodes.get(&node).copied();
    let head = Checkpoint::new(&name("be/log"), 5, root(5, hash).unwrap()).unwrap();
    let proof = inclusion(3, 5, hash).unwrap();
    assert_eq!(records[3].entry().verify_in(&head, 3, &proof).map(drop), Ok(()));
    assert_eq!(records[2].entry().verify_in(&head, 3, &proof), Err(ProofError::Root));
    let beyond = Err(ProofError::NoLeaf { index: 5, size: 5 });
    assert_eq!(records[3].entry().verify_in(&head, 5, &proof), beyond);
    // Without salt and record, after an erasure, the entry alone still shows it.
    let entry = Entry::from(*records[3].entry().as_bytes());
    assert_eq!(entry.verify_in(&head, 3, &proof).map(drop), Ok(()));
}

#[test]
fn a_bundle_holds_its_entries() {
    let bundle = EntryBundle::new(1, 3).unwrap();
    assert_eq!((bundle.start(), bundle.width()), (256, 3));
    let entries = [b"ab".to_vec(), Vec::new(), vec![7; 65_535]];
    let bytes = bundle.encode(&entries).unwrap();
    assert_eq!(bytes[..6], *b"\0\x02ab\0\0");
    assert_eq!(bundle.decode(&bytes).unwrap(), entries);
    assert_eq!(bundle.decode(&bytes[..bytes.len() - 1]), Err(BundleError::CutOff));
    assert_eq!(bundle.decode(&bytes[..5]), Err(BundleError::CutOff));
    assert_eq!(bundle.decode(&[&bytes[..], b"x"].concat()), Err(BundleError::Trailing(1)));
    assert_eq!(bundle.encode(&entries[..2]), Err(BundleError::Width { expected: 3, got: 2 }));
    let long = [Vec::new(), Vec::new(), vec![0; 65_536]];
    assert_eq!(bundle.encode(&long), Err(BundleError::EntryTooLong(65_536)));
    let one = EntryBundle::new(0, 1).unwrap();
    let entry = SaltedRecord::new(Vec::new()).unwrap().entry();
    assert_eq!(one.encode(&[entry]).unwrap(), [b"\0\x20".as_slice(), entry.as_bytes()].concat());
}
