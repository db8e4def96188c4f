//! The logs in the store: they grow by what was staged, prove it, and refuse to go on from what was changed by hand.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::path::Path;

use liaison_gateway::{
    log::{LogError, Logs},
    store::{NewLeaf, QueueBound, Store},
};
use liaison_proto::log::v1::{Act, record::Event};
use liaison_trust::{
    keys::SigningKey,
    log::{Entry, verify_consistency},
    names::Domain,
};
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;
use time::OffsetDateTime;

struct Place {
    folder: TempDir,
    domain: Domain,
    signing: SigningKey,
}

impl Place {
    fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            domain: "be".parse().unwrap(),
            signing: SigningKey::generate(),
        }
    }

    async fn open(&self) -> (Store, Result<Logs, LogError>) {
        let store = Store::open(&self.file(), QueueBound::default()).await.unwrap();
        let logs = Logs::open(&store, &self.domain, &self.signing, self.folder.path()).await;
        (store, logs)
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("liaison.db")
    }
}

/// Changes the database as somebody would who has the file.
async fn by_hand(file: &Path, change: &'static str) {
    let mut database = SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
    let changed = sqlx::query(change).execute(&mut database).await.unwrap();
    assert!(changed.rows_affected() > 0, "{change}");
    database.close().await.unwrap();
}

async fn stage(store: &Store, leaves: usize) {
    for number in 0..leaves {
        let act = Act { act: "test".to_owned(), subject: number.to_string() };
        store.append(NewLeaf::new(Event::Act(act), OffsetDateTime::now_utc()).unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn every_leaf_is_proven_in_every_later_head() {
    let place = Place::new();
    let (store, logs) = place.open().await;
    let log = logs.unwrap().evidence;
    assert!(log.head().note.is_none());
    log.grow().await.unwrap();
    assert!(log.head().note.is_none(), "nothing to sign");
    let mut heads = Vec::new();
    for grown in [1, 1, 5, 249, 1, 300] {
        stage(&store, grown).await;
        log.grow().await.unwrap();
        heads.push(log.head());
    }
    let last = heads.last().unwrap();
    assert_eq!(last.size, 557);
    let signed = log.signer().key().open(last.note.as_ref().unwrap()).unwrap();
    assert_eq!((signed.size(), signed.root(), signed.origin()), (557, last.root, "be/log/1"));
    for head in &heads {
        let proof = log.tree().consistency(head.size, last.size).await.unwrap();
        verify_consistency(head.size, &head.root, last.size, &last.root, &proof).unwrap();
        let checkpoint = log.signer().key().open(head.note.as_ref().unwrap()).unwrap();
        let leaves = store.leaves(log.tree().id(), 0, 1_000).await.unwrap();
        let indexes: Vec<u64> = (0..head.size).collect();
        for (index, proof) in indexes.iter().zip(log.tree().inclusion(&indexes, head.size).await.unwrap()) {
            let leaf = &leaves[*index as usize];
            let entry = leaf.record.as_ref().unwrap().entry();
            assert_eq!(entry, Entry::from(<[u8; 32]>::try_from(leaf.entry.as_slice()).unwrap()));
            entry.verify_in(&checkpoint, *index, &proof).unwrap();
        }
    }
}

#[tokio::test]
async fn a_log_goes_on_where_it_was_after_a_restart() {
    let place = Place::new();
    let (store, logs) = place.open().await;
    let log = logs.unwrap().evidence;
    stage(&store, 3).await;
    log.grow().await.unwrap();
    let before = log.head();
    stage(&store, 2).await;
    store.close().await;
    let (_store, logs) = place.open().await;
    let log = logs.unwrap().evidence;
    assert_eq!((log.head().size, log.head().root), (3, before.root));
    log.grow().await.unwrap();
    let after = log.head();
    let proof = log.tree().consistency(3, 5).await.unwrap();
    verify_consistency(3, &before.root, 5, &after.root, &proof).unwrap();
}

#[tokio::test]
async fn nothing_is_signed_on_top_of_what_was_changed_by_hand() {
    for change in [
        "UPDATE tile SET hashes = zeroblob(length(hashes))",
        "DELETE FROM tile",
        "UPDATE log SET size = size - 1",
        "UPDATE log SET checkpoint = NULL",
        "DELETE FROM leaf WHERE idx = 4",
    ] {
        let place = Place::new();
        let (store, logs) = place.open().await;
        let log = logs.unwrap().evidence;
        stage(&store, 3).await;
        log.grow().await.unwrap();
        stage(&store, 3).await;
        by_hand(&place.file(), change).await;
        let grown = log.grow().await;
        let is_of_head = change.starts_with("UPDATE log");
        assert_eq!(grown.is_err(), !is_of_head, "{change}: {grown:?}");
        if is_of_head {
            // The head in memory stands; at the next start the file's is looked at.
            by_hand(&place.file(), change).await;
        }
        store.close().await;
        let (_store, logs) = place.open().await;
        let refused = logs.err().is_some();
        assert_eq!(refused, !change.starts_with("DELETE FROM leaf"), "{change} at start");
    }
}
