//! The engines under the store, and the little in which they differ: SQLite, a file, and PostgreSQL, a server. A statement
//! is written once, in the SQL that both understand, with parameters `$1`, `$2` and so on.

mod postgres;
mod query;
mod replicas;
mod row;
mod sqlite;
mod value;

use std::{fmt, path::PathBuf, slice::Chunks, str::FromStr, sync::Arc};

use sqlx::{
    PgConnection, PgPool, Postgres, Sqlite, SqliteConnection, SqlitePool, migrate::Migrator,
    postgres::PgConnectOptions,
};
use tokio::time::timeout;

use self::postgres::Member;
pub(super) use self::{
    query::{Query, query},
    replicas::{Candidate, Ears},
    row::{FromRow, Row, row_of},
    value::{Value, row},
};
use crate::{limits, store::StoreError};

/// Where a gateway keeps what it holds.
#[derive(Clone)]
pub enum Database {
    /// A file of SQLite's.
    Sqlite(PathBuf),
    /// A database of a PostgreSQL server.
    Postgres(Box<PgConnectOptions>),
}

/// Who else uses a database at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// Nobody.
    None,
    /// Gateways of the same domain, where the engine is a server.
    Gateways,
}

/// What a URL may ask for.
const PARAMETERS: [&str; 5] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "host"];

/// A text that is no URL of a PostgreSQL database. It is not repeated: it may hold a password.
#[derive(Debug, thiserror::Error)]
#[error(
    "the database is to be given as postgres://USER@HOST:PORT/NAME, with nothing behind it but `?` and sslmode, sslrootcert, sslcert, sslkey or host, and with `%` and two digits for other signs in a password"
)]
pub struct NoDatabase;

impl FromStr for Database {
    type Err = NoDatabase;

    /// A PostgreSQL database by its URL. What it asks for that would be passed over is refused.
    fn from_str(url: &str) -> Result<Self, NoDatabase> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(NoDatabase);
        }
        let asked =
            url.split_once('?').map_or("", |(_, asked)| asked).split('&').filter(|one| !one.is_empty());
        if asked.filter_map(|one| one.split('=').next()).any(|name| !PARAMETERS.contains(&name)) {
            return Err(NoDatabase);
        }
        url.parse().map(|options| Self::Postgres(Box::new(options))).map_err(|_| NoDatabase)
    }
}

impl From<PathBuf> for Database {
    fn from(file: PathBuf) -> Self {
        Self::Sqlite(file)
    }
}

/// Without what authenticates.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(file) => write!(f, "{}", file.display()),
            Self::Postgres(options) => write!(
                f,
                "postgres://{}@{}:{}/{}",
                options.get_username(),
                options.get_host(),
                options.get_port(),
                options.get_database().unwrap_or_default()
            ),
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Database {
    /// One connection that writes, and a few that read: opened, made where it isn't there, and brought to this version.
    pub(super) async fn open(&self, company: Company) -> Result<(Pool, Pool), StoreError> {
        match self {
            Self::Sqlite(file) => sqlite::open(file).await,
            Self::Postgres(options) => postgres::open(options, company).await,
        }
    }

    /// Whether it was made.
    pub async fn exists(&self) -> Result<bool, StoreError> {
        match self {
            Self::Sqlite(file) => Ok(file.exists()),
            Self::Postgres(options) => postgres::exists(options).await,
        }
    }

    /// A look at one moment of it, in which nothing can be changed. It is neither made nor brought to another version.
    pub(super) async fn look(&self) -> Result<Transaction, StoreError> {
        match self {
            Self::Sqlite(file) => sqlite::look(file).await,
            Self::Postgres(options) => postgres::look(options).await,
        }
    }

    /// A connection that may write one row, beside the gateway that runs on it.
    pub(super) async fn connect(&self) -> Result<Pool, StoreError> {
        match self {
            Self::Sqlite(file) => sqlite::connect(file).await,
            Self::Postgres(options) => postgres::connect(options).await,
        }
    }

    /// What the engine finds wrong with it.
    pub(super) async fn soundness(&self) -> Result<Soundness, StoreError> {
        match self {
            Self::Sqlite(file) => Ok(Soundness { faults: sqlite::faults(file).await?, asynchronous: false }),
            Self::Postgres(options) => postgres::faults(options).await,
        }
    }

    /// What makes a database of this engine one of this version.
    pub(super) fn migrations(&self) -> &'static Migrator {
        match self {
            Self::Sqlite(_) => &sqlite::MIGRATIONS,
            Self::Postgres(_) => &postgres::MIGRATIONS,
        }
    }
}

