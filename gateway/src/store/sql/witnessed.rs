//! What this gateway has seen of its peers' logs.

use liaison_proto::message::v1::SignedKeyRecord;
use liaison_trust::{digest::Digest, log::Frontier, names::Domain};
use prost::Message;
use time::OffsetDateTime;

use super::{
    Store,
    columns::{millis, number},
};
use crate::{
    limits,
    store::{
        LogKind, StoreError,
        engine::{query, row_of},
    },
};

/// A key record of an agency of this domain in a peer's log, which this gateway did not publish.
pub struct ForeignKey<'a> {
    pub index: u64,
    pub record: &'a SignedKeyRecord,
}

/// A log of a peer of which heads were cosigned.
#[derive(Debug, Clone)]
pub struct Witnessed {
    pub origin: String,
    /// The largest of them, a signed note.
    pub checkpoint: Vec<u8>,
    /// Whether it was found out what it says of the log before it.
    pub compared: bool,
}

row_of! { Witnessed { origin, checkpoint, compared } }

impl Store {
    /// The largest head of a peer's log that was cosigned: a signed note.
    ///
    /// # Errors
    /// The database failed.
    pub async fn witnessed(&self, origin: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let seen = query("SELECT checkpoint FROM witnessed WHERE origin = $1")
            .bind(origin)
            .fetch_optional(&self.readers)
            .await?;
        Ok(seen)
    }

    /// How many logs of a domain were cosigned.
    ///
    /// # Errors
    /// The database failed.
    pub async fn count_witnessed(&self, domain: &Domain) -> Result<u32, StoreError> {
        let count = query("SELECT COUNT(*) FROM witnessed WHERE SUBSTR(origin, 1, LENGTH($1)) = $1")
            .bind(format!("{domain}/"))
            .fetch_one(&self.readers)
            .await?;
        Ok(count)
    }

    /// Keeps a head of a peer's log in place of the one of `old` leaves. False if that is not the newest any more.
    ///
    /// # Errors
    /// The database failed.
    pub async fn witness(
        &self,
        origin: &str,
        old: Option<u64>,
        size: u64,
        checkpoint: &[u8],
    ) -> Result<bool, StoreError> {
        // What is compared stays so until it is replaced, whoever else cosigns.
        let mut change = self.writer.begin().await?;
        let kept = query(
            "INSERT INTO witnessed (origin, size, checkpoint) SELECT $1, $3, $4 \
             WHERE $2 IS NOT DISTINCT FROM (SELECT size FROM witnessed WHERE origin = $1) \
             ON CONFLICT (origin) DO UPDATE SET size = excluded.size, checkpoint = excluded.checkpoint",
        )
        .bind(origin)
        .bind(old.map(number))
        .bind(number(size))
        .bind(checkpoint)
        .execute(&mut change)
        .await?;
        change.commit().await?;
        Ok(kept == 1)
    }

    /// The largest head that was cosigned of the newest log of a kind of a domain: a signed note.
    ///
    /// # Errors
    /// The database failed.
    pub async fn witnessed_newest(
        &self,
        domain: &Domain,
        kind: LogKind,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.witnessed_logs(domain, kind).await?.pop().map(|log| log.checkpoint))
    }

    /// The logs of a kind of a domain that were cosigned, by their numbers.
    ///
    /// # Errors
    /// The database failed.
    pub async fn witnessed_logs(&self, domain: &Domain, kind: LogKind) -> Result<Vec<Witnessed>, StoreError> {
        // Of two logs the one with the higher number; what is longer is higher.
        let logs = query(
            "SELECT origin, checkpoint, compared FROM witnessed WHERE SUBSTR(origin, 1, LENGTH($1)) = $1 \
             ORDER BY LENGTH(origin), origin",
        )
        .bind(format!("{domain}/{}/", kind.name()))
        .fetch_all(&self.readers)
        .await?;
        Ok(logs)
    }

    /// It was found out what a log says of the one before it.
    ///
    /// # Errors
    /// The database failed.
    pub async fn log_compared(&self, origin: &str) -> Result<(), StoreError> {
        query("UPDATE witnessed SET compared = TRUE WHERE origin = $1")
            .bind(origin)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// How far a peer's log of keys was read.
    ///
    /// # Errors
    /// The database failed, or holds what can't be read.
    pub async fn watched(&self, origin: &str) -> Result<Frontier, StoreError> {
        let row: Option<(i64, Vec<u8>)> = query("SELECT size, frontier FROM watched WHERE origin = $1")
            .bind(origin)
            .fetch_optional(&self.readers)
            .await?;
        let Some((size, frontier)) = row else { return Ok(Frontier::new()) };
        let (hashes, _) = frontier.as_chunks::<32>();
        let hashes = hashes.iter().copied().map(Digest).collect();
        Frontier::from_parts(size.unsigned_abs(), hashes).map_err(|_| StoreError::Corrupt("frontier"))
    }

    /// Keeps how far a peer's log of keys was read, with what was found in it, and the head that all of it is under.
    ///
    /// # Errors
    /// The database failed.
    pub async fn keys_watched(
        &self,
        origin: &str,
        frontier: &Frontier,
        (checkpoint, foreign): (&[u8], &[ForeignKey<'_>]),
        at: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let mut change = self.writer.begin().await?;
        let hashes: Vec<u8> = frontier.hashes().iter().flat_map(|hash| *hash.as_bytes()).collect();
        query(
            "INSERT INTO watched (origin, size, frontier) VALUES ($1, $2, $3) \
             ON CONFLICT (origin) DO UPDATE SET size = excluded.size, frontier = excluded.frontier",
        )
        .bind(origin)
        .bind(number(frontier.size()))
        .bind(hashes)
        .execute(&mut change)
        .await?;
        for ForeignKey { index, record } in foreign {
            query(
                "INSERT INTO foreign_key (at, origin, idx, record, checkpoint) SELECT $1, $2, $3, $4, $5 \
                 WHERE (SELECT COUNT(*) FROM foreign_key) < $6",
            )
            .bind(millis(at))
            .bind(origin)
            .bind(number(*index))
            .bind(record.encode_to_vec())
            .bind(checkpoint)
            .bind(number(limits::FOREIGN_KEYS as u64))
            .execute(&mut change)
            .await?;
        }
        change.commit().await?;
        Ok(())
    }

    /// Keeps two heads of a log as evidence that it changed its past, or tells two stories; the first ones of each domain.
    ///
    /// # Errors
    /// The database failed.
    pub async fn keep_conflict(
        &self,
        origin: &str,
        (known, shown): (&[u8], &[u8]),
        at: OffsetDateTime,
    ) -> Result<(), StoreError> {
        query(
            "INSERT INTO conflict (at, origin, known, shown) SELECT $1, $2, $3, $4 \
             WHERE (SELECT COUNT(*) FROM conflict WHERE substr(origin, 1, length($6)) = $6) < $5",
        )
        .bind(millis(at))
        .bind(origin)
        .bind(known)
        .bind(shown)
        .bind(limits::LOG_CONFLICTS)
        .bind(origin.split_inclusive('/').next().unwrap_or(origin))
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// How many conflicting heads of a log are kept.
    ///
    /// # Errors
    /// The database failed.
    pub async fn conflicts(&self, origin: &str) -> Result<u32, StoreError> {
        let count = query("SELECT COUNT(*) FROM conflict WHERE origin = $1")
            .bind(origin)
            .fetch_one(&self.readers)
            .await?;
        Ok(count)
    }
}
