//! Whatever dies at whatever moment, an accepted message arrives, and arrives once.

#![allow(clippy::indexing_slicing, reason = "an absent field of JSON is null")]

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result};
use liaison_proto::message::v1::referral_state::Code as State;
use liaison_tests::{
    Realm, call, evidence, message,
    names::{HOSPITAL, SHELTER},
    policies, seed,
    traffic::{every_one_arrived_once, under_traffic},
};
use rand::{RngExt, rngs::StdRng};

const KILLS: u32 = 20;

#[tokio::test]
async fn a_gateway_killed_at_random_moments_loses_nothing() -> Result<()> {
    let mut random = seed::generator("gateway kills")?;
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let sent = under_traffic(call::case(realm.agent(HOSPITAL)?)?, async {
        for _ in 0..KILLS {
            a_moment(&mut random).await;
            realm.gateway.kill()?;
            realm.gateway.start().await?;
        }
        Ok(())
    })
    .await?;
    every_one_arrived_once(&realm, &sent).await?;
    // Whatever was cut off: no acceptance without its leaf, no leaf without its message.
    let report = evidence::sound(&realm.gateway).await?;
    // A cut-off submission is offered again, and accepted once.
    let accepted = evidence::leaves(&realm.gateway).await?;
    let accepted = accepted.iter().filter(|leaf| leaf["event"] == "accepted").count();
    assert_eq!(report["messages"], accepted, "{report}");
    assert!(accepted >= sent.len());
    liaison_tests::evidence::sound(&realm.gateway).await.map(drop)
}

#[tokio::test]
async fn agents_killed_at_random_moments_lose_nothing() -> Result<()> {
    let mut random = seed::generator("agent kills")?;
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let sent = under_traffic(call::case(realm.agent(HOSPITAL)?)?, async {
        for _ in 0..KILLS {
            a_moment(&mut random).await;
            let agency = if random.random() { HOSPITAL } else { SHELTER };
            realm.agent_mut(agency)?.kill()?;
            realm.agent_mut(agency)?.start().await?;
        }
        Ok(())
    })
    .await?;
    every_one_arrived_once(&realm, &sent).await
}

#[tokio::test]
async fn the_outbox_drains_after_an_outage() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let mut sent = BTreeSet::new();
    // What is needed to send to an agency once met is on disk: here at once after a start without a gateway.
    sent.insert(send(&realm).await?);
    call::received(realm.agent(SHELTER)?, sent.first().context("nothing was sent")?).await?;
    realm.gateway.stop().await?;
    realm.agent_mut(HOSPITAL)?.kill()?;
    realm.agent_mut(HOSPITAL)?.start().await?;
    for _ in 0..50 {
        sent.insert(send(&realm).await?);
    }
    // So is the outbox.
    realm.agent_mut(HOSPITAL)?.kill()?;
    realm.agent_mut(HOSPITAL)?.start().await?;
    let status = realm.agent(HOSPITAL)?.get("/v1/status").await?;
    assert_eq!(status.get("outbox").and_then(serde_json::Value::as_str), Some("50"), "{status}");
    assert_eq!(status.get("connected"), Some(&serde_json::Value::Bool(false)), "{status}");
    realm.gateway.start().await?;
    every_one_arrived_once(&realm, &sent).await
}

async fn a_moment(random: &mut StdRng) {
    tokio::time::sleep(Duration::from_millis(random.random_range(20..600))).await;
}

async fn send(realm: &Realm) -> Result<String> {
    let mut case = call::case(realm.agent(HOSPITAL)?)?;
    let answer = case.send_referral(message::small_referral(SHELTER)).await?.into_inner();
    let referral = answer.referrals.first().context("no referral was made")?;
    assert_eq!(referral.state(), State::Submitted);
    Ok(referral.id.clone())
}
