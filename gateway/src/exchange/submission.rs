//! One submission: from the bytes of an envelope to a signed acceptance, or a refusal and nothing stored.

use std::sync::Arc;

use bytes::Bytes;
use liaison_proto::{
    exchange::v1::PreviewRecipient,
    limits::CHUNK_BYTES,
    message::v1::{
        Acceptance, Envelope, Manifest, RecipientDecision, Refusal, SignedAcceptance,
        error_code::Code as ErrorCode, kind::Code as Kind, verdict::Code as Verdict,
    },
    referral::{self, Party},
    strict, times,
};
use liaison_trust::{
    digest::{Digest, sha256},
    envelope::{self, EnvelopeError, Verified},
    names::AgencyAddress,
    statement,
};
use metrics::counter;
use prost::Message;
use time::OffsetDateTime;
use tracing::{error, warn};
use uuid::Uuid;

use crate::{
    delivery,
    directory::{Agency, Directory, is_empty},
    gateway::Gateway,
    limits,
    policy::PolicySet,
    store::{AcceptError, Accepted, NewCopy, NewMessage, Released, StoreError, Thread},
};

/// Accepts one message from an agency. The answer comes after a durable commit; a message that was
/// accepted before gets the acceptance of then.
///
/// # Errors
/// What is wrong with the message, and nothing of it is stored.
pub async fn submit(
    gateway: &Gateway,
    sender: &AgencyAddress,
    envelope: Bytes,
    now: OffsetDateTime,
) -> Result<SignedAcceptance, Refusal> {
    let directory = gateway.directory.load_full();
    let policies = gateway.policy.load_full();
    let envelope = read(envelope).await?;
    let key = offered(&envelope);
    let outcome = async {
        let verified = verify(envelope, sender, Arc::clone(&directory), now).await?;
        let message = prepare(gateway, &directory, &policies, verified, now).await?;
        commit(gateway, message).await
    };
    match outcome.await {
        // What a changed world refuses now was perhaps accepted before, and its answer lost.
        Err(refusal) if may_have_passed(refusal.code()) => {
            accepted_before(gateway, sender, key).await?.ok_or(refusal)
        }
        outcome => outcome,
    }
}

/// Decodes an envelope, refusing what this version does not know.
async fn read(bytes: Bytes) -> Result<Envelope, Refusal> {
    aside(bytes.len(), move || Ok(strict::decode::<Envelope>(&bytes)?)).await
}

/// Checks all that doesn't need the store: the envelope itself, and that its sender is who calls, with
/// a key that the directory knows.
async fn verify(
    envelope: Envelope,
    sender: &AgencyAddress,
    directory: Arc<Directory>,
    now: OffsetDateTime,
) -> Result<Verified, Refusal> {
    let size = envelope.encoded_len();
    let caller = sender.clone();
    let known = Arc::clone(&directory);
    let verified = aside(size, move || {
        let key = |id: &Digest| known.get(&caller).and_then(|agency| agency.usable_key(id, now));
        Ok(envelope::verify_known(envelope, now, key)?)
    })
    .await?;
    if verified.sender != *sender {
        counter!("liaison_gateway_foreign_senders_total").increment(1);
        warn!(caller = %sender, claimed = %verified.sender, message = %verified.id, "a message claims another sender");
        return Err(EnvelopeError::SenderMismatch { sender: verified.sender, key: sender.clone() }.into());
    }
    let agency = delivery::recipient(&directory, sender)?;
    if agency.usable_key(&verified.sender_key.id, now).is_none() {
        return Err(unknown_key(sender));
    }
    Ok(verified)
}

/// Decides, and makes all that is to be stored.
async fn prepare(
    gateway: &Gateway,
    directory: &Directory,
    policies: &PolicySet,
    verified: Verified,
    now: OffsetDateTime,
) -> Result<NewMessage, Refusal> {
    let sender = directory.get(&verified.sender).ok_or_else(|| unknown_key(&verified.sender))?;
    for recipient in &verified.recipients {
        let agency = delivery::recipient(directory, &recipient.address)?;
        if agency.usable_key(&recipient.key_id, now).is_none() {
            return Err(unknown_key(&recipient.address));
        }
    }
    let (copies, decisions) = match verified.manifest.kind() {
        Kind::State => state(gateway, policies, &verified, now).await?,
        _ => message(gateway, directory, policies, sender, &verified, now)?,
    };
    let acceptance = Acceptance {
        message_id: Bytes::copy_from_slice(verified.id.as_bytes()),
        manifest_digest: verified.digest.into(),
        accepted_at: Some(times::to_wire(now)),
        policy_hash: policies.hash().into(),
        scheme_hash: policies.scheme_hash().into(),
        decisions,
    };
    Ok(NewMessage {
        id: verified.id,
        digest: verified.digest,
        expires: verified.expires,
        acceptance: statement::sign(&acceptance, &gateway.signing),
        opens: opened(&verified),
        content: Envelope {
            manifest: verified.manifest_bytes,
            signature: verified.signature,
            sender_key: Some(verified.sender_key_record),
            facts: verified.facts.map(|facts| facts.encode_to_vec().into()).unwrap_or_default(),
            sections: verified.sections.into_iter().map(|section| section.section).collect(),
            ..Envelope::default()
        },
        sender: verified.sender,
        copies,
    })
}

