//! The leaves, tiles and heads of the logs.

use std::ops::Range;

use liaison_proto::message::v1::SignedKeyRecord;
use liaison_trust::{
    log::{SaltedRecord, Tile, TileHashes},
    names::AgencyAddress,
};
use prost::Message;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::{
    Store,
    agencies::record,
    columns::{address, id, number},
    statements::{insert, list, runs},
};
use crate::store::{About, Act, Leaf, LogHead, LogId, LogKind, NewLeaf, StoreError};

/// The log that grows of a kind.
const NEWEST: &str = "SELECT id FROM log WHERE kind = ? ORDER BY number DESC LIMIT 1";

/// Appends leaves to the log of evidence.
pub(super) async fn append<'l>(
    db: &mut SqliteConnection,
    leaves: impl IntoIterator<Item = &'l NewLeaf>,
) -> Result<(), StoreError> {
    const LEAF: &str = "INSERT INTO leaf (log, idx, entry, salt, record, message, thread, readers) ";
    let leaves: Vec<&NewLeaf> = leaves.into_iter().collect();
    if leaves.is_empty() {
        return Ok(());
    }
    let (log, next) = end(db, LogKind::Evidence).await?;
    let rows: Vec<(i64, &NewLeaf)> = (next..).zip(leaves).collect();
    insert(db, LEAF, &rows, |row, (idx, leaf)| {
        let About { message, thread, readers } = &leaf.about;
        let readers: Vec<String> = readers.iter().map(ToString::to_string).collect();
        row.push_bind(log)
            .push_bind(*idx)
            .push_bind(leaf.record.entry().as_bytes().to_vec())
            .push_bind(leaf.record.salt().to_vec())
            .push_bind(leaf.record.record().to_vec())
            .push_bind(message.map(|id| id.as_bytes().to_vec()))
            .push_bind(thread.map(|id| id.as_bytes().to_vec()))
            .push_bind(readers.join(" "));
    })
    .await
}

/// Appends key records, which are no secret, to the log of keys: those that it does not hold yet.
pub(super) async fn append_keys(
    db: &mut SqliteConnection,
    keys: &[&SignedKeyRecord],
) -> Result<(), StoreError> {
    let (log, mut next) = end(db, LogKind::Keys).await?;
    for key in keys {
        let appended = sqlx::query(
            "INSERT INTO leaf (log, idx, entry, readers) VALUES (?, ?, ?, '') \
             ON CONFLICT (log, entry) WHERE LENGTH(entry) > 32 DO NOTHING",
        )
        .bind(log)
        .bind(next)
        .bind(key.encode_to_vec())
        .execute(&mut *db)
        .await?
        .rows_affected();
        next += i64::try_from(appended).unwrap_or_default();
    }
    Ok(())
}

/// The newest log of a kind, and the index of its next leaf.
async fn end(db: &mut SqliteConnection, kind: LogKind) -> Result<(i64, i64), StoreError> {
    let end = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT l.id, COALESCE((SELECT MAX(idx) + 1 FROM leaf WHERE log = l.id), 0) FROM log AS l WHERE l.id = ({NEWEST})"
    )))
    .bind(kind.name())
    .fetch_one(db)
    .await?;
    Ok(end)
}

impl Store {
    /// The newest log of a kind, with its head.
    pub async fn log_head(&self, kind: LogKind) -> Result<LogHead, StoreError> {
        let row = sqlx::query(
            "SELECT id, number, size, checkpoint FROM log WHERE kind = ? ORDER BY number DESC LIMIT 1",
        )
        .bind(kind.name())
        .fetch_one(&self.readers)
        .await?;
        head(&row)
    }

    /// The log of a kind and number, with its head.
    pub async fn log(&self, kind: LogKind, number: u32) -> Result<Option<LogHead>, StoreError> {
        let row = sqlx::query("SELECT id, number, size, checkpoint FROM log WHERE kind = ? AND number = ?")
            .bind(kind.name())
            .bind(number)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(head).transpose()
    }

