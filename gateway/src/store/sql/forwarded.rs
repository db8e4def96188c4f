//! Copies that a peer accepted and has not told the end of.

use liaison_trust::names::{AgencyAddress, Domain};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store,
    columns::{address, digest, id, millis, queue},
    queue::head,
};
use crate::{
    limits,
    store::{
        DeliveryId, ForwardedCopy, Head, Queue, Settled, Settlement, StoreError,
        engine::{Row, Transaction, query},
        remembered_since,
    },
};

/// A forwarded copy; those of one domain are found by [`at`].
const COPY: &str = "SELECT d.seq, d.agency, d.expires, d.offered, d.handed_over, d.log, d.waiting, d.waitings, \
                    m.sender, m.id, m.digest \
                    FROM delivery AS d JOIN message AS m ON m.seq = d.message \
                    WHERE d.forwarded = TRUE AND d.quarantined IS NULL";

impl Store {
    /// The copy that was sent to this recipient under this id and digest, whatever became of it.
    pub async fn sent_copy(
        &self,
        message: Uuid,
        digest: &[u8],
        recipient: &AgencyAddress,
    ) -> Result<Option<ForwardedCopy>, StoreError> {
        let sender: Option<String> = query("SELECT sender FROM message WHERE id = $1 AND digest = $2")
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
        let (from, to) = at(domain);
        let rows: Vec<Row> = query(format!("{COPY} AND d.queue >= $1 AND d.queue < $2 LIMIT $3"))
            .bind(from)
            .bind(to)
            .bind(limits::SWEEP_PAGE)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(copy).collect()
    }

    /// A page of the copies that a domain accepted under a log before the one of this number, and that have not expired
    /// since, in the order in which they came.
    pub async fn lost_at(
        &self,
        domain: &Domain,
        log: u32,
        now: OffsetDateTime,
    ) -> Result<Vec<Head>, StoreError> {
        let (from, to) = at(domain);
        let rows: Vec<Row> = query(format!(
            "{COPY} AND d.queue >= $1 AND d.queue < $2 AND d.log < $3 AND d.again < $4 AND d.expires > $5 \
             ORDER BY d.seq LIMIT $6"
        ))
        .bind(from)
        .bind(to)
        .bind(log)
        .bind(limits::OFFERED_AGAIN)
        .bind(millis(now))
        .bind(limits::SWEEP_PAGE)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(head).collect()
    }

    /// How many copies a domain accepted and has not told the end of.
    pub async fn count_outstanding(&self, domain: &Domain) -> Result<u64, StoreError> {
        let (from, to) = at(domain);
        let count: i64 = query(
            "SELECT COUNT(*) FROM delivery \
             WHERE queue >= $1 AND queue < $2 AND forwarded = TRUE AND quarantined IS NULL",
        )
        .bind(from)
        .bind(to)
        .fetch_one(&self.readers)
        .await?;
        Ok(count.unsigned_abs())
    }

    /// A page of the copies of which no peer remembers the end any more.
    pub async fn overdue(&self, now: OffsetDateTime) -> Result<Vec<ForwardedCopy>, StoreError> {
        let rows: Vec<Row> = query(format!("{COPY} AND d.expires <= $1 LIMIT $2"))
            .bind(millis(remembered_since(now)))
            .bind(limits::SWEEP_PAGE)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(copy).collect()
    }
}

/// The names of the queues of a domain's agencies: from the first, and before the second.
fn at(domain: &Domain) -> (String, String) {
    // What comes behind a slash.
    (format!("{domain}/"), format!("{domain}0"))
}

/// A delivery whose end was told.
pub(super) struct Ended {
    pub(super) queue: Queue,
    pub(super) bytes: u64,
    pub(super) message: i64,
}

/// Takes a word about a copy, if its end was not told yet; the delivery where it was that.
pub(super) async fn settle(
    db: &mut Transaction,
    settlement: &Settlement,
) -> Result<(Settled, Option<Ended>), StoreError> {
    let ForwardedCopy { sender, message, recipient, .. } = &settlement.copy;
    let row: Option<Row> = query(
        "SELECT d.seq, d.queue, d.bytes, d.message, d.narrowed, d.forwarded OR d.log IS NOT NULL AS accepted \
         FROM message AS m JOIN delivery AS d ON d.message = m.seq \
         WHERE m.sender = $1 AND m.id = $2 AND d.agency = $3 AND d.quarantined IS NULL",
    )
    .bind(sender.to_string())
    .bind(message.as_bytes().to_vec())
    .bind(recipient.to_string())
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok((Settled::Unknown, None)) };
    // One that waits to be offered again, the peer had after all.
    if !row.get::<bool>("accepted")? {
        return Ok((Settled::TooEarly, None));
    }
    let delivery = DeliveryId(row.get("seq")?);
    if settlement.is_end {
        query("DELETE FROM delivery WHERE seq = $1").bind(delivery.0).execute(db).await?;
        let ended = Ended {
            queue: queue(row.get("queue")?)?,
            bytes: row.get::<i64>("bytes")?.unsigned_abs(),
            message: row.get("message")?,
        };
        return Ok((Settled::Done, Some(ended)));
    }
    if row.get::<u32>("narrowed")? >= limits::NARROWINGS {
        return Ok((Settled::TooOften, None));
    }
    query("UPDATE delivery SET narrowed = narrowed + 1 WHERE seq = $1").bind(delivery.0).execute(db).await?;
    Ok((Settled::Done, None))
}

fn copy(row: &Row) -> Result<ForwardedCopy, StoreError> {
    Ok(ForwardedCopy {
        sender: address(row.get("sender")?)?,
        message: id(row.get("id")?)?,
        digest: digest(row.get("digest")?)?,
        recipient: address(row.get("agency")?)?,
    })
}
