//! Reads of queues and threads.

use std::collections::HashMap;

use liaison_proto::message::v1::{SignedAcceptance, status::Code as Status};
use liaison_trust::{digest::Digest, names::AgencyAddress};
use sqlx::{Row, SqlitePool, sqlite::SqliteRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store,
    columns::{address, decode, digest, id, millis, moment, number},
};
use crate::{
    limits,
    store::{DeliveryId, Head, Item, Load, Queued, QueuedCopy, Released, StoreError, Thread},
};

impl Store {
    /// The next page of an agency's queue behind a delivery, in order: bounded in number and bytes.
    pub async fn queue(&self, agency: &AgencyAddress, after: DeliveryId) -> Result<Vec<Queued>, StoreError> {
        let rows = sqlx::query(include_str!("queue.sql"))
            .bind(agency.to_string())
            .bind(after.0)
            .bind(limits::PAGE_DELIVERIES)
            .bind(number(limits::PAGE_BYTES))
            .fetch_all(&self.readers)
            .await?;
        rows.into_iter().map(queued).collect()
    }

    /// What waits for an agency, a page of it: copies with their heads, and notices.
    pub async fn waiting(
        &self,
        agency: &AgencyAddress,
    ) -> Result<Vec<(DeliveryId, Option<Head>)>, StoreError> {
        let rows = sqlx::query(
            "SELECT d.seq, d.agency, d.expires, d.message, m.sender, m.id, m.digest FROM delivery AS d \
             LEFT JOIN message AS m ON m.seq = d.message \
             WHERE d.agency = ? AND d.quarantined IS NULL ORDER BY d.seq LIMIT ?",
        )
        .bind(agency.to_string())
        .bind(limits::SWEEP_PAGE)
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                let is_copy = row.try_get::<Option<i64>, _>("message")?.is_some();
                Ok((DeliveryId(row.try_get("seq")?), is_copy.then(|| head(row)).transpose()?))
            })
            .collect()
    }

    /// Copies that nobody took before they expired.
    pub async fn expired(&self, now: OffsetDateTime) -> Result<Vec<Head>, StoreError> {
        let rows = sqlx::query(
            "SELECT d.seq, d.agency, d.expires, m.sender, m.id, m.digest FROM delivery AS d \
             JOIN message AS m ON m.seq = d.message \
             WHERE d.expires <= ? AND d.message IS NOT NULL AND d.quarantined IS NULL \
             ORDER BY d.expires LIMIT ?",
        )
        .bind(millis(now))
        .bind(limits::SWEEP_PAGE)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(head).collect()
    }

    /// A message that was accepted: the digest of its manifest and its acceptance.
    pub async fn accepted(
        &self,
        sender: &AgencyAddress,
        message: Uuid,
    ) -> Result<Option<(Digest, SignedAcceptance)>, StoreError> {
        let row = sqlx::query("SELECT digest, acceptance FROM message WHERE sender = ? AND id = ?")
            .bind(sender.to_string())
            .bind(message.as_bytes().to_vec())
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| Ok((digest(row.try_get("digest")?)?, decode(row.try_get("acceptance")?)?))).transpose()
    }

    /// The parties of a referral's thread.
    pub async fn thread(&self, thread: Uuid) -> Result<Option<Thread>, StoreError> {
        let row = sqlx::query("SELECT requester, responder, status FROM thread WHERE thread = ?")
            .bind(thread.as_bytes().to_vec())
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| {
            Ok(Thread {
                id: thread,
                requester: address(row.try_get("requester")?)?,
                responder: address(row.try_get("responder")?)?,
                status: Status::try_from(row.try_get::<i32, _>("status")?)
                    .map_err(|_| StoreError::Corrupt("status"))?,
            })
        })
        .transpose()
    }
}

/// What waits for each agency that something waits for.
pub(super) async fn loads(db: &SqlitePool) -> Result<HashMap<AgencyAddress, Load>, StoreError> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT agency, COUNT(*), SUM(bytes) FROM delivery WHERE quarantined IS NULL GROUP BY agency",
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|(agency, deliveries, bytes)| {
            let load = Load { deliveries: deliveries.unsigned_abs(), bytes: bytes.unsigned_abs() };
            Ok((address(&agency)?, load))
        })
        .collect()
}

fn queued(row: SqliteRow) -> Result<Queued, StoreError> {
    let delivery = DeliveryId(row.try_get("seq")?);
    let notice: Option<Vec<u8>> = row.try_get("notice")?;
    let item = match notice {
        Some(notice) => Item::Notice(decode(notice)?),
        None => Item::Copy(Box::new(QueuedCopy {
            head: head(&row)?,
            content: decode(row.try_get("envelope")?)?,
            proof: decode(row.try_get("proof")?)?,
            released: Released {
                bases: decode(row.try_get("bases")?)?,
                decision: decode(row.try_get("decision")?)?,
                release: decode(row.try_get("release")?)?,
                policy_hash: digest(row.try_get("policy_hash")?)?,
            },
        })),
    };
    Ok(Queued { id: delivery, item })
}

fn head(row: &SqliteRow) -> Result<Head, StoreError> {
    Ok(Head {
        delivery: DeliveryId(row.try_get("seq")?),
        recipient: address(row.try_get("agency")?)?,
        sender: address(row.try_get("sender")?)?,
        message: id(row.try_get("id")?)?,
        digest: digest(row.try_get("digest")?)?,
        expires: moment(row.try_get("expires")?)?,
    })
}
