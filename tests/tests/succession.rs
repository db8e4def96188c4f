//! A log that takes the place of another one: no log is ever signed twice, what stands in the one before is read as well,
//! and whoever saw more of that one than is named finds out.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result, ensure};
use http_body_util::BodyExt;
use liaison_demo::{Gateway, http, wait};
use liaison_proto::{
    case::v1::{LogAlarm, Receipt, log_alarm::Code as Alarm, receipt_event::Code as Event},
    exchange::v1::ListReceiptsRequest,
    message::v1::{error_code::Code as ErrorCode, referral_state::Code as State},
};
use liaison_tests::{
    Federation, Realm, call,
    evidence::sound,
    federation::Setup,
    insider::Insider,
    message,
    names::{HOSPITAL, POLICE, SHELTER, SHELTER_HU},
    policies,
    realm::{BE, HU},
    receipts,
    restored::{back_up, forget, guard, guarded, head, put_back, reopen},
};
use liaison_trust::log::{LogKey, Receipt as Proof};
use serde_json::Value;
use tonic::{body::Body, transport::Channel};
use tower::{Service, ServiceExt};

async fn json(gateway: &Gateway, arguments: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&gateway.command(&[&["--json"], arguments].concat()).await?)?)
}

/// Sends a referral that its recipient has, and waits until both have their receipts; so both have seen a head that holds
/// it.
async fn exchange(realm: &Realm, from: &str, to: &str) -> Result<String> {
    let sent = call::case(realm.agent(from)?)?.send_referral(message::small_referral(to)).await?.into_inner();
    let id = sent.referrals.first().context("no referral was made")?.id.clone();
    call::referral_in(realm.agent(from)?, &id, State::Received).await?;
    for agency in [from, to] {
        wait::until("all receipts are there", async || {
            (receipts::log(realm.agent(agency).ok()?).await.ok()?.due == 0).then_some(())
        })
        .await?;
    }
    Ok(id)
}

async fn alarms(realm: &Realm, agency: &str) -> Result<Vec<LogAlarm>> {
    let mut alarms = receipts::log(realm.agent(agency)?).await?.alarms;
    // Those of the log of keys are looked at elsewhere.
    alarms.retain(|alarm| alarm.detail.contains("/log/"));
    Ok(alarms)
}

/// Waits until an agency raised an alarm about a log.
async fn alarm_about(realm: &Realm, agency: &str, origin: &str) -> Result<LogAlarm> {
    wait::until(&format!("{agency} raises an alarm about {origin}"), async || {
        let about = |alarm: &LogAlarm| alarm.detail.starts_with(origin);
        alarms(realm, agency).await.ok()?.into_iter().find(about)
    })
    .await
}

