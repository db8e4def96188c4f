//! What a peer is told again that offers a message again: the ends of its copies, which it may have lost with its database.

use liaison_proto::{
    log::v1::{Decision, Record, RuleName, ended, outcome::Event as What, record::Event as Recorded},
    message::v1::{
        CategoryDecision, RecipientDecision, Refusal, Rule, notice::Expired, verdict::Code as Verdict,
    },
    strict,
};
use liaison_trust::{digest::Digest, names::AgencyAddress};
use prost::Message;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    delivery::{Event, about, internal},
    gateway::Gateway,
    limits,
    store::{ForwardedCopy, Load, NewNotice},
};

/// Queues the ends of a message's copies for these recipients once more, as the log has them.
///
/// # Errors
/// The store failed.
pub(super) async fn tell_ends(
    gateway: &Gateway,
    sender: &AgencyAddress,
    (message, digest): (Uuid, Digest),
    recipients: &[String],
    now: OffsetDateTime,
) -> Result<(), Refusal> {
    let leaves = gateway.store.leaves_about(sender, message, limits::RECEIPTS).await.map_err(internal)?;
    for leaf in leaves {
        let Some((recipient, event)) = leaf.record.as_ref().and_then(|record| end(record.record())) else {
            continue;
        };
        if !recipients.contains(&recipient.to_string()) {
            continue;
        }
        let copy = ForwardedCopy { sender: sender.clone(), message, digest, recipient };
        // The log has it already.
        let notice = NewNotice { leaf: None, ..about(gateway, &copy, event, None, now).map_err(internal)? };
        let queue = notice.queue.clone();
        // However often it is offered, no more of this waits than may.
        let more = Load { deliveries: 1, bytes: notice.notice.encoded_len() as u64 };
        if gateway.store.bound().has_room(gateway.store.load(&queue), more) {
            gateway.store.tell(notice).await.map_err(internal)?;
            gateway.wake(&queue);
        }
    }
    Ok(())
}

/// Whose copy a record tells the end of, and how.
fn end(record: &[u8]) -> Option<(AgencyAddress, Event)> {
    let record: Record = strict::decode(record).ok()?;
    let Some(Recorded::Outcome(outcome)) = record.event else { return None };
    let event = match outcome.event? {
        What::Acknowledged(signed) => Event::Acknowledged(signed),
        What::Narrowed(decision) if decision.verdict() != Verdict::Released => {
            Event::Narrowed(as_told(decision))
        }
        What::Narrowed(_) | What::Forwarded(_) => return None,
        What::Ended(ended) => {
            let why = || {
                Refusal::new(
                    ended.why(),
                    "the recipient's domain gave the message up, and told so before",
                    "ask the agency itself",
                )
            };
            match ended.how() {
                ended::Code::Expired => Event::Expired(Expired::default()),
                ended::Code::Quarantined => Event::Quarantined(why()),
                ended::Code::Undeliverable => Event::Undeliverable(why()),
                ended::Code::Unspecified => return None,
            }
        }
    };
    Some((outcome.recipient.parse().ok()?, event))
}

/// A decision as it is told, its rules by their names alone.
fn as_told(decision: Decision) -> RecipientDecision {
    let rule = |name: RuleName| Rule { layer: name.layer, rule: name.rule, ..Rule::default() };
    let categories = decision.categories.into_iter().map(|one| CategoryDecision {
        category: one.category,
        verdict: one.verdict,
        rule: one.rule.map(rule),
        basis: one.basis,
    });
    RecipientDecision {
        verdict: decision.verdict,
        rule: decision.rule.map(rule),
        categories: categories.collect(),
        recipient: decision.recipient,
    }
}
