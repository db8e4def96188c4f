//! Stores of several gateways on one database of a server: nothing here runs where the engine is a file.

use std::{collections::BTreeSet, pin::pin, time::Duration};

use liaison_gateway::store::{Act, KnownPeer, LogKind, StoreError};
use liaison_proto::{
    admin::v1::{LoadPolicyRequest, peer_state::Code as PeerState},
    federation::v1::SignedBundle,
};
use sqlx::{ConnectOptions, Connection, postgres::PgConnectOptions};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

use super::*;

/// Longer than anything takes that is not kept waiting.
const EARLY: Duration = Duration::from_millis(300);
/// Far longer than anything here takes.
const LATE: Duration = Duration::from_secs(60);

/// The database of two gateways, on a server.
async fn server(folder: &Path) -> Option<(Database, PgConnectOptions)> {
    match engine::database(folder).await {
        Database::Postgres(options) => Some((Database::Postgres(options.clone()), *options)),
        Database::Sqlite(_) => None,
    }
}

async fn gateway(database: &Database, bound: QueueBound) -> Store {
    Store::open(database, Company::Gateways, bound, &signing()).await.unwrap()
}

/// Two gateways on one database, whose queues hold two deliveries.
async fn two_gateways(folder: &Path) -> Option<[Store; 2]> {
    let (database, _) = server(folder).await?;
    let bound = QueueBound { deliveries: 2, ..QueueBound::default() };
    Some([gateway(&database, bound).await, gateway(&database, bound).await])
}

fn act(subject: &str) -> Act<'_> {
    Act { at: OffsetDateTime::now_utc(), actor: "test", act: "load_policy", subject }
}

#[tokio::test]
async fn gateways_of_one_database_share_the_account_of_its_queues() {
    let folder = TempDir::new().unwrap();
    let Some([first, second]) = two_gateways(folder.path()).await else { return };
    let send = async |store: &Store| store.accept(message("be/a", &["be/b"])).await;
    assert_eq!(send(&first).await.unwrap(), Accepted::New);
    assert_eq!(send(&second).await.unwrap(), Accepted::New);
    for store in [&first, &second] {
        assert!(
            matches!(send(store).await, Err(AcceptError::QueueFull(_))),
            "the bound is each gateway's own"
        );
    }
    let queued = queue(&first, "be/b").await;
    assert_eq!(queued.len(), 2);
    // A number that was given out is never given out again, for a session with either may still answer for it.
    let newest = queued.last().unwrap().id;
    assert!(second.change(gone(newest)).await.unwrap());
    assert_eq!(send(&first).await.unwrap(), Accepted::New);
    let queued = queue(&second, "be/b").await;
    assert_eq!(queued.len(), 2);
    assert!(queued.last().unwrap().id > newest);
}

#[tokio::test]
async fn what_is_decided_before_a_change_is_known_is_not_accepted() {
    let folder = TempDir::new().unwrap();
    let Some([first, second]) = two_gateways(folder.path()).await else { return };
    let crossing = || NewMessage {
        copies: message("be/a", &["hu/b"])
            .copies
            .into_iter()
            .map(|copy| NewCopy { queue: waiting("hu be/a"), ..copy })
            .collect(),
        ..message("be/a", &[])
    };
    assert_eq!(first.accept(crossing()).await.unwrap(), Accepted::New);
    first.activate_policy(&sha256(b"set"), &LoadPolicyRequest::default(), act("none")).await.unwrap();
    let message = message("be/a", &["be/b"]);
    assert!(matches!(second.accept(again(&message)).await, Err(AcceptError::Outdated)));
    // Whoever made the change knows of it.
    let known = NewMessage { view: first.known(), ..again(&message) };
    assert_eq!(first.accept(known).await.unwrap(), Accepted::New);
    // What was accepted before stays so, whatever changed.
    assert!(matches!(second.accept(again(&message)).await, Ok(Accepted::Again(_))));

    // Nothing is handed over meanwhile either, nor given to a peer.
    let (to_b, lane) = (waiting("be/b"), waiting("hu be/a"));
    let mut taken = pin!(second.queue(&to_b, DeliveryId::default()));
    assert!(timeout(EARLY, &mut taken).await.is_err(), "it is handed over by what was before");
    let mut given = pin!(second.unit(&lane, DeliveryId::default()));
    assert!(timeout(EARLY, &mut given).await.is_err(), "it is given to a peer by what was before");
    let delivery = queue(&first, "be/b").await[0].id;
    let by = |view| Change { delivery, to: Next::HandedOver { leaf: Box::new(leaf()), view }, notice: None };
    let handed_over = second.change(by(second.known())).await;
    assert!(matches!(handed_over, Err(StoreError::Outdated)), "it goes by what was before: {handed_over:?}");
    second.knows(second.state().await.unwrap());
    assert!(second.change(by(second.known())).await.unwrap());
    assert_eq!(taken.await.unwrap().queued.len(), 1);
    assert!(given.await.unwrap().is_some());
    let decided_now = NewMessage { view: second.known(), ..self::message("be/a", &["be/b"]) };
    assert_eq!(second.accept(decided_now).await.unwrap(), Accepted::New);
}

