//! One round of one system: who may send when, and what is measured.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    limits,
    usage::{Used, Watched},
};

/// When messages are offered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// One at a time, each after a pause.
    Alone,
    /// The next one as soon as one is done.
    Closed,
    /// So many a second, whether or not others are done.
    Open(f64),
}

/// How a system is driven in one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) pace: Pace,
    pub(crate) connections: usize,
    /// Messages under way on each.
    pub(crate) in_flight: usize,
    pub(crate) lasts: Duration,
}

/// A round under way. What is under way when its time is over is waited for, and counts in latencies and in what a
/// message costs, not in the throughput.
pub(crate) struct Round {
    load: Load,
    start: Instant,
    end: Mutex<Instant>,
    /// Room on each connection.
    room: Vec<Semaphore>,
    offered: AtomicU64,
    done: AtomicU64,
    done_in_time: AtomicU64,
    one_done: Notify,
    accepted: Latencies,
    delivered: Latencies,
    watched: Watched,
    used: Used,
}

/// Latencies, microseconds.
struct Latencies(Mutex<Histogram<u64>>);

/// What a round came to.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) lasted: Duration,
    /// All that were done, and those while the round lasted.
    pub(crate) done: u64,
    pub(crate) done_in_time: u64,
    /// From the offer to the sender's answer, and to the recipient's having it; microseconds.
    pub(crate) accepted: Histogram<u64>,
    pub(crate) delivered: Histogram<u64>,
    pub(crate) processes: Vec<String>,
    pub(crate) before: Used,
    pub(crate) after: Used,
}

impl Load {
    /// How many connections this takes.
    pub(crate) fn connections(&self) -> usize {
        if self.pace == Pace::Alone { 1 } else { self.connections }
    }

    /// How many messages may be under way on each.
    pub(crate) fn in_flight(&self) -> usize {
        if self.pace == Pace::Alone { 1 } else { self.in_flight }
    }

    /// How many messages this takes at the most, by what was done in a second before.
    pub(crate) fn messages(&self, rate: Option<f64>) -> u64 {
        let seconds = self.lasts.as_secs_f64();
        match (self.pace, rate) {
            (Pace::Open(rate), _) => (rate * seconds) as u64 + self.connections as u64,
            // Half as many again, for a round may be quicker than the one before; and as many as are under way at its
            // end.
            (_, Some(rate)) => {
                let more = (self.connections * self.in_flight) as u64;
                ((rate * seconds * 1.5) as u64 + more).max(limits::FIRST_STOCK)
            }
            (_, None) => limits::FIRST_STOCK,
        }
    }
}

impl Round {
    /// The clock starts now.
    pub(crate) fn start(load: &Load, watched: Watched) -> Result<Arc<Self>> {
        let used = watched.used()?;
        let start = Instant::now();
        Ok(Arc::new(Self {
            load: *load,
            start,
            end: Mutex::new(start + load.lasts),
            room: (0..load.connections()).map(|_| Semaphore::new(load.in_flight())).collect(),
            offered: AtomicU64::new(0),
            done: AtomicU64::new(0),
            done_in_time: AtomicU64::new(0),
            one_done: Notify::new(),
            accepted: Latencies::new()?,
            delivered: Latencies::new()?,
            watched,
            used,
        }))
    }

    /// Waits until a connection may send its next message, of which `number` is counted from 0: the moment from which
    /// its latency counts. In an open loop that is when it was due, however late it gets its turn. None once the round
    /// is over.
    pub(crate) async fn turn(&self, connection: usize, number: u64) -> Option<Instant> {
        let mut due = None;
        if let Pace::Open(rate) = self.load.pace {
            let place = number as f64 * self.load.connections() as f64 + connection as f64;
            let at = self.start + Duration::from_secs_f64(place / rate);
            if at >= self.end() {
                return None;
            }
            sleep_until(at).await;
            due = Some(at);
        }
        let room = self.room.get(connection)?.acquire();
        let Ok(Ok(turn)) = timeout(self.end().saturating_duration_since(Instant::now()), room).await else {
            return None;
        };
        if self.load.pace == Pace::Alone {
            sleep(limits::REST).await;
        }
        if Instant::now() >= self.end() {
            return None;
        }
        turn.forget();
        self.offered.fetch_add(1, Ordering::Relaxed);
        Some(due.unwrap_or_else(Instant::now))
    }

