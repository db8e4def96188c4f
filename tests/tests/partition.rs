//! Three domains on hosts of their own, whose network breaks in every way while all of them send to all:
//! nothing is lost, nothing comes twice, and the senders can see where each message stands.

use std::time::Duration;

use anyhow::{Result, ensure};
use liaison_demo::wait;
use liaison_tests::{
    Federation,
    crossing::{all_arrived_once, while_all_send},
    names::{HOSPITAL, SHELTER_FR, SHELTER_HU},
    policies, seed,
};
use rand::{RngExt, seq::IndexedRandom};
use serde_json::Value;
use tokio::time::sleep;

const DOMAINS: [&str; 3] = ["be", "fr", "hu"];
const AGENCIES: [&str; 3] = [HOSPITAL, SHELTER_FR, SHELTER_HU];
/// Longer than a gateway takes to notice that a peer says nothing any more.
const LONG: Duration = Duration::from_secs(20);
const KILLS: usize = 12;

#[tokio::test]
async fn a_network_that_breaks_loses_nothing() -> Result<()> {
    let mut federation = Federation::start_apart(policies::OPEN, &AGENCIES).await?;
    let sent = while_all_send(&mut federation, async |federation| {
        sleep(Duration::from_secs(2)).await;
        // Whole: hu is alone, the others go on.
        federation.net()?.cut("hu")?;
        queue_grows(federation, "be", "hu").await?;
        queue_grows(federation, "hu", "fr").await?;
        unlinked(federation, "be", "hu").await?;
        ensure!(is_linked(federation, "be", "fr").await?, "the others are disturbed as well");
        federation.net()?.heal("hu")?;
        federation.linked().await?;
        // One way: what be says reaches fr, and no answer comes back.
        federation.net()?.mute("fr", "be")?;
        sleep(LONG).await;
        ensure!(is_linked(federation, "hu", "fr").await?, "others are disturbed as well");
        federation.net()?.unmute("fr", "be")?;
        Ok(())
    })
    .await?;
    all_arrived_once(&federation, &sent).await
}

#[tokio::test]
async fn a_peer_that_stands_still_or_is_slow_loses_nothing() -> Result<()> {
    let mut federation = Federation::start_apart(policies::OPEN, &AGENCIES).await?;
    let sent = while_all_send(&mut federation, async |federation| {
        sleep(Duration::from_secs(2)).await;
        federation.gateway("hu")?.pause()?;
        queue_grows(federation, "be", "hu").await?;
        sleep(LONG).await;
        ensure!(is_linked(federation, "be", "fr").await?, "the others are disturbed as well");
        federation.gateway("hu")?.resume()?;
        // A tenth of its speed.
        for _ in 0..20 {
            federation.gateway("fr")?.pause()?;
            sleep(Duration::from_millis(450)).await;
            federation.gateway("fr")?.resume()?;
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    })
    .await?;
    all_arrived_once(&federation, &sent).await
}

#[tokio::test]
async fn gateways_killed_at_random_moments_lose_nothing() -> Result<()> {
    let mut random = seed::generator("gateways across domains")?;
    let mut federation = Federation::start_apart(policies::OPEN, &AGENCIES).await?;
    let sent = while_all_send(&mut federation, async |federation| {
        for _ in 0..KILLS {
            sleep(Duration::from_millis(random.random_range(200..2_000))).await;
            let domain = DOMAINS.choose(&mut random).copied().unwrap_or("be");
            federation.gateway_mut(domain)?.kill()?;
            // Long enough at times for the others to notice.
            sleep(Duration::from_millis(random.random_range(0..1_500))).await;
            federation.gateway_mut(domain)?.start().await?;
        }
        Ok(())
    })
    .await?;
    all_arrived_once(&federation, &sent).await
}

/// Waits until more waits at a domain for another than a whole network leaves waiting.
async fn queue_grows(federation: &Federation, at: &str, peer: &str) -> Result<()> {
    wait::until(&format!("much waits at {at} for {peer}"), async || {
        let (queued, _) = federation.waiting(at, peer).await.ok()?;
        (queued > 20).then_some(())
    })
    .await
}

async fn unlinked(federation: &Federation, at: &str, peer: &str) -> Result<()> {
    wait::until(&format!("{at} sees that {peer} is away"), async || {
        (!is_linked(federation, at, peer).await.ok()?).then_some(())
    })
    .await?;
    let shown = federation.gateway(at)?.peer(peer).await?;
    let problem = shown.get("problem").and_then(Value::as_str).unwrap_or_default();
    ensure!(!problem.is_empty(), "nothing tells why {peer} is away: {shown}");
    Ok(())
}

async fn is_linked(federation: &Federation, at: &str, peer: &str) -> Result<bool> {
    Ok(federation.gateway(at)?.peer(peer).await?.get("linked") == Some(&Value::Bool(true)))
}
