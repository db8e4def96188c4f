//! `liaison-agent run`.

use std::{io::IsTerminal as _, sync::Arc};

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::Context;
use crate::{agent::Agent, case};

/// What `run` is given.
#[derive(Args)]
pub(super) struct Run {
    /// How the log is written to standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Json,
    Text,
}

impl Run {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<()> {
        log(self.log_format);
        let stop = CancellationToken::new();
        stop_on_signal(&stop)?;
        let agent = Arc::new(Agent::open(context.folder).await?);
        let grpc = case::listen(agent.config.grpc).await?;
        let rest = case::listen(agent.config.rest).await?;
        tracing::info!(
            agency = %agent.address,
            grpc = %grpc.local_addr()?,
            rest = %rest.local_addr()?,
            version = env!("CARGO_PKG_VERSION"),
            "started"
        );
        tokio::try_join!(
            case::grpc::serve(Arc::clone(&agent), grpc, stop.clone()),
            case::rest::serve(Arc::clone(&agent), rest, stop.clone()),
            async {
                agent.run(&stop).await;
                Ok(())
            },
        )?;
        agent.store.close().await;
        tracing::info!("stopped");
        Ok(())
    }
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_env("LIAISON_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // A line that can't be written, because the disk is full, would be told on stderr, and panic.
        .log_internal_errors(false);
    match format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.init(),
    }
}

/// SIGTERM and SIGINT end the agent; what is under way gets its answers first.
fn stop_on_signal(stop: &CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}
