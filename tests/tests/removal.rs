//! The end of a peering: the other domain is cut off at once, and what waited for it goes back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use liaison_demo::wait;
use liaison_proto::message::v1::{error_code::Code as ErrorCode, referral_state::Code as State};
use liaison_tests::{
    Federation, call,
    forge::Claim,
    insider, message,
    names::{HOSPITAL, SHELTER_HU},
    policies,
};
use serde_json::Value;
use tokio::time::Instant;

/// In which a removed peer has to be cut off, from the start of the command.
const CUT: Duration = Duration::from_secs(5);
const WAITING: usize = 20;

#[tokio::test]
async fn a_removed_peer_is_cut_off_at_once() -> Result<()> {
    let federation = Federation::start(policies::OPEN, &[HOSPITAL, SHELTER_HU]).await?;
    let (be, hu) = (federation.gateway("be")?, federation.gateway("hu")?);
    let hospital = federation.agent(HOSPITAL)?;
    let id = call::send(hospital, message::small_referral(SHELTER_HU)).await?;
    call::received(federation.agent(SHELTER_HU)?, &id).await?;
    let trust = insider::trust(be)?;
    let certificate = Claim::genuine("spiffe://hu/gateway").by_authority_of(hu)?;
    let admitted = insider::connect(be.federation(), &trust, Some(&certificate)).await;
    ensure!(admitted.is_ok(), "a peer's gateway is not admitted, so this shows nothing");

    let start = Instant::now();
    be.command(&["peer", "remove", "hu"]).await?;
    wait::within(CUT, "the links are cut and the agencies gone", async || {
        let shown = hu.peer("be").await.ok()?;
        let standing =
            ["linked", "linked_from"].iter().any(|link| shown.get(link) != Some(&Value::Bool(false)));
        let known = call::reachable(hospital).await.ok()?;
        (!standing && !known.contains_key(SHELTER_HU)).then_some(())
    })
    .await?;
    let took = start.elapsed();
    ensure!(took < CUT, "it took {} ms", took.as_millis());
    println!("cut off after {} ms", took.as_millis());

    let refused = insider::connect(be.federation(), &trust, Some(&certificate)).await;
    ensure!(refused.is_err(), "a removed peer's gateway is still admitted");
    let known = call::received_ids(federation.agent(SHELTER_HU)?).await?;
    // The agent may still know the agency from before; the gateway then refuses.
    match call::case(hospital)?.send_referral(message::small_referral(SHELTER_HU)).await {
        Ok(sent) => {
            let id = sent.into_inner().referrals.first().context("no referral was made")?.id.clone();
            call::referral_in(hospital, &id, State::Refused).await?;
        }
        Err(status) => {
            let code = call::refused::<()>(Err(status));
            ensure!(matches!(code, Some(ErrorCode::UnknownRecipient | ErrorCode::UnknownDomain)), "{code:?}");
        }
    }
    assert_eq!(call::received_ids(federation.agent(SHELTER_HU)?).await?, known, "something crossed");
    Ok(())
}

#[tokio::test]
async fn what_waited_for_a_removed_peer_goes_back_to_its_senders() -> Result<()> {
    let mut federation = Federation::start(policies::OPEN, &[HOSPITAL, SHELTER_HU]).await?;
    federation.gateway_mut("hu")?.kill()?;
    let hospital = federation.agent(HOSPITAL)?;
    let mut sent = Vec::new();
    for _ in 0..WAITING {
        sent.push(call::send(hospital, message::small_referral(SHELTER_HU)).await?);
    }
    for id in &sent {
        wait::until("the gateway holds it", async || {
            call::referral(hospital, id).await.ok().filter(|seen| seen.at == "be")
        })
        .await?;
    }
    let (queued, _) = federation.waiting("be", "hu").await?;
    ensure!(queued >= WAITING as u64, "only {queued} wait");

    let start = Instant::now();
    federation.gateway("be")?.command(&["peer", "remove", "hu"]).await?;
    for id in &sent {
        let seen = call::referral_in(hospital, id, State::Refused).await?;
        let refusal = seen.refusal.context("no reason is told")?;
        let text = refusal.to_string();
        ensure!(
            text.split(|c: char| !c.is_alphanumeric()).any(|word| word == "hu"),
            "{text} does not name hu"
        );
        ensure!(!refusal.action.is_empty(), "nothing tells what to do: {refusal:?}");
        assert_eq!(seen.at, "be", "whoever ended it holds it");
    }
    println!("{WAITING} went back after {} ms", start.elapsed().as_millis());

    // They went back for good.
    federation.gateway_mut("hu")?.start().await?;
    federation.agent(SHELTER_HU)?.connected().await?;
    tokio::time::sleep(CUT).await;
    assert!(call::received_ids(federation.agent(SHELTER_HU)?).await?.is_empty());
    Ok(())
}

/// Suspended is not removed: what waits is kept, and goes on when the peer is resumed.
#[tokio::test]
async fn a_suspended_peer_gets_nothing_until_it_is_resumed() -> Result<()> {
    let mut federation = Federation::start(policies::OPEN, &[HOSPITAL, SHELTER_HU]).await?;
    federation.gateway_mut("hu")?.kill()?;
    let hospital = federation.agent(HOSPITAL)?;
    let id = call::send(hospital, message::small_referral(SHELTER_HU)).await?;
    wait::until("the gateway holds it", async || {
        call::referral(hospital, &id).await.ok().filter(|seen| seen.at == "be")
    })
    .await?;
    federation.gateway("be")?.command(&["peer", "suspend", "hu"]).await?;
    federation.gateway_mut("hu")?.start().await?;
    let shelter = federation.agent(SHELTER_HU)?;
    shelter.connected().await?;
    tokio::time::sleep(CUT).await;
    assert!(call::received_ids(shelter).await?.is_empty(), "it crossed");
    let shown = federation.gateway("hu")?.peer("be").await?;
    assert_eq!(shown.get("linked"), Some(&Value::Bool(false)), "{shown}");
    let be = federation.gateway("be")?;
    be.command(&["peer", "resume", "hu"]).await?;
    be.linked("hu").await?;
    call::received(shelter, &id).await?;
    Ok(())
}
