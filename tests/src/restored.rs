//! A gateway that is restored from an older copy of its database.

use std::fs;

use anyhow::{Context, Result, ensure};
use liaison_demo::{Gateway, wait};
use serde_json::Value;

/// Copies the database; tells how many leaves its log has.
pub async fn copied(gateway: &mut Gateway) -> Result<u64> {
    gateway.stop().await?;
    fs::copy(gateway.data.join("liaison.db"), gateway.data.join("liaison.copy"))?;
    let shown: Value = serde_json::from_str(&gateway.command(&["--json", "log", "head"]).await?)?;
    gateway.start().await?;
    shown.get("size").and_then(Value::as_u64).with_context(|| format!("no size in {shown}"))
}

/// Ends the gateway, puts the copy back, and opens a new log, since nothing else lets it go on.
pub async fn restored(gateway: &mut Gateway) -> Result<()> {
    gateway.kill()?;
    for file in ["liaison.db-wal", "liaison.db-shm"] {
        _ = fs::remove_file(gateway.data.join(file));
    }
    fs::copy(gateway.data.join("liaison.copy"), gateway.data.join("liaison.db"))?;
    let refused = gateway.start().await.err().context("it starts on an older copy")?.to_string();
    ensure!(refused.contains("older copy"), "{refused}");
    let opened: Value = serde_json::from_str(&gateway.command(&["--json", "log", "reopen"]).await?)?;
    let origin = opened.pointer("/logs/0/origin").and_then(Value::as_str);
    ensure!(origin == Some(format!("{}/log/2", gateway.domain).as_str()), "{opened}");
    let again = gateway.attempt(&["log", "reopen"]).await?;
    ensure!(again.status.code() == Some(1), "there is nothing more to open");
    gateway.start().await
}

/// Waits until the guard file has a larger head than this.
pub async fn guarded(gateway: &Gateway, size: u64) -> Result<()> {
    let guard = gateway.data.join("log.head");
    wait::until("the guard file has the newest head", async || {
        let head = fs::read_to_string(&guard).ok()?;
        (head.lines().nth(1)?.parse::<u64>().ok()? > size).then_some(())
    })
    .await
}

/// Waits until the new log has a head, and verifies it.
pub async fn is_sound(gateway: &Gateway) -> Result<()> {
    wait::until("the new log has a head", async || gateway.command(&["log", "head"]).await.ok()).await?;
    gateway.command(&["log", "verify"]).await.map(drop)
}
