//! What other tables state that the log states as well. Rows come as they stand: whoever reads them judges them.

use sqlx::FromRow;

use super::Snapshot;
use crate::{limits, store::StoreError};

/// An administrative act of the audit as it stands in the database.
#[derive(Debug, Clone, FromRow)]
pub struct AuditRow {
    pub seq: i64,
    /// Unix milliseconds.
    pub at: i64,
    pub act: String,
    pub subject: String,
}

/// An agency of the domain as it stands in the database.
#[derive(Debug, Clone, FromRow)]
pub struct AgencyRow {
    pub address: String,
    pub state: i32,
    /// Unix milliseconds.
    pub added: i64,
}

/// A peer as it stands in the database.
#[derive(Debug, Clone, FromRow)]
pub struct PeerRow {
    pub domain: String,
    pub state: i32,
}

/// A policy set as it stands in the database, without its files.
#[derive(Debug, Clone, FromRow)]
pub struct PolicyRow {
    pub hash: Vec<u8>,
    /// Unix milliseconds.
    pub activated: i64,
}

/// A thread as it stands in the database.
#[derive(Debug, Clone, FromRow)]
pub struct ThreadRow {
    pub thread: Vec<u8>,
    pub requester: String,
    pub responder: String,
}

/// A copy of a message that is queued, set aside or with a peer, as it stands in the database.
#[derive(Debug, Clone, FromRow)]
pub struct CopyRow {
    pub agency: String,
    pub queue: String,
    pub offered: bool,
    pub handed_over: bool,
    pub quarantined: bool,
    /// Whether a peer has it and its end is outstanding.
    pub forwarded: bool,
    /// RecipientDecision and SignedReleaseRecord.
    pub decision: Vec<u8>,
    pub release: Vec<u8>,
}

impl Snapshot {
    /// The audit, the oldest act first.
    pub async fn audit(&mut self) -> Result<Vec<AuditRow>, StoreError> {
        Ok(sqlx::query_as("SELECT seq, at, act, subject FROM audit ORDER BY seq")
            .fetch_all(&mut self.connection)
            .await?)
    }

    /// The agencies of the domain.
    pub async fn agencies(&mut self) -> Result<Vec<AgencyRow>, StoreError> {
        Ok(sqlx::query_as("SELECT address, state, added FROM agency ORDER BY address")
            .fetch_all(&mut self.connection)
            .await?)
    }

    /// The addresses of agencies whose membership ended for good.
    pub async fn revoked_agencies(&mut self) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar("SELECT agency FROM revoked_agency ORDER BY agency")
            .fetch_all(&mut self.connection)
            .await?)
    }

    /// The peers that there are or were.
    pub async fn peers(&mut self) -> Result<Vec<PeerRow>, StoreError> {
        Ok(sqlx::query_as("SELECT domain, state FROM peer ORDER BY domain")
            .fetch_all(&mut self.connection)
            .await?)
    }

    /// What is known of peers' agencies after this address, a page of it: each with its encoded description.
    pub async fn peer_agencies(
        &mut self,
        after: &str,
        most: u32,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT address, agency FROM peer_agency WHERE address > ? ORDER BY address LIMIT ?",
        )
        .bind(after)
        .bind(most)
        .fetch_all(&mut self.connection)
        .await?)
    }

    /// The policy sets that are kept.
    pub async fn policies(&mut self) -> Result<Vec<PolicyRow>, StoreError> {
        Ok(sqlx::query_as("SELECT hash, activated FROM policy_set ORDER BY activated")
            .fetch_all(&mut self.connection)
            .await?)
    }

    /// Threads after this one, a page of them.
    pub async fn threads(&mut self, after: &[u8], most: u32) -> Result<Vec<ThreadRow>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT thread, requester, responder FROM thread WHERE thread > ? ORDER BY thread LIMIT ?",
        )
        .bind(after)
        .bind(most)
        .fetch_all(&mut self.connection)
        .await?)
    }

    /// Whether there is a thread.
    pub async fn has_thread(&mut self, thread: &[u8]) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM thread WHERE thread = ?)")
            .bind(thread)
            .fetch_one(&mut self.connection)
            .await?)
    }

    /// The copies of a message that are queued, set aside or with a peer.
    pub async fn copies(&mut self, message: i64) -> Result<Vec<CopyRow>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT agency, queue, offered, handed_over, quarantined IS NOT NULL AS quarantined, forwarded, \
             COALESCE(decision, x'') AS decision, COALESCE(release, x'') AS release \
             FROM delivery WHERE message = ? ORDER BY seq",
        )
        .bind(message)
        .fetch_all(&mut self.connection)
        .await?)
    }

    /// What is kept of the content of a message: an encoded Envelope.
    pub async fn content(&mut self, message: i64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(sqlx::query_scalar("SELECT envelope FROM content WHERE message = ?")
            .bind(message)
            .fetch_optional(&mut self.connection)
            .await?)
    }

    /// Recipients of copies of messages that are not there: a page of them.
    pub async fn orphans(&mut self) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT agency FROM delivery AS d WHERE message IS NOT NULL \
             AND NOT EXISTS (SELECT 1 FROM message AS m WHERE m.seq = d.message) LIMIT ?",
        )
        .bind(limits::LOG_PAGE)
        .fetch_all(&mut self.connection)
        .await?)
    }
}
