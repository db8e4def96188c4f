//! What waits for other domains, and what they accepted: kept until its end was told, once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod engine;

use bytes::Bytes;
use liaison_gateway::{
    limits,
    store::{
        AcceptError, Accepted, Change, Company, DeliveryId, ForwardedCopy, Item, Load, NewCopy, NewLeaf,
        NewMessage, NewNotice, Next, Queue, QueueBound, Released, Settled, Settlement, Store, Unit,
    },
};
use liaison_proto::{
    exchange::v1::PreviewRecipient,
    log::v1::{Act, record::Event},
    message::v1::{
        Envelope, RecipientDecision, RecipientProof, SealedSection, SignedNotice, SignedReleaseRecord,
        error_code::Code as ErrorCode,
    },
};
use liaison_trust::{
    digest::sha256,
    keys::SigningKey,
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

    assert!(store.change(Change { delivery, to: FORWARDED, notice: None }).await.unwrap());
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
    assert!(store.change(Change { delivery: first, to: offered(), notice: None }).await.unwrap());
    assert_eq!(store.load_for(&domain("hu")).deliveries, 2, "it stays in its lane");
    let expired = store.expired(expires).await.unwrap();
    assert_eq!(expired.iter().map(|head| head.recipient.to_string()).collect::<Vec<_>>(), ["hu/y"]);
    let expired = store.expired(expires + Duration::hours(25)).await.unwrap();
    assert_eq!(expired.len(), 2, "no peer remembers it any more");
    assert!(expired.iter().any(|head| head.offered));
}

#[tokio::test]
async fn a_copy_that_is_offered_while_it_is_found_expired_stays() {
    let (_folder, store) = store().await;
    let sent = message("be/a", &["hu/x", "hu/y"]);
    let expires = sent.expires;
    store.accept(sent).await.unwrap();
    let expired = store.expired(expires).await.unwrap();
    let [x, y] = expired.as_slice() else { panic!("{expired:?}") };
    let change = |delivery, to| store.change(Change { delivery, to, notice: None });
    assert!(change(x.delivery, offered()).await.unwrap());
    assert!(!change(x.delivery, Next::Expired).await.unwrap(), "the peer may have it");
    assert!(change(y.delivery, Next::Expired).await.unwrap());
    // The peer said that it has no room: then it has none of it.
    let waiting = |is_back| Next::Waiting { why: ErrorCode::QueueFull, is_back };
    assert!(change(x.delivery, waiting(false)).await.unwrap());
    assert!(!change(x.delivery, Next::Expired).await.unwrap(), "the peer may still have it");
    assert!(change(x.delivery, waiting(true)).await.unwrap());
    assert!(change(x.delivery, Next::Expired).await.unwrap());
    assert_eq!(store.load_for(&domain("hu")).deliveries, 0);
}

