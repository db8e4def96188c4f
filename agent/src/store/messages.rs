//! Messages as they are read back.

use liaison_proto::message::v1::{
    Handling, RecipientDecision, Refusal, ReleaseRecord, ReleasedSection, StateChange,
    alert_kind::Code as AlertKind, data_category::Code as Category, kind::Code as Kind,
    referral_state::Code as State, status::Code as Status, urgency::Code as Urgency,
};
use liaison_trust::{digest::Digest, names::AgencyAddress};
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Store, StoreError};

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Sent,
    Received,
}

/// A referral or an alert, without its sections.
#[derive(Debug, Clone)]
pub struct Message {
    pub id: Uuid,
    pub thread: Uuid,
    pub direction: Direction,
    pub kind: Kind,
    pub alert_kind: AlertKind,
    pub from: AgencyAddress,
    pub urgency: Urgency,
    pub handling: Option<Handling>,
    pub status: Status,
    pub created: OffsetDateTime,
    pub expires: OffsetDateTime,
    /// The policy set that decided, once one has.
    pub policy_hash: Option<Digest>,
    /// Sent: why it failed, or why the last change of its state did.
    pub refusal: Option<Refusal>,
    /// Sent: one for each recipient. Received: this agency alone.
    pub deliveries: Vec<DeliveryState>,
    /// Where a referral stands, with its reason or outcome; of an alert the state is `unspecified`.
    pub state: StateChange,
    /// A cancellation was sent and the recipient has not answered it yet.
    pub cancel_pending: bool,
    /// Of a referral, oldest first.
    pub history: Vec<StateEvent>,
}

/// Where a message stands at one recipient.
#[derive(Debug, Clone)]
pub struct DeliveryState {
    pub agency: AgencyAddress,
    /// submitted, requested, received, refused or expired.
    pub state: State,
    pub decision: Option<RecipientDecision>,
    pub refusal: Option<Refusal>,
}

/// A change of a referral's state.
#[derive(Debug, Clone, PartialEq)]
pub struct StateEvent {
    pub change: StateChange,
    pub at: OffsetDateTime,
    /// The agency or the domain that set it.
    pub by: String,
}

/// A received section, opened.
pub struct StoredSection {
    pub category: Category,
    pub plaintext: Zeroizing<Vec<u8>>,
    pub release: ReleasedSection,
    /// When it is erased here.
    pub retain_until: OffsetDateTime,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Messages that the gateway has not accepted yet.
    pub outbox: u64,
    pub received_referrals: u64,
    pub received_alerts: u64,
}

impl Store {
    /// A message by its id.
    pub async fn message(&self, _id: Uuid) -> Result<Option<Message>, StoreError> {
        Ok(None)
    }

    /// Messages of a kind, newest first, behind the message `after`.
    pub async fn messages(
        &self,
        _kind: Kind,
        _direction: Option<Direction>,
        _status: Status,
        _after: Option<Uuid>,
        _limit: u32,
    ) -> Result<Vec<Message>, StoreError> {
        Ok(Vec::new())
    }

    /// The sections of a received message that were not erased yet, opened.
    pub async fn sections(&self, _id: Uuid) -> Result<Vec<StoredSection>, StoreError> {
        Ok(Vec::new())
    }

    /// What the gateway released of a received message.
    pub async fn release(&self, _id: Uuid) -> Result<Option<ReleaseRecord>, StoreError> {
        Ok(None)
    }

    /// How much there is.
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        Ok(Counts { outbox: 0, received_referrals: 0, received_alerts: 0 })
    }
}
