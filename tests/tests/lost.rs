//! What a domain accepted from a peer and lost, since it was restored from an older copy of its database, is offered to it
//! again by the domains that have heard of no end.

#![allow(clippy::indexing_slicing, reason = "an absent field of JSON is null")]

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use liaison_demo::{port::Port, wait};
use liaison_proto::{
    case::v1::{GetAlertRequest, UpdateReferralRequest, log_alarm::Code as Alarm},
    federation::v1::Forward,
    message::v1::{
        Audience, Manifest, error_code::Code as ErrorCode, referral_state::Code as State,
        status::Code as Exercise,
    },
};
use liaison_tests::{
    Federation, Realm, call, evidence,
    federation::{Setup, knows, waiting_for},
    hostile::{Answer, DOMAIN, Hostile},
    liar::{Liar, Lie},
    message,
    names::{HEALTH_HU, HOSPITAL, SHELTER, SHELTER_HU},
    outsider::Outsider,
    policies,
    realm::{BE, HU},
    receipts,
    restored::{copied, guarded, is_sound, restored},
    scene::Scene,
};
use liaison_trust::statement;
use prost::Message;
use serde_json::Value;
use uuid::Uuid;

/// Referrals that are offered again while the gateway that offers them is killed.
const REFERRALS: usize = 100;

async fn federation() -> Result<Federation> {
    Federation::start(&Setup {
        domains: &[BE, HU],
        scheme: policies::OPEN,
        layers: &[],
        agencies: &[SHELTER, SHELTER_HU, HEALTH_HU],
    })
    .await
}

/// Waits until the sender's domain has given everything to the other, which has told the end of all but so many copies.
async fn outstanding(federation: &Federation, copies: u64) -> Result<()> {
    let be = &federation.realm("be")?.gateway;
    wait::until("the other domain has it", async || {
        (waiting_for(be, "hu").await.ok()? == (0, copies)).then_some(())
    })
    .await
}

async fn refer(federation: &Federation, to: &str) -> Result<String> {
    let sent = federation.send(SHELTER, message::small_referral(to)).await?;
    sent.into_iter().next().context("no referral was made")
}

fn change(id: &str, state: State) -> UpdateReferralRequest {
    UpdateReferralRequest { id: id.to_owned(), state: state.into(), ..Default::default() }
}

#[tokio::test]
async fn what_a_restored_domain_had_accepted_reaches_its_agencies_and_its_senders_hear_of_it() -> Result<()> {
    let mut federation = federation().await?;
    let size = copied(&mut federation.realm_mut("hu")?.gateway).await?;
    federation.links().await?;
    federation.agent(SHELTER_HU)?.connected().await?;
    federation.realm_mut("hu")?.agent_mut(HEALTH_HU)?.stop().await?;

    // An alert that one recipient has signed for, and the other has not fetched.
    let audience =
        Audience { agencies: [SHELTER_HU, HEALTH_HU].map(str::to_owned).to_vec(), ..Audience::default() };
    let mut case = call::case(federation.agent(SHELTER)?)?;
    let alert = case.send_alert(message::pattern_alert(audience)).await?.into_inner().alert;
    let alert = alert.context("no alert was made")?.id;
    outstanding(&federation, 1).await?;
    // A referral that its recipient is about to sign for, one that nobody fetches, and one that is cancelled.
    federation.realm_mut("hu")?.agent_mut(SHELTER_HU)?.stop().await?;
    let there = refer(&federation, SHELTER_HU).await?;
    let waits = refer(&federation, HEALTH_HU).await?;
    let cancelled = refer(&federation, HEALTH_HU).await?;
    outstanding(&federation, 4).await?;
    case.update_referral(change(&cancelled, State::Cancelled)).await?;
    outstanding(&federation, 5).await?;

    // Signed for, and the word of it not passed on.
    federation.realm_mut("be")?.gateway.stop().await?;
    federation.realm_mut("hu")?.agent_mut(SHELTER_HU)?.start().await?;
    call::received(federation.agent(SHELTER_HU)?, &there).await?;
    let hu = &mut federation.realm_mut("hu")?.gateway;
    wait::until("the word waits for the sender's domain", async || {
        (waiting_for(hu, "be").await.ok()?.0 == 1).then_some(())
    })
    .await?;
    guarded(hu, size).await?;
    restored(hu).await?;
    federation.realm_mut("be")?.gateway.start().await?;
    federation.realm_mut("hu")?.agent_mut(HEALTH_HU)?.start().await?;

    let sender = federation.agent(SHELTER)?;
    for id in [&there, &waits] {
        call::referral_in(sender, id, State::Received).await?;
    }
    for agency in [SHELTER, HEALTH_HU] {
        call::referral_in(federation.agent(agency)?, &cancelled, State::Cancelled).await?;
    }
    let mut case = call::case(sender)?;
    wait::until("the sender knows the end of each delivery of the alert", async || {
        let seen = case.get_alert(GetAlertRequest { id: alert.clone() }).await.ok()?.into_inner();
        let done = seen.deliveries.iter().filter(|one| one.state() == State::Received).count();
        (done == 2).then_some(())
    })
    .await?;
    outstanding(&federation, 0).await?;
    for (agency, referrals) in [(SHELTER_HU, vec![&there]), (HEALTH_HU, vec![&waits, &cancelled])] {
        let agent = federation.agent(agency)?;
        // Threads have no order among one another.
        let mut received = call::received_ids(agent).await?;
        received.sort();
        ensure!(received.iter().eq(referrals), "{agency}: {received:?}");
        let alerts = call::received_alert_ids(agent, Exercise::Actual.into()).await?;
        ensure!(alerts == [alert.clone()], "{agency}: {alerts:?}");
    }
    let hu = &federation.realm("hu")?.gateway;
    is_sound(hu).await?;
    let accepted = evidence::count(&evidence::leaves(hu).await?, "accepted");
    ensure!(accepted == 5, "the new log tells of {accepted} messages");
    evidence::sound(&federation.realm("be")?.gateway).await?;
    receipts::complete(federation.agent(SHELTER)?).await.map(drop)
}

