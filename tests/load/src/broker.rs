//! Message brokers to compare with: each connection publishes to the next one, which consumes and acknowledges.

pub(crate) mod nats;
pub(crate) mod rabbitmq;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::time::Instant;

use crate::{message, round::Round};

/// What one connection has published and is not done.
pub(crate) struct Flights {
    round: Arc<Round>,
    connection: usize,
    open: Mutex<HashMap<u64, Flight>>,
}

struct Flight {
    since: Instant,
    /// The broker confirmed it, or its consumer acknowledged it: whichever came first.
    half: bool,
}

impl Flights {
    fn new(round: &Arc<Round>, connection: usize) -> Arc<Self> {
        Arc::new(Self { round: Arc::clone(round), connection, open: Mutex::default() })
    }

    /// A message that is about to be published.
    fn publish(&self, number: u64, since: Instant) -> Bytes {
        self.open().insert(number, Flight { since, half: false });
        let mut payload = vec![7; message::BYTES - 8];
        payload.extend_from_slice(&number.to_be_bytes());
        payload.into()
    }

    /// The broker has it.
    fn confirmed(&self, number: u64) {
        if let Some(since) = self.half(number) {
            self.round.accepted(since);
        }
    }

    /// Its consumer has it and has acknowledged it.
    fn consumed(&self, payload: &[u8]) -> Result<()> {
        let number = payload.last_chunk().context("a message that is none of ours")?;
        if let Some(since) = self.half(u64::from_be_bytes(*number)) {
            self.round.delivered(since);
        }
        Ok(())
    }

    /// Since when it is under way. None for one that is done: brokers may deliver twice.
    fn half(&self, number: u64) -> Option<Instant> {
        let mut open = self.open();
        let flight = open.get_mut(&number)?;
        let since = flight.since;
        if std::mem::replace(&mut flight.half, true) {
            open.remove(&number);
            self.round.done(self.connection);
        }
        Some(since)
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Flight>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
