//! Policy sets, and the state of the database itself.

use liaison_proto::admin::v1::LoadPolicyRequest;
use liaison_trust::digest::Digest;
use prost::Message;
use time::OffsetDateTime;

use super::{
    Store,
    columns::{decode, digest, millis},
    inspect::write_probe,
};
use crate::{
    limits,
    store::{Act, StoreError, engine::query},
};

impl Store {
    /// Keeps a policy set and makes it the active one, in one step.
    ///
    /// # Errors
    /// The database failed; the set that was active still is.
    pub async fn activate_policy(
        &self,
        hash: &Digest,
        files: &LoadPolicyRequest,
        act: Act<'_>,
    ) -> Result<(), StoreError> {
        let mut change = self.writer.begin().await?;
        query("UPDATE policy_set SET active = FALSE WHERE active = TRUE").execute(&mut change).await?;
        query(
            "INSERT INTO policy_set (hash, files, activated, active) VALUES ($1, $2, $3, TRUE) \
             ON CONFLICT (hash) DO UPDATE SET activated = excluded.activated, active = TRUE",
        )
        .bind(hash.as_ref())
        .bind(files.encode_to_vec())
        .bind(millis(act.at))
        .execute(&mut change)
        .await?;
        query(
            "DELETE FROM policy_set WHERE active = FALSE AND hash NOT IN \
             (SELECT hash FROM policy_set ORDER BY activated DESC LIMIT $1)",
        )
        .bind(limits::POLICY_SETS)
        .execute(&mut change)
        .await?;
        self.stager.record(&mut change, act).await?;
        self.commit_state(change).await?;
        Ok(())
    }

    /// The files of the active policy set; none before the first was loaded.
    ///
    /// # Errors
    /// The database failed, or holds what can't be read.
    pub async fn active_policy(&self) -> Result<Option<LoadPolicyRequest>, StoreError> {
        let files: Option<Vec<u8>> =
            query("SELECT files FROM policy_set WHERE active = TRUE").fetch_optional(&self.readers).await?;
        files.map(decode).transpose()
    }

    /// The hash of the active policy set; none before the first was loaded.
    ///
    /// # Errors
    /// The database failed, or holds what can't be read.
    pub async fn active_policy_hash(&self) -> Result<Option<Digest>, StoreError> {
        let hash: Option<Vec<u8>> =
            query("SELECT hash FROM policy_set WHERE active = TRUE").fetch_optional(&self.readers).await?;
        hash.as_deref().map(digest).transpose()
    }

    /// Closes the database, so that its file alone holds everything. Changes are refused from then on.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Writes one row durably: proof that the database takes writes.
    ///
    /// # Errors
    /// It doesn't.
    pub async fn probe(&self, now: OffsetDateTime) -> Result<(), StoreError> {
        write_probe(&self.writer, now).await
    }
}
