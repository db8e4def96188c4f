//! From a decided message to a durable one.

use bytes::Bytes;
use liaison_proto::{
    limits::CHUNK_BYTES,
    message::v1::{Manifest, Refusal, error_code::Code as ErrorCode},
    strict::{self, StrictError},
};
use liaison_trust::{
    digest::{Digest, sha256},
    names::AgencyAddress,
};
use metrics::counter;
use prost::{Message, Name};
use time::OffsetDateTime;
use tracing::{error, warn};
use uuid::Uuid;

use super::evidence;
use crate::{
    gateway::Gateway,
    limits,
    store::{AcceptError, Accepted, NewMessage, Queue, StoreError},
};

/// Why a message is not stored.
#[derive(Debug)]
pub enum Uncommitted {
    Refused(Refusal),
    /// Another gateway of the domain has changed what it was decided by.
    Outdated,
}

impl From<Refusal> for Uncommitted {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Decides of a message and commits it; once more by what holds now, where another gateway changed what it was accepted
/// or refused by.
///
/// # Errors
/// Why it is not stored.
pub async fn by_what_holds<T, F>(gateway: &Gateway, decide: impl Fn() -> F) -> Result<T, Refusal>
where
    F: Future<Output = Result<T, Uncommitted>>,
{
    let known = gateway.store.known();
    let mut decided = decide().await;
    let may_have_changed = match &decided {
        Ok(_) => false,
        Err(Uncommitted::Refused(refusal)) => may_have_passed(refusal.code()),
        Err(Uncommitted::Outdated) => true,
    };
    if may_have_changed {
        gateway.store.fresh().await.map_err(internal)?;
        if gateway.store.known() > known {
            decided = decide().await;
        }
    }
    decided.map_err(|why| match why {
        Uncommitted::Refused(refusal) => refusal,
        Uncommitted::Outdated => outdated(),
    })
}

/// Commits a message and wakes whoever it is for. The acceptance is that of the first time.
///
/// # Errors
/// Why it is not stored.
pub async fn commit(gateway: &Gateway, message: NewMessage) -> Result<Bytes, Uncommitted> {
    let (sender, id, acceptance) = (message.sender.clone(), message.id, message.acceptance.clone());
    let queues: Vec<_> = message.copies.iter().map(|copy| copy.queue.clone()).collect();
    match gateway.store.accept(message).await {
        Ok(Accepted::New) => {
            queues.iter().for_each(|queue| gateway.wake(queue));
            Ok(acceptance)
        }
        Ok(Accepted::Again(acceptance)) => {
            // Nobody was woken where the commit was made and its answer was lost.
            queues.iter().for_each(|queue| gateway.wake(queue));
            Ok(acceptance)
        }
        Err(AcceptError::IdReused) => {
            counter!("liaison_gateway_ids_reused_total").increment(1);
            warn!(%sender, message = %id, "an id was used again for another message");
            Err(Refusal::new(
                ErrorCode::IdReused,
                format!("{sender} used the id {id} before, for another message"),
                "send the message under a new id; if the sender's machine was restored from a backup, say so to the administrator",
            )
            .into())
        }
        Err(AcceptError::ThreadTaken) => Err(Refusal::new(
            ErrorCode::IdReused,
            "the thread belongs to another referral",
            "open a new thread for each referral",
        )
        .into()),
        Err(AcceptError::Erased) => Err(erased().into()),
        Err(AcceptError::Outdated) => Err(Uncommitted::Outdated),
        Err(AcceptError::QueueFull(queue)) => Err(queue_full(&queue, &sender).into()),
        Err(AcceptError::Store(fault)) => Err(internal(fault).into()),
    }
}

fn outdated() -> Refusal {
    Refusal::new(
        ErrorCode::RateLimited,
        "another gateway of the domain has changed what the message is decided by",
        "offer the message again",
    )
    .retry_after(limits::VIEW_RETRY)
}

/// Logs that a policy refused a message, once for each rule: however often it is offered again, the log does not grow by
/// it.
///
/// # Errors
/// The store failed.
pub async fn log_refusal(
    gateway: &Gateway,
    sender: &AgencyAddress,
    message: Offered,
    refusal: &Refusal,
    now: OffsetDateTime,
) -> Result<(), Refusal> {
    let rule = refusal.rule.clone().unwrap_or_default();
    let leaf = evidence::refused(sender, message, &rule, now).map_err(internal)?;
    let logged = gateway.store.leaves_about(sender, message.id, limits::RECEIPTS).await.map_err(internal)?;
    if logged
        .iter()
        .filter_map(|known| known.record.as_ref())
        .any(|known| evidence::is_same(known, &leaf.record))
    {
        return Ok(());
    }
    gateway.store.append(leaf).await.map_err(internal)
}

/// A queue takes nothing more at present.
pub fn queue_full(queue: &Queue, sender: &AgencyAddress) -> Refusal {
    let action = if matches!(queue, Queue::Agency(agency) if agency == sender) {
        "take what waits for this agency, then offer the message again"
    } else {
        "offer the message again later, or reach the agency another way"
    };
    let message = format!("the queue of {queue} is full: it takes nothing at present");
    Refusal::new(ErrorCode::QueueFull, message, action).retry_after(limits::QUEUE_RETRY)
}

/// Whether a message that is refused so may have been accepted earlier: the refusal depends on the
/// clock, the directory or the policies, and not on the message alone.
pub fn may_have_passed(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Expired
            | ErrorCode::ClockSkew
            | ErrorCode::UnknownKey
            | ErrorCode::UnknownRecipient
            | ErrorCode::UnknownDomain
            | ErrorCode::NotEnrolled
            | ErrorCode::Suspended
            | ErrorCode::Revoked
            | ErrorCode::ForbiddenByPolicy
            | ErrorCode::SchemeMismatch
            | ErrorCode::StaleBundle
    )
}

