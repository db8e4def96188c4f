//! What a gateway's log says, by its commands.

#![allow(clippy::indexing_slicing, reason = "an absent field of JSON is null")]

use std::{
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use liaison_demo::{Gateway, wait};
use serde_json::Value;

/// What `log verify` reports of a gateway; its log has to be sound, and all that is staged in the tree soon.
pub async fn sound(gateway: &Gateway) -> Result<Value> {
    let report: Value = serde_json::from_str(&gateway.command(&["log", "verify", "--json"]).await?)?;
    ensure!(report["ok"] == true && report["faults"] == 0, "{report}");
    Ok(report)
}

/// Every leaf of the log of evidence, once none waits for the next head.
pub async fn leaves(gateway: &Gateway) -> Result<Vec<Value>> {
    wait::until("every leaf is under a signed head", async || {
        let mut all = Vec::new();
        loop {
            let from = all.len().to_string();
            let shown =
                gateway.command(&["log", "show", "--json", "--from", &from, "--limit", "1000"]).await.ok()?;
            let shown: Value = serde_json::from_str(&shown).ok()?;
            let page = shown["leaves"].as_array()?.clone();
            if page.is_empty() {
                return all.iter().all(|leaf: &Value| leaf["signed"] == true).then_some(all);
            }
            all.extend(page);
        }
    })
    .await
}

/// How often each event is in the log.
pub fn count(leaves: &[Value], event: &str) -> usize {
    leaves.iter().filter(|leaf| leaf["event"] == event).count()
}

/// Runs a gateway's command on another data folder, whatever its end.
pub fn on_copy(gateway: &Gateway, data: &Path, arguments: &[&str]) -> Result<Output> {
    Command::new(&gateway.programs.gateway)
        .arg("--data")
        .arg(data)
        .args(arguments)
        .output()
        .context("the gateway's program does not run")
}

/// A copy of the data folder of a gateway that is stopped.
pub fn copy(gateway: &Gateway, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("-a").arg(&gateway.data).arg(to).status()?;
    ensure!(copied.success(), "the data folder was not copied");
    Ok(())
}
