//! What a gateway does with a link whose other end is slow, refuses, or hangs up; and what its administrator and
//! its caseworkers are told then.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use liaison_demo::{port::Port, wait};
use liaison_proto::{
    case::v1::{PreviewRequest, preview_request},
    exchange::v1::Agency,
    federation::v1::{SignedBundle, link_request::Frame as Request},
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use liaison_tests::{
    call,
    called::Called,
    hostile::{Answer, DOMAIN, Link},
    message,
    names::HOSPITAL,
    policies,
    scene::{Scene, refused},
};
use liaison_trust::{keys::SigningKey, statement};
use serde_json::Value;

/// Long enough for what must not come to have come.
const A_MOMENT: Duration = Duration::from_secs(1);

#[tokio::test]
async fn the_directory_is_told_before_messages_go_and_a_refused_page_holds_up_none() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    list(&scene, &mut scene.hostile.link().await?).await?;
    scene.send(message::small_referral("xx/shelter")).await?;
    let mut called = Called::start(&scene).await?;
    let mut link = called.linked(&scene.hostile).await?;
    let page = link.page().await?;
    let early = tokio::time::timeout(A_MOMENT, link.next()).await;
    ensure!(early.is_err(), "something goes before the directory is known");

    link.refuse(page, Refusal::new(ErrorCode::KeyChainBroken, "a key is wrong", "revoke the agency")).await?;
    ensure!(matches!(link.next().await?, Request::Forward(_)), "the message does not come next");
    problem(&scene, |told| told.contains("a key is wrong") && told.contains("revoke the agency")).await?;

    // It is told again as soon as it changes, and then there is no problem.
    scene.realm.gateway.command(&["agency", "suspend", HOSPITAL]).await?;
    let page = link.page().await?;
    link.done(page).await?;
    problem(&scene, str::is_empty).await
}

#[tokio::test]
async fn a_peer_that_hangs_up_is_called_less_and_less_often() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    let mut called = Called::start(&scene).await?;
    drop(called.linked(&scene.hostile).await?);
    let began = Instant::now();
    for _ in 0..4 {
        drop(called.linked(&scene.hostile).await?);
    }
    // Twice as long after each; from the start again each time, they would be there within two seconds.
    ensure!(began.elapsed() > Duration::from_secs(5), "called 4 times in {:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn administrators_see_what_their_gateway_refuses_of_a_peer() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    let mut called = Called::start(&scene).await?;
    let _link = called.linked(&scene.hostile).await?;
    problem(&scene, str::is_empty).await?;

    let mut link = scene.hostile.link().await?;
    let foreign = Agency { country: "Narnia".to_owned(), ..scene.hostile.shelter.described(DOMAIN) };
    let answer = page(&scene, &mut link, foreign).await?;
    refused("a country that is none", answer, ErrorCode::PeerViolation)?;
    problem(&scene, |told| told.contains("this gateway refuses") && told.contains("country")).await?;
    list(&scene, &mut link).await?;
    problem(&scene, str::is_empty).await?;

    let mut link = Link::open(scene.hostile.connect().await?).await?;
    ensure!(link.try_hello(another(&scene)).await?.is_err(), "a bundle of another key is welcome");
    problem(&scene, |told| told.contains("this gateway refuses") && told.contains("key")).await?;
    let _link = scene.hostile.link().await?;
    problem(&scene, str::is_empty).await
}

/// A bundle that another key than the peer's signed.
fn another(scene: &Scene) -> SignedBundle {
    let other = SigningKey::generate();
    let mut bundle = scene.hostile.bundle(u64::MAX);
    bundle.gateway_signing_key = other.public().as_bytes().to_vec().into();
    statement::sign(&bundle, &other)
}

#[tokio::test]
async fn caseworkers_are_not_told_how_a_peer_is_reached() -> Result<()> {
    let port = Port::free()?;
    let scene = Scene::start(policies::OPEN, port.address).await?;
    list(&scene, &mut scene.hostile.link().await?).await?;
    problem(&scene, |told| told.contains(&port.address.to_string())).await?;
    let referral = message::small_referral("xx/shelter");
    let request = PreviewRequest { message: Some(preview_request::Message::Referral(referral)) };
    let preview = call::case(scene.realm.agent(HOSPITAL)?)?.preview(request).await?.into_inner();
    let part = preview.parts.into_iter().find(|part| part.domain == DOMAIN);
    let unknown = part.and_then(|part| part.unknown).context("the peer was asked")?;
    assert_eq!(unknown.code(), ErrorCode::GatewayUnreachable);
    assert_eq!(unknown.message, "xx can't be asked now: its gateway is not connected");
    Ok(())
}

/// Waits until `peer show` tells a problem, or none, that is so.
async fn problem(scene: &Scene, is_so: impl Fn(&str) -> bool) -> Result<()> {
    let mut last = Value::Null;
    wait::until("the peer's problem is told as it is", async || {
        last = scene.realm.gateway.peer(DOMAIN).await.ok()?.get("problem")?.clone();
        is_so(last.as_str().unwrap_or_default()).then_some(())
    })
    .await
    .with_context(|| format!("it was last {last}"))
}

/// Makes the peer's shelter known, so that it can be addressed.
async fn list(scene: &Scene, link: &mut Link) -> Result<()> {
    let answer = page(scene, link, scene.hostile.shelter.described(DOMAIN)).await?;
    ensure!(matches!(answer, Answer::Done), "an honest page: {answer:?}");
    Ok(())
}

/// Sends a page of the peer's directory with an agency.
async fn page(scene: &Scene, link: &mut Link, agency: Agency) -> Result<Answer> {
    let page = scene.hostile.page(vec![agency]);
    link.directory(statement::sign(&page, &scene.hostile.signing)).await
}