/// A word of the link before that waits for the writer never takes back an offer that is made after it.
#[tokio::test]
async fn a_copy_that_is_offered_again_stays_offered() {
    let (_folder, store) = store().await;
    let sent = message("be/a", &["hu/x"]);
    let expires = sent.expires;
    store.accept(sent).await.unwrap();
    let (x, ..) = unit(&store, "hu be/a", DeliveryId::default()).await;
    let change = |to| store.change(Change { delivery: x, to, notice: None });
    assert!(change(offered()).await.unwrap());
    let back = change(Next::Waiting { why: ErrorCode::QueueFull, is_back: true });
    let (back, again) = tokio::join!(biased; back, change(offered()));
    assert!(back.unwrap() && again.unwrap());
    assert!(!change(Next::Expired).await.unwrap(), "the peer may have it");
    assert!(store.expired(expires).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_alert_has_to_fit_with_all_its_copies() {
    let folder = TempDir::new().unwrap();
    let bound = QueueBound { deliveries: 2, bytes: 100 };
    let store =
        Store::open(&engine::database(folder.path()).await, Company::None, bound, &signing()).await.unwrap();
    let full = async |message| match store.accept(message).await {
        Err(AcceptError::QueueFull(full)) => assert_eq!(full, queue("hu be/a")),
        other => panic!("{other:?}"),
    };
    full(message("be/a", &["hu/x", "hu/y", "hu/z"])).await;
    let mut large = message("be/a", &["hu/x", "hu/y"]);
    large.content.manifest = Bytes::from_static(&[0; 60]);
    full(large).await;
    assert_eq!(store.load(&queue("hu be/a")), Load::default());
    store.accept(message("be/a", &["hu/x", "fr/z", "hu/y"])).await.unwrap();
}

#[tokio::test]
async fn each_reason_of_waiting_is_told_until_there_were_too_many() {
    let (_folder, store) = store().await;
    store.accept(message("be/a", &["hu/x", "hu/y"])).await.unwrap();
    let lane = queue("hu be/a");
    let reasons = [ErrorCode::GatewayUnreachable, ErrorCode::QueueFull];
    for why in reasons.into_iter().cycle().take(limits::WAITINGS as usize) {
        let untold = store.untold(&lane, why).await.unwrap();
        assert_eq!(untold.len(), 2, "{why:?}");
        for head in &untold {
            let to = Next::Waiting { why, is_back: false };
            assert!(store.change(Change { delivery: head.delivery, to, notice: None }).await.unwrap());
        }
        assert!(store.untold(&lane, why).await.unwrap().is_empty(), "told");
    }
    assert!(store.untold(&lane, ErrorCode::StaleBundle).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_peer_narrows_a_copy_only_so_often() {
    let (_folder, store) = store().await;
    let sent = message("be/a", &["hu/x"]);
    let copy = copy_of(&sent, "hu/x");
    store.accept(sent).await.unwrap();
    let (delivery, ..) = unit(&store, "hu be/a", DeliveryId::default()).await;
    store.change(Change { delivery, to: FORWARDED, notice: None }).await.unwrap();
    for _ in 0..limits::NARROWINGS {
        assert_eq!(settle(&store, &copy, false).await, Settled::Done);
    }
    assert_eq!(settle(&store, &copy, false).await, Settled::TooOften);
    assert_eq!(settle(&store, &copy, true).await, Settled::Done, "its end is heard all the same");
}

#[tokio::test]
async fn a_message_that_was_accepted_for_some_is_accepted_for_more() {
    let (_folder, store) = store().await;
    let section = |position| SealedSection { position, ..SealedSection::default() };
    let content = |positions: &[u32]| Envelope {
        manifest: Bytes::from_static(b"manifest"),
        sections: positions.iter().map(|position| section(*position)).collect(),
        ..Default::default()
    };
    let whole = message("hu/p", &["be/x", "be/y"]);
    let first = NewMessage { content: content(&[1, 4]), copies: whole.copies[..1].to_vec(), ..again(&whole) };
    let more = |before: &'static [u8]| NewMessage {
        acceptance: Bytes::from_static(b"of both"),
        extends: Some(Bytes::from_static(before)),
        content: content(&[2, 4]),
        copies: whole.copies[1..].to_vec(),
        ..again(&whole)
    };
    assert_eq!(store.accept(first).await.unwrap(), Accepted::New);
    let other = store.accept(more(b"something else")).await.unwrap();
    assert_eq!(other, Accepted::Again(Bytes::from_static(b"accepted")), "it goes on from another acceptance");
    assert_eq!(store.load(&queue("be/y")).deliveries, 0);
    assert_eq!(store.accept(more(b"accepted")).await.unwrap(), Accepted::New);
    let known = store.accepted(&whole.sender, whole.id).await.unwrap().unwrap();
    assert_eq!(known, (whole.digest, Bytes::from_static(b"of both")));
    for agency in ["be/x", "be/y"] {
        assert_eq!(sections(&store, agency).await, [[1, 2, 4]], "{agency}");
    }
    let [x, y] = [only(&store, "be/x").await, only(&store, "be/y").await];
    let gone = |delivery| store.change(Change { delivery, to: Next::Gone, notice: None });
    assert!(gone(x).await.unwrap() && gone(y).await.unwrap());

    // Its content went with the last copy, and comes again.
    let last = message("hu/p", &["be/z"]);
    let last = NewMessage {
        acceptance: Bytes::from_static(b"of all"),
        extends: Some(Bytes::from_static(b"of both")),
        content: content(&[3]),
        copies: last.copies.clone(),
        ..again(&whole)
    };
    assert_eq!(store.accept(last).await.unwrap(), Accepted::New);
    assert_eq!(sections(&store, "be/z").await, [[3]]);
}

/// The positions of the sections of each copy that waits for an agency.
async fn sections(store: &Store, agency: &str) -> Vec<Vec<u32>> {
    let waiting = store.queue(&queue(agency), DeliveryId::default()).await.unwrap().queued;
    let positions = waiting.into_iter().map(|queued| match queued.item {
        Item::Copy(copy) => copy.content.sections.iter().map(|section| section.position).collect(),
        Item::Notice(notice) => panic!("{notice:?}"),
    });
    positions.collect()
}

/// The one delivery that waits for an agency.
async fn only(store: &Store, agency: &str) -> DeliveryId {
    let waiting = store.queue(&queue(agency), DeliveryId::default()).await.unwrap().queued;
    assert_eq!(waiting.len(), 1);
    waiting[0].id
}

#[tokio::test]
async fn outstanding_copies_keep_their_message_and_become_overdue() {
    let (folder, store) = store().await;
    let sent = message("be/a", &["hu/x"]);
    let copy = copy_of(&sent, "hu/x");
    let late = sent.expires + Duration::hours(25);
    store.accept(sent).await.unwrap();
    let (delivery, ..) = unit(&store, "hu be/a", DeliveryId::default()).await;
    store.change(Change { delivery, to: FORWARDED, notice: None }).await.unwrap();
    drop(store);
    let store = open(&folder).await;
    assert_eq!(store.forget(late).await.unwrap(), 0);
    assert!(store.overdue(late - Duration::hours(2)).await.unwrap().is_empty());
    assert_eq!(store.overdue(late).await.unwrap(), std::slice::from_ref(&copy));
    assert_eq!(store.outstanding_at(&domain("hu")).await.unwrap(), std::slice::from_ref(&copy));
    assert_eq!(settle(&store, &copy, true).await, Settled::Done);
    assert_eq!(store.forget(late).await.unwrap(), 1);
}

#[tokio::test]
async fn what_a_peer_lost_goes_back_to_its_place_until_its_end_is_told() {
    let (folder, store) = store().await;
    let alert = message("be/a", &["hu/x", "hu/y", "hu/z"]);
    let now = alert.expires - Duration::hours(1);
    let [x, y, z] = ["hu/x", "hu/y", "hu/z"].map(|recipient| copy_of(&alert, recipient));
    store.accept(again(&alert)).await.unwrap();
    store.accept(message("be/a", &["hu/x"])).await.unwrap();
    let lane = queue("hu be/a");
    let copies = store.waiting(&lane).await.unwrap();
    let change = async |store: &Store, delivery, to| {
        store.change(Change { delivery, to, notice: None }).await.unwrap()
    };
    for (delivery, _) in &copies[..3] {
        assert!(change(&store, *delivery, offered()).await);
        assert!(change(&store, *delivery, FORWARDED).await);
        let late = Next::Waiting { why: ErrorCode::QueueFull, is_back: true };
        assert!(!change(&store, *delivery, late).await, "it waits no more");
        assert!(!change(&store, *delivery, Next::Gone).await, "the peer alone tells its end");
    }
    assert_eq!(settle(&store, &z, true).await, Settled::Done);
    drop(store);
    let store = open(&folder).await;
    assert_eq!(store.load(&lane).deliveries, 1);
    for agency in ["hu/x", "hu/y"] {
        assert_eq!(store.load(&queue(agency)).deliveries, 1, "it counts where it waits");
    }

    let lost = async |log, now| store.lost_at(&domain("hu"), log, now).await.unwrap();
    assert!(lost(1, now).await.is_empty(), "it was accepted under that log");
    assert!(lost(2, alert.expires).await.is_empty(), "it has expired");
    assert!(store.lost_at(&domain("h"), 2, now).await.unwrap().is_empty(), "another domain");
    let heads = lost(2, now).await;
    let delivery = |number: usize| copies[number].0;
    assert_eq!(heads.iter().map(|head| head.delivery).collect::<Vec<_>>(), [delivery(0), delivery(1)]);
    for head in heads {
        assert!(change(&store, head.delivery, Next::Again(lane.clone())).await);
        assert!(!change(&store, head.delivery, Next::Again(lane.clone())).await, "it is there already");
    }
    assert!(lost(2, now).await.is_empty());
    assert_eq!((store.load(&lane).deliveries, store.load(&queue("hu/x"))), (3, Load::default()));
    let (first, last, recipients) = unit(&store, "hu be/a", DeliveryId::default()).await;
    assert_eq!((first, last), (delivery(0), delivery(1)), "before what came after it");
    assert_eq!(recipients, ["hu/x", "hu/y"], "not the one whose end was told");
    let head = store.waiting(&lane).await.unwrap().remove(0).1.unwrap();
    assert!(head.offered && head.accepted);

    // The peer had one of them after all, and accepts the other anew.
    assert_eq!(settle(&store, &x, true).await, Settled::Done);
    assert_eq!(store.load(&lane).deliveries, 2);
    assert!(change(&store, last, Next::Forwarded { log: Some(2) }).await);
    assert!(lost(2, now).await.is_empty());
    assert_eq!(lost(3, now).await.len(), 1);
    assert_eq!(settle(&store, &y, true).await, Settled::Done);
    assert!(lost(3, now).await.is_empty());
    assert_eq!(settle(&store, &y, true).await, Settled::Unknown);
    assert_eq!(store.load(&lane).deliveries, 1);
}

#[tokio::test]
async fn a_peer_that_opens_logs_again_and_again_gets_a_copy_only_so_often() {
    let (_folder, store) = store().await;
    let sent = message("be/a", &["hu/x"]);
    let now = sent.expires - Duration::hours(1);
    store.accept(sent).await.unwrap();
    let (delivery, ..) = unit(&store, "hu be/a", DeliveryId::default()).await;
    let change = async |to| assert!(store.change(Change { delivery, to, notice: None }).await.unwrap());
    for log in 1..=limits::OFFERED_AGAIN {
        change(Next::Forwarded { log: Some(log) }).await;
        assert_eq!(store.lost_at(&domain("hu"), log + 1, now).await.unwrap().len(), 1);
        change(Next::Again(queue("hu be/a"))).await;
    }
    change(FORWARDED).await;
    assert!(store.lost_at(&domain("hu"), u32::MAX, now).await.unwrap().is_empty());
}

/// What is not to be offered any more is not, whatever the peer may have of it.
#[tokio::test]
async fn what_was_left_with_a_peer_is_not_offered_again() {
    let (_folder, store) = store().await;
    let sent = message("be/a", &["hu/x"]);
    let (copy, now) = (copy_of(&sent, "hu/x"), sent.expires - Duration::hours(1));
    store.accept(sent).await.unwrap();
    let (delivery, ..) = unit(&store, "hu be/a", DeliveryId::default()).await;
    let left = Next::Forwarded { log: None };
    assert!(store.change(Change { delivery, to: left, notice: None }).await.unwrap());
    assert!(store.lost_at(&domain("hu"), u32::MAX, now).await.unwrap().is_empty());
    assert_eq!(settle(&store, &copy, true).await, Settled::Done, "the peer's word is heard");
}

const FORWARDED: Next = Next::Forwarded { log: Some(1) };

async fn store() -> (TempDir, Store) {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    (folder, store)
}

/// The gateway's.
fn signing() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

async fn open(folder: &TempDir) -> Store {
    Store::open(&engine::database(folder.path()).await, Company::None, QueueBound::default(), &signing())
        .await
        .unwrap()
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
        leaf: None,
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

/// What the log says of something, whatever it is.
fn leaf() -> NewLeaf {
    NewLeaf::new(Event::Act(Act::default()), OffsetDateTime::now_utc()).unwrap()
}

fn offered() -> Next {
    Next::Offered { leaf: Some(Box::new(leaf())), view: u64::MAX }
}

fn message(sender: &str, recipients: &[&str]) -> NewMessage {
    let id = Uuid::now_v7();
    let own = domain("be");
    let from = address(sender);
    NewMessage {
        view: 0,
        leaf: Some(leaf()),
        id,
        digest: sha256(id.as_bytes()),
        expires: OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap(),
        acceptance: Bytes::from_static(b"accepted"),
        content: Envelope { manifest: Bytes::from_static(b"manifest"), ..Default::default() },
        extends: None,
        opens: None,
        copies: recipients
            .iter()
            .map(|recipient| NewCopy {
                recipient: address(recipient),
                queue: liaison_gateway::delivery::queue(&own, &from, &address(recipient)),
                answers: liaison_gateway::delivery::answers(&own, &from, &address(recipient)),
                bases_salt: Bytes::new(),
                handed_over: None,
                proof: RecipientProof { address: (*recipient).to_owned(), ..Default::default() },
                released: Released {
                    bases: PreviewRecipient { address: (*recipient).to_owned(), bases: Vec::new() },
                    decision: RecipientDecision::default(),
                    release: SignedReleaseRecord::default(),
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
        view: 0,
        leaf: message.leaf.clone(),
        extends: message.extends.clone(),
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
