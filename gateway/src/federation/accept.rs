//! A message that a peer forwards: from its bytes to a signed acceptance, or a refusal and nothing stored.

use std::collections::BTreeSet;

use bytes::Bytes;
use liaison_proto::{
    federation::v1::Forward,
    message::v1::{
        Acceptance, Acceptances, Envelope, RecipientDecision, Refusal, SignedAcceptance,
        error_code::Code as ErrorCode, kind::Code as Kind,
    },
    strict, times,
};
use liaison_trust::{
    digest::Digest,
    envelope::{self, Verified, VerifiedForward},
    key_record::{self, ProvenKey},
    names::AgencyAddress,
    statement,
};
use prost::Message;
use time::OffsetDateTime;

use super::{
    again,
    forward::gate,
    listed,
    offer::Offer,
    peers::Peer,
    refusals::{scheme_mismatch, violation},
};
use crate::{
    delivery::{
        self, NewThreadCopy, Offered, Uncommitted, aside,
        evidence::{self, Permits},
        internal,
    },
    directory::Agency,
    gateway::Gateway,
    limits,
    policy::PolicySet,
    store::{Load, NewCopy, NewMessage, Queue},
};

/// Accepts a message from a peer: the encoded [`Acceptances`] of the recipients that it is forwarded to. The
/// answer comes after a durable commit; a message that was accepted before gets the acceptances of then.
///
/// # Errors
/// What is wrong with the message, and nothing of it is stored.
pub(super) async fn accept(
    gateway: &Gateway,
    peer: &Peer,
    forward: Bytes,
    now: OffsetDateTime,
) -> Result<Bytes, Refusal> {
    let size = forward.len();
    let forward = aside(size, move || {
        delivery::decoded(&forward, |forward: &Forward| forward.recipients.len()).map_err(|error| {
            let refusal = Refusal::from(error);
            match refusal.code() {
                ErrorCode::UnknownValue => Refusal { action: UPGRADE.to_owned(), ..refusal },
                _ => refusal,
            }
        })
    })
    .await?;
    let offered = delivery::offered(&forward.manifest);
    let recipients: Vec<String> = forward
        .recipients
        .iter()
        .map(|recipient| recipient.proof.as_ref().map_or_else(String::new, |proof| proof.address.clone()))
        .collect();
    let from = listed::address(peer, forward.sender.as_ref().map_or("", |sender| &sender.address))?;
    let decide = || decide(gateway, peer, (forward.clone(), size), &recipients, now);
    match delivery::by_what_holds(gateway, decide).await {
        // What a changed world refuses now was perhaps accepted before, and its answer lost.
        Err(refusal) if delivery::may_have_passed(refusal.code()) => {
            accepted_before(gateway, &from, offered, &recipients).await?.ok_or(refusal)
        }
        outcome => Ok(only_of(&outcome?, &recipients)?.encode_to_vec().into()),
    }
}

/// Decides of a message by what the gateway knows now, and commits it: the acceptances of these recipients, and of others
/// perhaps.
async fn decide(
    gateway: &Gateway,
    peer: &Peer,
    (forward, size): (Forward, usize),
    recipients: &[String],
    now: OffsetDateTime,
) -> Result<Bytes, Uncommitted> {
    let view = gateway.store.known();
    gate(gateway, peer)?;
    let sender = listed::sender(gateway, peer, &forward.sender.clone().unwrap_or_default())?;
    let key = gateway.peers.get(&peer.domain).map_or(peer.bundle.signing, |peer| peer.bundle.signing);
    let keys = sender.keys.clone();
    let verified = aside(size, move || {
        let known = |id: &Digest| keys.iter().rev().find(|key| key.id == *id);
        Ok(envelope::verify_forward(forward, &key, now, known)?)
    })
    .await?;
    check_parties(gateway, peer, &sender, &verified.message)?;
    let message = &verified.message;
    // Before the message is looked for: both are committed together, by another link perhaps.
    let takes_thread = takes_a_thread(gateway, message).await?;
    let before = match gateway.store.accepted(&message.sender, message.id).await.map_err(internal)? {
        Some((digest, acceptances)) if digest == message.digest => {
            Some(delivery::unless_erased(acceptances)?)
        }
        // The commit refuses it.
        Some(_) => None,
        None if takes_thread => return Err(thread_taken().into()),
        None => None,
    };
    if let Some(acceptances) = &before
        && is_of_all(acceptances, recipients)?
    {
        again::tell_ends(gateway, &message.sender, (message.id, message.digest), recipients, now).await?;
        return Ok(acceptances.clone());
    }
    let key = message.sender_key.clone();
    let message = prepare(gateway, &sender, verified, (size, before), (view, now)).await?;
    // It comes with the message, also where the directory does not tell of it yet, or never.
    if sender.keys.iter().all(|known| known.id != key.id) {
        gateway.store.log_keys(&[&key.signed]).await.map_err(internal)?;
    }
    if !sender.listed {
        listed::note(gateway, peer, sender.clone()).await?;
    }
    let own = message.acceptance.clone();
    let committed = delivery::commit(gateway, message).await?;
    // Of whom another offer's acceptances say nothing, nothing was decided.
    if committed != own && !is_of_all(&committed, recipients)? {
        return Err(overtaken().into());
    }
    Ok(committed)
}

