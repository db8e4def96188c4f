//! `run`: the gateway itself.

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, fmt, util::SubscriberInitExt};

use crate::{config::Config, data::DataFolder, run};

/// How to run.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How log lines look on stderr; RUST_LOG sets their level
    #[arg(long, value_enum, default_value = "json", value_name = "FORMAT")]
    log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// One JSON object a line
    Json,
    /// Text for people
    Text,
}

pub(super) async fn execute(folder: &DataFolder, arguments: &Arguments) -> anyhow::Result<()> {
    let config = Config::load(&folder.config())?;
    start_logging(arguments.log_format);
    run::run(folder, &config).await?;
    Ok(())
}

fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // A line that can't be written, because the disk is full, would be told on stderr, and panic.
        .log_internal_errors(false);
    match format {
        LogFormat::Json => lines.json().flatten_event(true).finish().init(),
        LogFormat::Text => lines.finish().init(),
    }
}
