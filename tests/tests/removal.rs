//! The end of a peering, and its pause: who is cut off, and what becomes of what waits.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use liaison_demo::{Gateway, http, wait};
use liaison_proto::message::v1::{error_code::Code as ErrorCode, referral_state::Code as State};
use liaison_tests::{
    Federation, Realm, call,
    federation::{Setup, knows, listed, waiting_for},
    forge::Claim,
    insider, message,
    names::{HOSPITAL, SHELTER, SHELTER_HU},
    policies,
    realm::{BE, HU},
};
use liaison_trust::tls::TlsError;
use serde_json::Value;

/// In which a domain has to be cut off.
const CUT: Duration = Duration::from_secs(5);
/// Agents look at the log of keys once a minute.
const LOOKED: Duration = Duration::from_secs(100);

async fn two() -> Result<Federation> {
    Federation::start(&Setup {
        domains: &[BE, HU],
        scheme: policies::OPEN,
        layers: &[],
        agencies: &[SHELTER, SHELTER_HU],
    })
    .await
}

#[tokio::test]
async fn a_removed_domain_is_cut_off_at_once() -> Result<()> {
    let mut federation = two().await?;
    // With one message under way: the other domain has it, and its agency does not take it.
    federation.realm_mut("hu")?.agent_mut(SHELTER_HU)?.stop().await?;
    let sent = federation.send(SHELTER, message::small_referral(SHELTER_HU)).await?;
    let id = sent.first().context("no referral was made")?;
    let shelter = federation.agent(SHELTER)?;
    wait::until("the other domain holds the referral", async || {
        (call::referral(shelter, id).await.ok()?.at == "hu").then_some(())
    })
    .await?;
    let (be, hu) = (&federation.realm("be")?.gateway, &federation.realm("hu")?.gateway);
    ensure!(greets(be, hu).await?, "a peer is not greeted, so this shows nothing");

    be.command(&["peer", "remove", "hu"]).await?;
    wait::within(CUT, "the removed domain is cut off, and its agencies have vanished", async || {
        let hu = hu.peer("be").await.ok()?;
        let unlinked = ["linked", "linked_from"].iter().all(|field| hu.get(*field) == Some(&false.into()));
        (unlinked && !listed(shelter).await.ok()?.contains_key(SHELTER_HU)).then_some(())
    })
    .await?;
    ensure!(!greets(be, hu).await?, "a removed domain is greeted");
    // The other one is told why, in words for its administrator.
    wait::until("the other domain knows why", async || {
        let problem = hu.peer("be").await.ok()?.get("problem")?.as_str()?.to_owned();
        (!problem.is_empty()).then_some(())
    })
    .await?;

    // What it had not told the end of comes back, and so does what is sent later.
    names_the_domain(&federation, id).await?;
    match call::case(shelter)?.send_referral(message::small_referral(SHELTER_HU)).await {
        // The agent may know the agency from before; the gateway then refuses.
        Ok(answer) => {
            let sent = answer.into_inner().referrals;
            let id = &sent.first().context("no referral was made")?.id;
            call::referral_in(shelter, id, State::Refused).await?;
        }
        Err(status) => assert_eq!(call::refused::<()>(Err(status)), Some(ErrorCode::UnknownRecipient)),
    }

    // It survives a restart.
    let be = &mut federation.realm_mut("be")?.gateway;
    be.kill()?;
    be.start().await?;
    let (be, hu) = (&federation.realm("be")?.gateway, &federation.realm("hu")?.gateway);
    ensure!(!greets(be, hu).await?, "a removed domain is greeted after a restart");
    federation.sound().await
}

