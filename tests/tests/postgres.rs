//! A gateway on PostgreSQL: the road, and that what was accepted is kept whatever dies.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use liaison_demo::wait;
use liaison_proto::message::v1::referral_state::Code as State;
use liaison_tests::{
    Realm, call, evidence, message,
    names::{HOSPITAL, SHELTER},
    policies,
    postgres::Server,
    realm::BE,
    receipts, seed,
    traffic::{every_one_arrived_once, under_traffic},
};
use rand::RngExt;

const KILLS: u32 = 5;

async fn realm(server: &Server) -> Result<Realm> {
    let database = server.database("be").await?;
    let scheme = [("scheme/test.cedar", policies::OPEN)];
    let mut realm = Realm::prepare_with(BE, &scheme, &["--database", &database]).await?;
    realm.gateway.start().await?;
    realm.join(&[HOSPITAL, SHELTER]).await?;
    Ok(realm)
}

/// Nothing was lost or came twice, and the log tells of all of it.
async fn all_is_there(realm: &Realm, sent: &std::collections::BTreeSet<String>) -> Result<()> {
    every_one_arrived_once(realm, sent).await?;
    evidence::tells_of_all(&realm.gateway, sent).await
}

#[tokio::test]
async fn a_gateway_and_its_server_that_are_killed_lose_nothing() -> Result<()> {
    let mut random = seed::generator("server kills")?;
    let mut server = Server::start().await?;
    let mut realm = realm(&server).await?;
    let sent = under_traffic(call::case(realm.agent(HOSPITAL)?)?, async {
        for _ in 0..KILLS {
            tokio::time::sleep(Duration::from_millis(random.random_range(200..1_500))).await;
            realm.gateway.kill()?;
            realm.gateway.start().await?;
            tokio::time::sleep(Duration::from_millis(random.random_range(200..1_500))).await;
            server.kill()?;
            server.run().await?;
            // Where the server did not tell what became of a change it ends, and whoever watches over it starts it again.
            realm.gateway.kill()?;
            realm.gateway.start().await?;
        }
        Ok(())
    })
    .await?;
    all_is_there(&realm, &sent).await?;
    // No word of what was sent is in the data folder: everything is the server's.
    ensure!(!realm.gateway.data.join("liaison.db").exists(), "there is a file besides");
    Ok(())
}

#[tokio::test]
async fn what_was_accepted_is_with_the_standby_that_takes_over() -> Result<()> {
    let primary = Server::start().await?;
    let mut realm = realm(&primary).await?;
    let mut standby = primary.standby().await?;
    let doctor = async |realm: &Realm| {
        let told = realm.gateway.attempt(&["--json", "doctor"]).await?;
        let told: serde_json::Value = serde_json::from_slice(&told.stdout)?;
        let findings = told.get("checks").and_then(serde_json::Value::as_array).context("no checks")?;
        let of = |finding: &&serde_json::Value| finding.get("check") == Some(&"standby".into());
        Ok::<_, anyhow::Error>(findings.iter().find(of).cloned())
    };
    let warned = doctor(&realm).await?.context("an asynchronous standby is not told of")?;
    ensure!(warned.get("verdict") == Some(&"warn".into()), "{warned}");
    primary.set("synchronous_standby_names", "standby").await?;
    ensure!(doctor(&realm).await?.is_none());
    let mut primary = Some(primary);
    let sent = under_traffic(call::case(realm.agent(HOSPITAL)?)?, async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut gone = primary.take().context("there is no primary")?;
        gone.kill()?;
        standby.take_over(gone).await?;
        realm.gateway.kill()?;
        realm.gateway.start().await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(())
    })
    .await?;
    all_is_there(&realm, &sent).await?;
    realm.gateway.stop().await
}

