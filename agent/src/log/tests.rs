use std::collections::BTreeMap;

use liaison_proto::{
    exchange::v1::{Continuation, Receipt as Shown},
    log::v1::{Accepted, Act, Decision, Record, RuleName, record},
    message::v1::{
        Acceptance, RecipientDecision, Rule, error_code::Code as ErrorCode, verdict::Code as Verdict,
    },
    times,
};
use liaison_trust::{
    digest::Digest,
    keys::SigningKey,
    log::{Checkpoint, LogSigner, SaltedRecord, consistency, inclusion, leaf_hash, node_hash},
    names::Domain,
};
use prost::Message as _;

use super::{judge::*, *};

/// A log that a test keeps: its records in order.
struct Log {
    signer: LogSigner,
    records: Vec<SaltedRecord>,
}

impl Log {
    fn new(name: &str, key: u8, records: usize) -> Self {
        let signer = LogSigner::new(name.parse().unwrap(), signing(key));
        let mut log = Self { signer, records: Vec::new() };
        (0..records).for_each(|number| log.append(record::Event::Act(act(number))));
        log
    }

    fn append(&mut self, event: record::Event) {
        let record = Record { at: Some(times::to_wire(OffsetDateTime::now_utc())), event: Some(event) };
        self.records.push(SaltedRecord::new(record.encode_to_vec()).unwrap());
    }

    fn hash(&self, level: u8, index: u64) -> Option<Digest> {
        if level == 0 {
            return Some(leaf_hash(self.records.get(index as usize)?.entry().as_bytes()));
        }
        Some(node_hash(&self.hash(level - 1, 2 * index)?, &self.hash(level - 1, 2 * index + 1)?))
    }

    fn head(&self, size: u64) -> String {
        let root = liaison_trust::log::root(size, |node| self.hash(node.level, node.index)).unwrap();
        let checkpoint = Checkpoint::new(self.signer.key().name(), size, root).unwrap();
        let checkpoint = checkpoint.with_extension(&self.signer.key().to_string()).unwrap();
        self.signer.sign_checkpoint(&checkpoint).unwrap().to_string()
    }

    fn continuation(&self, old: u64) -> Continuation {
        let hashes = consistency(old, self.size(), |node| self.hash(node.level, node.index)).unwrap();
        Continuation { hashes: hashes.into_iter().map(Into::into).collect(), refusal: None }
    }

    fn receipt(&self, index: u64) -> Shown {
        let record = &self.records[index as usize];
        let proof = inclusion(index, self.size(), |node| self.hash(node.level, node.index)).unwrap();
        Shown {
            index,
            salt: record.salt().to_vec().into(),
            record: record.record().to_vec().into(),
            proof: proof.into_iter().map(Into::into).collect(),
        }
    }

    fn size(&self) -> u64 {
        self.records.len() as u64
    }

    fn answer(&self, continuations: Vec<Continuation>) -> ListReceiptsResponse {
        ListReceiptsResponse { head: self.head(self.size()), continuations, ..Default::default() }
    }
}

fn act(number: usize) -> Act {
    Act { act: "test".to_owned(), subject: number.to_string() }
}

fn signing(key: u8) -> SigningKey {
    SigningKey::from_seed(&[key; 32])
}

fn be() -> Domain {
    "be".parse().unwrap()
}

#[test]
fn a_head_counts_only_if_the_log_goes_on_from_the_one_before() {
    let key = signing(1);
    let log = Log::new("be/log/1", 1, 9);
    let read = |note: &str| head("log", &be(), &key.public(), note).unwrap();
    let held = read(&log.head(5));
    let judged =
        |held: Option<&Head>, answer: &ListReceiptsResponse| newest(&be(), &key.public(), held, answer);

    let newest = judged(Some(&held), &log.answer(vec![log.continuation(5)])).unwrap();
    assert_eq!(newest.unwrap().checkpoint.size(), 9);
    assert!(judged(None, &log.answer(Vec::new())).unwrap().is_some(), "the first head is believed");
    assert_eq!(judged(None, &ListReceiptsResponse::default()).unwrap(), None);

    // Another history, a log that went back, one that is empty, and proofs that are none.
    let other = Log::new("be/log/1", 1, 9);
    let refusal = Refusal::new(ErrorCode::InconsistentLog, "no", "no");
    let refused = Continuation { hashes: Vec::new(), refusal: Some(refusal) };
    for (what, answer) in [
        ("another history", other.answer(vec![other.continuation(5)])),
        ("the proof of another history", log.answer(vec![other.continuation(5)])),
        ("a refusal", log.answer(vec![refused])),
        ("no proof", log.answer(Vec::new())),
        ("an empty log", ListReceiptsResponse::default()),
        (
            "a log that went back",
            Log { records: log.records[..3].to_vec(), ..Log::new("be/log/1", 1, 0) }
                .answer(vec![Continuation::default()]),
        ),
    ] {
        let alarm = judged(Some(&held), &answer).unwrap_err();
        assert_eq!(alarm.kind, Kind::Inconsistent, "{what}");
        assert_eq!((alarm.held, alarm.shown), (held.bare.to_string(), answer.head), "{what}");
    }
}

