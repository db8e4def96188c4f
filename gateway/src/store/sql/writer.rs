//! Group commit: changes that come at the same time share a transaction, and each is answered only
//! after that transaction is durable.

use std::time::Instant;

use metrics::histogram;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout_at,
};

use super::{Store, batch::Batches};
use crate::{
    limits,
    store::{AcceptError, Accepted, Change, NewLeaf, NewMessage, NewNotice, Settled, Settlement, StoreError},
};

/// One change, and where its answer goes.
pub(super) enum Job {
    Accept(Box<NewMessage>, oneshot::Sender<Result<Accepted, AcceptError>>),
    Change(Box<Change>, oneshot::Sender<Result<bool, StoreError>>),
    Settle(Box<Settlement>, oneshot::Sender<Result<Settled, StoreError>>),
    Say(Word, oneshot::Sender<Result<(), StoreError>>),
}

/// What goes with no change: a leaf of the log, or a notice.
pub(super) enum Word {
    Leaf(Box<NewLeaf>),
    Notice(Box<NewNotice>),
}

impl Store {
    /// Accepts a message with its deliveries, or finds that it was accepted before. The answer comes
    /// after a durable commit.
    pub async fn accept(&self, message: NewMessage) -> Result<Accepted, AcceptError> {
        let (answer, answered) = oneshot::channel();
        self.hand_over(Job::Accept(Box::new(message), answer)).await?;
        answered.await.map_err(|_| StoreError::Stopped)?
    }

    /// Changes one delivery. True if it was still queued; the answer comes after a durable commit.
    ///
    /// # Errors
    /// [`StoreError::Outdated`] where it goes by an older view of the domain's state; the database failed.
    pub async fn change(&self, change: Change) -> Result<bool, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.hand_over(Job::Change(Box::new(change), answer)).await?;
        answered.await.map_err(|_| StoreError::Stopped)?
    }

    /// Takes what a peer said of a copy that it accepted; the answer comes after a durable commit.
    pub async fn settle(&self, settlement: Settlement) -> Result<Settled, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.hand_over(Job::Settle(Box::new(settlement), answer)).await?;
        answered.await.map_err(|_| StoreError::Stopped)?
    }

    /// Appends a leaf to the log that records what changes nothing else; the answer comes after a durable commit.
    pub async fn append(&self, leaf: NewLeaf) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.hand_over(Job::Say(Word::Leaf(Box::new(leaf)), answer)).await?;
        answered.await.map_err(|_| StoreError::Stopped)?
    }

    /// Queues a notice that goes with no change; the answer comes after a durable commit.
    pub async fn tell(&self, notice: NewNotice) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.hand_over(Job::Say(Word::Notice(Box::new(notice)), answer)).await?;
        answered.await.map_err(|_| StoreError::Stopped)?
    }

    async fn hand_over(&self, job: Job) -> Result<(), StoreError> {
        self.jobs.send(job).await.map_err(|_| StoreError::Stopped)
    }
}

/// Starts the writer. It ends when the last handle of the store is gone.
pub(super) fn start(mut batches: Batches) -> mpsc::Sender<Job> {
    let (jobs, mut waiting) = mpsc::channel(limits::WRITER_QUEUE);
    tokio::spawn(async move {
        while let Some(first) = waiting.recv().await {
            let batch = gather(first, &mut waiting).await;
            let started = Instant::now();
            histogram!("liaison_gateway_batch_changes").record(batch.len() as f64);
            batches.commit(batch).await;
            histogram!("liaison_gateway_commit_seconds").record(started.elapsed());
        }
    });
    jobs
}

/// Takes what waits. Only where more than one change waits already, which means load, it waits a
/// moment for others to join them.
async fn gather(first: Job, waiting: &mut mpsc::Receiver<Job>) -> Vec<Job> {
    let mut bytes = first.bytes();
    let mut batch = vec![first];
    let has_room =
        |batch: &Vec<Job>, bytes| batch.len() < limits::BATCH_CHANGES && bytes < limits::BATCH_BYTES;
    while has_room(&batch, bytes)
        && let Ok(job) = waiting.try_recv()
    {
        bytes += job.bytes();
        batch.push(job);
    }
    if batch.len() > 1 {
        let until = tokio::time::Instant::now() + limits::BATCH_WAIT;
        while has_room(&batch, bytes)
            && let Ok(Some(job)) = timeout_at(until, waiting.recv()).await
        {
            bytes += job.bytes();
            batch.push(job);
        }
    }
    batch
}

impl Job {
    /// Roughly what it adds to a transaction.
    fn bytes(&self) -> usize {
        match self {
            Self::Accept(message, _) => {
                message.content.sections.iter().map(|section| section.ciphertext.len()).sum::<usize>()
                    + message.copies.len() * 2_048
            }
            Self::Change(..) | Self::Settle(..) | Self::Say(..) => 0,
        }
    }
}
