//! Several gateways on one database of a server: what they tell each other, and which of them leads.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, PgExecutor, postgres::PgListener};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::postgres::{self, Member};
use crate::{limits, store::StoreError};

/// The channel on which gateways tell each other what they changed.
const CHANNEL: &str = "liaison";

/// The advisory lock of the one that leads, beside that of all.
const LEADER: i64 = postgres::GATEWAYS + 1;

/// Has the others hear something; where it is told within a transaction, with its commit.
pub(super) async fn tell(db: impl PgExecutor<'_>, member: &Member, what: &str) -> Result<(), sqlx::Error> {
    let said = format!("{} {what}", member.name);
    sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(said).execute(db).await?;
    Ok(())
}

/// What the other gateways tell.
pub(in crate::store) struct Ears {
    member: Arc<Member>,
    listener: PgListener,
}

impl Ears {
    pub(super) async fn open(member: Arc<Member>) -> Result<Self, StoreError> {
        Ok(Self { listener: listen(&member).await?, member })
    }

    /// What another gateway tells next; none where something may have been missed before now.
    pub(in crate::store) async fn hear(&mut self) -> Option<String> {
        loop {
            // Nobody is silent for so long: this one hears itself as well.
            match timeout(limits::DEAF, self.listener.try_recv()).await {
                Ok(Ok(Some(heard))) => {
                    let other = heard.payload().split_once(' ').filter(|(from, _)| *from != self.member.name);
                    if let Some((_, what)) = other {
                        return Some(what.to_owned());
                    }
                }
                Ok(Ok(None)) => return None,
                Ok(Err(_)) | Err(_) => {
                    self.listen_again().await;
                    return None;
                }
            }
        }
    }

    async fn listen_again(&mut self) {
        loop {
            if let Ok(Ok(listener)) = timeout(limits::DATABASE_BUSY, listen(&self.member)).await {
                self.listener = listener;
                return;
            }
            sleep(limits::DATABASE_RETRY).await;
        }
    }
}

async fn listen(member: &Member) -> Result<PgListener, sqlx::Error> {
    let mut listener = PgListener::connect_with(&postgres::one(&member.options).await?).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// One that leads as soon as no other gateway does.
pub(in crate::store) struct Candidate {
    member: Arc<Member>,
    /// With the lock, if this gateway leads.
    connection: Option<PgConnection>,
    leads: bool,
    /// Whether the last attempt to find out failed.
    failed: bool,
}

impl Candidate {
    pub(super) fn new(member: Arc<Member>) -> Self {
        Self { member, connection: None, leads: false, failed: false }
    }

    /// Whether this gateway leads now. For a moment two may: one whose connection is gone and who has not noticed.
    pub(in crate::store) async fn leads(&mut self) -> bool {
        let asked = timeout(limits::DATABASE_BUSY, self.ask()).await;
        self.leads = matches!(asked, Ok(Ok(true)));
        let failed = !matches!(asked, Ok(Ok(_)));
        if failed {
            self.connection = None;
        }
        if failed && !self.failed {
            let fault = asked.map_or_else(
                |late| late.to_string(),
                |asked| asked.err().map_or(String::new(), |fault| fault.to_string()),
            );
            warn!(fault, "it can't be found out whether this gateway leads those of the domain");
        }
        self.failed = failed;
        self.leads
    }

    async fn ask(&mut self) -> Result<bool, sqlx::Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                self.leads = false;
                let mut connection = self.member.options.connect().await?;
                // One that is frozen leads no more.
                let frozen = limits::CHANGE_FROZEN.as_millis();
                connection.execute(AssertSqlSafe(format!("SET idle_session_timeout = {frozen}"))).await?;
                self.connection.insert(connection)
            }
        };
        let ask =
            if self.leads { "SELECT $1::BIGINT IS NOT NULL" } else { "SELECT pg_try_advisory_lock($1)" };
        sqlx::query_scalar(ask).bind(LEADER).fetch_one(connection).await
    }
}
