//! Receipts reach those whom they are for, whatever dies; and whoever is shown another history than before, or than
//! others, sees it.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use liaison_demo::{Gateway, wait};
use liaison_proto::{
    case::v1::{LogAlarm, Receipt, log_alarm::Code as Alarm, receipt_event::Code as Event},
    exchange::v1::{ListKeyEntriesRequest, ListReceiptsRequest, delivery},
    limits::{HEAD_BYTES, SHOWN_HEADS},
    log::v1::{Record, record},
    message::v1::{
        Refusal, error_code::Code as ErrorCode, referral_state::Code as State, verdict::Code as Verdict,
    },
    strict,
};
use liaison_tests::{
    Realm, call,
    federation::{Federation, Setup},
    insider::{Answer, Insider},
    message,
    names::{HOSPITAL, POLICE, SHELTER, SHELTER_HU},
    operator, policies, python,
    realm::{BE, HU},
    receipts::{self, IN_TIME},
    seed,
    traffic::{every_one_arrived_once, under_traffic},
};
use liaison_trust::log::Receipt as Proof;
use rand::RngExt;
use serde_json::Value;
use uuid::Uuid;

/// The same, where agents had to connect again before.
const RECONNECTED: Duration = Duration::from_secs(30);

async fn send(realm: &Realm, from: &str, to: &str) -> Result<String> {
    call::send(realm.agent(from)?, message::small_referral(to)).await
}

fn record(receipt: &Receipt) -> Result<Record> {
    Ok(strict::decode(Proof::parse(receipt.file.as_bytes())?.record.record())?)
}

#[tokio::test]
async fn sender_and_recipient_have_their_receipts_in_time() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let (hospital, shelter) = (realm.agent(HOSPITAL)?, realm.agent(SHELTER)?);
    let id = send(&realm, HOSPITAL, SHELTER).await?;
    call::received(shelter, &id).await?;
    let sent = receipts::come(hospital, &id, &[Event::Accepted, Event::Acknowledged], IN_TIME).await?;
    let received = receipts::come(shelter, &id, &[Event::HandedOver, Event::Acknowledged], IN_TIME).await?;

    let accepted = record(sent.first().context("no receipt")?)?;
    let Some(record::Event::Accepted(accepted)) = accepted.event else { anyhow::bail!("{accepted:?}") };
    ensure!(accepted.sender == HOSPITAL);
    ensure!(accepted.decisions.iter().all(|decision| decision.verdict() == Verdict::Released));
    let [one, other] =
        [&sent, &received].map(|receipts| receipts.iter().map(|one| one.index).collect::<Vec<_>>());
    ensure!(one.last() == other.last(), "the two do not have the same acknowledgement: {one:?} {other:?}");

    // They stand on their own: no folder, no agent, no gateway.
    let files = receipts::write(&realm.folder().join("receipts"), &[sent, received].concat())?;
    let files: Vec<String> = files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
    let arguments: Vec<&str> =
        ["--json", "verify"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let told: Value = serde_json::from_str(&hospital.command(&arguments).await?)?;
    ensure!(told.get("holds") == Some(&Value::Bool(true)), "{told}");
    let key = told.pointer("/receipts/0/key").and_then(Value::as_str).context("no key")?.to_owned();
    hospital.command(&[&["verify", "--key", &key], &arguments[2..]].concat()).await?;
    let other_key = "be/log/1+00000000+AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    ensure!(
        !hospital
            .attempt(&[&["verify", "--key", other_key], &arguments[2..]].concat())
            .await?
            .status
            .success()
    );

    let status = receipts::complete(hospital).await?;
    ensure!(status.origin == "be/log/1" && status.size > 2 && status.root.len() == 64, "{status:?}");
    receipts::complete(shelter).await?;
    let doctor = hospital.attempt(&["doctor"]).await?;
    ensure!(String::from_utf8_lossy(&doctor.stdout).contains("one history"), "{doctor:?}");
    Ok(())
}

#[tokio::test]
async fn what_crosses_a_border_is_in_both_logs() -> Result<()> {
    let federation = Federation::start(&Setup {
        domains: &[BE, HU],
        scheme: policies::OPEN,
        layers: &[],
        agencies: &[HOSPITAL, SHELTER_HU],
    })
    .await?;
    let (hospital, shelter) = (federation.agent(HOSPITAL)?, federation.agent(SHELTER_HU)?);
    let id = federation.send_one(HOSPITAL, message::small_referral(SHELTER_HU)).await?;
    call::received(shelter, &id).await?;
    let expected = [Event::Accepted, Event::Forwarded, Event::Acknowledged];
    let sent = receipts::come(hospital, &id, &expected, IN_TIME).await?;
    let received = receipts::come(shelter, &id, &[Event::HandedOver, Event::Acknowledged], IN_TIME).await?;
    ensure!(sent.iter().all(|receipt| receipt.log == "be/log/1"));
    ensure!(received.iter().all(|receipt| receipt.log == "hu/log/1"));
    receipts::complete(hospital).await?;
    receipts::complete(shelter).await?;
    Ok(())
}