    /// Logs key records that are handed out without being kept.
    pub async fn log_keys(&self, keys: &[&SignedKeyRecord]) -> Result<(), StoreError> {
        let mut change = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        append_keys(&mut change, keys).await?;
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
        const STAGED: &str = "FROM leaf WHERE log IN (SELECT id FROM log WHERE kind = ?) \
                              AND idx >= (SELECT size FROM log WHERE id = leaf.log)";
        let mut change = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let staged = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT * {STAGED} ORDER BY log, idx")))
            .bind(kind.name())
            .fetch_all(&mut *change)
            .await?;
        let leaves: Vec<Leaf> = staged.iter().map(leaf).collect::<Result<_, _>>()?;
        let before: Vec<Vec<u8>> = match kind {
            LogKind::Keys => {
                sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
                    "SELECT entry FROM leaf WHERE log = ({NEWEST}) ORDER BY idx"
                )))
                .bind(kind.name())
                .fetch_all(&mut *change)
                .await?
            }
            LogKind::Evidence => Vec::new(),
        };
        sqlx::query(sqlx::AssertSqlSafe(format!("DELETE {STAGED}")))
            .bind(kind.name())
            .execute(&mut *change)
            .await?;
        sqlx::query("INSERT INTO log (kind, number, size) VALUES (?, ?, 0)")
            .bind(kind.name())
            .bind(number)
            .execute(&mut *change)
            .await?;
        let staged =
            leaves.into_iter().filter_map(|leaf| Some(NewLeaf { record: leaf.record?, about: leaf.about }));
        let leaves: Vec<NewLeaf> = first.into_iter().chain(staged).collect();
        append(&mut change, &leaves).await?;
        let before: Vec<SignedKeyRecord> = before
            .iter()
            .map(|entry| {
                SignedKeyRecord::decode(entry.as_slice()).map_err(|_| StoreError::Corrupt("key record"))
            })
            .collect::<Result<_, _>>()?;
        append_keys(&mut change, &before.iter().collect::<Vec<_>>()).await?;
        record(&mut change, act).await?;
        change.commit().await?;
        Ok(())
    }

    /// The entries of a log from an index on, a page of them.
    pub async fn entries(&self, log: LogId, from: u64, most: u32) -> Result<Vec<Vec<u8>>, StoreError> {
        let rows: Vec<(i64, Vec<u8>)> =
            sqlx::query_as("SELECT idx, entry FROM leaf WHERE log = ? AND idx >= ? ORDER BY idx LIMIT ?")
                .bind(log.0)
                .bind(number(from))
                .bind(most)
                .fetch_all(&self.readers)
                .await?;
        let entries = (number(from)..).zip(rows).map(|(expected, (idx, entry))| {
            if idx == expected { Ok(entry) } else { Err(StoreError::Corrupt("log that lacks a leaf")) }
        });
        entries.collect()
    }

    /// The hashes of tiles of a log, as wide as they are kept.
    pub async fn tiles(
        &self,
        log: LogId,
        tiles: impl IntoIterator<Item = Tile>,
    ) -> Result<TileHashes, StoreError> {
        let mut hashes = TileHashes::new();
        for tile in tiles {
            let Some(content) = self.tile(log, tile).await? else { continue };
            hashes.insert(tile, &content).map_err(|_| StoreError::Corrupt("tile"))?;
        }
        Ok(hashes)
    }

    /// The content of one tile; none if it is not there, or not as wide.
    pub async fn tile(&self, log: LogId, tile: Tile) -> Result<Option<Vec<u8>>, StoreError> {
        let kept: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT hashes FROM tile WHERE log = ? AND level = ? AND idx = ?")
                .bind(log.0)
                .bind(tile.level())
                .bind(number(tile.index()))
                .fetch_optional(&self.readers)
                .await?;
        let bytes = usize::from(tile.width()) * 32;
        Ok(kept.and_then(|kept| kept.get(..bytes).map(<[u8]>::to_vec)))
    }

    /// Writes what a log has grown by: its tiles, and the checkpoint that is signed over them.
    pub async fn grow_log(
        &self,
        log: LogId,
        size: u64,
        checkpoint: &[u8],
        tiles: &[(Tile, Vec<u8>)],
    ) -> Result<(), StoreError> {
        let mut change = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        for run in runs(tiles) {
            let mut write = QueryBuilder::new("INSERT INTO tile (log, level, idx, hashes) ");
            write.push_values(run, |mut row, (tile, content)| {
                row.push_bind(log.0)
                    .push_bind(tile.level())
                    .push_bind(number(tile.index()))
                    .push_bind(content.clone());
            });
            write.push(" ON CONFLICT (log, level, idx) DO UPDATE SET hashes = excluded.hashes");
            write.build().execute(&mut *change).await?;
        }
        sqlx::query("UPDATE log SET size = ?, checkpoint = ? WHERE id = ?")
            .bind(number(size))
            .bind(checkpoint)
            .bind(log.0)
            .execute(&mut *change)
            .await?;
        change.commit().await?;
        Ok(())
    }

    /// Keeps a checkpoint with the cosignatures that it has.
    pub async fn keep_cosigned(&self, log: LogId, checkpoint: &[u8]) -> Result<(), StoreError> {
        sqlx::query("UPDATE log SET cosigned = ? WHERE id = ?")
            .bind(checkpoint)
            .bind(log.0)
            .execute(&self.writer)
            .await?;
        Ok(())
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
        let mut select = QueryBuilder::new("SELECT idx, LENGTH(record) FROM leaf WHERE log = ");
        select.push_bind(log.0).push(" AND idx >= ").push_bind(number(indexes.start));
        select.push(" AND idx < ").push_bind(number(indexes.end)).push(" AND record IS NOT NULL");
        readable(&mut select, reader, messages);
        select.push(" ORDER BY idx LIMIT ").push_bind(number(most as u64).saturating_add(1));
        let found: Vec<(i64, i64)> = select.build_query_as().fetch_all(&self.readers).await?;
        let mut room = number(bytes as u64);
        let taken = found.iter().take(most).enumerate().take_while(|(place, (_, length))| {
            room = room.saturating_sub(*length);
            *place == 0 || room > 0
        });
        let indexes: Vec<i64> = taken.map(|(_, (idx, _))| *idx).collect();
        let next = found.get(indexes.len()).map(|(idx, _)| idx.unsigned_abs());
        let mut leaves = Vec::new();
        for run in runs(&indexes) {
            let mut select = QueryBuilder::new("SELECT * FROM leaf WHERE log = ");
            select.push_bind(log.0).push(" AND idx IN (");
            list(&mut select, run, |idx| *idx);
            select.push(" ORDER BY idx");
            for row in select.build().fetch_all(&self.readers).await? {
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
        let mut select = QueryBuilder::new("SELECT DISTINCT message FROM leaf WHERE log = ");
        select.push_bind(log.0).push(" AND idx >= ").push_bind(number(from));
        readable(&mut select, reader, messages);
        let staged: Vec<Vec<u8>> = select.build_query_scalar().fetch_all(&self.readers).await?;
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
        let mut select = QueryBuilder::new(
            "SELECT leaf.* FROM leaf JOIN log ON log.id = leaf.log WHERE record IS NOT NULL",
        );
        readable(&mut select, reader, &[message]);
        select.push(" ORDER BY number, idx LIMIT ").push_bind(number(most as u64));
        select.build().fetch_all(&self.readers).await?.iter().map(leaf).collect()
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
        let mut select = QueryBuilder::new("SELECT MAX(number) FROM log WHERE kind = ");
        select.push_bind(LogKind::Evidence.name()).push(" AND number < ").push_bind(before);
        select.push(" AND id IN (SELECT log FROM leaf WHERE record IS NOT NULL");
        readable(&mut select, reader, messages);
        select.push(")");
        Ok(select.build_query_scalar().fetch_one(&self.readers).await?)
    }

    /// Leaves of a log from an index on, a page of them.
    pub async fn leaves(&self, log: LogId, from: u64, most: u32) -> Result<Vec<Leaf>, StoreError> {
        let rows = sqlx::query("SELECT * FROM leaf WHERE log = ? AND idx >= ? ORDER BY idx LIMIT ?")
            .bind(log.0)
            .bind(number(from))
            .bind(most)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(leaf).collect()
    }
}

/// Of leaves about these messages, those that an agency may have.
fn readable(select: &mut QueryBuilder<Sqlite>, reader: &AgencyAddress, messages: &[Uuid]) {
    select.push(" AND INSTR(' ' || readers || ' ', ").push_bind(format!(" {reader} ")).push(") > 0");
    select.push(" AND message IN (");
    list(select, messages, |message| message.as_bytes().to_vec());
}

fn head(row: &SqliteRow) -> Result<LogHead, StoreError> {
    Ok(LogHead {
        log: LogId(row.try_get("id")?),
        number: row.try_get("number")?,
        size: row.try_get::<i64, _>("size")?.unsigned_abs(),
        checkpoint: row.try_get("checkpoint")?,
    })
}

fn leaf(row: &SqliteRow) -> Result<Leaf, StoreError> {
    let salt: Option<Vec<u8>> = row.try_get("salt")?;
    let record: Option<Vec<u8>> = row.try_get("record")?;
    let record = salt.zip(record).map(|(salt, record)| {
        let salt = salt.try_into().map_err(|_| StoreError::Corrupt("salt"))?;
        Ok::<_, StoreError>(SaltedRecord::from_parts(salt, record)?)
    });
    let readers: &str = row.try_get("readers")?;
    let id = |column| {
        let id: Option<Vec<u8>> = row.try_get(column)?;
        id.map(|id| super::columns::id(&id)).transpose()
    };
    let about = About {
        message: id("message")?,
        thread: id("thread")?,
        readers: readers.split_whitespace().map(address).collect::<Result<_, _>>()?,
    };
    Ok(Leaf {
        index: row.try_get::<i64, _>("idx")?.unsigned_abs(),
        entry: row.try_get("entry")?,
        record: record.transpose()?,
        about,
    })
}
