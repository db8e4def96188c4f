//! What a gateway's log says, by its commands.

#![allow(clippy::indexing_slicing, reason = "an absent field of JSON is null")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use liaison_demo::{Gateway, wait};
use serde_json::Value;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

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

/// Checks that a sound log tells of all messages that were sent, each as accepted once.
pub async fn tells_of_all(gateway: &Gateway, sent: &BTreeSet<String>) -> Result<()> {
    let report = sound(gateway).await?;
    let accepted = count(&leaves(gateway).await?, "accepted");
    ensure!(accepted >= sent.len(), "{report}");
    ensure!(report.get("messages") == Some(&accepted.into()), "{report}: {accepted} were accepted");
    Ok(())
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

/// Changes the database in a data folder as somebody would who has the file.
pub async fn by_hand(data: &Path, edit: &str) -> Result<()> {
    let options = SqliteConnectOptions::new().filename(data.join("liaison.db")).foreign_keys(false);
    let mut database = options.connect().await?;
    let changed = sqlx::query(AssertSqlSafe(edit)).execute(&mut database).await.context(edit.to_owned())?;
    ensure!(changed.rows_affected() > 0, "nothing was changed by {edit}");
    Ok(database.close().await?)
}

/// The faults that `log verify` names in a data folder, by their codes, each with one place; it ends with status 1.
pub fn found(gateway: &Gateway, data: &Path) -> Result<BTreeMap<String, String>> {
    let verified = on_copy(gateway, data, &["log", "verify", "--json"])?;
    ensure!(verified.status.code() == Some(1), "{verified:?}");
    let report: Value = serde_json::from_slice(&verified.stdout)?;
    let listed = report["listed"].as_array().context("no faults")?;
    let text = |fault: &Value, key: &str| fault[key].as_str().unwrap_or_default().to_owned();
    ensure!(listed.iter().all(|fault| !text(fault, "action").is_empty() && !text(fault, "found").is_empty()));
    Ok(listed.iter().map(|fault| (text(fault, "code"), text(fault, "place"))).collect())
}

/// Has each edit, made by hand in a copy of the data folder of a gateway that is stopped, named by its code.
pub async fn named(gateway: &Gateway, edits: &[(&str, &str)]) -> Result<()> {
    let mut missed = Vec::new();
    for (code, edit) in edits {
        let copy = TempDir::new()?;
        self::copy(gateway, copy.path())?;
        let data = copy.path().join(gateway.data.file_name().context("no folder")?);
        by_hand(&data, edit).await?;
        let found = found(gateway, &data).with_context(|| format!("{code}: {edit}"))?;
        if !found.contains_key(*code) {
            missed.push(format!("{code}: {edit}: {found:?}"));
        }
    }
    ensure!(missed.is_empty(), "{missed:#?}");
    Ok(())
}
