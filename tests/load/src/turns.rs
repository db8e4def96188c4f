//! Two gateways in turns, one of which has much of something: what that costs it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use liaison_demo::http;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    gateway::GatewayAlone,
    limits,
    report::{Summary, median, rounded},
    round::{Load, Outcome, Pace},
    system::System as _,
};

/// A gateway of the two, what it is called, and what it did.
pub(crate) struct Side {
    name: &'static str,
    gateway: GatewayAlone,
    rounds: Vec<Outcome>,
    /// How long each start took, milliseconds.
    starts: Vec<f64>,
}

impl Side {
    pub(crate) fn new(name: &'static str, gateway: GatewayAlone) -> Self {
        Self { name, gateway, rounds: Vec::new(), starts: Vec::new() }
    }

    async fn round(&mut self, load: &Load) -> Result<()> {
        self.gateway.prepare(load.messages(self.rounds.last().map(Outcome::rate))).await?;
        let outcome = self.gateway.round(load).await;
        self.rounds.push(outcome.with_context(|| format!("in the run `{}`", self.name))?);
        Ok(())
    }

    /// Ends it as an administrator would, and starts it again.
    async fn start(&mut self) -> Result<()> {
        self.gateway.stop().await?;
        let ready = ready(self.gateway.gateway().metrics(), Instant::now());
        let (started, took) = tokio::join!(self.gateway.start_again(), timeout(limits::START, ready));
        started?;
        self.starts.push(took?.as_secs_f64() * 1e3);
        Ok(())
    }

    /// What it did, and the median of its starts.
    fn told(&self) -> Result<(Summary, f64)> {
        let counted = self.rounds.get(1..).unwrap_or_default();
        Ok((Summary::of(self.name, counted)?, median(self.starts.clone())))
    }
}

/// How long it took since a moment until a gateway said that it is ready.
async fn ready(at: SocketAddr, since: Instant) -> Duration {
    loop {
        let answer = http::request(at, "GET", "/readyz", &[], &[]).await;
        if answer.is_ok_and(|answer| answer.status == 200) {
            return since.elapsed();
        }
        sleep(limits::LOOK).await;
    }
}

/// Prints how the second compares with the first, and what it has much of.
pub(crate) async fn tell((little, much): (Side, Side), about: Value, load: &Load, json: bool) -> Result<()> {
    let mut compared = compare(little, much, load).await?;
    if let Some(compared) = compared.as_object_mut() {
        compared.insert("about".to_owned(), about);
    }
    if json {
        println!("{compared}");
    } else {
        println!("{compared:#}");
    }
    Ok(())
}

/// Messages in a closed loop, and starts. Medians; the round that warms up doesn't count.
async fn compare(mut little: Side, mut much: Side, load: &Load) -> Result<Value> {
    for number in 0..=limits::TURNS {
        eprintln!("round {number} of {}", limits::TURNS);
        let lasts = if number == 0 { limits::WARM_UP } else { limits::ROUND };
        let load = Load { pace: Pace::Closed, lasts, ..*load };
        // Each comes first in every other round.
        let both = if number % 2 == 0 { [&mut little, &mut much] } else { [&mut much, &mut little] };
        for side in both {
            side.round(&load).await?;
        }
    }
    for number in 1..=limits::STARTS {
        eprintln!("start {number} of {}", limits::STARTS);
        little.start().await?;
        much.start().await?;
    }
    let [little, much] = [little.told()?, much.told()?];
    let ratio = |one: f64, other: f64| (one / other * 1e3).round() / 1e3;
    Ok(json!({
        "runs": [little.0.to_json(), much.0.to_json()],
        "start_ms": { little.0.name: rounded(little.1), much.0.name: rounded(much.1) },
        "ratios": {
            "msgs_per_s": ratio(much.0.rate, little.0.rate),
            "cpu": ratio(much.0.cpu(), little.0.cpu()),
            "start": ratio(much.1, little.1),
        },
    }))
}
