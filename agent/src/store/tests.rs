//! The store against crashes, repetition and time.

mod ends;
mod overwritten;
mod statements;
mod together;

use std::collections::{BTreeMap, HashSet};

use liaison_proto::{
    message::v1::{
        Acceptance, DomainDecision, RecipientDecision, Refusal, Rule, SignedAcceptance,
        SignedAcknowledgement, StateChange, data_category::Code as Category, error_code::Code as ErrorCode,
        kind::Code as Kind, outcome::Code as Outcome, referral_state::Code as State,
        rejection_reason::Code as Reason, status::Code as Status, verdict::Code as Verdict,
    },
    times,
};
use liaison_trust::{
    digest::{Digest, hash},
    names::{AgencyAddress, Domain as DomainName},
    statement,
};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::*;
use crate::{
    agent::Agent,
    outbox::{Idempotency, Stored},
    testing::{CANARY, Domain, add, introduce, on_disk, referral, reopened, seal},
};

fn shelter() -> AgencyAddress {
    "be/shelter".parse().unwrap()
}

fn belgium() -> DomainName {
    "be".parse().unwrap()
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn change(state: State) -> StateChange {
    let reason = if state == State::Rejected { Reason::NoCapacity } else { Reason::Unspecified };
    let outcome = if state == State::Completed { Outcome::ServiceProvided } else { Outcome::Unspecified };
    StateChange { state: state.into(), reason: reason.into(), outcome: outcome.into() }
}

async fn due(store: &Store) -> Vec<Uuid> {
    store.due(now(), &HashSet::new(), 100).await.unwrap()
}

async fn state(store: &Store, id: Uuid) -> State {
    store.message(id).await.unwrap().unwrap().state.state()
}

async fn digest_of(store: &Store, id: Uuid) -> Digest {
    match store.waiting(id).await.unwrap() {
        Some(Waiting::Sealed { digest, .. }) => digest,
        _ => panic!("not sealed"),
    }
}

/// The gateway accepts, with these verdicts.
async fn accept(domain: &Domain, store: &Store, id: Uuid, verdicts: &[(&str, Verdict)]) {
    let decisions = verdicts
        .iter()
        .map(|(recipient, verdict)| RecipientDecision {
            recipient: (*recipient).to_owned(),
            verdict: (*verdict).into(),
            rule: (*verdict != Verdict::Released)
                .then(|| Rule { rule: "no-alerts".into(), ..Rule::default() }),
            categories: Vec::new(),
        })
        .collect();
    let acceptance = Acceptance {
        message_id: id.as_bytes().to_vec().into(),
        manifest_digest: digest_of(store, id).await.into(),
        accepted_at: Some(times::to_wire(now())),
        policy_hash: Digest([1; 32]).into(),
        scheme_hash: Digest([2; 32]).into(),
        decisions,
    };
    let signed: SignedAcceptance = statement::sign(&acceptance, &domain.gateway);
    store.accepted(id, &acceptance, &signed).await.unwrap();
}

/// A decision as the part of its own domain.
fn part(decision: RecipientDecision) -> DomainDecision {
    DomainDecision {
        domain: "be".into(),
        recipient: decision.recipient.clone(),
        decision: Some(decision),
        ..DomainDecision::default()
    }
}

fn acknowledged(state: State) -> Event {
    let signed = SignedAcknowledgement::default();
    Event::Acknowledged { signed, thread_state: Some(change(state)), heads: Vec::new() }
}

/// A referral that the shelter holds.
async fn held_referral(domain: &Domain, police: &Agent, other: &Agent) -> Uuid {
    let id = add(&police.store, referral(&shelter())).await;
    seal(police, other, id).await;
    accept(domain, &police.store, id, &[("be/shelter", Verdict::Released)]).await;
    police.store.notice(id, &shelter(), now(), &belgium(), acknowledged(State::Received)).await.unwrap();
    id
}

#[tokio::test]
async fn a_sent_referral_survives_a_crash_at_every_step() {
    let domain = Domain::new();
    let (dir, police) = domain.agent("police").await;
    let (_shelter_dir, other) = domain.agent("shelter").await;
    let id = add(&police.store, referral(&shelter())).await;

    let police = reopened(police).await;
    assert_eq!(due(&police.store).await, [id]);
    let Some(Waiting::Draft(draft)) = police.store.waiting(id).await.unwrap() else { panic!("no draft") };
    let again = referral(&shelter());
    assert_eq!(draft.sections, again.sections);
    assert_eq!(draft.recipients, again.recipients);
    assert_eq!(draft.facts, again.facts);
    assert!(on_disk(&dir, b"be/shelter"), "what is not secret is found, so what is would be");
    assert!(!on_disk(&dir, CANARY), "a draft stands in clear");
    seal(&police, &other, id).await;

    let police = reopened(police).await;
    let Some(Waiting::Sealed { envelope, digest }) = police.store.waiting(id).await.unwrap() else {
        panic!("not sealed")
    };
    let twice = police.store.sealed(id, b"another", Digest([9; 32]), &[]).await.unwrap();
    assert!(!twice, "sealing happens once");
    let police = reopened(police).await;
    match police.store.waiting(id).await.unwrap() {
        Some(Waiting::Sealed { envelope: same, digest: same_digest }) => {
            assert_eq!((same, same_digest), (envelope, digest));
        }
        _ => panic!("not sealed"),
    }
    accept(&domain, &police.store, id, &[("be/shelter", Verdict::Released)]).await;

    let police = reopened(police).await;
    assert_eq!(state(&police.store, id).await, State::Requested);
    assert_eq!(police.store.counts().await.unwrap().outbox, 0);
    assert!(police.store.waiting(id).await.unwrap().is_none());
    assert_eq!(police.store.sent_to(id, &shelter()).await.unwrap(), Some(digest));
    for _again in 0..2 {
        police.store.notice(id, &shelter(), now(), &belgium(), acknowledged(State::Received)).await.unwrap();
    }

    let police = reopened(police).await;
    let message = police.store.message(id).await.unwrap().unwrap();
    let history: Vec<_> = message.history.iter().map(|event| event.change.state()).collect();
    assert_eq!(history, [State::Submitted, State::Requested, State::Received]);
    assert_eq!(message.deliveries[0].state, State::Received);
    assert_eq!(message.policy_hash, Some(Digest([1; 32])));
    assert!(!on_disk(&dir, CANARY));
}

#[tokio::test]
async fn a_key_repeats_a_request_and_refuses_another() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let key = |what: &str| Some(Idempotency { key: "k".into(), digest: hash("request", &[what.as_bytes()]) });
    let send = |what| police.store.add(vec![referral(&shelter())], key(what), "ann", &[], Vec::new());

    let (first, ids) = send("a").await.unwrap();
    assert_eq!(first, Stored::New);
    assert_eq!(send("a").await.unwrap(), (Stored::Again, ids.clone()));
    assert_eq!(send("b").await.unwrap_err().code(), ErrorCode::IdempotencyConflict);
    assert_eq!(due(&police.store).await, ids, "nothing more was stored");

    police.store.erase_due(now() + Duration::hours(25)).await.unwrap();
    assert_eq!(send("a").await.unwrap().0, Stored::Again, "remembered for over a day");
    police.store.erase_due(now() + Duration::hours(49)).await.unwrap();
    assert_eq!(send("a").await.unwrap().0, Stored::New);
}

