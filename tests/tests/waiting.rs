//! Messages that wait for another domain: they keep nothing else waiting, and their senders are told why.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use liaison_demo::{port::Port, wait};
use liaison_proto::{
    case::v1::GetAlertRequest,
    exchange::v1::delivery::Content,
    message::v1::{
        Acknowledgement, Audience, Manifest, Notice, StateChange, data_category::Code as Category,
        error_code::Code as ErrorCode, notice, referral_state::Code as State,
    },
    times,
};
use liaison_tests::{
    Federation, Realm, call,
    called::Called,
    federation::waiting_for,
    hostile::{Answer, DOMAIN, Hostile, violations},
    insider::{self, Insider, Session},
    liar::{Liar, Lie},
    message,
    names::{BORDER, HEALTH_HU, HOSPITAL, SHELTER, SHELTER_HU},
    outsider::Outsider,
    policies,
    realm::{BE, HU},
    scene::Scene,
};
use liaison_trust::{digest::sha256, statement};
use prost::Message;
use time::OffsetDateTime;

/// What waits for one agency of `hu` at most.
const QUEUE: usize = 20;
/// A message that is far more than what a connection takes without being read, bytes.
const LARGE: usize = 2_500 << 10;
/// Longer than a peer may take to answer.
const LATE: Duration = Duration::from_secs(40);
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
    federation.sound().await
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
        heard.push(told(&mut session).await?);
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
        keys_head: Vec::new().into(),
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

/// A peer that is away, then takes what it is offered and says nothing, and is removed then.
#[tokio::test]
async fn a_peer_that_does_not_answer_is_told_of() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    let mut link = scene.hostile.link().await?;
    scene.list(&mut link).await?;
    let id = scene.send(message::small_referral("xx/shelter")).await?;
    let hospital = scene.realm.agent(HOSPITAL)?;
    let told = async |what: &str| {
        wait::until(&format!("the sender is told: {what}"), async || {
            let seen = call::referral(hospital, &id).await.ok()?;
            let told = seen.parts.iter().find_map(|part| part.unknown.clone())?;
            (told.code() == ErrorCode::GatewayUnreachable && told.message.contains(what)).then_some(())
        })
        .await
    };
    told("not connected").await?;
    let mut silent = Liar::of(&scene.hostile, &scene.realm.gateway, Lie::Silent).await?;
    silent.forwarded().await.context("nothing was offered")?;
    told("may have").await?;
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
    let newer = Liar::of(&scene.hostile, &scene.realm.gateway, Lie::Newer("xx/shelter")).await?;
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

/// What a peer says of one recipient of an alert, and what can't be taken of it, holds up no other.
#[tokio::test]
async fn a_word_that_can_t_be_taken_concerns_one_recipient() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    let mut link = scene.hostile.link().await?;
    let both = [&scene.hostile.shelter, &scene.hostile.clinic].map(|agency| agency.described(DOMAIN));
    let page = statement::sign(&scene.hostile.page(both.to_vec()), &scene.hostile.signing);
    let answer = link.directory(page).await?;
    ensure!(matches!(answer, Answer::Done), "{answer:?}");
    let hospital = scene.realm.agent(HOSPITAL)?;
    for (lie, code) in [
        (Lie::Newer("xx/clinic"), ErrorCode::UnknownValue),
        (Lie::OtherLayer("xx/clinic"), ErrorCode::Unsupported),
    ] {
        let _liar = Liar::of(&scene.hostile, &scene.realm.gateway, lie).await?;
        let agencies = ["xx/shelter", "xx/clinic"].map(str::to_owned).to_vec();
        let alert = message::pattern_alert(Audience { agencies, ..Audience::default() });
        let sent = call::case(hospital)?.send_alert(alert).await?.into_inner();
        let id = sent.alert.context("no alert was made")?.id;
        wait::until(&format!("one word is taken, the other waited for: {lie:?}"), async || {
            let request = GetAlertRequest { id: id.clone() };
            let seen = call::case(hospital).ok()?.get_alert(request).await.ok()?.into_inner();
            let of = |agency: &str| seen.deliveries.iter().find(|copy| copy.agency == agency);
            let (shelter, clinic) = (of("xx/shelter")?, of("xx/clinic")?);
            let told = clinic.parts.iter().find_map(|part| part.unknown.clone())?;
            (shelter.at == DOMAIN && clinic.at == "be" && told.code() == code).then_some(())
        })
        .await?;
    }
    Ok(())
}

/// On a slow line a large message takes long: its peer can't answer before it has all of it.
#[tokio::test]
async fn a_message_that_is_still_being_sent_is_not_late() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    scene.list(&mut scene.hostile.link().await?).await?;
    let border = Insider::enrol(&scene.realm.gateway, BORDER).await?;
    let mut called = Called::start(&scene).await?;
    let mut link = called.linked(&scene.hostile).await?;
    let page = link.page().await?;
    link.done(page).await?;
    let mut session = border.session().await?;
    let mut draft = border.draft(&scene.hostile.shelter.key()?);
    draft.sections.insert(Category::Health, vec![b'x'; LARGE].into());
    let sent = session.submit(&border.seal(&draft)?).await?;
    ensure!(matches!(sent, insider::Answer::Accepted(_)), "{sent:?}");
    // Nothing of it is read.
    let told = tokio::time::timeout(LATE, session.delivery()).await;
    ensure!(told.is_err(), "the sender is told something: {told:?}");
    link.forward().await.map(drop)
}

