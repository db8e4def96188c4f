//! Nobody seals to a key that was not published for all to see, nobody's chain of keys is replaced unseen, and whoever
//! publishes keys in another's name is caught by its owner.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use liaison_demo::{Agent, http, wait};
use liaison_proto::{
    case::v1::{LogAlarm, log_alarm::Code as Alarm},
    message::v1::{error_code::Code as ErrorCode, referral_state::Code as State},
};
use liaison_tests::{
    Federation, Realm, call,
    federation::{Setup, knows},
    message,
    names::{HOSPITAL, SHELTER, SHELTER_HU},
    operator, policies,
    realm::{BE, HU},
    receipts,
};
use serde_json::Value;

/// Agents look at the log when they connect and once a minute.
const LOOKED: Duration = Duration::from_secs(100);

async fn send(from: &Agent, to: &str) -> Result<String> {
    call::send(from, message::small_referral(to)).await
}

/// Waits until an agency has raised an alarm of this kind.
async fn alarm(agent: &Agent, kind: Alarm) -> Result<LogAlarm> {
    wait::within(LOOKED, &format!("{} raises {}", agent.agency, kind.as_str_name()), async || {
        receipts::log(agent).await.ok()?.alarms.into_iter().find(|alarm| alarm.kind() == kind)
    })
    .await
}

/// What an agent says of an agency's keys.
async fn keys(agent: &Agent, agency: &str) -> Result<Value> {
    let keys: Value = serde_json::from_str(&agent.command(&["keys", "--json"]).await?)?;
    let of_it = keys.as_array().context("no list")?.iter().find(|keys| keys["agency"] == agency);
    of_it.cloned().with_context(|| format!("nothing of {agency} in {keys}"))
}

/// Waits until an agency knows that the log holds keys of another which do not go on from one another.
async fn broken(agent: &Agent, agency: &str) -> Result<Value> {
    wait::within(
        LOOKED,
        &format!("{} knows that the keys of {agency} are broken", agent.agency),
        async || keys(agent, agency).await.ok().filter(|keys| keys["state"] == "broken"),
    )
    .await
}

/// Waits until a referral tells that its recipient's keys are for a person to look at.
async fn waits_for_person(agent: &Agent, id: &str) -> Result<()> {
    wait::until("the referral says why it waits", async || {
        let referral = call::referral(agent, id).await.ok()?;
        let code = referral.refusal.as_ref()?.code();
        (referral.state() == State::Submitted && code == ErrorCode::KeyChainBroken).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_key_that_stands_in_the_directory_alone_is_not_sealed_to() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    realm.agent_mut(SHELTER)?.stop().await?;
    realm.gateway.stop().await?;
    operator::list(&realm.gateway, &operator::forged(SHELTER)?).await?;
    realm.gateway.start().await?;
    let hospital = realm.agent(HOSPITAL)?;
    hospital.connected().await?;

    let id = send(hospital, SHELTER).await?;
    let raised = alarm(hospital, Alarm::UnloggedKey).await?;
    ensure!(raised.detail.contains(SHELTER), "{}", raised.detail);
    waits_for_person(hospital, &id).await?;
    ensure!(
        operator::accepted(&realm.gateway).await? == 0,
        "it was sealed to a key that nobody saw published"
    );
    let doctor = hospital.attempt(&["doctor"]).await?;
    ensure!(!doctor.status.success(), "the doctor finds nothing");
    Ok(())
}

#[tokio::test]
async fn a_key_that_was_published_in_an_agency_s_name_is_seen_by_its_owner() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL]).await?;
    let mut shelter = Agent::enrol(&realm.gateway, realm.folder(), SHELTER).await?;
    realm.gateway.stop().await?;
    let forged = operator::forged(SHELTER)?;
    operator::list(&realm.gateway, &forged).await?;
    operator::log(&realm.gateway, &forged).await?;
    realm.gateway.start().await?;
    let hospital = realm.agent(HOSPITAL)?;
    hospital.connected().await?;
    // Nobody but the owner can know at first sight.
    let id = send(hospital, SHELTER).await?;
    call::referral_in(hospital, &id, State::Requested).await?;

    shelter.start().await?;
    let raised = alarm(&shelter, Alarm::ForeignKey).await?;
    ensure!(raised.detail.contains(&forged.id.to_string()), "{}", raised.detail);
    let status = shelter.attempt(&["status"]).await?;
    ensure!(!status.status.success() && String::from_utf8_lossy(&status.stdout).contains("foreign_key"));
    ensure!(call::received_ids(&shelter).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_key_that_is_logged_beside_an_agency_s_own_alarms_it_and_stops_its_correspondents() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    realm.gateway.stop().await?;
    let forged = operator::forged(SHELTER)?;
    operator::log(&realm.gateway, &forged).await?;
    realm.gateway.start().await?;
    let (hospital, shelter) = (realm.agent(HOSPITAL)?, realm.agent(SHELTER)?);
    let raised = alarm(shelter, Alarm::ForeignKey).await?;
    ensure!(raised.detail.contains(&forged.id.to_string()), "{}", raised.detail);
    // The hospital has not seen either before, and can't know which is the shelter's.
    let own = broken(hospital, SHELTER).await?;
    ensure!(own["others"] == serde_json::json!([forged.id.to_string()]), "{own}");
    let refused = call::case(hospital)?.send_referral(message::small_referral(SHELTER)).await;
    ensure!(call::refused(refused) == Some(ErrorCode::KeyChainBroken));
    // By the fingerprint that the shelter reads out, it goes on.
    let fingerprint = own["fingerprint"].as_str().context("no fingerprint")?;
    hospital.command(&["keys", "confirm", SHELTER, fingerprint]).await?;
    let id = send(hospital, SHELTER).await?;
    call::received(shelter, &id).await?;
    Ok(())
}

