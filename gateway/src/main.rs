//! The program of one domain's gateway.

use std::process::ExitCode;

use clap::Parser;
use liaison_gateway::cli;

fn main() -> ExitCode {
    // One provider of cryptography for whatever asks the process for it. There is none yet, so that
    // this can't fail.
    _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments = cli::Arguments::parse();
    let json = arguments.json;

    let outcome = tokio::runtime::Runtime::new()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(cli::execute(arguments)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::report(&error, json),
    }
}
