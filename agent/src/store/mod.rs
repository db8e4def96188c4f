//! The agent's database, `agent.db`: everything that must survive a crash. No section stands in it in
//! clear: drafts are sealed under the vault key, received sections stay as they came.

mod messages;

pub use messages::{Counts, DeliveryState, Direction, Message, StateEvent, StoredSection};

use liaison_proto::message::v1::{RecipientDecision, Refusal, StateChange};
use uuid::Uuid;

use crate::outbox::{Idempotency, NewMessage, Stored};

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {}

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the agent's database failed: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the agent's database could not be brought to this version: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("the agent's database holds a {0} that can't be read")]
    Damaged(&'static str),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "store");
        Refusal::internal()
    }
}

impl Store {
    /// Commits messages to the outbox, all or none. Answers with their ids once that is durable. `actor`
    /// is who asked; `refused` are recipients of the first message that it is not even sealed to.
    ///
    /// Refused as `idempotency_conflict` where the key was used for another request, and as `queue_full`.
    pub async fn add(
        &self,
        _messages: Vec<NewMessage>,
        _idempotency: Option<Idempotency>,
        _actor: &str,
        _refused: Vec<RecipientDecision>,
    ) -> Result<(Stored, Vec<Uuid>), Refusal> {
        Err(Refusal::internal())
    }

    /// Moves a referral to another state on behalf of this agency, and tells the other party. The state
    /// that it has already is no change.
    ///
    /// Refused as `unknown_message`, `transition_not_allowed` (naming the allowed ones) and
    /// `missing_field`.
    pub async fn change_state(
        &self,
        _id: Uuid,
        _change: StateChange,
        _actor: &str,
    ) -> Result<Message, Refusal> {
        Err(Refusal::internal())
    }
}
