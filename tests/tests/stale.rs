//! A bundle that is a week old: its domain is relied on no more until a newer one comes, and nothing is lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use liaison_demo::{port::Port, wait};
use liaison_proto::{
    case::v1::{PreviewRequest, preview_request::Message},
    limits,
    message::v1::{error_code::Code as ErrorCode, referral_state::Code as State},
};
use liaison_tests::{
    call,
    federation::waiting_for,
    hostile::{Answer, DOMAIN, Link, violations},
    liar::{Liar, Lie},
    message,
    names::{HOSPITAL, SHELTER},
    policies,
    scene::{Scene, accepted, refused},
};
use serde_json::Value;
use time::OffsetDateTime;

/// How long the bundle can still be relied on when it is accepted: longer than that takes.
const LEFT: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_peer_with_a_bundle_that_grew_old_waits_for_a_newer_one() -> Result<()> {
    let port = Port::free()?;
    let age = limits::BUNDLE_AGE - LEFT;
    let scene = Scene::start_after(age, policies::OPEN, port.address).await?;
    let (gateway, hostile) = (&scene.realm.gateway, &scene.hostile);
    // Both links stand on the bundle that was accepted.
    let mut peer = Liar::with_bundle(hostile, gateway, Lie::Honest, hostile.accepted.clone()).await?;
    let mut link = Link::open(hostile.connect().await?).await?;
    link.hello(hostile.accepted.clone()).await?;
    scene.list(&mut link).await?;
    let problem = wait::within(LEFT + wait::PATIENCE, "the bundle is too old", async || {
        let shown = gateway.peer(DOMAIN).await.ok()?;
        let problem = shown.get("problem")?.as_str()?.to_owned();
        let is_linked = shown.get("linked") == Some(&Value::Bool(true));
        (is_linked && problem.contains("too old")).then_some(problem)
    })
    .await?;
    ensure!(problem.contains("messages wait"), "it does not say what that means: {problem}");

    // To it: what is sent waits, and a preview says why nobody can be asked.
    let id = scene.send(message::small_referral("xx/shelter")).await?;
    wait::until("the message waits for the peer", async || {
        (waiting_for(gateway, DOMAIN).await.ok()?.0 == 1).then_some(())
    })
    .await?;
    let request = Message::Referral(message::small_referral("xx/shelter"));
    let question = PreviewRequest { message: Some(request) };
    let preview = call::case(scene.realm.agent(HOSPITAL)?)?.preview(question).await?.into_inner();
    let part = preview.parts.into_iter().find(|part| part.domain == DOMAIN).context("xx has no part")?;
    ensure!(part.unknown.is_some_and(|refusal| refusal.code() == ErrorCode::StaleBundle));

    // From it: refused for now, however often it is offered, and no violation.
    let draft = scene.draft();
    let honest = hostile.forward_of(&draft)?;
    for _ in 0..2 {
        let refusal = refused("on an old bundle", link.forward(&honest).await?, ErrorCode::StaleBundle)?;
        ensure!(refusal.retry_after_ms > 0, "it does not say when to offer it again: {refusal:?}");
    }
    ensure!(violations(gateway, ErrorCode::StaleBundle.as_str_name()).await? == 0, "age is no violation");

    scene.local().await?;
    let seen = call::referral(scene.realm.agent(HOSPITAL)?, &id).await?;
    ensure!(seen.state() == State::Requested && seen.at == "be", "{:?} at {}", seen.state(), seen.at);
    ensure!(peer.heard_nothing(), "it was forwarded");
    ensure!(scene.deliveries(&draft).await? == 0, "it was delivered");

    // A newer one comes, and all goes on by itself.
    let now = u64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos())?;
    let answer = link.renew(hostile.sign(&hostile.bundle(now))).await?;
    ensure!(matches!(answer, Answer::Done), "a newer bundle: {answer:?}");
    accepted(link.forward(&honest).await?)?;
    call::received(scene.realm.agent(SHELTER)?, &draft.message_id.to_string()).await?;
    peer.forwarded().await.context("what waited was not forwarded")?;
    scene.holder(&id, DOMAIN).await?;
    ensure!(peer.heard_nothing(), "it was forwarded more than once");
    ensure!(scene.deliveries(&draft).await? == 1, "it was delivered more than once");
    let shown = gateway.peer(DOMAIN).await?;
    ensure!(shown.get("problem").is_none_or(Value::is_null), "there is still a problem: {shown}");
    scene.harmless(&mut link).await
}
