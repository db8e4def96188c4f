//! What becomes of deliveries that wait, or that a peer accepted.

use prost::Message;
use sqlx::{QueryBuilder, SqliteConnection};

use super::{
    batch::{Changes, Rows},
    known::{QueuedRow, end, queued},
    statements::{list, lists},
};
use crate::store::{DeliveryId, Load, Next, Queue, Released, StoreError};

impl<'a> Rows<'a> {
    /// Changes what is still queued; says of each change whether it was.
    pub(super) async fn change(
        &mut self,
        db: &mut SqliteConnection,
        changes: &'a Changes,
    ) -> Result<Vec<bool>, StoreError> {
        let deliveries = |are_gone: bool| -> Vec<DeliveryId> {
            let changes = changes.iter().map(|(change, _)| change);
            let alike = changes.filter(|change| matches!(change.to, Next::Gone) == are_gone);
            alike.map(|change| change.delivery).collect()
        };
        // At once, for it is what becomes of most.
        let mut ended = end(db, &deliveries(true)).await?;
        let mut queued = queued(db, &deliveries(false)).await?;
        let (mut expired, mut handed_over) = (Vec::new(), Vec::new());
        let mut outcomes = Vec::with_capacity(changes.len());
        for (change, _) in changes {
            if matches!(change.to, Next::Gone) {
                // A second change in the same batch finds nothing to do.
                let row = ended.remove(&change.delivery);
                outcomes.push(row.is_some());
                if let Some(row) = row {
                    self.load(&row.queue).take(row.bytes);
                    self.touched.extend(row.message);
                    self.gone.push(change.delivery);
                    self.add_notice(change.notice.as_ref());
                }
                continue;
            }
            let row = queued.get_mut(&change.delivery).filter(|row| applies(&change.to, row));
            let Some(row) = row else {
                outcomes.push(false);
                continue;
            };
            match &change.to {
                Next::Gone => {}
                Next::Expired => {
                    expired.push(change.delivery);
                    self.touched.extend(row.message);
                }
                Next::Forwarded { log } => {
                    row.forwarded = true;
                    self.move_to(db, change.delivery, row, Queue::Agency(row.agency.clone())).await?;
                    sqlx::query("UPDATE delivery SET forwarded = 1, log = ? WHERE seq = ?")
                        .bind(*log)
                        .bind(change.delivery.0)
                        .execute(&mut *db)
                        .await?;
                }
                Next::Again(lane) => {
                    row.forwarded = false;
                    self.move_to(db, change.delivery, row, lane.clone()).await?;
                    sqlx::query(
                        "UPDATE delivery SET forwarded = 0, again = again + 1, waiting = 0 WHERE seq = ?",
                    )
                    .bind(change.delivery.0)
                    .execute(&mut *db)
                    .await?;
                }
                Next::HandedOver(leaf) => {
                    handed_over.push(change.delivery.0);
                    self.leaves.push(leaf);
                }
                Next::Offered(leaf) => {
                    row.offered = true;
                    self.leaves.extend(leaf.as_deref());
                    sqlx::query("UPDATE delivery SET offered = 1, handed_over = 1 WHERE seq = ?")
                        .bind(change.delivery.0)
                        .execute(&mut *db)
                        .await?;
                }
                Next::Waiting { why, is_back } => {
                    row.offered &= !is_back;
                    sqlx::query(
                        "UPDATE delivery SET offered = offered AND NOT ?2, waitings = waitings + (waiting <> ?3), waiting = ?3 \
                         WHERE seq = ?1",
                    )
                    .bind(change.delivery.0)
                    .bind(*is_back)
                    .bind(i32::from(*why))
                    .execute(&mut *db)
                    .await?;
                }
                Next::Quarantined(refusal) => {
                    sqlx::query("UPDATE delivery SET quarantined = ? WHERE seq = ?")
                        .bind(refusal.encode_to_vec())
                        .bind(change.delivery.0)
                        .execute(&mut *db)
                        .await?;
                }
                Next::Narrowed(released) => narrow(db, change.delivery, released).await?,
            }
            let leaves = matches!(change.to, Next::Expired | Next::Quarantined(_));
            if leaves && let Some(row) = queued.remove(&change.delivery) {
                self.load(&row.queue).take(row.bytes);
            }
            self.add_notice(change.notice.as_ref());
            outcomes.push(true);
        }
        end(db, &expired).await?;
        self.gone.extend(expired);
        for run in lists(&handed_over) {
            let mut update = QueryBuilder::new("UPDATE delivery SET handed_over = 1 WHERE seq IN (");
            list(&mut update, run, |seq| *seq);
            update.build().execute(&mut *db).await?;
        }
        Ok(outcomes)
    }

    /// Moves a delivery to another queue. Its place in the order stays.
    async fn move_to(
        &mut self,
        db: &mut SqliteConnection,
        delivery: DeliveryId,
        row: &mut QueuedRow,
        queue: Queue,
    ) -> Result<(), StoreError> {
        self.load(&row.queue).take(row.bytes);
        *self.load(&queue) += Load::one(row.bytes);
        sqlx::query("UPDATE delivery SET queue = ? WHERE seq = ?")
            .bind(queue.to_string())
            .bind(delivery.0)
            .execute(db)
            .await?;
        row.queue = queue;
        Ok(())
    }
}

/// Whether a change is one to a delivery that stands so. What is said of one that waits is not said of one that was
/// forwarded meanwhile.
fn applies(to: &Next, row: &QueuedRow) -> bool {
    match to {
        Next::Again(_) => row.forwarded,
        Next::Expired => !row.forwarded && !row.offered,
        _ => !row.forwarded,
    }
}

async fn narrow(
    db: &mut SqliteConnection,
    delivery: DeliveryId,
    released: &Released,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE delivery SET decision = ?, release = ? WHERE seq = ?")
        .bind(released.decision.encode_to_vec())
        .bind(released.release.encode_to_vec())
        .bind(delivery.0)
        .execute(db)
        .await?;
    Ok(())
}
