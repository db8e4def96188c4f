//! All runs, in rounds in which they take turns: whatever else the machine does falls on all of them alike.

use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use anyhow::{Context, Result};
use liaison_demo::Programs;
use tokio::time::timeout;

use crate::{
    Against,
    broker::{nats::Nats, rabbitmq::RabbitMq},
    echo::{Echo, Shape},
    gateway::GatewayAlone,
    limits,
    report::{Summary, median},
    road::Road,
    round::{Load, Outcome, Pace},
    system::{Ground, System},
};

/// Everything that was started.
pub(crate) struct Runs {
    runs: Vec<Run>,
    systems: Vec<Box<dyn System>>,
    load: Load,
    /// Last, so that it is there as long as what writes to it.
    _ground: Ground,
}

/// One system at one pace.
struct Run {
    name: &'static str,
    /// Of the system, among all.
    system: usize,
    pace: Paced,
    rounds: Vec<Outcome>,
}

/// At which pace a run goes.
enum Paced {
    As(Pace),
    /// An open loop at half of what the run before it does at the most.
    Half,
}

impl Runs {
    /// Starts all systems.
    pub(crate) async fn start(against: &[Against], load: Load) -> Result<Self> {
        let (programs, ground) = (Programs::beside_this_one()?, Ground::new()?);
        let connections = load.connections;
        let mut runs = Self { runs: Vec::new(), systems: Vec::new(), load, _ground: ground };
        let folder = runs._ground.folder("gateway")?;
        runs.add(GatewayAlone::start(&programs, &folder, connections).await?, "gateway");
        let folder = runs._ground.folder("road")?;
        runs.add(Road::start(&programs, &folder).await?, "road");
        if load.pace == Pace::Closed {
            runs.more("road_half", Paced::Half);
        }
        runs.more("road_idle", Paced::As(Pace::Alone));
        for peer in [Against::Postgres, Against::Echo, Against::Stream, Against::Nats, Against::Rabbitmq] {
            if !against.contains(&peer) {
                continue;
            }
            let ground = &runs._ground;
            match peer {
                Against::Postgres => {
                    let folder = ground.folder("gateway_postgres")?;
                    let gateway = GatewayAlone::on_postgres(&programs, &folder, connections).await?;
                    runs.add(gateway, "gateway_postgres");
                }
                Against::Echo => {
                    let echo = Echo::start(ground, Shape::Unary).await?;
                    runs.add(echo, "echo");
                }
                Against::Stream => {
                    let stream = Echo::start(ground, Shape::Stream).await?;
                    runs.add(stream, "stream");
                }
                Against::Nats => {
                    let always = Nats::start(ground, true).await?;
                    let default = Nats::start(ground, false).await?;
                    runs.add(always, "nats_sync_always");
                    runs.add(default, "nats_default");
                }
                Against::Rabbitmq => {
                    let rabbitmq = RabbitMq::start(ground).await?;
                    runs.add(rabbitmq, "rabbitmq_quorum");
                }
            }
        }
        Ok(runs)
    }

    fn add(&mut self, system: impl System + 'static, name: &'static str) {
        self.systems.push(Box::new(system));
        self.more(name, Paced::As(self.load.pace));
    }

    /// Another run of the system that was added last.
    fn more(&mut self, name: &'static str, pace: Paced) {
        self.runs.push(Run { name, system: self.systems.len() - 1, pace, rounds: Vec::new() });
    }

    /// Measures each for so long.
    pub(crate) async fn measure(&mut self, each: Duration) -> Result<Vec<Summary>> {
        let rounds = (each.as_secs_f64() / limits::ROUND.as_secs_f64()).round() as u32;
        let rounds = rounds.clamp(1, limits::ROUNDS);
        // The first one warms up: connections, caches, what decides how much is made beforehand.
        let mut rates = self.round(limits::WARM_UP, &[], "warming up").await?;
        for run in &mut self.runs {
            run.rounds.clear();
        }
        for number in 1..=rounds {
            rates = self.round(each / rounds, &rates, &format!("round {number} of {rounds}")).await?;
        }
        progress("");
        self.runs.iter().map(|run| Summary::of(run.name, &run.rounds)).collect()
    }

    /// One round of each. `rates` are what they did in the round before; what they did in this one.
    async fn round(&mut self, lasts: Duration, rates: &[f64], what: &str) -> Result<Vec<f64>> {
        let mut last = 0.0;
        let count = self.runs.len();
        for (at, run) in self.runs.iter_mut().enumerate() {
            progress(&bar(what, run.name, at, count));
            let pace = match run.pace {
                Paced::As(pace) => pace,
                Paced::Half => Pace::Open((last / 2.0_f64).max(1.0)),
            };
            let load = Load { pace, lasts, ..self.load };
            let system = self.systems.get_mut(run.system).context("a run has a system")?;
            system.prepare(load.messages(rates.get(at).copied())).await?;
            let outcome = timeout(lasts + limits::START + 2 * limits::DRAIN, system.round(&load)).await;
            let outcome = outcome
                .context("it takes too long")
                .flatten()
                .with_context(|| format!("in the run `{}`", run.name))?;
            run.rounds.push(outcome);
            // Of all rounds so far, so that one that was disturbed does not decide.
            last = median(run.rounds.iter().map(Outcome::rate).collect());
        }
        Ok(self.runs.iter().map(|run| run.rounds.last().map_or(0.0, Outcome::rate)).collect())
    }
}

fn bar(what: &str, name: &str, done: usize, all: usize) -> String {
    let full = "#".repeat(done);
    format!("[{full:<all$}] {what}: {name}")
}

/// Replaces the line on a terminal.
fn progress(line: &str) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        // Nothing depends on what is shown.
        let _ = write!(stderr, "\r\x1b[K{line}");
        let _ = stderr.flush();
    }
}