#[tokio::test]
async fn changes_of_several_gateways_have_one_order() {
    const EACH: usize = 30;
    let folder = TempDir::new().unwrap();
    let Some((database, _)) = server(folder.path()).await else { return };
    let stores =
        [gateway(&database, QueueBound::default()).await, gateway(&database, QueueBound::default()).await];
    let sent = stores.iter().flat_map(|store| {
        (0..EACH).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.accept(message("be/a", &["be/b"])).await })
        })
    });
    for sent in sent.collect::<Vec<_>>() {
        assert_eq!(sent.await.unwrap().unwrap(), Accepted::New);
    }
    let page = queue(&stores[0], "be/b").await;
    let numbers: BTreeSet<_> = page.iter().map(|queued| queued.id).collect();
    assert_eq!(numbers.len(), 2 * EACH);
    assert_eq!(
        stores[0].load(&waiting("be/b")).deliveries.max(stores[1].load(&waiting("be/b")).deliveries),
        60
    );
}

#[tokio::test]
async fn what_is_not_told_is_found_in_the_account() {
    let folder = TempDir::new().unwrap();
    let Some([first, second]) = two_gateways(folder.path()).await else { return };
    first.accept(message("be/a", &["be/b"])).await.unwrap();
    assert!(second.filled().is_empty());
    second.refresh_account(None).await.unwrap();
    assert_eq!(second.filled(), [waiting("be/b")]);
}

/// One that was frozen as it led wakes up after another has signed.
#[tokio::test]
async fn of_two_that_lead_one_signs() {
    let folder = TempDir::new().unwrap();
    let Some([first, second]) = two_gateways(folder.path()).await else { return };
    let log = first.log_head(LogKind::Evidence).await.unwrap().log;
    assert!(first.grow_log(log, (0, 2), b"of the first", &[]).await.unwrap());
    assert!(!second.grow_log(log, (0, 1), b"of the second", &[]).await.unwrap(), "two heads go on from one");
    let kept = second.log_head(LogKind::Evidence).await.unwrap();
    assert_eq!((kept.size, kept.checkpoint.as_deref()), (2, Some(b"of the first".as_slice())));
    assert!(second.grow_log(log, (2, 3), b"of the second", &[]).await.unwrap());
}

#[tokio::test]
async fn a_peering_that_one_ended_another_begins_by_an_acceptance_alone() {
    let folder = TempDir::new().unwrap();
    let Some([first, second]) = two_gateways(folder.path()).await else { return };
    let peer = |state, removed: Option<i64>| KnownPeer {
        domain: "hu".parse().unwrap(),
        state,
        bundle: SignedBundle::default(),
        countries: BTreeSet::new(),
        removed: removed.map(|after| now() + time::Duration::seconds(after)),
        directory: Default::default(),
    };
    let kept = async || {
        let kept = second.peers().await.unwrap().remove(0);
        (kept.state, kept.removed.map(|removed| (removed - now()).whole_seconds()))
    };
    assert!(first.set_peer(&peer(PeerState::Active, None), true, act("hu")).await.unwrap());
    assert!(first.set_peer(&peer(PeerState::Removed, Some(5)), false, act("hu")).await.unwrap());
    // By what the second knew before.
    assert!(!second.set_peer(&peer(PeerState::Suspended, None), false, act("hu")).await.unwrap());
    assert!(!second.set_peer(&peer(PeerState::Active, None), false, act("hu")).await.unwrap());
    assert_eq!(kept().await, (PeerState::Removed, Some(5)));
    // It was ended again, by a clock that is behind.
    assert!(second.set_peer(&peer(PeerState::Removed, Some(3)), false, act("hu")).await.unwrap());
    assert_eq!(kept().await, (PeerState::Removed, Some(5)));
    assert!(second.set_peer(&peer(PeerState::Active, Some(6)), true, act("hu")).await.unwrap());
    assert_eq!(kept().await, (PeerState::Active, Some(6)));
}

/// Makes the server do something as a message is committed.
async fn at_commit(database: &Database, body: &str) {
    let function = format!(
        "CREATE FUNCTION hinder() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NULL; END $$"
    );
    engine::by_hand(database, &function).await;
    let trigger = "CREATE CONSTRAINT TRIGGER hinder AFTER INSERT ON message DEFERRABLE INITIALLY DEFERRED \
                   FOR EACH ROW EXECUTE FUNCTION hinder()";
    engine::by_hand(database, trigger).await;
}

