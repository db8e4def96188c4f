//! `liaison-agent doctor`

use clap::Args;

use super::{Context, say, table};
use crate::doctor::{self, Finding, Level};

/// Find out what is wrong and what to do, whether the agent runs or not.
#[derive(Args)]
pub(super) struct Doctor {}

impl Doctor {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let findings = doctor::examine(&context.folder).await;
        let worst = findings.iter().map(|finding| finding.level).max();
        if context.json {
            say(serde_json::json!({ "findings": findings }))?;
        } else {
            table::print(["", "CHECK", "FOUND"], &findings.iter().flat_map(rows).collect::<Vec<_>>())?;
        }
        anyhow::ensure!(worst != Some(Level::Fail), "something does not work; see above what to do");
        Ok(())
    }
}

fn rows(finding: &Finding) -> Vec<[String; 3]> {
    let level = match finding.level {
        Level::Ok => "ok",
        Level::Warn => "WARN",
        Level::Fail => "FAIL",
    };
    let action = finding.action.iter().map(|action| [String::new(), String::new(), format!("-> {action}")]);
    let found = [level.to_owned(), finding.check.to_owned(), finding.found.clone()];
    std::iter::once(found).chain(action).collect()
}
