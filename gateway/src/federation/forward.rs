//! One message on its way to a peer: looked at once more, stripped to what is released, offered, and asked about.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use futures_util::future::try_join_all;
use liaison_proto::{
    chunks,
    exchange::v1::Agency as WireAgency,
    federation::v1::{Forward, ForwardChunk, ForwardedRecipient, link_request::Frame as Request},
    message::v1::{Envelope, RecipientBases, Refusal, ReleaseRecord, error_code::Code as ErrorCode},
    strict,
};
use liaison_trust::names::{AgencyAddress, Domain};
use prost::Message;
use time::OffsetDateTime;
use tokio::time::timeout;

use super::{
    give::Given,
    link::{Answer, Gone, Link},
    peers::Peer,
    refusals::{queue_full, scheme_mismatch, stale},
    settle, waiting,
};
use crate::{
    delivery::{self, evidence, internal},
    directory::Agency,
    gateway::Gateway,
    limits,
    store::{Change, Load, Next, Queue, QueuedCopy, StoreError},
};

/// Whether messages may go to the peer at present.
///
/// # Errors
/// Its bundle is too old, or the domains have different schemes.
pub fn gate(gateway: &Gateway, peer: &Peer) -> Result<(), Refusal> {
    let own = gateway.policy.load().scheme_hash();
    if peer.bundle.is_stale(OffsetDateTime::now_utc()) {
        return Err(stale(&peer.domain));
    }
    if peer.bundle.scheme_hash != own {
        return Err(scheme_mismatch(&peer.domain, peer.bundle.scheme_hash.as_ref(), own));
    }
    Ok(())
}

/// Recipients whose queues have no room, as the peer said, and until when nothing is offered for them.
#[derive(Default)]
pub(super) struct Full(Mutex<HashMap<AgencyAddress, Instant>>);

impl Full {
    pub(super) fn note(&self, recipient: &AgencyAddress) {
        let until = Instant::now() + limits::QUEUE_RETRY;
        self.recipients().insert(recipient.clone(), until);
    }

    fn is_full(&self, recipient: &AgencyAddress) -> bool {
        let mut recipients = self.recipients();
        recipients.retain(|_, until| *until > Instant::now());
        recipients.contains_key(recipient)
    }

