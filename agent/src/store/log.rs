//! What is known of the domain's log: its highest head, receipts, those that are to come, and what must not happen.

use std::collections::{BTreeMap, BTreeSet};

use liaison_proto::{
    case::v1::{log_alarm::Code as AlarmKind, receipt_event::Code as ReceiptEvent},
    message::v1::{Acceptance, SignedAcceptance},
};
use liaison_trust::{log::Receipt, names::AgencyAddress};
use sqlx::Row;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, codec, statements::Statements, writer::Change};
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
pub(super) fn expect(tx: &mut Change, message: Uuid, events: &[ReceiptEvent], agency: &str) {
    let not_before = codec::ms(OffsetDateTime::now_utc() + limits::RECEIPT_FIRST);
    tx.write("insert into receipts_due (message, event, agency, not_before) values ")
        .rows(events, |row, event| {
            row.bind(message.as_bytes().as_slice()).bind(i32::from(*event)).bind(agency).bind(not_before);
        })
        .then(" on conflict do update set attempts = 0, not_before = excluded.not_before");
}

impl Store {
    /// The highest head that was seen: a signed note.
    pub async fn log_head(&self) -> Result<Option<String>, StoreError> {
        Ok(sqlx::query_scalar("select note from log_head").fetch_optional(self.readers()).await?)
    }

    /// The highest heads that were seen of the log, and up to which that of keys was replayed: signed notes.
    pub async fn heads_held(&self) -> Result<(Option<String>, Option<String>), StoreError> {
        let both = "select (select note from log_head), (select note from key_log)";
        Ok(sqlx::query_as(both).fetch_one(self.readers()).await?)
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

    /// What is known beside the log of messages, each with the agency whose copy it is about; nothing of one that is not
    /// there.
    pub async fn known(
        &self,
        of: &BTreeSet<(Uuid, String)>,
    ) -> Result<BTreeMap<(Uuid, String), Known>, StoreError> {
        type Row = (Vec<u8>, String, Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>);
        let (of, mut all) = (of.iter().collect::<Vec<_>>(), BTreeMap::new());
        for some in of.chunks(limits::ROWS) {
            let mut find = Statements::default();
            find.add("with asked (message, agency) as (values ")
                .rows(some, |row, (message, agency)| {
                    row.bind(message.as_bytes().as_slice()).bind(agency);
                })
                .then(
                    ") select m.id, asked.agency, m.digest, \
                     case m.direction when 1 then m.evidence end, d.acknowledgement \
                     from asked cross join messages m on m.id = asked.message \
                     left join deliveries d on d.message = m.id and d.agency = asked.agency",
                );
            for gave in find.run(self.readers()).await? {
                for (id, agency, digest, evidence, acknowledgement) in gave.all::<Row>()? {
                    let signed: Option<SignedAcceptance> = codec::some_message(evidence.as_deref())?;
                    let acceptance = signed.map(|signed| codec::message::<Acceptance>(&signed.acceptance));
                    let known = Known {
                        digest: digest.as_deref().map(codec::digest).transpose()?,
                        acceptance: acceptance.transpose()?,
                        acknowledgement: codec::some_message(acknowledgement.as_deref())?,
                    };
                    all.insert((codec::uuid(&id)?, agency), known);
                }
            }
        }
        Ok(all)
    }

    /// Keeps the newest head, if it is higher than that of the same log that is kept, and receipts of a log by its origin.
    pub async fn keep_receipts(
        &self,
        head: &Head,
        origin: &str,
        receipts: &[(Receipt, Told)],
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        keep_head(&mut tx, head);
        for some in receipts.chunks(limits::ROWS) {
            tx.ask("insert into receipts (log, idx, message, event, agency, at, file) values ")
                .rows(some, |row, (receipt, told)| {
                    row.bind(origin)
                        .bind(i64::try_from(receipt.index).unwrap_or(i64::MAX))
                        .bind(told.message.as_bytes().as_slice())
                        .bind(i32::from(told.event))
                        .bind(&told.recipient)
                        .bind(codec::ms(told.at))
                        .bind(receipt.to_string());
                })
                .then(" on conflict do nothing")
                .changed()
                .await?;
        }
        tx.commit().await
    }

    /// The events of messages that there are receipts of, each with its message and whose copy it is about.
    pub async fn receipted(
        &self,
        messages: &BTreeSet<Uuid>,
    ) -> Result<BTreeSet<(Uuid, ReceiptEvent, String)>, StoreError> {
        let (messages, mut all) = (messages.iter().collect::<Vec<_>>(), BTreeSet::new());
        for some in messages.chunks(limits::ROWS) {
            let mut find = Statements::default();
            find.add("select distinct message, event, agency from receipts where message in (values ")
                .rows(some, |row, message| {
                    row.bind(message.as_bytes().as_slice());
                })
                .then(")");
            for gave in find.run(self.readers()).await? {
                for (message, event, agency) in gave.all::<(Vec<u8>, i64, String)>()? {
                    all.insert((codec::uuid(&message)?, codec::code(event)?, agency));
                }
            }
        }
        Ok(all)
    }

    /// Nothing more is to be had of these.
    pub async fn receipts_settled(&self, settled: &[Due]) -> Result<(), StoreError> {
        if settled.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        for some in settled.chunks(limits::ROWS) {
            // The list before is what the index is for.
            tx.ask("delete from receipts_due where message in (values ")
                .rows(some, |row, due| {
                    row.bind(due.message.as_bytes().as_slice());
                })
                .then(") and (message, event, agency) in (values ")
                .rows(some, |row, due| {
                    row.bind(due.message.as_bytes().as_slice()).bind(i32::from(due.event)).bind(&due.agency);
                })
                .then(")")
                .changed()
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
            tx.ask(
                "update receipts_due set attempts = ?, not_before = ? \
                 where message = ? and event = ? and agency = ?",
            )
            .bind(due.attempts)
            .bind(codec::ms(*not_before))
            .bind(due.message.as_bytes().as_slice())
            .bind(i32::from(due.event))
            .bind(&due.agency)
            .changed()
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
            tx.write("delete from shown_heads where agency = ? and note = ?")
                .bind(agency.to_string())
                .bind(note);
        }
        tx.commit().await
    }

    /// Keeps an alarm with its evidence. False if it was kept before, or there are too many.
    pub async fn raise(&self, alarm: &Alarm) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let new = tx
            .ask(
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
            .changed()
            .await?;
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
pub(super) fn head_shown(tx: &mut Change, kind: &str, agency: &str, head: &Head) {
    tx.write(
        "insert into shown_heads (agency, kind, size, note) values (?, ?, ?, ?) \
         on conflict do update set size = excluded.size, note = excluded.note where size < excluded.size",
    )
    .bind(agency)
    .bind(kind)
    .bind(i64::try_from(head.checkpoint.size()).unwrap_or(i64::MAX))
    .bind(head.bare.to_string());
}

fn keep_head(tx: &mut Change, head: &Head) {
    let origin = i64::try_from(head.checkpoint.origin().len() + 1).unwrap_or(i64::MAX);
    // A log that takes the place of another begins small. Whether a head goes on from the one kept was judged before.
    tx.write(
        "insert into log_head (one, size, note) values (1, ?, ?) on conflict do update \
         set size = excluded.size, note = excluded.note \
         where size < excluded.size or substr(note, 1, ?) <> substr(excluded.note, 1, ?)",
    )
    .bind(i64::try_from(head.checkpoint.size()).unwrap_or(i64::MAX))
    .bind(head.bare.to_string())
    .bind(origin)
    .bind(origin);
}
