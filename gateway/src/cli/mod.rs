//! The command line: what each command is called, says and prints. The commands that change a
//! running gateway speak to it through its admin API.

mod agency;
mod ca;
mod doctor;
mod init;
mod log;
mod migrate;
mod output;
mod peer;
mod policy;
mod run;
mod token;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use liaison_proto::message::v1::Refusal;
use serde_json::json;

use crate::data::DataFolder;
use output::Output;

/// Runs the gateway of one domain, and administers it.
#[derive(Debug, Parser)]
#[command(
    name = "liaison-gateway",
    version,
    about,
    long_about = "Runs the gateway of one domain, and administers it.\n\n\
        A gateway passes referrals and alerts between the agents of its agencies. It decides, by the \
        domain's policies, who may receive which part of a message; it can't read any part.",
    after_help = "Exit status: 0 done, 1 failed, 2 wrong use.\n\n\
        A first gateway:\n  \
        liaison-gateway --data ./be init --domain be\n  \
        liaison-gateway --data ./be run\n  \
        liaison-gateway --data ./be agency add be/shelter --name 'The shelter' --country be --sector NGO\n  \
        liaison-gateway --data ./be token create be/shelter"
)]
pub struct Arguments {
    /// The gateway's data folder
    #[arg(
        long,
        global = true,
        env = "LIAISON_GATEWAY_DATA",
        default_value = "/var/lib/liaison-gateway",
        value_name = "DIR"
    )]
    pub data: PathBuf,
    /// Print one JSON object instead of text; faults as `{"error":{"code","message","action"}}` on stderr
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new domain: its CA, keys, database, configuration and starter policies
    Init(init::Arguments),
    /// Run the gateway until it is told to stop (SIGTERM or Ctrl-C)
    Run(run::Arguments),
    /// Add, list, suspend and revoke agencies
    #[command(subcommand)]
    Agency(agency::Command),
    /// Make the one-time tokens with which agencies enrol
    #[command(subcommand)]
    Token(token::Command),
    /// Peer with other domains
    #[command(subcommand)]
    Peer(peer::Command),
    /// Show the domain's CA, and change it without an interruption
    #[command(subcommand)]
    Ca(ca::Command),
    /// Check policies, ask them, and make them active
    #[command(subcommand)]
    Policy(policy::Command),
    /// Show, prove, verify and export what was recorded, and tell what was disclosed to whom
    #[command(subcommand)]
    Log(log::Command),
    /// Move everything from the file in the data folder to a PostgreSQL database; the gateway must not run
    Migrate(migrate::Arguments),
    /// Say what is wrong with this gateway, if anything, and what to do about it; works when it is stopped
    Doctor,
}

/// A failure of a command itself: what was wrong, then what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}; {action}")]
pub(crate) struct Failure {
    /// One word for programs.
    code: &'static str,
    message: String,
    action: String,
    /// 1 where the command failed, 2 where it was used wrongly.
    status: u8,
}

impl Failure {
    fn failed(code: &'static str, message: impl Into<String>, action: impl Into<String>) -> Self {
        Self { code, message: message.into(), action: action.into(), status: 1 }
    }

    fn wrong_use(message: impl Into<String>, action: impl Into<String>) -> Self {
        Self { code: "wrong_use", message: message.into(), action: action.into(), status: 2 }
    }
}

/// Does what the arguments say.
///
/// # Errors
/// Whatever stopped the command; [`report`] prints it.
pub async fn execute(arguments: Arguments) -> anyhow::Result<()> {
    let folder = DataFolder::new(arguments.data);
    let output = Output { json: arguments.json };
    match arguments.command {
        Command::Init(arguments) => init::execute(&folder, arguments, output).await,
        Command::Run(arguments) => run::execute(&folder, &arguments).await,
        Command::Agency(command) => agency::execute(&folder, command, output).await,
        Command::Token(command) => token::execute(&folder, command, output).await,
        Command::Peer(command) => peer::execute(&folder, command, output).await,
        Command::Ca(command) => ca::execute(&folder, &command, output).await,
        Command::Policy(command) => policy::execute(&folder, command, output).await,
        Command::Log(command) => log::execute(&folder, command, output).await,
        Command::Migrate(arguments) => migrate::execute(&folder, arguments, output).await,
        Command::Doctor => doctor::execute(&folder, output).await,
    }
}

/// What the gateway refused, as the error of a command.
fn refused(status: tonic::Status) -> Refusal {
    Refusal::from(&status)
}

/// An error with those of its causes that its own text does not quote already.
fn with_causes(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| match cause.to_string() {
        cause if text.contains(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}

/// Prints why a command failed, and gives its exit status; nothing where the reader of its output had enough.
pub fn report(error: &anyhow::Error, json: bool) -> ExitCode {
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::FAILURE;
    }
    let (code, message, action, status) =
        match (error.downcast_ref::<Failure>(), error.downcast_ref::<Refusal>()) {
            (Some(failure), _) => {
                (failure.code, failure.message.clone(), failure.action.as_str(), failure.status)
            }
            (_, Some(refusal)) => {
                (refusal.code().as_str_name(), refusal.message.clone(), refusal.action.as_str(), 1)
            }
            _ => ("failed", with_causes(error), "", 1),
        };
    let text = match (json, action) {
        (true, _) => json!({"error": {"code": code, "message": message, "action": action}}).to_string(),
        (false, "") => format!("liaison-gateway: {message}"),
        (false, _) => format!("liaison-gateway: {message}\n  to do: {action}"),
    };
    // Where nobody reads it, the exit status still tells.
    _ = writeln!(io::stderr(), "{text}");
    ExitCode::from(status)
}
