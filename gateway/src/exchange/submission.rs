//! One submission: from the bytes of an envelope to a signed acceptance, or a refusal and nothing stored.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use liaison_proto::{
    message::v1::{
        Acceptance, Envelope, RecipientDecision, Refusal, Rule, SignedAcceptance,
        error_code::Code as ErrorCode, kind::Code as Kind, verdict::Code as Verdict,
    },
    times,
};
use liaison_trust::{
    digest::Digest,
    envelope::{self, EnvelopeError, Verified, VerifiedRecipient},
    names::AgencyAddress,
    statement,
};
use metrics::counter;
use prost::Message;
use time::OffsetDateTime;
use tracing::warn;

use crate::{
    delivery::{
        self, Decided, NewThreadCopy, Offered, Uncommitted,
        evidence::{self, Permits},
    },
    directory::{Agency, Directory, is_empty},
    gateway::Gateway,
    limits,
    policy::{Decision, PolicySet},
    store::{Load, NewCopy, NewMessage, Queue, Released, StoreError},
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
    let envelope = read(envelope).await?;
    let key = delivery::offered(&envelope.manifest);
    let decide = || decide(gateway, sender, envelope.clone(), now);
    match delivery::by_what_holds(gateway, decide).await {
        Err(refusal) if refusal.code() == ErrorCode::ForbiddenByPolicy => {
            let before = accepted_before(gateway, sender, key).await?;
            if let (None, Some(key)) = (&before, key) {
                delivery::log_refusal(gateway, sender, key, &refusal, now).await?;
            }
            before.ok_or(refusal)
        }
        // What a changed world refuses now was perhaps accepted before, and its answer lost.
        Err(refusal) if delivery::may_have_passed(refusal.code()) => {
            accepted_before(gateway, sender, key).await?.ok_or(refusal)
        }
        outcome => Ok(signed(outcome?)?),
    }
}

/// Decides of a message by what the gateway knows now, and commits it.
async fn decide(
    gateway: &Gateway,
    sender: &AgencyAddress,
    envelope: Envelope,
    now: OffsetDateTime,
) -> Result<Bytes, Uncommitted> {
    let view = gateway.store.known();
    let directory = gateway.directory.load_full();
    let policies = gateway.policy.load_full();
    let verified = verify(envelope, sender, Arc::clone(&directory), now).await?;
    let message = prepare(gateway, (&directory, &policies), verified, (view, now)).await?;
    delivery::commit(gateway, message).await
}

