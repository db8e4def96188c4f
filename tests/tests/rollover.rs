//! A domain's CA is changed while traffic flows.

use anyhow::{Context, Result, ensure};
use liaison_demo::wait;
use liaison_tests::{
    Realm, call,
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
    let former = told(&ca(&realm, "show").await?, "issuing")?;
    let sent = under_traffic(call::case(realm.agent(HOSPITAL)?)?, async {
        let next = told(&ca(&realm, "prepare").await?, "other")?;
        // Each step waits by itself for those who have yet to renew.
        ensure!(ca(&realm, "switch").await.is_err(), "nobody knows the next CA yet");
        take(&realm, "switch").await?;
        let shown = ca(&realm, "show").await?;
        ensure!(told(&shown, "issuing")? == next && told(&shown, "other")? == former, "{shown}");
        take(&realm, "retire").await?;
        let shown = ca(&realm, "show").await?;
        ensure!(told(&shown, "issuing")? == next && shown.get("other") == Some(&Value::Null), "{shown}");
        // Past the life of every certificate of the former CA.
        for agency in [HOSPITAL, SHELTER] {
            let before = expiry(&realm, agency).await?;
            wait::until(&format!("{agency} renews under the next CA"), async || {
                expiry(&realm, agency).await.ok().filter(|after| *after > before)
            })
            .await?;
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
    Ok(())
}

/// Takes a step as soon as everybody is ready for it.
async fn take(realm: &Realm, step: &str) -> Result<()> {
    wait::until(&format!("all are ready to {step}"), async || ca(realm, step).await.ok()).await?;
    Ok(())
}

async fn ca(realm: &Realm, step: &str) -> Result<Value> {
    Ok(serde_json::from_str(&realm.gateway.command(&["--json", "ca", step]).await?)?)
}

fn told(status: &Value, key: &str) -> Result<String> {
    let text = status.get(key).and_then(Value::as_str);
    Ok(text.with_context(|| format!("no {key} in {status}"))?.to_owned())
}

/// When an agency's newest certificate ends, as the gateway knows it.
async fn expiry(realm: &Realm, agency: &str) -> Result<String> {
    told(
        &serde_json::from_str(&realm.gateway.command(&["--json", "agency", "show", agency]).await?)?,
        "certificate_expires",
    )
}
