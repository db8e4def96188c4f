//! What this gateway has seen of its peers' logs.

use time::OffsetDateTime;

use super::{
    Store,
    columns::{millis, number},
};
use crate::{limits, store::StoreError};

impl Store {
    /// The largest head of a peer's log that was cosigned: a signed note.
    ///
    /// # Errors
    /// The database failed.
    pub async fn witnessed(&self, origin: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let seen = sqlx::query_scalar("SELECT checkpoint FROM witnessed WHERE origin = ?")
            .bind(origin)
            .fetch_optional(&self.readers)
            .await?;
        Ok(seen)
    }

    /// Keeps a head of a peer's log in place of the one of `old` leaves. False if that is not the newest any more.
    ///
    /// # Errors
    /// The database failed.
    pub async fn witness(
        &self,
        origin: &str,
        old: Option<u64>,
        size: u64,
        checkpoint: &[u8],
    ) -> Result<bool, StoreError> {
        let kept = sqlx::query(
            "INSERT INTO witnessed (origin, size, checkpoint) SELECT ?1, ?3, ?4 \
             WHERE ?2 IS (SELECT size FROM witnessed WHERE origin = ?1) \
             ON CONFLICT (origin) DO UPDATE SET size = excluded.size, checkpoint = excluded.checkpoint",
        )
        .bind(origin)
        .bind(old.map(number))
        .bind(number(size))
        .bind(checkpoint)
        .execute(&self.writer)
        .await?;
        Ok(kept.rows_affected() == 1)
    }

    /// Keeps two heads of a log as evidence that it changed its past, or tells two stories; the first ones of each.
    ///
    /// # Errors
    /// The database failed.
    pub async fn keep_conflict(
        &self,
        origin: &str,
        (known, shown): (&[u8], &[u8]),
        at: OffsetDateTime,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO conflict (at, origin, known, shown) SELECT ?1, ?2, ?3, ?4 \
             WHERE (SELECT COUNT(*) FROM conflict WHERE origin = ?2) < ?5",
        )
        .bind(millis(at))
        .bind(origin)
        .bind(known)
        .bind(shown)
        .bind(limits::LOG_CONFLICTS)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// How many conflicting heads of a log are kept.
    ///
    /// # Errors
    /// The database failed.
    pub async fn conflicts(&self, origin: &str) -> Result<u32, StoreError> {
        let count = sqlx::query_scalar("SELECT COUNT(*) FROM conflict WHERE origin = ?")
            .bind(origin)
            .fetch_one(&self.readers)
            .await?;
        Ok(count)
    }
}