/// Decodes an envelope, refusing what this version does not know.
async fn read(bytes: Bytes) -> Result<Envelope, Refusal> {
    let recipients = |envelope: &Envelope| envelope.recipients.len();
    delivery::aside(bytes.len(), move || Ok(delivery::decoded(&bytes, recipients)?)).await
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
    let verified = delivery::aside(size, move || {
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
    (directory, policies): (&Directory, &PolicySet),
    verified: Verified,
    (view, now): (u64, OffsetDateTime),
) -> Result<NewMessage, Refusal> {
    let sender = directory.get(&verified.sender).ok_or_else(|| unknown_key(&verified.sender))?;
    let in_thread = matches!(verified.manifest.kind(), Kind::State | Kind::Onward);
    for recipient in &verified.recipients {
        check_recipient(gateway, directory, recipient, in_thread, now)?;
    }
    let content = Envelope {
        manifest: verified.manifest_bytes.clone(),
        signature: verified.signature.clone(),
        sender_key: Some(verified.sender_key_record.clone()),
        facts: verified.facts_bytes.clone(),
        facts_salt: verified.facts_salt.clone(),
        facts_position: verified.facts_position,
        sections: verified.sections.iter().map(|section| section.section.clone()).collect(),
        ..Envelope::default()
    };
    let (mut copies, decisions, permits) = if in_thread {
        let NewThreadCopy { copy, decision, .. } =
            delivery::authorise(gateway, policies, &verified, now).await?;
        (vec![copy], vec![decision], Permits::new())
    } else {
        message(gateway, directory, policies, sender, (&verified, content.encoded_len()), now)?
    };
    let acceptance = Acceptance {
        message_id: Bytes::copy_from_slice(verified.id.as_bytes()),
        manifest_digest: verified.digest.into(),
        accepted_at: Some(times::to_wire(now)),
        policy_hash: policies.hash().into(),
        scheme_hash: policies.scheme_hash().into(),
        decisions,
    };
    for copy in copies.iter_mut().filter(|copy| goes_at_once(gateway, copy)) {
        let (message, parties) = ((verified.id, verified.digest), (&verified.sender, &copy.recipient));
        let leaf = evidence::hand_over(message, parties, &copy.released.release, &content.sections, now)
            .map_err(delivery::internal)?;
        copy.handed_over = Some(leaf);
    }
    let leaf = evidence::accepted(&verified, policies, &acceptance.decisions, &permits, now)
        .map_err(delivery::internal)?;
    Ok(NewMessage {
        view,
        leaf: Some(leaf),
        extends: None,
        id: verified.id,
        digest: verified.digest,
        expires: verified.expires,
        acceptance: statement::sign(&acceptance, &gateway.signing).encode_to_vec().into(),
        opens: delivery::opened(&verified),
        content,
        sender: verified.sender,
        copies,
    })
}

/// Whether a copy is handed over as soon as it is stored: its recipient's agent is there, and little waits for it. Then
/// one commit is enough for both.
fn goes_at_once(gateway: &Gateway, copy: &NewCopy) -> bool {
    let Queue::Agency(agency) = &copy.queue else { return false };
    let waiting = gateway.store.load(&copy.queue).deliveries;
    waiting < limits::PAGE_DELIVERIES.into() && gateway.sessions.is_connected(agency)
}

/// Checks that a recipient can be addressed, under a key that is its own.
fn check_recipient(
    gateway: &Gateway,
    directory: &Directory,
    recipient: &VerifiedRecipient,
    in_thread: bool,
    now: OffsetDateTime,
) -> Result<(), Refusal> {
    let address = &recipient.address;
    let is_foreign = *address.domain() != gateway.domain;
    if is_foreign {
        gateway.peers.known(address.domain())?;
    }
    // A peer need not list who takes part in a thread: its own gateway knows the party and its keys.
    if is_foreign && in_thread && directory.get(address).is_none_or(|agency| !agency.listed) {
        return Ok(());
    }
    let agency = delivery::recipient(directory, address)?;
    match agency.usable_key(&recipient.key_id, now) {
        Some(_) => Ok(()),
        None => Err(unknown_key(address)),
    }
}

/// A referral or an alert: released recipient by recipient, as policies decide. Its content has so many bytes.
fn message(
    gateway: &Gateway,
    directory: &Directory,
    policies: &PolicySet,
    sender: &Agency,
    (verified, content): (&Verified, usize),
    now: OffsetDateTime,
) -> Result<(Vec<NewCopy>, Vec<RecipientDecision>, Permits), Refusal> {
    let kind = verified.manifest.kind();
    let audience = verified.facts.as_ref().and_then(|facts| facts.audience.as_ref());
    if kind == Kind::Alert && audience.is_none_or(is_empty) {
        return Err(empty_audience());
    }
    let head = delivery::head(&verified.manifest, verified.facts.as_ref());
    let recipients =
        verified.recipients.iter().map(|recipient| (recipient.address.clone(), recipient.bases.clone()));
    let mut decided = delivery::decide_all(policies, directory, &gateway.domain, sender, &head, recipients)?;
    delivery::goes_to_somebody(kind, &decided)?;
    if kind == Kind::Alert {
        leave_out_the_full(gateway, verified, content, &mut decided);
    }
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
                queue: delivery::queue(&gateway.domain, &verified.sender, &decided.recipient),
                answers: delivery::answers(&gateway.domain, &verified.sender, &decided.recipient),
                proof: recipient.proof.clone(),
                bases_salt: recipient.bases_salt.clone(),
                released: Released {
                    bases: delivery::bases_to_wire(&decided.recipient, &decided.bases),
                    decision: told.clone(),
                    release: statement::sign(&record, &gateway.signing),
                },
                handed_over: None,
            }
        })
        .collect();
    let permits = decided.iter().flat_map(|decided| evidence::permits(&decided.recipient, &decided.decision));
    Ok((copies, told, permits.collect()))
}

/// An alert does not wait for those who have no room, as long as there are others: whom it does not reach is told with
/// its acceptance. Its own copies fill a lane that several of them share.
fn leave_out_the_full(gateway: &Gateway, verified: &Verified, content: usize, decided: &mut [Decided]) {
    let (store, bound) = (&gateway.store, gateway.store.bound());
    let mut loads: BTreeMap<Queue, Load> = BTreeMap::new();
    let (mut is_for_somebody, mut full) = (false, Vec::new());
    for (one, recipient) in decided.iter_mut().zip(&verified.recipients) {
        if one.decision.verdict != Verdict::Released {
            continue;
        }
        let queue = delivery::queue(&gateway.domain, &verified.sender, &one.recipient);
        let load = loads.entry(queue).or_insert_with_key(|queue| store.load(queue));
        let more = Load::one((content + recipient.proof.encoded_len()) as u64);
        if bound.has_room(*load, more) {
            *load += more;
            is_for_somebody = true;
        } else {
            full.push(one);
        }
    }
    for one in full.into_iter().filter(|_| is_for_somebody) {
        one.decision = Decision::refused(&one.bases, no_room());
    }
}

fn no_room() -> Rule {
    Rule {
        layer: "queue".to_owned(),
        rule: "none:room".to_owned(),
        explain: "What waits for the agency is as much as may wait: it takes nothing at present. Reach it another way."
            .to_owned(),
        ..Rule::default()
    }
}

/// The acceptance of the very same manifest, which was verified then.
async fn accepted_before(
    gateway: &Gateway,
    sender: &AgencyAddress,
    offered: Option<Offered>,
) -> Result<Option<SignedAcceptance>, Refusal> {
    let Some(Offered { id, digest, .. }) = offered else { return Ok(None) };
    let accepted = gateway.store.accepted(sender, id).await.map_err(delivery::internal)?;
    let same = accepted.filter(|(known, _)| *known == digest);
    same.map(|(_, acceptance)| signed(delivery::unless_erased(acceptance)?)).transpose()
}

/// The acceptance as it was stored.
fn signed(acceptance: Bytes) -> Result<SignedAcceptance, Refusal> {
    SignedAcceptance::decode(acceptance)
        .map_err(|_| delivery::internal(StoreError::Corrupt("signed acceptance")))
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
