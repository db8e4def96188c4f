//! What is delivered: proven, committed with its keys under a key of its own, then acknowledged.

use bytes::Bytes;
use liaison_proto::{
    exchange::v1::{Delivery, delivery},
    message::v1::{
        Acceptance, Acknowledgement, DomainDecision, Notice, Refusal, SealedCopy, SignedAcceptance,
        SignedAcknowledgement, SignedNotice, StateChange, error_code::Code as ErrorCode, notice,
    },
    strict, times,
};
use liaison_trust::{
    digest::Digest,
    envelope::{self, Received},
    names::{AgencyAddress, Domain},
    statement,
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    agent::Agent,
    directory::Belief,
    log::{self, HeldHeads, ShownHeads},
    store::{Event, Incoming, IncomingSection, Receipt, StoreError},
};

/// The answer to a delivery.
pub(crate) enum Answer {
    /// It is held durably; signed where it is a message.
    Held(Option<SignedAcknowledgement>),
    /// It can't be taken as genuine.
    Refused(Refusal),
    /// What is needed to judge it can't be had now.
    NotNow,
}

/// What a delivery was found to be.
pub(crate) enum Judged {
    /// Nothing to keep.
    Answered(Answer),
    Copy(Box<(Incoming, Acknowledgement)>),
    Notice(Box<Told>),
}

/// What a notice tells.
pub(crate) struct Told {
    id: Uuid,
    recipient: AgencyAddress,
    at: OffsetDateTime,
    by: Domain,
    event: Event,
}

/// Judges a delivery, and takes it.
#[cfg(test)]
pub(crate) async fn take(agent: &Agent, delivery: Delivery) -> Result<Answer, StoreError> {
    keep(agent, &ShownHeads::default(), judge(agent, delivery).await?).await
}

/// Judges a delivery.
pub(crate) async fn judge(agent: &Agent, delivery: Delivery) -> Result<Judged, StoreError> {
    let judged = match delivery.content {
        Some(delivery::Content::Copy(copy)) => judge_copy(agent, copy).await?,
        Some(delivery::Content::Notice(notice)) => judge_notice(agent, &notice).await?,
        None => Err(Answer::Refused(malformed("the delivery is empty"))),
    };
    Ok(judged.unwrap_or_else(Judged::Answered))
}

/// Commits what was judged, in the order in which this is first polled, and answers it then: in a session in which these
/// heads were shown.
pub(crate) async fn keep(agent: &Agent, shown: &ShownHeads, judged: Judged) -> Result<Answer, StoreError> {
    match judged {
        Judged::Answered(answer) => Ok(answer),
        Judged::Copy(copy) => {
            let (message, mut acknowledgement) = *copy;
            let (id, sender) = (message.id, message.sender.clone());
            match agent.store.receive(message).await? {
                Receipt::Held { thread_state, is_new } => {
                    tracing::info!(message = %id, %sender, "received");
                    acknowledgement.thread_state = thread_state;
                    // With one that comes again they are shown all: whoever repeats it and keeps the answer back hides
                    // none of them from the sender.
                    if is_new {
                        let heads = [&mut acknowledgement.log_head, &mut acknowledgement.keys_head];
                        shown.leave_news(&sender, heads);
                    }
                    Ok(Answer::Held(Some(statement::sign(&acknowledgement, agent.custody.signing()))))
                }
                Receipt::Refused(refusal) => Ok(Answer::Refused(refusal)),
            }
        }
        Judged::Notice(told) => {
            let Told { id, recipient, at, by, event } = *told;
            agent.store.notice(id, &recipient, at, &by, event).await?;
            Ok(Answer::Held(None))
        }
    }
}

async fn judge_copy(agent: &Agent, mut copy: SealedCopy) -> Result<Result<Judged, Answer>, StoreError> {
    let Some(record) = &copy.sender_key else {
        return Ok(Err(Answer::Refused(Refusal::new(
            ErrorCode::MissingField,
            "the copy comes without its sender's key record",
            "the gateway must send it along",
        ))));
    };
    let sender = match agent.directory.believe(record, &copy.sender_keys).await {
        Belief::Proven(key) => key,
        Belief::Broken(refusal) => return Ok(Err(Answer::Refused(refusal))),
        Belief::Unknown(why) => {
            tracing::warn!(%why, "a delivery waits for its sender's keys");
            return Ok(Err(Answer::NotNow));
        }
    };
    let now = OffsetDateTime::now_utc();
    let ring = agent.custody.ring();
    let gateway = agent.link.gateway_key();
    let release = copy.release.take();
    let received = {
        let copy = SealedCopy { release: release.clone(), ..copy };
        envelope::receive(&copy, &agent.address, |id| ring.kem(id), &sender, &gateway, now)
    };
    let (received, release) = match (received, release) {
        (Ok(received), Some(release)) => (received, release),
        (Ok(_), None) => return Ok(Err(Answer::Refused(malformed("the copy has no release record")))),
        (Err(error), _) => return Ok(Err(Answer::Refused(error.into()))),
    };
    let held = held_heads(agent, &received.sender).await?;
    let acknowledgement = Acknowledgement {
        message_id: received.id.as_bytes().to_vec().into(),
        manifest_digest: received.digest.into(),
        recipient: agent.address.to_string(),
        key_id: ring.current().id.into(),
        received_at: Some(times::to_wire(now)),
        thread_state: None,
        log_head: held.log,
        keys_head: held.keys,
    };
    Ok(Ok(Judged::Copy(Box::new((incoming(received, release, now), acknowledgement)))))
}

