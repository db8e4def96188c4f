//! The logs in a database as of one moment, and what they vouch for, whether or not a gateway runs on it. Rows come
//! as they stand: whoever reads them judges them.

use liaison_proto::{exchange::v1 as wire, message::v1::SignedKeyRecord};
use liaison_trust::log::{SaltedRecord, Tile, TileHashes};
use uuid::Uuid;

use super::{
    columns::{decode, number},
    leaves::PLACE_IN_CLEAR,
};
use crate::{
    limits,
    store::{
        Database, LogHead, LogId, LogKind, Staged, Stager, StoreError,
        engine::{Transaction, query, row_of},
    },
};

/// A look at one moment of a database. Nothing is changed, and the gateway that may run on it goes on.
pub struct Snapshot {
    pub(super) transaction: Transaction,
}

/// A leaf as it stands in the database.
#[derive(Debug, Clone)]
pub struct LeafRow {
    pub index: i64,
    pub entry: Vec<u8>,
    pub salt: Option<Vec<u8>>,
    pub record: Option<Vec<u8>>,
    pub message: Option<Vec<u8>>,
    pub thread: Option<Vec<u8>>,
    pub readers: String,
    pub mac: Vec<u8>,
}

/// An accepted message as it stands in the database.
#[derive(Debug, Clone)]
pub struct MessageRow {
    pub seq: i64,
    pub sender: String,
    pub id: Vec<u8>,
    pub digest: Vec<u8>,
    pub acceptance: Vec<u8>,
}

/// A key record as it stands in the database.
#[derive(Debug, Clone)]
pub struct KeyRow {
    pub agency: String,
    pub sequence: i64,
    pub record: Vec<u8>,
}

row_of! {
    LeafRow { index as "idx", entry, salt, record, message, thread, readers, mac }
    MessageRow { seq, sender, id, digest, acceptance }
    KeyRow { agency, sequence, record }
}

impl LeafRow {
    /// The record with its salt; none where it was erased, or is no record of a log.
    pub fn salted(&self) -> Option<SaltedRecord> {
        let salt = self.salt.as_deref()?.try_into().ok()?;
        SaltedRecord::from_parts(salt, self.record.clone()?).ok()
    }

    /// Whether the gateway staged it, by its code, as a leaf of a log.
    pub fn is_staged(&self, stager: &Stager, log: (LogKind, u32)) -> bool {
        let Self { entry, message, thread, mac, .. } = self;
        let (message, thread) = (message.as_deref(), thread.as_deref());
        stager.staged(Staged { log, index: self.index(), entry, message, thread }, mac)
    }

    /// Where it stands in its log.
    pub fn index(&self) -> u64 {
        self.index.unsigned_abs()
    }
}

impl Snapshot {
    /// Looks at a database that this version wrote.
    ///
    /// # Errors
    /// It can't be read, or another version wrote it.
    pub async fn of(database: &Database) -> Result<Self, StoreError> {
        let mut transaction = database.look().await?;
        // One moment for all that is read: the moment of the first reading.
        let applied: i64 = query("SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations")
            .fetch_one(&mut transaction)
            .await?;
        if Some(applied) != database.migrations().iter().map(|migration| migration.version).max() {
            return Err(StoreError::OtherVersion);
        }
        Ok(Self { transaction })
    }

    /// The logs of a kind, the oldest first.
    pub async fn logs(&mut self, kind: LogKind) -> Result<Vec<LogHead>, StoreError> {
        type LogRow = (i64, u32, i64, Option<Vec<u8>>, Option<Vec<u8>>);
        let rows: Vec<LogRow> =
            query("SELECT id, number, size, checkpoint, cosigned FROM log WHERE kind = $1 ORDER BY number")
                .bind(kind.name())
                .fetch_all(&mut self.transaction)
                .await?;
        let head = |(log, number, size, checkpoint, cosigned): LogRow| LogHead {
            log: LogId(log),
            kind,
            number,
            size: size.unsigned_abs(),
            checkpoint,
            cosigned,
        };
        Ok(rows.into_iter().map(head).collect())
    }

