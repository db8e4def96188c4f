//! Erases what may not be kept any longer.

use time::OffsetDateTime;

use super::{Store, StoreError, codec, writer::Change};
use crate::limits;

impl Store {
    /// Erases sections that are due, the keys of messages that have none left, and old idempotency
    /// keys. Gives the number of sections.
    pub async fn erase_due(&self, now: OffsetDateTime) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        overwrite(&mut tx, true).await?;
        let erased = sqlx::query("delete from sections where retain_until <= ?")
            .bind(codec::ms(now))
            .execute(&mut *tx)
            .await?
            .rows_affected();
        if erased > 0 {
            sqlx::query(
                "update messages set local_key = null where local_key is not null \
                 and not exists (select 1 from sections where message = messages.id)",
            )
            .execute(&mut *tx)
            .await?;
        }
        sqlx::query("delete from idempotency where at <= ?")
            .bind(codec::ms(now - limits::IDEMPOTENCY))
            .execute(&mut *tx)
            .await?;
        overwrite(&mut tx, false).await?;
        tx.commit().await?;
        if erased > 0 {
            // The write-ahead log still holds what the pages held before.
            self.empty_log().await?;
        }
        Ok(erased)
    }
}

/// Overwrites what is deleted from here on wherever it stands. Otherwise only where that costs no writing of its own: in
/// pages that are given up, what is sealed to others stays until they are used again.
pub(super) async fn overwrite(tx: &mut Change, everywhere: bool) -> Result<(), StoreError> {
    let how = if everywhere { "pragma secure_delete = on" } else { "pragma secure_delete = fast" };
    sqlx::raw_sql(how).execute(&mut **tx).await?;
    Ok(())
}
