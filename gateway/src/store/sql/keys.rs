//! Agencies' key records.

use std::collections::BTreeMap;

use liaison_proto::message::v1::SignedKeyRecord;
use liaison_trust::names::AgencyAddress;
use prost::Message;

use super::{
    Store,
    columns::{address, decode},
};
use crate::store::{StoreError, engine::query};

impl Store {
    /// Adds an agency's next key record, and logs it. False if there is another of this sequence number.
    pub async fn add_key(
        &self,
        agency: &AgencyAddress,
        sequence: u32,
        record: &SignedKeyRecord,
    ) -> Result<bool, StoreError> {
        let mut change = self.writer.begin().await?;
        let encoded = record.encode_to_vec();
        let known: Option<Vec<u8>> =
            query("SELECT record FROM key_record WHERE agency = $1 AND sequence = $2")
                .bind(agency.to_string())
                .bind(sequence)
                .fetch_optional(&mut change)
                .await?;
        if let Some(known) = known {
            return Ok(known == encoded);
        }
        query("INSERT INTO key_record (agency, sequence, record) VALUES ($1, $2, $3)")
            .bind(agency.to_string())
            .bind(sequence)
            .bind(&encoded)
            .execute(&mut change)
            .await?;
        self.stager.append_keys(&mut change, &[record]).await?;
        change.commit_told().await?;
        Ok(true)
    }

    /// Every agency's key records, in order.
    pub async fn keys(&self) -> Result<BTreeMap<AgencyAddress, Vec<SignedKeyRecord>>, StoreError> {
        let rows: Vec<(String, Vec<u8>)> =
            query("SELECT agency, record FROM key_record ORDER BY agency, sequence")
                .fetch_all(&self.readers)
                .await?;
        let mut keys: BTreeMap<AgencyAddress, Vec<SignedKeyRecord>> = BTreeMap::new();
        for (agency, record) in rows {
            keys.entry(address(&agency)?).or_default().push(decode(record)?);
        }
        Ok(keys)
    }
}