/// What a peer says that it has not taken, it does not have, whatever kept it from taking it.
#[tokio::test]
async fn what_a_peer_did_not_take_expires_here() -> Result<()> {
    const REASONS: [(&str, ErrorCode); 3] = [
        ("xx/shelter", ErrorCode::Suspended),
        ("xx/clinic", ErrorCode::SchemeMismatch),
        ("xx/third", ErrorCode::StaleBundle),
    ];
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    let third = Outsider::new("xx/third")?;
    let all = [&scene.hostile.shelter, &scene.hostile.clinic, &third];
    let page = scene.hostile.page(all.map(|agency| agency.described(DOMAIN)).to_vec());
    let page = statement::sign(&page, &scene.hostile.signing);
    let answer = scene.hostile.link().await?.directory(page).await?;
    ensure!(matches!(answer, Answer::Done), "{answer:?}");
    let _later = Liar::of(&scene.hostile, &scene.realm.gateway, Lie::Later(&REASONS)).await?;
    let border = Insider::enrol(&scene.realm.gateway, BORDER).await?;
    let mut session = border.session().await?;
    let expires = OffsetDateTime::now_utc() + Duration::from_secs(25);
    for agency in all {
        let draft = liaison_trust::envelope::Draft { expires, ..border.draft(&agency.key()?) };
        let sent = session.submit(&border.seal(&draft)?).await?;
        ensure!(matches!(sent, insider::Answer::Accepted(_)), "{sent:?}");
    }
    let (mut waits, mut expired) = (BTreeSet::new(), 0);
    while expired < REASONS.len() {
        match told(&mut session).await? {
            notice::Event::Waiting(why) => drop(waits.insert(why.code())),
            notice::Event::Expired(_) => expired += 1,
            other => anyhow::bail!("{other:?}"),
        }
    }
    ensure!(REASONS.iter().all(|(_, code)| waits.contains(code)), "{waits:?}");
    Ok(())
}

/// The copies of an alert take their places in the lane one by one: whom it does not reach is told at once.
#[tokio::test]
async fn an_alert_reaches_as_many_as_the_lane_has_room_for() -> Result<()> {
    let mut be = Realm::prepare_domain(BE, &[("scheme/test.cedar", policies::OPEN)]).await?;
    be.gateway.configure("[limits]\nqueue_deliveries = 2")?;
    be.gateway.start().await?;
    be.join(&[]).await?;
    // Nobody listens there.
    let hostile = Hostile::accepted_by(&be.gateway, Port::free()?.address).await?;
    let third = Outsider::new("xx/third")?;
    let all = [&hostile.shelter, &hostile.clinic, &third];
    let page = hostile.page(all.map(|agency| agency.described(DOMAIN)).to_vec());
    let answer = hostile.link().await?.directory(statement::sign(&page, &hostile.signing)).await?;
    ensure!(matches!(answer, Answer::Done), "{answer:?}");
    let border = Insider::enrol(&be.gateway, BORDER).await?;
    let keys = all.map(|agency| agency.key()).into_iter().collect::<Result<Vec<_>>>()?;
    let first = keys.first().context("no key")?;
    let alert = message::health_alert(border.draft(first), &keys);
    let sent = border.session().await?.submit(&border.seal(&alert)?).await?;
    let insider::Answer::Accepted(acceptance) = sent else { anyhow::bail!("{sent:?}") };
    let rules = acceptance.decisions.iter().filter_map(|decision| decision.rule.as_ref());
    let rules: Vec<_> = rules.map(|rule| rule.rule.as_str()).collect();
    ensure!(rules == ["none:room"], "{:?}", acceptance.decisions);
    ensure!(waiting_for(&be.gateway, DOMAIN).await? == (2, 0), "other copies wait");
    Ok(())
}

/// What a sender is told next.
async fn told(session: &mut Session) -> Result<notice::Event> {
    let (attempt, delivery) = session.delivery().await?;
    session.ack(attempt, None).await?;
    let Some(Content::Notice(signed)) = delivery.content else { anyhow::bail!("no notice") };
    Notice::decode(signed.notice)?.event.context("a notice of nothing")
}

/// Waits until a referral stands at `holder`.
async fn at(federation: &Federation, sender: &str, id: &str, holder: &str) -> Result<()> {
    let agent = federation.agent(sender)?;
    wait::until(&format!("{id} is at {holder}"), async || {
        (call::referral(agent, id).await.ok()?.at == holder).then_some(())
    })
    .await
}
