//! Runs a command with `LIAISON_POSTGRES` set to the URL of a PostgreSQL server of its own, and ends with its status:
//! `with_postgres COMMAND ARGUMENT...`

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use liaison_tests::postgres::Server;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut command = std::env::args_os().skip(1);
    let program = command.next().context("say which command")?;
    let server = Server::start().await?;
    let status =
        Command::new(program).args(command).env("LIAISON_POSTGRES", server.url("postgres")).status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