/// A referral or an alert: released recipient by recipient, as policies decide.
fn message(
    gateway: &Gateway,
    directory: &Directory,
    policies: &PolicySet,
    sender: &Agency,
    verified: &Verified,
    now: OffsetDateTime,
) -> Result<(Vec<NewCopy>, Vec<RecipientDecision>), Refusal> {
    let kind = verified.manifest.kind();
    let audience = verified.facts.as_ref().and_then(|facts| facts.audience.as_ref());
    if kind == Kind::Alert && audience.is_none_or(is_empty) {
        return Err(empty_audience());
    }
    let head = delivery::head(&verified.manifest, verified.facts.as_ref());
    let recipients =
        verified.recipients.iter().map(|recipient| (recipient.address.clone(), recipient.bases.clone()));
    let decided = delivery::decide_all(policies, directory, sender, &head, recipients)?;
    delivery::goes_to_somebody(kind, &decided)?;
    let told = delivery::told(&decided)?;
    let sections: Vec<_> =
        verified.sections.iter().map(|section| (section.category, section.section.position)).collect();
    let copies = decided
        .iter()
        .zip(&verified.recipients)
        .zip(&told)
        .filter(|((decided, _), _)| decided.decision.verdict == Verdict::Released)
        .map(|((decided, recipient), told)| {
            let message = (verified.id, verified.digest);
            let record =
                delivery::release(message, &decided.recipient, &sections, &decided.decision, policies, now);
            NewCopy {
                recipient: decided.recipient.clone(),
                proof: recipient.proof.clone(),
                released: Released {
                    bases: delivery::bases_to_wire(&decided.recipient, &decided.bases),
                    decision: told.clone(),
                    release: statement::sign(&record, &gateway.signing),
                    policy_hash: policies.hash(),
                },
            }
        })
        .collect();
    Ok((copies, told))
}

/// A change of state: authorised by the referral that opened its thread, whatever policies say.
async fn state(
    gateway: &Gateway,
    policies: &PolicySet,
    verified: &Verified,
    now: OffsetDateTime,
) -> Result<(Vec<NewCopy>, Vec<RecipientDecision>), Refusal> {
    let thread = gateway.store.thread(verified.thread).await.map_err(internal)?;
    let mut copies = Vec::new();
    let mut decisions = Vec::new();
    for recipient in &verified.recipients {
        let thread = thread.as_ref().ok_or_else(|| not_a_party(&verified.sender))?;
        let role = role(thread, &verified.sender, &recipient.address)
            .ok_or_else(|| not_a_party(&verified.sender))?;
        if thread.status != verified.manifest.status() {
            return Err(Refusal::new(
                ErrorCode::Malformed,
                "a state message has another status than its referral: exercise and real traffic don't mix",
                "give the state message the status of its referral",
            ));
        }
        let state = verified.manifest.state_change.unwrap_or_default().state();
        if referral::setter(state) != Some(role) {
            return Err(Refusal::new(
                ErrorCode::TransitionNotAllowed,
                format!("{} can't set the state {}", verified.sender, state.as_str_name()),
                "leave this state to the other party of the referral",
            ));
        }
        let record =
            delivery::state_release((verified.id, verified.digest), &recipient.address, policies, now);
        let decision = RecipientDecision {
            recipient: recipient.address.to_string(),
            verdict: Verdict::Released.into(),
            ..RecipientDecision::default()
        };
        decisions.push(decision.clone());
        copies.push(NewCopy {
            recipient: recipient.address.clone(),
            proof: recipient.proof.clone(),
            released: Released {
                bases: PreviewRecipient { address: recipient.address.to_string(), bases: Vec::new() },
                decision,
                release: statement::sign(&record, &gateway.signing),
                policy_hash: policies.hash(),
            },
        });
    }
    Ok((copies, decisions))
}

