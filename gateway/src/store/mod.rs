//! What the gateway holds durably. Everything outside this module speaks of messages, deliveries and
//! keys; the SQL is the engine's.

mod sqlite;

pub use sqlite::Store;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    #[error("the database could not be brought to this version")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("SQLite {0} can corrupt its write-ahead log; 3.51.3 or newer is needed")]
    OldEngine(String),
    #[error("the database holds a {0} that can't be read")]
    Corrupt(&'static str),
    #[error("the store has stopped")]
    Stopped,
}
