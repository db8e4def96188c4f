//! Reads of queues and threads.

use bytes::Bytes;
use liaison_proto::message::v1::{Envelope, error_code::Code as ErrorCode, status::Code as Status};
use liaison_trust::{
    digest::Digest,
    names::{AgencyAddress, Domain},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store,
    columns::{address, decode, digest, id, millis, moment, number},
};
use crate::{
    limits,
    store::{
        DeliveryId, Head, Item, Page, Queue, Queued, QueuedCopy, Released, StoreError, Thread, Unit,
        engine::{Row, query},
        remembered_since,
    },
};

impl Store {
    /// The next page of a queue behind a delivery, in order: bounded in number and bytes.
    pub async fn queue(&self, queue: &Queue, after: DeliveryId) -> Result<Page, StoreError> {
        let recent = match self.readers.is_shared() {
            true => self.recent_of_all(queue, after).await?,
            false => self.recent.next(queue, after, limits::PAGE_DELIVERIES as usize).map(|queued| {
                let may_be_more = queued.len() >= limits::PAGE_DELIVERIES as usize;
                Page { queued, may_be_more }
            }),
        };
        if let Some(recent) = recent {
            return Ok(recent);
        }
        let rows: Vec<Row> = query(include_str!("queue.sql"))
            .bind(queue.to_string())
            .bind(after.0)
            .bind(limits::PAGE_DELIVERIES)
            .bind(number(limits::PAGE_BYTES))
            .fetch_all(&self.readers)
            .await?;
        let page = rows.into_iter().map(queued).collect::<Result<Vec<_>, _>>()?;
        // What was read may be changed before it is asked for again.
        self.recent.forget(page.iter().map(|queued| queued.id));
        Ok(Page { may_be_more: !page.is_empty(), queued: page })
    }

    /// The next in a queue to which other gateways add as well, as far as this one has it in memory; none where it does
    /// not have the first.
    async fn recent_of_all(&self, queue: &Queue, after: DeliveryId) -> Result<Option<Page>, StoreError> {
        let next: Vec<(i64, i64)> = query(
            "SELECT seq, (SELECT state FROM shared) FROM delivery WHERE queue = $1 AND seq > $2 AND quarantined IS NULL \
             ORDER BY seq LIMIT $3",
        )
        .bind(queue.to_string())
        .bind(after.0)
        .bind(limits::PAGE_DELIVERIES)
        .fetch_all(&self.readers)
        .await?;
        // Whatever woke the reader, it decides by what was changed before.
        self.view_of(next.first().map_or(0, |(_, state)| state.unsigned_abs())).await?;
        let next: Vec<_> = next.into_iter().map(|(seq, _)| DeliveryId(seq)).collect();
        let queued = self.recent.take(&next);
        let may_be_more = queued.len() < next.len() || next.len() >= limits::PAGE_DELIVERIES as usize;
        Ok((next.is_empty() || !queued.is_empty()).then_some(Page { queued, may_be_more }))
    }

    /// What a lane holds next behind a delivery: all copies of one message, or one notice.
    pub async fn unit(&self, lane: &Queue, after: DeliveryId) -> Result<Option<Unit>, StoreError> {
        self.fresh().await?;
        let rows: Vec<Row> = query(include_str!("unit.sql"))
            .bind(lane.to_string())
            .bind(after.0)
            .fetch_all(&self.readers)
            .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        if let Some(notice) = first.get::<Option<Vec<u8>>>("notice")? {
            return Ok(Some(Unit::Notice { id: DeliveryId(first.get("seq")?), notice: decode(notice)? }));
        }
        let message: i64 = first.get("message")?;
        let envelope: Option<Vec<u8>> = query("SELECT envelope FROM content WHERE message = $1")
            .bind(message)
            .fetch_optional(&self.readers)
            .await?;
        let copies = rows.iter().map(|row| copy(row, Envelope::default())).collect::<Result<Vec<_>, _>>()?;
        let first = DeliveryId(first.get("seq")?);
        let last = copies.last().map(|copy| copy.head.delivery).unwrap_or_default();
        // Gone in between: the next look finds what is there then.
        let Some(envelope) = envelope else { return Ok(None) };
        Ok(Some(Unit::Message { first, last, copies, content: Box::new(decode(envelope)?) }))
    }

