//! Which CA agencies' certificates are of, and what was told with them.

use liaison_proto::admin::v1::agency_state::Code as AgencyState;
use liaison_trust::{digest::Digest, names::AgencyAddress};
use time::OffsetDateTime;

use super::{
    Store,
    columns::{address, digest, millis},
};
use crate::store::{Act, StoreError};

/// What an agency got with a certificate, by the SHA-256 of the roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssuedBy {
    /// The root of the CA that issued it.
    pub ca: Digest,
    /// The other root that was told with it, while the CA was being changed.
    pub other: Option<Digest>,
}

impl Store {
    /// Writes down the CA of the certificates of which it isn't written down yet.
    ///
    /// # Errors
    /// The database failed.
    pub async fn adopt_certificates(&self, ca: &Digest) -> Result<(), StoreError> {
        let mut change = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("UPDATE certificate SET ca = ? WHERE ca IS NULL")
            .bind(ca.as_ref())
            .execute(&mut *change)
            .await?;
        change.commit().await?;
        Ok(())
    }

    /// What each member got with its newest certificate, of those that end after this moment; in the order
    /// of the addresses.
    ///
    /// # Errors
    /// The database failed.
    pub async fn newest_certificates(
        &self,
        after: OffsetDateTime,
    ) -> Result<Vec<(AgencyAddress, IssuedBy)>, StoreError> {
        type Row = (String, Vec<u8>, Option<Vec<u8>>, i64);
        // Beside max() SQLite gives the columns of the row that has it.
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT agency, ca, other, max(issued) FROM certificate JOIN agency ON address = agency \
             WHERE state IN (?, ?) AND not_after > ? GROUP BY agency ORDER BY agency",
        )
        .bind(i32::from(AgencyState::Active))
        .bind(i32::from(AgencyState::Suspended))
        .bind(millis(after))
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter()
            .map(|(agency, ca, other, _)| {
                let other = other.as_deref().map(digest).transpose()?;
                Ok((address(&agency)?, IssuedBy { ca: digest(&ca)?, other }))
            })
            .collect()
    }

    /// Records an administrative act that changes nothing in the database itself.
    ///
    /// # Errors
    /// The database failed.
    pub async fn record(&self, act: Act<'_>) -> Result<(), StoreError> {
        let mut change = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        self.stager.record(&mut change, act).await?;
        change.commit().await?;
        Ok(())
    }
}
