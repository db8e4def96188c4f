//! Messages that wait for another domain: they keep nothing else waiting, and their senders are told why.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use liaison_demo::{port::Port, wait};
use liaison_proto::{
    case::v1::GetAlertRequest,
    exchange::v1::delivery::Content,
    message::v1::{
        Acknowledgement, Audience, Manifest, Notice, StateChange, error_code::Code as ErrorCode,
        kind::Code as Kind, notice, referral_state::Code as State,
    },
    times,
};
use liaison_tests::{
    Federation, Realm, call,
    hostile::{Answer, DOMAIN, Hostile, violations},
    insider::{self, Insider},
    liar::{Liar, Lie},
    message,
    names::{BORDER, HEALTH_HU, HOSPITAL, SHELTER, SHELTER_HU},
    policies,
    realm::{BE, HU},
    scene::{Scene, accepted, refused},
};
use liaison_trust::{digest::sha256, statement};
use prost::Message;
use time::OffsetDateTime;

/// What waits for one agency of `hu` at most.
const QUEUE: usize = 20;
/// In which everything that waited for one agency has to reach it.
const DRAINED: Duration = Duration::from_secs(180);

/// An agency whose queue is full gets what it missed later; others of its domain, others of the sender's domain, and
/// what the sender itself has for others, wait for nothing.
#[tokio::test]
async fn a_full_queue_abroad_keeps_nobody_else_waiting() -> Result<()> {
    let policies = [("scheme/test.cedar", policies::OPEN)];
    let mut be = Realm::prepare_domain(BE, &policies).await?;
    be.gateway.start().await?;
    be.join(&[HOSPITAL, SHELTER]).await?;
    let mut hu = Realm::prepare_domain(HU, &policies).await?;
    hu.gateway.configure(&format!("[limits]\nqueue_deliveries = {QUEUE}"))?;
    hu.gateway.start().await?;
    hu.join(&[SHELTER_HU, HEALTH_HU]).await?;
    let mut federation = Federation::of(vec![be, hu]).await?;
    federation.acquainted().await?;
    federation.realm_mut("hu")?.agent_mut(HEALTH_HU)?.stop().await?;

    let mut for_health = BTreeSet::new();
    for _ in 0..QUEUE {
        for_health.extend(federation.send(HOSPITAL, message::small_referral(HEALTH_HU)).await?);
    }
    let hospital = federation.agent(HOSPITAL)?;
    for id in &for_health {
        at(&federation, HOSPITAL, id, "hu").await?;
    }
    // More from the shelter than goes at once, an alert to both, and then something else of each.
    for _ in 0..QUEUE {
        for_health.extend(federation.send(SHELTER, message::small_referral(HEALTH_HU)).await?);
    }
    let agencies = [SHELTER_HU, HEALTH_HU].map(str::to_owned).to_vec();
    let alert = message::pattern_alert(Audience { agencies, ..Audience::default() });
    let alert = call::case(hospital)?.send_alert(alert).await?.into_inner().alert;
    let alert = alert.context("no alert was made")?.id;
    call::received_alert(federation.agent(SHELTER_HU)?, &alert).await?;
    federation.send_one(SHELTER, message::small_referral(SHELTER_HU)).await?;
    federation.send_one(SHELTER_HU, message::small_referral(SHELTER)).await?;

    // Whoever sent it sees who keeps it waiting.
    wait::until("the sender is told why one copy waits", async || {
        let request = GetAlertRequest { id: alert.clone() };
        let seen = call::case(hospital).ok()?.get_alert(request).await.ok()?.into_inner();
        let copy = seen.deliveries.iter().find(|copy| copy.agency == HEALTH_HU)?;
        let told = copy.parts.iter().find_map(|part| part.unknown.clone())?;
        (copy.at == "be" && told.code() == ErrorCode::QueueFull).then_some(())
    })
    .await?;

    federation.realm_mut("hu")?.agent_mut(HEALTH_HU)?.start().await?;
    let health = federation.agent(HEALTH_HU)?;
    wait::within(DRAINED, "what waited has arrived", async || {
        let received: BTreeSet<_> = call::received_ids(health).await.ok()?.into_iter().collect();
        (received == for_health).then_some(())
    })
    .await?;
    call::received_alert(health, &alert).await?;
    let others = call::received_ids(federation.agent(SHELTER_HU)?).await?;
    ensure!(others.len() == 1, "something came twice, or to the wrong one: {others:?}");
    Ok(())
}

