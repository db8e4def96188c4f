//! Several gateways of one domain on one database: whatever one accepts another delivers, what one changes the others
//! follow, and nothing is lost or comes twice whichever dies.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use liaison_demo::{Gateway, wait};
use liaison_proto::{
    case::v1::{PreviewRequest, preview_request},
    message::v1::{error_code::Code as ErrorCode, referral_state::Code as State, verdict::Code as Verdict},
};
use liaison_tests::{
    Federation, Realm,
    balancer::Balancer,
    call, evidence,
    insider::{self, Insider},
    message,
    names::{HOSPITAL, POLICE, SHELTER, SHELTER_HU},
    policies,
    postgres::Server,
    realm::{BE, HU},
    receipts, seed,
    traffic::{every_one_arrived_once, under_traffic},
};
use liaison_trust::tls::{Fault, TlsError};
use rand::RngExt;
use serde_json::Value;
use tempfile::TempDir;

const KILLS: u32 = 8;

/// In which a party that one of the gateways cuts off has to be cut off by the others.
const CUT: Duration = Duration::from_secs(5);

/// Longer than a gateway takes to look for itself at what the others do, and far shorter than for ever.
const LOOK: Duration = Duration::from_secs(30);

/// Longer than a gateway waits for its database.
const AWAY: Duration = Duration::from_secs(8);

/// A domain with two gateways, of which the realm's own is one.
struct Two {
    realm: Realm,
    second: Gateway,
    server: Server,
    _folder: TempDir,
}

impl Two {
    async fn start() -> Result<Self> {
        let server = Server::start().await?;
        let database = server.database("be").await?;
        Self::on(server, &database).await
    }

    async fn on(server: Server, database: &str) -> Result<Self> {
        let scheme = [("scheme/test.cedar", policies::OPEN)];
        let mut realm = Realm::prepare_with(BE, &scheme, &["--database", database]).await?;
        let folder = tempfile::tempdir()?;
        let mut second = realm.gateway.copied(folder.path())?;
        realm.gateway.start().await?;
        second.start().await?;
        Ok(Self { realm, second, server, _folder: folder })
    }

    /// Has the agent of an agency of the realm reach the second gateway alone.
    async fn move_to_second(&mut self, agency: &str) -> Result<()> {
        let at = self.second.exchange();
        let agent = self.realm.agent_mut(agency)?;
        agent.stop().await?;
        agent.move_to(at)?;
        agent.start().await?;
        agent.connected().await
    }
}

async fn leads(gateway: &Gateway) -> Result<bool> {
    let metrics = liaison_demo::http::request(gateway.metrics(), "GET", "/metrics", &[], &[]).await?;
    let metrics = String::from_utf8(metrics.body)?;
    Ok(metrics.lines().any(|line| line == "liaison_gateway_leads 1"))
}

#[tokio::test]
async fn what_one_accepts_another_delivers() -> Result<()> {
    let mut two = Two::start().await?;
    two.realm.join(&[HOSPITAL, SHELTER]).await?;
    two.move_to_second(SHELTER).await?;
    ensure!(leads(&two.realm.gateway).await? && !leads(&two.second).await?, "not one of the two leads");
    let mut sent = BTreeSet::new();
    for _ in 0..3 {
        let content = message::small_referral(SHELTER);
        let id = call::send(two.realm.agent(HOSPITAL)?, content).await?;
        call::referral_in(two.realm.agent(HOSPITAL)?, &id, State::Received).await?;
        sent.insert(id);
    }
    // Both ends get receipts, each from its own gateway, of the one log.
    receipts::complete(two.realm.agent(HOSPITAL)?).await?;
    receipts::complete(two.realm.agent(SHELTER)?).await?;
    evidence::sound(&two.realm.gateway).await?;
    evidence::sound(&two.second).await?;

    // An agent that comes to another gateway goes on there, and its session with the first ends.
    let content = message::small_referral(SHELTER);
    two.realm.agent_mut(SHELTER)?.stop().await?;
    let waits = call::send(two.realm.agent(HOSPITAL)?, content).await?;
    call::referral_in(two.realm.agent(HOSPITAL)?, &waits, State::Requested).await?;
    let first = two.realm.gateway.exchange();
    let agent = two.realm.agent_mut(SHELTER)?;
    agent.move_to(first)?;
    agent.start().await?;
    call::referral_in(two.realm.agent(HOSPITAL)?, &waits, State::Received).await?;
    sent.insert(waits);
    let mut received = call::received_ids(two.realm.agent(SHELTER)?).await?;
    received.sort();
    ensure!(received == sent.into_iter().collect::<Vec<_>>(), "{received:?}");

    // The one that does not lead does as soon as the other has ended.
    two.realm.gateway.stop().await?;
    wait::until("the second gateway leads", async || leads(&two.second).await.ok()?.then_some(())).await?;
    two.second.stop().await
}

