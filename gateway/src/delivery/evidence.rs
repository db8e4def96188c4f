//! What the log says of messages: plain functions from what happened to the leaf that records it.

use bytes::Bytes;
use liaison_proto::{
    log::v1::{
        Accepted, CategoryDecision, Decision, Ended, HandedOver, Outcome, Refused, RuleName, ended,
        outcome::Event as What, record::Event as Recorded,
    },
    message::v1::{
        Acceptance, RecipientDecision, Refusal, Rule, data_category::Code as Category,
        error_code::Code as ErrorCode,
    },
    strict,
};
use liaison_trust::{digest::Digest, envelope::Verified, names::AgencyAddress};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Event, category, positions};
use crate::{
    policy::PolicySet,
    store::{ForwardedCopy, Head, NewLeaf, QueuedCopy, StoreError},
};

/// A message was accepted with these decisions.
///
/// # Errors
/// There are more decisions than a log takes.
pub fn accepted(
    message: &Verified,
    policies: &PolicySet,
    decisions: &[RecipientDecision],
    at: OffsetDateTime,
) -> Result<NewLeaf, StoreError> {
    let accepted = Accepted {
        sender: message.sender.to_string(),
        message_id: bytes(message.id),
        manifest_digest: message.digest.into(),
        thread: bytes(message.thread),
        kind: message.manifest.kind,
        policy_hash: policies.hash().into(),
        scheme_hash: policies.scheme_hash().into(),
        decisions: decisions.iter().map(decision).collect(),
    };
    Ok(NewLeaf {
        message: Some(message.id),
        thread: Some(message.thread),
        readers: vec![message.sender.clone()],
        ..NewLeaf::new(Recorded::Accepted(accepted), at)?
    })
}

/// A message was refused by a rule of a policy.
///
/// # Errors
/// The rule's name is longer than a log takes.
pub fn refused(
    sender: &AgencyAddress,
    (id, digest): (Uuid, Digest),
    rule: &Rule,
    at: OffsetDateTime,
) -> Result<NewLeaf, StoreError> {
    let refused = Refused {
        sender: sender.to_string(),
        message_id: bytes(id),
        manifest_digest: digest.into(),
        rule: Some(name(rule)),
    };
    let leaf = NewLeaf::new(Recorded::Refused(refused), at)?;
    Ok(NewLeaf { message: Some(id), readers: vec![sender.clone()], ..leaf })
}

/// A copy goes to its recipient's agent, or to the gateway of its recipient's domain.
///
/// # Errors
/// The store holds what can't be read.
pub fn handed_over(copy: &QueuedCopy, at: OffsetDateTime) -> Result<NewLeaf, StoreError> {
    let Head { message, digest, sender, recipient, .. } = &copy.head;
    let corrupt = |_| StoreError::Corrupt("copy");
    let record = strict::decode(&copy.released.release.record).map_err(corrupt)?;
    let positions = positions(&record);
    let sections = copy.content.sections.iter().filter(|section| positions.contains(&section.position));
    let mut released: Vec<i32> = sections
        .map(|section| category(section).map(Category::into))
        .collect::<Result<_, _>>()
        .map_err(corrupt)?;
    released.sort_unstable();
    let handed_over = HandedOver {
        message_id: bytes(*message),
        manifest_digest: (*digest).into(),
        sender: sender.to_string(),
        recipient: recipient.to_string(),
        policy_hash: record.policy_hash,
        released,
    };
    let leaf = NewLeaf::new(Recorded::HandedOver(handed_over), at)?;
    Ok(NewLeaf { message: Some(*message), readers: vec![recipient.clone()], ..leaf })
}

/// What became of a copy; none where it only waits.
///
/// # Errors
/// The event is longer than a log takes.
pub fn outcome(
    copy: &ForwardedCopy,
    event: &Event,
    at: OffsetDateTime,
) -> Result<Option<NewLeaf>, StoreError> {
    let ended = |how: ended::Code, why: ErrorCode| What::Ended(Ended { how: how.into(), why: why.into() });
    let what = match event {
        Event::Waiting(_) => return Ok(None),
        Event::Acknowledged(signed) => What::Acknowledged(signed.clone()),
        Event::Forwarded(signed) => {
            let read: Acceptance =
                strict::decode(&signed.acceptance).map_err(|_| StoreError::Corrupt("acceptance"))?;
            What::Forwarded(read.decisions.first().map(decision).unwrap_or_default())
        }
        Event::Narrowed(narrowed) => What::Narrowed(decision(narrowed)),
        Event::Expired(expired) => {
            ended(ended::Code::Expired, expired.why.as_ref().map(Refusal::code).unwrap_or_default())
        }
        Event::Quarantined(refusal) => ended(ended::Code::Quarantined, refusal.code()),
        Event::Undeliverable(refusal) => ended(ended::Code::Undeliverable, refusal.code()),
    };
    let mut readers = vec![copy.sender.clone()];
    if matches!(what, What::Acknowledged(_)) {
        readers.push(copy.recipient.clone());
    }
    let outcome = Outcome {
        message_id: bytes(copy.message),
        manifest_digest: copy.digest.into(),
        sender: copy.sender.to_string(),
        recipient: copy.recipient.to_string(),
        event: Some(what),
    };
    let leaf = NewLeaf::new(Recorded::Outcome(outcome), at)?;
    Ok(Some(NewLeaf { message: Some(copy.message), readers, ..leaf }))
}

fn decision(told: &RecipientDecision) -> Decision {
    let categories = told.categories.iter().map(|told| CategoryDecision {
        category: told.category,
        verdict: told.verdict,
        rule: told.rule.as_ref().map(name),
        basis: told.basis,
    });
    Decision {
        recipient: told.recipient.clone(),
        verdict: told.verdict,
        rule: told.rule.as_ref().map(name),
        categories: categories.collect(),
    }
}

fn name(rule: &Rule) -> RuleName {
    RuleName { layer: rule.layer.clone(), rule: rule.rule.clone() }
}

fn bytes(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}
