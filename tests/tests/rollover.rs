//! A domain's CA is changed while traffic flows.

use anyhow::{Result, ensure};
use liaison_tests::{
    Realm,
    ca::{self, told},
    call,
    names::{HOSPITAL, SHELTER},
    policies,
    traffic::{every_one_arrived_once, under_traffic},
};
use serde_json::Value;

#[tokio::test]
async fn the_ca_is_changed_under_traffic() -> Result<()> {
    let mut realm = Realm::prepare(policies::OPEN).await?;
    realm.gateway.configure("[limits]\ncertificate_seconds = 4")?;
    realm.gateway.start().await?;
    realm.join(&[HOSPITAL, SHELTER]).await?;
    let former = told(&ca::step(&realm.gateway, "show").await?, "issuing")?;
    let sent = under_traffic(call::case(realm.agent(HOSPITAL)?)?, async {
        let next = told(&ca::step(&realm.gateway, "prepare").await?, "other")?;
        // Each step waits by itself for those who have yet to renew.
        ensure!(ca::step(&realm.gateway, "switch").await.is_err(), "nobody knows the next CA yet");
        ca::when_ready(&realm.gateway, "switch").await?;
        let shown = ca::step(&realm.gateway, "show").await?;
        ensure!(told(&shown, "issuing")? == next && told(&shown, "other")? == former, "{shown}");
        ca::when_ready(&realm.gateway, "retire").await?;
        let shown = ca::step(&realm.gateway, "show").await?;
        ensure!(told(&shown, "issuing")? == next && shown.get("other") == Some(&Value::Null), "{shown}");
        // Past the life of every certificate of the former CA.
        for agency in [HOSPITAL, SHELTER] {
            ca::renewed(&realm.gateway, agency).await?;
        }
        Ok(())
    })
    .await?;
    every_one_arrived_once(&realm, &sent).await?;
    // New connections are made under the next CA alone.
    for agency in [HOSPITAL, SHELTER] {
        realm.agent_mut(agency)?.kill()?;
        realm.agent_mut(agency)?.start().await?;
        realm.agent(agency)?.connected().await?;
    }
    liaison_tests::evidence::sound(&realm.gateway).await.map(drop)
}