/// A message for a domain that can't be reached: the sender is told while it waits, and when it expires.
#[tokio::test]
async fn what_expires_unreached_says_why_it_waited() -> Result<()> {
    // Nobody listens there.
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    let mut link = scene.hostile.link().await?;
    scene.list(&mut link).await?;
    let border = Insider::enrol(&scene.realm.gateway, BORDER).await?;
    let mut session = border.session().await?;
    let draft = border.draft(&scene.hostile.shelter.key()?);
    let soon = OffsetDateTime::now_utc() + Duration::from_secs(25);
    let sent =
        session.submit(&border.seal(&liaison_trust::envelope::Draft { expires: soon, ..draft })?).await?;
    ensure!(matches!(sent, insider::Answer::Accepted(_)), "{sent:?}");

    let mut heard = Vec::new();
    for _ in 0..2 {
        let (attempt, delivery) = session.delivery().await?;
        let Some(Content::Notice(signed)) = delivery.content else { anyhow::bail!("no notice") };
        heard.extend(Notice::decode(signed.notice)?.event);
        session.ack(attempt, None).await?;
    }
    let [notice::Event::Waiting(waits), notice::Event::Expired(expired)] = heard.as_slice() else {
        anyhow::bail!("{heard:?}");
    };
    ensure!(waits.code() == ErrorCode::GatewayUnreachable, "{waits}");
    let why = expired.why.as_ref().context("it does not say why it waited")?;
    ensure!(why.code() == ErrorCode::GatewayUnreachable && why.message.contains(DOMAIN), "{why}");
    Ok(())
}

/// What was offered may have arrived as it was: it is not offered anew with less, its sender is told so, and the
/// recipient's own word counts when it comes.
#[tokio::test]
async fn what_is_narrowed_after_it_was_offered_is_told_as_that() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    let mut silent = Liar::of(&scene.hostile, &scene.realm.gateway, Lie::Silent).await?;
    let mut link = scene.hostile.link().await?;
    scene.list(&mut link).await?;
    let words = message::Words::fresh();
    let id = scene.send(message::referral(&["xx/shelter"], &words)).await?;
    let forward = silent.forwarded().await.context("nothing was offered")?;
    drop(silent);
    // Full since, as the peer says: that takes back no offer that was not answered.
    let mut full = Liar::of(&scene.hostile, &scene.realm.gateway, Lie::FullFor(HOSPITAL)).await?;
    full.forwarded().await.context("it was not offered again")?;
    wait::until("the sender is told that the queue is full", async || {
        let seen = call::referral(scene.realm.agent(HOSPITAL).ok()?, &id).await.ok()?;
        let told = seen.parts.iter().find_map(|part| part.unknown.clone())?;
        (told.code() == ErrorCode::QueueFull).then_some(())
    })
    .await?;
    drop(full);
    let law = policies::layer_without("be-secrecy", "health");
    scene.realm.load(&[("scheme/test.cedar", policies::OPEN), ("country/be/law.cedar", &law)]).await?;

    let mut honest = Liar::of(&scene.hostile, &scene.realm.gateway, Lie::Honest).await?;
    let hospital = scene.realm.agent(HOSPITAL)?;
    let seen = call::referral_in(hospital, &id, State::Refused).await?;
    let told = seen.refusal.context("no reason is told")?;
    ensure!(told.code() == ErrorCode::ForbiddenByPolicy && told.message.contains("may have"), "{told}");
    ensure!(told.rule.as_ref().is_some_and(|rule| rule.rule == "be-secrecy"), "{told:?}");
    let other = scene.send(message::small_referral("xx/shelter")).await?;
    let next = honest.forwarded().await.context("nothing else goes")?;
    let manifest = Manifest::decode(next.manifest.clone())?;
    ensure!(
        manifest.message_id == uuid::Uuid::parse_str(&other)?.as_bytes().as_slice(),
        "it was offered anew"
    );

    let shelter = &scene.hostile.shelter;
    let manifest = Manifest::decode(forward.manifest.clone())?;
    let at = Some(times::to_wire(OffsetDateTime::now_utc()));
    let word = Acknowledgement {
        message_id: manifest.message_id.clone(),
        manifest_digest: sha256(&forward.manifest).into(),
        recipient: shelter.address.to_string(),
        key_id: shelter.key()?.id.into(),
        received_at: at,
        log_head: Vec::new().into(),
        thread_state: Some(StateChange { state: State::Received.into(), ..StateChange::default() }),
    };
    let notice = Notice {
        message_id: manifest.message_id,
        manifest_digest: sha256(&forward.manifest).into(),
        recipient: shelter.address.to_string(),
        at,
        event: Some(notice::Event::Acknowledged(statement::sign(&word, &shelter.signing))),
        ..Notice::default()
    };
    let answer = link.notice(scene.hostile.sign_notice(&notice)).await?;
    ensure!(matches!(answer, Answer::Done), "{answer:?}");
    let seen = call::referral_in(hospital, &id, State::Received).await?;
    ensure!(seen.refusal.is_none(), "{:?}", seen.refusal);
    Ok(())
}