#[tokio::test]
async fn a_gateway_killed_while_it_offers_again_loses_nothing() -> Result<()> {
    let mut federation = federation().await?;
    let size = copied(&mut federation.realm_mut("hu")?.gateway).await?;
    federation.links().await?;
    federation.realm_mut("hu")?.agent_mut(HEALTH_HU)?.stop().await?;
    let mut sent = BTreeSet::new();
    for _ in 0..REFERRALS {
        sent.insert(refer(&federation, HEALTH_HU).await?);
    }
    outstanding(&federation, REFERRALS as u64).await?;
    let hu = &mut federation.realm_mut("hu")?.gateway;
    guarded(hu, size).await?;
    restored(hu).await?;
    wait::until("it offers again", async || {
        let log = federation.realm("be").ok()?.gateway_log();
        log.contains("is offered to it again").then_some(())
    })
    .await?;
    let be = &mut federation.realm_mut("be")?.gateway;
    be.kill()?;
    be.start().await?;
    be.linked("hu").await?;
    be.kill()?;
    be.start().await?;
    federation.realm_mut("hu")?.agent_mut(HEALTH_HU)?.start().await?;
    for id in &sent {
        call::referral_in(federation.agent(SHELTER)?, id, State::Received).await?;
    }
    let mut received = call::received_ids(federation.agent(HEALTH_HU)?).await?;
    received.sort();
    ensure!(received.iter().eq(&sent), "{} arrived of {}", received.len(), sent.len());
    outstanding(&federation, 0).await?;
    evidence::sound(&federation.realm("be")?.gateway).await?;
    is_sound(&federation.realm("hu")?.gateway).await
}

