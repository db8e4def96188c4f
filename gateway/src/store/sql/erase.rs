//! Erasing records of a log.

use liaison_proto::log::v1::{Record, record::Event};
use prost::Message;
use time::OffsetDateTime;

use super::{
    Store,
    columns::{moment, number},
};
use crate::store::{
    Act, LogId, StoreError,
    engine::{Transaction, query, row_of},
};

/// What became of an erasure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Erasure {
    /// Those that were erased now; the others had been.
    Done(Vec<u64>),
    /// This leaf is about no message; nothing was erased.
    NoMessage(u64),
    /// This leaf is about a message that has not ended, which is on its way until then; nothing was erased.
    UnderWay(u64, OffsetDateTime),
}

/// A leaf that is to be erased.
struct Leaf {
    message: Option<Vec<u8>>,
    record: Option<Vec<u8>>,
}

row_of! { Leaf { message, record } }

impl Store {
    /// Erases the records of leaves with their salts, and by whom they would be found; each with the act that it is. With
    /// the record of an acceptance goes the acceptance that its sender was answered. The random ids of the message and
    /// its thread stay beside the entry, so that whoever looks for them learns that something was erased.
    ///
    /// # Errors
    /// The database failed; nothing was erased.
    pub async fn erase_records(&self, log: LogId, acts: &[(u64, Act<'_>)]) -> Result<Erasure, StoreError> {
        let mut change = self.writer.begin().await?;
        let mut erased = Vec::new();
        for (index, act) in acts {
            let leaf: Option<Leaf> = query("SELECT message, record FROM leaf WHERE log = $1 AND idx = $2")
                .bind(log.0)
                .bind(number(*index))
                .fetch_optional(&mut change)
                .await?;
            let Leaf { message, record } = leaf.ok_or(StoreError::Corrupt("log that lacks a leaf"))?;
            let Some(message) = message else { return Ok(Erasure::NoMessage(*index)) };
            let Some(record) = record else { continue };
            if let Some(until) = under_way(&mut change, &message).await? {
                return Ok(Erasure::UnderWay(*index, until));
            }
            let record = Record::decode(record.as_slice()).map_err(|_| StoreError::Corrupt("record"))?;
            if let Some(Event::Accepted(accepted)) = record.event {
                query("UPDATE message SET acceptance = $1 WHERE sender = $2 AND id = $3")
                    .bind(Vec::new())
                    .bind(accepted.sender)
                    .bind(&message)
                    .execute(&mut change)
                    .await?;
            }
            query("UPDATE leaf SET salt = NULL, record = NULL, readers = '' WHERE log = $1 AND idx = $2")
                .bind(log.0)
                .bind(number(*index))
                .execute(&mut change)
                .await?;
            self.stager.record(&mut change, *act).await?;
            erased.push(*index);
        }
        change.commit().await?;
        if !erased.is_empty() {
            self.writer.scrub().await?;
        }
        Ok(Erasure::Done(erased))
    }
}

/// Until when copies of a message are on their way: queued, or with a peer that has not told their end.
async fn under_way(db: &mut Transaction, message: &[u8]) -> Result<Option<OffsetDateTime>, StoreError> {
    let until: Option<i64> = query(
        "SELECT MAX(d.expires) FROM message AS m JOIN delivery AS d ON d.message = m.seq \
         WHERE m.id = $1 AND d.quarantined IS NULL",
    )
    .bind(message)
    .fetch_one(db)
    .await?;
    until.map(moment).transpose()
}