/// What an unverified manifest claims to be of.
#[derive(Debug, Clone, Copy)]
pub struct Offered {
    pub id: Uuid,
    /// Of the manifest.
    pub digest: Digest,
    pub thread: Uuid,
}

/// What an unverified manifest claims to be of.
pub fn offered(manifest: &Bytes) -> Option<Offered> {
    let read = Manifest::decode(manifest.clone()).ok()?;
    let id = |bytes: &[u8]| Uuid::from_slice(bytes).ok();
    Some(Offered { id: id(&read.message_id)?, digest: sha256(manifest), thread: id(&read.thread)? })
}

/// The acceptance of a message that is remembered.
///
/// # Errors
/// It was erased: the message is not taken again, and nobody can say any more what was decided of it.
pub fn unless_erased(acceptance: Bytes) -> Result<Bytes, Refusal> {
    if acceptance.is_empty() { Err(erased()) } else { Ok(acceptance) }
}

fn erased() -> Refusal {
    Refusal::new(
        ErrorCode::UnknownMessage,
        "the message was accepted before and has ended; what was recorded of it was erased, as the law demands",
        "ask the recipient whether it has the message; it is not delivered again",
    )
}

/// Decodes a message as it came, whose parts are references into it: unless it is for many, for each one's copy would
/// then keep the head for all of them in memory.
///
/// # Errors
/// What is wrong with it.
pub fn decoded<M: Message + Name + Default>(
    bytes: &Bytes,
    recipients: impl Fn(&M) -> usize,
) -> Result<M, StrictError> {
    let shared: M = strict::decode_shared(bytes.clone())?;
    let is_for_few = recipients(&shared) <= limits::SHARING_RECIPIENTS;
    if is_for_few { Ok(shared) } else { strict::decode(bytes) }
}

/// Runs what takes long for large messages where it delays nobody else.
///
/// # Errors
/// What the work refused; `internal` if it panicked.
pub async fn aside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    if bytes <= CHUNK_BYTES {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Refusal::internal()))
}

/// A fault of the store, logged, as it is told.
pub fn internal(fault: StoreError) -> Refusal {
    error!(error = &fault as &dyn std::error::Error, "the store failed");
    Refusal::internal()
}