/// What a message was accepted with before, where it was for any of these recipients.
async fn accepted_before(
    gateway: &Gateway,
    sender: &AgencyAddress,
    offered: Option<Offered>,
    recipients: &[String],
) -> Result<Option<Bytes>, Refusal> {
    let Some(Offered { id, digest, .. }) = offered else { return Ok(None) };
    let known = gateway.store.accepted(sender, id).await.map_err(internal)?;
    let Some((_, acceptances)) = known.filter(|(known, _)| *known == digest) else { return Ok(None) };
    let only = only_of(&delivery::unless_erased(acceptances)?, recipients)?;
    Ok((!only.acceptances.is_empty()).then(|| only.encode_to_vec().into()))
}

/// The same message was accepted for others at this moment.
fn overtaken() -> Refusal {
    Refusal::new(
        ErrorCode::RateLimited,
        "the message is being accepted for other recipients",
        "forward it again for those who have no acceptance yet",
    )
    .retry_after(limits::SUBMISSION_RETRY)
}

/// The acceptances of these recipients: a message that is forwarded again goes only to those of whom the peer has
/// not heard. Those who have no room have none yet.
fn only_of(acceptances: &[u8], recipients: &[String]) -> Result<Acceptances, Refusal> {
    let read: Acceptances = strict::decode(acceptances)?;
    let asked: BTreeSet<&String> = recipients.iter().collect();
    let mut only = Acceptances::default();
    for signed in read.acceptances {
        if recipient_of(&signed)?.is_some_and(|recipient| asked.contains(&recipient)) {
            only.acceptances.push(signed);
        }
    }
    Ok(only)
}

/// Whether acceptances say something of each of these recipients.
fn is_of_all(acceptances: &[u8], recipients: &[String]) -> Result<bool, Refusal> {
    Ok(only_of(acceptances, recipients)?.acceptances.len() == recipients.len())
}

/// Whom an acceptance is about.
fn recipient_of(signed: &SignedAcceptance) -> Result<Option<String>, Refusal> {
    let acceptance: Acceptance = strict::decode(&signed.acceptance)?;
    Ok(acceptance.decisions.into_iter().next().map(|decision| decision.recipient))
}

const UPGRADE: &str = "upgrade this gateway, or have the other domain send what this version defines";

/// Checks that the sender is the peer's own, under a key that is the sender's, and that all recipients are of
/// this domain: nothing transits.
fn check_parties(gateway: &Gateway, peer: &Peer, sender: &Agency, message: &Verified) -> Result<(), Refusal> {
    if message.sender != sender.address {
        return Err(violation(format!(
            "{} describes {} and forwards a message of {}",
            peer.domain, sender.address, message.sender
        )));
    }
    if let Some(foreign) =
        message.recipients.iter().find(|recipient| *recipient.address.domain() != gateway.domain)
    {
        return Err(violation(format!(
            "{} forwards a message to {}, which is not of {}",
            peer.domain, foreign.address, gateway.domain
        )));
    }
    if !is_senders_key(sender, &message.sender_key) {
        return Err(Refusal::new(
            ErrorCode::UnknownKey,
            format!(
                "the message is signed by a key of {} that does not continue those known here",
                sender.address
            ),
            "let this domain see the sender in the directory: its key records come with it",
        ));
    }
    Ok(())
}

/// Whether a key is one of an agency, or the next: a message may have waited while its sender's key was changed. Of
/// one whose keys are not known, its gateway's word is all that there is.
fn is_senders_key(sender: &Agency, key: &ProvenKey) -> bool {
    match sender.current() {
        None => true,
        Some(current) => {
            sender.keys.iter().any(|known| known.id == key.id)
                || key_record::follows(current, &key.signed).is_ok()
        }
    }
}