#[test]
fn a_head_by_another_key_or_of_another_log_is_an_alarm() {
    let key = signing(1);
    let log = Log::new("be/log/1", 1, 3);
    let held = head("log", &be(), &key.public(), &log.head(3)).unwrap();
    for other in [Log::new("be/log/1", 2, 3), Log::new("hu/log/1", 1, 3), Log::new("be/keys/1", 1, 3)] {
        for held in [None, Some(&held)] {
            let alarm = newest(&be(), &key.public(), held, &other.answer(vec![other.continuation(3)]));
            assert_eq!(alarm.unwrap_err().kind, Kind::WrongKey);
        }
    }
    // A later log counts, whatever it says of the one before; that one does not come back.
    let next = Log::new("be/log/2", 1, 1);
    let later =
        newest(&be(), &key.public(), Some(&held), &next.answer(vec![Continuation::default()])).unwrap();
    let back = newest(&be(), &key.public(), later.as_ref(), &log.answer(vec![log.continuation(3)]));
    assert_eq!(back.unwrap_err().kind, Kind::Inconsistent);
}

#[test]
fn receipts_of_a_log_before_are_believed_under_its_own_head_alone() {
    let key = signing(1);
    let (log, newest) = (Log::new("be/log/1", 1, 5), Log::new("be/log/1700000000", 1, 2));
    let under = |held: Option<&Head>, head: String| {
        let answer = ListReceiptsResponse { earlier_head: head, ..newest.answer(Vec::new()) };
        earlier(&be(), &key.public(), held, 1, &answer)
    };
    let read = |note: &str| head("log", &be(), &key.public(), note).unwrap();
    let held = read(&log.head(5));
    assert_eq!(under(Some(&held), log.head(5)).unwrap().checkpoint.size(), 5);
    assert_eq!(under(Some(&held), log.head(3)).unwrap().checkpoint.size(), 3, "the rest was lost");
    for (what, head) in [
        ("no head", String::new()),
        ("another log's", newest.head(2)),
        ("another key's", Log::new("be/log/1", 2, 5).head(5)),
    ] {
        assert_eq!(under(None, head).unwrap_err().kind, Kind::WrongKey, "{what}");
    }
    let other = under(Some(&held), Log::new("be/log/1", 1, 5).head(5));
    assert_eq!(other.unwrap_err().kind, Kind::Inconsistent);
}

#[test]
fn what_another_agency_holds_is_compared() {
    let key = signing(1);
    let (log, other) = (Log::new("be/log/1", 1, 9), Log::new("be/log/1", 1, 9));
    let shelter: AgencyAddress = "be/shelter".parse().unwrap();
    let read = |note: &str| head("log", &be(), &key.public(), note).unwrap();
    let newest = read(&log.head(9));
    assert_eq!(compare(&shelter, &read(&log.head(4)), &newest, Some(&log.continuation(4))), Ok(()));
    let alarm = compare(&shelter, &read(&other.head(4)), &newest, Some(&log.continuation(4))).unwrap_err();
    assert_eq!(alarm.kind, Kind::Inconsistent);
    assert_eq!((alarm.held, alarm.shown), (log.head(9), other.head(4)));
    assert!(alarm.detail.contains("be/shelter"), "{}", alarm.detail);
    // A log that took the place of this one was signed before this one was shown.
    let later = Log::new("be/log/1700000000", 1, 2);
    let alarm = compare(&shelter, &read(&later.head(2)), &newest, None).unwrap_err();
    assert_eq!((alarm.kind, alarm.shown), (Kind::Inconsistent, later.head(2)));
    // The other way round, the record that opened the later one tells.
    assert_eq!(compare(&shelter, &newest, &read(&later.head(2)), None), Ok(()));
}