/// Messages that have leaves in a gateway's database, and how many leaves of acceptances each has.
async fn logged(gateway: &Gateway) -> Result<BTreeSet<String>> {
    const MESSAGES: &str = "
import sqlite3, sys, uuid
for message, in sqlite3.connect(sys.argv[1], uri=True).execute(
        'SELECT DISTINCT message FROM leaf WHERE message IS NOT NULL'):
    print(uuid.UUID(bytes=message))
";
    let file = format!("file:{}?mode=ro", gateway.data.join("liaison.db").display());
    Ok(python::python(&["-c", MESSAGES, &file]).await?.lines().map(str::to_owned).collect())
}

#[tokio::test]
async fn a_killed_gateway_leaves_no_receipt_without_a_leaf_and_no_leaf_without_its_message() -> Result<()> {
    let mut random = seed::generator("receipts and kills")?;
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let sent = under_traffic(call::case(realm.agent(HOSPITAL)?)?, async {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(random.random_range(20..600))).await;
            realm.gateway.kill()?;
            realm.gateway.start().await?;
        }
        Ok(())
    })
    .await?;
    every_one_arrived_once(&realm, &sent).await?;
    let (hospital, shelter) = (realm.agent(HOSPITAL)?, realm.agent(SHELTER)?);
    // Each receipt was verified under a head that goes on from all heads before: else there were an alarm.
    receipts::complete(hospital).await?;
    receipts::complete(shelter).await?;
    for id in &sent {
        let expected = [Event::Accepted, Event::Acknowledged];
        let got: Vec<Event> = receipts::of(hospital, id).await?.iter().map(Receipt::event).collect();
        ensure!(got == expected, "the sender has {got:?} of {id}");
        let expected = [Event::HandedOver, Event::Acknowledged];
        let got: Vec<Event> = receipts::of(shelter, id).await?.iter().map(Receipt::event).collect();
        ensure!(got == expected, "the recipient has {got:?} of {id}");
    }
    let logged = logged(&realm.gateway).await?;
    ensure!(logged == sent, "the log is about {logged:?}, and sent were {sent:?}");
    Ok(())
}

/// Two gateways where there was one: the other goes on from a copy of its data folder.
async fn doubled(realm: &mut Realm) -> Result<Gateway> {
    realm.gateway.stop().await?;
    let mut copy = realm.gateway.copied(&realm.folder().join("copy"))?;
    realm.gateway.start().await?;
    copy.start().await?;
    Ok(copy)
}

/// Checks that an agency raised this alarm, where people look for it.
async fn alarmed(realm: &Realm, agency: &str, kind: Alarm, detail: &str) -> Result<()> {
    let agent = realm.agent(agency)?;
    let alarm = receipts::alarm(agent).await?;
    ensure!(alarm.kind() == kind && alarm.detail.contains(detail), "{alarm:?}");
    ensure!(
        fs::read_to_string(&agent.log)?.contains("not to be relied on"),
        "{agency}'s log does not tell it"
    );
    ensure!(!agent.attempt(&["doctor"]).await?.status.success(), "{agency}'s doctor finds nothing");
    Ok(())
}

