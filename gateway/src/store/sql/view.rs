//! Up to which change of the domain's state a gateway's memory goes, where other gateways change it as well.

use std::sync::Arc;

use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use super::Store;
use crate::{
    limits,
    store::{
        StoreError,
        engine::{Pool, Transaction, query},
    },
};

/// How much of the state is known: the count of its changes.
#[derive(Clone)]
pub(super) struct View {
    known: watch::Sender<u64>,
    /// Told when something waits until more is known.
    wanted: Arc<Notify>,
    /// Told when this gateway changed something.
    changed: Arc<Notify>,
}

impl View {
    /// Of a gateway that reads everything after this.
    pub(super) async fn of(db: &Pool) -> Result<Self, StoreError> {
        Ok(Self {
            known: watch::Sender::new(state(db).await?),
            wanted: Arc::default(),
            changed: Arc::default(),
        })
    }

    /// Whether something has changed that is not known.
    pub(super) fn is_behind(&self, state: u64) -> bool {
        let is_behind = *self.known.borrow() < state;
        if is_behind {
            self.wanted.notify_one();
        }
        is_behind
    }
}

async fn state(db: &Pool) -> Result<u64, StoreError> {
    if !db.is_shared() {
        return Ok(0);
    }
    let state: i64 = query("SELECT state FROM shared").fetch_one(db).await?;
    Ok(state.unsigned_abs())
}

impl Store {
    /// How often the state of the domain has changed.
    ///
    /// # Errors
    /// The database failed.
    pub async fn state(&self) -> Result<u64, StoreError> {
        state(&self.readers).await
    }

    /// The gateway's memory goes up to this change.
    pub fn knows(&self, state: u64) {
        self.view.known.send_if_modified(|known| {
            let is_more = *known < state;
            *known = state.max(*known);
            is_more
        });
    }

    /// Waits until something was to be decided of which the gateway's memory may be too old.
    pub async fn wanted(&self) {
        self.view.wanted.notified().await;
    }

    /// Has the gateway's memory read anew.
    pub fn changed(&self) {
        self.view.changed.notify_one();
    }

    /// Waits until this gateway has changed something.
    pub async fn was_changed(&self) {
        self.view.changed.notified().await;
    }

    /// Up to which change the gateway's memory goes: what is decided from now on knows of it.
    pub fn known(&self) -> u64 {
        *self.view.known.borrow()
    }

    /// Waits until the gateway's memory has all that others changed before now.
    ///
    /// # Errors
    /// The database failed, or what was changed could not be read in time.
    pub async fn fresh(&self) -> Result<(), StoreError> {
        let state = self.state().await?;
        self.view_of(state).await
    }

    /// Waits until the gateway's memory has all changes up to this one.
    pub(super) async fn view_of(&self, state: u64) -> Result<(), StoreError> {
        if !self.view.is_behind(state) {
            return Ok(());
        }
        let mut known = self.view.known.subscribe();
        let caught_up = timeout(limits::VIEW, known.wait_for(|known| *known >= state)).await;
        if matches!(caught_up, Ok(Ok(_))) { Ok(()) } else { Err(StoreError::Outdated) }
    }

    /// Makes a change of the domain's state durable. The other gateways decide nothing more before they know of it; whoever
    /// asked for it puts it into this one's memory.
    pub(super) async fn commit_state(&self, mut change: Transaction) -> Result<(), StoreError> {
        if !change.is_shared() {
            return change.commit().await;
        }
        let state: i64 =
            query("UPDATE shared SET state = state + 1 RETURNING state").fetch_one(&mut change).await?;
        change.commit_told().await?;
        let state = state.unsigned_abs();
        self.view.known.send_if_modified(|known| {
            let is_next = *known + 1 == state;
            if is_next {
                *known = state;
            }
            is_next
        });
        // What this gateway read a moment before may be put into its memory after it.
        self.changed();
        Ok(())
    }
}