#[test]
fn a_receipt_is_believed_only_whole() {
    let key = signing(1);
    let mut log = Log::new("be/log/1", 1, 6);
    let message = Uuid::now_v7();
    log.append(record::Event::Accepted(Accepted {
        sender: "be/police".to_owned(),
        message_id: message.as_bytes().to_vec().into(),
        ..Accepted::default()
    }));
    let newest = head("log", &be(), &key.public(), &log.head(7)).unwrap();
    let good = log.receipt(6);
    let (proven, told) = receipt(&key.public(), &newest, &good, &BTreeMap::new()).unwrap();
    assert_eq!((told.event, told.message, proven.index), (Event::Accepted, message, 6));
    let flipped = |bytes: &[u8]| -> bytes::Bytes { bytes.iter().map(|byte| byte ^ 1).collect() };
    for (what, wrong) in [
        ("salt", Shown { salt: flipped(&good.salt), ..good.clone() }),
        ("short salt", Shown { salt: good.salt.slice(1..), ..good.clone() }),
        ("record", Shown { record: flipped(&good.record), ..good.clone() }),
        ("index", Shown { index: 5, ..good.clone() }),
        ("proof", Shown { proof: good.proof.iter().map(|hash| flipped(hash)).collect(), ..good.clone() }),
        ("no proof", Shown { proof: Vec::new(), ..good.clone() }),
        ("no message", log.receipt(2)),
    ] {
        assert!(receipt(&key.public(), &newest, &wrong, &BTreeMap::new()).is_err(), "{what}");
    }
}

#[test]
fn the_log_must_say_what_the_gateway_signed() {
    let digest = Digest([3; 32]);
    let logged = |verdict: Verdict, rule: Option<&str>| Decision {
        recipient: "be/shelter".to_owned(),
        verdict: verdict.into(),
        rule: rule.map(|rule| RuleName { layer: "scheme".to_owned(), rule: rule.to_owned() }),
        categories: Vec::new(),
    };
    let told = |decision: Decision| {
        let accepted = Accepted {
            message_id: vec![7; 16].into(),
            manifest_digest: digest.into(),
            policy_hash: Digest([1; 32]).into(),
            decisions: vec![decision],
            ..Accepted::default()
        };
        let at = Some(times::to_wire(OffsetDateTime::now_utc()));
        let record = Record { at, event: Some(record::Event::Accepted(accepted)) };
        Told::read(&record.encode_to_vec()).unwrap()
    };
    let signed = RecipientDecision {
        recipient: "be/shelter".to_owned(),
        verdict: Verdict::Withheld.into(),
        rule: Some(Rule { layer: "scheme".to_owned(), rule: "no".to_owned(), ..Rule::default() }),
        categories: Vec::new(),
    };
    let acceptance =
        Acceptance { policy_hash: Digest([1; 32]).into(), decisions: vec![signed], ..Acceptance::default() };
    let known = Known { digest: Some(digest), acceptance: Some(acceptance.clone()), acknowledgement: None };
    assert_eq!(same(&told(logged(Verdict::Withheld, Some("no"))), &known), Ok(()));
    for wrong in [
        logged(Verdict::Released, None),
        logged(Verdict::Withheld, Some("other")),
        logged(Verdict::Withheld, None),
    ] {
        assert!(same(&told(wrong), &known).is_err());
    }
    let other_digest = Known { digest: Some(Digest([4; 32])), ..known.clone() };
    assert!(same(&told(logged(Verdict::Withheld, Some("no"))), &other_digest).is_err());
    let other_policy = Acceptance { policy_hash: Digest([2; 32]).into(), ..acceptance };
    let other_policy = Known { acceptance: Some(other_policy), ..known };
    assert!(same(&told(logged(Verdict::Withheld, Some("no"))), &other_policy).is_err());
}

#[test]
fn an_agency_is_shown_each_head_once() {
    let shown = ShownHeads::default();
    let [police, clinic] = ["be/police", "be/clinic"].map(|agency| agency.parse().unwrap());
    let news = |to, log: &'static str, keys: &'static str| {
        let [mut log, mut keys] = [log, keys].map(Bytes::from);
        shown.leave_news(to, [&mut log, &mut keys]);
        (log, keys)
    };
    let both = |log: &'static str, keys: &'static str| (Bytes::from(log), Bytes::from(keys));
    assert_eq!(news(&police, "7", "3"), both("7", "3"));
    assert_eq!(news(&police, "7", "3"), both("", ""));
    assert_eq!(news(&clinic, "7", "3"), both("7", "3"), "another was not shown it");
    assert_eq!(news(&police, "8", "3"), both("8", ""));
    assert_eq!(news(&police, "7", "3"), both("7", ""), "a log that went back is news");
}
