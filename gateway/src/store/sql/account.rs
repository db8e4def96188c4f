//! The account of the queues, and the numbers of messages and deliveries: what every batch goes by. A gateway that alone
//! writes its database keeps it in memory; several gateways have it in the database, and each remembers what it read last.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use liaison_trust::names::Domain;

use super::columns::{number, queue};
use crate::store::{
    Load, Queue, StoreError,
    engine::{Db, Pool, Row, Transaction, query, row},
};

/// The account as it stood after the last batch.
pub(super) struct Account {
    pub(super) loads: Loads,
    pub(super) next: Next,
}

/// The numbers of the next message and the next delivery.
#[derive(Debug, Clone, Copy)]
pub(super) struct Next {
    pub(super) message: i64,
    pub(super) delivery: i64,
}

/// What waits in each queue that holds something.
#[derive(Clone)]
pub(super) struct Loads(Arc<Mutex<Remembered>>);

struct Remembered {
    /// Whether other gateways change the queues as well.
    is_shared: bool,
    /// What each holds, and which batch of this gateway changed it last: what was read before that is not put over it.
    queues: HashMap<Queue, (Load, u64)>,
    batches: u64,
}

/// By how much a batch changes what waits in a queue.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Change {
    deliveries: i64,
    bytes: i64,
}

/// What a batch makes of the queues.
pub(super) type Changes = HashMap<Queue, Change>;

impl Account {
    /// Reads it as a gateway starts.
    pub(super) async fn read(db: &Pool) -> Result<Self, StoreError> {
        let (message, delivery) = query(
            "SELECT (SELECT COALESCE(MAX(seq), 0) + 1 FROM message), (SELECT COALESCE(MAX(seq), 0) + 1 FROM delivery)",
        )
        .fetch_one(db)
        .await?;
        let queues = if db.is_shared() { kept(db).await? } else { counted(db).await? };
        let mut remembered = Remembered { is_shared: db.is_shared(), queues: HashMap::new(), batches: 0 };
        remembered.put(queues, 0);
        let loads = Loads(Arc::new(Mutex::new(remembered)));
        Ok(Self { loads, next: Next { message, delivery } })
    }

    /// Brings it up to date for a batch that puts something into these queues; how often the domain's state has changed.
    pub(super) async fn begin<'q>(
        &mut self,
        db: &mut Transaction,
        filled: impl IntoIterator<Item = &'q Queue>,
    ) -> Result<u64, StoreError> {
        if !db.is_shared() {
            return Ok(0);
        }
        // Nobody else changes any of it until this batch is committed.
        let look = query("SELECT next_message, next_delivery, state, queue, deliveries, bytes FROM shared LEFT JOIN load ON queue ")
            .one_of(named(filled));
        let mut loads = Vec::new();
        let mut known = 0;
        for row in look.fetch_all::<Row>(&mut *db).await? {
            self.next = Next { message: row.get("next_message")?, delivery: row.get("next_delivery")? };
            known = row.get::<i64>("state")?.unsigned_abs();
            if let Some(queue) = row.get::<Option<String>>("queue")? {
                loads.push((queue, row.get("deliveries")?, row.get("bytes")?));
            }
        }
        self.loads.put(read(loads)?);
        Ok(known)
    }

    /// Keeps it with the batch; what is to be remembered of it once that is durable.
    pub(super) async fn end(
        &self,
        db: &mut Transaction,
        next: Next,
        changes: Changes,
    ) -> Result<HashMap<Queue, Load>, StoreError> {
        if !db.is_shared() {
            return Ok(changes
                .into_iter()
                .map(|(queue, by)| (queue.clone(), self.loads.after(&queue, by)))
                .collect());
        }
        const COUNT: &str = "UPDATE shared SET next_message = $1, next_delivery = $2";
        const ADD: &str = " ON CONFLICT (queue) DO UPDATE SET \
                           deliveries = GREATEST(load.deliveries + excluded.deliveries, 0), \
                           bytes = GREATEST(load.bytes + excluded.bytes, 0) RETURNING queue, deliveries, bytes";
        let changes: Vec<_> = changes.into_iter().collect();
        if changes.is_empty() {
            query(COUNT).bind(next.message).bind(next.delivery).execute(&mut *db).await?;
        }
        let mut loads = HashMap::with_capacity(changes.len());
        for run in db.runs(&changes) {
            // In one statement, for each takes the way to the server and back.
            let add =
                query(format!("WITH counted AS ({COUNT}) INSERT INTO load (queue, deliveries, bytes) "))
                    .bind(next.message)
                    .bind(next.delivery)
                    .rows(run, |(queue, by)| row![queue.to_string(), by.deliveries, by.bytes])
                    .sql(ADD);
            loads.extend(read(add.fetch_all(&mut *db).await?)?);
        }
        Ok(loads)
    }
}

