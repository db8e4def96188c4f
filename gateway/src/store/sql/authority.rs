//! Which CA agencies' certificates are of, and what was told with them.

use liaison_proto::admin::v1::agency_state::Code as AgencyState;
use liaison_trust::{digest::Digest, names::AgencyAddress};
use time::OffsetDateTime;

use super::{
    Store,
    columns::{address, digest, millis},
};
use crate::store::{Act, StoreError, engine::query};

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
        let mut change = self.writer.begin().await?;
        query("UPDATE certificate SET ca = $1 WHERE ca IS NULL")
            .bind(ca.as_ref())
            .execute(&mut change)
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
        let rows: Vec<(String, Vec<u8>, Option<Vec<u8>>)> = query(
            "SELECT agency, ca, other FROM (SELECT agency, ca, other, \
             ROW_NUMBER() OVER (PARTITION BY agency ORDER BY issued DESC, serial) AS place \
             FROM certificate JOIN agency ON address = agency WHERE state IN ($1, $2) AND not_after > $3) AS newest \
             WHERE place = 1 ORDER BY agency",
        )
        .bind(i32::from(AgencyState::Active))
        .bind(i32::from(AgencyState::Suspended))
        .bind(millis(after))
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter()
            .map(|(agency, ca, other)| {
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
        let mut change = self.writer.begin().await?;
        self.stager.record(&mut change, act).await?;
        change.commit().await?;
        Ok(())
    }
}