    fn recipients(&self) -> MutexGuard<'_, HashMap<AgencyAddress, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Offers a message with its copies in a lane, but for those whose recipients have no room.
///
/// # Errors
/// The store failed, or the peer lies.
pub(super) async fn forward(
    link: &Arc<Link>,
    full: &Full,
    copies: Vec<QueuedCopy>,
    content: Envelope,
) -> Result<Given, Refusal> {
    let gateway = &link.gateway;
    // What was offered before, the peer may have, and says so.
    let has_no_room = |copy: &QueuedCopy| {
        !copy.head.offered && (full.is_full(&copy.head.recipient) || is_kept_enough(gateway, copy, &content))
    };
    let (no_room, copies): (Vec<_>, Vec<_>) = copies.into_iter().partition(has_no_room);
    let why = queue_full(&link.peer.domain);
    waiting::tell(gateway, no_room.iter().map(|copy| &copy.head), &why, false).await?;
    let later = || if no_room.is_empty() { Given::Settled } else { Given::Postponed(limits::QUEUE_RETRY) };
    let mut copies = offered(link, copies, &content).await?;
    let Some(first) = copies.first() else { return Ok(later()) };
    let Some(sender) = gateway.directory.load().get(&first.head.sender).cloned() else {
        return Err(Refusal::internal());
    };
    let forward = assemble(&copies, content, describe(link, &sender))?;
    let answer = ask(link, &mut copies, forward.encode_to_vec().into()).await?;
    match settle::answered(link, full, copies, answer).await? {
        Given::Settled => Ok(later()),
        given => Ok(given),
    }
}

/// Whether no more is kept here of what the peer accepts for a recipient, until some of it has its end. A queue that the
/// peer bounds as this gateway does is as full.
fn is_kept_enough(gateway: &Gateway, copy: &QueuedCopy, content: &Envelope) -> bool {
    let there = Queue::Agency(copy.head.recipient.clone());
    let more = Load::one((content.encoded_len() + copy.proof.encoded_len()) as u64);
    !gateway.store.bound().has_room(gateway.store.load(&there), more)
}

/// Sends a message with these copies and waits for the answer, whose senders are told where it is late.
async fn ask(
    link: &Link,
    copies: &mut [QueuedCopy],
    forward: Bytes,
) -> Result<Result<Answer, Gone>, Refusal> {
    // On a slow line that alone takes long, and is not the peer's doing.
    let Ok(mut answer) = link.send(|number| frames(number, forward.clone())).await else {
        return Ok(Err(Gone));
    };
    if let Ok(answer) = timeout(limits::ANSWER_LATE, &mut answer).await {
        return Ok(answer.map_err(|_| Gone));
    }
    // News even to whoever was told that the peer was away.
    let why = no_answer(&link.peer.domain);
    copies.iter_mut().for_each(|copy| copy.head.waiting.0 = ErrorCode::Unspecified);
    waiting::tell(&link.gateway, copies.iter().map(|copy| &copy.head), &why, false).await?;
    copies.iter_mut().for_each(|copy| copy.head.waiting = (why.code(), copy.head.waiting.1 + 1));
    Ok(answer.await.map_err(|_| Gone))
}

/// The sender as the peer needs it described: with its keys where the directory does not show them there.
fn describe(link: &Link, sender: &Agency) -> WireAgency {
    let policies = link.gateway.policy.load();
    let keys = if delivery::may_see(&policies, &link.peer.domain, sender) {
        Vec::new()
    } else {
        sender.newest_keys(limits::HIDDEN_KEYS)
    };
    WireAgency { keys, ..sender.to_wire() }
}

fn no_answer(domain: &Domain) -> Refusal {
    Refusal::new(
        ErrorCode::GatewayUnreachable,
        format!("the gateway of {domain} was offered the message, may have it, and does not answer"),
        "ask the agency itself if it can't wait; the gateway's administrator can ask that domain's",
    )
}

/// The copies that are still to go, marked as offered before they are: from then on the peer alone can say what
/// became of them. Their heads tell whether they were offered earlier.
async fn offered(
    link: &Link,
    copies: Vec<QueuedCopy>,
    content: &Envelope,
) -> Result<Vec<QueuedCopy>, Refusal> {
    let store = &link.gateway.store;
    let offer = async |copy: QueuedCopy| {
        let mut copy = QueuedCopy { content: content.clone(), ..copy };
        loop {
            let view = store.known();
            let Some(fresh) = delivery::fresh(&link.gateway, copy).await? else { return Ok(None) };
            let now = OffsetDateTime::now_utc();
            let leaf = match fresh.head.handed_over {
                true => None,
                false => Some(Box::new(evidence::handed_over(&fresh, now).map_err(internal)?)),
            };
            // Each time: that the peer had not taken it before may wait for the writer still, from a link that is over.
            let to = Next::Offered { leaf, view };
            match store.change(Change { delivery: fresh.head.delivery, to, notice: None }).await {
                // Decided once more, by what another gateway changed meanwhile.
                Err(StoreError::Outdated) => store.fresh().await.map_err(internal)?,
                is_queued => return Ok::<_, Refusal>(is_queued.map_err(internal)?.then_some(fresh)),
            }
            copy = fresh;
        }
    };
    let offered = try_join_all(copies.into_iter().map(offer)).await?;
    Ok(offered.into_iter().flatten().collect())
}

/// What goes to the peer: what somebody there is released, and nothing else.
fn assemble(copies: &[QueuedCopy], content: Envelope, sender: WireAgency) -> Result<Forward, Refusal> {
    let mut released = BTreeSet::new();
    let mut recipients = Vec::with_capacity(copies.len());
    for copy in copies {
        let record: ReleaseRecord = strict::decode(&copy.released.release.record)?;
        let positions = delivery::positions(&record);
        let mut proof = copy.proof.clone();
        proof.wrapped_keys.retain(|wrapped| positions.contains(&wrapped.position));
        if proof.wrapped_keys.is_empty() {
            proof.encapsulation = Bytes::new();
        }
        released.extend(positions);
        recipients.push(ForwardedRecipient {
            proof: Some(proof),
            bases: Some(RecipientBases {
                bases: copy.released.bases.bases.clone(),
                salt: copy.bases_salt.clone(),
            }),
            release: Some(copy.released.release.clone()),
        });
    }
    Ok(Forward {
        manifest: content.manifest,
        signature: content.signature,
        sender_key: content.sender_key,
        sender: Some(sender),
        facts: content.facts,
        facts_salt: content.facts_salt,
        facts_position: content.facts_position,
        recipients,
        sections: content
            .sections
            .into_iter()
            .filter(|section| released.contains(&section.position))
            .collect(),
    })
}

fn frames(number: u64, forward: Bytes) -> Vec<Request> {
    chunks(forward).map(|(data, last)| Request::Forward(ForwardChunk { number, data, last })).collect()
}
