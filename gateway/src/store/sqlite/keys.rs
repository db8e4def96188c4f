//! Agencies' key records.

use std::collections::BTreeMap;

use liaison_proto::message::v1::SignedKeyRecord;
use liaison_trust::names::AgencyAddress;
use prost::Message;

use super::{
    Store,
    columns::{address, decode},
};
use crate::store::StoreError;

impl Store {
    /// Adds an agency's next key record. False if there is another of this sequence number.
    pub async fn add_key(
        &self,
        agency: &AgencyAddress,
        sequence: u32,
        record: &SignedKeyRecord,
    ) -> Result<bool, StoreError> {
        let added = sqlx::query(
            "INSERT INTO key_record (agency, sequence, record) VALUES (?, ?, ?) \
             ON CONFLICT DO UPDATE SET record = excluded.record WHERE record = excluded.record",
        )
        .bind(agency.to_string())
        .bind(sequence)
        .bind(record.encode_to_vec())
        .execute(&self.writer)
        .await?;
        Ok(added.rows_affected() == 1)
    }

    /// Every agency's key records, in order.
    pub async fn keys(&self) -> Result<BTreeMap<AgencyAddress, Vec<SignedKeyRecord>>, StoreError> {
        let rows: Vec<(String, Vec<u8>)> =
            sqlx::query_as("SELECT agency, record FROM key_record ORDER BY agency, sequence")
                .fetch_all(&self.readers)
                .await?;
        let mut keys: BTreeMap<AgencyAddress, Vec<SignedKeyRecord>> = BTreeMap::new();
        for (agency, record) in rows {
            keys.entry(address(&agency)?).or_default().push(decode(record)?);
        }
        Ok(keys)
    }
}
