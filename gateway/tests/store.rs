//! The store: what it accepts, what it refuses, what it forgets, and that a restart changes nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod engine;
#[path = "store/replicas.rs"]
mod replicas;

use std::path::Path;

use bytes::Bytes;
use liaison_gateway::{
    limits,
    store::{
        AcceptError, Accepted, Change, Company, Database, DeliveryId, Item, Load, NewCopy, NewLeaf,
        NewMessage, NewNotice, Next, Queue, QueueBound, Queued, Released, Store, Thread,
    },
};
use liaison_proto::{
    exchange::v1::PreviewRecipient,
    log::v1::{Act, record::Event},
    message::v1::{
        Envelope, RecipientDecision, RecipientProof, Refusal, SealedSection, SignedNotice,
        SignedReleaseRecord, error_code::Code as ErrorCode, status::Code as Status,
    },
};
use liaison_trust::{digest::sha256, keys::SigningKey, names::AgencyAddress};
use sqlx::{SqlitePool, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

const CONTENT: &[u8] = b"sealed-content-canary";

#[tokio::test]
async fn accepts_once_and_answers_again() {
    let (folder, store) = store().await;
    let message = message("be/a", &["be/b"]);
    let (id, acceptance) = (message.id, message.acceptance.clone());
    assert_eq!(store.accept(again(&message)).await.unwrap(), Accepted::New);
    let mut same = again(&message);
    same.acceptance = Bytes::from_static(b"another time");
    assert_eq!(store.accept(same).await.unwrap(), Accepted::Again(acceptance));
    assert_eq!(queue(&store, "be/b").await.len(), 1);

    let mut other = again(&message);
    other.digest = sha256(b"other");
    assert!(matches!(store.accept(other).await, Err(AcceptError::IdReused)));
    assert_eq!(queue(&store, "be/b").await.len(), 1);

    // The id belongs to its sender alone.
    let mut foreign = self::message("be/c", &["be/b"]);
    foreign.id = id;
    assert!(matches!(store.accept(foreign).await, Ok(Accepted::New)));
    drop(folder);
}

#[tokio::test]
async fn one_batch_knows_its_own_duplicates() {
    let (_folder, store) = store().await;
    let message = message("be/a", &["be/b"]);
    let offers = (0..40).map(|turn| {
        let mut offer = again(&message);
        if turn % 2 == 1 {
            offer.digest = sha256(b"other");
        }
        let store = store.clone();
        tokio::spawn(async move { store.accept(offer).await })
    });
    let mut accepted = 0;
    for offer in offers.collect::<Vec<_>>() {
        accepted += u32::from(matches!(offer.await.unwrap(), Ok(Accepted::New)));
    }
    assert_eq!(accepted, 1);
    assert_eq!(queue(&store, "be/b").await.len(), 1);
}

#[tokio::test]
async fn a_thread_is_opened_once() {
    let (_folder, store) = store().await;
    let mut first = message("be/a", &["be/b"]);
    let thread = thread("be/a", "be/b");
    first.opens = Some(thread.clone());
    store.accept(first).await.unwrap();
    assert_eq!(store.thread(thread.id).await.unwrap(), Some(thread.clone()));
    let mut second = message("be/c", &["be/b"]);
    second.opens = Some(Thread { requester: address("be/c"), ..thread.clone() });
    assert!(matches!(store.accept(second).await, Err(AcceptError::ThreadTaken)));
    assert_eq!(store.thread(thread.id).await.unwrap(), Some(thread));
    assert_eq!(store.thread(Uuid::now_v7()).await.unwrap(), None);
    assert_eq!(queue(&store, "be/b").await.len(), 1);
}

#[tokio::test]
async fn a_full_queue_refuses_and_stores_nothing() {
    let folder = TempDir::new().unwrap();
    let bound = QueueBound { deliveries: 2, bytes: 1 << 20 };
    let store =
        Store::open(&engine::database(folder.path()).await, Company::None, bound, &signing()).await.unwrap();
    store.accept(message("be/a", &["be/b"])).await.unwrap();
    store.accept(message("be/a", &["be/b"])).await.unwrap();
    let refused = message("be/a", &["be/c", "be/b"]);
    match store.accept(again(&refused)).await {
        Err(AcceptError::QueueFull(queue)) => assert_eq!(queue, waiting("be/b")),
        other => panic!("{other:?}"),
    }
    assert!(queue(&store, "be/c").await.is_empty());
    assert_eq!(store.load(&waiting("be/c")), Load::default());

    // Room again, and the same message gets through.
    let first = queue(&store, "be/b").await.remove(0);
    assert!(store.change(gone(first.id)).await.unwrap());
    assert!(matches!(store.accept(refused).await, Ok(Accepted::New)));
}

#[tokio::test]
async fn a_queue_is_bounded_by_bytes() {
    let folder = TempDir::new().unwrap();
    let bound = QueueBound { deliveries: 100, bytes: 1_500 };
    let store =
        Store::open(&engine::database(folder.path()).await, Company::None, bound, &signing()).await.unwrap();
    let mut large = message("be/a", &["be/b"]);
    large.content.sections[0].ciphertext = Bytes::from(vec![0; 1_000]);
    let mut second = again(&large);
    second.id = Uuid::now_v7();
    store.accept(large).await.unwrap();
    assert!(matches!(store.accept(second).await, Err(AcceptError::QueueFull(_))));
}

#[tokio::test]
async fn a_sender_that_takes_no_notices_is_held() {
    let folder = TempDir::new().unwrap();
    let bound = QueueBound { deliveries: 1, bytes: 1 << 20 };
    let store =
        Store::open(&engine::database(folder.path()).await, Company::None, bound, &signing()).await.unwrap();
    store.accept(message("be/a", &["be/b"])).await.unwrap();
    let copy = queue(&store, "be/b").await.remove(0);
    store.change(Change { notice: Some(notice("be/a")), ..gone(copy.id) }).await.unwrap();
    match store.accept(message("be/a", &["be/b"])).await {
        Err(AcceptError::QueueFull(queue)) => assert_eq!(queue, waiting("be/a")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_last_answer_deletes_the_content() {
    let (folder, store) = store().await;
    store.accept(message("be/a", &["be/b", "be/c"])).await.unwrap();
    let first = queue(&store, "be/b").await.remove(0);
    let second = queue(&store, "be/c").await.remove(0);
    assert!(store.change(Change { notice: Some(notice("be/a")), ..gone(first.id) }).await.unwrap());
    assert_eq!(copy(&queue(&store, "be/c").await[0]).content.sections[0].ciphertext, CONTENT);
    assert!(holds(folder.path(), CONTENT).await);
    assert!(store.change(Change { notice: Some(notice("be/a")), ..gone(second.id) }).await.unwrap());
    assert!(!holds(folder.path(), CONTENT).await, "the content is still in the database file");
    assert_eq!(queue(&store, "be/a").await.len(), 2);
    assert_eq!(store.load(&waiting("be/b")), Load::default());
}

#[tokio::test]
async fn a_change_happens_once() {
    let (_folder, store) = store().await;
    store.accept(message("be/a", &["be/b"])).await.unwrap();
    let copy = queue(&store, "be/b").await.remove(0);
    let change = || Change { notice: Some(notice("be/a")), ..gone(copy.id) };
    let (first, second) = tokio::join!(store.change(change()), store.change(change()));
    assert_eq!([first.unwrap(), second.unwrap()].iter().filter(|done| **done).count(), 1);
    assert!(!store.change(change()).await.unwrap());
    assert_eq!(queue(&store, "be/a").await.len(), 1);
}

#[tokio::test]
async fn quarantine_keeps_the_evidence_and_frees_the_queue() {
    let (folder, store) = store().await;
    store.accept(message("be/a", &["be/b"])).await.unwrap();
    let copy = queue(&store, "be/b").await.remove(0);
    let refusal = Refusal::new(ErrorCode::BadSignature, "x", "y");
    let change = Change { to: Next::Quarantined(refusal), notice: Some(notice("be/a")), ..gone(copy.id) };
    assert!(store.change(change).await.unwrap());
    assert!(queue(&store, "be/b").await.is_empty());
    assert_eq!(store.load(&waiting("be/b")), Load::default());
    assert!(holds(folder.path(), CONTENT).await);
    assert!(!store.change(gone(copy.id)).await.unwrap());
    // Evidence outlives the memory of ids.
    assert_eq!(store.forget(now() + Duration::days(60)).await.unwrap(), 0);
    assert_eq!(store.trim_quarantine(&waiting("be/b")).await.unwrap(), 0);
}

#[tokio::test]
async fn quarantine_is_bounded_by_bytes() {
    let (folder, store) = store().await;
    for _ in 0..3 {
        store.accept(message("be/a", &["be/b"])).await.unwrap();
        let copy = queue(&store, "be/b").await.remove(0);
        let to = Next::Quarantined(Refusal::new(ErrorCode::BadSignature, "x", "y"));
        assert!(store.change(Change { to, ..gone(copy.id) }).await.unwrap());
    }
    assert!(store.overfull_quarantines().await.unwrap().is_empty());
    // As if each were so large that two of them are all that is kept.
    let database = engine::database(folder.path()).await;
    let large = limits::QUARANTINED_BYTES / 2;
    engine::by_hand(&database, &format!("UPDATE delivery SET bytes = {large}")).await;
    let agency = waiting("be/b");
    assert_eq!(store.overfull_quarantines().await.unwrap(), std::slice::from_ref(&agency));
    assert_eq!(store.trim_quarantine(&agency).await.unwrap(), 1);
    assert!(store.overfull_quarantines().await.unwrap().is_empty());
    assert_eq!(engine::by_hand(&database, "UPDATE content SET envelope = envelope").await, 2);
}

#[tokio::test]
async fn narrowing_replaces_what_is_released() {
    let (_folder, store) = store().await;
    store.accept(message("be/a", &["be/b"])).await.unwrap();
    let queued = queue(&store, "be/b").await.remove(0);
    let less = released("be/b", "less");
    let change = Change {
        to: Next::Narrowed(Box::new(less.clone())),
        notice: Some(notice("be/a")),
        ..gone(queued.id)
    };
    assert!(store.change(change).await.unwrap());
    let again = queue(&store, "be/b").await.remove(0);
    assert_eq!(again.id, queued.id);
    assert_eq!(copy(&again).released, less);
    assert_eq!(queue(&store, "be/a").await.len(), 1);
}

#[tokio::test]
async fn a_restart_changes_nothing() {
    let (folder, store) = store().await;
    let message = message("be/a", &["be/b", "be/c"]);
    store.accept(again(&message)).await.unwrap();
    let before = queue(&store, "be/b").await.remove(0);
    let load = store.load(&waiting("be/b"));
    // As after a crash: nothing is closed, nothing is flushed.
    std::mem::forget(store);
    engine::abandoned(&engine::database(folder.path()).await).await;
    let store = open(folder.path()).await;
    assert_eq!(store.load(&waiting("be/b")), load);
    assert!(matches!(store.accept(again(&message)).await, Ok(Accepted::Again(_))));
    let after = queue(&store, "be/b").await.remove(0);
    assert_eq!(after.id, before.id);
    assert_eq!(copy(&after).content, message.content);
    assert_eq!(copy(&after).released, message.copies[0].released);
    assert_eq!(copy(&after).proof, message.copies[0].proof);
    // New deliveries stand behind those of before.
    store.accept(self::message("be/a", &["be/b"])).await.unwrap();
    let queue = queue(&store, "be/b").await;
    assert!(queue[1].id > queue[0].id);
}

#[tokio::test]
async fn expiry_and_forgetting_keep_their_times() {
    let (_folder, store) = store().await;
    let message = message("be/a", &["be/b"]);
    let expires = message.expires;
    store.accept(again(&message)).await.unwrap();
    assert!(store.expired(expires - Duration::SECOND).await.unwrap().is_empty());
    let expired = store.expired(expires).await.unwrap();
    assert_eq!((&expired[0].sender, &expired[0].recipient), (&address("be/a"), &address("be/b")));
    assert_eq!((expired[0].message, expired[0].digest), (message.id, message.digest));
    assert!(store.change(gone(expired[0].delivery)).await.unwrap());
    assert!(store.expired(expires).await.unwrap().is_empty());

    assert_eq!(store.forget(expires + Duration::DAY - Duration::SECOND).await.unwrap(), 0);
    assert!(matches!(store.accept(again(&message)).await, Ok(Accepted::Again(_))));
    assert_eq!(store.forget(expires + Duration::DAY + Duration::SECOND).await.unwrap(), 1);
}

#[tokio::test]
async fn a_page_of_a_queue_is_bounded_and_in_order() {
    let (_folder, store) = store().await;
    for size in [600 << 10, 600 << 10, 10, 3 << 20, 10] {
        let mut message = message("be/a", &["be/b"]);
        message.content.sections[0].ciphertext = Bytes::from(vec![0; size]);
        store.accept(message).await.unwrap();
    }
    let mut pages = Vec::new();
    let mut after = DeliveryId::default();
    loop {
        let page = store.queue(&waiting("be/b"), after).await.unwrap().queued;
        let Some(last) = page.last() else { break };
        after = last.id;
        pages.push(page.len());
    }
    assert_eq!(pages, [2, 2, 1]);
}

async fn store() -> (TempDir, Store) {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path()).await;
    (folder, store)
}

/// The gateway's.
fn signing() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

async fn open(folder: &Path) -> Store {
    Store::open(&engine::database(folder).await, Company::None, QueueBound::default(), &signing())
        .await
        .unwrap()
}

async fn queue(store: &Store, agency: &str) -> Vec<Queued> {
    store.queue(&waiting(agency), DeliveryId::default()).await.unwrap().queued
}

/// Whether the database holds these bytes: SQLite's files, with what it has freed; of a server, its tables.
async fn holds(folder: &Path, canary: &[u8]) -> bool {
    let database = engine::database(folder).await;
    let Database::Sqlite(file) = &database else {
        return engine::rows_with(&database, ("content", "envelope"), canary).await > 0;
    };
    // So that it does not stand in the write-ahead log.
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(file)).await.unwrap();
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&pool).await.unwrap();
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        bytes.windows(canary.len()).any(|window| window == canary)
    })
}

