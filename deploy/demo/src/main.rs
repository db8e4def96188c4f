//! `cargo demo`: a federation of real processes on this machine, a referral and an alert that cross
//! it, and the story of who got what.

mod cast;
mod federation;
mod ground;
mod story;

use anyhow::{Context, Result};
use clap::Parser;
use liaison_demo::Programs;
use tokio::signal::unix::{SignalKind, signal};

use crate::{federation::Federation, ground::Ground};

/// Starts two domains with their agencies, peers them, sends a referral and an alert across, and tells who got what.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// End after the story, with status 0 only if all of it happened
    #[arg(long)]
    once: bool,
    /// Print one JSON object instead of the story
    #[arg(long)]
    json: bool,
    /// Use the gateway and the agent that were built before
    #[arg(long)]
    no_build: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut terminated = signal(SignalKind::terminate())?;
    // Whatever ends the demonstration, what it started ends with it.
    tokio::select! {
        result = demonstrate(&arguments) => result,
        interrupted = tokio::signal::ctrl_c() => interrupted.context("can't listen for Ctrl-C"),
        _ = terminated.recv() => Ok(()),
    }
}

async fn demonstrate(arguments: &Arguments) -> Result<()> {
    if !arguments.no_build {
        Programs::build().await?;
    }
    let programs = Programs::beside_this_one()?;
    let ground = Ground::claim()?;
    let federation = Federation::start(&programs, ground.folder(), &cast::DOMAINS).await?;
    federation.write_record(ground.folder())?;
    let story = story::play(&federation, ground.folder()).await?;
    if arguments.json {
        println!("{}", serde_json::to_string(&story)?);
    } else {
        story.tell();
    }
    story.check()?;
    if !arguments.once {
        if !arguments.json {
            federation.tell(ground.folder());
        }
        std::future::pending::<()>().await;
    }
    Ok(())
}