impl Change {
    pub(super) fn add(&mut self, load: Load) {
        self.deliveries = self.deliveries.saturating_add(number(load.deliveries));
        self.bytes = self.bytes.saturating_add(number(load.bytes));
    }

    /// Takes one delivery of this many bytes off.
    pub(super) fn take(&mut self, bytes: u64) {
        self.deliveries = self.deliveries.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(number(bytes));
    }
}

impl Loads {
    pub(super) fn get(&self, queue: &Queue) -> Load {
        self.lock().queues.get(queue).map(|(load, _)| *load).unwrap_or_default()
    }

    /// What waits in a queue once it is changed so.
    pub(super) fn after(&self, queue: &Queue, by: Change) -> Load {
        let Load { deliveries, bytes } = self.get(queue);
        Load {
            deliveries: deliveries.saturating_add_signed(by.deliveries),
            bytes: bytes.saturating_add_signed(by.bytes),
        }
    }

    /// All that hold something.
    pub(super) fn filled(&self) -> Vec<Queue> {
        let remembered = self.lock();
        let filled = remembered.queues.iter().filter(|(_, (load, _))| load.deliveries > 0);
        filled.map(|(queue, _)| queue.clone()).collect()
    }

    /// The lanes to a domain that hold something.
    pub(super) fn of(&self, to: &Domain) -> Vec<(Queue, Load)> {
        let remembered = self.lock();
        let lanes = remembered.queues.iter().filter(|(queue, _)| queue.peer() == Some(to));
        let lanes = lanes.filter(|(_, (load, _))| load.deliveries > 0);
        lanes.map(|(queue, (load, _))| (queue.clone(), *load)).collect()
    }

    /// Takes over what a batch made of some queues.
    pub(super) fn set(&self, changed: impl IntoIterator<Item = (Queue, Load)>) {
        let mut remembered = self.lock();
        remembered.batches += 1;
        let batch = remembered.batches;
        remembered.put(changed, batch);
    }

    /// Takes over what some queues hold.
    fn put(&self, read: Vec<(Queue, Load)>) {
        let mut remembered = self.lock();
        remembered.batches += 1;
        let batch = remembered.batches;
        remembered.put(read, batch);
    }

    /// Reads some queues anew that other gateways have changed, or all.
    pub(super) async fn refresh(&self, db: &Pool, queues: Option<&[Queue]>) -> Result<(), StoreError> {
        let before = self.lock().batches;
        let mut read = match queues {
            Some(queues) => select(db, queues).await?,
            None => kept(db).await?,
        };
        let mut remembered = self.lock();
        read.retain(|(queue, _)| remembered.queues.get(queue).is_none_or(|(_, batch)| *batch <= before));
        remembered.put(read, before);
        if queues.is_none() {
            remembered.queues.retain(|_, (load, batch)| load.deliveries > 0 || *batch > before);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn put(&mut self, read: impl IntoIterator<Item = (Queue, Load)>, batch: u64) {
        for (queue, load) in read {
            // Where nothing older can follow, what is empty need not be remembered.
            if load.deliveries > 0 || self.is_shared {
                self.queues.insert(queue, (load, batch));
            } else {
                self.queues.remove(&queue);
            }
        }
    }
}

/// What some queues hold, as the database has it.
async fn select<'q>(
    db: impl Into<Db<'_>>,
    queues: impl IntoIterator<Item = &'q Queue>,
) -> Result<Vec<(Queue, Load)>, StoreError> {
    let select = query("SELECT queue, deliveries, bytes FROM load WHERE queue ").one_of(named(queues));
    read(select.fetch_all(db).await?)
}

/// The names of queues: of one that there is not, where there are none.
fn named<'q>(queues: impl IntoIterator<Item = &'q Queue>) -> Vec<String> {
    let mut names: Vec<String> = queues.into_iter().map(ToString::to_string).collect();
    if names.is_empty() {
        names.push(String::new());
    }
    names
}

/// What all queues hold, as the database has it.
async fn kept(db: &Pool) -> Result<Vec<(Queue, Load)>, StoreError> {
    read(query("SELECT queue, deliveries, bytes FROM load").fetch_all(db).await?)
}

/// What all queues hold, counted.
async fn counted(db: &Pool) -> Result<Vec<(Queue, Load)>, StoreError> {
    let rows = query(
        "SELECT queue, COUNT(*), CAST(SUM(bytes) AS BIGINT) FROM delivery WHERE quarantined IS NULL GROUP BY queue",
    )
    .fetch_all(db)
    .await?;
    read(rows)
}

fn read(rows: Vec<(String, i64, i64)>) -> Result<Vec<(Queue, Load)>, StoreError> {
    let load = |(name, deliveries, bytes): (String, i64, i64)| {
        Ok((queue(&name)?, Load { deliveries: count(deliveries), bytes: count(bytes) }))
    };
    rows.into_iter().map(load).collect()
}

fn count(kept: i64) -> u64 {
    u64::try_from(kept).unwrap_or_default()
}
