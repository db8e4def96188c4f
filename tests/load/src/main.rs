//! `cargo load`: how much a gateway and the whole road carry, beside bare gRPC and message brokers on the same machine.
//! `docs/load.md` tells the method.

mod agencies;
mod broker;
mod echo;
mod fanout;
mod gateway;
mod growth;
mod limits;
mod message;
mod plot;
mod report;
mod road;
mod round;
mod runs;
mod soak;
mod system;
mod turns;
mod usage;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum, value_parser};
use liaison_demo::Programs;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    round::{Load, Pace},
    runs::Runs,
};

/// Measures a gateway and the road between two case APIs, all of it durable, on this machine's loopback and disk.
#[derive(Debug, Parser)]
#[command(version, subcommand_negates_reqs = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print one JSON object instead of the table
    #[arg(long, global = true)]
    json: bool,
    /// How long each system is measured, in rounds in which they take turns
    #[arg(long, default_value_t = 20, value_parser = value_parser!(u32).range(limits::SECONDS))]
    seconds: u32,
    /// What to compare with; NATS and RabbitMQ are installed where they are missing
    #[arg(long, value_delimiter = ',')]
    against: Vec<Against>,
    /// Offer so many messages a second to each system, done or not, instead of as many as it takes
    #[arg(long, value_parser = value_parser!(u32).range(limits::RATE))]
    rate: Option<u32>,
    /// Connections to each system
    #[arg(long, default_value_t = 16, value_parser = value_parser!(u32).range(limits::CONNECTIONS))]
    connections: u32,
    /// Messages under way on each connection
    #[arg(long, default_value_t = 16, value_parser = value_parser!(u32).range(limits::IN_FLIGHT))]
    in_flight: u32,
    /// Draw the latencies into this file
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Use the gateway and the agent that were built before
    #[arg(long, global = true)]
    no_build: bool,
}

/// What else this program does.
#[derive(Debug, Subcommand)]
enum Command {
    /// Drives a gateway at half of what it can for long
    Soak(soak::Options),
    /// Connects many agencies, and alerts them
    Fanout(fanout::Options),
    /// Compares a gateway of 5,000 agencies and 10,000 policies with one of few
    Agencies,
    /// Compares a gateway with many messages behind it with one that has none
    Growth(growth::Options),
    /// What it is in the processes that it starts
    #[command(hide = true)]
    ServeEcho { address: SocketAddr, certificates: PathBuf },
}

/// What to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Against {
    /// The gateway on PostgreSQL in the place of SQLite; needs Debian's package postgresql
    Postgres,
    /// gRPC calls over mTLS that are only sent back
    Echo,
    /// The same on streams
    Stream,
    /// NATS JetStream, syncing each message and in its default
    Nats,
    /// RabbitMQ with quorum queues
    Rabbitmq,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Command::ServeEcho { address, certificates }) = &arguments.command {
        return echo::serve(*address, certificates).await;
    }
    let mut terminated = signal(SignalKind::terminate())?;
    // Whatever ends this program, what it started ends with it.
    tokio::select! {
        result = measure(&arguments) => result,
        interrupted = tokio::signal::ctrl_c() => interrupted.context("can't listen for Ctrl-C"),
        _ = terminated.recv() => Ok(()),
    }
}

async fn measure(arguments: &Arguments) -> Result<()> {
    if !arguments.no_build {
        Programs::build().await?;
    }
    // The brokers' clients take the process's provider.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let load = Load {
        pace: arguments.rate.map_or(Pace::Closed, |rate| Pace::Open(rate.into())),
        connections: arguments.connections as usize,
        in_flight: arguments.in_flight as usize,
        lasts: limits::WARM_UP,
    };
    match &arguments.command {
        Some(Command::Soak(options)) => return soak::run(options, load, arguments.json).await,
        Some(Command::Fanout(options)) => return fanout::run(options, load, arguments.json).await,
        Some(Command::Agencies) => return agencies::run(load, arguments.json).await,
        Some(Command::Growth(options)) => return growth::run(options, load, arguments.json).await,
        Some(Command::ServeEcho { .. }) | None => {}
    }
    let mut runs = Runs::start(&arguments.against, load).await?;
    let summaries = runs.measure(Duration::from_secs(arguments.seconds.into())).await?;
    if let Some(file) = &arguments.svg {
        std::fs::write(file, plot::svg(&summaries))
            .with_context(|| format!("{} can't be written", file.display()))?;
    }
    if arguments.json {
        println!("{}", report::json(&summaries));
    } else {
        print!("{}", report::table(&summaries));
    }
    Ok(())
}