/// Whether a database keeps what it was given.
pub(super) struct Soundness {
    /// What speaks against it.
    pub(super) faults: Vec<String>,
    /// Whether there is a standby that may lack what was committed.
    pub(super) asynchronous: bool,
}

/// Connections to a database.
#[derive(Clone)]
pub(super) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool, Arc<Member>),
}

impl Pool {
    /// Begins a change; whoever holds it is the only one who changes anything.
    pub(super) async fn begin(&self) -> Result<Transaction, StoreError> {
        Ok(match self {
            Self::Sqlite(pool) => Transaction::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres(pool, member) => {
                Transaction::Postgres(postgres::begin(pool).await?, Arc::clone(member))
            }
        })
    }

    /// Rows or values for as many statements as they need.
    pub(super) fn runs<'r, T>(&self, rows: &'r [T]) -> Chunks<'r, T> {
        rows.chunks(match self {
            Self::Sqlite(_) => sqlite::ROWS,
            Self::Postgres(..) => postgres::ROWS,
        })
    }

    /// Waits until this gateway can't go on with the database: a command or another version has had it alone since, or it
    /// is not known what became of a change, which only a start finds out.
    pub(super) async fn lost(&self) {
        match self {
            Self::Sqlite(_) => std::future::pending().await,
            Self::Postgres(_, member) => member.lost.cancelled().await,
        }
    }

    /// Whether other gateways change the database as well, so that what this one remembers of it may be old.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(..))
    }

    /// Has the other gateways hear something.
    pub(super) async fn tell(&self, what: &str) -> Result<(), StoreError> {
        if let Self::Postgres(pool, member) = self {
            postgres::answered(replicas::tell(pool, member, what)).await?;
        }
        Ok(())
    }

    /// How many gateways are on the database, this one included.
    pub(super) async fn gateways(&self) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(_) => Ok(1),
            Self::Postgres(pool, _) => Ok(postgres::answered(postgres::gateways(pool)).await?),
        }
    }

    /// What the other gateways tell; none where there can't be others.
    pub(super) async fn ears(&self) -> Result<Option<Ears>, StoreError> {
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Postgres(_, member) => Ok(Some(Ears::open(Arc::clone(member)).await?)),
        }
    }

    /// What finds out which of the gateways leads; none where there can't be others.
    pub(super) fn candidate(&self) -> Option<Candidate> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(_, member) => Some(Candidate::new(Arc::clone(member))),
        }
    }

    /// Closes the connections.
    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool, _) => pool.close().await,
        }
    }

    /// Writes over what was deleted, as far as that is the engine's to do at once.
    pub(super) async fn scrub(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(pool) => sqlite::scrub(pool).await,
            Self::Postgres(..) => Ok(()),
        }
    }
}

/// Changes that are all made, or none.
pub(super) enum Transaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>, Arc<Member>),
}

impl Transaction {
    /// Makes the changes durable.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(change) => change.commit().await?,
            Self::Postgres(change, member) => {
                match timeout(limits::COMMIT, change.commit()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(fault)) if postgres::is_refused(&fault) => return Err(fault.into()),
                    // It may be made all the same.
                    Ok(Err(_)) | Err(_) => {
                        member.lost.cancel();
                        return Err(StoreError::Lost);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether other gateways change the database as well, so that what this one remembers of it may be old.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(..))
    }

    /// Has the other gateways hear something once the changes are durable.
    pub(super) async fn tell(&mut self, what: &str) -> Result<(), StoreError> {
        if let Self::Postgres(change, member) = self {
            postgres::answered(replicas::tell(&mut **change, member, what)).await?;
        }
        Ok(())
    }

    /// Rows or values for as many statements as they need.
    pub(super) fn runs<'r, T>(&self, rows: &'r [T]) -> Chunks<'r, T> {
        rows.chunks(match self {
            Self::Sqlite(_) => sqlite::ROWS,
            Self::Postgres(..) => postgres::ROWS,
        })
    }
}

/// Where a statement runs.
pub(super) enum Db<'d> {
    SqlitePool(&'d SqlitePool),
    Sqlite(&'d mut SqliteConnection),
    PostgresPool(&'d PgPool),
    Postgres(&'d mut PgConnection),
}

impl<'d> From<&'d Pool> for Db<'d> {
    fn from(pool: &'d Pool) -> Self {
        match pool {
            Pool::Sqlite(pool) => Self::SqlitePool(pool),
            Pool::Postgres(pool, _) => Self::PostgresPool(pool),
        }
    }
}

impl<'d> From<&'d mut Transaction> for Db<'d> {
    fn from(change: &'d mut Transaction) -> Self {
        match change {
            Transaction::Sqlite(change) => Self::Sqlite(change),
            Transaction::Postgres(change, _) => Self::Postgres(change),
        }
    }
}