#[tokio::test]
async fn a_full_outbox_refuses_and_keeps_nothing() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let id = add(&police.store, referral(&shelter())).await;
    let mut tx = police.store.begin().await.unwrap();
    tx.write("update outbox set bytes = ?").bind(limits::OUTBOX_BYTES);
    tx.commit().await.unwrap();
    let refusal =
        police.store.add(vec![referral(&shelter())], None, "ann", &[], Vec::new()).await.unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::QueueFull);
    assert!(refusal.retry_after_ms > 0);
    assert_eq!(due(&police.store).await, [id]);
}

/// Lets the database grow to so many pages, or no more: SQLite's own bound fails as a full disk does.
async fn bound_pages(store: &Store, most: Option<i64>) {
    let mut tx = store.begin().await.unwrap();
    let (pages,): (i64,) = tx.ask("pragma page_count").first().await.unwrap().unwrap();
    let bound = format!("pragma max_page_count = {}", most.unwrap_or(pages));
    tx.write(bound.leak());
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_is_lost_or_stuck_once_there_is_room() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let first = add(&police.store, referral(&shelter())).await;
    bound_pages(&police.store, None).await;
    let mut large = referral(&shelter());
    large.sections = BTreeMap::from([(Category::Narrative, Zeroizing::new(vec![1; 1 << 20]))]);
    let refusal = police.store.add(vec![large], None, "ann", &[], Vec::new()).await.unwrap_err();
    assert!(refusal.message.contains("disk is full"), "{refusal}");
    assert_eq!(due(&police.store).await, [first]);

    bound_pages(&police.store, Some(1_000_000)).await;
    let second = add(&police.store, referral(&shelter())).await;
    assert_eq!(due(&police.store).await, [first, second]);
}

