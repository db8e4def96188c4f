//! What was measured, as a table for people and as JSON for programs.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::round::{self, Outcome};

/// The comparisons, where both were run.
const RATIOS: [(&str, &str); 7] = [
    ("gateway_postgres", "gateway"),
    ("gateway", "echo"),
    ("gateway", "stream"),
    ("gateway", "nats_sync_always"),
    ("gateway", "nats_default"),
    ("gateway", "rabbitmq_quorum"),
    ("road", "nats_sync_always"),
];

/// All rounds of one run together.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) name: &'static str,
    /// The median of the rounds.
    pub(crate) rate: f64,
    messages: u64,
    /// Latencies, microseconds.
    accepted: Histogram<u64>,
    pub(crate) delivered: Histogram<u64>,
    processes: Vec<ProcessSummary>,
    /// CPU of this program, microseconds a message.
    generator: f64,
    /// Bytes a message that stay on disk.
    left: f64,
}

#[derive(Debug)]
struct ProcessSummary {
    name: String,
    /// Microseconds a message.
    cpu: f64,
    /// Bytes a message.
    written: f64,
    /// Bytes.
    peak: u64,
}

impl Summary {
    pub(crate) fn of(name: &'static str, rounds: &[Outcome]) -> Result<Self> {
        let (mut accepted, mut delivered) = (round::histogram()?, round::histogram()?);
        for outcome in rounds {
            accepted.add(&outcome.accepted)?;
            delivered.add(&outcome.delivered)?;
        }
        let messages: u64 = rounds.iter().map(|outcome| outcome.done).sum();
        let each = |total: f64| total / messages.max(1) as f64;
        let mut processes: Vec<ProcessSummary> = Vec::new();
        for outcome in rounds {
            let uses = outcome.before.processes.iter().zip(&outcome.after.processes);
            for (at, (name, (before, after))) in outcome.processes.iter().zip(uses).enumerate() {
                if processes.len() == at {
                    processes.push(ProcessSummary { name: name.clone(), cpu: 0.0, written: 0.0, peak: 0 });
                }
                let Some(process) = processes.get_mut(at) else { continue };
                process.cpu += each(micros(before.cpu, after.cpu));
                process.written += each(after.written.saturating_sub(before.written) as f64);
                process.peak = process.peak.max(after.peak);
            }
        }
        let sum = |of: &dyn Fn(&Outcome) -> f64| rounds.iter().map(of).sum::<f64>();
        Ok(Self {
            name,
            rate: median(rounds.iter().map(Outcome::rate).collect()),
            messages,
            accepted,
            delivered,
            processes,
            generator: each(sum(&|outcome| {
                micros(outcome.before.generator_cpu, outcome.after.generator_cpu)
            })),
            left: each(sum(&|outcome| outcome.after.disk as f64 - outcome.before.disk as f64)),
        })
    }

    /// Of all processes of the system, microseconds a message.
    pub(crate) fn cpu(&self) -> f64 {
        self.processes.iter().map(|process| process.cpu).sum()
    }

    fn written(&self) -> f64 {
        self.processes.iter().map(|process| process.written).sum()
    }

    pub(crate) fn to_json(&self) -> Value {
        let processes: Vec<Value> = self
            .processes
            .iter()
            .map(|process| {
                json!({
                    "name": process.name,
                    "cpu_us_per_msg": rounded(process.cpu),
                    "written_bytes_per_msg": rounded(process.written),
                    "peak_rss_bytes": process.peak,
                })
            })
            .collect();
        json!({
            "name": self.name,
            "msgs_per_s": rounded(self.rate),
            "p50_ms": milliseconds(&self.delivered, 0.5),
            "p99_ms": milliseconds(&self.delivered, 0.99),
            "p999_ms": milliseconds(&self.delivered, 0.999),
            "accepted_p50_ms": milliseconds(&self.accepted, 0.5),
            "accepted_p99_ms": milliseconds(&self.accepted, 0.99),
            "cpu_us_per_msg": rounded(self.cpu()),
            "generator_cpu_us_per_msg": rounded(self.generator),
            "written_bytes_per_msg": rounded(self.written()),
            "left_bytes_per_msg": rounded(self.left),
            "messages": self.messages,
            "processes": processes,
        })
    }
}

