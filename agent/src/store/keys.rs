//! Other agencies: their key records as this agent has proven them, the pin and what followed, and how
//! the gateway last listed them.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use liaison_proto::{exchange::v1::Agency, message::v1::SignedKeyRecord};
use liaison_trust::{
    digest::{Digest, sha256},
    key_record::{self, KeyRecordError, ProvenKey},
    names::AgencyAddress,
};
use prost::Message as _;
use time::OffsetDateTime;

use super::{Store, StoreError, codec, writer::Change};
use crate::limits;

/// Key records that were proven, by their ids: who sends or answers again proves none of them anew.
pub(super) type Proven = Mutex<HashMap<Digest, ProvenKey>>;

impl Store {
    /// Believes a key record that its own key signed, as [`key_record::prove`] does.
    pub fn prove(&self, record: &SignedKeyRecord) -> Result<ProvenKey, KeyRecordError> {
        let id = sha256(&record.record);
        if let Some(key) = self.proven().get(&id).filter(|key| key.signed == *record) {
            return Ok(key.clone());
        }
        let key = key_record::prove(record)?;
        let mut proven = self.proven();
        if proven.len() >= limits::PROVEN_KEYS {
            proven.clear();
        }
        proven.insert(id, key.clone());
        Ok(key)
    }

    fn proven(&self) -> MutexGuard<'_, HashMap<Digest, ProvenKey>> {
        self.0.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key records known of an agency, oldest first; the first is its pin.
    pub async fn keys(&self, agency: &AgencyAddress) -> Result<Vec<ProvenKey>, StoreError> {
        let records: Vec<Vec<u8>> =
            sqlx::query_scalar("select signed_key_record from keys where agency = ? order by sequence")
                .bind(agency.to_string())
                .fetch_all(self.readers())
                .await?;
        records
            .iter()
            .map(|record| {
                let record: SignedKeyRecord = codec::message(record)?;
                self.prove(&record).map_err(|_| StoreError::Damaged("key record"))
            })
            .collect()
    }

    /// An agency as the gateway last listed it, without its keys.
    pub async fn agency(&self, address: &AgencyAddress) -> Result<Option<Agency>, StoreError> {
        let listed: Option<Vec<u8>> = sqlx::query_scalar("select listed from agencies where address = ?")
            .bind(address.to_string())
            .fetch_optional(self.readers())
            .await?;
        codec::some_message(listed.as_deref())
    }

    /// Keeps how the gateway lists an agency.
    pub async fn set_agency(&self, address: &AgencyAddress, listed: &Agency) -> Result<(), StoreError> {
        let listed = Agency { keys: Vec::new(), ..listed.clone() };
        if self.agency(address).await?.as_ref() == Some(&listed) {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        tx.write("insert or replace into agencies (address, listed) values (?, ?)")
            .bind(address.to_string())
            .bind(listed.encode_to_vec());
        tx.commit().await
    }

    /// Keeps key records that were proven to follow those known, or to be the first.
    pub async fn add_keys(&self, keys: &[ProvenKey]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        add(&mut tx, keys);
        tx.commit().await
    }
}

pub(super) fn add(tx: &mut Change, keys: &[ProvenKey]) {
    for key in keys {
        tx.write(
            "insert into keys (agency, sequence, id, signed_key_record, seen) values (?, ?, ?, ?, ?) \
                 on conflict do nothing",
        )
        .bind(key.agency.to_string())
        .bind(key.sequence)
        .bind(key.id.as_bytes().as_slice())
        .bind(key.signed.encode_to_vec())
        .bind(codec::ms(OffsetDateTime::now_utc()));
    }
}