#[tokio::test]
async fn a_thread_goes_in_order_and_others_pass_it() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let (_shelter_dir, other) = domain.agent("shelter").await;
    let first = add(&police.store, referral(&shelter())).await;
    seal(&police, &other, first).await;
    let changed = police.store.change_state(first, change(State::Cancelled), "ann").await.unwrap();
    assert!(changed.cancel_pending);
    assert_eq!(changed.state.state(), State::Submitted, "a cancellation takes effect when it is answered");
    let second = add(&police.store, referral(&shelter())).await;
    assert_eq!(due(&police.store).await, [first, second]);
    let under_way = HashSet::from([first]);
    assert_eq!(police.store.due(now(), &under_way, 100).await.unwrap(), [second]);

    police.store.postpone(first, now() + Duration::MINUTE).await.unwrap();
    assert_eq!(due(&police.store).await, [second]);
    police.store.postpone(first, now() - Duration::SECOND).await.unwrap();
    accept(&domain, &police.store, first, &[("be/shelter", Verdict::Released)]).await;
    let now_due = due(&police.store).await;
    assert_eq!(now_due.len(), 2);
    let Some(Waiting::Draft(cancel)) = police.store.waiting(now_due[0]).await.unwrap() else { panic!() };
    assert_eq!((cancel.kind, cancel.state_change), (Kind::State, Some(change(State::Cancelled))));
}

#[tokio::test]
async fn a_referral_that_never_left_is_cancelled_at_once() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let id = add(&police.store, referral(&shelter())).await;
    let message = police.store.change_state(id, change(State::Cancelled), "ann").await.unwrap();
    assert_eq!((message.state.state(), message.cancel_pending), (State::Cancelled, false));
    assert!(due(&police.store).await.is_empty());
    let refusal = police.store.change_state(id, change(State::Accepted), "ann").await.unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::TransitionNotAllowed);
    let refusal = police.store.change_state(Uuid::now_v7(), change(State::Cancelled), "ann").await;
    assert_eq!(refusal.unwrap_err().code(), ErrorCode::UnknownMessage);
}

#[tokio::test]
async fn who_asked_and_who_answers_is_noted_with_the_message_or_not_at_all() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let key = || Some(Idempotency { key: "k".into(), digest: hash("test", &[b"one"]) });
    for expected in [Stored::New, Stored::Again] {
        let sent = police.store.add(vec![referral(&shelter())], key(), "ann", &["Officer 12"], Vec::new());
        assert_eq!(sent.await.unwrap().0, expected);
    }
    let noted: Vec<(String, String)> = sqlx::query_as(
        "select actor, action from audit where message in (select id from messages) order by seq",
    )
    .fetch_all(police.store.readers())
    .await
    .unwrap();
    assert_eq!(noted, [("ann".into(), "send".into()), ("Officer 12".into(), "vital_interest".into())]);
    let all: i64 =
        sqlx::query_scalar("select count(*) from audit").fetch_one(police.store.readers()).await.unwrap();
    assert_eq!(all, 2, "nothing of the repetition");
}

