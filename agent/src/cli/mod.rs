//! The commands. Each says what it does in `--help`, prints for people or, with `--json`, for programs.

mod backup;
pub(crate) mod client;
mod doctor;
mod enroll;
mod inbox;
mod keys;
mod run;
mod send;
mod status;
mod table;
mod verify;

use std::{
    fmt::Display,
    io::{self, Write},
    path::PathBuf,
};

use clap::{Parser, Subcommand};
use liaison_proto::message::v1::Refusal;
use serde_json::json;

use crate::folder::Folder;

const AFTER_HELP: &str = "\
Exit status: 0 done, 1 failed, 2 wrong use.

A first agent:
  liaison-agent --data ./shelter enroll --token-file token.txt
  liaison-agent --data ./shelter run
  liaison-agent --data ./shelter doctor";

/// The agent of an agency: it keeps the agency's keys, seals what is sent, opens what is received
#[derive(Parser)]
#[command(name = "liaison-agent", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// The agent's data folder
    #[arg(
        long,
        value_name = "DIR",
        global = true,
        env = "LIAISON_AGENT_DATA",
        default_value = "/var/lib/liaison-agent"
    )]
    data: PathBuf,
    /// Print JSON instead of text; faults as `{"error":{"code","message","action"}}` on stderr
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    command: Command,
}

/// What every command needs to know.
pub struct Context {
    pub folder: Folder,
    /// Print JSON, for programs.
    pub json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Make this folder an agency's agent, with a one-time token; safe to run again
    Enroll(enroll::Enroll),
    /// Run the agent
    Run(run::Run),
    /// Find out what is wrong and what to do, whether the agent runs or not
    Doctor(doctor::Doctor),
    /// Say how the running agent stands; fails while it is not connected
    Status(status::Status),
    /// Send a referral or an alert that stands in a JSON file
    Send(send::Send),
    /// List what was received, or show one message with its sections
    Inbox(inbox::Inbox),
    /// List other agencies' keys with their fingerprints, or confirm a fingerprint
    Keys(keys::Keys),
    /// Verify receipts, offline: prints what each shows, and fails unless all hold
    Verify(verify::Verify),
    /// Write keys, inbox and outbox into one encrypted file
    Backup(backup::Backup),
    /// Put a backup back into an empty data folder
    Restore(backup::Restore),
}

impl Cli {
    /// Runs the command that was given.
    pub async fn run(self) -> anyhow::Result<()> {
        let context = Context { folder: Folder::new(self.data), json: self.json };
        match self.command {
            Command::Enroll(enroll) => enroll.run(&context).await,
            Command::Run(run) => run.run(context).await,
            Command::Doctor(doctor) => doctor.run(&context).await,
            Command::Status(status) => status.run(&context).await,
            Command::Send(send) => send.run(&context).await,
            Command::Inbox(inbox) => inbox.run(&context).await,
            Command::Keys(keys) => keys.run(&context).await,
            Command::Verify(verify) => verify.run(&context),
            Command::Backup(backup) => backup.run(&context).await,
            Command::Restore(restore) => restore.run(&context).await,
        }
    }
}

/// Prints a line on stdout.
///
/// # Errors
/// Whoever reads it may have gone, as `head` does.
fn say(line: impl Display) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

/// Prints why a command failed, on stderr; nothing where the reader of its output had enough.
pub fn report(error: &anyhow::Error, json: bool) {
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return;
    }
    let text = match error.downcast_ref::<Refusal>() {
        _ if !json => format!("liaison-agent: {}", with_causes(error)),
        Some(refusal) => in_json(refusal.code().as_str_name(), &refusal.message, &refusal.action),
        None => in_json("failed", &with_causes(error), ""),
    };
    // Where nobody reads it, the exit status still tells.
    _ = writeln!(io::stderr(), "{text}");
}

fn in_json(code: &str, message: &str, action: &str) -> String {
    json!({"error": {"code": code, "message": message, "action": action}}).to_string()
}

/// An error with those of its causes that its own text does not quote already.
fn with_causes(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| match cause.to_string() {
        cause if text.contains(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_that_is_quoted_already_is_not_said_twice() {
        let quoted = anyhow!("refused").context("the gateway can't be reached: refused; check the network");
        assert_eq!(with_causes(&quoted), "the gateway can't be reached: refused; check the network");
        assert_eq!(with_causes(&anyhow!("no such file").context("reading x")), "reading x: no such file");
    }
}