/// One that waits for a full queue is no reason not to ask about another that was offered before.
#[tokio::test]
async fn what_was_offered_is_asked_about_though_another_finds_no_room() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    let mut silent = Liar::of(&scene.hostile, &scene.realm.gateway, Lie::Silent).await?;
    let mut link = scene.hostile.link().await?;
    scene.list(&mut link).await?;
    let border = Insider::enrol(&scene.realm.gateway, BORDER).await?;
    let mut session = border.session().await?;
    let sent = session.submit(&border.seal(&border.draft(&scene.hostile.shelter.key()?))?).await?;
    ensure!(matches!(sent, insider::Answer::Accepted(_)), "{sent:?}");
    let id = scene.send(message::small_referral("xx/shelter")).await?;
    for _ in 0..2 {
        silent.forwarded().await.context("not both were offered")?;
    }
    drop(silent);
    let _full = Liar::of(&scene.hostile, &scene.realm.gateway, Lie::FullFor(BORDER)).await?;
    scene.holder(&id, DOMAIN).await
}

/// What was accepted is answered with its acceptance, also when what waits has filled the queue meanwhile.
#[tokio::test]
async fn what_was_accepted_is_answered_though_the_queue_is_full() -> Result<()> {
    let mut be = Realm::prepare_domain(BE, &[("scheme/test.cedar", policies::OPEN)]).await?;
    be.gateway.configure("[limits]\nqueue_deliveries = 2")?;
    be.gateway.start().await?;
    be.join(&[HOSPITAL, SHELTER]).await?;
    let hostile = Hostile::accepted_by(&be.gateway, Port::free()?.address).await?;
    let key = Insider::enrol(&be.gateway, BORDER).await?.key_of(SHELTER).await?;
    be.agent_mut(SHELTER)?.stop().await?;
    let mut link = hostile.link().await?;
    let forward = || {
        let now = OffsetDateTime::now_utc();
        hostile.forward_of(&hostile.shelter.draft(Kind::Referral, std::slice::from_ref(&key), now))
    };
    let first = forward()?;
    let answer = accepted(link.forward(&first).await?)?;
    accepted(link.forward(&forward()?).await?)?;
    refused("a third", link.forward(&forward()?).await?, ErrorCode::QueueFull)?;
    let again = accepted(hostile.link().await?.forward(&first).await?)?;
    ensure!(answer == again, "another acceptance: {again:?}");
    Ok(())
}

/// A peer that takes what it is offered and says nothing; and is removed then.
#[tokio::test]
async fn a_peer_that_does_not_answer_is_told_of() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    let mut silent = Liar::of(&scene.hostile, &scene.realm.gateway, Lie::Silent).await?;
    let mut link = scene.hostile.link().await?;
    scene.list(&mut link).await?;
    let id = scene.send(message::small_referral("xx/shelter")).await?;
    silent.forwarded().await.context("nothing was offered")?;
    let hospital = scene.realm.agent(HOSPITAL)?;
    wait::until("the sender is told that no answer comes", async || {
        let seen = call::referral(hospital, &id).await.ok()?;
        let told = seen.parts.iter().find_map(|part| part.unknown.clone())?;
        (told.code() == ErrorCode::GatewayUnreachable && told.message.contains("may have")).then_some(())
    })
    .await?;
    scene.realm.gateway.command(&["peer", "remove", DOMAIN]).await?;
    let seen = call::referral_in(hospital, &id, State::Refused).await?;
    let told = seen.refusal.context("no reason is told")?;
    ensure!(told.message.contains("may have"), "{told}");
    Ok(())
}

/// An acceptance that this version can't read is no forgery: the message waits for the upgrade.
#[tokio::test]
async fn an_acceptance_of_a_newer_version_is_waited_for() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    let newer = Liar::of(&scene.hostile, &scene.realm.gateway, Lie::Newer).await?;
    let mut link = scene.hostile.link().await?;
    scene.list(&mut link).await?;
    let id = scene.send(message::small_referral("xx/shelter")).await?;
    wait::until("the sender is told what is to be upgraded", async || {
        let seen = call::referral(scene.realm.agent(HOSPITAL).ok()?, &id).await.ok()?;
        let told = seen.parts.iter().find_map(|part| part.unknown.clone())?;
        (told.code() == ErrorCode::UnknownValue && told.action.contains("upgrade")).then_some(())
    })
    .await?;
    ensure!(violations(&scene.realm.gateway, "peer_violation").await? == 0, "it counts as a violation");
    drop(newer);
    let _upgraded = Liar::of(&scene.hostile, &scene.realm.gateway, Lie::Honest).await?;
    scene.holder(&id, DOMAIN).await
}

/// Waits until a referral stands at `holder`.
async fn at(federation: &Federation, sender: &str, id: &str, holder: &str) -> Result<()> {
    let agent = federation.agent(sender)?;
    wait::until(&format!("{id} is at {holder}"), async || {
        (call::referral(agent, id).await.ok()?.at == holder).then_some(())
    })
    .await
}