/// Decides by this domain's layers, and makes all that is to be stored. `size` is that of the forward, bytes: more
/// than a copy takes in a queue. `extends` is what was accepted before, for some of the recipients.
async fn prepare(
    gateway: &Gateway,
    sender: &Agency,
    forward: VerifiedForward,
    (size, extends): (usize, Option<Bytes>),
    (view, now): (u64, OffsetDateTime),
) -> Result<NewMessage, Refusal> {
    let policies = gateway.policy.load_full();
    let directory = gateway.directory.load_full();
    let VerifiedForward { message, releases } = forward;
    if let Some(other) =
        releases.iter().find(|release| release.scheme_hash != policies.scheme_hash().as_ref())
    {
        return Err(scheme_mismatch(message.sender.domain(), &other.scheme_hash, policies.scheme_hash()));
    }
    let in_thread = matches!(message.manifest.kind(), Kind::State | Kind::Onward);
    let (mut copies, mut decisions, mut permits) = (Vec::new(), Vec::new(), Permits::new());
    let mut acceptances: Acceptances = match &extends {
        Some(before) => strict::decode(before)?,
        None => Acceptances::default(),
    };
    if in_thread {
        let NewThreadCopy { copy, decision, .. } =
            delivery::authorise(gateway, &policies, &message, now).await?;
        let directory_knows = delivery::recipient(&directory, &copy.recipient);
        directory_knows?;
        decisions.push(decision);
        copies.push(copy);
    } else {
        let before = acceptances.acceptances.iter().map(recipient_of).collect::<Result<BTreeSet<_>, _>>()?;
        let mut full = None;
        let mut is_for_somebody = false;
        for (recipient, release) in message.recipients.iter().zip(&releases) {
            if before.contains(&Some(recipient.address.to_string())) {
                is_for_somebody = true;
                continue;
            }
            let offer = Offer { sender, message: &message, recipient, release };
            let (decision, copy) = offer.decide(gateway, &directory, &policies, now)?;
            // One without room keeps the message from nobody else: it is forwarded to that one again.
            if let Some(queue) = copy.as_ref().and_then(|copy| without_room(gateway, copy, size)) {
                full = Some(queue);
                continue;
            }
            is_for_somebody = true;
            permits.extend(evidence::permits(&recipient.address, &decision));
            decisions.push(decision.to_wire(&recipient.address));
            copies.extend(copy);
        }
        if let Some(queue) = full.filter(|_| !is_for_somebody) {
            return Err(delivery::queue_full(&queue, &message.sender));
        }
    }
    let leaf = evidence::accepted(&message, &policies, &decisions, &permits, now).map_err(internal)?;
    let signed = decisions.into_iter().map(|decision| accepted(gateway, &message, &policies, decision, now));
    acceptances.acceptances.extend(signed);
    let acceptance: Bytes = acceptances.encode_to_vec().into();
    if acceptance.len() > liaison_proto::limits::ACCEPTANCES_BYTES {
        return Err(Refusal::new(
            ErrorCode::TooLarge,
            "the decisions about this many recipients don't fit into one answer",
            "send the message to fewer recipients at a time",
        ));
    }
    Ok(NewMessage {
        view,
        leaf: Some(leaf),
        id: message.id,
        digest: message.digest,
        expires: message.expires,
        acceptance,
        extends,
        opens: delivery::opened(&message).filter(|_| !copies.is_empty()),
        sender: message.sender,
        content: Envelope {
            manifest: message.manifest_bytes,
            signature: message.signature,
            sender_key: Some(message.sender_key_record),
            facts: message.facts_bytes,
            sections: message.sections.into_iter().map(|section| section.section).collect(),
            ..Envelope::default()
        },
        copies,
    })
}

/// Whether a referral would open a thread that is there.
async fn takes_a_thread(gateway: &Gateway, message: &Verified) -> Result<bool, Refusal> {
    let is_referral = message.manifest.kind() == Kind::Referral;
    Ok(is_referral && gateway.store.thread(message.thread).await.map_err(internal)?.is_some())
}

/// Which threads this domain has, the sender's gateway can't know: it is the agency's fault alone.
fn thread_taken() -> Refusal {
    Refusal::new(
        ErrorCode::NotAParty,
        "the thread belongs to another referral",
        "open a new thread for each referral",
    )
}

/// The queue that has no room for a copy, or for the words about it.
fn without_room(gateway: &Gateway, copy: &NewCopy, size: usize) -> Option<Queue> {
    let (store, bound) = (&gateway.store, gateway.store.bound());
    [(&copy.queue, size as u64), (&copy.answers, 0)]
        .into_iter()
        .find(|(queue, bytes)| !bound.has_room(store.load(queue), Load::one(*bytes)))
        .map(|(queue, _)| queue.clone())
}

fn accepted(
    gateway: &Gateway,
    message: &Verified,
    policies: &PolicySet,
    decision: RecipientDecision,
    now: OffsetDateTime,
) -> SignedAcceptance {
    let acceptance = Acceptance {
        message_id: Bytes::copy_from_slice(message.id.as_bytes()),
        manifest_digest: message.digest.into(),
        accepted_at: Some(times::to_wire(now)),
        policy_hash: policies.hash().into(),
        scheme_hash: policies.scheme_hash().into(),
        decisions: vec![decision],
    };
    statement::sign(&acceptance, &gateway.signing)
}
