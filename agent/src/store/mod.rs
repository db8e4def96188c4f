//! The agent's database, `agent.db`: everything that must survive a crash. No section stands in it in
//! clear: drafts are sealed under the vault key, received sections stay as they came.
//!
//! One connection writes, and changes share its transactions; a few read.

mod add;
mod codec;
mod draft;
mod ends;
mod erase;
mod keys;
mod log;
mod logged;
mod messages;
mod notices;
mod onward;
mod outbox;
mod parts;
mod receive;
mod statements;
mod states;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use liaison_proto::message::v1::{Refusal, error_code::Code as ErrorCode};
use liaison_trust::{names::AgencyAddress, vault::Vault};
use sqlx::{
    ConnectOptions, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::Notify;

pub use log::{Due, KeptAlarm, KeptReceipt};
pub use logged::{KeyLog, LoggedKey};
pub use messages::{Counts, DeliveryState, Direction, Message, StateEvent, StoredSection};
pub use notices::Event;
pub use onward::{OnwardRequest, Question};
pub use outbox::Waiting;
pub use receive::{Incoming, IncomingSection, Receipt};
use writer::Writer;

use crate::limits;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    writer: Writer,
    readers: SqlitePool,
    vault: Vault,
    address: AgencyAddress,
    outbox_changed: Notify,
    proven: keys::Proven,
    /// Whether the write-ahead log is to be emptied, as after a start: it may hold what was erased before.
    has_erased: AtomicBool,
}

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the agent's database can't be made: {0}")]
    File(#[from] std::io::Error),
    #[error("the agent's database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// Told to each whose change it was.
    #[error("the agent's database failed: {0}")]
    NotCommitted(#[from] Arc<sqlx::Error>),
    #[error("the agent's database is closed")]
    Closed,
    #[error("the agent's database could not be brought to this version: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("the agent's database holds a {0} that can't be read")]
    Damaged(&'static str),
    #[error(
        "the agent's database holds a {0} that this vault key does not open; were keys/ and agent.db of different backups put together?"
    )]
    Sealed(&'static str),
}

/// SQLite's primary result codes, see <https://sqlite.org/rescode.html>.
const SQLITE_BUSY: i32 = 5;
const SQLITE_IOERR: i32 = 10;
const SQLITE_FULL: i32 = 13;

impl StoreError {
    /// SQLite's primary result code, where SQLite failed.
    fn result_code(&self) -> Option<i32> {
        let error = match self {
            Self::Database(error) => error,
            Self::NotCommitted(error) => error,
            _ => return None,
        };
        Some(error.as_database_error()?.code()?.parse::<i32>().ok()? & 0xff)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the database failed");
        let failed = |message, action| Refusal::new(ErrorCode::Internal, message, action);
        match error.result_code() {
            Some(SQLITE_FULL | SQLITE_IOERR) => failed(
                "the agent's database can't be written: its disk is full or failing; nothing was changed",
                "make room on the disk of the agent's data folder, then send the request again",
            ),
            Some(SQLITE_BUSY) => failed(
                "another program holds the agent's database; nothing was changed",
                "end what else reads agent.db, then send the request again",
            ),
            _ => Refusal::internal(),
        }
    }
}

impl Store {
    /// Opens the database file of this agency's agent, makes it if it isn't there, and brings it to this
    /// version. `vault` seals what must not stand in it in clear.
    pub async fn open(file: &Path, vault: Vault, address: AgencyAddress) -> Result<Self, StoreError> {
        // Made here, so that only its owner may read it; SQLite gives its other files the same mode.
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file)?;
        let options = SqliteConnectOptions::new()
            .filename(file)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // Always, for what is not deleted may be moved, and leave a draft where it stood.
            .pragma("secure_delete", "ON")
            .pragma("wal_autocheckpoint", limits::LOG_PAGES.to_string())
            .statement_cache_capacity(limits::STATEMENTS)
            .busy_timeout(Duration::from_secs(5));
        let mut writer = options.connect().await?;
        MIGRATIONS.run(&mut writer).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(limits::READERS)
            .test_before_acquire(false)
            .connect_with(options.read_only(true))
            .await?;
        let writer = writer::new(writer);
        Ok(Self(Arc::new(Inner {
            writer,
            readers,
            vault,
            address,
            outbox_changed: Notify::new(),
            proven: keys::Proven::default(),
            has_erased: AtomicBool::new(true),
        })))
    }

    /// The agency whose database this is.
    pub fn address(&self) -> &AgencyAddress {
        &self.0.address
    }

    /// Waits until something was put into the outbox since the last such wait.
    pub async fn outbox_changed(&self) {
        self.0.outbox_changed.notified().await;
    }

    /// Closes the file; what was committed is in it.
    pub async fn close(&self) {
        self.0.readers.close().await;
        self.close_writer().await;
    }

    fn readers(&self) -> &SqlitePool {
        &self.0.readers
    }

    fn vault(&self) -> &Vault {
        &self.0.vault
    }

    fn wake_outbox(&self) {
        self.0.outbox_changed.notify_one();
    }
}