async fn commit(gateway: &Gateway, message: NewMessage) -> Result<SignedAcceptance, Refusal> {
    let (sender, id) = (message.sender.clone(), message.id);
    let recipients: Vec<_> = message.copies.iter().map(|copy| copy.recipient.clone()).collect();
    match gateway.store.accept(message).await {
        Ok(Accepted::New(acceptance)) => {
            recipients.iter().for_each(|recipient| gateway.sessions.wake(recipient));
            Ok(acceptance)
        }
        Ok(Accepted::Again(acceptance)) => Ok(acceptance),
        Err(AcceptError::IdReused) => {
            counter!("liaison_gateway_ids_reused_total").increment(1);
            warn!(%sender, message = %id, "an id was used again for another message");
            Err(Refusal::new(
                ErrorCode::IdReused,
                format!("{sender} used the id {id} before, for another message"),
                "send the message under a new id; if the sender's machine was restored from a backup, say so to the administrator",
            ))
        }
        Err(AcceptError::ThreadTaken) => Err(Refusal::new(
            ErrorCode::IdReused,
            "the thread belongs to another referral",
            "open a new thread for each referral",
        )),
        Err(AcceptError::QueueFull(agency)) => {
            let wait = u32::try_from(limits::QUEUE_RETRY.as_millis()).unwrap_or(u32::MAX);
            let action = if agency == sender {
                "take what waits for this agency, then offer the message again"
            } else {
                "offer the message again later, or reach the agency another way"
            };
            Err(Refusal::new(
                ErrorCode::QueueFull,
                format!("the queue of {agency} is full: it takes nothing at present"),
                action,
            )
            .retry_after_ms(wait))
        }
        Err(AcceptError::Store(fault)) => Err(internal(fault)),
    }
}

fn opened(verified: &Verified) -> Option<Thread> {
    let responder = verified.recipients.first()?;
    (verified.manifest.kind() == Kind::Referral).then(|| Thread {
        id: verified.thread,
        requester: verified.sender.clone(),
        responder: responder.address.clone(),
        status: verified.manifest.status(),
    })
}

/// The part that a state's sender plays in a thread, if these two are its parties.
fn role(thread: &Thread, sender: &AgencyAddress, recipient: &AgencyAddress) -> Option<Party> {
    if (sender, recipient) == (&thread.requester, &thread.responder) {
        Some(Party::Requester)
    } else if (sender, recipient) == (&thread.responder, &thread.requester) {
        Some(Party::Responder)
    } else {
        None
    }
}

/// Whether a message that is refused so may have been accepted earlier: the refusal depends on the
/// clock, the directory or the policies, and not on the message alone.
fn may_have_passed(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Expired
            | ErrorCode::UnknownKey
            | ErrorCode::UnknownRecipient
            | ErrorCode::NotEnrolled
            | ErrorCode::Suspended
            | ErrorCode::Revoked
            | ErrorCode::ForbiddenByPolicy
    )
}

/// The id that an unverified envelope claims, and the digest of its manifest.
fn offered(envelope: &Envelope) -> Option<(Uuid, Digest)> {
    let manifest = Manifest::decode(envelope.manifest.clone()).ok()?;
    Some((Uuid::from_slice(&manifest.message_id).ok()?, sha256(&envelope.manifest)))
}

/// The acceptance of the very same manifest, which was verified then.
async fn accepted_before(
    gateway: &Gateway,
    sender: &AgencyAddress,
    offered: Option<(Uuid, Digest)>,
) -> Result<Option<SignedAcceptance>, Refusal> {
    let Some((id, digest)) = offered else { return Ok(None) };
    let accepted = gateway.store.accepted(sender, id).await.map_err(internal)?;
    Ok(accepted.filter(|(known, _)| *known == digest).map(|(_, acceptance)| acceptance))
}

/// Runs what takes long for large messages where it delays nobody else.
async fn aside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    if bytes <= CHUNK_BYTES {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Refusal::internal()))
}

pub(super) fn internal(fault: StoreError) -> Refusal {
    error!(error = &fault as &dyn std::error::Error, "the store failed");
    Refusal::internal()
}

pub(super) fn empty_audience() -> Refusal {
    Refusal::new(
        ErrorCode::EmptyAudience,
        "the alert's audience names nobody",
        "name sectors, countries, groups or agencies that exist",
    )
}

fn unknown_key(agency: &AgencyAddress) -> Refusal {
    Refusal::new(
        ErrorCode::UnknownKey,
        format!("the message uses a key of {agency} that is not its current one"),
        "look up the agency's keys, or publish one's own, and seal the message again",
    )
}

fn not_a_party(sender: &AgencyAddress) -> Refusal {
    Refusal::new(
        ErrorCode::NotAParty,
        format!("{sender} and the recipient are not the two parties of a referral with this thread"),
        "send states to the other party, in the thread of a referral that was accepted",
    )
}