#[tokio::test]
async fn a_broken_chain_waits_until_a_person_confirms_its_fingerprint() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let id = send(realm.agent(HOSPITAL)?, SHELTER).await?;
    call::received(realm.agent(SHELTER)?, &id).await?;
    realm.agent_mut(SHELTER)?.stop().await?;
    realm.gateway.stop().await?;
    // What it has looked up lately, it does not look up again.
    let hospital = realm.agent_mut(HOSPITAL)?;
    hospital.stop().await?;
    hospital.start().await?;
    let waiting = send(hospital, SHELTER).await?;
    let forged = operator::forged(SHELTER)?;
    operator::list(&realm.gateway, &forged).await?;
    operator::log(&realm.gateway, &forged).await?;
    realm.gateway.start().await?;

    let hospital = realm.agent(HOSPITAL)?;
    waits_for_person(hospital, &waiting).await?;
    let refused = call::case(hospital)?.send_referral(message::small_referral(SHELTER)).await;
    ensure!(call::refused(refused) == Some(ErrorCode::KeyChainBroken));
    let of_shelter = broken(hospital, SHELTER).await?;
    ensure!(of_shelter["others"] == serde_json::json!([forged.id.to_string()]), "{of_shelter}");

    let fingerprint = forged.id.to_string();
    let other = operator::forged(SHELTER)?.id.to_string();
    for wrong in [other.as_str(), &fingerprint[..62], "no digits"] {
        let confirmed = hospital.attempt(&["keys", "confirm", SHELTER, wrong]).await?;
        ensure!(!confirmed.status.success(), "{wrong} is taken");
    }
    let own = operator::logged_of(&realm.gateway, HOSPITAL).await?;
    let own = own.first().context("the hospital is not in the log")?.id.to_string();
    ensure!(
        !hospital.attempt(&["keys", "confirm", SHELTER, &own]).await?.status.success(),
        "another agency's"
    );
    waits_for_person(hospital, &waiting).await?;
    ensure!(operator::accepted(&realm.gateway).await? == 1, "it went before a person confirmed");

    // As people read it out.
    let (one, two) = fingerprint.split_at(32);
    hospital.command(&["keys", "confirm", SHELTER, one, two]).await?;
    let gone = call::referral_in(hospital, &waiting, State::Requested).await?;
    ensure!(gone.refusal.is_none(), "{:?}", gone.refusal);
    ensure!(keys(hospital, SHELTER).await?["state"] == "pinned");
    Ok(())
}

/// A domain whose hospital has replayed the log of keys, stopped, with the entries of that log.
async fn replayed() -> Result<(Realm, Vec<Vec<u8>>)> {
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    // It looks at every key before it is used.
    let id = send(realm.agent(HOSPITAL)?, SHELTER).await?;
    call::received(realm.agent(SHELTER)?, &id).await?;
    ensure!(keys(realm.agent(HOSPITAL)?, HOSPITAL).await?.get("state") == Some(&"seen".into()));
    realm.gateway.stop().await?;
    let entries = operator::logged(&realm.gateway).await?;
    Ok((realm, entries))
}

