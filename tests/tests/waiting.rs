//! Messages that wait for another domain: they keep nothing else waiting, and their senders are told why.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use liaison_demo::{port::Port, wait};
use liaison_proto::{
    case::v1::GetAlertRequest,
    exchange::v1::delivery::Content,
    message::v1::{
        Acknowledgement, Audience, Manifest, Notice, StateChange, error_code::Code as ErrorCode, notice,
        referral_state::Code as State,
    },
    times,
};
use liaison_tests::{
    Federation, Realm, call,
    hostile::{Answer, DOMAIN},
    insider::{self, Insider},
    liar::{Liar, Lie},
    message,
    names::{BORDER, HEALTH_HU, HOSPITAL, SHELTER, SHELTER_HU},
    policies,
    realm::{BE, HU},
    scene::Scene,
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

/// Waits until a referral stands at `holder`.
async fn at(federation: &Federation, sender: &str, id: &str, holder: &str) -> Result<()> {
    let agent = federation.agent(sender)?;
    wait::until(&format!("{id} is at {holder}"), async || {
        (call::referral(agent, id).await.ok()?.at == holder).then_some(())
    })
    .await
}
