//! A soak: a gateway in an open loop for long, and whether it is at the end what it was at the beginning.

use std::{
    fs::File,
    io::Write as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::{Args, value_parser};
use liaison_demo::Programs;
use serde_json::{Value, json};

use crate::{
    gateway::{GatewayAlone, stock::Haste},
    limits,
    report::{median, milliseconds, rounded},
    round::{Load, Outcome, Pace},
    system::{Ground, System as _},
    usage,
};

/// How long, and how much.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long it lasts
    #[arg(long, default_value_t = 60, value_parser = value_parser!(u32).range(limits::MINUTES))]
    minutes: u32,
    /// Messages a second; half of the most that the gateway does, if nothing is said
    #[arg(long, value_parser = value_parser!(u32).range(limits::RATE))]
    rate: Option<u32>,
    /// Append what each minute came to to this file, a JSON object a line
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What one minute came to.
#[derive(Debug, Clone, PartialEq)]
struct Minute {
    done: u64,
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// What the gateway has at the minute's end, bytes.
    memory: u64,
    /// CPU of the gateway, microseconds a message.
    cpu: f64,
    /// Processors that everything else on the machine took.
    others: f64,
    /// Of the gateway's folder at the minute's end, bytes.
    disk: u64,
}

/// Runs it and prints what it came to.
pub(crate) async fn run(options: &Options, load: Load, json: bool) -> Result<()> {
    let mut out = match &options.out {
        Some(file) => {
            let opened = File::options().create(true).append(true).open(file);
            Some(opened.with_context(|| format!("{} can't be written", file.display()))?)
        }
        None => None,
    };
    let (programs, ground) = (Programs::beside_this_one()?, Ground::new()?);
    let folder = ground.folder("gateway")?;
    let mut gateway = GatewayAlone::start(&programs, &folder, load.connections).await?;
    gateway.mix().await?;
    let maximum = match options.rate {
        Some(_) => None,
        None => Some(maximum(&mut gateway, &load).await?),
    };
    let rate = options.rate.map_or(maximum.unwrap_or_default() / 2.0, f64::from);
    let head = json!({ "maximum_msgs_per_s": maximum.map(rounded), "offered_msgs_per_s": rounded(rate) });
    eprintln!("{head}");
    tell(&mut out, &head)?;

    let load = Load { pace: Pace::Open(rate), lasts: limits::MINUTE, ..load };
    let each = load.messages(None).div_ceil(load.connections as u64);
    let mut stock = gateway.cast().seal(each, Haste::Now).await?;
    let mut minutes = Vec::new();
    for number in 1..=options.minutes {
        gateway.fill(std::mem::take(&mut stock));
        // Whoever seals for the next minute works beside this one, in each alike.
        let next = tokio::spawn(gateway.cast().seal(each, Haste::Aside));
        let (clock, busy) = (Instant::now(), usage::machine()?);
        let outcome = gateway.round(&load).await.with_context(|| format!("in minute {number}"))?;
        let busy = (usage::machine()?.saturating_sub(busy)).as_secs_f64();
        let minute = Minute::of(&outcome, busy, clock.elapsed());
        let told = minute.to_json(number);
        eprintln!("{told}");
        tell(&mut out, &told)?;
        minutes.push(minute);
        stock = next.await??;
    }
    let end = compared(&minutes);
    tell(&mut out, &end)?;
    if json {
        let minutes: Vec<Value> =
            (1..).zip(&minutes).map(|(number, minute)| minute.to_json(number)).collect();
        println!("{}", json!({ "soak": head, "minutes": minutes, "last_to_first": end }));
    } else {
        println!("{end:#}");
    }
    Ok(())
}

/// Messages a second in a closed loop, the median of rounds.
async fn maximum(gateway: &mut GatewayAlone, load: &Load) -> Result<f64> {
    let outcomes = gateway.closed(load, limits::MAXIMUM_ROUNDS).await?;
    Ok(median(outcomes.iter().map(Outcome::rate).collect()))
}

fn tell(out: &mut Option<File>, line: &Value) -> Result<()> {
    if let Some(out) = out {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

impl Minute {
    /// `busy` is for how long the machine's processors worked meanwhile, for anybody, in seconds.
    fn of(outcome: &Outcome, busy: f64, lasted: Duration) -> Self {
        let gateway = outcome.after.processes.first().copied().unwrap_or_default();
        let before = outcome.before.processes.first().copied().unwrap_or_default();
        let cpu = gateway.cpu.saturating_sub(before.cpu).as_secs_f64();
        let generator = outcome.after.generator_cpu.saturating_sub(outcome.before.generator_cpu);
        Self {
            done: outcome.done,
            rate: outcome.rate(),
            p50_ms: milliseconds(&outcome.delivered, 0.5),
            p99_ms: milliseconds(&outcome.delivered, 0.99),
            memory: gateway.memory,
            cpu: cpu * 1e6 / outcome.done.max(1) as f64,
            others: ((busy - cpu - generator.as_secs_f64()) / lasted.as_secs_f64()).max(0.0),
            disk: outcome.after.disk,
        }
    }

    fn to_json(&self, number: u32) -> Value {
        json!({
            "minute": number,
            "done": self.done,
            "msgs_per_s": rounded(self.rate),
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "rss_bytes": self.memory,
            "cpu_us_per_msg": rounded(self.cpu),
            "disk_bytes": self.disk,
            "others_cpus": rounded(self.others),
        })
    }
}

/// The last quarter against the first, without the minute that warms up; of each the median of its minutes.
fn compared(minutes: &[Minute]) -> Value {
    let counted = minutes.get(1..).unwrap_or_default();
    let quarter = counted.len().div_ceil(4);
    let first = counted.get(..quarter).unwrap_or_default();
    let last = counted.get(counted.len() - quarter..).unwrap_or_default();
    let ratio = |of: fn(&Minute) -> f64| {
        let [first, last] = [first, last].map(|part| median(part.iter().map(of).collect()));
        (last / first * 1e3).round() / 1e3
    };
    json!({
        "minutes_of_a_quarter": quarter,
        "memory": ratio(|minute| minute.memory as f64),
        "p50": ratio(|minute| minute.p50_ms),
        "p99": ratio(|minute| minute.p99_ms),
        "cpu": ratio(|minute| minute.cpu),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_quarter_is_compared_with_the_first_after_the_warm_up() {
        let minute = |memory, p99_ms| Minute {
            done: 1,
            rate: 1.0,
            p50_ms: 2.0,
            p99_ms,
            memory,
            cpu: 3.0,
            others: 0.0,
            disk: 0,
        };
        let mut minutes = vec![minute(1_000_000, 900.0)];
        minutes.extend((0..8).map(|number| minute(100 + number * 10, 4.0)));
        let end = compared(&minutes);
        assert_eq!(end["minutes_of_a_quarter"], 2);
        // 110 and 170: of two, the higher one of the middle.
        assert_eq!(end["memory"], 1.545);
        assert_eq!((&end["p50"], &end["p99"], &end["cpu"]), (&json!(1.0), &json!(1.0), &json!(1.0)));
        assert_eq!(compared(&minutes[..2])["minutes_of_a_quarter"], 1);
    }
}