#[tokio::test]
async fn gateways_that_are_killed_again_and_again_lose_nothing() -> Result<()> {
    let mut random = seed::generator("replica kills")?;
    let mut two = Two::start().await?;
    let balancer = Balancer::start(vec![two.realm.gateway.exchange(), two.second.exchange()]).await?;
    two.realm.join(&[HOSPITAL, SHELTER]).await?;
    for agency in [HOSPITAL, SHELTER] {
        let agent = two.realm.agent_mut(agency)?;
        agent.stop().await?;
        agent.move_to(balancer.address())?;
        agent.start().await?;
    }
    let case = call::case(two.realm.agent(HOSPITAL)?)?;
    let sent = under_traffic(case, async {
        for kill in 0..KILLS {
            tokio::time::sleep(Duration::from_millis(random.random_range(200..1_500))).await;
            let gateway = if kill % 2 == 0 { &mut two.realm.gateway } else { &mut two.second };
            gateway.kill()?;
            tokio::time::sleep(Duration::from_millis(random.random_range(0..1_000))).await;
            gateway.start().await?;
        }
        // Both at once, and their server.
        two.realm.gateway.kill()?;
        two.second.kill()?;
        two.server.kill()?;
        two.server.run().await?;
        two.second.start().await?;
        two.realm.gateway.start().await
    })
    .await?;
    every_one_arrived_once(&two.realm, &sent).await?;
    evidence::tells_of_all(&two.second, &sent).await
}

#[tokio::test]
async fn what_one_changes_the_others_follow() -> Result<()> {
    let mut two = Two::start().await?;
    two.realm.join(&[HOSPITAL]).await?;
    two.move_to_second(HOSPITAL).await?;
    let mut shelter = Insider::enrol(&two.realm.gateway, SHELTER).await?;
    // It enrolled with the first, and is known at the second.
    let content = message::small_referral(SHELTER);
    let waits = call::send(two.realm.agent(HOSPITAL)?, content).await?;
    call::referral_in(two.realm.agent(HOSPITAL)?, &waits, State::Requested).await?;

    // A policy that is loaded at the first holds at the second, for whatever is sent once that is said.
    two.realm.load_scheme(&policies::closed_for(SHELTER)).await?;
    let id = call::send(two.realm.agent(HOSPITAL)?, message::small_referral(SHELTER)).await?;
    let seen = call::referral_in(two.realm.agent(HOSPITAL)?, &id, State::Refused).await?;
    let code = seen.refusal.map(|refusal| refusal.code());
    ensure!(code == Some(ErrorCode::ForbiddenByPolicy), "{code:?}");

    // Who is revoked at the first is cut off at the second.
    shelter.exchange = two.second.exchange();
    let mut live = shelter.session().await?;
    two.realm.gateway.command(&["agency", "revoke", SHELTER]).await?;
    tokio::time::timeout(CUT, live.ended()).await.context("the live session goes on")??;
    match insider::connect(two.second.exchange(), &shelter.trust, Some(&shelter.identity)).await {
        Err(TlsError::Ours(Fault::Revoked)) => {}
        Err(other) => return Err(other.into()),
        Ok(_) => anyhow::bail!("a revoked certificate is admitted"),
    }
    let revived = two.second.attempt(&["agency", "resume", SHELTER]).await?;
    ensure!(!revived.status.success(), "one gateway brings back whom another has revoked");
    // And stays so, whichever of them meets a database of before.
    wait::until("the second gateway writes down who was revoked", async || {
        let revoked = std::fs::read_to_string(two.second.data.join("revoked")).ok()?;
        revoked.contains(&format!("agency {SHELTER} ")).then_some(())
    })
    .await?;

    // The keys of the CA are in each one's folder: it is changed where one runs alone.
    let refused = two.realm.gateway.attempt(&["ca", "prepare"]).await?;
    ensure!(!refused.status.success(), "the CA is changed behind the back of the second gateway");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(said.contains("other gateways of this domain run"), "{said}");
    two.second.stop().await?;
    two.realm.gateway.command(&["ca", "prepare"]).await?;
    let refused = two.second.start().await.err().context("a gateway with other CAs starts")?.to_string();
    ensure!(refused.contains("other CAs"), "{refused}");
    for file in ["ca-next.pem", "ca-next.key"] {
        std::fs::copy(two.realm.gateway.data.join(file), two.second.data.join(file))?;
    }
    two.second.start().await?;

    // A command that needs the database alone is refused as long as any of them runs.
    two.realm.gateway.stop().await?;
    let reopened = two.realm.gateway.attempt(&["log", "reopen"]).await?;
    ensure!(!reopened.status.success(), "a log is opened anew while a gateway runs: {reopened:?}");
    let said = String::from_utf8_lossy(&reopened.stderr).into_owned();
    ensure!(said.contains("used by another gateway"), "{said}");
    two.second.stop().await
}

