//! The commands. Each says what it does in `--help`, prints for people or, with `--json`, for programs.

mod enroll;
mod run;

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
}

impl Cli {
    /// Runs the command that was given.
    pub async fn run(self) -> anyhow::Result<()> {
        let context = Context { folder: Folder::new(self.data), json: self.json };
        match self.command {
            Command::Enroll(enroll) => enroll.run(&context).await,
            Command::Run(run) => run.run(context).await,
        }
    }
}
