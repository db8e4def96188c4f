//! What the log says of messages: plain functions from what happened to the leaf that records it.

use std::collections::BTreeMap;

use bytes::Bytes;
use liaison_proto::{
    log::v1::{
        self as wire, Accepted, CategoryDecision, Decision, Ended, HandedOver, Outcome, Record, Refused,
        RuleName, ended, outcome::Event as What, record::Event as Recorded,
    },
    message::v1::{
        Acceptance, Acknowledgement, RecipientDecision, Refusal, Rule, SealedSection, SignedReleaseRecord,
        data_category::Code as Category, error_code::Code as ErrorCode,
    },
    strict,
};
use liaison_trust::{digest::Digest, envelope::Verified, log::SaltedRecord, names::AgencyAddress};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Event, Offered, category, positions};
use crate::{
    policy::{self, PolicySet},
    store::{ForwardedCopy, NewLeaf, QueuedCopy, StoreError},
};

/// The policies by which categories are released to recipients.
pub type Permits = BTreeMap<(String, i32), Vec<RuleName>>;

/// The policies by which a decision releases categories to a recipient.
pub fn permits(
    recipient: &AgencyAddress,
    decision: &policy::Decision,
) -> impl Iterator<Item = ((String, i32), Vec<RuleName>)> {
    decision.released().filter_map(|category| {
        let permits = decision.categories.get(&category)?.permitted_by.clone();
        Some(((recipient.to_string(), category.into()), permits))
    })
}

/// A message was accepted with these decisions.
///
/// # Errors
/// There are more decisions than a log takes.
pub fn accepted(
    message: &Verified,
    policies: &PolicySet,
    decisions: &[RecipientDecision],
    permits: &Permits,
    at: OffsetDateTime,
) -> Result<NewLeaf, StoreError> {
    let mut places = BTreeMap::new();
    let mut named = Vec::new();
    let mut decisions: Vec<Decision> = decisions.iter().map(decision).collect();
    for decision in &mut decisions {
        for category in &mut decision.categories {
            let Some(permits) = permits.get(&(decision.recipient.clone(), category.category)) else {
                continue;
            };
            let policies = permits.iter().map(|rule| (&rule.layer, &rule.rule)).collect::<Vec<_>>();
            category.permitted_by = *places.entry(policies).or_insert_with(|| {
                named.push(wire::Permits { policies: permits.clone() });
                named.len() as u32
            });
        }
    }
    let accepted = Accepted {
        sender: message.sender.to_string(),
        message_id: bytes(message.id),
        manifest_digest: message.digest.into(),
        thread: bytes(message.thread),
        kind: message.manifest.kind,
        policy_hash: policies.hash().into(),
        scheme_hash: policies.scheme_hash().into(),
        decisions,
        permits: named,
    };
    NewLeaf::new(Recorded::Accepted(accepted), at)
}

/// A message was refused by a rule of a policy.
///
/// # Errors
/// The rule's name is longer than a log takes.
pub fn refused(
    sender: &AgencyAddress,
    Offered { id, digest, thread }: Offered,
    rule: &Rule,
    at: OffsetDateTime,
) -> Result<NewLeaf, StoreError> {
    let refused = Refused {
        sender: sender.to_string(),
        message_id: bytes(id),
        manifest_digest: digest.into(),
        rule: Some(name(rule)),
        thread: bytes(thread),
    };
    NewLeaf::new(Recorded::Refused(refused), at)
}

/// A copy that was queued goes to its recipient's agent, or to the gateway of its recipient's domain.
///
/// # Errors
/// The store holds what can't be read.
pub fn handed_over(copy: &QueuedCopy, at: OffsetDateTime) -> Result<NewLeaf, StoreError> {
    let QueuedCopy { head, content, released, .. } = copy;
    let parties = (&head.sender, &head.recipient);
    hand_over((head.message, head.digest), parties, &released.release, &content.sections, at)
}

/// A copy goes to its recipient, with those of these sections that are released to it.
///
/// # Errors
/// The store holds what can't be read.
pub fn hand_over(
    (message, digest): (Uuid, Digest),
    (sender, recipient): (&AgencyAddress, &AgencyAddress),
    release: &SignedReleaseRecord,
    sections: &[SealedSection],
    at: OffsetDateTime,
) -> Result<NewLeaf, StoreError> {
    let corrupt = |_| StoreError::Corrupt("copy");
    let record = strict::decode(&release.record).map_err(corrupt)?;
    let positions = positions(&record);
    let sections = sections.iter().filter(|section| positions.contains(&section.position));
    let mut released: Vec<i32> = sections
        .map(|section| category(section).map(Category::into))
        .collect::<Result<_, _>>()
        .map_err(corrupt)?;
    released.sort_unstable();
    let handed_over = HandedOver {
        message_id: bytes(message),
        manifest_digest: digest.into(),
        sender: sender.to_string(),
        recipient: recipient.to_string(),
        policy_hash: record.policy_hash,
        released,
    };
    NewLeaf::new(Recorded::HandedOver(handed_over), at)
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
    let outcome = Outcome {
        message_id: bytes(copy.message),
        manifest_digest: copy.digest.into(),
        sender: copy.sender.to_string(),
        recipient: copy.recipient.to_string(),
        event: Some(what),
    };
    NewLeaf::new(Recorded::Outcome(outcome), at).map(Some)
}

/// By whom, and by which key, the acknowledgement in a record is signed, as it says itself; none of another record.
pub fn signer(record: &[u8]) -> Option<(AgencyAddress, Digest)> {
    let Record { event: Some(Recorded::Outcome(outcome)), .. } = strict::decode(record).ok()? else {
        return None;
    };
    let Some(What::Acknowledged(signed)) = outcome.event else { return None };
    let read: Acknowledgement = strict::decode(&signed.acknowledgement).ok()?;
    Some((outcome.recipient.parse().ok()?, Digest::try_from(read.key_id.as_ref()).ok()?))
}

/// Whether two records tell of the same event, at whatever time.
pub fn is_same(one: &SaltedRecord, other: &SaltedRecord) -> bool {
    let event =
        |record: &SaltedRecord| strict::decode::<Record>(record.record()).ok().and_then(|read| read.event);
    event(one).is_some_and(|told| event(other) == Some(told))
}

/// A decision as the log has it, as far as its sender is told it.
pub fn decision(told: &RecipientDecision) -> Decision {
    let categories = told.categories.iter().map(|told| CategoryDecision {
        category: told.category,
        verdict: told.verdict,
        rule: told.rule.as_ref().map(name),
        basis: told.basis,
        permitted_by: 0,
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
