//! What the database knows already of the changes in a batch.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use liaison_proto::message::v1::Envelope;
use liaison_trust::{digest::Digest, names::AgencyAddress};
use prost::Message;
use uuid::Uuid;

use super::{
    batch::Accepts,
    columns::{address, decode, digest, id, queue},
};
use crate::store::{
    DeliveryId, NewMessage, Queue, StoreError,
    engine::{Row, Transaction, query, row},
};

/// Keeps what a message brings for more recipients: its content, where it went with the last of those before, or
/// sections that none of them was released.
pub(super) async fn extend(db: &mut Transaction, seq: i64, message: &NewMessage) -> Result<(), StoreError> {
    query("UPDATE message SET acceptance = $1 WHERE seq = $2")
        .bind(message.acceptance.to_vec())
        .bind(seq)
        .execute(&mut *db)
        .await?;
    if message.copies.is_empty() {
        return Ok(());
    }
    let kept: Option<Vec<u8>> =
        query("SELECT envelope FROM content WHERE message = $1").bind(seq).fetch_optional(&mut *db).await?;
    let mut content = message.content.clone();
    if let Some(kept) = kept {
        let known: HashSet<u32> = content.sections.iter().map(|section| section.position).collect();
        let kept: Envelope = decode(kept)?;
        content.sections.extend(kept.sections.into_iter().filter(|kept| !known.contains(&kept.position)));
        content.sections.sort_by_key(|section| section.position);
    }
    query(
        "INSERT INTO content (message, envelope) VALUES ($1, $2) \
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
    db: &mut Transaction,
    accepts: &Accepts,
) -> Result<HashMap<(AgencyAddress, Uuid), Before>, StoreError> {
    let mut known = HashMap::new();
    for run in db.runs(accepts) {
        let rows: Vec<Row> = query("SELECT m.seq, m.sender, m.id, m.digest, m.acceptance FROM (")
            .rows(run, |(message, _)| row![message.sender.to_string(), message.id.as_bytes().as_slice()])
            .sql(") AS v CROSS JOIN message AS m WHERE m.sender = v.column1 AND m.id = v.column2")
            .fetch_all(&mut *db)
            .await?;
        for row in rows {
            let key = (address(row.get("sender")?)?, id(row.get("id")?)?);
            let acceptance = row.get::<Vec<u8>>("acceptance")?.into();
            known.insert(
                key,
                Before { seq: row.get("seq")?, digest: digest(row.get("digest")?)?, acceptance },
            );
        }
    }
    Ok(known)
}

/// The threads among those that these messages would open that are there already.
pub(super) async fn known_threads(
    db: &mut Transaction,
    accepts: &Accepts,
) -> Result<HashSet<Uuid>, StoreError> {
    let opened: Vec<Uuid> =
        accepts.iter().filter_map(|(message, _)| message.opens.as_ref()).map(|thread| thread.id).collect();
    let mut known = HashSet::new();
    for run in db.runs(&opened) {
        let found: Vec<Vec<u8>> = query("SELECT thread FROM thread WHERE thread ")
            .one_of(run.iter().map(|thread| thread.as_bytes().as_slice()))
            .fetch_all(&mut *db)
            .await?;
        for thread in found {
            known.insert(id(&thread)?);
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
    pub(super) handed_over: bool,
    /// Whom it is for.
    pub(super) agency: AgencyAddress,
}

pub(super) async fn queued(
    db: &mut Transaction,
    deliveries: &[DeliveryId],
) -> Result<HashMap<DeliveryId, QueuedRow>, StoreError> {
    let mut queued = HashMap::new();
    for run in db.runs(deliveries) {
        let select = query(
            "SELECT seq, agency, queue, bytes, message, offered, forwarded, handed_over FROM delivery WHERE quarantined IS NULL AND seq ",
        );
        for row in select.one_of(run.iter().map(|delivery| delivery.0)).fetch_all::<Row>(&mut *db).await? {
            let (queue, bytes): (String, i64) = (row.get("queue")?, row.get("bytes")?);
            let queued_row = QueuedRow {
                queue: self::queue(&queue)?,
                bytes: bytes.unsigned_abs(),
                message: row.get("message")?,
                offered: row.get("offered")?,
                forwarded: row.get("forwarded")?,
                handed_over: row.get("handed_over")?,
                agency: address(row.get("agency")?)?,
            };
            queued.insert(DeliveryId(row.get("seq")?), queued_row);
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
    db: &mut Transaction,
    deliveries: &[DeliveryId],
) -> Result<HashMap<DeliveryId, EndedRow>, StoreError> {
    let mut ended = HashMap::new();
    for run in db.runs(deliveries) {
        let delete = query("DELETE FROM delivery WHERE quarantined IS NULL AND forwarded = FALSE AND seq ")
            .one_of(run.iter().map(|delivery| delivery.0))
            .sql(" RETURNING seq, queue, bytes, message");
        for (seq, queue, bytes, message) in
            delete.fetch_all::<(i64, String, i64, Option<i64>)>(&mut *db).await?
        {
            let row = EndedRow { queue: self::queue(&queue)?, bytes: bytes.unsigned_abs(), message };
            ended.insert(DeliveryId(seq), row);
        }
    }
    Ok(ended)
}
