//! Copies that a peer accepted and has not told the end of.

use liaison_trust::names::{AgencyAddress, Domain};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store,
    columns::{address, digest, id, millis},
};
use crate::{
    limits,
    store::{DeliveryId, ForwardedCopy, Settled, Settlement, StoreError, remembered_since},
};

const COPY: &str = "SELECT m.sender, m.id, m.digest, f.recipient FROM forwarded AS f \
                    JOIN message AS m ON m.seq = f.message WHERE ";

impl Store {
    /// The copy that was sent to this recipient under this id and digest, whatever became of it.
    pub async fn sent_copy(
        &self,
        message: Uuid,
        digest: &[u8],
        recipient: &AgencyAddress,
    ) -> Result<Option<ForwardedCopy>, StoreError> {
        let sender: Option<String> =
            sqlx::query_scalar("SELECT sender FROM message WHERE id = ? AND digest = ?")
                .bind(message.as_bytes().to_vec())
                .bind(digest)
                .fetch_optional(&self.readers)
                .await?;
        let Some(sender) = sender else { return Ok(None) };
        let digest = self::digest(digest)?;
        Ok(Some(ForwardedCopy { sender: address(&sender)?, message, digest, recipient: recipient.clone() }))
    }

    /// A page of the copies that a domain accepted and has not told the end of.
    pub async fn outstanding_at(&self, domain: &Domain) -> Result<Vec<ForwardedCopy>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{COPY} f.domain = ? LIMIT ?")))
            .bind(domain.as_str())
            .bind(limits::SWEEP_PAGE)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(copy).collect()
    }

    /// How many copies a domain accepted and has not told the end of.
    pub async fn count_outstanding(&self, domain: &Domain) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM forwarded WHERE domain = ?")
            .bind(domain.as_str())
            .fetch_one(&self.readers)
            .await?;
        Ok(count.unsigned_abs())
    }

    /// A page of the copies of which no peer remembers the end any more.
    pub async fn overdue(&self, now: OffsetDateTime) -> Result<Vec<ForwardedCopy>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{COPY} f.expires <= ? LIMIT ?")))
            .bind(millis(remembered_since(now)))
            .bind(limits::SWEEP_PAGE)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(copy).collect()
    }
}

/// Notes that the copy of a delivery was accepted by the recipient's domain.
pub(super) async fn add(db: &mut SqliteConnection, delivery: DeliveryId) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO forwarded (message, recipient, domain, expires) \
         SELECT message, agency, substr(agency, 1, instr(agency, '/') - 1), expires FROM delivery \
         WHERE seq = ? AND message IS NOT NULL ON CONFLICT DO NOTHING",
    )
    .bind(delivery.0)
    .execute(db)
    .await?;
    Ok(())
}

/// Takes a word about a copy, if its end was not told yet.
pub(super) async fn settle(
    db: &mut SqliteConnection,
    settlement: &Settlement,
) -> Result<Settled, StoreError> {
    let ForwardedCopy { sender, message, recipient, .. } = &settlement.copy;
    let seq: Option<i64> = sqlx::query_scalar("SELECT seq FROM message WHERE sender = ? AND id = ?")
        .bind(sender.to_string())
        .bind(message.as_bytes().to_vec())
        .fetch_optional(&mut *db)
        .await?;
    let Some(seq) = seq else { return Ok(Settled::Unknown) };
    let (narrowed, queued): (Option<u32>, bool) = sqlx::query_as(
        "SELECT (SELECT narrowed FROM forwarded WHERE message = ?1 AND recipient = ?2), \
         EXISTS (SELECT 1 FROM delivery WHERE message = ?1 AND agency = ?2 AND quarantined IS NULL)",
    )
    .bind(seq)
    .bind(recipient.to_string())
    .fetch_one(&mut *db)
    .await?;
    let change = match (narrowed, queued) {
        (_, true) => return Ok(Settled::TooEarly),
        (None, false) => return Ok(Settled::Unknown),
        (Some(_), false) if settlement.is_end => "DELETE FROM forwarded WHERE message = ? AND recipient = ?",
        (Some(limits::NARROWINGS..), false) => return Ok(Settled::TooOften),
        (Some(_), false) => {
            "UPDATE forwarded SET narrowed = narrowed + 1 WHERE message = ? AND recipient = ?"
        }
    };
    sqlx::query(change).bind(seq).bind(recipient.to_string()).execute(db).await?;
    Ok(Settled::Done)
}

fn copy(row: &SqliteRow) -> Result<ForwardedCopy, StoreError> {
    Ok(ForwardedCopy {
        sender: address(row.try_get("sender")?)?,
        message: id(row.try_get("id")?)?,
        digest: digest(row.try_get("digest")?)?,
        recipient: address(row.try_get("recipient")?)?,
    })
}