#[tokio::test]
async fn what_waits_for_a_removed_domain_comes_back() -> Result<()> {
    let mut federation = two().await?;
    federation.realm_mut("hu")?.gateway.stop().await?;
    let sent = federation.send(SHELTER, message::small_referral(SHELTER_HU)).await?;
    let id = sent.first().context("no referral was made")?;
    call::referral_in(federation.agent(SHELTER)?, id, State::Requested).await?;
    federation.realm("be")?.gateway.command(&["peer", "remove", "hu"]).await?;
    names_the_domain(&federation, id).await?;

    // Peering anew is possible, and what came back does not arrive after all.
    federation.realm_mut("hu")?.gateway.start().await?;
    let (be, hu) = (&federation.realm("be")?.gateway, &federation.realm("hu")?.gateway);
    be.peer_with(hu).await?;
    federation.links().await?;
    knows(federation.agent(SHELTER)?, SHELTER_HU).await?;
    let later = federation.send_one(SHELTER, message::small_referral(SHELTER_HU)).await?;
    assert_eq!(call::received_ids(federation.agent(SHELTER_HU)?).await?, [later]);
    federation.sound().await
}

#[tokio::test]
async fn a_domain_that_was_rebuilt_is_a_peer_anew() -> Result<()> {
    let be = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let before = domain(&[SHELTER_HU]).await?;
    be.gateway.peer_with(&before.gateway).await?;
    be.gateway.linked("hu").await?;
    knows(be.agent(SHELTER)?, SHELTER_HU).await?;
    be.gateway.command(&["peer", "remove", "hu"]).await?;
    drop(before);

    // Of the same name with the same agencies, and nothing else of what it was.
    let after = domain(&[SHELTER_HU]).await?;
    let mut federation = Federation::of(vec![be, after]).await?;
    // Its keys do not continue those of before: a person says that they are its own.
    let shelter = federation.agent(SHELTER_HU)?;
    let fingerprint = wait::until("the new domain's log has the shelter's key", async || {
        let keys: Value = serde_json::from_str(&shelter.command(&["--json", "keys"]).await.ok()?).ok()?;
        let own = keys.as_array()?.iter().find(|keys| keys.get("agency") == Some(&SHELTER_HU.into()))?;
        Some(own.get("fingerprint")?.as_str()?.to_owned())
    })
    .await?;
    let hospital = federation.agent(HOSPITAL)?;
    wait::within(LOOKED, "the hospital can confirm the new keys", async || {
        let confirmed = hospital.attempt(&["keys", "confirm", SHELTER_HU, &fingerprint]).await.ok()?;
        confirmed.status.success().then_some(())
    })
    .await?;
    for _ in 0..2 {
        knows(federation.agent(HOSPITAL)?, SHELTER_HU).await?;
        federation.send_one(HOSPITAL, message::small_referral(SHELTER_HU)).await?;
        // Neither is anything of before in the database.
        let be = &mut federation.realm_mut("be")?.gateway;
        be.kill()?;
        be.start().await?;
        federation.links().await?;
    }
    federation.sound().await
}

/// The other domain's senders wait for the words about what it sent before.
#[tokio::test]
async fn what_was_said_while_a_domain_was_removed_reaches_it_anew() -> Result<()> {
    let mut federation = two().await?;
    federation.realm_mut("hu")?.agent_mut(SHELTER_HU)?.stop().await?;
    let sent = federation.send(SHELTER, message::small_referral(SHELTER_HU)).await?;
    let id = sent.first().context("no referral was made")?.clone();
    let (be, hu) = (&federation.realm("be")?.gateway, &federation.realm("hu")?.gateway);
    wait::until("hu has it", async || (waiting_for(be, "hu").await.ok()? == (0, 1)).then_some(())).await?;
    hu.command(&["peer", "remove", "be"]).await?;
    federation.realm_mut("hu")?.agent_mut(SHELTER_HU)?.start().await?;
    call::received(federation.agent(SHELTER_HU)?, &id).await?;
    // A sweep and more.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let (be, hu) = (&federation.realm("be")?.gateway, &federation.realm("hu")?.gateway);
    hu.accept(&be.invite().await?).await?;
    call::referral_in(federation.agent(SHELTER)?, &id, State::Received).await.map(drop)
}

