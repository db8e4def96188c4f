//! The leaves of the logs.

use std::ops::Range;

use liaison_proto::message::v1::SignedKeyRecord;
use liaison_trust::{log::SaltedRecord, names::AgencyAddress};
use prost::Message;
use uuid::Uuid;

use super::{
    Store,
    columns::{address, id, number},
};
use crate::{
    limits,
    store::{
        About, Act, Leaf, LogId, LogKind, NewLeaf, Staged, Stager, StoreError,
        engine::{Db, Query, Row, Transaction, Value, query, row},
    },
};

/// Finds an entry in clear by its index.
pub(super) const PLACE_IN_CLEAR: &str =
    "SELECT idx FROM leaf WHERE log = $1 AND entry = $2 AND LENGTH(entry) > 32";

impl Stager {
    /// Appends leaves to the log of evidence.
    pub(super) async fn append<'l>(
        &self,
        db: &mut Transaction,
        leaves: impl IntoIterator<Item = &'l NewLeaf>,
    ) -> Result<(), StoreError> {
        const LEAF: &str = "INSERT INTO leaf (log, idx, entry, salt, record, message, thread, readers, mac) ";
        let leaves: Vec<&NewLeaf> = leaves.into_iter().collect();
        if leaves.is_empty() {
            return Ok(());
        }
        let End { log, number, next } = end(db, LogKind::Evidence).await?;
        let rows: Vec<(i64, &NewLeaf)> = (next..).zip(leaves).collect();
        for run in db.runs(&rows) {
            query(LEAF)
                .rows(run, |(idx, leaf)| self.row((log, number), *idx, leaf))
                .execute(&mut *db)
                .await?;
        }
        Ok(())
    }

    /// A row of the table of leaves.
    fn row(&self, (log, number): (i64, u32), idx: i64, leaf: &NewLeaf) -> [Value; 9] {
        let About { message, thread, readers } = &leaf.about;
        let readers: Vec<String> = readers.iter().map(ToString::to_string).collect();
        let entry = leaf.record.entry();
        let staged = Staged {
            log: (LogKind::Evidence, number),
            index: idx.unsigned_abs(),
            entry: entry.as_bytes(),
            message: message.as_ref().map(|id| id.as_bytes().as_slice()),
            thread: thread.as_ref().map(|id| id.as_bytes().as_slice()),
        };
        row![
            log,
            idx,
            staged.entry,
            leaf.record.salt().as_slice(),
            leaf.record.record(),
            staged.message,
            staged.thread,
            readers.join(" "),
            self.mac(staged).as_slice(),
        ]
    }

    /// Appends key records, which are no secret, to the log of keys: those that it does not hold yet.
    pub(super) async fn append_keys(
        &self,
        db: &mut Transaction,
        keys: &[&SignedKeyRecord],
    ) -> Result<(), StoreError> {
        let entries: Vec<Vec<u8>> = keys.iter().map(|key| key.encode_to_vec()).collect();
        self.append_in_clear(db, &entries).await
    }

    /// Appends entries in clear to the log of keys: those that it does not hold yet.
    async fn append_in_clear(&self, db: &mut Transaction, entries: &[Vec<u8>]) -> Result<(), StoreError> {
        let End { log, number, mut next } = end(db, LogKind::Keys).await?;
        for entry in entries {
            let log_of = (LogKind::Keys, number);
            let staged =
                Staged { log: log_of, index: next.unsigned_abs(), entry, message: None, thread: None };
            let appended = query(
                "INSERT INTO leaf (log, idx, entry, readers, mac) SELECT $1, $2, $3, '', $4 \
                 WHERE NOT EXISTS (SELECT 1 FROM leaf WHERE log = $1 AND entry = $3 AND LENGTH(entry) > 32)",
            )
            .bind(log)
            .bind(next)
            .bind(entry)
            .bind(self.mac(staged).to_vec())
            .execute(&mut *db)
            .await?;
            next += i64::try_from(appended).unwrap_or_default();
        }
        Ok(())
    }

    /// The entries of a log from an index on, a page of them, all of which the gateway staged.
    async fn entries(
        &self,
        db: impl Into<Db<'_>>,
        (id, log): (LogId, (LogKind, u32)),
        from: u64,
        most: u32,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        type Row = (i64, Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>);
        let rows: Vec<Row> = query(
            "SELECT idx, entry, message, thread, mac FROM leaf WHERE log = $1 AND idx >= $2 ORDER BY idx LIMIT $3",
        )
        .bind(id.0)
        .bind(number(from))
        .bind(most)
        .fetch_all(db)
        .await?;
        let entries = (from..).zip(rows).map(|(index, (idx, entry, message, thread, mac))| {
            if idx != number(index) {
                return Err(LACKS_LEAF);
            }
            let (message, thread) = (message.as_deref(), thread.as_deref());
            let staged = Staged { log, index, entry: &entry, message, thread };
            if self.staged(staged, &mac) { Ok(entry) } else { Err(StoreError::ForeignLeaf(index)) }
        });
        entries.collect()
    }
}

