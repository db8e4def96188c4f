//! `doctor`: what is wrong, and what to do.

use serde_json::json;

use super::{
    Failure,
    output::{Output, table},
};
use crate::{
    data::DataFolder,
    doctor::{Finding, Verdict, examine},
};

pub(super) async fn execute(folder: &DataFolder, output: Output) -> anyhow::Result<()> {
    let findings = examine(folder).await;
    let worst = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok);
    let to_json = |finding: &Finding| {
        json!({
            "check": finding.check,
            "verdict": finding.verdict.as_str().to_ascii_lowercase(),
            "detail": finding.detail,
            "action": finding.action,
        })
    };
    let json = json!({
        "ok": worst < Verdict::Fail,
        "checks": findings.iter().map(to_json).collect::<Vec<_>>(),
    });
    output.print(&json, || show(&findings))?;
    if worst == Verdict::Fail {
        return Err(Failure::failed(
            "unhealthy",
            "the gateway has faults",
            "do what stands beside each FAIL",
        )
        .into());
    }
    Ok(())
}

fn show(findings: &[Finding]) -> String {
    let rows: Vec<_> = findings
        .iter()
        .map(|finding| {
            let detail = match finding.action.as_str() {
                "" => finding.detail.clone(),
                action => format!("{}; {action}", finding.detail),
            };
            [finding.verdict.as_str().to_owned(), finding.check.to_owned(), detail]
        })
        .collect();
    table(["", "CHECK", "WHAT"], &rows)
}
