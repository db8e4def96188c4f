//! Both verifiers say the same of whatever is almost a receipt: of records, acknowledgements and key records that are
//! changed in one place, and logged and signed all the same.

use anyhow::{Context, Result, ensure};
use liaison_proto::{
    POOL,
    log::v1::{
        Accepted, Act, CategoryDecision, Decision, Ended, HandedOver, Opened, Outcome, Permits, Record,
        Refused, RuleName, outcome, record::Event,
    },
    message::v1::{
        Acknowledgement, KeyRecord, SignedAcknowledgement, SignedKeyRecord, StateChange, kem::Code as Kem,
    },
    times,
};
use liaison_tests::{mutate::mutations, paper_log::PaperLog, verifiers::agree};
use liaison_trust::{
    digest::{Digest, sha256},
    key_record,
    keys::{KemKey, SigningKey},
};
use prost::{Message, Name};
use time::{Duration, OffsetDateTime};

const MESSAGE: [u8; 16] = [7; 16];
const DIGEST: [u8; 32] = [8; 32];
const SHELTER: &str = "be/shelter";
const KEYS: &str = "be/keys/1";

/// What is one change away from an encoding of this message.
fn changed<M: Message + Name>(message: &M) -> Result<Vec<(String, Vec<u8>)>> {
    let descriptor = POOL.get_message_by_name(&M::full_name()).context("it is not in the pool")?;
    let as_it_is = ("as it is".to_owned(), message.encode_to_vec());
    Ok([vec![as_it_is], mutations(&descriptor, &message.encode_to_vec())].concat())
}

fn now() -> Option<prost_types::Timestamp> {
    Some(times::to_wire(OffsetDateTime::now_utc()))
}

fn of(event: Event) -> Record {
    Record { at: now(), event: Some(event) }
}

/// A record of each event but acknowledgements, with something in every field.
fn records() -> Vec<Record> {
    let rule = Some(RuleName { layer: "scheme".into(), rule: "none:scheme".into() });
    let category =
        CategoryDecision { category: 4, verdict: 2, rule: rule.clone(), basis: 1, permitted_by: 1 };
    let decision =
        Decision { recipient: SHELTER.into(), verdict: 1, rule: rule.clone(), categories: vec![category] };
    let accepted = Accepted {
        sender: "be/hospital".into(),
        message_id: MESSAGE.to_vec().into(),
        manifest_digest: DIGEST.to_vec().into(),
        thread: MESSAGE.to_vec().into(),
        kind: 1,
        policy_hash: DIGEST.to_vec().into(),
        scheme_hash: DIGEST.to_vec().into(),
        decisions: vec![decision.clone()],
        permits: vec![Permits { policies: rule.clone().into_iter().collect() }],
    };
    let handed_over = HandedOver {
        message_id: MESSAGE.to_vec().into(),
        manifest_digest: DIGEST.to_vec().into(),
        sender: "be/hospital".into(),
        recipient: SHELTER.into(),
        policy_hash: DIGEST.to_vec().into(),
        released: vec![1, 4, 17],
    };
    let refused = Refused {
        sender: "be/hospital".into(),
        message_id: MESSAGE.to_vec().into(),
        manifest_digest: DIGEST.to_vec().into(),
        rule,
        thread: MESSAGE.to_vec().into(),
    };
    vec![
        of(Event::Opened(Opened { previous: "be/log/1".into() })),
        of(Event::Accepted(accepted)),
        of(Event::HandedOver(handed_over)),
        of(Event::Outcome(outcome(outcome::Event::Forwarded(decision.clone())))),
        of(Event::Outcome(outcome(outcome::Event::Narrowed(decision)))),
        of(Event::Outcome(outcome(outcome::Event::Ended(Ended { how: 1, why: 10 })))),
        of(Event::Refused(refused)),
        of(Event::Act(Act { act: "load_policy".into(), subject: "be".into() })),
    ]
}

fn outcome(event: outcome::Event) -> Outcome {
    Outcome {
        message_id: MESSAGE.to_vec().into(),
        manifest_digest: DIGEST.to_vec().into(),
        sender: "be/hospital".into(),
        recipient: SHELTER.into(),
        event: Some(event),
    }
}

