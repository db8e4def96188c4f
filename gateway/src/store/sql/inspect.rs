//! A look at a database, whether or not a gateway runs on it: it is neither made nor brought to
//! another version.

use liaison_proto::admin::v1::LoadPolicyRequest;
use time::OffsetDateTime;

use super::columns::{decode, millis, moment};
use crate::store::{
    Database, StoreError,
    engine::{Pool, Soundness, query},
};

/// What a database looks like.
#[derive(Debug)]
pub struct Inspection {
    /// What the engine finds wrong with its file; empty when all is well.
    pub faults: Vec<String>,
    /// Whether its server has a standby that may lack what was committed.
    pub asynchronous: bool,
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
    /// Looks at a database.
    ///
    /// # Errors
    /// It can't be opened or read at all.
    pub async fn of(database: &Database) -> Result<Self, StoreError> {
        let Soundness { faults, asynchronous } = database.soundness().await?;
        let mut look = database.look().await?;
        let applied: i64 =
            query("SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations").fetch_one(&mut look).await?;
        let ours = database.migrations().iter().map(|migration| migration.version).max().unwrap_or_default();
        let files: Option<Vec<u8>> =
            query("SELECT files FROM policy_set WHERE active = TRUE").fetch_optional(&mut look).await?;
        let last_act: Option<i64> = query("SELECT MAX(at) FROM audit").fetch_one(&mut look).await?;
        look.commit().await?;
        Ok(Self {
            faults,
            asynchronous,
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
pub async fn probe(database: &Database, now: OffsetDateTime) -> Result<(), StoreError> {
    let pool = database.connect().await?;
    write_probe(&pool, now).await?;
    pool.close().await;
    Ok(())
}

/// Writes the row of which nothing is read.
pub(super) async fn write_probe(pool: &Pool, now: OffsetDateTime) -> Result<(), StoreError> {
    query("INSERT INTO probe (id, at) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET at = excluded.at")
        .bind(millis(now))
        .execute(pool)
        .await?;
    Ok(())
}
