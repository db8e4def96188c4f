//! Receipts reach those whom they are for, whatever dies; and whoever is shown another history than before, or than
//! others, sees it.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use liaison_demo::Gateway;
use liaison_proto::{
    case::v1::{Receipt, log_alarm::Code as Alarm, receipt_event::Code as Event},
    log::v1::{Record, record},
    message::v1::verdict::Code as Verdict,
    strict,
};
use liaison_tests::{
    Realm, call,
    federation::{Federation, Setup},
    message,
    names::{HOSPITAL, POLICE, SHELTER, SHELTER_HU},
    policies, python,
    realm::{BE, HU},
    receipts::{self, IN_TIME},
    seed,
    traffic::{every_one_arrived_once, under_traffic},
};
use liaison_trust::log::Receipt as Proof;
use rand::RngExt;
use serde_json::Value;

async fn send(realm: &Realm, from: &str, to: &str) -> Result<String> {
    let mut case = call::case(realm.agent(from)?)?;
    let sent = case.send_referral(message::small_referral(to)).await?.into_inner();
    Ok(sent.referrals.first().context("no referral was made")?.id.clone())
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

#[tokio::test]
async fn two_histories_are_seen_by_whoever_is_shown_both_and_by_others_whom_it_tells() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER, POLICE]).await?;
    send(&realm, HOSPITAL, SHELTER).await?;
    for agency in [HOSPITAL, SHELTER] {
        receipts::complete(realm.agent(agency)?).await?;
    }
    // From here on there are two of it, and the shelter is shown the other one.
    realm.agent_mut(SHELTER)?.stop().await?;
    realm.gateway.stop().await?;
    let mut copy = realm.gateway.copied(&realm.folder().join("copy"))?;
    realm.gateway.start().await?;
    copy.start().await?;
    realm.agent(SHELTER)?.move_to(&copy)?;
    realm.agent_mut(SHELTER)?.start().await?;
    realm.agent(SHELTER)?.connected().await?;
    let there = send(&realm, SHELTER, POLICE).await?;
    receipts::come(realm.agent(SHELTER)?, &there, &[Event::Accepted], IN_TIME * 4).await?;
    realm.agent(HOSPITAL)?.connected().await?;
    let here = send(&realm, HOSPITAL, POLICE).await?;
    receipts::come(realm.agent(HOSPITAL)?, &here, &[Event::Accepted, Event::Acknowledged], IN_TIME * 4)
        .await?;
    for agency in [HOSPITAL, SHELTER] {
        let log = receipts::log(realm.agent(agency)?).await?;
        ensure!(log.alarms.is_empty(), "each saw one history alone: {log:?}");
    }

    // The shelter comes back, and signs for what it is sent with what it holds.
    realm.agent_mut(SHELTER)?.stop().await?;
    copy.stop().await?;
    realm.agent(SHELTER)?.move_to(&realm.gateway)?;
    realm.agent_mut(SHELTER)?.start().await?;
    let alarm = receipts::alarm(realm.agent(SHELTER)?).await?;
    ensure!(alarm.kind() == Alarm::Inconsistent, "{alarm:?}");
    let id = send(&realm, HOSPITAL, SHELTER).await?;
    // Traffic goes on.
    call::received(realm.agent(SHELTER)?, &id).await?;
    let alarm = receipts::alarm(realm.agent(HOSPITAL)?).await?;
    ensure!(alarm.kind() == Alarm::Inconsistent && alarm.detail.contains(SHELTER), "{alarm:?}");
    ensure!(
        realm.gateway_log().contains("that the log does not go on from"),
        "the gateway's log does not tell it"
    );
    for agency in [HOSPITAL, SHELTER] {
        let agent = realm.agent(agency)?;
        ensure!(
            std::fs::read_to_string(&agent.log)?.contains("not to be relied on"),
            "{agency}'s log does not tell it"
        );
        let doctor = agent.attempt(&["doctor"]).await?;
        ensure!(!doctor.status.success(), "{agency}'s doctor finds nothing");
    }
    Ok(())
}