#[tokio::test]
async fn of_records_that_are_changed_in_one_place() -> Result<()> {
    let mut log = PaperLog::new("be/log/1", 1, 0)?;
    let mut made = Vec::new();
    for record in records() {
        made.extend(changed(&record)?);
    }
    for (_, record) in &made {
        log.append(record.clone())?;
    }
    let files = made
        .into_iter()
        .zip(0..)
        .map(|((what, _), index)| Ok((what, log.receipt(index)?.to_string().into_bytes())));
    let files = files.collect::<Result<Vec<_>>>()?;
    let all = files.len();
    let hold = agree(files).await?;
    ensure!(hold > records().len() && hold < all, "{hold} of {all} hold");
    Ok(())
}

/// A recipient's keys.
struct Recipient {
    signing: SigningKey,
    record: SignedKeyRecord,
}

impl Recipient {
    fn new(kem: Kem) -> Result<Self> {
        let signing = SigningKey::from_seed(&[5; 32]);
        let (now, day) = (OffsetDateTime::now_utc(), Duration::DAY);
        let address = SHELTER.parse()?;
        let first = key_record::first(&address, &signing, &KemKey::generate(kem)?, now, now + day);
        let record = key_record::next(&first, &signing, &signing, &KemKey::generate(kem)?, now, now + day)?;
        Ok(Self { signing, record })
    }

    /// Its signature under a label, on whatever it is.
    fn sign(&self, label: &str, bytes: &[u8]) -> Vec<u8> {
        self.signing.sign(label, bytes).to_vec()
    }

    /// A key record of these bytes, signed.
    fn keys(&self, record: Vec<u8>) -> SignedKeyRecord {
        let signature: bytes::Bytes = self.sign("key-record/v1", &record).into();
        SignedKeyRecord {
            signature: signature.clone(),
            predecessor_signature: signature,
            record: record.into(),
        }
    }

    fn acknowledgement(&self, key_id: Digest) -> Acknowledgement {
        Acknowledgement {
            message_id: MESSAGE.to_vec().into(),
            manifest_digest: DIGEST.to_vec().into(),
            recipient: SHELTER.into(),
            key_id: key_id.into(),
            received_at: now(),
            thread_state: Some(StateChange { state: 9, reason: 1, outcome: 1 }),
            log_head: b"a head".to_vec().into(),
            keys_head: b"another".to_vec().into(),
        }
    }

    /// The record of an acknowledgement of these bytes, signed.
    fn acknowledged(&self, acknowledgement: Vec<u8>) -> Record {
        let signature = self.sign("acknowledgement/v1", &acknowledgement).into();
        let signed = SignedAcknowledgement { acknowledgement: acknowledgement.into(), signature };
        of(Event::Outcome(outcome(outcome::Event::Acknowledged(signed))))
    }
}