/// A log that was cut.
const LACKS_LEAF: StoreError = StoreError::Corrupt("log that lacks a leaf");

/// The end of the newest log of a kind.
struct End {
    log: i64,
    number: u32,
    /// The index of its next leaf.
    next: i64,
}

async fn end(db: &mut Transaction, kind: LogKind) -> Result<End, StoreError> {
    let (log, number, next) = query(
        "SELECT l.id, l.number, COALESCE((SELECT MAX(idx) + 1 FROM leaf WHERE log = l.id), 0) FROM log AS l \
         WHERE l.kind = $1 ORDER BY l.number DESC LIMIT 1",
    )
    .bind(kind.name())
    .fetch_one(db)
    .await?;
    Ok(End { log, number, next })
}

impl Store {
    /// Logs key records that are handed out without being kept.
    pub async fn log_keys(&self, keys: &[&SignedKeyRecord]) -> Result<(), StoreError> {
        let mut change = self.writer.begin().await?;
        self.stager.append_keys(&mut change, keys).await?;
        change.commit().await?;
        Ok(())
    }

    /// Opens a log of a kind under a new number, with its first leaf; one of keys with the key records of the one before.
    /// What was staged in the logs before and is under no head of theirs goes into the new one, for they are not signed
    /// again.
    pub async fn reopen_log(
        &self,
        kind: LogKind,
        number: u32,
        first: Option<NewLeaf>,
        act: Act<'_>,
    ) -> Result<(), StoreError> {
        let mut change = self.writer.begin().await?;
        let before = end(&mut change, kind).await?;
        let size: i64 =
            query("SELECT size FROM log WHERE id = $1").bind(before.log).fetch_one(&mut change).await?;
        // In clear, all that it held; of evidence, what is under no head. Nothing that the gateway did not stage.
        let of = (LogId(before.log), (kind, before.number));
        let mut from = if kind == LogKind::Keys { 0 } else { size.unsigned_abs() };
        let mut entries = Vec::new();
        loop {
            let page = self.stager.entries(&mut change, of, from, limits::LOG_PAGE).await?;
            if page.is_empty() {
                break;
            }
            from += page.len() as u64;
            entries.extend(page);
        }
        let staged = query("SELECT * FROM leaf WHERE log = $1 AND idx >= $2 ORDER BY idx")
            .bind(before.log)
            .bind(size)
            .fetch_all(&mut change)
            .await?;
        let mut leaves: Vec<NewLeaf> = first.into_iter().collect();
        if kind == LogKind::Evidence {
            for row in &staged {
                let Leaf { index, entry, record, about } = leaf(row)?;
                // What is staged anew gets a new code: only a record that the old one was over.
                let record = record.filter(|record| record.entry().as_bytes() == entry.as_slice());
                leaves.push(NewLeaf { record: record.ok_or(StoreError::ForeignLeaf(index))?, about });
            }
            // What peers have told of copies since, this database may have lost: they tell it when the copies are offered again.
            query("UPDATE delivery SET log = 0 WHERE forwarded = TRUE AND log IS NOT NULL")
                .execute(&mut change)
                .await?;
        }
        query("DELETE FROM leaf WHERE log = $1 AND idx >= $2")
            .bind(before.log)
            .bind(size)
            .execute(&mut change)
            .await?;
        query("INSERT INTO log (kind, number, size) VALUES ($1, $2, 0)")
            .bind(kind.name())
            .bind(number)
            .execute(&mut change)
            .await?;
        self.stager.append(&mut change, &leaves).await?;
        if kind == LogKind::Keys {
            self.stager.append_in_clear(&mut change, &entries).await?;
        }
        self.stager.record(&mut change, act).await?;
        change.commit().await?;
        Ok(())
    }

