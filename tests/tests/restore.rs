//! A gateway that is restored from an older copy goes on by an administrator's word, and nothing accepted is lost.

use anyhow::{Context, Result, ensure};
use liaison_demo::wait;
use liaison_proto::{case::v1::log_alarm::Code as Alarm, message::v1::referral_state::Code as State};
use liaison_tests::{
    Federation, Realm, call,
    federation::Setup,
    message,
    names::{HOSPITAL, SHELTER, SHELTER_HU},
    policies,
    realm::{BE, HU},
    receipts,
    restored::{copied, guarded, is_sound, restored},
};

#[tokio::test]
async fn what_a_lost_database_had_accepted_is_delivered() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let size = copied(&mut realm.gateway).await?;
    for agency in [HOSPITAL, SHELTER] {
        realm.agent(agency)?.connected().await?;
    }
    let send = async |realm: &Realm| {
        let request = message::small_referral(SHELTER);
        let sent = call::case(realm.agent(HOSPITAL)?)?.send_referral(request).await?.into_inner();
        Ok::<_, anyhow::Error>(sent.referrals.first().context("no referral was made")?.id.clone())
    };
    // One that the shelter has, and one that it has not: the gateway forgets both.
    let there = send(&realm).await?;
    call::referral_in(realm.agent(HOSPITAL)?, &there, State::Received).await?;
    realm.agent_mut(SHELTER)?.stop().await?;
    let waits = send(&realm).await?;
    call::referral_in(realm.agent(HOSPITAL)?, &waits, State::Requested).await?;
    // A receipt that is still to come is lost with its leaf, and asked for in vain for two minutes.
    receipts::complete(realm.agent(HOSPITAL)?).await?;
    guarded(&realm.gateway, size).await?;
    restored(&mut realm.gateway).await?;
    realm.agent_mut(SHELTER)?.start().await?;
    call::referral_in(realm.agent(HOSPITAL)?, &waits, State::Received).await?;
    let received = call::received_ids(realm.agent(SHELTER)?).await?;
    for id in [&there, &waits] {
        ensure!(received.iter().filter(|received| *received == id).count() == 1, "{id}: {received:?}");
    }
    // The agent goes on in the new log, and has raised an alarm about the old one, once, whose head it keeps.
    let seen = wait::until("the hospital has its receipts from the new log", async || {
        let log = receipts::log(realm.agent(HOSPITAL).ok()?).await.ok()?;
        (log.origin != "be/log/1" && log.due == 0).then_some(log)
    })
    .await?;
    realm.agent_mut(HOSPITAL)?.stop().await?;
    realm.agent_mut(HOSPITAL)?.start().await?;
    realm.agent(HOSPITAL)?.connected().await?;
    let again = receipts::log(realm.agent(HOSPITAL)?).await?;
    for log in [seen, again] {
        let new = log.alarms.iter().filter(|alarm| alarm.kind() == Alarm::NewLog);
        let told: Vec<_> = new.filter(|alarm| alarm.detail.contains("the place of be/log/1")).collect();
        ensure!(told.len() == 1, "{log:?}");
    }
    // What the restored gateway accepted anew has its receipts in the new log.
    is_sound(&realm.gateway).await
}

#[tokio::test]
async fn what_crosses_a_border_arrives_once_though_its_gateway_was_restored() -> Result<()> {
    let mut federation = Federation::start(&Setup {
        domains: &[BE, HU],
        scheme: policies::OPEN,
        layers: &[],
        agencies: &[SHELTER, SHELTER_HU],
    })
    .await?;
    let size = copied(&mut federation.realm_mut("be")?.gateway).await?;
    federation.links().await?;
    federation.agent(SHELTER)?.connected().await?;
    // Accepted abroad, and not fetched there.
    federation.realm_mut("hu")?.agent_mut(SHELTER_HU)?.stop().await?;
    let sent = federation.send(SHELTER, message::small_referral(SHELTER_HU)).await?;
    let id = sent.first().context("no referral was made")?.clone();
    wait::until("the other domain holds the referral", async || {
        (call::referral(federation.agent(SHELTER).ok()?, &id).await.ok()?.at == "hu").then_some(())
    })
    .await?;
    let be = federation.realm_mut("be")?;
    guarded(&be.gateway, size).await?;
    // The recipient's word comes while nobody in the restored domain knows of the message.
    be.agent_mut(SHELTER)?.stop().await?;
    restored(&mut be.gateway).await?;
    federation.realm_mut("hu")?.agent_mut(SHELTER_HU)?.start().await?;
    call::received(federation.agent(SHELTER_HU)?, &id).await?;
    let hu = &federation.realm("hu")?.gateway;
    wait::until("the word was taken", async || {
        let log = federation.realm("be").ok()?.gateway_log();
        log.contains("a notice about a message that is not known was passed over").then_some(())
    })
    .await?;
    wait::until("nothing waits for the restored domain", async || {
        (hu.peer("be").await.ok()?.get("queued") == Some(&0.into())).then_some(())
    })
    .await?;
    federation.realm_mut("be")?.agent_mut(SHELTER)?.start().await?;
    call::referral_in(federation.agent(SHELTER)?, &id, State::Received).await?;
    let received = call::received_ids(federation.agent(SHELTER_HU)?).await?;
    ensure!(received == [id], "{received:?}");
    is_sound(&federation.realm("be")?.gateway).await
}