#[tokio::test]
async fn two_restores_of_one_backup_open_two_logs() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER, POLICE]).await?;
    realm.gateway.stop().await?;
    back_up(&realm.gateway)?;
    realm.gateway.start().await?;
    for agency in [HOSPITAL, SHELTER, POLICE] {
        realm.agent(agency)?.connected().await?;
    }
    exchange(&realm, HOSPITAL, SHELTER).await?;
    exchange(&realm, POLICE, SHELTER).await?;
    let mut opened = Vec::new();
    // Who shows what was signed: the police know only of the first log, as long as they are not connected.
    realm.agent_mut(POLICE)?.stop().await?;
    for shown_by in [HOSPITAL, POLICE] {
        put_back(&mut realm.gateway)?;
        forget(&realm.gateway)?;
        for agency in [HOSPITAL, SHELTER, POLICE] {
            let agent = realm.agent_mut(agency)?;
            if agent.pid().is_some() {
                agent.stop().await?;
            }
        }
        realm.gateway.start().await?;
        realm.agent_mut(shown_by)?.start().await?;
        let ended = realm.gateway.ended().await?;
        ensure!(ended.contains("older copy"), "{ended}");
        opened.push(reopen(&mut realm.gateway).await?);
        realm.gateway.start().await?;
        if shown_by == HOSPITAL {
            realm.agent_mut(SHELTER)?.start().await?;
            for agency in [HOSPITAL, SHELTER] {
                realm.agent(agency)?.connected().await?;
            }
            exchange(&realm, HOSPITAL, SHELTER).await?;
        }
    }
    let [first, second] = opened.as_slice() else { anyhow::bail!("{opened:?}") };
    let number = |origin: &str| origin.strip_prefix("be/log/").and_then(|number| number.parse::<u32>().ok());
    ensure!(number(first).context("no number")? < number(second).context("no number")?, "{first} {second}");
    ensure!(number(first) > Some(1_600_000_000), "{first} is not named by the moment");
    // The hospital saw the first of the two, which nobody named when the second was opened.
    realm.agent_mut(HOSPITAL)?.start().await?;
    let alarm = alarm_about(&realm, HOSPITAL, second).await?;
    ensure!(alarm.kind() == Alarm::Inconsistent && alarm.detail.contains("cut off"), "{}", alarm.detail);
    // To the police all is named that they saw.
    let alarm = alarm_about(&realm, POLICE, second).await?;
    ensure!(alarm.kind() == Alarm::NewLog, "{}", alarm.detail);
    sound(&realm.gateway).await?;
    Ok(())
}

/// The sum of a metric over the series that hold this.
async fn metric(gateway: &Gateway, name: &str, label: &str) -> Result<u64> {
    let metrics = http::request(gateway.metrics(), "GET", "/metrics", &[], &[]).await?.text();
    let of_it = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
    of_it.map(|line| Ok(line.rsplit(' ').next().context("no count")?.parse::<f64>()? as u64)).sum()
}

/// Restores a domain of which its own agencies and its peer have seen a head; opens a new log that names the head which was
/// the highest before the last referral, or the highest of all.
async fn reopened(names_all: bool) -> Result<(Federation, String)> {
    let mut federation = Federation::start(&Setup {
        domains: &[BE, HU],
        scheme: policies::OPEN,
        layers: &[],
        agencies: &[HOSPITAL, SHELTER, SHELTER_HU],
    })
    .await?;
    let be = federation.realm_mut("be")?;
    be.gateway.stop().await?;
    back_up(&be.gateway)?;
    be.gateway.start().await?;
    for agency in [HOSPITAL, SHELTER] {
        be.agent(agency)?.connected().await?;
    }
    exchange(be, HOSPITAL, SHELTER).await?;
    guarded(&be.gateway, 0).await?;
    let low = fs::read(guard(&be.gateway))?;
    exchange(be, HOSPITAL, SHELTER).await?;
    guarded(&be.gateway, 0).await?;
    // Heads are shown when a link begins.
    be.gateway.stop().await?;
    be.gateway.start().await?;
    wait::until("the peer has cosigned the heads", async || {
        let cosigned =
            metric(&be.gateway, "liaison_gateway_log_cosignatures_total", "cosigned").await.ok()?;
        (cosigned >= 2).then_some(())
    })
    .await?;
    put_back(&mut be.gateway)?;
    if !names_all {
        fs::write(guard(&be.gateway), low)?;
    }
    let origin = reopen(&mut be.gateway).await?;
    be.gateway.start().await?;
    Ok((federation, origin))
}