#[tokio::test]
async fn an_alert_tells_of_each_recipient() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let (_shelter_dir, other) = domain.agent("shelter").await;
    let mut alert = referral(&shelter());
    alert.kind = Kind::Alert;
    alert.alert_kind = liaison_proto::message::v1::alert_kind::Code::HealthRisk;
    let ministry: AgencyAddress = "be/ministry".parse().unwrap();
    alert.recipients.push((ministry, BTreeMap::new()));
    let refused = RecipientDecision {
        recipient: "be/hotel".into(),
        verdict: Verdict::Withheld.into(),
        rule: Some(Rule { rule: "no-hotels".into(), ..Rule::default() }),
        categories: Vec::new(),
    };
    let id = alert.id;
    police.store.add(vec![alert], None, "ann", &[], vec![refused]).await.unwrap();
    let digest = Digest([5; 32]);
    police.store.sealed(id, b"envelope", digest, &[]).await.unwrap();
    let verdicts = [("be/shelter", Verdict::Released), ("be/ministry", Verdict::Withheld)];
    accept(&domain, &police.store, id, &verdicts).await;
    police.store.notice(id, &shelter(), now(), &belgium(), acknowledged(State::Unspecified)).await.unwrap();
    drop(other);

    let alert = police.store.message(id).await.unwrap().unwrap();
    let told: Vec<_> = alert
        .deliveries
        .iter()
        .map(|delivery| {
            let rule = delivery.refusal.as_ref().and_then(|refusal| refusal.rule.clone());
            (delivery.agency.name().to_owned(), delivery.state, rule.map(|rule| rule.rule))
        })
        .collect();
    assert_eq!(
        told,
        [
            ("hotel".into(), State::Refused, Some("no-hotels".into())),
            ("ministry".into(), State::Refused, Some("no-alerts".into())),
            ("shelter".into(), State::Received, None),
        ]
    );
    assert!(alert.refusal.is_none(), "an alert that reaches somebody has not failed");
    assert!(alert.history.is_empty());
}

#[tokio::test]
async fn lists_are_newest_first_in_pages_and_exercises_apart() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(add(&police.store, referral(&shelter())).await);
    }
    let mut exercise = referral(&shelter());
    exercise.status = Status::Exercise;
    let exercise = add(&police.store, exercise).await;
    let list = |status, after, limit| {
        let store = police.store.clone();
        async move {
            let page = store.messages(Kind::Referral, None, status, after, limit).await.unwrap();
            page.iter().map(|message| message.id).collect::<Vec<_>>()
        }
    };
    ids.reverse();
    assert_eq!(list(Status::Actual, None, 2).await, ids[..2]);
    assert_eq!(list(Status::Actual, Some(ids[1]), 2).await, ids[2..]);
    assert_eq!(list(Status::Exercise, None, 9).await, [exercise]);
    let received =
        police.store.messages(Kind::Referral, Some(Direction::Received), Status::Actual, None, 9).await;
    assert!(received.unwrap().is_empty());
}

#[tokio::test]
async fn another_vault_key_opens_nothing() {
    let domain = Domain::new();
    let (_dir, police) = domain.agent("police").await;
    let id = add(&police.store, referral(&shelter())).await;
    police.store.close().await;
    let vault = Vault::from_key([1; 32]);
    let store = Store::open(&police.folder.database(), vault, police.address.clone()).await.unwrap();
    assert!(matches!(store.waiting(id).await, Err(StoreError::Sealed("draft"))));
}

#[tokio::test]
async fn who_holds_what_was_sent_before_is_told_by_where_it_stands() {
    let mut connection =
        <sqlx::SqliteConnection as sqlx::Connection>::connect("sqlite::memory:").await.unwrap();
    let run = async |connection: &mut sqlx::SqliteConnection, sql: &'static str| {
        sqlx::raw_sql(sql).execute(connection).await.unwrap();
    };
    run(&mut connection, include_str!("../../migrations/0001_agent.sql")).await;
    // Waiting, at the gateway, received by the agency, refused there; and one that came.
    let cases = [(1, State::Submitted), (1, State::Requested), (1, State::Received), (1, State::Refused)];
    for (number, (direction, state)) in cases.into_iter().chain([(2, State::Received)]).enumerate() {
        let id = vec![u8::try_from(number).unwrap(); 16];
        sqlx::query(
            "insert into messages (id, thread, direction, kind, alert_kind, sender, urgency, status, created, \
             expires, change) values (?1, ?1, ?2, 1, 0, 'be/police', 1, 1, 0, 0, x'')",
        )
        .bind(&id)
        .bind(direction)
        .execute(&mut connection)
        .await
        .unwrap();
        sqlx::query("insert into deliveries (message, agency, state) values (?, 'be/shelter', ?)")
            .bind(&id)
            .bind(i32::from(state))
            .execute(&mut connection)
            .await
            .unwrap();
    }
    run(&mut connection, include_str!("../../migrations/0002_federation.sql")).await;
    let holders: Vec<String> = sqlx::query_scalar("select holder from deliveries order by message")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert_eq!(holders, ["be/police", "be", "be/shelter", "be", ""]);
}
