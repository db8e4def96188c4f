//! What is kept, and the statements that keep it: one connection writes, a few read.

mod account;
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
mod replicas;
mod snapshot;
mod stated;
mod sweep;
mod view;
mod witnessed;
mod writer;

use liaison_trust::{keys::SigningKey, names::Domain};
use tokio::sync::mpsc;

use self::{
    account::{Account, Loads},
    view::View,
};
pub use self::{
    agencies::Addition,
    authority::IssuedBy,
    enrolment::{IssuedCertificate, Renewal, RevokedCertificate, Token, TokenUse},
    erase::Erasure,
    inspect::{DatabaseVersion, Inspection, probe},
    migrate::{Contents, MigrateError, Moved, migrate},
    peers::{KnownPeer, ToldPage},
    replicas::{Heard, Lead, Told},
    snapshot::{KeyRow, LeafRow, MessageRow, Snapshot},
    stated::{AgencyRow, AuditRow, CopyRow, PeerRow, PolicyRow, ThreadRow},
    witnessed::{ForeignKey, Witnessed},
};
use super::{Company, Database, Load, Queue, QueueBound, Stager, StoreError, engine::Pool, recent::Recent};

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
    view: View,
    bound: QueueBound,
}

impl Store {
    /// Opens the database of the gateways that sign with this key, in this company; makes it if it isn't there, and brings
    /// it to this version.
    pub async fn open(
        database: &Database,
        company: Company,
        bound: QueueBound,
        gateway: &SigningKey,
    ) -> Result<Self, StoreError> {
        let (writer, readers) = database.open(company).await?;
        let stager = Stager::new(gateway);
        let recent = Recent::default();
        let account = Account::read(&writer).await?;
        let view = View::of(&writer).await?;
        let loads = account.loads.clone();
        let batches = batch::Batches::new(
            writer.clone(),
            stager.clone(),
            account,
            (recent.clone(), view.clone()),
            bound,
        );
        let jobs = writer::start(batches);
        Ok(Self { writer, readers, stager, jobs, loads, recent, view, bound })
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

    /// The queues in which something waits.
    pub fn filled(&self) -> Vec<Queue> {
        self.loads.filled()
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
