//! What is kept, and the statements that keep it: one connection writes, a few read.

mod agencies;
mod authority;
mod batch;
mod change;
mod columns;
mod enrolment;
mod erase;
mod forwarded;
mod inspect;
mod keys;
mod known;
mod leaves;
mod logs;
mod migrate;
mod peers;
mod policies;
mod queue;
mod snapshot;
mod stated;
mod sweep;
mod witnessed;
mod writer;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use liaison_trust::{keys::SigningKey, names::Domain};
use tokio::sync::mpsc;

pub use self::{
    agencies::Addition,
    authority::IssuedBy,
    enrolment::{IssuedCertificate, Renewal, RevokedCertificate, Token, TokenUse},
    erase::Erasure,
    inspect::{DatabaseVersion, Inspection, probe},
    migrate::{Contents, MigrateError, Moved, migrate},
    peers::{KnownPeer, ToldPage},
    snapshot::{KeyRow, LeafRow, MessageRow, Snapshot},
    stated::{AgencyRow, AuditRow, CopyRow, PeerRow, PolicyRow, ThreadRow},
    witnessed::{ForeignKey, Witnessed},
};
use super::{Database, Load, Queue, QueueBound, Stager, StoreError, engine::Pool, recent::Recent};

/// The gateway's database.
#[derive(Clone)]
pub struct Store {
    /// One connection: whoever holds it is the only writer.
    writer: Pool,
    readers: Pool,
    stager: Stager,
    jobs: mpsc::Sender<writer::Job>,
    loads: Loads,
    recent: Recent,
    bound: QueueBound,
}

/// What waits in each queue: the writer's account of the queues, kept beside the database so that
/// a bound costs no query.
#[derive(Clone, Default)]
struct Loads(Arc<Mutex<HashMap<Queue, Load>>>);

impl Store {
    /// Opens the database of the gateway that signs with this key, makes it if it isn't there, and brings it to this
    /// version.
    pub async fn open(
        database: &Database,
        bound: QueueBound,
        gateway: &SigningKey,
    ) -> Result<Self, StoreError> {
        let (writer, readers) = database.open().await?;
        let loads = Loads(Arc::new(Mutex::new(queue::loads(&writer).await?)));
        let stager = Stager::new(gateway);
        let recent = Recent::default();
        let kept = (loads.clone(), recent.clone());
        let batches = batch::Batches::new(writer.clone(), stager.clone(), kept, bound).await?;
        let jobs = writer::start(batches);
        Ok(Self { writer, readers, stager, jobs, loads, recent, bound })
    }

    /// Waits until this gateway can't go on with its database.
    pub async fn lost(&self) {
        self.writer.lost().await;
    }

    /// What waits in a queue.
    pub fn load(&self, queue: &Queue) -> Load {
        self.loads.get(queue)
    }

    /// The bound of every queue.
    pub fn bound(&self) -> QueueBound {
        self.bound
    }

    /// The lanes to a domain in which something waits.
    pub fn lanes(&self, to: &Domain) -> Vec<Queue> {
        self.loads.of(to).into_iter().map(|(queue, _)| queue).collect()
    }

    /// What waits for a domain, all lanes together.
    pub fn load_for(&self, to: &Domain) -> Load {
        self.loads.of(to).into_iter().fold(Load::default(), |all, (_, load)| Load {
            deliveries: all.deliveries + load.deliveries,
            bytes: all.bytes + load.bytes,
        })
    }
}

impl Loads {
    fn get(&self, queue: &Queue) -> Load {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(queue).copied().unwrap_or_default()
    }

    /// The lanes to a domain that hold something.
    fn of(&self, to: &Domain) -> Vec<(Queue, Load)> {
        let loads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lanes = loads.iter().filter(|(queue, _)| queue.peer() == Some(to));
        lanes.map(|(queue, load)| (queue.clone(), *load)).collect()
    }

    /// Takes over what a committed batch made of some queues.
    fn set(&self, changed: HashMap<Queue, Load>) {
        let mut loads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (queue, load) in changed {
            if load.deliveries > 0 {
                loads.insert(queue, load);
            } else {
                loads.remove(&queue);
            }
        }
    }
}
