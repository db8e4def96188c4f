//! The leaves, tiles and heads of the logs.

use liaison_trust::{
    log::{SaltedRecord, Tile, TileHashes},
    names::AgencyAddress,
};
use sqlx::{QueryBuilder, Row, SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::{
    Store,
    columns::{address, number},
    statements::{insert, list, runs},
};
use crate::store::{About, Leaf, LogHead, LogId, LogKind, NewLeaf, StoreError};

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

/// Appends an entry that is no secret to the log of keys.
pub(super) async fn append_in_clear(db: &mut SqliteConnection, entry: &[u8]) -> Result<(), StoreError> {
    let (log, next) = end(db, LogKind::Keys).await?;
    sqlx::query("INSERT INTO leaf (log, idx, entry, readers) VALUES (?, ?, ?, '')")
        .bind(log)
        .bind(next)
        .bind(entry)
        .execute(db)
        .await?;
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
        Ok(LogHead {
            log: LogId(row.try_get("id")?),
            number: row.try_get("number")?,
            size: row.try_get::<i64, _>("size")?.unsigned_abs(),
            checkpoint: row.try_get("checkpoint")?,
        })
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

    /// The leaves about these messages that an agency may have receipts of, in their order, under a head of `size`.
    pub async fn leaves_for(
        &self,
        log: LogId,
        size: u64,
        reader: &AgencyAddress,
        messages: &[Uuid],
    ) -> Result<Vec<Leaf>, StoreError> {
        let mut leaves = Vec::new();
        for run in runs(messages) {
            let mut select = QueryBuilder::new("SELECT * FROM leaf WHERE log = ");
            select.push_bind(log.0).push(" AND idx < ").push_bind(number(size)).push(" AND message IN (");
            list(&mut select, run, |id| id.as_bytes().to_vec());
            for row in select.build().fetch_all(&self.readers).await? {
                let leaf = leaf(&row)?;
                if leaf.about.readers.contains(reader) {
                    leaves.push(leaf);
                }
            }
        }
        leaves.sort_by_key(|leaf| leaf.index);
        Ok(leaves)
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