/// One JSON object.
pub(crate) fn json(summaries: &[Summary]) -> Value {
    let runs: Vec<Value> = summaries.iter().map(Summary::to_json).collect();
    let ratios: Map<String, Value> =
        ratios(summaries).into_iter().map(|(name, ratio)| (name, json!(ratio))).collect();
    json!({ "runs": runs, "ratios": ratios })
}

/// A table.
pub(crate) fn table(summaries: &[Summary]) -> String {
    let mut text = format!(
        "{:<18}{:>9}{:>10}{:>10}{:>10}{:>12}{:>10}{:>12}{:>11}\n",
        "", "msgs/s", "p50 ms", "p99 ms", "p999 ms", "accepted ms", "cpu us", "written B", "left B"
    );
    for run in summaries {
        text += &format!(
            "{:<18}{:>9.0}{:>10.2}{:>10.2}{:>10.2}{:>12.2}{:>10.1}{:>12.0}{:>11.0}\n",
            run.name,
            run.rate,
            milliseconds(&run.delivered, 0.5),
            milliseconds(&run.delivered, 0.99),
            milliseconds(&run.delivered, 0.999),
            milliseconds(&run.accepted, 0.5),
            run.cpu(),
            run.written(),
            run.left,
        );
    }
    text += "\nCPU a message, microseconds, and the most memory, MiB\n";
    for run in summaries {
        let shares = run.processes.iter().map(|process| {
            format!("{} {:.1} ({:.0})", process.name, process.cpu, process.peak as f64 / f64::from(1 << 20))
        });
        let shares: Vec<String> = shares.collect();
        text += &format!("{:<18}{}; this program {:.1}\n", run.name, shares.join(", "), run.generator);
    }
    let ratios = ratios(summaries);
    if !ratios.is_empty() {
        text += "\nRatios of msgs/s\n";
    }
    for (name, ratio) in ratios {
        text += &format!("{name:<28}{ratio:>8.3}\n");
    }
    text
}

fn ratios(summaries: &[Summary]) -> BTreeMap<String, f64> {
    let rate = |name: &str| summaries.iter().find(|run| run.name == name).map(|run| run.rate);
    let ratio = |(one, other): &(&str, &str)| {
        let ratio = rate(one)? / rate(other).filter(|rate| *rate > 0.0)?;
        Some((format!("{one}/{other}"), (ratio * 1e3).round() / 1e3))
    };
    RATIOS.iter().filter_map(ratio).collect()
}

/// The median; of an even number, the higher one of the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// A quantile of latencies.
pub(crate) fn milliseconds(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1e3
}

fn micros(before: Duration, after: Duration) -> f64 {
    after.saturating_sub(before).as_secs_f64() * 1e6
}

/// With one decimal.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::{ProcessUse, Used};

    fn outcome(done: u64, cpu_ms: u64) -> Outcome {
        let used = |cpu, disk| Used {
            processes: vec![ProcessUse { cpu, written: disk * 2, peak: 5, memory: 4 }],
            generator_cpu: cpu / 2,
            disk,
        };
        let mut delivered = round::histogram().unwrap();
        delivered.record_n(2_000, done).unwrap();
        Outcome {
            lasted: Duration::from_secs(1),
            done,
            done_in_time: done,
            accepted: round::histogram().unwrap(),
            delivered,
            processes: vec!["server".to_owned()],
            before: used(Duration::ZERO, 0),
            after: used(Duration::from_millis(cpu_ms), done * 10),
        }
    }

    #[test]
    fn rounds_are_put_together() {
        let echo = Summary::of("echo", &[outcome(100, 10), outcome(300, 30), outcome(200, 20)]).unwrap();
        let gateway = Summary::of("gateway", &[outcome(100, 40)]).unwrap();
        let json = json(&[gateway, echo]);
        assert_eq!(json["ratios"], json!({ "gateway/echo": 0.5 }));
        let echo = &json["runs"][1];
        assert_eq!((&echo["msgs_per_s"], &echo["cpu_us_per_msg"]), (&json!(200.0), &json!(100.0)));
        assert_eq!((&echo["messages"], &echo["left_bytes_per_msg"]), (&json!(600), &json!(10.0)));
        assert_eq!(echo["written_bytes_per_msg"], json!(20.0));
        assert_eq!(echo["generator_cpu_us_per_msg"], json!(50.0));
        assert_eq!(echo["p50_ms"], json!(2.0));
    }
}
