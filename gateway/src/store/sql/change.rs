//! What becomes of deliveries that wait, or that a peer accepted.

use prost::Message;

use super::{
    batch::{Changes, Rows},
    known::{QueuedRow, end, queued},
};
use crate::store::{
    DeliveryId, Load, Next, Queue, Released, StoreError,
    engine::{Transaction, query},
};

impl<'a> Rows<'a> {
    /// Changes what is still queued; says of each change whether it was. What goes by an older view than that of now stays.
    pub(super) async fn change(
        &mut self,
        db: &mut Transaction,
        changes: &'a Changes,
    ) -> Result<Vec<Result<bool, StoreError>>, StoreError> {
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
                outcomes.push(Ok(row.is_some()));
                if let Some(row) = row {
                    self.queue(&row.queue).take(row.bytes);
                    self.touched.extend(row.message);
                    self.gone.push(change.delivery);
                    self.add_notice(change.notice.as_ref());
                }
                continue;
            }
            let row = queued.get_mut(&change.delivery).filter(|row| applies(&change.to, row));
            let Some(row) = row else {
                outcomes.push(Ok(false));
                continue;
            };
            if let Next::HandedOver { view, .. } | Next::Offered { view, .. } = change.to
                && view < self.state
            {
                outcomes.push(Err(StoreError::Outdated));
                continue;
            }
            match &change.to {
                Next::Gone => {}
                Next::Expired => {
                    expired.push(change.delivery);
                    self.touched.extend(row.message);
                }
                Next::Forwarded { log } => {
                    row.forwarded = true;
                    self.move_to(db, change.delivery, row, Queue::Agency(row.agency.clone())).await?;
                    query("UPDATE delivery SET forwarded = TRUE, log = $1 WHERE seq = $2")
                        .bind(*log)
                        .bind(change.delivery.0)
                        .execute(&mut *db)
                        .await?;
                }
                Next::Again(lane) => {
                    row.forwarded = false;
                    self.move_to(db, change.delivery, row, lane.clone()).await?;
                    query(
                        "UPDATE delivery SET forwarded = FALSE, again = again + 1, waiting = 0 WHERE seq = $1",
                    )
                    .bind(change.delivery.0)
                    .execute(&mut *db)
                    .await?;
                }
                Next::HandedOver { leaf, .. } => {
                    // Once, whoever else hands it over.
                    if !std::mem::replace(&mut row.handed_over, true) {
                        handed_over.push(change.delivery.0);
                        self.leaves.push(leaf);
                    }
                }
                Next::Offered { leaf, .. } => {
                    row.offered = true;
                    self.leaves.extend(leaf.as_deref());
                    query("UPDATE delivery SET offered = TRUE, handed_over = TRUE WHERE seq = $1")
                        .bind(change.delivery.0)
                        .execute(&mut *db)
                        .await?;
                }
                Next::Waiting { why, is_back } => {
                    row.offered &= !is_back;
                    query(
                        "UPDATE delivery SET offered = offered AND NOT $2, waiting = $3, \
                         waitings = waitings + CASE WHEN waiting = $3 THEN 0 ELSE 1 END \
                         WHERE seq = $1",
                    )
                    .bind(change.delivery.0)
                    .bind(*is_back)
                    .bind(i32::from(*why))
                    .execute(&mut *db)
                    .await?;
                }
                Next::Quarantined(refusal) => {
                    self.gone.push(change.delivery);
                    query("UPDATE delivery SET quarantined = $1 WHERE seq = $2")
                        .bind(refusal.encode_to_vec())
                        .bind(change.delivery.0)
                        .execute(&mut *db)
                        .await?;
                }
                Next::Narrowed(released) => {
                    narrow(db, change.delivery, released).await?;
                    self.narrowed.push(change.delivery);
                }
            }
            let leaves = matches!(change.to, Next::Expired | Next::Quarantined(_));
            if leaves && let Some(row) = queued.remove(&change.delivery) {
                self.queue(&row.queue).take(row.bytes);
            }
            self.add_notice(change.notice.as_ref());
            outcomes.push(Ok(true));
        }
        end(db, &expired).await?;
        self.gone.extend(expired);
        for run in db.runs(&handed_over) {
            let update = query("UPDATE delivery SET handed_over = TRUE WHERE seq ");
            update.one_of(run.iter().copied()).execute(&mut *db).await?;
        }
        Ok(outcomes)
    }

    /// Moves a delivery to another queue. Its place in the order stays.
    async fn move_to(
        &mut self,
        db: &mut Transaction,
        delivery: DeliveryId,
        row: &mut QueuedRow,
        queue: Queue,
    ) -> Result<(), StoreError> {
        self.queue(&row.queue).take(row.bytes);
        self.queue(&queue).add(Load::one(row.bytes));
        query("UPDATE delivery SET queue = $1 WHERE seq = $2")
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

async fn narrow(db: &mut Transaction, delivery: DeliveryId, released: &Released) -> Result<(), StoreError> {
    query("UPDATE delivery SET decision = $1, release = $2 WHERE seq = $3")
        .bind(released.decision.encode_to_vec())
        .bind(released.release.encode_to_vec())
        .bind(delivery.0)
        .execute(db)
        .await?;
    Ok(())
}