#[tokio::test]
async fn a_commit_that_the_server_refuses_is_offered_again() {
    let folder = TempDir::new().unwrap();
    let Some((database, _)) = server(folder.path()).await else { return };
    let store = gateway(&database, QueueBound::default()).await;
    at_commit(&database, "RAISE EXCEPTION 'the disk is full'").await;
    let message = message("be/a", &["be/b"]);
    let refused = store.accept(again(&message)).await;
    assert!(matches!(refused, Err(AcceptError::Store(StoreError::NotCommitted))), "{refused:?}");
    assert!(
        timeout(EARLY, store.lost()).await.is_err(),
        "the gateway ends, though it is known what became of it"
    );
    assert!(queue(&store, "be/b").await.is_empty());
    engine::by_hand(&database, "DROP TRIGGER hinder ON message").await;
    assert_eq!(store.accept(message).await.unwrap(), Accepted::New);
    assert_eq!((queue(&store, "be/b").await.len(), store.load(&waiting("be/b")).deliveries), (1, 1));
}

#[tokio::test]
async fn a_commit_without_an_answer_ends_the_gateway() {
    let folder = TempDir::new().unwrap();
    let Some((database, options)) = server(folder.path()).await else { return };
    let store = gateway(&database, QueueBound::default()).await;
    at_commit(&database, "PERFORM pg_advisory_lock(7)").await;
    let mut other = options.connect().await.unwrap();
    sqlx::query("SELECT pg_advisory_lock(7)").execute(&mut other).await.unwrap();
    let mut accepted = pin!(store.accept(message("be/a", &["be/b"])));
    let end = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE datname = current_database() AND wait_event_type = 'Lock' AND query = 'COMMIT'";
    let ended = async {
        while sqlx::query_scalar::<_, i64>(end).fetch_one(&mut other).await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    };
    let (accepted, ()) = timeout(LATE, async { tokio::join!(&mut accepted, ended) }).await.unwrap();
    assert!(matches!(accepted, Err(AcceptError::Store(StoreError::NotCommitted))), "{accepted:?}");
    timeout(LATE, store.lost()).await.expect("it goes on, and does not know what became of the message");
    other.close().await.unwrap();
}

/// A way to the server. Once it is cut, nothing gets through on the connections that there are, and no end is told.
struct Line {
    cut: watch::Sender<()>,
    port: u16,
}

impl Line {
    async fn to(server: &PgConnectOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, server) = (watch::Sender::new(()), format!("{}:{}", server.get_host(), server.get_port()));
        let cuts = cut.clone();
        tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut far = TcpStream::connect(&server).await.unwrap();
                let mut cut = cuts.subscribe();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { cut, port }
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_keeps_nobody_waiting_without_end() {
    let folder = TempDir::new().unwrap();
    let Some((_, options)) = server(folder.path()).await else { return };
    let line = Line::to(&options).await;
    let database = Database::Postgres(Box::new(options.host("127.0.0.1").port(line.port)));
    let store = gateway(&database, QueueBound::default()).await;
    assert_eq!(store.accept(message("be/a", &["be/b"])).await.unwrap(), Accepted::New);
    line.cut.send_replace(());
    let message = message("be/a", &["be/b"]);
    let offers = async { tokio::join!(store.accept(again(&message)), store.state(), store.probe(now())) };
    let (accepted, read, probed) = timeout(LATE, offers).await.expect("it waits for the network to give up");
    assert!(matches!(accepted, Err(AcceptError::Store(StoreError::NotCommitted))), "{accepted:?}");
    assert!(matches!(read, Err(StoreError::Database(_))), "{read:?}");
    assert!(matches!(probed, Err(StoreError::Database(_))), "{probed:?}");
    // Nothing was committed: the gateway need not end.
    assert!(timeout(EARLY, store.lost()).await.is_err());
}

#[tokio::test]
async fn a_change_that_waited_too_long_for_its_turn_does_not_take_it_later() {
    /// Sooner than the server ends what holds a turn without a word.
    const SOON: Duration = Duration::from_secs(8);
    let folder = TempDir::new().unwrap();
    let Some((database, options)) = server(folder.path()).await else { return };
    let bound = QueueBound::default();
    let [first, second] = [gateway(&database, bound).await, gateway(&database, bound).await];
    let mut other = options.connect().await.unwrap();
    // As one does whose commit waits for a standby.
    sqlx::raw_sql("BEGIN; SELECT turn FROM shared FOR UPDATE").execute(&mut other).await.unwrap();
    let given_up = timeout(LATE, first.accept(message("be/a", &["be/b"]))).await.unwrap();
    assert!(matches!(given_up, Err(AcceptError::Store(StoreError::NotCommitted))), "{given_up:?}");
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    let accepted = timeout(SOON, second.accept(message("be/a", &["be/b"]))).await;
    assert_eq!(accepted.expect("the turn is with a change that was given up").unwrap(), Accepted::New);
    other.close().await.unwrap();
}
