//! The embedded engine: one SQLite file, one connection that writes, a few that read.

use std::path::Path;

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::StoreError;
use crate::limits;

/// The oldest engine that is safe: earlier ones may corrupt the write-ahead log when it is reset.
const SQLITE: (u32, u32, u32) = (3, 51, 3);

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// The gateway's database.
#[derive(Clone)]
pub struct Store {
    /// One connection: whoever holds it is the only writer. Begin with `BEGIN IMMEDIATE`.
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
}

impl Store {
    /// Opens the database file, makes it if it isn't there, and brings it to this version.
    pub async fn open(file: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .pragma("secure_delete", "ON")
            .busy_timeout(limits::DATABASE_BUSY);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .test_before_acquire(false)
            .connect_with(options.clone())
            .await?;
        let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&writer).await?;
        if !is_safe(&version) {
            return Err(StoreError::OldEngine(version));
        }
        MIGRATIONS.run(&writer).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(limits::READERS)
            .test_before_acquire(false)
            .connect_with(options.read_only(true))
            .await?;
        Ok(Self { writer, readers })
    }
}

fn is_safe(version: &str) -> bool {
    let mut parts = version.split('.').map_while(|part| part.parse().ok());
    matches!((parts.next(), parts.next(), parts.next()), (Some(major), Some(minor), Some(patch)) if (major, minor, patch) >= SQLITE)
}