/// The sender's domain is restored from when the other had the message, and its recipient has signed for it since.
#[tokio::test]
async fn a_restored_domain_hears_again_of_the_ends_that_it_lost() -> Result<()> {
    let mut federation = federation().await?;
    federation.realm_mut("hu")?.agent_mut(SHELTER_HU)?.stop().await?;
    let id = refer(&federation, SHELTER_HU).await?;
    outstanding(&federation, 1).await?;
    receipts::complete(federation.agent(SHELTER)?).await?;
    let size = copied(&mut federation.realm_mut("be")?.gateway).await?;
    federation.links().await?;
    federation.realm_mut("hu")?.agent_mut(SHELTER_HU)?.start().await?;
    call::referral_in(federation.agent(SHELTER)?, &id, State::Received).await?;
    receipts::complete(federation.agent(SHELTER)?).await?;
    outstanding(&federation, 0).await?;
    let be = &mut federation.realm_mut("be")?.gateway;
    guarded(be, size).await?;
    restored(be).await?;
    outstanding(&federation, 0).await?;

    let be = &federation.realm("be")?.gateway;
    evidence::leaves(be).await?;
    let told: Value = serde_json::from_str(&be.command(&["--json", "log", "disclosures", &id]).await?)?;
    let all = told["disclosures"].as_array().context("no disclosures")?;
    ensure!(!all.is_empty() && all.iter().all(|one| one["acknowledged_at"].is_string()), "{told}");
    ensure!(all.iter().all(|one| one["ended"].is_null()), "{told}");
    let shown: Value =
        serde_json::from_str(&be.command(&["--json", "log", "show", "--message", &id]).await?)?;
    let of_it = shown["leaves"].as_array().context("no leaves")?;
    ensure!(evidence::count(of_it, "acknowledged") == 1, "{shown}");
    for domain in ["be", "hu"] {
        is_sound(&federation.realm(domain)?.gateway).await?;
    }
    // It came once, and nobody is told of anything but the new log.
    let received = call::received_ids(federation.agent(SHELTER_HU)?).await?;
    ensure!(received == [id.clone()], "{received:?}");
    let sender = federation.agent(SHELTER)?;
    let seen = call::referral(sender, &id).await?;
    ensure!(seen.state() == State::Received && seen.refusal.is_none(), "{seen:?}");
    let log = wait::until("the sender has its receipts from the new log", async || {
        let log = receipts::log(sender).await.ok()?;
        (log.due == 0 && !log.alarms.is_empty()).then_some(log)
    })
    .await?;
    ensure!(log.alarms.iter().all(|alarm| alarm.kind() == Alarm::NewLog), "{log:?}");
    Ok(())
}

/// The recipient is back before the sender's domain is, whose referral opens the thread.
#[tokio::test]
async fn what_follows_in_a_lost_thread_waits_for_its_referral() -> Result<()> {
    let mut federation = federation().await?;
    let size = copied(&mut federation.realm_mut("hu")?.gateway).await?;
    federation.links().await?;
    federation.realm_mut("hu")?.agent_mut(SHELTER_HU)?.stop().await?;
    let id = refer(&federation, SHELTER_HU).await?;
    outstanding(&federation, 1).await?;
    federation.realm_mut("be")?.gateway.stop().await?;
    federation.realm_mut("hu")?.agent_mut(SHELTER_HU)?.start().await?;
    let recipient = federation.agent(SHELTER_HU)?;
    call::received(recipient, &id).await?;
    call::case(recipient)?.update_referral(change(&id, State::Accepted)).await?;
    let hu = &mut federation.realm_mut("hu")?.gateway;
    wait::until("its acknowledgement and its answer wait for the sender's domain", async || {
        (waiting_for(hu, "be").await.ok()?.0 == 2).then_some(())
    })
    .await?;
    guarded(hu, size).await?;
    restored(hu).await?;
    let log = federation.agent(SHELTER_HU)?.log.clone();
    wait::until("the recipient's answer is offered again", async || {
        std::fs::read_to_string(&log).ok()?.contains("may be on its way again").then_some(())
    })
    .await?;
    federation.realm_mut("be")?.gateway.start().await?;
    for agency in [SHELTER, SHELTER_HU] {
        let seen = call::referral_in(federation.agent(agency)?, &id, State::Accepted).await?;
        ensure!(seen.refusal.is_none(), "{agency}: {:?}", seen.refusal);
    }
    let hu = &federation.realm("hu")?.gateway;
    wait::until("its answer was taken", async || {
        let accepted = evidence::count(&evidence::leaves(hu).await.ok()?, "accepted");
        (accepted == 2 && waiting_for(hu, "be").await.ok()? == (0, 0)).then_some(())
    })
    .await
}

/// A peer that shows other logs is offered what it had once for each, and is not the last word on what it had.
#[tokio::test]
async fn a_copy_is_offered_again_once_for_each_log_and_its_loss_is_told() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    let (gateway, hostile) = (&scene.realm.gateway, &scene.hostile);
    let mut link = hostile.link().await?;
    let mut peer = Liar::with_log(hostile, gateway, Lie::Honest, 1).await?;
    scene.list(&mut link).await?;
    let first = scene.send(message::small_referral("xx/shelter")).await?;
    let before = peer.forwarded().await.context("nothing was forwarded")?;
    scene.holder(&first, "xx").await?;
    drop(peer);
    let mut peer = Liar::with_log(hostile, gateway, Lie::Honest, 2).await?;
    let again = peer.forwarded().await.context("it is not offered again")?;
    ensure!(id_of(&again)? == first && again.sections == before.sections, "something else is offered");
    wait::until("its acceptance was heard", async || {
        (waiting_for(gateway, "xx").await.ok()? == (0, 1)).then_some(())
    })
    .await?;
    drop(peer);
    for log in [2, 1] {
        let mut peer = Liar::with_log(hostile, gateway, Lie::Honest, log).await?;
        let other = scene.send(message::small_referral("xx/shelter")).await?;
        let next = peer.forwarded().await.context("nothing else goes")?;
        ensure!(id_of(&next)? == other, "it is offered again under the log {log}");
        scene.holder(&other, "xx").await?;
    }
    let _peer = Liar::with_log(hostile, gateway, Lie::Expired, 3).await?;
    let seen = call::referral_in(scene.realm.agent(HOSPITAL)?, &first, State::Refused).await?;
    let told = seen.refusal.context("no reason is told")?;
    ensure!(told.code() == ErrorCode::Expired && told.message.contains("had accepted"), "{told}");
    Ok(())
}

