//! `log verify`

use serde_json::json;
use time::OffsetDateTime;

use super::{super::Failure, Logs, Output};
use crate::log::verify::{Fault, Report, verify};

pub(super) async fn execute(logs: &mut Logs, output: Output) -> anyhow::Result<()> {
    let Logs { snapshot, domain, gateway, folder } = logs;
    let report = verify(snapshot, domain, (gateway, folder), OffsetDateTime::now_utc()).await?;
    let fault = |fault: &Fault| json!({"code": fault.code, "place": fault.place, "found": fault.found, "action": fault.action});
    let log = |log: &crate::log::verify::Examined| {
        json!({
            "origin": log.origin,
            "size": log.size,
            "staged": log.staged,
            "erased": log.erased,
            "root": log.root.map(|root| root.to_string()),
        })
    };
    let json = json!({
        "ok": report.faults.count == 0,
        "logs": report.logs.iter().map(log).collect::<Vec<_>>(),
        "messages": report.messages,
        "keys": report.keys,
        "faults": report.faults.count,
        "listed": report.faults.listed.iter().map(fault).collect::<Vec<_>>(),
    });
    output.print(&json, || show(&report))?;
    if report.faults.count > 0 {
        let message =
            format!("{} faults were found in the logs, or in what they vouch for", report.faults.count);
        return Err(Failure::failed("log_damaged", message, "do what stands beside each of them").into());
    }
    Ok(())
}

fn show(report: &Report) -> String {
    let mut lines = Vec::new();
    for log in &report.logs {
        lines.push(format!(
            "{}: {} leaves under its head, {} wait for the next one, {} erased",
            log.origin, log.size, log.staged, log.erased
        ));
    }
    lines.push(format!("{} accepted messages, {} key records", report.messages, report.keys));
    for fault in &report.faults.listed {
        lines.push(format!(
            "FAULT {} at {}: {}\n  to do: {}",
            fault.code, fault.place, fault.found, fault.action
        ));
    }
    let more = report.faults.count - report.faults.listed.len() as u64;
    match (report.faults.count, more) {
        (0, _) => lines.push("All is as it was signed.".to_owned()),
        (_, 0) => {}
        _ => lines.push(format!("and {more} faults more")),
    }
    lines.join("\n")
}
