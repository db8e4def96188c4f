//! What goes when its time is over.

use time::OffsetDateTime;

use super::{
    Store,
    columns::{millis, number, queue},
};
use crate::{
    limits,
    store::{Queue, StoreError, engine::query, remembered_since},
};

impl Store {
    /// Forgets the ids of messages that can't be replayed any more, a page at a time. Those with a
    /// copy in quarantine stay, as evidence. Says how many went.
    pub async fn forget(&self, now: OffsetDateTime) -> Result<u64, StoreError> {
        let mut transaction = self.writer.begin().await?;
        let before = millis(remembered_since(now));
        let gone = query(
            "DELETE FROM message WHERE seq IN (SELECT seq FROM message WHERE expires < $1 \
             AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.message = message.seq) \
             ORDER BY expires LIMIT $2)",
        )
        .bind(before)
        .bind(limits::SWEEP_PAGE)
        .execute(&mut transaction)
        .await?;
        transaction.commit().await?;
        Ok(gone)
    }

    /// Queues with more in quarantine than is kept.
    pub async fn overfull_quarantines(&self) -> Result<Vec<Queue>, StoreError> {
        let queues: Vec<String> = query(
            "SELECT queue FROM delivery WHERE quarantined IS NOT NULL GROUP BY queue \
             HAVING COUNT(*) > $1 OR SUM(bytes) > $2",
        )
        .bind(limits::QUARANTINED)
        .bind(number(limits::QUARANTINED_BYTES))
        .fetch_all(&self.readers)
        .await?;
        queues.iter().map(|name| queue(name)).collect()
    }

    /// Drops the oldest quarantined copies of a queue past the bound. Says how many went.
    pub async fn trim_quarantine(&self, queue: &Queue) -> Result<u64, StoreError> {
        let mut transaction = self.writer.begin().await?;
        let gone = query(
            "DELETE FROM delivery WHERE seq IN (SELECT seq FROM ( \
               SELECT seq, ROW_NUMBER() OVER newest AS place, SUM(bytes) OVER newest AS kept \
               FROM delivery WHERE quarantined IS NOT NULL AND queue = $1 \
               WINDOW newest AS (ORDER BY seq DESC)) AS aged WHERE place > $2 OR kept > $3)",
        )
        .bind(queue.to_string())
        .bind(limits::QUARANTINED)
        .bind(number(limits::QUARANTINED_BYTES))
        .execute(&mut transaction)
        .await?;
        if gone > 0 {
            query(
                "DELETE FROM content WHERE NOT EXISTS \
                 (SELECT 1 FROM delivery WHERE delivery.message = content.message)",
            )
            .execute(&mut transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(gone)
    }
}