/// The server passes nothing on but that each gateway is there.
#[tokio::test]
async fn what_is_not_told_is_found_all_the_same() -> Result<()> {
    let server = Server::start().await?;
    let database = server.database("be").await?;
    let mut hinder = server.connect("be").await?;
    for hindrance in [
        "CREATE TABLE mute (is_mute BOOLEAN)",
        "CREATE FUNCTION public.pg_notify(channel TEXT, said TEXT) RETURNS void LANGUAGE sql AS $$ \
         SELECT pg_catalog.pg_notify(channel, said) \
         WHERE said LIKE '% alive' OR NOT EXISTS (SELECT 1 FROM public.mute) $$",
        "ALTER DATABASE be SET search_path = public, pg_catalog",
    ] {
        sqlx::query(hindrance).execute(&mut hinder).await?;
    }
    let mut two = Two::on(server, &database).await?;
    two.realm.join(&[HOSPITAL, SHELTER]).await?;
    two.move_to_second(SHELTER).await?;
    let mut police = Insider::enrol(&two.realm.gateway, POLICE).await?;
    police.exchange = two.second.exchange();
    let mut live = police.session().await?;
    sqlx::query("INSERT INTO mute VALUES (TRUE)").execute(&mut hinder).await?;

    let id = call::send(two.realm.agent(HOSPITAL)?, message::small_referral(SHELTER)).await?;
    call::referral_in(two.realm.agent(HOSPITAL)?, &id, State::Received).await?;
    // Nobody asks the second gateway anything meanwhile.
    two.realm.gateway.command(&["agency", "revoke", POLICE]).await?;
    tokio::time::timeout(LOOK, live.ended()).await.context("the live session goes on")??;
    Ok(())
}

