//! Messages cross between two domains while one of them changes its CA and its gateway dies: whatever was
//! accepted arrives abroad, once, and its sender hears of it.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use liaison_demo::{Agent, wait};
use liaison_proto::{
    case::v1::GetAlertRequest,
    message::v1::{Audience, referral_state::Code as State, status::Code as Exercise},
};
use liaison_tests::{
    Federation, Realm,
    ca::{self, told},
    call,
    federation::Setup,
    message,
    names::{HEALTH_HU, HOSPITAL, POLICE_HU, SHELTER_HU},
    policies,
    realm::{BE, HU},
    seed,
    traffic::{all_arrived_once, answered, keyed, under_traffic_to, while_sending},
};
use rand::RngExt;
use serde_json::Value;

const KILLS: u32 = 20;
const ABROAD: [&str; 3] = [SHELTER_HU, HEALTH_HU, POLICE_HU];

#[tokio::test]
async fn the_ca_changes_while_referrals_cross_and_its_gateway_dies_in_every_stage() -> Result<()> {
    let mut be = Realm::prepare(policies::OPEN).await?;
    be.gateway.configure("[limits]\ncertificate_seconds = 4")?;
    be.gateway.start().await?;
    be.join(&[HOSPITAL]).await?;
    let mut hu = Realm::prepare_domain(HU, &[("scheme/test.cedar", policies::OPEN)]).await?;
    hu.gateway.start().await?;
    hu.join(&[SHELTER_HU]).await?;
    let mut federation = Federation::of(vec![be, hu]).await?;
    federation.acquainted().await?;

    let out = call::case(federation.agent(HOSPITAL)?)?;
    let back = call::case(federation.agent(SHELTER_HU)?)?;
    let change = change_ca(&mut federation);
    let (sent, (returned, ())) =
        under_traffic_to(SHELTER_HU, out, under_traffic_to(HOSPITAL, back, change)).await?;
    let (hospital, shelter) = (federation.agent(HOSPITAL)?, federation.agent(SHELTER_HU)?);
    all_arrived_once(hospital, shelter, &sent).await?;
    all_arrived_once(shelter, hospital, &returned).await?;
    federation.links().await?;
    no_violations(&federation).await
}

/// Changes the CA of `be`, whose gateway dies once after every step.
async fn change_ca(federation: &mut Federation) -> Result<()> {
    let former = told(&ca::step(&federation.realm("be")?.gateway, "show").await?, "issuing")?;
    for (step, roots) in [("prepare", 2), ("switch", 2), ("retire", 1)] {
        let be = &mut federation.realm_mut("be")?.gateway;
        ca::when_ready(be, step).await?;
        be.kill()?;
        be.start().await?;
        // Both have made new links, so each of them believes what the other one shows now.
        federation.links().await?;
        let hu = &federation.realm("hu")?.gateway;
        wait::until(&format!("hu knows what be believes after `{step}`"), async || {
            (hu.peer("be").await.ok()?.get("roots")? == roots).then_some(())
        })
        .await?;
    }
    let be = &federation.realm("be")?.gateway;
    let shown = ca::step(be, "show").await?;
    ensure!(told(&shown, "issuing")? != former && shown.get("other") == Some(&Value::Null), "{shown}");
    // Past the life of every certificate of the former CA.
    ca::renewed(be, HOSPITAL).await
}

#[tokio::test]
async fn alerts_to_several_abroad_arrive_once_however_often_their_gateway_dies() -> Result<()> {
    let mut random = seed::generator("crossing kills")?;
    let agencies = [&[HOSPITAL], &ABROAD[..]].concat();
    let setup = Setup { domains: &[BE, HU], scheme: policies::OPEN, layers: &[], agencies: &agencies };
    let mut federation = Federation::start(&setup).await?;
    let mut case = call::case(federation.agent(HOSPITAL)?)?;
    let audience = Audience { agencies: ABROAD.map(str::to_owned).to_vec(), ..Audience::default() };
    let send = async |number| {
        let content = message::pattern_alert(audience.clone());
        let key = format!("alert-{number}");
        let answer = answered(async || case.send_alert(keyed(&content, &key)?).await).await?;
        Ok(answer.alert.context("no alert was made")?.id)
    };
    let disturb = async {
        for _ in 0..KILLS {
            // Half of the time while it drains to the peer, half of the time while it finds back to it.
            if random.random() {
                federation.links().await?;
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(0..600))).await;
            let be = &mut federation.realm_mut("be")?.gateway;
            be.kill()?;
            be.start().await?;
        }
        federation.links().await
    };
    let (sent, ()) = while_sending(send, disturb).await?;
    no_violations(&federation).await?;
    println!("{} alerts were sent", sent.len());
    for agency in ABROAD {
        every_alert_is_there_once(federation.agent(agency)?, &sent).await?;
    }
    let mut case = call::case(federation.agent(HOSPITAL)?)?;
    for id in &sent {
        wait::until(&format!("the sender sees alert {id} received by all"), async || {
            let seen = case.get_alert(GetAlertRequest { id: id.clone() }).await.ok()?.into_inner();
            let received = seen.deliveries.iter().filter(|one| one.state() == State::Received);
            (received.count() == ABROAD.len()).then_some(())
        })
        .await?;
    }
    no_violations(&federation).await
}

/// Waits until everything sent is at an agency, and checks that it is there once and nothing else is.
async fn every_alert_is_there_once(agent: &Agent, sent: &BTreeSet<String>) -> Result<()> {
    let actual = Exercise::Actual.into();
    wait::until(&format!("every alert is at {}", agent.agency), async || {
        let there: BTreeSet<String> =
            call::received_alert_ids(agent, actual).await.ok()?.into_iter().collect();
        sent.is_subset(&there).then_some(())
    })
    .await?;
    let mut there = call::received_alert_ids(agent, actual).await?;
    there.sort();
    ensure!(there.iter().eq(sent), "{}: {} are there of {} sent", agent.agency, there.len(), sent.len());
    Ok(())
}

/// Checks that no side found the other one breaking rules. A gateway that died counts from nothing, and its log
/// still tells of all.
async fn no_violations(federation: &Federation) -> Result<()> {
    for (one, other) in [("be", "hu"), ("hu", "be")] {
        let realm = federation.realm(one)?;
        let told: Vec<String> = realm
            .gateway_log()
            .lines()
            .filter(|line| line.contains("a peer keeps to no rule"))
            .take(3)
            .map(str::to_owned)
            .collect();
        ensure!(told.is_empty(), "{one} told of {other}: {told:#?}");
        let shown = realm.gateway.peer(other).await?;
        ensure!(shown.get("violations").and_then(Value::as_u64) == Some(0), "{shown}");
    }
    Ok(())
}
