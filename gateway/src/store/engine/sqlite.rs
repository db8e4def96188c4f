//! SQLite: one file, one connection that writes, a few that read.

use std::path::Path;

use sqlx::{
    ConnectOptions, Connection, SqlitePool,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{Pool, Transaction};
use crate::{limits, store::StoreError};

/// The oldest engine that is safe: earlier ones may corrupt the write-ahead log when it is reset.
const SAFE: [u32; 3] = [3, 51, 3];

/// Rows in one statement, within the engine's bound on parameters.
pub(super) const ROWS: usize = 256;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

pub(super) async fn open(file: &Path) -> Result<(Pool, Pool), StoreError> {
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
    if numbers.as_slice() < SAFE.as_slice() {
        return Err(StoreError::OldEngine(version));
    }
    MIGRATIONS.run(&writer).await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(limits::READERS)
        .test_before_acquire(false)
        .connect_with(options.read_only(true))
        .await?;
    Ok((Pool::Sqlite(writer), Pool::Sqlite(readers)))
}

pub(super) async fn look(file: &Path) -> Result<Transaction, StoreError> {
    let options = existing(file).pragma("query_only", "ON");
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
    Ok(Transaction::Sqlite(pool.begin().await?))
}

pub(super) async fn connect(file: &Path) -> Result<Pool, StoreError> {
    Ok(Pool::Sqlite(SqlitePoolOptions::new().max_connections(1).connect_with(existing(file)).await?))
}

fn existing(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(false)
        .busy_timeout(limits::DATABASE_BUSY)
        .disable_statement_logging()
}

/// So that the write-ahead log does not keep what was erased. Readers may hold this up; then it goes with the next
/// checkpoint that the engine makes.
pub(super) async fn scrub(pool: &SqlitePool) -> Result<(), StoreError> {
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(pool).await?;
    Ok(())
}

/// What the engine finds wrong with the file.
pub(super) async fn faults(file: &Path) -> Result<Vec<String>, StoreError> {
    let mut connection = existing(file).connect().await?;
    let mut lines: Vec<String> =
        sqlx::query_scalar("PRAGMA quick_check(10)").fetch_all(&mut connection).await?;
    connection.close().await?;
    lines.retain(|line| line != "ok");
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_writer_writes_again_once_a_full_disk_has_room() {
        let folder = tempfile::tempdir().unwrap();
        let (Pool::Sqlite(writer), _) = open(&folder.path().join("liaison.db")).await.unwrap() else {
            panic!()
        };
        // SQLite's own bound fails as a full disk does.
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&writer).await.unwrap();
        let bound = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        sqlx::query(bound).execute(&writer).await.unwrap();
        let mut change = writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let filled =
            sqlx::query("CREATE TABLE large AS SELECT zeroblob(1 << 20)").execute(&mut *change).await;
        assert!(filled.unwrap_err().to_string().contains("full"));
        drop(change);
        writer.begin_with("BEGIN IMMEDIATE").await.unwrap().commit().await.unwrap();
    }
}
