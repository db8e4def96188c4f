//! What is sent: kept as a draft, sealed once when its recipients' keys are known, offered to the
//! gateway until it answers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use liaison_proto::message::v1::{
    Acceptance, Facts, Handling, OnwardRequest, Refusal, SignedAcceptance, StateChange,
    alert_kind::Code as AlertKind, basis::Code as Basis, data_category::Code as Category,
    error_code::Code as ErrorCode, kind::Code as Kind, status::Code as Status, urgency::Code as Urgency,
};
use liaison_trust::{
    digest::{Digest, sha256},
    envelope::{self, Recipient, SealError},
    key_record::ProvenKey,
    keys::VerifyingKey,
    names::AgencyAddress,
    statement,
};
use prost::Message as _;
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    agent::Agent,
    backoff,
    directory::Found,
    store::{StoreError, Waiting},
};

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
    /// Of a message of kind `onward`.
    pub onward: Option<OnwardRequest>,
    /// Of a referral that is referred onward: the received one.
    pub onward_of: Option<Uuid>,
    pub facts: Option<Facts>,
    /// The plaintext of each section, see [`liaison_proto::category::split`].
    pub sections: BTreeMap<Category, Zeroizing<Vec<u8>>>,
    /// Whom it is sealed to, and the basis on which each may have each category.
    pub recipients: Vec<(AgencyAddress, BTreeMap<Category, Basis>)>,
    /// Where it was sealed before it was committed: then no draft of it is kept.
    pub sealed: Option<Sealed>,
}

