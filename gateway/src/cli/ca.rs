//! `ca`: the domain's CA and its change.

use std::fmt::Write;

use clap::{Args, Subcommand};
use liaison_proto::admin::v1::{AuthorityRequest, AuthorityStatus, authority_step::Code as Step};
use serde_json::json;

use super::{output::Output, refused};
use crate::{admin::connect, data::DataFolder};

/// What to do with the CA.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show which CA issues, how far a change of it is, and who has not learnt of it yet: of peers, only the gateway
    /// that leads knows
    Show,
    /// Make the next CA and make it known; the one that is there still issues
    Prepare,
    /// Let the next CA issue from now on; both are still believed
    Switch(Force),
    /// Believe the former CA no longer, and destroy its key
    Retire(Force),
}

/// How much a step may break.
#[derive(Debug, Args)]
pub struct Force {
    /// Take the step although some are not ready: those agencies are shut out until they enrol anew
    #[arg(long)]
    force: bool,
}

pub(super) async fn execute(folder: &DataFolder, command: &Command, output: Output) -> anyhow::Result<()> {
    let (step, force) = match command {
        Command::Show => (Step::Unspecified, false),
        Command::Prepare => (Step::Prepare, false),
        Command::Switch(Force { force }) => (Step::Switch, *force),
        Command::Retire(Force { force }) => (Step::Retire, *force),
    };
    let request = AuthorityRequest { step: step.into(), force };
    let status = connect(folder).await?.authority(request).await.map_err(refused)?.into_inner();
    let json = json!({
        "issuing": status.issuing,
        "other": (!status.other.is_empty()).then_some(&status.other),
        "next": status.next().as_str_name(),
        "behind": status.behind,
    });
    output.print(&json, || show(step, &status))?;
    Ok(())
}

fn show(step: Step, status: &AuthorityStatus) -> String {
    let mut text = format!("{:<10} {}\n", "issuing", status.issuing);
    let other = match status.next() {
        Step::Switch => "next",
        _ => "former",
    };
    if !status.other.is_empty() {
        _ = writeln!(text, "{other:<10} {}", status.other);
    }
    if !status.behind.is_empty() {
        _ = writeln!(text, "{:<10} {}", "not ready", status.behind.join(", "));
    }
    if step == Step::Switch {
        text.push_str("Unused tokens made before this name the former CA: make them again.\n");
    }
    text.push_str(match (status.next(), status.behind.is_empty()) {
        (Step::Switch, true) => "All know the next CA. Go on with `liaison-gateway ca switch`.",
        (Step::Switch, false) => {
            "These don't know the next CA yet; an agency learns of it when it renews its certificate, a peer when it \
             is linked."
        }
        (Step::Retire, true) => "Nobody relies on the former CA. Go on with `liaison-gateway ca retire`.",
        (Step::Retire, false) => {
            "These still rely on the former CA; an agency leaves it when it renews its certificate, a peer when it is \
             linked."
        }
        _ => "No change of the CA is under way.",
    });
    text
}