fn copy(queued: &Queued) -> &liaison_gateway::store::QueuedCopy {
    match &queued.item {
        Item::Copy(copy) => copy,
        Item::Notice(_) => panic!("a notice"),
    }
}

/// What the log says of something, whatever it is.
fn leaf() -> NewLeaf {
    NewLeaf::new(Event::Act(Act::default()), OffsetDateTime::now_utc()).unwrap()
}

fn message(sender: &str, recipients: &[&str]) -> NewMessage {
    let id = Uuid::now_v7();
    NewMessage {
        sender: address(sender),
        id,
        digest: sha256(id.as_bytes()),
        expires: now() + Duration::days(7),
        view: 0,
        leaf: Some(leaf()),
        acceptance: Bytes::from_static(b"accepted"),
        extends: None,
        content: Envelope {
            manifest: Bytes::from_static(b"manifest"),
            sections: vec![SealedSection { ciphertext: Bytes::from_static(CONTENT), ..Default::default() }],
            ..Default::default()
        },
        opens: None,
        copies: recipients
            .iter()
            .map(|recipient| NewCopy {
                recipient: address(recipient),
                queue: waiting(recipient),
                answers: waiting(sender),
                bases_salt: Bytes::new(),
                proof: RecipientProof { address: (*recipient).to_owned(), ..Default::default() },
                released: released(recipient, "all"),
                handed_over: None,
            })
            .collect(),
    }
}

