//! What other tables state that the log states as well. Rows come as they stand: whoever reads them judges them.

use super::Snapshot;
use crate::{
    limits,
    store::{
        StoreError,
        engine::{FromRow, Row, query, row_of},
    },
};

/// An administrative act of the audit as it stands in the database.
#[derive(Debug, Clone)]
pub struct AuditRow {
    pub seq: i64,
    /// Unix milliseconds.
    pub at: i64,
    pub act: String,
    pub subject: String,
}

/// An agency of the domain as it stands in the database.
#[derive(Debug, Clone)]
pub struct AgencyRow {
    pub address: String,
    pub state: i32,
    /// Unix milliseconds.
    pub added: i64,
}

/// A peer as it stands in the database.
#[derive(Debug, Clone)]
pub struct PeerRow {
    pub domain: String,
    pub state: i32,
}

/// A policy set as it stands in the database, without its files.
#[derive(Debug, Clone)]
pub struct PolicyRow {
    pub hash: Vec<u8>,
    /// Unix milliseconds.
    pub activated: i64,
}

/// A thread as it stands in the database.
#[derive(Debug, Clone)]
pub struct ThreadRow {
    pub thread: Vec<u8>,
    pub requester: String,
    pub responder: String,
}

/// A copy of a message that is queued, set aside or with a peer, as it stands in the database.
#[derive(Debug, Clone)]
pub struct CopyRow {
    pub agency: String,
    pub queue: String,
    pub offered: bool,
    pub handed_over: bool,
    pub quarantined: bool,
    /// Whether a peer has it and its end is outstanding.
    pub forwarded: bool,
    /// Unix milliseconds.
    pub expires: i64,
    /// RecipientDecision and SignedReleaseRecord.
    pub decision: Vec<u8>,
    pub release: Vec<u8>,
}

row_of! {
    AuditRow { seq, at, act, subject }
    AgencyRow { address, state, added }
    PeerRow { domain, state }
    PolicyRow { hash, activated }
    ThreadRow { thread, requester, responder }
}

impl FromRow for CopyRow {
    fn from_row(row: Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            agency: row.get("agency")?,
            queue: row.get("queue")?,
            offered: row.get("offered")?,
            handed_over: row.get("handed_over")?,
            quarantined: row.get("quarantined")?,
            forwarded: row.get("forwarded")?,
            expires: row.get("expires")?,
            decision: row.get::<Option<_>>("decision")?.unwrap_or_default(),
            release: row.get::<Option<_>>("release")?.unwrap_or_default(),
        })
    }
}

impl Snapshot {
    /// The audit, the oldest act first.
    pub async fn audit(&mut self) -> Result<Vec<AuditRow>, StoreError> {
        query("SELECT seq, at, act, subject FROM audit ORDER BY seq").fetch_all(&mut self.transaction).await
    }

    /// The agencies of the domain.
    pub async fn agencies(&mut self) -> Result<Vec<AgencyRow>, StoreError> {
        query("SELECT address, state, added FROM agency ORDER BY address")
            .fetch_all(&mut self.transaction)
            .await
    }

    /// The addresses of agencies whose membership ended for good.
    pub async fn revoked_agencies(&mut self) -> Result<Vec<String>, StoreError> {
        query("SELECT agency FROM revoked_agency ORDER BY agency").fetch_all(&mut self.transaction).await
    }

    /// The peers that there are or were.
    pub async fn peers(&mut self) -> Result<Vec<PeerRow>, StoreError> {
        query("SELECT domain, state FROM peer ORDER BY domain").fetch_all(&mut self.transaction).await
    }

    /// What is known of peers' agencies after this address, a page of it: each with its encoded description.
    pub async fn peer_agencies(
        &mut self,
        after: &str,
        most: u32,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        query("SELECT address, agency FROM peer_agency WHERE address > $1 ORDER BY address LIMIT $2")
            .bind(after)
            .bind(most)
            .fetch_all(&mut self.transaction)
            .await
    }

    /// The policy sets that are kept.
    pub async fn policies(&mut self) -> Result<Vec<PolicyRow>, StoreError> {
        query("SELECT hash, activated FROM policy_set ORDER BY activated")
            .fetch_all(&mut self.transaction)
            .await
    }

    /// Threads after this one, a page of them.
    pub async fn threads(&mut self, after: &[u8], most: u32) -> Result<Vec<ThreadRow>, StoreError> {
        query("SELECT thread, requester, responder FROM thread WHERE thread > $1 ORDER BY thread LIMIT $2")
            .bind(after)
            .bind(most)
            .fetch_all(&mut self.transaction)
            .await
    }

    /// Whether there is a thread.
    pub async fn has_thread(&mut self, thread: &[u8]) -> Result<bool, StoreError> {
        query("SELECT EXISTS (SELECT 1 FROM thread WHERE thread = $1)")
            .bind(thread)
            .fetch_one(&mut self.transaction)
            .await
    }

    /// The copies of a message that are queued, set aside or with a peer.
    pub async fn copies(&mut self, message: i64) -> Result<Vec<CopyRow>, StoreError> {
        query(
            "SELECT agency, queue, offered, handed_over, quarantined IS NOT NULL AS quarantined, forwarded, expires, \
             decision, release \
             FROM delivery WHERE message = $1 ORDER BY seq",
        )
        .bind(message)
        .fetch_all(&mut self.transaction)
        .await
    }

    /// What is kept of the content of a message: an encoded Envelope.
    pub async fn content(&mut self, message: i64) -> Result<Option<Vec<u8>>, StoreError> {
        query("SELECT envelope FROM content WHERE message = $1")
            .bind(message)
            .fetch_optional(&mut self.transaction)
            .await
    }

    /// Recipients of copies of messages that are not there: a page of them.
    pub async fn orphans(&mut self) -> Result<Vec<String>, StoreError> {
        query(
            "SELECT agency FROM delivery AS d WHERE message IS NOT NULL \
             AND NOT EXISTS (SELECT 1 FROM message AS m WHERE m.seq = d.message) LIMIT $1",
        )
        .bind(limits::LOG_PAGE)
        .fetch_all(&mut self.transaction)
        .await
    }
}