/// What this agent knows of its domain's logs, for those who can compare it: agencies of the same domain.
async fn held_heads(agent: &Agent, sender: &AgencyAddress) -> Result<HeldHeads, StoreError> {
    if sender.domain() != agent.address.domain() {
        return Ok(HeldHeads::default());
    }
    let (log, keys) = agent.store.heads_held().await?;
    Ok(HeldHeads { log: log.unwrap_or_default().into(), keys: keys.unwrap_or_default().into() })
}

fn incoming(
    received: Received,
    release: liaison_proto::message::v1::SignedReleaseRecord,
    received_at: OffsetDateTime,
) -> Incoming {
    let Received { manifest, id, thread, sender, digest, created, expires, sections, .. } = received;
    let released = received.release.released;
    Incoming {
        id,
        thread,
        sender,
        kind: manifest.kind(),
        alert_kind: manifest.alert_kind(),
        urgency: manifest.urgency(),
        handling: manifest.handling,
        status: manifest.status(),
        state_change: manifest.state_change,
        onward: manifest.onward,
        created,
        expires,
        digest,
        policy_hash: Digest::try_from(received.release.policy_hash.as_ref()).ok(),
        release,
        sections: sections
            .into_iter()
            .map(|section| IncomingSection {
                category: section.category,
                key: section.key,
                // `receive` has checked that each section has its release; without one nothing is waived.
                release: released
                    .iter()
                    .find(|released| released.position == section.section.position)
                    .copied()
                    .unwrap_or_default(),
                section: section.section,
            })
            .collect(),
        received_at,
    }
}

async fn judge_notice(agent: &Agent, signed: &SignedNotice) -> Result<Result<Judged, Answer>, StoreError> {
    let notice: Notice = match statement::read(signed, &agent.link.gateway_key()) {
        Ok(notice) => notice,
        Err(error) => {
            return Ok(Err(Answer::Refused(Refusal::new(
                ErrorCode::BadSignature,
                error.to_string(),
                "the gateway must sign with the key that this agent was enrolled with",
            ))));
        }
    };
    let (Ok(id), Ok(recipient), Some(at)) = (
        Uuid::from_slice(&notice.message_id),
        notice.recipient.parse::<AgencyAddress>(),
        notice.at.as_ref().and_then(times::from_wire),
    ) else {
        return Ok(Err(Answer::Refused(malformed("the notice names no message, recipient or time"))));
    };
    let Some(digest) = agent.store.sent_to(id, &recipient).await? else {
        // It may be of before a restore from backup: to be asked again and again would help nobody.
        tracing::warn!(message = %id, %recipient, "a notice about a message that this agent does not know");
        return Ok(Err(Answer::Held(None)));
    };
    if notice.manifest_digest != digest.as_bytes().as_slice() {
        return Ok(Err(Answer::Refused(malformed("the notice is about another message of the same id"))));
    }
    let own = agent.address.domain();
    let passed_on = notice.relayed.is_some() || matches!(notice.event, Some(notice::Event::Forwarded(_)));
    if passed_on && recipient.domain() == own {
        return Ok(Err(Answer::Refused(malformed(
            "the notice passes on another domain's word about its own agency",
        ))));
    }
    let by = if passed_on { recipient.domain() } else { own };
    let event = match notice.event {
        Some(notice::Event::Acknowledged(signed)) => {
            match read_acknowledgement(agent, &signed, notice.relayed, id, &recipient, digest).await {
                Ok((thread_state, held)) => {
                    let heads = log::shown(agent, &recipient, &held).await?;
                    Event::Acknowledged { signed, thread_state, heads }
                }
                Err(answer) => return Ok(Err(answer)),
            }
        }
        Some(notice::Event::Forwarded(signed)) => match read_forwarded(signed, id, &recipient, digest) {
            Ok(event) => event,
            Err(refusal) => return Ok(Err(Answer::Refused(refusal))),
        },
        Some(notice::Event::Expired(expired)) => Event::Expired { why: expired.why },
        Some(notice::Event::Waiting(why)) => {
            if by == recipient.domain() {
                return Ok(Err(Answer::Refused(malformed(
                    "the notice tells why a message waits that is not on its way to another domain",
                ))));
            }
            Event::Waiting(DomainDecision {
                domain: recipient.domain().to_string(),
                recipient: notice.recipient,
                unknown: Some(why),
                ..DomainDecision::default()
            })
        }
        Some(notice::Event::Narrowed(decision)) if decision.recipient == notice.recipient => {
            Event::Narrowed(DomainDecision {
                domain: by.to_string(),
                recipient: notice.recipient,
                decision: Some(decision),
                // A notice does not tell it.
                policy_hash: Bytes::new(),
                decided_at: notice.at,
                unknown: None,
            })
        }
        Some(notice::Event::Narrowed(_)) => {
            return Ok(Err(Answer::Refused(malformed(
                "the notice holds the decision for another recipient",
            ))));
        }
        Some(notice::Event::Quarantined(refusal) | notice::Event::Undeliverable(refusal)) => {
            Event::Failed(refusal)
        }
        None => return Ok(Err(Answer::Refused(malformed("the notice tells nothing")))),
    };
    let by = by.clone();
    Ok(Ok(Judged::Notice(Box::new(Told { id, recipient, at, by, event }))))
}

