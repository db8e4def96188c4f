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
    engine::{Db, Pool, Transaction, query, row},
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
pub(super) struct Loads {
    queues: Arc<Mutex<HashMap<Queue, Load>>>,
    /// Held from a commit, or from a look at the database, until what it told is in `queues`: nothing older follows.
    order: Arc<tokio::sync::Mutex<()>>,
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
        let loads = Loads { queues: Arc::new(Mutex::new(counted(db).await?)), order: Arc::default() };
        Ok(Self { loads, next: Next { message, delivery } })
    }

    /// Brings it up to date for a batch that puts something into these queues.
    pub(super) async fn begin<'q>(
        &mut self,
        db: &mut Transaction,
        filled: impl IntoIterator<Item = &'q Queue>,
    ) -> Result<(), StoreError> {
        if !db.is_shared() {
            return Ok(());
        }
        let (message, delivery) =
            query("SELECT next_message, next_delivery FROM shared").fetch_one(&mut *db).await?;
        self.next = Next { message, delivery };
        // Nobody else changes them until this batch is committed.
        self.loads.refresh(db, filled).await
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
        query("UPDATE shared SET next_message = $1, next_delivery = $2")
            .bind(next.message)
            .bind(next.delivery)
            .execute(&mut *db)
            .await?;
        let changes: Vec<_> = changes.into_iter().collect();
        let mut loads = HashMap::with_capacity(changes.len());
        for run in db.runs(&changes) {
            let add = query("INSERT INTO load (queue, deliveries, bytes) ")
                .rows(run, |(queue, by)| row![queue.to_string(), by.deliveries, by.bytes])
                .sql(
                    " ON CONFLICT (queue) DO UPDATE SET deliveries = GREATEST(load.deliveries + excluded.deliveries, 0), \
                     bytes = GREATEST(load.bytes + excluded.bytes, 0) RETURNING queue, deliveries, bytes",
                );
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
        self.lock().get(queue).copied().unwrap_or_default()
    }

    /// What waits in a queue once it is changed so.
    pub(super) fn after(&self, queue: &Queue, by: Change) -> Load {
        let Load { deliveries, bytes } = self.get(queue);
        Load {
            deliveries: deliveries.saturating_add_signed(by.deliveries),
            bytes: bytes.saturating_add_signed(by.bytes),
        }
    }

    /// The lanes to a domain that hold something.
    pub(super) fn of(&self, to: &Domain) -> Vec<(Queue, Load)> {
        let loads = self.lock();
        let lanes = loads.iter().filter(|(queue, _)| queue.peer() == Some(to));
        lanes.map(|(queue, load)| (queue.clone(), *load)).collect()
    }

    /// Takes over what became of some queues.
    pub(super) fn set(&self, changed: impl IntoIterator<Item = (Queue, Load)>) {
        let mut loads = self.lock();
        for (queue, load) in changed {
            if load.deliveries > 0 {
                loads.insert(queue, load);
            } else {
                loads.remove(&queue);
            }
        }
    }

    /// Reads some queues anew that other gateways may have changed.
    pub(super) async fn refresh<'q>(
        &self,
        db: impl Into<Db<'_>>,
        queues: impl IntoIterator<Item = &'q Queue>,
    ) -> Result<(), StoreError> {
        let names: Vec<String> = queues.into_iter().map(ToString::to_string).collect();
        if names.is_empty() {
            return Ok(());
        }
        let _in_order = self.order.lock().await;
        let select = query("SELECT queue, deliveries, bytes FROM load WHERE queue ").one_of(names);
        self.set(read(select.fetch_all(db).await?)?);
        Ok(())
    }

    /// Reads all queues anew.
    pub(super) async fn refresh_all(&self, db: &Pool) -> Result<(), StoreError> {
        let _in_order = self.order.lock().await;
        let all = read(query("SELECT queue, deliveries, bytes FROM load").fetch_all(db).await?)?;
        self.lock().clear();
        self.set(all);
        Ok(())
    }

    /// Held while a batch is committed, until [`Self::set`] has what became of it.
    pub(super) async fn order(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.order).lock_owned().await
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Queue, Load>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What waits, counted.
async fn counted(db: &Pool) -> Result<HashMap<Queue, Load>, StoreError> {
    let rows = query(
        "SELECT queue, COUNT(*), CAST(SUM(bytes) AS BIGINT) FROM delivery WHERE quarantined IS NULL GROUP BY queue",
    )
    .fetch_all(db)
    .await?;
    Ok(read(rows)?.into_iter().collect())
}

fn read(rows: Vec<(String, i64, i64)>) -> Result<Vec<(Queue, Load)>, StoreError> {
    let load = |(name, deliveries, bytes): (String, i64, i64)| {
        Ok((queue(&name)?, Load { deliveries: deliveries.unsigned_abs(), bytes: bytes.unsigned_abs() }))
    };
    rows.into_iter().map(load).collect()
}