    /// The entries of a log from an index on, a page of them.
    pub async fn entries(&self, log: LogId, from: u64, most: u32) -> Result<Vec<Vec<u8>>, StoreError> {
        let rows: Vec<(i64, Vec<u8>)> =
            query("SELECT idx, entry FROM leaf WHERE log = $1 AND idx >= $2 ORDER BY idx LIMIT $3")
                .bind(log.0)
                .bind(number(from))
                .bind(most)
                .fetch_all(&self.readers)
                .await?;
        let entries = (number(from)..)
            .zip(rows)
            .map(|(expected, (idx, entry))| if idx == expected { Ok(entry) } else { Err(LACKS_LEAF) });
        entries.collect()
    }

    /// The entries of a log that this gateway staged, from an index on, a page of them.
    ///
    /// # Errors
    /// One is missing, or was not staged by this gateway.
    pub async fn staged(
        &self,
        log: (LogId, (LogKind, u32)),
        from: u64,
        most: u32,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        self.stager.entries(&self.readers, log, from, most).await
    }

    /// Where an entry in clear stands in a log.
    pub async fn place_in_clear(&self, log: LogId, entry: &[u8]) -> Result<Option<u64>, StoreError> {
        let index: Option<i64> =
            query(PLACE_IN_CLEAR).bind(log.0).bind(entry).fetch_optional(&self.readers).await?;
        Ok(index.map(i64::unsigned_abs))
    }

    /// The leaves about these messages that an agency may have receipts of, with these indexes and in their order: so
    /// many of them, with so many bytes of records, but for one that has more by itself. And the index from which on
    /// there are more; none where these are all.
    pub async fn leaves_for(
        &self,
        log: LogId,
        indexes: Range<u64>,
        reader: &AgencyAddress,
        messages: &[Uuid],
        (most, bytes): (usize, usize),
    ) -> Result<(Vec<Leaf>, Option<u64>), StoreError> {
        if messages.is_empty() {
            return Ok((Vec::new(), None));
        }
        // By message, of which there are few leaves: the plus keeps SQLite from going through all of the log's.
        let select = query("SELECT idx, CAST(LENGTH(record) AS BIGINT) FROM leaf WHERE +log = ").value(log.0);
        let select = select.sql(" AND +idx >= ").value(number(indexes.start));
        let select = select.sql(" AND +idx < ").value(number(indexes.end)).sql(" AND record IS NOT NULL");
        let select = readable(select, reader, messages).sql(" ORDER BY idx LIMIT ");
        let found: Vec<(i64, i64)> =
            select.value(number(most as u64).saturating_add(1)).fetch_all(&self.readers).await?;
        let mut room = number(bytes as u64);
        let taken = found.iter().take(most).enumerate().take_while(|(place, (_, length))| {
            room = room.saturating_sub(*length);
            *place == 0 || room > 0
        });
        let indexes: Vec<i64> = taken.map(|(_, (idx, _))| *idx).collect();
        let next = found.get(indexes.len()).map(|(idx, _)| idx.unsigned_abs());
        let mut leaves = Vec::new();
        for run in self.readers.runs(&indexes) {
            let select = query("SELECT * FROM leaf WHERE log = ").value(log.0).sql(" AND idx ");
            let select = select.one_of(run.iter().copied()).sql(" ORDER BY idx");
            for row in select.fetch_all(&self.readers).await? {
                leaves.push(leaf(&row)?);
            }
        }
        Ok((leaves, next))
    }

