//! One message on its way to a peer: looked at once more, stripped to what is released, offered, and its copies
//! settled by the answer.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use futures_util::future::try_join_all;
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
use liaison_trust::{
    names::{AgencyAddress, Domain},
    statement::{self, StatementError},
};
use metrics::counter;
use prost::Message;
use time::OffsetDateTime;
use tokio::time::timeout;
use tracing::{error, warn};

use super::{
    give::{Given, passes, wait},
    link::{Answer, Gone, Link},
    peers::Peer,
    refusals::{scheme_mismatch, stale},
    relay, waiting,
};
use crate::{
    delivery::{self, Event, evidence, internal, sweep},
    directory::Agency,
    gateway::{Gateway, to_the_end},
    limits,
    store::{Change, Head, Next, QueuedCopy},
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

/// Recipients whose queues have no room, as the peer said, and until when nothing is offered for them.
#[derive(Default)]
pub(super) struct Full(Mutex<HashMap<AgencyAddress, Instant>>);

impl Full {
    fn note(&self, recipient: &AgencyAddress) {
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
    // What was offered before, the peer may have, and says so.
    let has_no_room = |copy: &QueuedCopy| !copy.head.offered && full.is_full(&copy.head.recipient);
    let (no_room, copies): (Vec<_>, Vec<_>) = copies.into_iter().partition(has_no_room);
    let gateway = &link.gateway;
    let why = queue_full(&link.peer.domain);
    waiting::tell(gateway, no_room.iter().map(|copy| &copy.head), &why, false).await.map_err(internal)?;
    let later = || if no_room.is_empty() { Given::Settled } else { Given::Postponed(limits::QUEUE_RETRY) };
    let mut copies = offered(link, copies, &content).await?;
    let Some(first) = copies.first() else { return Ok(later()) };
    let Some(sender) = gateway.directory.load().get(&first.head.sender).cloned() else {
        return Err(Refusal::internal());
    };
    let encoded = Bytes::from(assemble(&copies, content, describe(link, &sender))?.encode_to_vec());
    let asked = link.ask(|number| frames(number, encoded.clone()));
    tokio::pin!(asked);
    let answer = match timeout(limits::ANSWER_LATE, &mut asked).await {
        Ok(answer) => answer,
        Err(_) => {
            // News even to whoever was told that the peer was away.
            let why = no_answer(&link.peer.domain);
            copies.iter_mut().for_each(|copy| copy.head.waiting.0 = ErrorCode::Unspecified);
            let heads = copies.iter().map(|copy| &copy.head);
            waiting::tell(gateway, heads, &why, false).await.map_err(internal)?;
            copies.iter_mut().for_each(|copy| copy.head.waiting = (why.code(), copy.head.waiting.1 + 1));
            asked.await
        }
    };
    let outcome = match &answer {
        Ok(Answer::Refused(refusal)) => refusal.code().as_str_name(),
        Ok(_) => "accepted",
        Err(Gone) => "gone",
    };
    counter!("liaison_gateway_forwards_total", "peer" => link.peer.domain.to_string(), "outcome" => outcome)
        .increment(1);
    let acceptances = match answer {
        Ok(Answer::Accepted(acceptances)) => acceptances,
        Ok(Answer::Refused(refusal)) if passes(&refusal) => {
            return postponed(link, full, &copies, &refusal).await;
        }
        Ok(Answer::Refused(refusal)) => return refused(link, copies, refusal).await.map(|()| later()),
        Ok(Answer::Done) => return Err(link.protocol("an answer of another kind")),
        Err(Gone) => return Ok(Given::Gone),
    };
    let left = match accepted(link, &copies, &acceptances).await {
        // It waits until this gateway can read it, or the peer decides as it may.
        Err(refusal) if matches!(refusal.code(), ErrorCode::UnknownValue | ErrorCode::Unsupported) => {
            warn!(peer = %link.peer.domain, "an acceptance can't be taken: {}", refusal.message);
            return postponed(link, full, &copies, &refusal).await;
        }
        left => left?,
    };
    if left.is_empty() {
        return Ok(later());
    }
    postponed(link, full, &left, &why).await
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

/// The peer takes copies later: their senders are told why.
async fn postponed(link: &Link, full: &Full, copies: &[QueuedCopy], why: &Refusal) -> Result<Given, Refusal> {
    // It says so of what it has not taken.
    let is_back = matches!(
        why.code(),
        ErrorCode::QueueFull | ErrorCode::Suspended | ErrorCode::SchemeMismatch | ErrorCode::StaleBundle
    );
    if why.code() == ErrorCode::QueueFull {
        copies.iter().for_each(|copy| full.note(&copy.head.recipient));
    }
    // These pass by themselves in a moment.
    let is_momentary =
        matches!(why.code(), ErrorCode::UnknownKey | ErrorCode::RateLimited | ErrorCode::ShuttingDown);
    if !is_momentary {
        let heads = copies.iter().map(|copy| &copy.head);
        waiting::tell(&link.gateway, heads, why, is_back).await.map_err(internal)?;
    }
    Ok(Given::Postponed(wait(why)))
}

fn no_answer(domain: &Domain) -> Refusal {
    Refusal::new(
        ErrorCode::GatewayUnreachable,
        format!("the gateway of {domain} was offered the message, may have it, and does not answer"),
        "ask the agency itself if it can't wait; the gateway's administrator can ask that domain's",
    )
}

fn queue_full(domain: &Domain) -> Refusal {
    Refusal::new(
        ErrorCode::QueueFull,
        format!("{domain}: the agency's queue is full: it takes nothing at present"),
        "it is delivered when that agency takes what waits for it; reach the agency another way",
    )
    .retry_after(limits::QUEUE_RETRY)
}

/// The copies that are still to go, marked as offered before they are: from then on the peer alone can say what
/// became of them. Their heads tell whether they were offered earlier.
async fn offered(
    link: &Link,
    copies: Vec<QueuedCopy>,
    content: &Envelope,
) -> Result<Vec<QueuedCopy>, Refusal> {
    let offer = async |copy: QueuedCopy| {
        let copy = QueuedCopy { content: content.clone(), ..copy };
        let Some(copy) = delivery::fresh(&link.gateway, copy).await? else { return Ok(None) };
        let is_queued = copy.head.offered || {
            let leaf = evidence::handed_over(&copy, OffsetDateTime::now_utc()).map_err(internal)?;
            let change =
                Change { delivery: copy.head.delivery, to: Next::Offered(Box::new(leaf)), notice: None };
            link.gateway.store.change(change).await.map_err(internal)?
        };
        Ok::<_, Refusal>(is_queued.then_some(copy))
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

/// The peer accepted the message: its word goes to the sender, recipient by recipient. The copies that it says
/// nothing of: it has no room for them.
async fn accepted(
    link: &Arc<Link>,
    copies: &[QueuedCopy],
    acceptances: &[u8],
) -> Result<Vec<QueuedCopy>, Refusal> {
    let read: Acceptances = strict::decode(acceptances)
        .map_err(|error| unreadable(link, error.into(), "acceptances that can't be read"))?;
    let mut words = by_recipient(link, read)?;
    let mut left = Vec::new();
    let mut ends = Vec::with_capacity(copies.len());
    for copy in copies {
        match words.remove(&copy.head.recipient.to_string()) {
            Some((acceptance, signed)) => {
                let verdict = verdict(link, copy, &acceptance)?;
                let to = if verdict == Verdict::Released { Next::Forwarded } else { Next::Gone };
                ends.push((copy.head.clone(), to, Event::Forwarded(signed)));
            }
            None => left.push(copy.clone()),
        }
    }
    if !words.is_empty() || ends.is_empty() {
        return Err(link.protocol("it accepted for others than the recipients"));
    }
    settle(link, ends).await?;
    Ok(left)
}

/// Settles copies together, to the end even if the link ends meanwhile.
async fn settle(link: &Link, ends: Vec<(Head, Next, Event)>) -> Result<(), Refusal> {
    let gateway = Arc::clone(&link.gateway);
    to_the_end(async move {
        let now = OffsetDateTime::now_utc();
        let ends = ends
            .into_iter()
            .map(async |(head, to, event)| sweep::end_as(&gateway, &head, to, event, now).await);
        try_join_all(ends).await.map_err(internal)?;
        Ok(())
    })
    .await
}

/// The peer's signed words, each by the recipient that it is about.
fn by_recipient(
    link: &Link,
    read: Acceptances,
) -> Result<BTreeMap<String, (Acceptance, SignedAcceptance)>, Refusal> {
    let signing = link.peer().bundle.signing;
    let words = read.acceptances.into_iter().map(|signed| {
        if signed.encoded_len() > limits::NOTICE_BYTES {
            return Err(link.protocol("an acceptance that is too long"));
        }
        let acceptance: Acceptance = statement::read(&signed, &signing).map_err(|error| match error {
            StatementError::Strict(error) => {
                unreadable(link, error.into(), "an acceptance that can't be read")
            }
            StatementError::BadSignature(_) => link.protocol("an acceptance that it did not sign"),
        })?;
        match acceptance.decisions.as_slice() {
            [decision] => Ok((decision.recipient.clone(), (acceptance, signed))),
            _ => Err(link.protocol("an acceptance that is not about one recipient")),
        }
    });
    words.collect()
}

/// What a newer version says, this one waits to be upgraded for; anything else breaks the protocol.
fn unreadable(link: &Link, refusal: Refusal, what: &str) -> Refusal {
    if refusal.code() != ErrorCode::UnknownValue {
        return link.protocol(what);
    }
    let domain = &link.peer.domain;
    Refusal {
        message: format!("{domain} answers what this version can't read: {}", refusal.message),
        action: format!(
            "upgrade this gateway, or have {domain} send what this version defines; messages wait"
        ),
        ..refusal
    }
}

/// What the peer decided for one recipient, if its word is what it should be.
fn verdict(link: &Link, copy: &QueuedCopy, acceptance: &Acceptance) -> Result<Verdict, Refusal> {
    let is_about_it = acceptance.message_id == copy.head.message.as_bytes().as_slice()
        && acceptance.manifest_digest == copy.head.digest.as_bytes().as_slice();
    if !is_about_it {
        return Err(link.protocol("an acceptance of another message"));
    }
    let decision = acceptance.decisions.first();
    if let Some(decision) = decision {
        relay::is_its_to_decide(&link.peer(), decision).map_err(|refusal| {
            link.peer.violation(&refusal);
            // It concerns this message alone.
            Refusal { code: ErrorCode::Unsupported.into(), ..refusal }
        })?;
    }
    match decision.map(RecipientDecision::verdict) {
        Some(verdict @ (Verdict::Released | Verdict::Withheld)) => Ok(verdict),
        _ => Err(link.protocol("an acceptance without a verdict")),
    }
}

/// The peer refused the message for good.
async fn refused(link: &Link, copies: Vec<QueuedCopy>, refusal: Refusal) -> Result<(), Refusal> {
    let as_evidence = is_about_us(refusal.code());
    let ends = copies.into_iter().map(|QueuedCopy { head, .. }| {
        let (message, recipient, code) = (head.message, &head.recipient, refusal.code().as_str_name());
        let (to, event) = if as_evidence {
            error!(%message, %recipient, code, "a peer does not take a message as genuine; it is kept as evidence");
            (Next::Quarantined(refusal.clone()), Event::Quarantined(refusal.clone()))
        } else {
            warn!(%message, %recipient, code, "a peer refused a message");
            (Next::Gone, relay::event(&refusal))
        };
        (head, to, event)
    });
    settle(link, ends.collect()).await
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
