//! `liaison-agent`: see `liaison-agent --help`.

use std::process::ExitCode;

use clap::Parser;
use liaison_agent::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("liaison-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
