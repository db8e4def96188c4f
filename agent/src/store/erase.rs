//! Erases what may not be kept any longer.

use time::OffsetDateTime;

use super::{Store, StoreError, codec};
use crate::limits;

impl Store {
    /// Erases sections that are due, the keys of messages that have none left, and old idempotency
    /// keys. Gives the number of sections.
    pub async fn erase_due(&self, now: OffsetDateTime) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let erased =
            tx.ask("delete from sections where retain_until <= ?").bind(codec::ms(now)).changed().await?;
        if erased > 0 {
            tx.write(
                "update messages set local_key = null where local_key is not null \
                 and not exists (select 1 from sections where message = messages.id)",
            );
        }
        tx.write("delete from idempotency where at <= ?").bind(codec::ms(now - limits::IDEMPOTENCY));
        tx.commit().await?;
        if erased > 0 {
            self.has_erased();
        }
        self.empty_log().await?;
        Ok(erased)
    }
}