    /// Whether latency counts from when a message was due.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.load.pace, Pace::Open(_))
    }

    /// The sender has its answer.
    pub(crate) fn accepted(&self, since: Instant) {
        self.accepted.record(since);
    }

    /// The recipient has the message.
    pub(crate) fn delivered(&self, since: Instant) {
        self.delivered.record(since);
    }

    /// Nothing more comes of a message: another one may go on its connection.
    pub(crate) fn done(&self, connection: usize) {
        if Instant::now() < self.end() {
            self.done_in_time.fetch_add(1, Ordering::Relaxed);
        }
        self.done.fetch_add(1, Ordering::Relaxed);
        if let Some(room) = self.room.get(connection) {
            room.add_permits(1);
        }
        self.one_done.notify_one();
    }

    /// Ends the round before its time: there is nothing more to send.
    pub(crate) fn end_now(&self) {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        *end = Instant::now().min(*end);
    }

    fn end(&self) -> Instant {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until those who send have sent and all of it is done. Those who receive run until then.
    pub(crate) async fn run(
        &self,
        mut senders: JoinSet<Result<()>>,
        mut receivers: JoinSet<Result<()>>,
    ) -> Result<()> {
        let sent_and_done = async {
            while let Some(ended) = senders.join_next().await {
                ended??;
            }
            while self.done.load(Ordering::Relaxed) < self.offered.load(Ordering::Relaxed) {
                self.one_done.notified().await;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            ended = timeout(self.load.lasts + limits::DRAIN, sent_and_done) => {
                let (done, offered) = (self.done.load(Ordering::Relaxed), self.offered.load(Ordering::Relaxed));
                ended.with_context(|| format!("{done} of {offered} messages were done in time"))?
            }
            Some(ended) = receivers.join_next() => {
                ended??;
                bail!("a connection ended")
            }
        }
    }

    /// What it came to. The clock of what is used stops now.
    pub(crate) fn outcome(&self) -> Result<Outcome> {
        Ok(Outcome {
            lasted: self.end() - self.start,
            done: self.done.load(Ordering::Relaxed),
            done_in_time: self.done_in_time.load(Ordering::Relaxed),
            accepted: self.accepted.get(),
            delivered: self.delivered.get(),
            processes: self.watched.processes.iter().map(|(name, _)| name.clone()).collect(),
            before: self.used.clone(),
            after: self.watched.used()?,
        })
    }
}

impl Outcome {
    /// Messages done in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.done_in_time as f64 / self.lasted.as_secs_f64()
    }
}

impl Latencies {
    fn new() -> Result<Self> {
        Ok(Self(Mutex::new(histogram()?)))
    }

    fn record(&self, since: Instant) {
        let took = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(took);
    }

    fn get(&self) -> Histogram<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An empty histogram of microseconds.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, limits::LONGEST, 3)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pace: Pace) -> Load {
        Load { pace, connections: 2, in_flight: 3, lasts: Duration::from_secs(10) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_has_no_more_under_way_than_it_may() {
        let round = Round::start(&load(Pace::Closed), Watched::default()).unwrap();
        for number in 0..3 {
            assert!(round.turn(0, number).await.is_some());
        }
        // The time passes by itself while there is no room.
        assert!(round.turn(0, 3).await.is_none());
        round.done(0);
        let outcome = round.outcome().unwrap();
        assert_eq!((outcome.done, outcome.done_in_time), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn in_an_open_loop_who_waits_for_a_turn_is_late_since_it_was_due() {
        let round = Round::start(&load(Pace::Open(2.0)), Watched::default()).unwrap();
        let start = Instant::now();
        // Two connections: one message a second on each, the second connection's half a second later.
        for number in 0..3 {
            assert_eq!(
                round.turn(1, number).await.unwrap() - start,
                Duration::from_millis(500 + 1000 * number)
            );
        }
        sleep_until(start + Duration::from_secs(6)).await;
        round.done(1);
        assert_eq!(round.turn(1, 3).await.unwrap() - start, Duration::from_millis(3500));
        round.delivered(start + Duration::from_millis(3500));
        let outcome = round.outcome().unwrap();
        assert!(outcome.delivered.value_at_quantile(0.5) >= 2_490_000, "counted from when it was sent");
        assert!(round.turn(1, 10).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_waits_for_what_is_under_way_and_tells_what_never_came() {
        let round = Round::start(&load(Pace::Closed), Watched::default()).unwrap();
        let mut senders = JoinSet::new();
        let sender = Arc::clone(&round);
        senders.spawn(async move {
            for number in 0..2 {
                sender.turn(0, number).await.context("no turn")?;
            }
            sender.end_now();
            sender.done(0);
            Ok(())
        });
        let error = round.run(senders, JoinSet::new()).await.unwrap_err();
        assert!(error.to_string().contains("1 of 2 messages"), "{error}");
    }
}
