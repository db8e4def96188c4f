//! A gateway that is restored from an older copy of its database.

use std::{fs, io::ErrorKind, path::PathBuf};

use anyhow::{Context, Result, ensure};
use liaison_demo::{Gateway, wait};
use serde_json::Value;

/// Copies the database; tells how many leaves its log has.
pub async fn copied(gateway: &mut Gateway) -> Result<u64> {
    gateway.stop().await?;
    back_up(gateway)?;
    let (_, size) = head(gateway, &format!("{}/log", gateway.domain)).await?;
    gateway.start().await?;
    Ok(size)
}

/// Copies the database of a gateway that is stopped.
pub fn back_up(gateway: &Gateway) -> Result<()> {
    fs::copy(gateway.data.join("liaison.db"), gateway.data.join("liaison.copy"))?;
    Ok(())
}

/// The origin and the size of a log, by its origin, or the newest of a kind.
pub async fn head(gateway: &Gateway, log: &str) -> Result<(String, u64)> {
    let shown: Value =
        serde_json::from_str(&gateway.command(&["--json", "log", "head", "--log", log]).await?)?;
    let origin = shown.get("origin").and_then(Value::as_str).context("no origin")?;
    Ok((origin.to_owned(), shown.get("size").and_then(Value::as_u64).context("no size")?))
}

/// Ends the gateway, puts the copy back, and opens a new log, since nothing else lets it go on.
pub async fn restored(gateway: &mut Gateway) -> Result<()> {
    put_back(gateway)?;
    reopen(gateway).await?;
    gateway.start().await
}

/// Ends the gateway, and puts the copy back.
pub fn put_back(gateway: &mut Gateway) -> Result<()> {
    gateway.kill()?;
    for file in ["liaison.db-wal", "liaison.db-shm"] {
        _ = fs::remove_file(gateway.data.join(file));
    }
    fs::copy(gateway.data.join("liaison.copy"), gateway.data.join("liaison.db"))?;
    Ok(())
}

/// Opens a new log in a gateway that does not go on from what was signed. Its origin.
pub async fn reopen(gateway: &mut Gateway) -> Result<String> {
    let refused = gateway.start().await.err().context("it starts on an older copy")?.to_string();
    ensure!(refused.contains("older copy"), "{refused}");
    let opened: Value = serde_json::from_str(&gateway.command(&["--json", "log", "reopen"]).await?)?;
    let origin = opened.pointer("/logs/0/origin").and_then(Value::as_str);
    let origin = origin.with_context(|| format!("no log was opened: {opened}"))?.to_owned();
    let again = gateway.attempt(&["log", "reopen"]).await?;
    ensure!(again.status.code() == Some(1), "there is nothing more to open");
    Ok(origin)
}

/// The guard file of the log of evidence.
pub fn guard(gateway: &Gateway) -> PathBuf {
    gateway.data.join("log.head")
}

/// Waits until the guard file has the newest head, and that one more leaves than this. It is written now and then, so that
/// others may have seen a later head than stands there.
pub async fn guarded(gateway: &Gateway, size: u64) -> Result<()> {
    let log = format!("{}/log", gateway.domain);
    wait::until("the guard file has the newest head", async || {
        let file = fs::read_to_string(guard(gateway)).ok()?;
        let guarded = file.lines().nth(1)?.parse::<u64>().ok()?;
        (guarded > size && guarded == head(gateway, &log).await.ok()?.1).then_some(())
    })
    .await
}

/// Loses the guard files.
pub fn forget(gateway: &Gateway) -> Result<()> {
    for kind in ["log", "keys"] {
        match fs::remove_file(gateway.data.join(format!("{kind}.head"))) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Waits until the new log has a head, and verifies it.
pub async fn is_sound(gateway: &Gateway) -> Result<()> {
    wait::until("the new log has a head", async || gateway.command(&["log", "head"]).await.ok()).await?;
    gateway.command(&["log", "verify"]).await.map(drop)
}
