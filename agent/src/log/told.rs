//! What a record of the log tells.

use liaison_proto::{
    case::v1::receipt_event::Code as Event,
    log::v1::{Decision, Outcome, Record, RuleName, ended, outcome, record},
    message::v1::{RecipientDecision, Rule},
    strict::{self, StrictError},
    times,
};
use time::OffsetDateTime;
use uuid::Uuid;

/// An event of a message, as the log records it.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub event: Event,
    pub at: OffsetDateTime,
    pub message: Uuid,
    /// Of the message's manifest.
    pub digest: Vec<u8>,
    pub sender: String,
    /// Whose copy it is about; empty where it is about the message as a whole.
    pub recipient: String,
    /// Of an acceptance.
    pub accepted: Option<Decided>,
    /// Of an acknowledgement, all that the record says of it.
    pub acknowledged: Option<Outcome>,
}

/// What was decided, and by which policies.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    pub policy_hash: Vec<u8>,
    pub scheme_hash: Vec<u8>,
    pub decisions: Vec<Decision>,
}

/// Why a record tells nothing of a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTold {
    #[error(transparent)]
    Strict(#[from] StrictError),
    #[error("the record lacks its time, or the id of its message")]
    Form,
    #[error("the record is about no message")]
    NoMessage,
}

impl Told {
    /// Reads a liaison.log.v1.Record.
    ///
    /// # Errors
    /// It is none, or not of a message.
    pub fn read(record: &[u8]) -> Result<Self, NotTold> {
        let Record { at, event } = strict::decode(record)?;
        let at = at.as_ref().and_then(times::from_wire).ok_or(NotTold::Form)?;
        let id = |bytes: &[u8]| Uuid::from_slice(bytes).map_err(|_| NotTold::Form);
        let blank = Self {
            event: Event::Unspecified,
            at,
            message: Uuid::nil(),
            digest: Vec::new(),
            sender: String::new(),
            recipient: String::new(),
            accepted: None,
            acknowledged: None,
        };
        match event.ok_or(NotTold::Form)? {
            record::Event::Accepted(accepted) => Ok(Self {
                event: Event::Accepted,
                message: id(&accepted.message_id)?,
                digest: accepted.manifest_digest.into(),
                sender: accepted.sender,
                accepted: Some(Decided {
                    policy_hash: accepted.policy_hash.into(),
                    scheme_hash: accepted.scheme_hash.into(),
                    decisions: accepted.decisions,
                }),
                ..blank
            }),
            record::Event::Refused(refused) => Ok(Self {
                event: Event::Refused,
                message: id(&refused.message_id)?,
                digest: refused.manifest_digest.into(),
                sender: refused.sender,
                ..blank
            }),
            record::Event::HandedOver(copy) => Ok(Self {
                event: Event::HandedOver,
                message: id(&copy.message_id)?,
                digest: copy.manifest_digest.into(),
                sender: copy.sender,
                recipient: copy.recipient,
                ..blank
            }),
            record::Event::Outcome(outcome) => {
                let event = match outcome.event.as_ref().ok_or(NotTold::Form)? {
                    outcome::Event::Acknowledged(_) => Event::Acknowledged,
                    outcome::Event::Forwarded(_) => Event::Forwarded,
                    outcome::Event::Narrowed(_) => Event::Narrowed,
                    outcome::Event::Ended(ended) => match ended.how() {
                        ended::Code::Expired => Event::Expired,
                        ended::Code::Quarantined => Event::Quarantined,
                        ended::Code::Undeliverable => Event::Undeliverable,
                        ended::Code::Unspecified => return Err(NotTold::Form),
                    },
                };
                Ok(Self {
                    event,
                    message: id(&outcome.message_id)?,
                    digest: outcome.manifest_digest.clone().into(),
                    sender: outcome.sender.clone(),
                    recipient: outcome.recipient.clone(),
                    acknowledged: Some(outcome).filter(|_| event == Event::Acknowledged),
                    ..blank
                })
            }
            record::Event::Opened(_) | record::Event::Act(_) => Err(NotTold::NoMessage),
        }
    }
}

/// Whether the log has a decision as the gateway signed it.
pub(super) fn same_decision(logged: &Decision, signed: &RecipientDecision) -> bool {
    let same_rule = |logged: Option<&RuleName>, signed: Option<&Rule>| match (logged, signed) {
        (Some(logged), Some(signed)) => (&logged.layer, &logged.rule) == (&signed.layer, &signed.rule),
        (logged, signed) => logged.is_none() && signed.is_none(),
    };
    logged.recipient == signed.recipient
        && logged.verdict == signed.verdict
        && same_rule(logged.rule.as_ref(), signed.rule.as_ref())
        && logged.categories.len() == signed.categories.len()
        && logged.categories.iter().zip(&signed.categories).all(|(logged, signed)| {
            (logged.category, logged.verdict, logged.basis) == (signed.category, signed.verdict, signed.basis)
                && same_rule(logged.rule.as_ref(), signed.rule.as_ref())
        })
}
