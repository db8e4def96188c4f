//! The logs themselves: their heads and tiles.

use liaison_trust::log::{Tile, TileHashes};

use super::{Store, columns::number};
use crate::store::{
    LogHead, LogId, LogKind, StoreError,
    engine::{Row, query, row},
};

impl Store {
    /// The newest log of a kind, with its head.
    pub async fn log_head(&self, kind: LogKind) -> Result<LogHead, StoreError> {
        let row = query(
            "SELECT id, number, size, checkpoint, cosigned FROM log WHERE kind = $1 ORDER BY number DESC LIMIT 1",
        )
        .bind(kind.name())
        .fetch_one(&self.readers)
        .await?;
        head(kind, &row)
    }

    /// The domain whose log of evidence the database holds, by the origin of its head; none before the first.
    pub async fn domain(&self) -> Result<Option<String>, StoreError> {
        let head = self.log_head(LogKind::Evidence).await?;
        let origin = head.checkpoint.map(|note| String::from_utf8_lossy(&note).into_owned());
        Ok(origin.and_then(|note| Some(note.split_once('/')?.0.to_owned())))
    }

    /// The log of a kind and number, with its head.
    pub async fn log(&self, kind: LogKind, number: u32) -> Result<Option<LogHead>, StoreError> {
        let row =
            query("SELECT id, number, size, checkpoint, cosigned FROM log WHERE kind = $1 AND number = $2")
                .bind(kind.name())
                .bind(number)
                .fetch_optional(&self.readers)
                .await?;
        row.as_ref().map(|row| head(kind, row)).transpose()
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
            query("SELECT hashes FROM tile WHERE log = $1 AND level = $2 AND idx = $3")
                .bind(log.0)
                .bind(tile.level())
                .bind(number(tile.index()))
                .fetch_optional(&self.readers)
                .await?;
        let bytes = usize::from(tile.width()) * 32;
        Ok(kept.and_then(|kept| kept.get(..bytes).map(<[u8]>::to_vec)))
    }

    /// Writes what a log has grown by from `old` leaves: its tiles, and the checkpoint that is signed over them. False, and
    /// nothing written, if it has another size by now.
    pub async fn grow_log(
        &self,
        log: LogId,
        (old, size): (u64, u64),
        checkpoint: &[u8],
        tiles: &[(Tile, Vec<u8>)],
    ) -> Result<bool, StoreError> {
        let mut change = self.writer.begin().await?;
        let grown = query("UPDATE log SET size = $1, checkpoint = $2 WHERE id = $3 AND size = $4")
            .bind(number(size))
            .bind(checkpoint)
            .bind(log.0)
            .bind(number(old))
            .execute(&mut change)
            .await?;
        if grown == 0 {
            return Ok(false);
        }
        for run in change.runs(tiles) {
            let write = query("INSERT INTO tile (log, level, idx, hashes) ")
                .rows(run, |(tile, content)| row![log.0, tile.level(), number(tile.index()), content]);
            let write = write.sql(" ON CONFLICT (log, level, idx) DO UPDATE SET hashes = excluded.hashes");
            write.execute(&mut change).await?;
        }
        change.commit_head().await?;
        Ok(true)
    }

    /// Keeps a checkpoint with the cosignatures that it has.
    pub async fn keep_cosigned(&self, log: LogId, checkpoint: &[u8]) -> Result<(), StoreError> {
        query("UPDATE log SET cosigned = $1 WHERE id = $2")
            .bind(checkpoint)
            .bind(log.0)
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}

fn head(kind: LogKind, row: &Row) -> Result<LogHead, StoreError> {
    Ok(LogHead {
        log: LogId(row.get("id")?),
        kind,
        number: row.get("number")?,
        size: row.get::<i64>("size")?.unsigned_abs(),
        checkpoint: row.get("checkpoint")?,
        cosigned: row.get("cosigned")?,
    })
}
