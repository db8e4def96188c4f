//! `log export`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{super::Failure, Logs, Output, Which};
use crate::log::export::export;

/// Where to.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A folder, made if it isn't there: each log is written below its origin. Begun again, the export goes on
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// One log alone, by its origin, such as be/log/1; all of them unless it is named
    #[arg(long, value_name = "ORIGIN")]
    log: Option<String>,
}

pub(super) async fn execute(logs: &mut Logs, arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let (mut told, mut lines) = (Vec::new(), Vec::new());
    let which = Which { log: arguments.log.clone() };
    let chosen = if which.log.is_some() { vec![logs.one(&which).await?] } else { logs.every().await? };
    for log in chosen {
        let origin = log.key.name().as_str();
        let folder = arguments.folder.join(origin);
        let exported = export(&mut logs.snapshot, &log.head, &log.key, &folder).await.map_err(|error| {
            let action = "put that right and begin again: what is written already stays";
            Failure::failed("not_exported", format!("{origin} is not exported: {error}"), action)
        })?;
        let Some(done) = exported else {
            lines.push(format!("{origin}: nothing to export yet: a gateway that runs signs its head once something is recorded"));
            continue;
        };
        let size = done.checkpoint.size();
        told.push(json!({
            "origin": origin,
            "folder": folder,
            "size": size,
            "root": done.checkpoint.root().to_string(),
            "vkey": log.key.to_string(),
            "written": done.written,
            "kept": done.kept,
        }));
        lines.push(format!(
            "{origin}: {size} leaves in {}, {} files written, {} were there",
            folder.display(),
            done.written,
            done.kept
        ));
    }
    output.print(&json!({"logs": told}), || lines.join("\n"))?;
    Ok(())
}