/// Of which policies release less since it went, it is told and not offered again.
#[tokio::test]
async fn what_may_go_no_more_is_not_offered_again() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    let (gateway, hostile) = (&scene.realm.gateway, &scene.hostile);
    let mut peer = Liar::with_log(hostile, gateway, Lie::Honest, 1).await?;
    scene.list(&mut hostile.link().await?).await?;
    let words = message::Words::fresh();
    let id = scene.send(message::referral(&["xx/shelter"], &words)).await?;
    peer.forwarded().await.context("nothing was forwarded")?;
    scene.holder(&id, "xx").await?;
    drop(peer);
    let law = policies::layer_without("be-secrecy", "health");
    scene.realm.load(&[("scheme/test.cedar", policies::OPEN), ("country/be/law.cedar", &law)]).await?;
    let mut peer = Liar::with_log(hostile, gateway, Lie::Honest, 2).await?;
    let seen = call::referral_in(scene.realm.agent(HOSPITAL)?, &id, State::Refused).await?;
    let told = seen.refusal.context("no reason is told")?;
    ensure!(told.code() == ErrorCode::ForbiddenByPolicy && told.message.contains("may have"), "{told}");
    let other = scene.send(message::small_referral("xx/shelter")).await?;
    let next = peer.forwarded().await.context("nothing else goes")?;
    ensure!(id_of(&next)? == other, "it was offered again");
    Ok(())
}

/// What a peer accepted and tells no end of is bounded, and keeps nothing for others waiting.
#[tokio::test]
async fn what_is_outstanding_for_one_agency_is_bounded() -> Result<()> {
    let mut be = Realm::prepare_domain(BE, &[("scheme/test.cedar", policies::OPEN)]).await?;
    be.gateway.configure("[limits]\nqueue_deliveries = 2")?;
    be.gateway.start().await?;
    be.join(&[HOSPITAL, SHELTER]).await?;
    let hostile = Hostile::accepted_by(&be.gateway, Port::free()?.address).await?;
    let mut peer = Liar::of(&hostile, &be.gateway, Lie::Honest).await?;
    let other = Outsider::new("xx/other")?;
    let page = hostile.page(vec![hostile.shelter.described(DOMAIN), other.described(DOMAIN)]);
    let answer = hostile.link().await?.directory(statement::sign(&page, &hostile.signing)).await?;
    ensure!(matches!(answer, Answer::Done), "an honest page: {answer:?}");
    let hospital = be.agent(HOSPITAL)?;
    knows(hospital, "xx/other").await?;
    let send = async |to| {
        let sent = call::case(hospital)?.send_referral(message::small_referral(to)).await?.into_inner();
        Ok::<_, anyhow::Error>(sent.referrals.first().context("no referral was made")?.id.clone())
    };
    for _ in 0..2 {
        let id = send("xx/shelter").await?;
        ensure!(id_of(&peer.forwarded().await.context("nothing goes")?)? == id);
        wait::until("it is there", async || {
            (call::referral(hospital, &id).await.ok()?.at == "xx").then_some(())
        })
        .await?;
    }
    let waits = send("xx/shelter").await?;
    wait::until("the sender is told that it waits", async || {
        let seen = call::referral(hospital, &waits).await.ok()?;
        let told = seen.parts.iter().find_map(|part| part.unknown.clone())?;
        (told.code() == ErrorCode::QueueFull).then_some(())
    })
    .await?;
    let goes = send("xx/other").await?;
    ensure!(id_of(&peer.forwarded().await.context("nothing else goes")?)? == goes, "more was forwarded");
    Ok(())
}

fn id_of(forward: &Forward) -> Result<String> {
    let manifest = Manifest::decode(forward.manifest.clone())?;
    Ok(Uuid::from_slice(&manifest.message_id)?.to_string())
}