#[tokio::test]
async fn a_log_that_does_not_name_what_others_saw_is_an_alarm() -> Result<()> {
    let (federation, origin) = reopened(false).await?;
    for agency in [HOSPITAL, SHELTER] {
        let alarm = alarm_about(federation.realm("be")?, agency, &origin).await?;
        ensure!(alarm.kind() == Alarm::Inconsistent && alarm.detail.contains("cut off"), "{}", alarm.detail);
    }
    let hu = federation.realm("hu")?;
    wait::until("the peer raises the conflict", async || {
        let count = metric(&hu.gateway, "liaison_gateway_log_conflicts_total", &origin).await.ok()?;
        (count > 0 && hu.gateway_log().contains("history was cut off")).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_log_that_names_what_others_saw_is_told_of_and_no_conflict() -> Result<()> {
    let (federation, origin) = reopened(true).await?;
    for agency in [HOSPITAL, SHELTER] {
        let alarm = alarm_about(federation.realm("be")?, agency, &origin).await?;
        ensure!(alarm.kind() == Alarm::NewLog, "{}", alarm.detail);
    }
    let hu = federation.realm("hu")?;
    wait::until("the peer has compared the log", async || {
        hu.gateway_log().contains("names what was seen of the one before it").then_some(())
    })
    .await?;
    let conflicts = metric(&hu.gateway, "liaison_gateway_log_conflicts_total", "be/").await?;
    ensure!(conflicts == 0, "{conflicts} conflicts");
    Ok(())
}

/// What a caller gets of a path.
async fn get(channel: &Channel, path: &str) -> Result<(u16, Vec<u8>)> {
    let request = ::http::Request::get(format!("http://gateway{path}")).body(Body::empty())?;
    let answer = channel.clone().ready().await?.call(request).await?;
    let status = answer.status().as_u16();
    Ok((status, answer.into_body().collect().await?.to_bytes().to_vec()))
}

#[tokio::test]
async fn what_stands_in_the_log_before_is_read_proven_and_receipted() -> Result<()> {
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let police = Insider::enrol(&realm.gateway, POLICE).await?;
    realm.agent_mut(SHELTER)?.stop().await?;
    let request = message::small_referral(SHELTER);
    let sent = call::case(realm.agent(HOSPITAL)?)?.send_referral(request).await?.into_inner();
    let id = sent.referrals.first().context("no referral was made")?.id.clone();
    call::referral_in(realm.agent(HOSPITAL)?, &id, State::Requested).await?;
    // Before it has asked for its receipt.
    realm.agent_mut(HOSPITAL)?.kill()?;
    wait::until("the acceptance is under a head", async || {
        let shown = json(&realm.gateway, &["log", "show", "--message", &id]).await.ok()?;
        (shown.pointer("/leaves/0/signed")? == &Value::Bool(true)).then_some(())
    })
    .await?;
    realm.gateway.stop().await?;
    back_up(&realm.gateway)?;
    let (_, size) = head(&realm.gateway, "be/log").await?;
    realm.gateway.start().await?;
    realm.gateway.command(&["agency", "suspend", POLICE]).await?;
    realm.gateway.command(&["agency", "resume", POLICE]).await?;
    guarded(&realm.gateway, size + 1).await?;
    put_back(&mut realm.gateway)?;
    let origin = reopen(&mut realm.gateway).await?;
    realm.gateway.start().await?;

    // The receipt of before, and those of what comes after.
    realm.agent_mut(HOSPITAL)?.start().await?;
    realm.agent_mut(SHELTER)?.start().await?;
    call::referral_in(realm.agent(HOSPITAL)?, &id, State::Received).await?;
    let expected = [Event::Accepted, Event::Acknowledged];
    let of_hospital = receipts::come(realm.agent(HOSPITAL)?, &id, &expected, receipts::IN_TIME).await?;
    let logs: Vec<&str> = of_hospital.iter().map(|receipt: &Receipt| receipt.log.as_str()).collect();
    ensure!(logs == ["be/log/1", origin.as_str()], "{logs:?}");
    for receipt in &of_hospital {
        let shown = json(&realm.gateway, &["log", "head", "--log", &receipt.log]).await?;
        let key: LogKey = shown.get("vkey").and_then(Value::as_str).context("no key")?.parse()?;
        Proof::parse(receipt.file.as_bytes())?.verify(&key)?;
    }

    // The tools: all logs where a message is looked for, one where it is named.
    let gateway = &realm.gateway;
    let logs_of = |shown: &Value| -> Option<BTreeSet<String>> {
        let leaves = shown.get("leaves")?.as_array()?;
        Some(leaves.iter().filter_map(|leaf| leaf.get("log")?.as_str().map(str::to_owned)).collect())
    };
    let both = BTreeSet::from(["be/log/1".to_owned(), origin.clone()]);
    ensure!(logs_of(&json(gateway, &["log", "show", "--message", &id]).await?) == Some(both.clone()));
    let first = json(gateway, &["log", "show", "--message", &id, "--log", "be/log/1"]).await?;
    ensure!(logs_of(&first) == Some(BTreeSet::from(["be/log/1".to_owned()])), "{first}");
    let newest = json(gateway, &["log", "show"]).await?;
    ensure!(newest.pointer("/leaves/0/event") == Some(&"opened".into()), "{newest}");
    ensure!(logs_of(&newest) == Some(BTreeSet::from([origin.clone()])), "{newest}");
    let told = json(gateway, &["log", "disclosures", &id]).await?;
    let disclosures = told.get("disclosures").and_then(Value::as_array).context("no disclosures")?;
    for one in disclosures {
        let leaves = one.get("leaves").context("no leaves")?.to_string();
        ensure!(both.iter().all(|log| leaves.contains(&format!("{log} "))), "{one}");
        ensure!(one.get("acknowledged_at").is_some_and(Value::is_string), "{one}");
    }
    ensure!(!disclosures.is_empty(), "{told}");
    let out = realm.folder().join("proofs");
    gateway.command(&["log", "prove", "--message", &id, "--out", &out.to_string_lossy()]).await?;
    ensure!(fs::read_dir(&out)?.count() == 3, "accepted before; handed over and acknowledged since");
    gateway.command(&["log", "prove", "0", "--log", "be/log/1"]).await?;
    let to = realm.folder().join("export");
    gateway.command(&["log", "export", &to.to_string_lossy()]).await?;
    for log in &both {
        ensure!(to.join(log).join("checkpoint").exists(), "{log} is not exported");
    }
    let nowhere = gateway.attempt(&["log", "head", "--log", "be/log/2"]).await?;
    let said = String::from_utf8_lossy(&nowhere.stderr);
    ensure!(nowhere.status.code() == Some(1) && said.contains(&origin), "{said}");

    // Members read the log before as well, and the record that opened the new one.
    let channel = police.channel().await?;
    ensure!(get(&channel, "/be/log/1/checkpoint").await?.0 == 200);
    ensure!(get(&channel, "/be/log/1/tile/0/000.p/1").await?.0 == 200);
    ensure!(get(&channel, "/be/log/1/opened").await?.0 == 404, "it took nothing's place");
    let (status, opened) = get(&channel, &format!("/{origin}/opened")).await?;
    ensure!(status == 200 && Proof::parse(&opened)?.index == 0, "{status}");
    let mut asked = police.exchange().await?;
    for log in [2, u32::MAX] {
        let request = ListReceiptsRequest { log, ..ListReceiptsRequest::default() };
        let refused = call::refused(asked.list_receipts(request).await);
        ensure!(refused == Some(ErrorCode::Malformed), "{log}: {refused:?}");
    }

    // What is erased in the log before is an act in the new one.
    let index = first.pointer("/leaves/0/index").context("no leaf")?.to_string();
    let erased = json(gateway, &["log", "erase", "--log", "be/log/1", &index]).await?;
    ensure!(erased.get("erased").and_then(Value::as_array).map(Vec::len) == Some(1), "{erased}");
    let shown = json(gateway, &["log", "show", "--message", &id, "--log", "be/log/1"]).await?;
    ensure!(shown.pointer("/leaves/0/event") == Some(&"erased".into()), "{shown}");
    sound(gateway).await?;
    Ok(())
}
