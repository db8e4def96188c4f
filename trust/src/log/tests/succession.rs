use liaison_proto::{
    log::v1::{Act, Opened, Record, record::Event},
    times,
};
use prost::Message;
use time::OffsetDateTime;

use super::*;
use crate::keys::SigningKey;

fn signer(origin: &str, key: u8) -> LogSigner {
    LogSigner::new(name(origin), SigningKey::from_seed(&[key; 32]))
}

fn head(origin: &str, size: u64, root: u8) -> Note {
    signer(origin, 1).sign(size, Digest([root; 32])).unwrap()
}

/// The receipt of the first and only leaf of a log.
fn receipt(origin: &str, event: Event) -> Vec<u8> {
    let record = Record { at: Some(times::to_wire(OffsetDateTime::UNIX_EPOCH)), event: Some(event) };
    let record = SaltedRecord::from_parts([7; 32], record.encode_to_vec()).unwrap();
    let checkpoint = signer(origin, 1).sign(1, record.entry().leaf_hash()).unwrap();
    Receipt { record, index: 0, proof: Vec::new(), checkpoint, signer: None }.to_string().into_bytes()
}

fn opened(origin: &str, previous: &Note) -> Vec<u8> {
    receipt(origin, Event::Opened(Opened { previous: previous.to_string() }))
}

/// Follows a log back through what its domain shows, to a head of `be/log/1` with 5 leaves.
fn follow(origin: &str, shown: &[Vec<u8>]) -> Result<bool, SuccessionError> {
    let held = Checkpoint::new(&name("be/log/1"), 5, Digest([5; 32])).unwrap();
    let key = SigningKey::from_seed(&[1; 32]).public();
    let mut way = Succession::new(key, &held, origin)?;
    shown.iter().try_fold(false, |_, receipt| way.take(receipt))
}

#[test]
fn a_log_names_all_that_was_held_of_the_one_before() {
    for named in [head("be/log/1", 5, 5), head("be/log/1", 9, 9)] {
        assert_eq!(follow("be/log/7", &[opened("be/log/7", &named)]), Ok(true));
    }
    // Over a log that was opened and lost in between.
    let between = opened("be/log/7", &head("be/log/1", 5, 5));
    let last = opened("be/log/9", &head("be/log/7", 3, 3));
    assert_eq!(follow("be/log/9", &[last.clone(), between]), Ok(true));
    assert_eq!(follow("be/log/9", std::slice::from_ref(&last)), Ok(false));
    // What the one in between says counts as well.
    let short = opened("be/log/7", &head("be/log/1", 4, 4));
    assert!(matches!(follow("be/log/9", &[last, short]), Err(SuccessionError::CutOff { size: 5, .. })));
}

#[test]
fn a_log_that_does_not_is_refused() {
    let act = Event::Act(Act { act: "reopen_log".to_owned(), subject: "be".to_owned() });
    let refused = |shown: Vec<u8>| follow("be/log/7", &[shown]).unwrap_err();
    assert!(matches!(refused(opened("be/log/7", &head("be/log/1", 4, 4))), SuccessionError::CutOff { .. }));
    assert!(matches!(
        refused(opened("be/log/7", &head("be/log/1", 5, 6))),
        SuccessionError::OtherRoot { .. }
    ));
    assert!(matches!(refused(receipt("be/log/7", act)), SuccessionError::NotOpened(_)));
    assert!(matches!(refused(b"nothing".to_vec()), SuccessionError::Receipt { .. }));
    // Of another log, of another kind or domain, by another key, and a circle.
    let good = head("be/log/1", 5, 5);
    assert!(matches!(refused(opened("be/log/8", &good)), SuccessionError::Receipt { .. }));
    for of in ["be/keys/1", "hu/log/1", "be/log/7", "be/log/8", "be/log/01"] {
        assert!(matches!(refused(opened("be/log/7", &head(of, 5, 5))), SuccessionError::NotLater(_)), "{of}");
    }
    let foreign = signer("be/log/1", 2).sign(5, Digest([5; 32])).unwrap();
    assert!(matches!(refused(opened("be/log/7", &foreign)), SuccessionError::Previous(_)));
    for origin in ["be/log/1", "be/keys/7", "hu/log/7", "be/log", "be/log/0", "be/log/+7"] {
        assert!(matches!(follow(origin, &[]), Err(SuccessionError::NotLater(_))), "{origin}");
    }
}
