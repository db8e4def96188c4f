//! What is wrong with an agent and what to do, whether it runs or not.

mod gateway;
mod local;

use serde::Serialize;

use crate::{config::Config, folder::Folder};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, and will not for ever.
    Warn,
    /// Does not work.
    Fail,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    pub verdict: Verdict,
    /// What was found, and whose fault it is.
    pub detail: String,
    /// What to do; empty when all is well.
    pub action: String,
}

/// Looks at everything, in the order in which one thing needs the other.
pub async fn examine(folder: &Folder) -> Vec<Finding> {
    let mut findings = local::files(folder);
    let config = match Config::load(folder) {
        Ok(config) => config,
        Err(error) => {
            findings.push(fail("configuration", error, "put agent.toml right, or enrol"));
            return findings;
        }
    };
    findings.push(ok("configuration", format!("{} at the gateway {}", config.agency, config.gateway)));
    let runs = local::api(folder, &config, &mut findings).await;
    local::keys(folder, &config, &mut findings);
    local::database(folder, &config, runs, &mut findings).await;
    gateway::reach(folder, &config, &mut findings).await;
    findings
}

fn ok(check: &'static str, detail: impl ToString) -> Finding {
    Finding { check, verdict: Verdict::Ok, detail: detail.to_string(), action: String::new() }
}

fn warn(check: &'static str, detail: impl ToString, action: &str) -> Finding {
    Finding { check, verdict: Verdict::Warn, detail: detail.to_string(), action: action.to_owned() }
}

fn fail(check: &'static str, detail: impl ToString, action: &str) -> Finding {
    Finding { check, verdict: Verdict::Fail, detail: detail.to_string(), action: action.to_owned() }
}

#[cfg(test)]
mod tests;
