//! The one that puts staged leaves into the trees, and signs.

use std::{collections::HashMap, sync::Arc, time::Instant};

use liaison_trust::{
    digest::Digest,
    log::{Checkpoint, Frontier, Node, Note, Tile, TileHashes, leaf_hash, new_tiles},
};
use metrics::{gauge, histogram};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::error;

use super::{Head, Log, LogError};
use crate::{gateway::Gateway, limits};

/// Grows the logs every [`limits::LOG_GROWS`] until the gateway stops.
pub async fn run(gateway: Arc<Gateway>) {
    // Whoever saw a later head than this database holds shows it first.
    if gateway.logs.all().iter().any(|log| log.head().size > 0) {
        tokio::select! {
            () = gateway.stop.cancelled() => return,
            () = sleep(limits::LOG_QUIET) => {}
        }
    }
    let mut guarded = Instant::now();
    let mut told: HashMap<String, String> = HashMap::new();
    let mut ticks = interval(limits::LOG_GROWS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = gateway.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let is_due = guarded.elapsed() >= limits::LOG_GUARD;
        if is_due {
            guarded = Instant::now();
        }
        let leads = *gateway.leads.borrow();
        for log in gateway.logs.all() {
            let grown = async {
                if leads {
                    log.grow().await?;
                } else if is_due {
                    log.follow().await?;
                }
                if is_due { log.write_guard() } else { Ok(()) }
            };
            let grown = grown.await;
            let name = log.signer.key().name().to_string();
            gauge!("liaison_gateway_log_stuck", "log" => name.clone()).set(if grown.is_err() {
                1.0
            } else {
                0.0
            });
            let Err(fault) = grown else {
                told.remove(&name);
                continue;
            };
            // Once, and not with every attempt.
            if told.insert(name.clone(), fault.to_string()).is_none_or(|before| before != fault.to_string()) {
                error!(log = name, error = &fault as &dyn std::error::Error, "a log does not grow");
            }
        }
    }
}

impl Log {
    /// Takes every staged leaf into the tree, and signs the new heads.
    ///
    /// # Errors
    /// What the database holds is not what was signed, or it failed; the head of before stands.
    pub async fn grow(&self) -> Result<(), LogError> {
        loop {
            if !self.guard.is_clear() {
                return Ok(());
            }
            // What is staged goes on from this head, whatever other is taken over meanwhile.
            let known = self.head();
            let of = (self.tree.id(), (self.kind, self.number));
            let entries = self.store.staged(of, known.size, limits::LOG_PAGE).await?;
            if entries.is_empty() {
                return Ok(());
            }
            let started = Instant::now();
            if !self.take(&known, &entries).await? {
                // Another gateway of the domain was faster.
                self.follow().await?;
            }
            histogram!("liaison_gateway_log_growth_seconds").record(started.elapsed());
        }
    }

    /// Writes the newest head into the guard file, if it is not there.
    fn write_guard(&self) -> Result<(), LogError> {
        self.head().note.map_or(Ok(()), |note| Ok(self.guard.keep(&note)?))
    }

    /// Takes over the head that another gateway of the domain signed since.
    ///
    /// # Errors
    /// The database does not go on from the head of before, or it failed.
    pub async fn follow(&self) -> Result<(), LogError> {
        let known = self.head();
        let Some((tree, head)) = self.read(self.number).await? else { return self.is_behind(&known, 0) };
        if head.size < known.size {
            return self.is_behind(&known, head.size);
        }
        if head.size == known.size {
            return Ok(());
        }
        if tree.root(known.size, head.size).await? != known.root
            || tree.frontier(head.size).await?.root() != head.root
        {
            return Err(LogError::Changed(self.origin()));
        }
        self.replace_head(head);
        Ok(())
    }

    /// Stands by a head, unless it stands by a later one already.
    fn replace_head(&self, head: Head) {
        self.head.send_if_modified(|now| {
            let is_newer = now.size < head.size;
            if is_newer {
                *now = head;
            }
            is_newer
        });
    }

    /// False, and nothing was signed, if the log in the database has another head by now.
    async fn take(&self, known: &Head, entries: &[Vec<u8>]) -> Result<bool, LogError> {
        let mut frontier = self.tree.frontier(known.size).await?;
        // What was signed is the beginning of whatever is signed next, whoever changed the database meanwhile.
        if frontier.root() != known.root {
            return Err(LogError::Changed(self.origin()));
        }
        let old = frontier.size();
        let mut complete = HashMap::new();
        for entry in entries {
            complete.extend(frontier.append(leaf_hash(entry))?);
        }
        let (size, root) = (frontier.size(), frontier.root());
        let tiles = self.grown(old, size, &complete).await?;
        let note = self.sign(&frontier)?;
        // Durable before anybody sees it: no other head of this size is ever shown.
        if !self.store.grow_log(self.tree.id(), (old, size), note.to_string().as_bytes(), &tiles).await? {
            return Ok(false);
        }
        let head = Head { size, root, note: Some(note) };
        self.replace_head(head);
        gauge!("liaison_gateway_log_leaves", "log" => self.signer.key().name().to_string()).set(size as f64);
        Ok(true)
    }

    fn sign(&self, frontier: &Frontier) -> Result<Note, LogError> {
        let key = self.signer.key();
        // So that a receipt tells by which key it is to be verified.
        let checkpoint = Checkpoint::new(key.name(), frontier.size(), frontier.root())?
            .with_extension(&key.to_string())?;
        Ok(self.signer.sign_checkpoint(&checkpoint)?)
    }

    /// The tiles that change when the tree grows, with their content.
    async fn grown(
        &self,
        old: u64,
        size: u64,
        complete: &HashMap<Node, Digest>,
    ) -> Result<Vec<(Tile, Vec<u8>)>, LogError> {
        let mut grown = Vec::new();
        for tile in new_tiles(old, size) {
            let mut kept = TileHashes::new();
            if let Some(before) = tile.before(old)
                && let Some(content) = self.store.tile(self.tree.id(), before).await?
            {
                kept.insert(before, &content)?;
            }
            let content = tile.content(|node| complete.get(&node).copied().or_else(|| kept.hash(node)))?;
            grown.push((tile, content));
        }
        Ok(grown)
    }
}