#[tokio::test]
async fn a_domain_moves_to_a_server_with_all_that_it_has() -> Result<()> {
    let server = Server::start().await?;
    let mut realm = Realm::start(policies::OPEN, &[HOSPITAL, SHELTER]).await?;
    let send = async |realm: &Realm| {
        let request = message::small_referral(SHELTER);
        let sent = call::case(realm.agent(HOSPITAL)?)?.send_referral(request).await?.into_inner();
        Ok::<_, anyhow::Error>(sent.referrals.first().context("no referral was made")?.id.clone())
    };
    let there = send(&realm).await?;
    call::referral_in(realm.agent(HOSPITAL)?, &there, State::Received).await?;
    realm.agent_mut(SHELTER)?.stop().await?;
    let waits = send(&realm).await?;
    call::referral_in(realm.agent(HOSPITAL)?, &waits, State::Requested).await?;
    evidence::leaves(&realm.gateway).await?;

    let url = server.database("be").await?;
    let migrate = ["--json", "migrate", "--from", "sqlite", "--to", "postgres", "--database"];
    let migrate = [migrate.as_slice(), &[&url]].concat();
    let running = realm.gateway.attempt(&migrate).await?;
    ensure!(running.status.code() == Some(1), "a gateway that runs is moved: {running:?}");
    // As after a crash: much of it stands in the write-ahead log.
    realm.gateway.kill()?;
    let head = realm.gateway.command(&["--json", "log", "head"]).await?;
    let told: serde_json::Value = serde_json::from_str(&realm.gateway.command(&migrate).await?)?;
    let rows = |table: &str| {
        let tables = told.get("tables").and_then(serde_json::Value::as_array)?;
        tables.iter().find(|one| one.get("table") == Some(&table.into()))?.get("rows")?.as_u64()
    };
    ensure!((rows("message"), rows("content")) == (Some(2), Some(1)), "{told}");
    ensure!(realm.gateway.command(&["--json", "log", "head"]).await? == head, "the head is another");
    let again = realm.gateway.attempt(&migrate).await?;
    ensure!(again.status.code() == Some(1), "it is moved twice: {again:?}");

    realm.gateway.start().await?;
    realm.agent_mut(SHELTER)?.start().await?;
    call::referral_in(realm.agent(HOSPITAL)?, &waits, State::Received).await?;
    let after = send(&realm).await?;
    call::referral_in(realm.agent(HOSPITAL)?, &after, State::Received).await?;
    let mut received = call::received_ids(realm.agent(SHELTER)?).await?;
    received.sort();
    let mut all = vec![there, waits, after];
    all.sort();
    ensure!(received == all, "{received:?}");
    receipts::complete(realm.agent(HOSPITAL)?).await?;
    evidence::sound(&realm.gateway).await.map(drop)
}

#[tokio::test]
async fn a_database_is_of_one_domain() -> Result<()> {
    let server = Server::start().await?;
    let realm = realm(&server).await?;
    let other = tempfile::tempdir()?;
    // A database that holds a gateway is not given to a second domain; one that does not exist is not made up.
    let data = other.path().join("third");
    let data = data.to_string_lossy();
    let init = |url: &str| {
        let arguments = ["--data", &data, "init", "--domain", "fr", "--database", url].map(str::to_owned);
        liaison_demo::process::output(&realm.gateway.programs.gateway, arguments)
    };
    let taken = init(&server.database("fr").await?.replace("/fr", "/be")).await?;
    ensure!(!taken.status.success(), "{taken:?}");
    ensure!(String::from_utf8_lossy(&taken.stderr).contains("is a gateway's"), "{taken:?}");
    for url in [
        "postgres://liaison:secret-canary@127.0.0.1:1/none",
        "postgres://liaison:secret-canary#@127.0.0.1:1/none",
        "postgres://liaison@127.0.0.1:1/none?sslpassword=secret-canary",
    ] {
        let absent = init(url).await?;
        ensure!(!absent.status.success(), "{absent:?}");
        ensure!(!String::from_utf8_lossy(&absent.stderr).contains("secret-canary"), "{absent:?}");
    }
    Ok(())
}

#[tokio::test]
async fn readiness_says_what_keeps_a_gateway_from_accepting() -> Result<()> {
    let server = Server::start().await?;
    let realm = realm(&server).await?;
    let says = async |status: u16, what: &str| {
        wait::until(what, async || {
            let ready = liaison_demo::http::request(realm.gateway.metrics(), "GET", "/readyz", &[], &[]);
            let answer = ready.await.ok()?;
            let said = String::from_utf8(answer.body).ok()?;
            (answer.status == status && said.trim_end() == what).then_some(())
        })
        .await
    };
    says(200, "ready").await?;
    // A change that this gateway can't read.
    let mut database = server.connect("be").await?;
    for change in [
        "INSERT INTO peer (domain, state, bundle, countries) VALUES ('hu', 1, BYTEA '\\x00', '')",
        "UPDATE shared SET state = state + 1",
    ] {
        sqlx::query(change).execute(&mut database).await?;
    }
    says(503, "what another gateway of the domain changed is not taken over").await?;
    sqlx::query("DELETE FROM peer").execute(&mut database).await?;
    says(200, "ready").await
}