    /// Leaves of a log from an index on, a page of them.
    pub async fn leaves(&mut self, log: LogId, from: u64, most: u32) -> Result<Vec<LeafRow>, StoreError> {
        query("SELECT * FROM leaf WHERE log = $1 AND idx >= $2 ORDER BY idx LIMIT $3")
            .bind(log.0)
            .bind(number(from))
            .bind(most)
            .fetch_all(&mut self.transaction)
            .await
    }

    /// The leaves of a log about a message, in their order.
    pub async fn leaves_about(&mut self, log: LogId, message: &[u8]) -> Result<Vec<LeafRow>, StoreError> {
        query("SELECT * FROM leaf WHERE log = $1 AND message = $2 ORDER BY idx")
            .bind(log.0)
            .bind(message)
            .fetch_all(&mut self.transaction)
            .await
    }

    /// Leaves of a log about no message, from an index on, a page of them: what administrators did.
    pub async fn acts(&mut self, log: LogId, from: u64, most: u32) -> Result<Vec<LeafRow>, StoreError> {
        query("SELECT * FROM leaf WHERE log = $1 AND idx >= $2 AND message IS NULL ORDER BY idx LIMIT $3")
            .bind(log.0)
            .bind(number(from))
            .bind(most)
            .fetch_all(&mut self.transaction)
            .await
    }

    /// The leaves of all logs that have a thread beside them.
    pub async fn leaves_of_thread(&mut self, thread: &[u8]) -> Result<Vec<LeafRow>, StoreError> {
        query("SELECT * FROM leaf WHERE thread = $1").bind(thread).fetch_all(&mut self.transaction).await
    }

    /// The messages of a thread that a log tells of.
    pub async fn messages_of(&mut self, log: LogId, thread: Uuid) -> Result<Vec<Vec<u8>>, StoreError> {
        query("SELECT DISTINCT message FROM leaf WHERE log = $1 AND thread = $2 AND message IS NOT NULL")
            .bind(log.0)
            .bind(thread.as_bytes().to_vec())
            .fetch_all(&mut self.transaction)
            .await
    }

    /// The content of a tile, as wide as it is kept.
    pub async fn tile(&mut self, log: LogId, level: u8, index: u64) -> Result<Option<Vec<u8>>, StoreError> {
        query("SELECT hashes FROM tile WHERE log = $1 AND level = $2 AND idx = $3")
            .bind(log.0)
            .bind(level)
            .bind(number(index))
            .fetch_optional(&mut self.transaction)
            .await
    }

    /// The hashes of tiles; those that are missing or not as wide are left out.
    pub async fn tiles(
        &mut self,
        log: LogId,
        tiles: impl IntoIterator<Item = Tile>,
    ) -> Result<TileHashes, StoreError> {
        let mut hashes = TileHashes::new();
        for tile in tiles {
            let content = self.tile(log, tile.level(), tile.index()).await?;
            let wide = content.as_deref().and_then(|content| content.get(..usize::from(tile.width()) * 32));
            if let Some(content) = wide {
                hashes.insert(tile, content).map_err(|_| StoreError::Corrupt("tile"))?;
            }
        }
        Ok(hashes)
    }

    /// Some of the tiles, by level and index, that a log of this size does not have.
    pub async fn tiles_outside(
        &mut self,
        log: LogId,
        size: u64,
        most: u32,
    ) -> Result<Vec<(i64, i64)>, StoreError> {
        query(
            "SELECT level, idx FROM tile WHERE log = $1 AND (level NOT BETWEEN 0 AND 7 OR idx NOT BETWEEN 0 AND 36028797018963968 \
             OR (idx << 8) >= ($2 >> CAST(8 * level AS INTEGER))) LIMIT $3",
        )
        .bind(log.0)
        .bind(number(size))
        .bind(most)
        .fetch_all(&mut self.transaction)
        .await
    }

