//! The domain's log of keys, as far as it was replayed.

use liaison_proto::message::v1::{Refusal, SignedKeyRecord, referral_state::Code as State};
use liaison_trust::{
    digest::Digest,
    key_record::ProvenKey,
    log::{Frontier, Note},
    names::AgencyAddress,
};
use prost::Message as _;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, codec, keys, writer::Change};
use crate::limits;

/// How far the log was replayed.
#[derive(Debug, Clone)]
pub struct KeyLog {
    pub frontier: Frontier,
    /// The checkpoint over exactly that.
    pub note: String,
}

/// A key record of an agency that the log holds.
#[derive(Debug, Clone)]
pub struct LoggedKey {
    pub index: u64,
    pub key: ProvenKey,
    /// Whether a person has confirmed other keys since.
    pub settled: bool,
}

impl Store {
    /// How far the log was replayed; none before the first checkpoint.
    pub async fn key_log(&self) -> Result<Option<KeyLog>, StoreError> {
        let row: Option<(i64, Vec<u8>, String)> =
            sqlx::query_as("select size, frontier, note from key_log").fetch_optional(self.readers()).await?;
        let Some((size, frontier, note)) = row else { return Ok(None) };
        let (hashes, rest) = frontier.as_chunks::<32>();
        let hashes = hashes.iter().copied().map(Digest).collect();
        let frontier = Frontier::from_parts(size.unsigned_abs(), hashes).ok().filter(|_| rest.is_empty());
        Ok(Some(KeyLog { frontier: frontier.ok_or(StoreError::Damaged("frontier"))?, note }))
    }

    /// Nothing of the log counts any more; another is replayed from its beginning. What a person has said of keys stays.
    pub async fn forget_key_log(&self) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.write("delete from key_log");
        tx.write("update logged_keys set idx = null");
        tx.commit().await
    }

    /// Forgets what was read behind the checkpoint up to which the log was replayed.
    pub async fn forget_unproven_keys(&self) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.write("delete from logged_keys where idx >= coalesce((select size from key_log), 0)");
        tx.commit().await
    }

    /// Keeps entries that were read, and, where they end with a checkpoint whose root is theirs, that they count.
    pub async fn keys_read(
        &self,
        read: &[(u64, ProvenKey)],
        reached: Option<(&Frontier, &Note)>,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for (index, key) in read {
            tx.ask(
                "insert into logged_keys (agency, id, idx, signed_key_record) values (?, ?, ?, ?) \
                 on conflict do update set idx = excluded.idx where logged_keys.idx is null",
            )
            .bind(key.agency.to_string())
            .bind(key.id.as_bytes().as_slice())
            .bind(i64::try_from(*index).unwrap_or(i64::MAX))
            .bind(key.signed.encode_to_vec())
            .changed()
            .await?;
        }
        if let Some((frontier, note)) = reached {
            let hashes: Vec<u8> = frontier.hashes().iter().flat_map(|hash| *hash.as_bytes()).collect();
            tx.write("insert or replace into key_log (one, size, frontier, note) values (1, ?, ?, ?)")
                .bind(i64::try_from(frontier.size()).unwrap_or(i64::MAX))
                .bind(hashes)
                .bind(note.to_string());
        }
        tx.commit().await
    }

    /// The key records of an agency that the log holds, in its order: one more than a chain may have at most.
    pub async fn logged_keys(&self, agency: &AgencyAddress) -> Result<Vec<LoggedKey>, StoreError> {
        let rows: Vec<(i64, Vec<u8>, bool)> = sqlx::query_as(
            "select idx, signed_key_record, settled from logged_keys \
             where agency = ? and idx < (select size from key_log) order by idx limit ?",
        )
        .bind(agency.to_string())
        .bind(i64::try_from(limits::KEY_CHAIN).unwrap_or(i64::MAX).saturating_add(1))
        .fetch_all(self.readers())
        .await?;
        rows.into_iter()
            .map(|(index, record, settled)| {
                let record: SignedKeyRecord = codec::message(&record)?;
                let key = self.prove(&record).map_err(|_| StoreError::Damaged("key record"))?;
                Ok(LoggedKey { index: index.unsigned_abs(), key, settled })
            })
            .collect()
    }

    /// Agencies of which there are keys, behind one in the order of their addresses: so many at most.
    pub async fn agencies_with_keys(&self, after: &str, most: u32) -> Result<Vec<AgencyAddress>, StoreError> {
        let agencies: Vec<String> = sqlx::query_scalar(
            "select agency from (select agency from logged_keys where idx < (select size from key_log) \
             union select agency from keys) where agency > ? order by agency limit ?",
        )
        .bind(after)
        .bind(most)
        .fetch_all(self.readers())
        .await?;
        agencies.iter().map(|agency| codec::address(agency)).collect()
    }

    /// Puts the keys that a person confirmed in the place of those known of an agency; all others that the log holds of it
    /// are known to be none of its. What waits in the outbox may be tried again at once.
    pub async fn confirm_keys(
        &self,
        agency: &AgencyAddress,
        chain: &[ProvenKey],
        others: &[Digest],
        actor: &str,
    ) -> Result<(), StoreError> {
        let of = agency.to_string();
        let mut tx = self.begin().await?;
        tx.write("delete from keys where agency = ?").bind(&of);
        keys::add(&mut tx, chain);
        tx.write("insert into confirmed_keys (at, actor, agency, fingerprint) values (?, ?, ?, ?)")
            .bind(codec::ms(OffsetDateTime::now_utc()))
            .bind(actor)
            .bind(&of)
            .bind(chain.first().map(|first| first.id.as_bytes().to_vec()).unwrap_or_default());
        for id in others {
            tx.ask("update logged_keys set settled = 1 where agency = ? and id = ?")
                .bind(&of)
                .bind(id.as_bytes().as_slice())
                .changed()
                .await?;
        }
        tx.write("update outbox set not_before = 0 where draft is not null");
        tx.commit().await?;
        self.wake_outbox();
        Ok(())
    }

    /// Tells why a message that waits is not sealed to a recipient until a person has looked at it.
    pub async fn wait_for_person(
        &self,
        id: Uuid,
        recipient: &AgencyAddress,
        why: &Refusal,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.write("update deliveries set refusal = ? where message = ? and agency = ?")
            .bind(why.encode_to_vec())
            .bind(id.as_bytes().as_slice())
            .bind(recipient.to_string());
        tx.commit().await
    }
}

/// The message is sealed: nothing in this agent holds it up any more.
pub(super) fn waits_no_more(tx: &mut Change, id: Uuid) {
    tx.write("update deliveries set refusal = null where message = ? and state = ?")
        .bind(id.as_bytes().as_slice())
        .bind(i32::from(State::Submitted));
}