#[tokio::test]
async fn whoever_is_shown_another_history_than_before_sees_it_and_the_gateway_ends() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER, POLICE]).await?;
    let id = send(&realm, HOSPITAL, SHELTER).await?;
    call::received(realm.agent(SHELTER)?, &id).await?;
    receipts::come(realm.agent(SHELTER)?, &id, &[Event::HandedOver, Event::Acknowledged], IN_TIME).await?;
    realm.agent_mut(SHELTER)?.stop().await?;
    let mut copy = doubled(&mut realm).await?;
    realm.agent(SHELTER)?.move_to(copy.exchange())?;
    realm.agent_mut(SHELTER)?.start().await?;
    realm.agent(SHELTER)?.connected().await?;
    let there = send(&realm, SHELTER, POLICE).await?;
    receipts::come(realm.agent(SHELTER)?, &there, &[Event::Accepted], IN_TIME).await?;
    realm.agent(HOSPITAL)?.connected().await?;
    let here = send(&realm, HOSPITAL, POLICE).await?;
    receipts::come(realm.agent(HOSPITAL)?, &here, &[Event::Accepted, Event::Acknowledged], RECONNECTED)
        .await?;
    for agency in [HOSPITAL, SHELTER] {
        let log = receipts::log(realm.agent(agency)?).await?;
        ensure!(log.alarms.is_empty(), "each saw one history alone: {log:?}");
    }

    realm.agent_mut(SHELTER)?.stop().await?;
    copy.stop().await?;
    realm.agent(SHELTER)?.move_to(realm.gateway.exchange())?;
    realm.agent_mut(SHELTER)?.start().await?;
    alarmed(&realm, SHELTER, Alarm::Inconsistent, "does not go on from be/log/1").await?;
    let ended = realm.gateway.ended().await?;
    ensure!(ended.contains("an agency shows a head"), "{ended}");
    let refused = realm.gateway.start().await.err().context("it starts again")?.to_string();
    ensure!(refused.contains("older copy"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn two_histories_shown_to_two_agencies_are_seen_when_one_signs_for_what_the_other_sent() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, POLICE]).await?;
    let mut shelter = Insider::enrol(&realm.gateway, SHELTER).await?;
    let copy = doubled(&mut realm).await?;
    // At the copy the shelter writes to the police, and sees that in the log.
    shelter.exchange = copy.exchange();
    let draft = shelter.draft(&shelter.key_of(POLICE).await?);
    let mut session = shelter.session().await?;
    let answer = session.submit(&shelter.seal(&draft)?).await?;
    ensure!(matches!(answer, Answer::Accepted(_)), "{answer:?}");
    let id = Bytes::copy_from_slice(draft.message_id.as_bytes());
    let request = ListReceiptsRequest { messages: vec![id], ..ListReceiptsRequest::default() };
    let mut exchange = shelter.exchange().await?;
    let shown = wait::until("the copy's log has the shelter's message", async || {
        let shown = exchange.list_receipts(request.clone()).await.ok()?.into_inner();
        (shown.receipts.len() == 1).then_some(shown)
    })
    .await?;
    drop(session);

    // It signs for what the hospital sends it, and says what it holds.
    shelter.exchange = realm.gateway.exchange();
    shelter.log_head = shown.head.into();
    realm.agent(HOSPITAL)?.connected().await?;
    let id = send(&realm, HOSPITAL, SHELTER).await?;
    let mut session = shelter.session().await?;
    let (attempt, delivery) = session.delivery().await?;
    let Some(delivery::Content::Copy(received)) = delivery.content else { anyhow::bail!("{delivery:?}") };
    let signed =
        shelter.acknowledge(&received.manifest, &Bytes::copy_from_slice(Uuid::parse_str(&id)?.as_bytes()))?;
    session.ack(attempt, Some(signed)).await?;
    alarmed(&realm, HOSPITAL, Alarm::Inconsistent, SHELTER).await?;
    // The message arrived all the same.
    call::referral_in(realm.agent(HOSPITAL)?, &id, State::Requested).await?;
    Ok(())
}

#[tokio::test]
async fn a_log_that_lacks_what_its_gateway_signed_is_an_alarm() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    realm.gateway.stop().await?;
    operator::hide(&realm.gateway).await?;
    realm.gateway.start().await?;
    realm.agent(HOSPITAL)?.connected().await?;
    let id = send(&realm, HOSPITAL, SHELTER).await?;
    call::referral_in(realm.agent(HOSPITAL)?, &id, State::Received).await?;
    // It asks again for a minute before it says so.
    let limit = Duration::from_secs(150);
    let alarms = wait::within(limit, "the hospital misses two records", async || {
        let log = receipts::log(realm.agent(HOSPITAL).ok()?).await.ok()?;
        (log.alarms.len() == 2 && log.due == 0).then_some(log.alarms)
    })
    .await?;
    for event in ["accepted", "acknowledged"] {
        let told = |alarm: &LogAlarm| {
            alarm.kind() == Alarm::MissingRecord && alarm.detail.contains(event) && alarm.detail.contains(&id)
        };
        ensure!(alarms.iter().any(told), "{event}: {alarms:?}");
    }
    Ok(())
}