/// Reads the acceptance of the gateway of the recipient's domain. Only this agent's own gateway, whose notice
/// it came in, can verify its signature; that it is about this message can be told here.
fn read_forwarded(
    signed: SignedAcceptance,
    id: Uuid,
    recipient: &AgencyAddress,
    digest: Digest,
) -> Result<Event, Refusal> {
    let read: Acceptance = strict::decode(&signed.acceptance)?;
    let same =
        read.message_id == id.as_bytes().as_slice() && read.manifest_digest == digest.as_bytes().as_slice();
    if !same {
        return Err(malformed("the notice passes on the acceptance of another message"));
    }
    let [decision] = read.decisions.as_slice() else {
        return Err(malformed("the acceptance that is passed on is not for one recipient alone"));
    };
    if decision.recipient != recipient.to_string() {
        return Err(malformed("the acceptance that is passed on is for another recipient"));
    }
    let part = DomainDecision {
        domain: recipient.domain().to_string(),
        recipient: decision.recipient.clone(),
        decision: Some(decision.clone()),
        policy_hash: read.policy_hash,
        decided_at: read.accepted_at,
        unknown: None,
    };
    Ok(Event::Forwarded { signed, part })
}

/// Reads a recipient's acknowledgement with the key that this agent knows of it, and with it the heads of the logs that the
/// recipient holds. Of an agency that the directory does not show, the notice of its gateway brings the keys; they prove
/// themselves, and this agent knows no key to verify that notice with.
async fn read_acknowledgement(
    agent: &Agent,
    signed: &SignedAcknowledgement,
    relayed: Option<SignedNotice>,
    id: Uuid,
    recipient: &AgencyAddress,
    digest: Digest,
) -> Result<(Option<StateChange>, HeldHeads), Answer> {
    let bad = |what: &str| {
        Answer::Refused(Refusal::new(
            ErrorCode::BadSignature,
            format!("the acknowledgement of {recipient} is not to be believed: {what}"),
            "the gateway must pass on what the recipient signed",
        ))
    };
    let claimed: Acknowledgement =
        strict::decode(&signed.acknowledgement).map_err(|error| Answer::Refused(error.into()))?;
    let key_id = Digest::try_from(claimed.key_id.as_ref()).map_err(|_| bad("it names no key"))?;
    let relayed = relayed.map(|relayed| strict::decode::<Notice>(&relayed.notice)).transpose();
    let told =
        relayed.as_ref().ok().and_then(Option::as_ref).map_or(&[][..], |notice| &notice.recipient_keys);
    let key = match agent.directory.key(recipient, &key_id, told).await {
        Ok(Some(key)) => key,
        Ok(None) => {
            return Err(
                relayed.map_or_else(|error| Answer::Refused(error.into()), |_| bad("its key is not known"))
            );
        }
        Err(refusal) if refusal.code() == ErrorCode::KeyChainBroken => return Err(Answer::Refused(refusal)),
        Err(why) => {
            tracing::warn!(%why, "an acknowledgement waits for its recipient's keys");
            return Err(Answer::NotNow);
        }
    };
    let read: Acknowledgement =
        statement::read(signed, &key.signing).map_err(|error| bad(&error.to_string()))?;
    let same = read.message_id == id.as_bytes().as_slice()
        && read.manifest_digest == digest.as_bytes().as_slice()
        && read.recipient == recipient.to_string();
    if !same {
        return Err(bad("it is for another message"));
    }
    let heads = HeldHeads { log: read.log_head, keys: read.keys_head };
    Ok((read.thread_state, heads))
}

fn malformed(message: &str) -> Refusal {
    Refusal::new(ErrorCode::Malformed, message, "tell the gateway's administrator")
}

#[cfg(test)]
#[path = "inbox_tests.rs"]
mod tests;

#[cfg(test)]
mod federation_tests;
