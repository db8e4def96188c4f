//! What is known of the domain's log: its highest head, receipts, those that are to come, and what must not happen.

use std::collections::BTreeSet;

use liaison_proto::{
    case::v1::{log_alarm::Code as AlarmKind, receipt_event::Code as ReceiptEvent},
    message::v1::{Acceptance, SignedAcceptance},
};
use liaison_trust::{log::Receipt, names::AgencyAddress};
use sqlx::{QueryBuilder, Row, Sqlite};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Direction, Store, StoreError, codec, writer::Change};
use crate::{
    limits,
    log::{Alarm, Head, Known, Told},
};

/// A receipt that is to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub message: Uuid,
    pub event: ReceiptEvent,
    /// Whose copy, where the event is about one.
    pub agency: String,
    /// How often the gateway had none.
    pub attempts: u32,
}

/// A receipt as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptReceipt {
    pub event: ReceiptEvent,
    pub at: OffsetDateTime,
    pub agency: String,
    /// The log's origin.
    pub log: String,
    pub index: u64,
    /// A tlog-proof.
    pub file: String,
}

/// An alarm as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAlarm {
    pub kind: AlarmKind,
    pub at: OffsetDateTime,
    pub detail: String,
}

/// Notes, with the change that brings it about, that receipts of these events are to be had.
pub(super) async fn expect(
    tx: &mut Change,
    message: Uuid,
    events: &[ReceiptEvent],
    agency: &str,
) -> Result<(), StoreError> {
    let not_before = codec::ms(OffsetDateTime::now_utc() + limits::RECEIPT_FIRST);
    QueryBuilder::<Sqlite>::new("insert into receipts_due (message, event, agency, not_before) ")
        .push_values(events, |mut row, event| {
            row.push_bind(message.as_bytes().as_slice())
                .push_bind(i32::from(*event))
                .push_bind(agency)
                .push_bind(not_before);
        })
        .push(" on conflict do update set attempts = 0, not_before = excluded.not_before")
        .build()
        .execute(&mut **tx)
        .await?;
    Ok(())
}

impl Store {
    /// The highest head that was seen: a signed note.
    pub async fn log_head(&self) -> Result<Option<String>, StoreError> {
        Ok(sqlx::query_scalar("select note from log_head").fetch_optional(self.readers()).await?)
    }