#[tokio::test]
async fn a_log_of_keys_that_is_rewound_is_an_alarm() -> Result<()> {
    let (mut realm, mut entries) = replayed().await?;
    entries.pop();
    operator::rewrite(&realm.gateway, &entries).await?;
    realm.gateway.start().await?;
    let raised = alarm(realm.agent(HOSPITAL)?, Alarm::Inconsistent).await?;
    // By the head that it holds itself, or that the shelter does.
    ensure!(["shrunk", "older copy"].iter().any(|why| raised.detail.contains(why)), "{}", raised.detail);
    // The guard file was removed: only the agent has shown the head, and that is enough.
    let ended = realm.gateway.ended().await?;
    ensure!(ended.contains("an agency shows a head"), "{ended}");
    let refused = realm.gateway.start().await.err().context("it starts again")?.to_string();
    ensure!(refused.contains("be/keys/1"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_log_of_keys_that_is_rewritten_is_an_alarm_and_nothing_in_it_counts() -> Result<()> {
    let (mut realm, mut entries) = replayed().await?;
    let forged = operator::forged("be/new-agency")?;
    *entries.first_mut().context("no entry")? = prost::Message::encode_to_vec(&forged.signed);
    entries.push(prost::Message::encode_to_vec(&operator::forged("be/newer-agency")?.signed));
    operator::rewrite(&realm.gateway, &entries).await?;
    realm.gateway.start().await?;
    let hospital = realm.agent(HOSPITAL)?;
    alarm(hospital, Alarm::Inconsistent).await?;
    for agency in ["be/new-agency", "be/newer-agency"] {
        ensure!(keys(hospital, agency).await.is_err(), "{agency} counts");
    }
    Ok(())
}

#[tokio::test]
async fn a_new_log_of_keys_is_replayed_and_compared_with_what_was_pinned() -> Result<()> {
    let (mut realm, mut entries) = replayed().await?;
    // The shelter's record is exchanged, as nobody could in the log before.
    let forged = operator::forged(SHELTER)?;
    let of_shelter = operator::logged_of(&realm.gateway, SHELTER).await?;
    let old = of_shelter.first().context("the shelter has no record")?;
    let old = prost::Message::encode_to_vec(&old.signed);
    *entries.iter_mut().find(|entry| **entry == old).context("no entry")? =
        prost::Message::encode_to_vec(&forged.signed);
    operator::open_keys(&realm.gateway, &entries).await?;
    operator::list(&realm.gateway, &forged).await?;
    realm.agent_mut(SHELTER)?.stop().await?;
    realm.gateway.start().await?;
    let hospital = realm.agent(HOSPITAL)?;
    let raised = alarm(hospital, Alarm::NewLog).await?;
    ensure!(raised.detail.contains("be/keys/1"), "{}", raised.detail);
    let refused = send(hospital, SHELTER).await.err().context("it seals to the exchanged keys")?.to_string();
    ensure!(refused.contains("does not follow the one before it"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn keys_of_other_domains_are_logged_once_before_agents_have_them() -> Result<()> {
    let mut federation = Federation::linked(&Setup {
        domains: &[BE, HU],
        scheme: policies::OPEN,
        layers: &[],
        agencies: &[HOSPITAL, SHELTER_HU],
    })
    .await?;
    knows(federation.realm("be")?.agent(HOSPITAL)?, SHELTER_HU).await?;
    let id = send(federation.realm("be")?.agent(HOSPITAL)?, SHELTER_HU).await?;
    call::received(federation.realm("hu")?.agent(SHELTER_HU)?, &id).await?;
    // In another run, a gateway tells all of its agencies anew.
    let hu = &mut federation.realm_mut("hu")?.gateway;
    hu.stop().await?;
    hu.start().await?;
    hu.linked("be").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (domain, agency) in [("be", SHELTER_HU), ("hu", HOSPITAL)] {
        let count = operator::logged_of(&federation.realm(domain)?.gateway, agency).await?.len();
        ensure!(count == 1, "the log of {domain} holds {count} records of {agency}");
    }
    Ok(())
}

#[tokio::test]
async fn keys_that_a_peer_publishes_in_the_name_of_an_agency_of_this_domain_are_an_alarm() -> Result<()> {
    let mut federation = Federation::linked(&Setup {
        domains: &[BE, HU],
        scheme: policies::OPEN,
        layers: &[],
        agencies: &[HOSPITAL],
    })
    .await?;
    let forged = operator::forged(HOSPITAL)?;
    let hu = &mut federation.realm_mut("hu")?.gateway;
    hu.stop().await?;
    operator::log(hu, &forged).await?;
    // It signs the new head some seconds after its start, and shows its heads when a link begins.
    hu.start().await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    hu.stop().await?;
    hu.start().await?;
    let be = &federation.realm("be")?.gateway;
    let count = "liaison_gateway_foreign_keys_total{peer=\"hu\"} 1";
    wait::within(LOOKED, "the gateway of the agency raises the alarm", async || {
        let metrics = http::request(be.metrics(), "GET", "/metrics", &[], &[]).await.ok()?.text();
        metrics.lines().any(|line| line == count).then_some(())
    })
    .await?;
    let told = federation.realm("be")?.gateway_log();
    ensure!(
        told.contains(&forged.id.to_string()) && told.contains("in the agency's name"),
        "the log does not tell"
    );
    ensure!(operator::evidence(be).await? == [prost::Message::encode_to_vec(&forged.signed)]);
    let doctor = be.attempt(&["doctor", "--json"]).await?;
    ensure!(!doctor.status.success(), "doctor finds nothing");
    let doctor: Value = serde_json::from_slice(&doctor.stdout)?;
    let checks = doctor["checks"].as_array().context("no checks")?;
    let told = checks.iter().find(|check| check["check"] == "keys abroad").context("doctor does not tell")?;
    let found = told.to_string();
    ensure!(
        found.contains(HOSPITAL) && found.contains("hu/keys/1") && found.contains(&forged.id.to_string())
    );
    Ok(())
}
