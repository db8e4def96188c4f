//! A look at a database file, whether or not a gateway runs on it: it is neither made nor brought to
//! another version.

use std::path::Path;

use liaison_proto::admin::v1::LoadPolicyRequest;
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use time::OffsetDateTime;

use super::{
    MIGRATIONS,
    columns::{decode, millis, moment},
};
use crate::{limits, store::StoreError};

/// What a database file looks like.
#[derive(Debug)]
pub struct Inspection {
    /// What the engine finds wrong with the file; empty when all is well.
    pub faults: Vec<String>,
    pub version: DatabaseVersion,
    /// The files of the active policy set.
    pub policy: Option<LoadPolicyRequest>,
    /// When an administrator or an enrolment last changed something.
    pub last_act: Option<OffsetDateTime>,
}

/// How the database's version compares with this program's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseVersion {
    Same,
    /// The next start brings it to this version.
    Older,
    /// A newer program wrote it.
    Newer,
}

impl Inspection {
    /// Looks at a database file.
    ///
    /// # Errors
    /// It can't be opened or read at all.
    pub async fn of(file: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(false)
            .busy_timeout(limits::DATABASE_BUSY)
            .disable_statement_logging();
        let mut connection = options.connect().await?;
        let lines: Vec<String> =
            sqlx::query_scalar("PRAGMA quick_check(10)").fetch_all(&mut connection).await?;
        let applied: i64 = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations")
            .fetch_one(&mut connection)
            .await?;
        let ours = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
        let files: Option<Vec<u8>> = sqlx::query_scalar("SELECT files FROM policy_set WHERE active = 1")
            .fetch_optional(&mut connection)
            .await?;
        let last_act: Option<i64> =
            sqlx::query_scalar("SELECT max(at) FROM audit").fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(Self {
            faults: lines.into_iter().filter(|line| line != "ok").collect(),
            version: match applied.cmp(&ours) {
                std::cmp::Ordering::Equal => DatabaseVersion::Same,
                std::cmp::Ordering::Less => DatabaseVersion::Older,
                std::cmp::Ordering::Greater => DatabaseVersion::Newer,
            },
            policy: files.map(decode).transpose()?,
            last_act: last_act.map(moment).transpose()?,
        })
    }
}

/// Writes one row durably, as readiness does.
///
/// # Errors
/// The database takes no writes.
pub async fn probe(file: &Path, now: OffsetDateTime) -> Result<(), StoreError> {
    let options = SqliteConnectOptions::new().filename(file).busy_timeout(limits::DATABASE_BUSY);
    let mut connection = options.connect().await?;
    sqlx::query("INSERT INTO probe (id, at) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET at = excluded.at")
        .bind(millis(now))
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}