#[tokio::test]
async fn of_acknowledgements_and_of_the_keys_that_signed_them() -> Result<()> {
    let mut log = PaperLog::new("be/log/1", 1, 0)?;
    let mut made: Vec<(String, u64, String, u8, Vec<Vec<u8>>)> = Vec::new();
    let mut make = |what: String, record: Vec<u8>, keys: &str, seed: u8, entry: Vec<u8>| -> Result<()> {
        made.push((what, log.size(), keys.to_owned(), seed, vec![entry]));
        log.append(record)
    };
    for kem in [Kem::XWing, Kem::X25519] {
        let recipient = Recipient::new(kem)?;
        let entry = recipient.record.encode_to_vec();
        let word = recipient.acknowledgement(sha256(&recipient.record.record));
        for (what, record) in changed(&recipient.acknowledged(word.encode_to_vec()))? {
            make(what, record, KEYS, 1, entry.clone())?;
        }
        for (what, word) in changed(&word)? {
            make(what, recipient.acknowledged(word).encode_to_vec(), KEYS, 1, entry.clone())?;
        }
        let acknowledged = |record: &[u8]| {
            let word = recipient.acknowledgement(sha256(record));
            recipient.acknowledged(word.encode_to_vec()).encode_to_vec()
        };
        for (what, signed) in changed(&recipient.record)? {
            make(what, acknowledged(&recipient.record.record), KEYS, 1, signed)?;
        }
        let read = KeyRecord::decode(recipient.record.record.clone())?;
        let mut key_records = changed(&read)?;
        let mut key = read.kem_key.to_vec();
        let mut with = |what: &str, key: Vec<u8>| {
            let record = KeyRecord { kem_key: key.into(), ..read.clone() };
            key_records.push((what.to_owned(), record.encode_to_vec()));
        };
        with("a KEM key of zeros", vec![0; key.len()]);
        with("a KEM key of ones", vec![1; key.len()]);
        key.iter_mut().rev().take(32).for_each(|byte| *byte = 0);
        with("an X25519 key of small order", key.clone());
        key.iter_mut().take(2).for_each(|byte| *byte = 0xff);
        with("a coefficient beyond the modulus", key);
        for (what, record) in key_records {
            let signed = recipient.keys(record.clone()).encode_to_vec();
            make(what, acknowledged(&record), KEYS, 1, signed)?;
        }
        let good = || (acknowledged(&recipient.record.record), entry.clone());
        for keys in [
            "be/keys/2",
            "be/keys/01",
            "be/keys/",
            "be/keys",
            "be/log/1",
            "hu/keys/1",
            "b/keys/1",
            "be/keys/1/1",
        ] {
            let (record, entry) = good();
            make(format!("the log of keys {keys}"), record, keys, 1, entry)?;
        }
        let (record, entry) = good();
        make("a log of keys of another key".into(), record, "be/keys/4", 2, entry)?;
    }
    let recipient = Recipient::new(Kem::X25519)?;
    let act = of(Event::Act(Act::default())).encode_to_vec();
    make("a key where nothing is signed".into(), act, KEYS, 1, recipient.record.encode_to_vec())?;
    let word = recipient.acknowledgement(sha256(&recipient.record.record));
    let unsigned = log.size();
    log.append(recipient.acknowledged(word.encode_to_vec()).encode_to_vec())?;
    let files = made.into_iter().enumerate().map(|(place, (what, index, keys, seed, entries))| {
        // Each log of keys has one entry, and a number of its own, so that none contradicts another.
        let keys = if keys == KEYS { format!("be/keys/{}", place + 10) } else { keys };
        Ok((what, log.signed(index, &keys, seed, &entries)?.to_string().into_bytes()))
    });
    let mut files = files.collect::<Result<Vec<_>>>()?;
    let all = files.len();
    let keys = [recipient.record.encode_to_vec()];
    let good = log.signed(unsigned, "be/keys/5", 1, &keys)?.to_string();
    let (_, signer) = good.split_at(good.rfind("c2sp.org/").context("no second part")?);
    let alone = log.receipt(unsigned)?.to_string();
    let not =
        [alone.clone(), format!("{alone}\n{signer}"), format!("{good}{signer}"), format!("{signer}{alone}")];
    let not = not.map(|text| ("in other parts".to_owned(), text.into_bytes()));
    ensure!(agree(not.to_vec()).await? == 0, "an acknowledgement holds whose signer is not shown");
    for number in ["0", "4294967296", "9223372036854775807"] {
        let text = log.signed(unsigned, &format!("be/keys/{number}"), 1, &keys)?.to_string();
        let held = agree(vec![(format!("the log of keys {number}"), text.into_bytes())]).await?;
        ensure!(held == 0, "a log of keys has the number {number}");
    }
    let last = log.signed(unsigned, "be/keys/4294967295", 1, &keys)?.to_string();
    ensure!(agree(vec![("the last log of keys".to_owned(), last.into_bytes())]).await? == 1);
    files.push(("as it is".to_owned(), good.into_bytes()));
    let hold = agree(files).await?;
    ensure!(hold > 4 && hold < all, "{hold} of {all} hold");
    Ok(())
}