#[tokio::test]
async fn gateways_hear_each_other_again_after_their_server_was_away() -> Result<()> {
    let mut two = Two::start().await?;
    two.realm.join(&[HOSPITAL]).await?;
    two.server.kill()?;
    tokio::time::sleep(AWAY).await;
    two.server.run().await?;
    for gateway in [&two.realm.gateway, &two.second] {
        wait::until("the gateway is ready again", async || {
            let answer =
                liaison_demo::http::request(gateway.metrics(), "GET", "/readyz", &[], &[]).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await?;
    }
    // Each hears of what the other does, and not by chance: the account is read every ten seconds, the state is not.
    two.realm.gateway.command(&["agency", "suspend", HOSPITAL]).await?;
    shows(&two.second, HOSPITAL, "suspended").await?;
    two.second.command(&["agency", "resume", HOSPITAL]).await?;
    shows(&two.realm.gateway, HOSPITAL, "active").await
}

async fn shows(gateway: &Gateway, agency: &str, state: &str) -> Result<()> {
    let what = format!("{agency} is {state} at the other gateway");
    wait::within(CUT, &what, async || {
        let shown = gateway.command(&["--json", "agency", "show", agency]).await.ok()?;
        let shown: Value = serde_json::from_str(&shown).ok()?;
        (shown.get("state")?.as_str()? == state).then_some(())
    })
    .await
}

/// Both files of revocations say that a peering has ended; the database is of before, and both start at once.
#[tokio::test]
async fn a_peering_that_ended_stays_so_whatever_database_is_met() -> Result<()> {
    let mut two = Two::start().await?;
    let mut hu = Realm::prepare_domain(HU, &[("scheme/test.cedar", policies::OPEN)]).await?;
    hu.gateway.start().await?;
    two.realm.gateway.peer_with(&hu.gateway).await?;
    two.realm.gateway.command(&["peer", "remove", "hu"]).await?;
    let ended = |gateway: &Gateway| {
        let revoked = std::fs::read_to_string(gateway.data.join("revoked")).unwrap_or_default();
        revoked.lines().any(|line| line.starts_with("peer hu removed"))
    };
    wait::within(CUT, "both files say that it ended", async || {
        (ended(&two.realm.gateway) && ended(&two.second)).then_some(())
    })
    .await?;
    let is_removed = async |gateway: &Gateway| {
        Ok::<_, anyhow::Error>(gateway.peer("hu").await?.get("state") == Some(&"removed".into()))
    };
    ensure!(is_removed(&two.second).await?, "the second gateway goes on with it");
    for _ in 0..3 {
        two.realm.gateway.stop().await?;
        two.second.stop().await?;
        let before = "UPDATE peer SET state = 1, removed = NULL";
        let mut database = two.server.connect("be").await?;
        sqlx::query(before).execute(&mut database).await?;
        let (first, second) = tokio::join!(two.realm.gateway.start(), two.second.start());
        first.and(second)?;
        ensure!(
            is_removed(&two.realm.gateway).await? && is_removed(&two.second).await?,
            "it is a peer again"
        );
    }
    // It begins anew by an administrator's word alone, and then for both.
    two.second.peer_with(&hu.gateway).await?;
    wait::within(CUT, "both have it as a peer", async || {
        let removed = [is_removed(&two.realm.gateway).await.ok()?, is_removed(&two.second).await.ok()?];
        (removed == [false, false]).then_some(())
    })
    .await?;
    two.realm.gateway.stop().await?;
    two.realm.gateway.start().await?;
    ensure!(!is_removed(&two.realm.gateway).await?, "what began anew ends with a start");
    Ok(())
}

#[tokio::test]
async fn a_gateway_that_is_frozen_holds_up_no_other() -> Result<()> {
    let mut two = Two::start().await?;
    two.realm.join(&[HOSPITAL, SHELTER]).await?;
    for agency in [HOSPITAL, SHELTER] {
        two.move_to_second(agency).await?;
    }
    let id = call::send(two.realm.agent(HOSPITAL)?, message::small_referral(SHELTER)).await?;
    call::referral_in(two.realm.agent(HOSPITAL)?, &id, State::Received).await?;
    // The one that leads stops wherever it is, and keeps its connections.
    two.realm.gateway.freeze().await?;
    let case = call::case(two.realm.agent(HOSPITAL)?)?;
    let sent = under_traffic(case, async {
        wait::until("the second gateway leads", async || leads(&two.second).await.ok()?.then_some(()))
            .await?;
        two.realm.gateway.thaw().await?;
        // It goes on beside the other, which keeps the lead.
        tokio::time::sleep(Duration::from_secs(2)).await;
        ensure!(leads(&two.second).await? && !leads(&two.realm.gateway).await?, "not one of the two leads");
        Ok(())
    })
    .await?;
    let sent = sent.into_iter().chain([id]).collect();
    every_one_arrived_once(&two.realm, &sent).await?;
    evidence::sound(&two.second).await.map(drop)
}

#[tokio::test]
async fn a_domain_with_two_gateways_is_a_peer_like_any_other() -> Result<()> {
    let mut two = Two::start().await?;
    two.realm.join(&[HOSPITAL, POLICE]).await?;
    two.move_to_second(POLICE).await?;
    let mut hu = Realm::prepare_domain(HU, &[("scheme/test.cedar", policies::OPEN)]).await?;
    hu.gateway.start().await?;
    hu.join(&[SHELTER_HU]).await?;
    let Two { realm, mut second, server: _server, _folder } = two;
    let mut federation = Federation::of(vec![realm, hu]).await?;
    federation.acquainted().await?;
    // The link is the first one's, which leads; the second asks the peer for what its agencies want to know.
    let preview = async || {
        let asked = preview_request::Message::Referral(message::small_referral(SHELTER_HU));
        let request = PreviewRequest { message: Some(asked) };
        let told = call::case(federation.agent(POLICE).ok()?).ok()?.preview(request).await.ok()?.into_inner();
        (told.recipients.first()?.verdict() == Verdict::Released).then_some(())
    };
    wait::until("the second gateway asks the peer", preview).await?;
    for from in [HOSPITAL, POLICE] {
        federation.send_one(from, message::small_referral(SHELTER_HU)).await?;
    }
    // The one that leads dies: the other makes the link.
    federation.realm_mut("be")?.gateway.kill()?;
    let id = federation.send_one(POLICE, message::small_referral(SHELTER_HU)).await?;
    receipts::complete(federation.agent(POLICE)?).await?;
    second.linked("hu").await?;
    // And back, to whichever gateway of this domain takes it.
    federation.realm_mut("be")?.gateway.start().await?;
    federation.realm("be")?.agent(HOSPITAL)?.connected().await?;
    for from in [HOSPITAL, POLICE] {
        federation.send_one(from, message::small_referral(SHELTER_HU)).await?;
    }
    ensure!(!id.is_empty());
    federation.sound().await?;
    second.stop().await
}