    /// Which of these messages have leaves for an agency from an index on.
    pub async fn staged_for(
        &self,
        log: LogId,
        from: u64,
        reader: &AgencyAddress,
        messages: &[Uuid],
    ) -> Result<Vec<Uuid>, StoreError> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let select = query("SELECT DISTINCT message FROM leaf WHERE +log = ").value(log.0);
        let select = select.sql(" AND +idx >= ").value(number(from));
        let staged: Vec<Vec<u8>> = readable(select, reader, messages).fetch_all(&self.readers).await?;
        staged.iter().map(|message| id(message)).collect()
    }

    /// The leaves about a message that an agency may have receipts of, whichever log of evidence they stand in, the oldest
    /// first: so many of them.
    pub async fn leaves_about(
        &self,
        reader: &AgencyAddress,
        message: Uuid,
        most: usize,
    ) -> Result<Vec<Leaf>, StoreError> {
        let select = query("SELECT leaf.* FROM leaf JOIN log ON log.id = leaf.log WHERE record IS NOT NULL");
        let select = readable(select, reader, &[message]).sql(" ORDER BY number, idx LIMIT ");
        let rows: Vec<Row> = select.value(number(most as u64)).fetch_all(&self.readers).await?;
        rows.iter().map(leaf).collect()
    }

    /// The number of the newest log of evidence before one that has receipts about these messages for an agency.
    pub async fn earlier_receipts(
        &self,
        before: u32,
        reader: &AgencyAddress,
        messages: &[Uuid],
    ) -> Result<Option<u32>, StoreError> {
        if messages.is_empty() {
            return Ok(None);
        }
        let select = query("SELECT MAX(number) FROM log WHERE kind = ").value(LogKind::Evidence.name());
        let select = select.sql(" AND number < ").value(before);
        let select = select.sql(" AND id IN (SELECT log FROM leaf WHERE record IS NOT NULL");
        readable(select, reader, messages).sql(")").fetch_one(&self.readers).await
    }

    /// Leaves of a log from an index on, a page of them.
    pub async fn leaves(&self, log: LogId, from: u64, most: u32) -> Result<Vec<Leaf>, StoreError> {
        let rows = query("SELECT * FROM leaf WHERE log = $1 AND idx >= $2 ORDER BY idx LIMIT $3")
            .bind(log.0)
            .bind(number(from))
            .bind(most)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(leaf).collect()
    }
}

/// Of leaves about these messages, those that an agency may have.
fn readable(select: Query, reader: &AgencyAddress, messages: &[Uuid]) -> Query {
    // Addresses hold neither of the two signs that stand for others.
    let select = select.sql(" AND ' ' || readers || ' ' LIKE ").value(format!("% {reader} %"));
    select.sql(" AND message ").one_of(messages.iter().map(|message| message.as_bytes().as_slice()))
}

fn leaf(row: &Row) -> Result<Leaf, StoreError> {
    let salt: Option<Vec<u8>> = row.get("salt")?;
    let record: Option<Vec<u8>> = row.get("record")?;
    let record = salt.zip(record).map(|(salt, record)| {
        let salt = salt.try_into().map_err(|_| StoreError::Corrupt("salt"))?;
        Ok::<_, StoreError>(SaltedRecord::from_parts(salt, record)?)
    });
    let readers: String = row.get("readers")?;
    let id = |column| {
        let id: Option<Vec<u8>> = row.get(column)?;
        id.map(|id| super::columns::id(&id)).transpose()
    };
    let about = About {
        message: id("message")?,
        thread: id("thread")?,
        readers: readers.split_whitespace().map(address).collect::<Result<_, _>>()?,
    };
    Ok(Leaf {
        index: row.get::<i64>("idx")?.unsigned_abs(),
        entry: row.get("entry")?,
        record: record.transpose()?,
        about,
    })
}