fn again(message: &NewMessage) -> NewMessage {
    NewMessage {
        sender: message.sender.clone(),
        acceptance: message.acceptance.clone(),
        view: 0,
        leaf: message.leaf.clone(),
        extends: None,
        content: message.content.clone(),
        opens: message.opens.clone(),
        copies: message.copies.clone(),
        ..*message
    }
}

fn released(recipient: &str, what: &'static str) -> Released {
    Released {
        bases: PreviewRecipient { address: recipient.to_owned(), bases: Vec::new() },
        decision: RecipientDecision { recipient: recipient.to_owned(), ..Default::default() },
        release: SignedReleaseRecord { record: Bytes::from_static(what.as_bytes()), ..Default::default() },
    }
}

fn notice(to: &str) -> NewNotice {
    NewNotice {
        to: address(to),
        queue: waiting(to),
        notice: SignedNotice { notice: Bytes::from_static(b"notice"), ..Default::default() },
        leaf: None,
    }
}

fn thread(requester: &str, responder: &str) -> Thread {
    Thread {
        id: Uuid::now_v7(),
        requester: address(requester),
        responder: address(responder),
        status: Status::Actual,
    }
}

fn gone(delivery: DeliveryId) -> Change {
    Change { delivery, to: Next::Gone, notice: None }
}

/// The queue of an agency, or a lane.
fn waiting(text: &str) -> Queue {
    text.parse().unwrap()
}

fn address(text: &str) -> AgencyAddress {
    text.parse().unwrap()
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}