    /// Receipts that may be asked for now, in the order in which they became due: of so many messages at most.
    pub async fn receipts_due(&self, now: OffsetDateTime, messages: usize) -> Result<Vec<Due>, StoreError> {
        let rows = sqlx::query(
            "select * from receipts_due where message in \
             (select distinct message from receipts_due where not_before <= ?1 order by not_before limit ?2)",
        )
        .bind(codec::ms(now))
        .bind(i64::try_from(messages).unwrap_or(i64::MAX))
        .fetch_all(self.readers())
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Due {
                    message: codec::uuid(row.try_get("message")?)?,
                    event: codec::code(row.try_get("event")?)?,
                    agency: row.try_get("agency")?,
                    attempts: row.try_get("attempts")?,
                })
            })
            .collect()
    }

    /// How many receipts are to come yet.
    pub async fn receipts_to_come(&self) -> Result<u64, StoreError> {
        let due: i64 =
            sqlx::query_scalar("select count(*) from receipts_due").fetch_one(self.readers()).await?;
        Ok(due.unsigned_abs())
    }

    /// What is known of a message beside the log, and of the copy of an agency.
    pub async fn known(&self, message: Uuid, agency: &str) -> Result<Known, StoreError> {
        type Row = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>);
        let row: Option<Row> = sqlx::query_as(
            "select m.direction, m.digest, m.evidence, d.acknowledgement from messages m \
             left join deliveries d on d.message = m.id and d.agency = ?2 where m.id = ?1",
        )
        .bind(message.as_bytes().as_slice())
        .bind(agency)
        .fetch_optional(self.readers())
        .await?;
        let Some((direction, digest, evidence, acknowledgement)) = row else { return Ok(Known::default()) };
        let sent = Direction::from_column(direction)? == Direction::Sent;
        let signed: Option<SignedAcceptance> = codec::some_message(evidence.filter(|_| sent).as_deref())?;
        Ok(Known {
            digest: digest.as_deref().map(codec::digest).transpose()?,
            acceptance: signed.map(|signed| codec::message::<Acceptance>(&signed.acceptance)).transpose()?,
            acknowledgement: codec::some_message(acknowledgement.as_deref())?,
        })
    }

    /// Keeps the newest head, if it is higher than that of the same log that is kept, and receipts of a log by its origin.
    pub async fn keep_receipts(
        &self,
        head: &Head,
        origin: &str,
        receipts: &[(Receipt, Told)],
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        keep_head(&mut tx, head).await?;
        for some in receipts.chunks(limits::ROWS) {
            QueryBuilder::<Sqlite>::new("insert into receipts (log, idx, message, event, agency, at, file) ")
                .push_values(some, |mut row, (receipt, told)| {
                    row.push_bind(origin)
                        .push_bind(i64::try_from(receipt.index).unwrap_or(i64::MAX))
                        .push_bind(told.message.as_bytes().as_slice())
                        .push_bind(i32::from(told.event))
                        .push_bind(&told.recipient)
                        .push_bind(codec::ms(told.at))
                        .push_bind(receipt.to_string());
                })
                .push(" on conflict do nothing")
                .build()
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await
    }

    /// The events of a message that there are receipts of, each with whose copy it is about.
    pub async fn receipted(&self, message: Uuid) -> Result<BTreeSet<(ReceiptEvent, String)>, StoreError> {
        let rows: Vec<(i64, String)> =
            sqlx::query_as("select distinct event, agency from receipts where message = ?")
                .bind(message.as_bytes().as_slice())
                .fetch_all(self.readers())
                .await?;
        rows.into_iter().map(|(event, agency)| Ok((codec::code(event)?, agency))).collect()
    }

    /// Nothing more is to be had of these.
    pub async fn receipts_settled(&self, settled: &[Due]) -> Result<(), StoreError> {
        if settled.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        for some in settled.chunks(limits::ROWS) {
            let mut delete = QueryBuilder::<Sqlite>::new("delete from receipts_due where message in (");
            let mut messages = delete.separated(", ");
            for due in some {
                messages.push_bind(due.message.as_bytes().as_slice());
            }
            // The list before is what the index is for.
            delete
                .push(") and (message, event, agency) in (")
                .push_values(some, |mut row, due| {
                    row.push_bind(due.message.as_bytes().as_slice())
                        .push_bind(i32::from(due.event))
                        .push_bind(&due.agency);
                })
                .push(")")
                .build()
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await
    }

    /// To be asked for again, each from a time on; with the attempts that it then has had.
    pub async fn receipts_postponed(&self, postponed: &[(Due, OffsetDateTime)]) -> Result<(), StoreError> {
        if postponed.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        for (due, not_before) in postponed {
            sqlx::query(
                "update receipts_due set attempts = ?4, not_before = ?5 \
                 where message = ?1 and event = ?2 and agency = ?3",
            )
            .bind(due.message.as_bytes().as_slice())
            .bind(i32::from(due.event))
            .bind(&due.agency)
            .bind(due.attempts)
            .bind(codec::ms(*not_before))
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await
    }

    /// A page of the receipts of a message, in the order of the logs, behind a receipt.
    pub async fn receipts(
        &self,
        message: Uuid,
        after: Option<(&str, u64)>,
        most: u32,
    ) -> Result<Vec<KeptReceipt>, StoreError> {
        let (log, index) =
            after.map_or(("", -1), |(log, index)| (log, i64::try_from(index).unwrap_or(i64::MAX)));
        let rows = sqlx::query(
            "select * from receipts where message = ? and (log, idx) > (?, ?) order by log, idx limit ?",
        )
        .bind(message.as_bytes().as_slice())
        .bind(log)
        .bind(index)
        .bind(most)
        .fetch_all(self.readers())
        .await?;
        rows.iter()
            .map(|row| {
                Ok(KeptReceipt {
                    event: codec::code(row.try_get("event")?)?,
                    at: codec::time(row.try_get("at")?)?,
                    agency: row.try_get("agency")?,
                    log: row.try_get("log")?,
                    index: row.try_get::<i64, _>("idx")?.unsigned_abs(),
                    file: row.try_get("file")?,
                })
            })
            .collect()
    }

    /// Heads of a kind that recipients hold and that are to be compared, with who they are: so many at most.
    pub async fn heads_shown(
        &self,
        kind: &str,
        most: usize,
    ) -> Result<Vec<(AgencyAddress, String)>, StoreError> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("select agency, note from shown_heads where kind = ? order by agency limit ?")
                .bind(kind)
                .bind(i64::try_from(most).unwrap_or(i64::MAX))
                .fetch_all(self.readers())
                .await?;
        rows.into_iter().map(|(agency, note)| Ok((codec::address(&agency)?, note))).collect()
    }

    /// These heads were compared.
    pub async fn heads_compared(&self, compared: &[(AgencyAddress, String)]) -> Result<(), StoreError> {
        if compared.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        for (agency, note) in compared {
            sqlx::query("delete from shown_heads where agency = ? and note = ?")
                .bind(agency.to_string())
                .bind(note)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await
    }

    /// Keeps an alarm with its evidence. False if it was kept before, or there are too many.
    pub async fn raise(&self, alarm: &Alarm) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let new = sqlx::query(
            "insert into log_alarms (at, kind, subject, detail, held, shown) \
             select ?, ?, ?, ?, ?, ? where (select count(*) from log_alarms) < ? on conflict do nothing",
        )
        .bind(codec::ms(OffsetDateTime::now_utc()))
        .bind(i32::from(alarm.kind))
        .bind(&alarm.subject)
        .bind(&alarm.detail)
        .bind(&alarm.held)
        .bind(&alarm.shown)
        .bind(limits::LOG_ALARMS)
        .execute(&mut *tx)
        .await?
        .rows_affected();
        tx.commit().await?;
        Ok(new > 0)
    }

    /// The newest alarms.
    pub async fn alarms(&self, most: u32) -> Result<Vec<KeptAlarm>, StoreError> {
        let rows: Vec<(i64, i64, String)> =
            sqlx::query_as("select kind, at, detail from log_alarms order by seq desc limit ?")
                .bind(most)
                .fetch_all(self.readers())
                .await?;
        rows.into_iter()
            .map(|(kind, at, detail)| {
                Ok(KeptAlarm { kind: codec::code(kind)?, at: codec::time(at)?, detail })
            })
            .collect()
    }
}

/// Remembers the head that a recipient holds of a log of a kind, to be compared: the highest of each.
pub(super) async fn head_shown(
    tx: &mut Change,
    kind: &str,
    agency: &str,
    head: &Head,
) -> Result<(), StoreError> {
    sqlx::query(
        "insert into shown_heads (agency, kind, size, note) values (?, ?, ?, ?) \
         on conflict do update set size = excluded.size, note = excluded.note where size < excluded.size",
    )
    .bind(agency)
    .bind(kind)
    .bind(i64::try_from(head.checkpoint.size()).unwrap_or(i64::MAX))
    .bind(head.bare.to_string())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn keep_head(tx: &mut Change, head: &Head) -> Result<(), StoreError> {
    // A log that takes the place of another begins small. Whether a head goes on from the one kept was judged before.
    sqlx::query(
        "insert into log_head (one, size, note) values (1, ?1, ?2) on conflict do update \
         set size = excluded.size, note = excluded.note \
         where size < excluded.size or substr(note, 1, ?3) <> substr(excluded.note, 1, ?3)",
    )
    .bind(i64::try_from(head.checkpoint.size()).unwrap_or(i64::MAX))
    .bind(head.bare.to_string())
    .bind(i64::try_from(head.checkpoint.origin().len() + 1).unwrap_or(i64::MAX))
    .execute(&mut **tx)
    .await?;
    Ok(())
}
