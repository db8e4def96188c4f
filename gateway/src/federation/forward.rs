//! One message on its way to a peer: looked at once more, stripped to what is released, offered, and its copies
//! settled by the answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use liaison_proto::{
    chunks,
    exchange::v1::Agency as WireAgency,
    federation::v1::{Forward, ForwardChunk, ForwardedRecipient, link_request::Frame as Request},
    message::v1::{
        Acceptance, Acceptances, Envelope, RecipientBases, RecipientDecision, Refusal, ReleaseRecord,
        SignedAcceptance, error_code::Code as ErrorCode, verdict::Code as Verdict,
    },
    strict,
};
use liaison_trust::statement;
use metrics::counter;
use prost::Message;
use time::OffsetDateTime;
use tracing::{error, warn};

use super::{
    give::{Given, passes, wait},
    link::{Answer, Gone, Link},
    peers::Peer,
    refusals::{scheme_mismatch, stale},
    relay,
};
use crate::{
    delivery::{self, Event, internal, sweep},
    gateway::Gateway,
    store::{Change, Next, QueuedCopy},
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
        return Err(scheme_mismatch(peer.bundle.scheme_hash.as_ref(), own));
    }
    Ok(())
}

/// Offers a message with all its copies in a lane.
///
/// # Errors
/// The store failed, or the peer lies.
pub(super) async fn forward(
    link: &Arc<Link>,
    copies: Vec<QueuedCopy>,
    content: Envelope,
) -> Result<Given, Refusal> {
    let copies = offered(link, copies, &content).await?;
    let Some(first) = copies.first() else { return Ok(Given::Settled) };
    let Some(sender) = link.gateway.directory.load().get(&first.head.sender).cloned() else {
        return Err(Refusal::internal());
    };
    let sender = WireAgency { keys: Vec::new(), ..sender.to_wire() };
    let encoded = Bytes::from(assemble(&copies, content, sender)?.encode_to_vec());
    let answer = link.ask(|number| frames(number, encoded.clone())).await;
    let outcome = match &answer {
        Ok(Answer::Refused(refusal)) => refusal.code().as_str_name(),
        Ok(_) => "accepted",
        Err(Gone) => "gone",
    };
    counter!("liaison_gateway_forwards_total", "peer" => link.peer.domain.to_string(), "outcome" => outcome)
        .increment(1);
    match answer {
        Ok(Answer::Accepted(acceptances)) => accepted(link, &copies, &acceptances).await,
        Ok(Answer::Refused(refusal)) if passes(&refusal) => Ok(Given::Postponed(wait(&refusal))),
        Ok(Answer::Refused(refusal)) => refused(link, &copies, refusal).await,
        Ok(Answer::Done) => Err(link.protocol("an answer of another kind")),
        Err(Gone) => Ok(Given::Gone),
    }
}

/// The copies that are still to go, marked as offered before they are: from then on the peer alone can say what
/// became of them.
async fn offered(
    link: &Link,
    copies: Vec<QueuedCopy>,
    content: &Envelope,
) -> Result<Vec<QueuedCopy>, Refusal> {
    let mut offered = Vec::with_capacity(copies.len());
    for copy in copies {
        let copy = QueuedCopy { content: content.clone(), ..copy };
        let Some(copy) = delivery::fresh(&link.gateway, copy).await? else { continue };
        let is_queued = copy.head.offered || {
            let change = Change { delivery: copy.head.delivery, to: Next::Offered, notice: None };
            link.gateway.store.change(change).await.map_err(internal)?
        };
        if is_queued {
            offered.push(copy);
        }
    }
    Ok(offered)
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

/// The peer accepted the message: its word goes to the sender, recipient by recipient.
async fn accepted(link: &Link, copies: &[QueuedCopy], acceptances: &[u8]) -> Result<Given, Refusal> {
    let read: Result<Acceptances, _> = strict::decode(acceptances);
    let Ok(read) = read else { return Err(link.protocol("acceptances that can't be read")) };
    let others = || link.protocol("it accepted for others than the recipients");
    let words = by_recipient(link, read)?;
    if words.len() != copies.len() {
        return Err(others());
    }
    let now = OffsetDateTime::now_utc();
    for copy in copies {
        let (acceptance, signed) = words.get(&copy.head.recipient.to_string()).ok_or_else(others)?;
        let verdict = verdict(link, copy, acceptance)?;
        let to = if verdict == Verdict::Released { Next::Forwarded } else { Next::Gone };
        let event = Event::Forwarded(signed.clone());
        sweep::end_as(&link.gateway, &copy.head, to, event, now).await.map_err(internal)?;
    }
    Ok(Given::Settled)
}

/// The peer's signed words, each by the recipient that it is about.
fn by_recipient(
    link: &Link,
    read: Acceptances,
) -> Result<BTreeMap<String, (Acceptance, SignedAcceptance)>, Refusal> {
    let signing = link.peer().bundle.signing;
    let words = read.acceptances.into_iter().map(|signed| {
        let acceptance: Acceptance = statement::read(&signed, &signing)
            .map_err(|_| link.protocol("an acceptance that it did not sign"))?;
        match acceptance.decisions.as_slice() {
            [decision] => Ok((decision.recipient.clone(), (acceptance, signed))),
            _ => Err(link.protocol("an acceptance that is not about one recipient")),
        }
    });
    words.collect()
}

/// What the peer decided for one recipient, if its word is what it should be.
fn verdict(link: &Link, copy: &QueuedCopy, acceptance: &Acceptance) -> Result<Verdict, Refusal> {
    let is_about_it = acceptance.message_id == copy.head.message.as_bytes().as_slice()
        && acceptance.manifest_digest == copy.head.digest.as_bytes().as_slice();
    if !is_about_it {
        return Err(link.protocol("an acceptance of another message"));
    }
    match acceptance.decisions.first().map(RecipientDecision::verdict) {
        Some(verdict @ (Verdict::Released | Verdict::Withheld)) => Ok(verdict),
        _ => Err(link.protocol("an acceptance without a verdict")),
    }
}

/// The peer refused the message for good.
async fn refused(link: &Link, copies: &[QueuedCopy], refusal: Refusal) -> Result<Given, Refusal> {
    let now = OffsetDateTime::now_utc();
    let as_evidence = is_about_us(refusal.code());
    for copy in copies {
        let (message, recipient) = (copy.head.message, &copy.head.recipient);
        let code = refusal.code().as_str_name();
        let (to, event) = if as_evidence {
            error!(%message, %recipient, code, "a peer does not take a message as genuine; it is kept as evidence");
            (Next::Quarantined(refusal.clone()), Event::Quarantined(refusal.clone()))
        } else {
            warn!(%message, %recipient, code, "a peer refused a message");
            (Next::Gone, relay::event(&refusal))
        };
        sweep::end_as(&link.gateway, &copy.head, to, event, now).await.map_err(internal)?;
    }
    Ok(Given::Settled)
}

/// Whether a refusal says that this gateway, or an agency of it, breaks the rules.
fn is_about_us(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::PeerViolation
            | ErrorCode::BadSignature
            | ErrorCode::ChangedSection
            | ErrorCode::BadRecipients
            | ErrorCode::SenderMismatch
            | ErrorCode::Malformed
            | ErrorCode::MissingField
    )
}
