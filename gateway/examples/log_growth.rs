//! Tells how the cost of the log grows with it: `cargo run --release -p liaison-gateway --example log_growth -- [--json]
//! [--rounds N]`. Logs of 1, 10 and 100 thousand and of a million leaves are seeded; then leaves are staged and taken into
//! the tree in batches, and proofs made. All is told as the ratio to the smallest log of the same run.

#![allow(clippy::unwrap_used, reason = "a measurement that fails ends")]

use std::time::{Duration, Instant};

use liaison_gateway::{
    log::Logs,
    store::{Company, LogKind, NewLeaf, QueueBound, Staged, Stager, Store},
};
use liaison_proto::log::v1::{Act, record::Event};
use liaison_trust::{digest::sha256, keys::SigningKey};
use serde_json::{Value, json};
use sqlx::{Connection, QueryBuilder, SqliteConnection};
use tempfile::TempDir;
use time::OffsetDateTime;
use uuid::Uuid;

/// Leaves of the logs that are compared.
const SIZES: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Leaves that are appended at once, as many as fill a commit.
const BATCH: usize = 256;
/// Leaves that are seeded by one statement.
const SEEDED: usize = 500;
/// Proofs that are made in each round.
const PROOFS: u64 = 64;

struct Measured {
    leaves: u64,
    /// Staging a leaf and taking it into the tree, microseconds.
    append_us: f64,
    /// An inclusion proof, microseconds, and its hashes.
    proof_us: f64,
    hashes: usize,
    /// A consistency proof from half the size, hashes.
    consistency: usize,
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rounds = arguments.iter().position(|argument| argument == "--rounds");
    let rounds: u64 = rounds.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(20);
    let mut seeded = Vec::new();
    for leaves in SIZES {
        seeded.push(Seeded::new(leaves).await);
    }
    // In turn, so that whatever else the machine does falls on all alike; the first round warms up.
    for round in 0..=rounds {
        for one in &mut seeded {
            one.round(round).await;
        }
    }
    let mut measured = Vec::new();
    for one in seeded {
        measured.push(one.measured().await);
    }
    let first = measured.first().unwrap();
    let lines: Vec<Value> = measured
        .iter()
        .map(|one| {
            json!({
                "leaves": one.leaves,
                "append_us": one.append_us,
                "append_ratio": one.append_us / first.append_us,
                "proof_us": one.proof_us,
                "proof_ratio": one.proof_us / first.proof_us,
                "proof_hashes": one.hashes,
                "consistency_hashes": one.consistency,
            })
        })
        .collect();
    if arguments.iter().any(|argument| argument == "--json") {
        println!("{}", json!({"growth": lines}));
        return;
    }
    println!("   leaves  append, us  ratio  proof, us  ratio  hashes  hashes of consistency");
    for one in &measured {
        println!(
            "{:>9}  {:>10.1}  {:>5.2}  {:>9.1}  {:>5.2}  {:>6}  {:>21}",
            one.leaves,
            one.append_us,
            one.append_us / first.append_us,
            one.proof_us,
            one.proof_us / first.proof_us,
            one.hashes,
            one.consistency
        );
    }
}

/// A log of so many leaves, and how long each round took.
struct Seeded {
    leaves: u64,
    store: Store,
    logs: Logs,
    appends: Vec<Duration>,
    proofs: Vec<Duration>,
    _folder: TempDir,
}

impl Seeded {
    async fn new(leaves: u64) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("liaison.db");
        let signing = SigningKey::generate();
        let store =
            Store::open(&file.clone().into(), Company::None, QueueBound::default(), &signing).await.unwrap();
        seed(&file, &signing, leaves).await;
        let domain = "be".parse().unwrap();
        let logs = Logs::open(&store, &domain, &signing, folder.path()).await.unwrap();
        logs.evidence.grow().await.unwrap();
        assert_eq!(logs.evidence.head().size, leaves);
        Self { leaves, store, logs, appends: Vec::new(), proofs: Vec::new(), _folder: folder }
    }

    async fn round(&mut self, round: u64) {
        let (leaves, log) = (self.leaves, &self.logs.evidence);
        let started = Instant::now();
        let staged: Vec<_> = (0..BATCH)
            .map(|number| {
                let store = self.store.clone();
                let act = Act { act: "test".to_owned(), subject: number.to_string() };
                let leaf = NewLeaf::new(Event::Act(act), OffsetDateTime::now_utc()).unwrap();
                tokio::spawn(async move { store.append(leaf).await })
            })
            .collect();
        for staged in staged {
            staged.await.unwrap().unwrap();
        }
        log.grow().await.unwrap();
        let appended = started.elapsed() / BATCH as u32;
        let started = Instant::now();
        for number in 0..PROOFS {
            // Spread over the log, another place each time.
            let index = (number * leaves / PROOFS + round * 7_919) % leaves;
            log.tree().inclusion(&[index], leaves).await.unwrap();
        }
        if round > 0 {
            self.appends.push(appended);
            self.proofs.push(started.elapsed() / PROOFS as u32);
        }
    }

    async fn measured(self) -> Measured {
        let (leaves, log) = (self.leaves, &self.logs.evidence);
        let hashes = log.tree().inclusion(&[leaves / 3], leaves).await.unwrap().concat().len();
        let consistency = log.tree().consistency(leaves / 2 + 1, leaves).await.unwrap().len();
        self.store.close().await;
        Measured {
            leaves,
            append_us: median(self.appends),
            proof_us: median(self.proofs),
            hashes,
            consistency,
        }
    }
}

/// Leaves as the gateway with this key would have staged them, put in at once.
async fn seed(file: &std::path::Path, gateway: &SigningKey, leaves: u64) {
    let stager = Stager::new(gateway);
    let mut database = SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
    let mut change = database.begin().await.unwrap();
    for first in (0..leaves).step_by(SEEDED) {
        let mut insert =
            QueryBuilder::new("INSERT INTO leaf (log, idx, entry, salt, record, message, readers, mac) ");
        insert.push_values(first..leaves.min(first + SEEDED as u64), |mut row, index| {
            let (entry, message) = (sha256(&index.to_be_bytes()), Uuid::from_u128(index.into()));
            let staged = Staged {
                log: (LogKind::Evidence, 1),
                index,
                entry: entry.as_bytes(),
                message: Some(message.as_bytes()),
                thread: None,
            };
            row.push_bind(1)
                .push_bind(index as i64)
                .push_bind(entry.as_bytes().to_vec())
                .push_bind(vec![1; 32])
                .push_bind(vec![2; 200])
                .push_bind(message.as_bytes().to_vec())
                .push_bind("be/agency")
                .push_bind(stager.mac(staged).to_vec());
        });
        insert.build().execute(&mut *change).await.unwrap();
    }
    change.commit().await.unwrap();
    database.close().await.unwrap();
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e6
}
