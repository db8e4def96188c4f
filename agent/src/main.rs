//! `liaison-agent`: see `liaison-agent --help`.

use std::process::ExitCode;

use clap::Parser;
use liaison_agent::cli::{self, Cli};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.json;
    match cli.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::report(&error, json);
            ExitCode::FAILURE
        }
    }
}
