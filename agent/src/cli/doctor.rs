//! `liaison-agent doctor`

use clap::Args;
use serde_json::{Value, json};

use super::{Context, say, table};
use crate::doctor::{self, Finding, Verdict};

/// Find out what is wrong and what to do, whether the agent runs or not.
#[derive(Args)]
pub(super) struct Doctor {}

impl Doctor {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let findings = doctor::examine(&context.folder).await;
        if context.json {
            say(in_json(&findings))?;
        } else {
            table::print(["", "CHECK", "FOUND"], &findings.iter().flat_map(rows).collect::<Vec<_>>())?;
        }
        anyhow::ensure!(is_sound(&findings), "something does not work; see above what to do");
        Ok(())
    }
}

/// Whether nothing fails.
fn is_sound(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.verdict != Verdict::Fail)
}

/// As the gateway's doctor says it.
fn in_json(findings: &[Finding]) -> Value {
    json!({ "ok": is_sound(findings), "checks": findings })
}

fn rows(finding: &Finding) -> Vec<[String; 3]> {
    let verdict = match finding.verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "WARN",
        Verdict::Fail => "FAIL",
    };
    let action = (!finding.action.is_empty())
        .then(|| [String::new(), String::new(), format!("-> {}", finding.action)]);
    let found = [verdict.to_owned(), finding.check.to_owned(), finding.detail.clone()];
    std::iter::once(found).chain(action).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_json_it_reads_as_the_gateway_s() {
        let finding = |verdict, action: &str| Finding {
            check: "disk",
            verdict,
            detail: "seen".into(),
            action: action.into(),
        };
        let warned = [finding(Verdict::Ok, ""), finding(Verdict::Warn, "do")];
        let expected = json!({"ok": true, "checks": [
            {"check": "disk", "verdict": "ok", "detail": "seen", "action": ""},
            {"check": "disk", "verdict": "warn", "detail": "seen", "action": "do"},
        ]});
        assert_eq!(in_json(&warned), expected);
        let failed = in_json(&[finding(Verdict::Fail, "do")]);
        assert_eq!((&failed["ok"], &failed["checks"][0]["verdict"]), (&json!(false), &json!("fail")));
    }
}
