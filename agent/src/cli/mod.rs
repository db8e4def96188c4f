//! The commands. Each says what it does in `--help`, prints for people or, with `--json`, for programs.

mod backup;
pub(crate) mod client;
mod doctor;
mod enroll;
mod inbox;
mod run;
mod send;
mod status;
mod table;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::folder::Folder;

/// The agent of an agency: it keeps the agency's keys, seals what is sent, opens what is received.
#[derive(Parser)]
#[command(name = "liaison-agent", version)]
pub struct Cli {
    /// The agent's data folder.
    #[arg(long, global = true, env = "LIAISON_AGENT_DATA", default_value = "/var/lib/liaison-agent")]
    data: PathBuf,
    /// Print JSON, for programs.
    #[arg(long, global = true)]
    json: bool,
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
            Command::Backup(backup) => backup.run(&context).await,
            Command::Restore(restore) => restore.run(&context).await,
        }
    }
}
