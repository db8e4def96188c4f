//! Tells what logging costs: `cargo run --release -p liaison-gateway --example log_cost -- [--json] [--rounds N]`. The
//! store accepts the same messages in batches of the same size, in two databases in turn.
//!
//! What is compared is the time from the first message offered until, in the one that does not log, all messages of the
//! round are accepted; and in the one that logs, as every gateway does, until besides every leaf of them is under a signed
//! head. There the records are made and the tree grows at its usual times meanwhile, and once more as soon as the last
//! message is accepted: that wait would be no work. Nothing grows outside of the rounds that log, so that the others do
//! not pay for it.

#![allow(clippy::unwrap_used, reason = "a measurement that fails ends")]

use std::{
    path::Path,
    pin::pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use liaison_gateway::{
    limits,
    log::{Log, Logs},
    store::{Company, NewCopy, NewLeaf, NewMessage, QueueBound, Released, Store},
};
use liaison_proto::{
    exchange::v1::PreviewRecipient,
    log::v1::{Accepted, CategoryDecision, Decision, Permits, RuleName, record::Event},
    message::v1::{Envelope, RecipientDecision, RecipientProof, SealedSection, SignedReleaseRecord},
};
use liaison_trust::{digest::sha256, keys::SigningKey};
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

/// Messages that are accepted in each round.
const MESSAGES: usize = 2_048;
/// Sections of each, and their bytes: as a small referral has them.
const SECTIONS: usize = 8;
const SECTION_BYTES: usize = 1_024;
const SENDER: &str = "be/hospital-ghent";
const RECIPIENT: &str = "be/shelter-antwerp";

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rounds = arguments.iter().position(|argument| argument == "--rounds");
    let rounds: usize = rounds.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(15);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [logging, silent] = folders.each_ref().map(tempfile::TempDir::path);
    let ((logging, logs), (silent, _)) = (open(logging).await, open(silent).await);
    // The first round warms both up.
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        // In turn, and each first as often as the other.
        let order = if round % 2 == 0 { [true, false] } else { [false, true] };
        for is_logged in order {
            let took = match is_logged {
                true => accept(&logging, Some(&logs.evidence)).await,
                false => accept(&silent, None).await,
            };
            if round > 0 {
                if is_logged { &mut with } else { &mut without }.push(took);
            }
        }
    }
    let [with, without] = [with, without].map(median);
    let cost = 1.0 - without.as_secs_f64() / with.as_secs_f64();
    let per_second = |took: Duration| MESSAGES as f64 / took.as_secs_f64();
    if arguments.iter().any(|argument| argument == "--json") {
        let json = json!({
            "cost": cost,
            "ratio": with.as_secs_f64() / without.as_secs_f64(),
            "with_per_second": per_second(with),
            "without_per_second": per_second(without),
            "batch": limits::BATCH_CHANGES,
            "rounds": rounds,
        });
        println!("{json}");
        return;
    }
    println!("                    messages a second");
    println!("with the log      {:>19.0}", per_second(with));
    println!("without the log   {:>19.0}", per_second(without));
    println!("logging takes {:.1} % of the throughput", cost * 100.0);
}

async fn open(folder: &Path) -> (Store, Logs) {
    let bound = QueueBound { deliveries: limits::QUEUE_DELIVERIES_MAX, bytes: limits::QUEUE_BYTES_MAX };
    let signing = SigningKey::generate();
    let store = Store::open(&folder.join("liaison.db").into(), Company::None, bound, &signing).await.unwrap();
    let logs = Logs::open(&store, &"be".parse().unwrap(), &signing, folder).await.unwrap();
    (store, logs)
}

/// Accepts messages, all offered at once so that batches are full, and gets their leaves into the log, if there is one; how
/// long that takes.
async fn accept(store: &Store, log: Option<&Log>) -> Duration {
    let messages: Vec<NewMessage> = (0..MESSAGES).map(|_| message()).collect();
    let before = log.map(|log| log.head().size);
    let started = Instant::now();
    let accepted: Vec<_> = messages
        .into_iter()
        .map(|mut message| {
            message.leaf = log.map(|_| leaf(message.id, SENDER, RECIPIENT));
            let store = store.clone();
            tokio::spawn(async move { store.accept(message).await })
        })
        .collect();
    let mut all = pin!(async {
        for accepted in accepted {
            accepted.await.unwrap().unwrap();
        }
    });
    let Some(log) = log else {
        all.await;
        return started.elapsed();
    };
    loop {
        tokio::select! {
            () = &mut all => break,
            () = tokio::time::sleep(limits::LOG_GROWS) => log.grow().await.unwrap(),
        }
    }
    log.grow().await.unwrap();
    let took = started.elapsed();
    assert_eq!(
        log.head().size,
        before.unwrap_or_default() + MESSAGES as u64,
        "leaves are not under the head"
    );
    took
}

fn message() -> NewMessage {
    let id = Uuid::now_v7();
    let (sender, recipient) = (SENDER, RECIPIENT);
    let digest = sha256(id.as_bytes());
    let section = || SealedSection { ciphertext: vec![7; SECTION_BYTES].into(), ..SealedSection::default() };
    NewMessage {
        sender: sender.parse().unwrap(),
        id,
        digest,
        expires: OffsetDateTime::now_utc() + time::Duration::days(7),
        acceptance: vec![7; 800].into(),
        extends: None,
        content: Envelope {
            manifest: vec![7; 1_500].into(),
            sections: (0..SECTIONS).map(|_| section()).collect(),
            ..Envelope::default()
        },
        opens: None,
        copies: vec![NewCopy {
            recipient: recipient.parse().unwrap(),
            queue: recipient.parse().unwrap(),
            answers: sender.parse().unwrap(),
            proof: RecipientProof { address: recipient.to_owned(), ..RecipientProof::default() },
            bases_salt: Bytes::new(),
            handed_over: None,
            released: Released {
                bases: PreviewRecipient { address: recipient.to_owned(), bases: Vec::new() },
                decision: RecipientDecision {
                    recipient: recipient.to_owned(),
                    ..RecipientDecision::default()
                },
                release: SignedReleaseRecord { record: vec![7; 300].into(), signature: vec![7; 64].into() },
            },
        }],
        view: 0,
        leaf: None,
    }
}

fn leaf(id: Uuid, sender: &str, recipient: &str) -> NewLeaf {
    let rule = |layer: &str, rule: &str| RuleName { layer: layer.to_owned(), rule: rule.to_owned() };
    let digest = Bytes::copy_from_slice(sha256(id.as_bytes()).as_ref());
    let id = Bytes::copy_from_slice(id.as_bytes());
    let categories = (1..=SECTIONS as i32).map(|category| CategoryDecision {
        category,
        verdict: 1,
        rule: None,
        basis: 1,
        permitted_by: 1,
    });
    let accepted = Accepted {
        sender: sender.to_owned(),
        message_id: id.clone(),
        manifest_digest: digest.clone(),
        thread: id,
        kind: 1,
        policy_hash: digest.clone(),
        scheme_hash: digest,
        decisions: vec![Decision {
            recipient: recipient.to_owned(),
            verdict: 1,
            rule: None,
            categories: categories.collect(),
        }],
        permits: vec![Permits {
            policies: vec![rule("scheme", "scheme.victim-support"), rule("country/be", "be.share")],
        }],
    };
    NewLeaf::new(Event::Accepted(accepted), OffsetDateTime::now_utc()).unwrap()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
