//! The embedded engine: one SQLite file, one connection that writes, a few that read.

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
mod peers;
mod policies;
mod queue;
mod snapshot;
mod stated;
mod statements;
mod sweep;
mod witnessed;
mod writer;

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use liaison_trust::{keys::SigningKey, names::Domain};
use sqlx::{
    Connection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::mpsc;

pub use self::{
    agencies::Addition,
    authority::IssuedBy,
    enrolment::{IssuedCertificate, Renewal, RevokedCertificate, Token, TokenUse},
    erase::Erasure,
    inspect::{DatabaseVersion, Inspection, probe},
    peers::{KnownPeer, ToldPage},
    snapshot::{KeyRow, LeafRow, MessageRow, Snapshot},
    stated::{AgencyRow, AuditRow, CopyRow, PeerRow, PolicyRow, ThreadRow},
    witnessed::{ForeignKey, Witnessed},
};
use super::{Load, Queue, QueueBound, Stager, StoreError, recent::Recent};
use crate::limits;

/// The oldest engine that is safe: earlier ones may corrupt the write-ahead log when it is reset.
const SQLITE: [u32; 3] = [3, 51, 3];

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// The gateway's database.
#[derive(Clone)]
pub struct Store {
    /// One connection: whoever holds it is the only writer. Begin with `BEGIN IMMEDIATE`.
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
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
    /// Opens the database file of the gateway that signs with this key, makes it if it isn't there, and brings it to this
    /// version.
    pub async fn open(file: &Path, bound: QueueBound, gateway: &SigningKey) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .pragma("secure_delete", "ON")
            .pragma("wal_autocheckpoint", limits::CHECKPOINT_PAGES.to_string())
            .statement_cache_capacity(limits::STATEMENTS)
            .busy_timeout(limits::DATABASE_BUSY);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .test_before_acquire(false)
            // Where the disk is full SQLite rolls back by itself, and the rollback that sqlx sends then fails:
            // such a connection counts as inside a transaction for ever, and begins no other.
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
            .connect_with(options.clone())
            .await?;
        let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&writer).await?;
        let numbers: Vec<u32> = version.split('.').map_while(|number| number.parse().ok()).collect();
        if numbers.as_slice() < SQLITE.as_slice() {
            return Err(StoreError::OldEngine(version));
        }
        MIGRATIONS.run(&writer).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(limits::READERS)
            .test_before_acquire(false)
            .connect_with(options.read_only(true))
            .await?;
        let loads = Loads(Arc::new(Mutex::new(queue::loads(&writer).await?)));
        let stager = Stager::new(gateway);
        let recent = Recent::default();
        let kept = (loads.clone(), recent.clone());
        let batches = batch::Batches::new(writer.clone(), stager.clone(), kept, bound).await?;
        let jobs = writer::start(batches);
        Ok(Self { writer, readers, stager, jobs, loads, recent, bound })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_writer_writes_again_once_a_full_disk_has_room() {
        let folder = tempfile::tempdir().unwrap();
        let bound = QueueBound::default();
        let store =
            Store::open(&folder.path().join("liaison.db"), bound, &SigningKey::generate()).await.unwrap();
        // SQLite's own bound fails as a full disk does.
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&store.writer).await.unwrap();
        let bound = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        sqlx::query(bound).execute(&store.writer).await.unwrap();
        let mut change = store.writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let filled =
            sqlx::query("CREATE TABLE large AS SELECT zeroblob(1 << 20)").execute(&mut *change).await;
        assert!(filled.unwrap_err().to_string().contains("full"));
        drop(change);
        store.writer.begin_with("BEGIN IMMEDIATE").await.unwrap().commit().await.unwrap();
    }
}
