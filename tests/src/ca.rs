//! The change of a domain's CA, as its administrator does it.

use anyhow::{Context, Result};
use liaison_demo::{Gateway, wait};
use serde_json::Value;

/// Takes a step, or none with `show`; how the CA stands then.
pub async fn step(gateway: &Gateway, step: &str) -> Result<Value> {
    Ok(serde_json::from_str(&gateway.command(&["--json", "ca", step]).await?)?)
}

/// Takes a step as soon as everybody is ready for it; how the CA stands then.
pub async fn when_ready(gateway: &Gateway, step: &str) -> Result<Value> {
    let what = format!("all are ready to {step} the CA of {}", gateway.domain);
    wait::until(&what, async || self::step(gateway, step).await.ok()).await
}

/// A text of an answer.
pub fn told(answer: &Value, key: &str) -> Result<String> {
    let text = answer.get(key).and_then(Value::as_str);
    Ok(text.with_context(|| format!("no {key} in {answer}"))?.to_owned())
}

/// Waits until an agency has a newer certificate than it has now.
pub async fn renewed(gateway: &Gateway, agency: &str) -> Result<()> {
    let before = expiry(gateway, agency).await?;
    wait::until(&format!("{agency} renews its certificate"), async || {
        expiry(gateway, agency).await.ok().filter(|after| *after > before)
    })
    .await?;
    Ok(())
}

/// When an agency's newest certificate ends, as the gateway knows it.
async fn expiry(gateway: &Gateway, agency: &str) -> Result<String> {
    let shown = gateway.command(&["--json", "agency", "show", agency]).await?;
    told(&serde_json::from_str(&shown)?, "certificate_expires")
}
