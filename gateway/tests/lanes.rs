//! What waits for other domains, and what they accepted: kept until its end was told, once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use bytes::Bytes;
use liaison_gateway::store::{
    Change, DeliveryId, ForwardedCopy, NewCopy, NewMessage, NewNotice, Next, Queue, QueueBound, Released,
    Settled, Settlement, Store, Unit,
};
use liaison_proto::{
    exchange::v1::PreviewRecipient,
    message::v1::{Envelope, RecipientDecision, RecipientProof, SignedNotice, SignedReleaseRecord},
};
use liaison_trust::{
    digest::sha256,
    names::{AgencyAddress, Domain},
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

#[tokio::test]
async fn a_lane_gives_a_message_with_all_its_copies_and_each_agency_has_its_own() {
    let (_folder, store) = store().await;
    let alert = message("be/a", &["hu/x", "be/local", "hu/y", "fr/z"]);
    store.accept(again(&alert)).await.unwrap();
    store.accept(message("be/b", &["hu/x"])).await.unwrap();
    store.accept(message("be/a", &["hu/x"])).await.unwrap();
    let mut lanes: Vec<_> = store.lanes(&domain("hu")).iter().map(Queue::to_string).collect();
    lanes.sort();
    assert_eq!(lanes, ["hu be/a", "hu be/b"]);
    assert_eq!(store.load_for(&domain("hu")).deliveries, 4);

    let (first, last, recipients) = unit(&store, "hu be/a", DeliveryId::default()).await;
    assert_eq!(recipients, ["hu/x", "hu/y"]);
    let (next, _, recipients) = unit(&store, "hu be/a", last).await;
    assert_eq!(recipients, ["hu/x"]);
    assert_eq!(unit(&store, "hu be/a", first.before()).await.0, first, "asked for again");
    assert!(next > last);
    assert_eq!(unit(&store, "fr be/a", DeliveryId::default()).await.2, ["fr/z"]);
}

#[tokio::test]
async fn what_a_peer_accepted_is_settled_once_and_not_too_early() {
    let (_folder, store) = store().await;
    let sent = message("be/a", &["hu/x"]);
    let copy = copy_of(&sent, "hu/x");
    store.accept(again(&sent)).await.unwrap();
    let (delivery, ..) = unit(&store, "hu be/a", DeliveryId::default()).await;
    assert_eq!(settle(&store, &copy, true).await, Settled::TooEarly, "its acceptance was not heard yet");

    assert!(store.change(Change { delivery, to: Next::Forwarded, notice: None }).await.unwrap());
    assert_eq!(store.count_outstanding(&domain("hu")).await.unwrap(), 1);
    assert!(store.lanes(&domain("hu")).is_empty());
    let found = store.sent_copy(sent.id, sent.digest.as_ref(), &address("hu/x")).await.unwrap();
    assert_eq!(found, Some(copy.clone()));
    assert_eq!(store.sent_copy(sent.id, &[7; 32], &address("hu/x")).await.unwrap(), None);

    assert_eq!(settle(&store, &copy, false).await, Settled::Done, "narrowed");
    assert_eq!(settle(&store, &copy, true).await, Settled::Done);
    assert_eq!(settle(&store, &copy, true).await, Settled::Unknown, "the same word again");
    let other = ForwardedCopy { recipient: address("hu/y"), ..copy };
    assert_eq!(settle(&store, &other, true).await, Settled::Unknown, "never sent there");
    assert_eq!(store.count_outstanding(&domain("hu")).await.unwrap(), 0);
    assert_eq!(store.load(&queue("be/a")).deliveries, 2, "two words for the sender");
}

#[tokio::test]
async fn only_the_peer_says_that_what_it_was_offered_expired() {
    let (_folder, store) = store().await;
    let sent = message("be/a", &["hu/x", "hu/y"]);
    let expires = sent.expires;
    store.accept(sent).await.unwrap();
    let (first, ..) = unit(&store, "hu be/a", DeliveryId::default()).await;
    assert!(store.change(Change { delivery: first, to: Next::Offered, notice: None }).await.unwrap());
    assert_eq!(store.load_for(&domain("hu")).deliveries, 2, "it stays in its lane");
    let expired = store.expired(expires).await.unwrap();
    assert_eq!(expired.iter().map(|head| head.recipient.to_string()).collect::<Vec<_>>(), ["hu/y"]);
    let expired = store.expired(expires + Duration::hours(25)).await.unwrap();
    assert_eq!(expired.len(), 2, "no peer remembers it any more");
    assert!(expired.iter().any(|head| head.offered));
}

#[tokio::test]
async fn outstanding_copies_keep_their_message_and_become_overdue() {
    let (folder, store) = store().await;
    let sent = message("be/a", &["hu/x"]);
    let copy = copy_of(&sent, "hu/x");
    let late = sent.expires + Duration::hours(25);
    store.accept(sent).await.unwrap();
    let (delivery, ..) = unit(&store, "hu be/a", DeliveryId::default()).await;
    store.change(Change { delivery, to: Next::Forwarded, notice: None }).await.unwrap();
    drop(store);
    let store = open(&folder).await;
    assert_eq!(store.forget(late).await.unwrap(), 0);
    assert!(store.overdue(late - Duration::hours(2)).await.unwrap().is_empty());
    assert_eq!(store.overdue(late).await.unwrap(), std::slice::from_ref(&copy));
    assert_eq!(store.outstanding_at(&domain("hu")).await.unwrap(), std::slice::from_ref(&copy));
    assert_eq!(settle(&store, &copy, true).await, Settled::Done);
    assert_eq!(store.forget(late).await.unwrap(), 1);
}

async fn store() -> (TempDir, Store) {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    (folder, store)
}

async fn open(folder: &TempDir) -> Store {
    Store::open(&folder.path().join("liaison.db"), QueueBound::default()).await.unwrap()
}

/// The first and the last delivery of a lane's next message, and its recipients.
async fn unit(store: &Store, lane: &str, after: DeliveryId) -> (DeliveryId, DeliveryId, Vec<String>) {
    match store.unit(&queue(lane), after).await.unwrap() {
        Some(Unit::Message { first, last, copies, .. }) => {
            (first, last, copies.iter().map(|copy| copy.head.recipient.to_string()).collect())
        }
        other => panic!("{other:?}"),
    }
}

async fn settle(store: &Store, copy: &ForwardedCopy, is_end: bool) -> Settled {
    let notice = NewNotice {
        to: copy.sender.clone(),
        queue: Queue::Agency(copy.sender.clone()),
        notice: SignedNotice { notice: Bytes::from_static(b"notice"), ..Default::default() },
    };
    store.settle(Settlement { copy: copy.clone(), is_end, notice }).await.unwrap()
}

fn copy_of(message: &NewMessage, recipient: &str) -> ForwardedCopy {
    ForwardedCopy {
        sender: message.sender.clone(),
        message: message.id,
        digest: message.digest,
        recipient: address(recipient),
    }
}

fn message(sender: &str, recipients: &[&str]) -> NewMessage {
    let id = Uuid::now_v7();
    let own = domain("be");
    let from = address(sender);
    NewMessage {
        id,
        digest: sha256(id.as_bytes()),
        expires: OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap(),
        acceptance: Bytes::from_static(b"accepted"),
        content: Envelope { manifest: Bytes::from_static(b"manifest"), ..Default::default() },
        opens: None,
        copies: recipients
            .iter()
            .map(|recipient| NewCopy {
                recipient: address(recipient),
                queue: liaison_gateway::delivery::queue(&own, &from, &address(recipient)),
                answers: liaison_gateway::delivery::answers(&own, &from, &address(recipient)),
                bases_salt: Bytes::new(),
                proof: RecipientProof { address: (*recipient).to_owned(), ..Default::default() },
                released: Released {
                    bases: PreviewRecipient { address: (*recipient).to_owned(), bases: Vec::new() },
                    decision: RecipientDecision::default(),
                    release: SignedReleaseRecord::default(),
                    policy_hash: sha256(b"policies"),
                },
            })
            .collect(),
        sender: from,
    }
}

fn again(message: &NewMessage) -> NewMessage {
    NewMessage {
        sender: message.sender.clone(),
        acceptance: message.acceptance.clone(),
        content: message.content.clone(),
        opens: message.opens.clone(),
        copies: message.copies.clone(),
        ..*message
    }
}

fn queue(text: &str) -> Queue {
    text.parse().unwrap()
}

fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

fn address(text: &str) -> AgencyAddress {
    text.parse().unwrap()
}
