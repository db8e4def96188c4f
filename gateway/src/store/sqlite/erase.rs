//! Erasing records of a log.

use super::{Store, columns::number};
use crate::store::{Act, LogId, StoreError};

/// What became of an erasure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Erasure {
    /// Those that were erased now; the others had been.
    Done(Vec<u64>),
    /// This leaf is about no message; nothing was erased.
    NoMessage(u64),
}

impl Store {
    /// Erases the records of leaves with their salts, and by whom and in which thread they would be found; each with
    /// the act that it is. The random id of the message stays beside the entry: while the message is remembered, it
    /// tells which acceptance was erased.
    ///
    /// # Errors
    /// The database failed; nothing was erased.
    pub async fn erase_records(&self, log: LogId, acts: &[(u64, Act<'_>)]) -> Result<Erasure, StoreError> {
        let mut change = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let mut erased = Vec::new();
        for (index, act) in acts {
            let kept: Option<(bool, bool)> = sqlx::query_as(
                "SELECT message IS NOT NULL, record IS NOT NULL FROM leaf WHERE log = ? AND idx = ?",
            )
            .bind(log.0)
            .bind(number(*index))
            .fetch_optional(&mut *change)
            .await?;
            match kept {
                Some((true, true)) => {}
                Some((true, false)) => continue,
                Some((false, _)) => return Ok(Erasure::NoMessage(*index)),
                None => return Err(StoreError::Corrupt("log that lacks a leaf")),
            }
            sqlx::query(
                "UPDATE leaf SET salt = NULL, record = NULL, thread = NULL, readers = '' WHERE log = ? AND idx = ?",
            )
            .bind(log.0)
            .bind(number(*index))
            .execute(&mut *change)
            .await?;
            self.stager.record(&mut change, *act).await?;
            erased.push(*index);
        }
        change.commit().await?;
        // So that the write-ahead log does not keep what was erased. Readers may hold this up; then it goes with the next
        // one that the engine makes.
        if !erased.is_empty() {
            sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.writer).await?;
        }
        Ok(Erasure::Done(erased))
    }
}
