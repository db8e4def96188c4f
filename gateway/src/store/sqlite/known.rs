//! What the database knows already of the changes in a batch.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use liaison_proto::message::v1::Envelope;
use liaison_trust::{digest::Digest, names::AgencyAddress};
use prost::Message;
use sqlx::{QueryBuilder, Row, SqliteConnection};
use uuid::Uuid;

use super::{
    batch::Accepts,
    columns::{address, decode, digest, id, queue},
    statements::{list, lists, padded},
};
use crate::store::{DeliveryId, NewMessage, Queue, StoreError};

/// Keeps what a message brings for more recipients: its content, where it went with the last of those before, or
/// sections that none of them was released.
pub(super) async fn extend(
    db: &mut SqliteConnection,
    seq: i64,
    message: &NewMessage,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE message SET acceptance = ? WHERE seq = ?")
        .bind(message.acceptance.to_vec())
        .bind(seq)
        .execute(&mut *db)
        .await?;
    if message.copies.is_empty() {
        return Ok(());
    }
    let kept: Option<Vec<u8>> = sqlx::query_scalar("SELECT envelope FROM content WHERE message = ?")
        .bind(seq)
        .fetch_optional(&mut *db)
        .await?;
    let mut content = message.content.clone();
    if let Some(kept) = kept {
        let known: HashSet<u32> = content.sections.iter().map(|section| section.position).collect();
        let kept: Envelope = decode(kept)?;
        content.sections.extend(kept.sections.into_iter().filter(|kept| !known.contains(&kept.position)));
        content.sections.sort_by_key(|section| section.position);
    }
    sqlx::query(
        "INSERT INTO content (message, envelope) VALUES (?, ?) \
         ON CONFLICT (message) DO UPDATE SET envelope = excluded.envelope",
    )
    .bind(seq)
    .bind(content.encode_to_vec())
    .execute(db)
    .await?;
    Ok(())
}

/// A message that was accepted before.
pub(super) struct Before {
    pub(super) seq: i64,
    pub(super) digest: Digest,
    pub(super) acceptance: Bytes,
}

/// The messages among these that were accepted before.
pub(super) async fn known_messages(
    db: &mut SqliteConnection,
    accepts: &Accepts,
) -> Result<HashMap<(AgencyAddress, Uuid), Before>, StoreError> {
    let mut known = HashMap::new();
    for run in lists(accepts) {
        let mut select = QueryBuilder::new("SELECT m.seq, m.sender, m.id, m.digest, m.acceptance FROM (");
        select.push_values(padded(run), |mut row, (message, _)| {
            row.push_bind(message.sender.to_string()).push_bind(message.id.as_bytes().to_vec());
        });
        select.push(") AS v CROSS JOIN message AS m ON m.sender = v.column1 AND m.id = v.column2");
        for row in select.build().fetch_all(&mut *db).await? {
            let key = (address(row.try_get("sender")?)?, id(row.try_get("id")?)?);
            let acceptance = row.try_get::<Vec<u8>, _>("acceptance")?.into();
            known.insert(
                key,
                Before { seq: row.try_get("seq")?, digest: digest(row.try_get("digest")?)?, acceptance },
            );
        }
    }
    Ok(known)
}

/// The threads among those that these messages would open that are there already.
pub(super) async fn known_threads(
    db: &mut SqliteConnection,
    accepts: &Accepts,
) -> Result<HashSet<Uuid>, StoreError> {
    let opened: Vec<Uuid> =
        accepts.iter().filter_map(|(message, _)| message.opens.as_ref()).map(|thread| thread.id).collect();
    let mut known = HashSet::new();
    for run in lists(&opened) {
        let mut select = QueryBuilder::new("SELECT thread FROM thread WHERE thread IN (");
        list(&mut select, run, |thread| thread.as_bytes().to_vec());
        for row in select.build().fetch_all(&mut *db).await? {
            known.insert(id(row.try_get("thread")?)?);
        }
    }
    Ok(known)
}

/// A delivery that a change is about.
pub(super) struct QueuedRow {
    pub(super) queue: Queue,
    pub(super) bytes: u64,
    pub(super) message: Option<i64>,
    pub(super) offered: bool,
    pub(super) forwarded: bool,
    /// Whom it is for.
    pub(super) agency: AgencyAddress,
}

pub(super) async fn queued(
    db: &mut SqliteConnection,
    deliveries: &[DeliveryId],
) -> Result<HashMap<DeliveryId, QueuedRow>, StoreError> {
    let mut queued = HashMap::new();
    for run in lists(deliveries) {
        let mut select = QueryBuilder::new(
            "SELECT seq, agency, queue, bytes, message, offered, forwarded FROM delivery WHERE quarantined IS NULL AND seq IN (",
        );
        list(&mut select, run, |delivery| delivery.0);
        for row in select.build().fetch_all(&mut *db).await? {
            let (queue, bytes): (&str, i64) = (row.try_get("queue")?, row.try_get("bytes")?);
            let queued_row = QueuedRow {
                queue: self::queue(queue)?,
                bytes: bytes.unsigned_abs(),
                message: row.try_get("message")?,
                offered: row.try_get("offered")?,
                forwarded: row.try_get("forwarded")?,
                agency: address(row.try_get("agency")?)?,
            };
            queued.insert(DeliveryId(row.try_get("seq")?), queued_row);
        }
    }
    Ok(queued)
}

/// A delivery that has ended.
pub(super) struct EndedRow {
    pub(super) queue: Queue,
    pub(super) bytes: u64,
    pub(super) message: Option<i64>,
}

/// Ends those of these deliveries that wait, and were not forwarded.
pub(super) async fn end(
    db: &mut SqliteConnection,
    deliveries: &[DeliveryId],
) -> Result<HashMap<DeliveryId, EndedRow>, StoreError> {
    let mut ended = HashMap::new();
    for run in lists(deliveries) {
        let mut delete = QueryBuilder::new(
            "DELETE FROM delivery WHERE quarantined IS NULL AND forwarded = 0 AND seq IN (",
        );
        list(&mut delete, run, |delivery| delivery.0);
        delete.push(" RETURNING seq, queue, bytes, message");
        for row in delete.build().fetch_all(&mut *db).await? {
            let (queue, bytes): (&str, i64) = (row.try_get("queue")?, row.try_get("bytes")?);
            let row_of = EndedRow {
                queue: self::queue(queue)?,
                bytes: bytes.unsigned_abs(),
                message: row.try_get("message")?,
            };
            ended.insert(DeliveryId(row.try_get("seq")?), row_of);
        }
    }
    Ok(ended)
}