    /// Accepted messages that are remembered, from a number on, a page of them.
    pub async fn messages(&mut self, after: i64, most: u32) -> Result<Vec<MessageRow>, StoreError> {
        query("SELECT seq, sender, id, digest, acceptance FROM message WHERE seq > $1 ORDER BY seq LIMIT $2")
            .bind(after)
            .bind(most)
            .fetch_all(&mut self.transaction)
            .await
    }

    /// Whether a message of a sender is remembered.
    pub async fn remembers(&mut self, sender: &str, message: &[u8]) -> Result<bool, StoreError> {
        query("SELECT EXISTS (SELECT 1 FROM message WHERE sender = $1 AND id = $2)")
            .bind(sender)
            .bind(message)
            .fetch_one(&mut self.transaction)
            .await
    }

    /// Key records after this agency and sequence number, a page of them.
    pub async fn key_records(&mut self, after: (&str, i64), most: u32) -> Result<Vec<KeyRow>, StoreError> {
        query(
            "SELECT agency, sequence, record FROM key_record WHERE (agency, sequence) > ($1, $2) \
             ORDER BY agency, sequence LIMIT $3",
        )
        .bind(after.0)
        .bind(after.1)
        .bind(most)
        .fetch_all(&mut self.transaction)
        .await
    }

    /// The key records of an agency, of this domain or of a peer's.
    pub async fn keys_of(&mut self, agency: &str) -> Result<Vec<SignedKeyRecord>, StoreError> {
        let own: Vec<Vec<u8>> = query("SELECT record FROM key_record WHERE agency = $1 ORDER BY sequence")
            .bind(agency)
            .fetch_all(&mut self.transaction)
            .await?;
        let peers: Option<Vec<u8>> = query("SELECT agency FROM peer_agency WHERE address = $1")
            .bind(agency)
            .fetch_optional(&mut self.transaction)
            .await?;
        let mut keys = own.into_iter().map(decode).collect::<Result<Vec<SignedKeyRecord>, _>>()?;
        keys.extend(
            peers.map(decode::<wire::Agency>).transpose()?.into_iter().flat_map(|agency| agency.keys),
        );
        Ok(keys)
    }

    /// Key records of agencies of this domain that peers have logged and this gateway did not publish: of which log, and at
    /// which index.
    pub async fn foreign_keys(&mut self) -> Result<Vec<(String, u64, SignedKeyRecord)>, StoreError> {
        let rows: Vec<(String, i64, Vec<u8>)> =
            query("SELECT origin, idx, record FROM foreign_key ORDER BY seq")
                .fetch_all(&mut self.transaction)
                .await?;
        rows.into_iter().map(|(log, index, key)| Ok((log, index.unsigned_abs(), decode(key)?))).collect()
    }

    /// Where an entry in clear stands in a log.
    pub async fn place_in_clear(&mut self, log: LogId, entry: &[u8]) -> Result<Option<u64>, StoreError> {
        let index: Option<i64> =
            query(PLACE_IN_CLEAR).bind(log.0).bind(entry).fetch_optional(&mut self.transaction).await?;
        Ok(index.map(i64::unsigned_abs))
    }

    /// Logs that contradicted what was known of them, each with how often: as far as that is kept.
    pub async fn conflicts(&mut self) -> Result<Vec<(String, i64)>, StoreError> {
        query("SELECT origin, COUNT(*) FROM conflict GROUP BY origin ORDER BY origin LIMIT $1")
            .bind(limits::LOGS_WITNESSED)
            .fetch_all(&mut self.transaction)
            .await
    }

    /// The active policy set: its hash, and its encoded files.
    pub async fn active_policy(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>, StoreError> {
        query("SELECT hash, files FROM policy_set WHERE active = TRUE")
            .fetch_optional(&mut self.transaction)
            .await
    }

    /// Ends the look.
    pub async fn close(self) -> Result<(), StoreError> {
        self.transaction.commit().await
    }
}