/// The domain `hu`, running.
async fn domain(agencies: &[&str]) -> Result<Realm> {
    let mut realm = Realm::prepare_domain(HU, &[("scheme/test.cedar", policies::OPEN)]).await?;
    realm.gateway.start().await?;
    realm.join(agencies).await?;
    Ok(realm)
}

#[tokio::test]
async fn a_suspended_domain_s_queue_is_kept() -> Result<()> {
    let mut federation = two().await?;
    let be = &federation.realm("be")?.gateway;
    be.command(&["peer", "suspend", "hu"]).await?;
    wait::within(CUT, "nothing is linked any more", async || {
        let shown = be.peer("hu").await.ok()?;
        let unlinked = ["linked", "linked_from"].iter().all(|field| shown.get(*field) == Some(&false.into()));
        (unlinked && shown.get("state")?.as_str()? == "suspended").then_some(())
    })
    .await?;
    ensure!(!greets(be, &federation.realm("hu")?.gateway).await?, "a suspended domain is greeted");

    // In both directions: each side keeps what it has for the other.
    let (shelter, abroad) = (federation.agent(SHELTER)?, federation.agent(SHELTER_HU)?);
    let there = federation.send(SHELTER, message::small_referral(SHELTER_HU)).await?;
    let back = federation.send(SHELTER_HU, message::small_referral(SHELTER)).await?;
    let (there, back) = (there.first().context("nothing was sent")?, back.first().context("nor back")?);
    for (agent, id, domain) in [(shelter, there, "be"), (abroad, back, "hu")] {
        let seen = call::referral_in(agent, id, State::Requested).await?;
        assert_eq!(seen.at, domain);
    }
    wait::until("the queue is counted", async || {
        let queued = be.peer("hu").await.ok()?.get("queued").and_then(number)?;
        let metrics = http::request(be.metrics(), "GET", "/metrics", &[], &[]).await.ok()?.text();
        let counted = metrics.contains(r#"liaison_gateway_peer_queued{peer="hu"} 1"#)
            && metrics.contains(r#"liaison_gateway_peer_linked{peer="hu"} 0"#);
        (queued == 1 && counted).then_some(())
    })
    .await?;

    // Neither the state nor the queue is forgotten.
    let be = &mut federation.realm_mut("be")?.gateway;
    be.kill()?;
    be.start().await?;
    assert_eq!(be.peer("hu").await?.get("state").and_then(Value::as_str), Some("suspended"));
    be.command(&["peer", "resume", "hu"]).await?;
    federation.links().await?;
    call::received(federation.agent(SHELTER_HU)?, there).await?;
    call::received(federation.agent(SHELTER)?, back).await?;
    for (agency, id) in [(SHELTER, there), (SHELTER_HU, back)] {
        call::referral_in(federation.agent(agency)?, id, State::Received).await?;
    }
    federation.sound().await
}

/// Waits until the shelter's referral is refused for the peering's end.
async fn names_the_domain(federation: &Federation, id: &str) -> Result<()> {
    let seen = call::referral_in(federation.agent(SHELTER)?, id, State::Refused).await?;
    let refusal = seen.refusal.context("no refusal is told")?;
    assert_eq!(refusal.code(), ErrorCode::UnknownDomain);
    assert!(refusal.message.split(' ').any(|word| word == "hu"), "{refusal} names no domain");
    Ok(())
}

/// Whether a gateway takes a connection with another one's certificate.
async fn greets(gateway: &Gateway, other: &Gateway) -> Result<bool> {
    let name = format!("spiffe://{}/gateway", other.domain);
    let identity = Claim::genuine(&name).by_authority_of(other)?;
    let trust = insider::trust(gateway)?;
    match insider::connect(gateway.federation(), &trust, Some(&identity)).await {
        Ok(_) => Ok(true),
        Err(TlsError::Ours(_) | TlsError::Closed) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

/// A 64-bit number is text in the protobuf JSON mapping; either is taken.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}