#[tokio::test]
async fn two_logs_of_keys_shown_to_two_agencies_are_seen_when_one_signs_for_what_the_other_sent() -> Result<()>
{
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL]).await?;
    let mut shelter = Insider::enrol(&realm.gateway, SHELTER).await?;
    let copy = doubled(&mut realm).await?;
    // At the copy the police publishes its keys, and the shelter sees that log.
    Insider::enrol(&copy, POLICE).await?;
    shelter.exchange = copy.exchange();
    let mut exchange = shelter.exchange().await?;
    let shown = wait::until("the copy's log of keys has grown", async || {
        let shown = exchange.list_key_entries(ListKeyEntriesRequest::default()).await.ok()?.into_inner();
        (shown.entries.len() > 2).then_some(shown)
    })
    .await?;
    let forged = shown.head.replacen("be/keys/1\n", "be/keys/1\n1", 1);
    let heads = vec![shown.head.clone(), forged];
    let answer = exchange.list_key_entries(ListKeyEntriesRequest { from: 0, heads }).await?.into_inner();
    let codes: Vec<_> =
        answer.continuations.iter().map(|one| one.refusal.as_ref().map(Refusal::code)).collect();
    ensure!(codes == [None, Some(ErrorCode::BadSignature)], "{codes:?}");
    let heads = vec![String::new(); SHOWN_HEADS + 1];
    let too_many = exchange.list_key_entries(ListKeyEntriesRequest { from: 0, heads }).await;
    ensure!(call::refused(too_many) == Some(ErrorCode::TooLarge));

    // It signs for what the hospital sends it, and says what it holds.
    shelter.exchange = realm.gateway.exchange();
    shelter.keys_head = shown.head.into();
    realm.agent(HOSPITAL)?.connected().await?;
    let id = send(&realm, HOSPITAL, SHELTER).await?;
    let mut session = shelter.session().await?;
    let (attempt, delivery) = session.delivery().await?;
    let Some(delivery::Content::Copy(received)) = delivery.content else { anyhow::bail!("{delivery:?}") };
    let signed =
        shelter.acknowledge(&received.manifest, &Bytes::copy_from_slice(Uuid::parse_str(&id)?.as_bytes()))?;
    session.ack(attempt, Some(signed)).await?;
    alarmed(&realm, HOSPITAL, Alarm::Inconsistent, SHELTER).await?;
    ensure!(receipts::alarm(realm.agent(HOSPITAL)?).await?.detail.contains("be/keys/1"));
    let ended = realm.gateway.ended().await?;
    ensure!(ended.contains("an agency shows a head"), "{ended}");
    Ok(())
}

#[tokio::test]
async fn receipts_are_for_those_alone_whom_they_are_about() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let police = Insider::enrol(&realm.gateway, POLICE).await?;
    let id = send(&realm, HOSPITAL, SHELTER).await?;
    receipts::come(realm.agent(HOSPITAL)?, &id, &[Event::Accepted, Event::Acknowledged], IN_TIME).await?;
    let mut exchange = police.exchange().await?;
    let messages = vec![Bytes::copy_from_slice(Uuid::parse_str(&id)?.as_bytes())];
    let request = ListReceiptsRequest { messages, ..ListReceiptsRequest::default() };
    let shown = exchange.list_receipts(request.clone()).await?.into_inner();
    ensure!(shown.receipts.is_empty() && shown.pending.is_empty() && !shown.head.is_empty(), "{shown:?}");

    // What is asked for too much or makes no sense is refused; a head of nobody has no continuation.
    let too_many = ListReceiptsRequest { messages: vec![vec![1; 16].into(); 257], ..request.clone() };
    ensure!(call::refused(exchange.list_receipts(too_many).await) == Some(ErrorCode::TooLarge));
    let no_id = ListReceiptsRequest { messages: vec![vec![1; 15].into()], ..request.clone() };
    ensure!(call::refused(exchange.list_receipts(no_id).await) == Some(ErrorCode::Malformed));
    let forged = shown.head.replacen("be/log/1\n", "be/log/1\n1", 1);
    for (head, code) in [
        (forged, ErrorCode::BadSignature),
        ("no note".to_owned(), ErrorCode::Malformed),
        ("x".repeat(HEAD_BYTES + 1), ErrorCode::TooLarge),
    ] {
        let request = ListReceiptsRequest { heads: vec![head, shown.head.clone()], ..request.clone() };
        let continuations = exchange.list_receipts(request).await?.into_inner().continuations;
        let codes: Vec<_> = continuations.iter().map(|one| one.refusal.as_ref().map(Refusal::code)).collect();
        ensure!(codes == [Some(code), None], "{codes:?}");
    }
    realm.agent(HOSPITAL)?.connected().await
}