    /// What waits in a queue, a page of it: copies with their heads, and notices.
    pub async fn waiting(&self, queue: &Queue) -> Result<Vec<(DeliveryId, Option<Head>)>, StoreError> {
        let rows: Vec<Row> = query(
            "SELECT d.seq, d.agency, d.expires, d.offered, d.handed_over, d.log, d.waiting, d.waitings, d.message, m.sender, m.id, m.digest FROM delivery AS d \
             LEFT JOIN message AS m ON m.seq = d.message \
             WHERE d.queue = $1 AND d.quarantined IS NULL ORDER BY d.seq LIMIT $2",
        )
        .bind(queue.to_string())
        .bind(limits::SWEEP_PAGE)
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                let is_copy = row.get::<Option<i64>>("message")?.is_some();
                Ok((DeliveryId(row.get("seq")?), is_copy.then(|| head(row)).transpose()?))
            })
            .collect()
    }

    /// A page of the copies in a lane whose senders were not told this reason of waiting.
    pub async fn untold(&self, lane: &Queue, why: ErrorCode) -> Result<Vec<Head>, StoreError> {
        let rows: Vec<Row> = query(
            "SELECT d.seq, d.agency, d.expires, d.offered, d.handed_over, d.log, d.waiting, d.waitings, m.sender, m.id, m.digest \
             FROM delivery AS d JOIN message AS m ON m.seq = d.message \
             WHERE d.queue = $1 AND d.quarantined IS NULL AND d.waiting <> $2 AND d.waitings < $3 \
             ORDER BY d.seq LIMIT $4",
        )
        .bind(lane.to_string())
        .bind(i32::from(why))
        .bind(limits::WAITINGS)
        .bind(limits::SWEEP_PAGE)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(head).collect()
    }

    /// Whether something waits for a domain for this reason.
    pub async fn waits(&self, domain: &Domain, why: ErrorCode) -> Result<bool, StoreError> {
        let lanes = self.lanes(domain);
        for lane in lanes {
            let waits: bool = query(
                "SELECT EXISTS (SELECT 1 FROM delivery WHERE queue = $1 AND quarantined IS NULL AND waiting = $2)",
            )
            .bind(lane.to_string())
            .bind(i32::from(why))
            .fetch_one(&self.readers)
            .await?;
            if waits {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Copies that nobody took before they expired. One that a peer may have taken is left for the peer to
    /// answer, as long as the peer remembers it.
    pub async fn expired(&self, now: OffsetDateTime) -> Result<Vec<Head>, StoreError> {
        let rows: Vec<Row> = query(
            "SELECT d.seq, d.agency, d.expires, d.offered, d.handed_over, d.log, d.waiting, d.waitings, m.sender, m.id, m.digest FROM delivery AS d \
             JOIN message AS m ON m.seq = d.message \
             WHERE d.expires <= $1 AND d.message IS NOT NULL AND d.quarantined IS NULL AND d.forwarded = FALSE \
             AND (d.offered = FALSE OR d.expires <= $2) ORDER BY d.expires LIMIT $3",
        )
        .bind(millis(now))
        .bind(millis(remembered_since(now)))
        .bind(limits::SWEEP_PAGE)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(head).collect()
    }

    /// A message that was accepted: the digest of its manifest and its acceptance, which is empty once it was erased.
    pub async fn accepted(
        &self,
        sender: &AgencyAddress,
        message: Uuid,
    ) -> Result<Option<(Digest, Bytes)>, StoreError> {
        let row: Option<Row> = query("SELECT digest, acceptance FROM message WHERE sender = $1 AND id = $2")
            .bind(sender.to_string())
            .bind(message.as_bytes().to_vec())
            .fetch_optional(&self.readers)
            .await?;
        let read = |row: Row| {
            let acceptance: Vec<u8> = row.get("acceptance")?;
            Ok((digest(row.get("digest")?)?, acceptance.into()))
        };
        row.map(read).transpose()
    }

    /// The parties of a referral's thread.
    pub async fn thread(&self, thread: Uuid) -> Result<Option<Thread>, StoreError> {
        let row: Option<Row> = query("SELECT requester, responder, status FROM thread WHERE thread = $1")
            .bind(thread.as_bytes().to_vec())
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| {
            Ok(Thread {
                id: thread,
                requester: address(row.get("requester")?)?,
                responder: address(row.get("responder")?)?,
                status: Status::try_from(row.get::<i32>("status")?)
                    .map_err(|_| StoreError::Corrupt("status"))?,
            })
        })
        .transpose()
    }
}

fn queued(row: Row) -> Result<Queued, StoreError> {
    let delivery = DeliveryId(row.get("seq")?);
    let notice: Option<Vec<u8>> = row.get("notice")?;
    let item = match notice {
        Some(notice) => Item::Notice(decode(notice)?),
        None => Item::Copy(Box::new(copy(&row, decode(row.get("envelope")?)?)?)),
    };
    Ok(Queued { id: delivery, item })
}

fn copy(row: &Row, content: Envelope) -> Result<QueuedCopy, StoreError> {
    Ok(QueuedCopy {
        head: head(row)?,
        content,
        proof: decode(row.get("proof")?)?,
        bases_salt: row.get::<Option<Vec<u8>>>("bases_salt")?.unwrap_or_default().into(),
        released: Released {
            bases: decode(row.get("bases")?)?,
            decision: decode(row.get("decision")?)?,
            release: decode(row.get("release")?)?,
        },
        from_memory: false,
    })
}

pub(super) fn head(row: &Row) -> Result<Head, StoreError> {
    Ok(Head {
        delivery: DeliveryId(row.get("seq")?),
        recipient: address(row.get("agency")?)?,
        sender: address(row.get("sender")?)?,
        message: id(row.get("id")?)?,
        digest: digest(row.get("digest")?)?,
        expires: moment(row.get("expires")?)?,
        offered: row.get("offered")?,
        handed_over: row.get("handed_over")?,
        accepted: row.get::<Option<u32>>("log")?.is_some(),
        waiting: (
            ErrorCode::try_from(row.get::<i32>("waiting")?)
                .map_err(|_| StoreError::Corrupt("reason of waiting"))?,
            row.get("waitings")?,
        ),
    })
}
