//! What the senders have of the log of evidence in the end: receipts in files, which are verified offline.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result};
use liaison_demo::wait;
use serde_json::Value;

use super::{Log, list, text};
use crate::federation::Federation;

/// Waits until the senders of these messages have the receipts, writes each into a file of `folder`, and verifies them
/// with the agent's command, which needs neither an agent nor a gateway.
pub(super) async fn gather(federation: &Federation, sent: &[(&str, &str)], folder: &Path) -> Result<Log> {
    let folder = folder.join("receipts");
    fs::create_dir_all(&folder)?;
    let (mut entries, mut head, mut receipts) = (0, String::new(), BTreeSet::new());
    for (sender, id) in sent {
        let agent = federation.agent(sender)?;
        let path = format!("/v1/messages/{id}/receipts?pageSize=100");
        let (status, got) = wait::until(&format!("{sender} has the receipts of {id}"), async || {
            let status = agent.get("/v1/status").await.ok()?;
            let due = status.pointer("/log/due").and_then(Value::as_str).unwrap_or("0") != "0";
            let got = agent.get(&path).await.ok().filter(|got| !due && !list(got, "receipts").is_empty())?;
            Some((status, got))
        })
        .await?;
        let size = text(&status, "/log/size").parse().context("the status tells no size of the log")?;
        if size >= entries {
            (entries, head) = (size, text(&status, "/log/root"));
        }
        for receipt in list(&got, "receipts") {
            let index = text(receipt, "/index");
            let index = if index.is_empty() { "0" } else { &index };
            let name = format!("{}-{index}.tlog-proof", text(receipt, "/log").replace('/', "-"));
            let file = folder.join(name);
            fs::write(&file, text(receipt, "/file"))?;
            receipts.insert(file);
        }
    }
    let receipts: Vec<_> = receipts.into_iter().collect();
    let (sender, _) = sent.first().context("nothing was sent")?;
    let files = receipts.iter().map(|file| file.to_string_lossy().into_owned()).collect::<Vec<_>>();
    let arguments: Vec<&str> = ["verify"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let verified = federation.agent(sender)?.attempt(&arguments).await?.status.success();
    Ok(Log { entries, head, verified, receipts })
}