/// A message as it goes.
pub struct Sealed {
    /// Encoded.
    pub envelope: Bytes,
    /// Of its manifest.
    pub digest: Digest,
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

/// What is to be done with a message in the outbox.
pub(crate) enum Offer {
    /// The encoded envelope, and the digest of its manifest.
    Ready { envelope: Bytes, digest: Digest },
    /// It waits, or it has ended.
    NotNow,
}

/// Seals a message that is for one agency whose key is known, and can be offered now. Others are kept as drafts until they
/// can be.
pub(crate) async fn seal_at_once(agent: &Agent, mut message: NewMessage) -> NewMessage {
    let [(address, bases)] = message.recipients.as_slice() else { return message };
    let key = agent.directory.key_at_hand(address).filter(|_| agent.link.status().connected);
    let Some(key) = key else { return message };
    let recipients = vec![Recipient { key, bases: bases.clone() }];
    match sealed(agent, draft(agent, &message, recipients)).await {
        Ok(sealed) => message.sealed = Some(sealed),
        // It is tried again, and then told.
        Err(error) => tracing::warn!(message = %message.id, %error, "the message is kept as a draft"),
    }
    message
}

/// Makes a message ready to be offered: seals it, once, and stores the envelope before anybody sees it.
pub(crate) async fn prepare(agent: &Agent, id: Uuid) -> Result<Offer, StoreError> {
    let message = match agent.store.waiting(id).await {
        Ok(Some(Waiting::Sealed { envelope, digest })) => return Ok(Offer::Ready { envelope, digest }),
        Ok(Some(Waiting::Draft(message))) => message,
        Ok(None) => return Ok(Offer::NotNow),
        // One that can't be read holds up no other. It is kept: with the right keys it may be read again.
        Err(error @ (StoreError::Damaged(_) | StoreError::Sealed(_))) => {
            tracing::error!(message = %id, %error, "the message can't be read, and waits");
            postpone(agent, id, 0).await?;
            return Ok(Offer::NotNow);
        }
        Err(error) => return Err(error),
    };
    let now = OffsetDateTime::now_utc();
    if message.expires <= now {
        agent.store.expire_outbox(now).await?;
        return Ok(Offer::NotNow);
    }
    let recipients = match recipients(agent, &message).await? {
        Recipients::Known { sealed_to, left_out } => (sealed_to, left_out),
        Recipients::NotNow(why) => {
            tracing::info!(message = %id, %why, "the message waits");
            postpone(agent, id, 0).await?;
            return Ok(Offer::NotNow);
        }
        Recipients::Broken(broken) => {
            for (address, why) in &broken {
                tracing::warn!(message = %id, %why, "the message waits until a person has looked at the keys");
                agent.store.wait_for_person(id, address, why).await?;
            }
            postpone(agent, id, 0).await?;
            return Ok(Offer::NotNow);
        }
        Recipients::None(refusal) => {
            agent.store.refused(id, &refusal).await?;
            return Ok(Offer::NotNow);
        }
    };
    seal(agent, *message, recipients.0, recipients.1).await
}

/// Whom a message can be sealed to.
enum Recipients {
    Known {
        sealed_to: Vec<Recipient>,
        left_out: Vec<(AgencyAddress, Refusal)>,
    },
    NotNow(Refusal),
    /// Nobody but these, whose keys are not to be used until a person has confirmed them.
    Broken(Vec<(AgencyAddress, Refusal)>),
    None(Refusal),
}

async fn recipients(agent: &Agent, message: &NewMessage) -> Result<Recipients, StoreError> {
    let addresses: Vec<_> = message.recipients.iter().map(|(address, _)| address.clone()).collect();
    let mut found = match agent.directory.agencies(&addresses).await {
        Ok(found) => found,
        Err(refusal) => return Ok(Recipients::NotNow(refusal)),
    };
    let proven = proven(agent, message).await?;
    // What the directory found, it has looked up in the log of keys.
    for (address, key) in &proven {
        if matches!(found.get(address), Some(Ok(None)))
            && let Err(refusal) = agent.directory.vouch(address, std::slice::from_ref(key)).await
        {
            found.insert(address.clone(), Err(refusal));
        }
    }
    Ok(sort(message, found, proven))
}

/// The newest keys known of those who are written to in a thread that both are in already: whoever sent to
/// this agency came with its key, and can be answered although it is not listed.
async fn proven(
    agent: &Agent,
    message: &NewMessage,
) -> Result<BTreeMap<AgencyAddress, ProvenKey>, StoreError> {
    let mut proven = BTreeMap::new();
    if matches!(message.kind, Kind::State | Kind::Onward) {
        for (address, _) in &message.recipients {
            let newest = agent.store.keys(address).await?.pop();
            proven.extend(newest.map(|key| (address.clone(), key)));
        }
    }
    Ok(proven)
}

/// Sorts recipients by what the directory found of each, and of those not listed by the keys proven.
fn sort(
    message: &NewMessage,
    mut found: BTreeMap<AgencyAddress, Found>,
    mut proven: BTreeMap<AgencyAddress, ProvenKey>,
) -> Recipients {
    let now = OffsetDateTime::now_utc();
    let (mut sealed_to, mut left_out, mut without_keys) = (Vec::new(), Vec::new(), None);
    for (address, bases) in &message.recipients {
        match found.remove(address).unwrap_or(Ok(None)).map(|agency| agency.map(|agency| agency.key)) {
            Ok(Some(Some(key))) => sealed_to.push(Recipient { key, bases: bases.clone() }),
            Ok(Some(None)) => {
                let refusal = Refusal::new(
                    ErrorCode::UnknownKey,
                    format!("{address} has no keys that a message could be sealed to"),
                    "ask the agency to start its agent; then send again",
                );
                without_keys.get_or_insert(refusal.clone());
                left_out.push((address.clone(), refusal));
            }
            Ok(None) => match proven.remove(address).filter(|key| now <= key.not_after) {
                Some(key) => sealed_to.push(Recipient { key, bases: bases.clone() }),
                None => left_out.push((address.clone(), unknown(address))),
            },
            // Only a chain of keys that is broken is the agency's own; the rest may pass.
            Err(refusal) if refusal.code() == ErrorCode::KeyChainBroken => {
                left_out.push((address.clone(), refusal));
            }
            Err(refusal) => return Recipients::NotNow(refusal),
        }
    }
    match (sealed_to.is_empty(), without_keys) {
        // An alert does not wait for those whose agents never ran.
        (false, _) => Recipients::Known { sealed_to, left_out },
        (true, Some(refusal)) => Recipients::NotNow(refusal),
        (true, None) if left_out.iter().any(|(_, why)| why.code() == ErrorCode::KeyChainBroken) => {
            left_out.retain(|(_, why)| why.code() == ErrorCode::KeyChainBroken);
            Recipients::Broken(left_out)
        }
        (true, None) => {
            Recipients::None(left_out.pop().map_or_else(Refusal::internal, |(_, refusal)| refusal))
        }
    }
}

fn unknown(address: &AgencyAddress) -> Refusal {
    Refusal::new(
        ErrorCode::UnknownRecipient,
        format!("the gateway knows no agency {address}"),
        "list the agencies that can be addressed, and take an address from there",
    )
}

async fn seal(
    agent: &Agent,
    message: NewMessage,
    recipients: Vec<Recipient>,
    left_out: Vec<(AgencyAddress, Refusal)>,
) -> Result<Offer, StoreError> {
    let id = message.id;
    match sealed(agent, draft(agent, &message, recipients)).await {
        Ok(Sealed { envelope, digest }) => {
            match agent.store.sealed(id, &envelope, digest, &left_out).await? {
                true => Ok(Offer::Ready { envelope, digest }),
                false => Ok(Offer::NotNow),
            }
        }
        Err(error) => {
            tracing::error!(message = %id, %error, "the message can't be sealed");
            agent.store.refused(id, &error.into()).await?;
            Ok(Offer::NotNow)
        }
    }
}

fn draft(agent: &Agent, message: &NewMessage, recipients: Vec<Recipient>) -> envelope::Draft {
    envelope::Draft {
        message_id: message.id,
        thread: message.thread,
        sender: agent.address.clone(),
        kind: message.kind,
        alert_kind: message.alert_kind,
        created: message.created,
        expires: message.expires,
        urgency: message.urgency,
        handling: message.handling,
        status: message.status,
        state_change: message.state_change,
        onward: message.onward.clone(),
        facts: message.facts.clone(),
        sections: message.sections.clone(),
        recipients,
    }
}

/// Why a message was not sealed.
#[derive(Debug, thiserror::Error)]
enum NotSealed {
    #[error(transparent)]
    Refused(#[from] SealError),
    #[error("sealing failed")]
    Failed(#[from] tokio::task::JoinError),
}

impl From<NotSealed> for Refusal {
    fn from(error: NotSealed) -> Self {
        match error {
            NotSealed::Refused(error) => error.into(),
            NotSealed::Failed(_) => Self::internal(),
        }
    }
}

async fn sealed(agent: &Agent, draft: envelope::Draft) -> Result<Sealed, NotSealed> {
    let custody = Arc::clone(&agent.custody);
    let few = draft.recipients.len() == 1;
    let seal = move || {
        let envelope = envelope::seal(&draft, custody.signing(), &custody.ring().current().signed)?;
        let digest = sha256(&envelope.manifest);
        Ok::<_, SealError>(Sealed { envelope: envelope.encode_to_vec().into(), digest })
    };
    // An alert to thousands takes seconds of computing; to wake a thread for one costs as much as that one.
    Ok(if few { seal()? } else { tokio::task::spawn_blocking(seal).await?? })
}

/// Reads an acceptance of the message `id`, or says what the gateway did wrong.
pub(crate) fn read_acceptance(
    signed: &SignedAcceptance,
    gateway: &VerifyingKey,
    id: Uuid,
    digest: Digest,
) -> Result<Acceptance, &'static str> {
    let acceptance: Acceptance = statement::read(signed, gateway)
        .map_err(|_| "an acceptance that is not signed by the key this agent knows")?;
    let same = acceptance.message_id == id.as_bytes().as_slice()
        && acceptance.manifest_digest == digest.as_bytes().as_slice();
    if same { Ok(acceptance) } else { Err("an acceptance of another message") }
}

/// The gateway refused a message: for now, or for good.
pub(crate) async fn refused(agent: &Agent, id: Uuid, refusal: &Refusal) -> Result<(), StoreError> {
    if passes(refusal.code()) {
        tracing::info!(message = %id, %refusal, "refused for now");
        return postpone(agent, id, refusal.retry_after_ms).await;
    }
    tracing::warn!(message = %id, %refusal, "refused");
    agent.store.refused(id, refusal).await
}

/// Whether it makes sense to offer the same message again.
fn passes(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::QueueFull
            | ErrorCode::RateLimited
            | ErrorCode::GatewayUnreachable
            | ErrorCode::ShuttingDown
            | ErrorCode::Internal
    )
}

async fn postpone(agent: &Agent, id: Uuid, at_least_ms: u32) -> Result<(), StoreError> {
    let wait = backoff::after(agent.store.attempts(id).await?);
    let wait = wait.max(Duration::from_millis(at_least_ms.into()));
    agent.store.postpone(id, OffsetDateTime::now_utc() + wait).await
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
