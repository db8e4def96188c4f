//! What is sent: kept as a draft, sealed once when its recipients' keys are known, offered to the
//! gateway until it answers.

use std::collections::BTreeMap;

use liaison_proto::message::v1::{
    Facts, Handling, StateChange, alert_kind::Code as AlertKind, basis::Code as Basis,
    data_category::Code as Category, kind::Code as Kind, status::Code as Status, urgency::Code as Urgency,
};
use liaison_trust::{digest::Digest, names::AgencyAddress};
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

/// A message to be sent.
pub struct NewMessage {
    /// UUIDv7.
    pub id: Uuid,
    pub thread: Uuid,
    pub kind: Kind,
    /// `Unspecified` where it is no alert.
    pub alert_kind: AlertKind,
    /// Kept to the millisecond.
    pub created: OffsetDateTime,
    /// Kept to the millisecond.
    pub expires: OffsetDateTime,
    pub urgency: Urgency,
    pub handling: Option<Handling>,
    pub status: Status,
    /// Of a message of kind `state`.
    pub state_change: Option<StateChange>,
    pub facts: Option<Facts>,
    /// The plaintext of each section, see [`liaison_proto::category::split`].
    pub sections: BTreeMap<Category, Zeroizing<Vec<u8>>>,
    /// Whom it is sealed to, and the basis on which each may have each category.
    pub recipients: Vec<(AgencyAddress, BTreeMap<Category, Basis>)>,
}

/// The key under which a case system may repeat a request, and what the request was.
pub struct Idempotency {
    pub key: String,
    /// Of the request, so that another request under the same key is noticed.
    pub digest: Digest,
}

/// What became of a request to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    New,
    /// This idempotency key did exactly this before; the ids are those of then.
    Again,
}
