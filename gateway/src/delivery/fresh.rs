//! A copy looked at once more before it goes: is it still to go, and with all that was released?

use liaison_proto::{
    admin::v1::agency_state::Code as AgencyState,
    message::v1::{
        Facts, Manifest, RecipientDecision, Refusal, ReleaseRecord, error_code::Code as ErrorCode,
        kind::Code as Kind,
    },
    strict,
};
use liaison_trust::statement;
use time::OffsetDateTime;
use tracing::{info, warn};

use super::{Event, Recheck, internal, notice, sweep};
use crate::{
    directory::Directory,
    gateway::Gateway,
    policy::PolicySet,
    store::{Change, Head, Next, QueuedCopy, Released, StoreError},
};

/// A copy that a peer may have and that is not offered again: its later word still finds its sender.
const LEFT: Next = Next::Forwarded { log: None };

/// The copy as it may go now; none where it ended instead.
///
/// # Errors
/// The store failed, or holds what can't be read.
pub async fn fresh(gateway: &Gateway, mut queued: QueuedCopy) -> Result<Option<QueuedCopy>, Refusal> {
    let now = OffsetDateTime::now_utc();
    // Whether a peer took it before it expired, the peer alone can say.
    if queued.head.expires <= now && !queued.head.offered {
        sweep::expire(gateway, &queued.head, now).await.map_err(internal)?;
        return Ok(None);
    }
    let sender = gateway.directory.load().get(&queued.head.sender).map(|sender| sender.state);
    if sender == Some(AgencyState::Revoked) {
        info!(message = %queued.head.message, "the sender of a queued message was revoked; it goes nowhere");
        let to = if queued.head.offered { LEFT } else { Next::Gone };
        let event = Event::Undeliverable(revoked(&queued.head));
        sweep::end_as(gateway, &queued.head, to, event, now).await.map_err(internal)?;
        return Ok(None);
    }
    let policies = gateway.policy.load_full();
    // By whom it was released, the signed record says: who can write the database can't make one.
    let release = &queued.released.release;
    let record: Option<ReleaseRecord> = if queued.from_memory {
        strict::decode(&release.record).ok()
    } else {
        statement::read(release, &gateway.signing.public()).ok()
    };
    if record.is_some_and(|record| record.policy_hash == policies.hash().as_ref()) {
        return Ok(Some(queued));
    }
    let message = queued.head.message;
    let Some(rechecked) = recheck(gateway, &gateway.directory.load(), &policies, &queued, now)? else {
        warn!(%message, "a party of a queued message is not in the directory any more; it returns");
        let to = if queued.head.offered { LEFT } else { Next::Gone };
        let event = Event::Undeliverable(gone());
        sweep::end_as(gateway, &queued.head, to, event, now).await.map_err(internal)?;
        return Ok(None);
    };
    match rechecked {
        Recheck::Same(record) => {
            queued.released.release = statement::sign(&record, &gateway.signing);
            Ok(Some(queued))
        }
        // It left as it was released then, or perhaps did not: offered anew it would be taken for the same.
        Recheck::Narrowed(_, told) | Recheck::Withheld(told) if queued.head.offered => {
            info!(%message, recipient = %queued.head.recipient, "policies release less of a message since it was offered");
            let event = Event::Undeliverable(narrowed_since(&queued.head, &told));
            sweep::end_as(gateway, &queued.head, LEFT, event, now).await.map_err(internal)?;
            Ok(None)
        }
        Recheck::Narrowed(record, told) => {
            info!(%message, recipient = %queued.head.recipient, "policies release less of a message since it was accepted");
            queued.released = Released {
                bases: queued.released.bases,
                decision: told.clone(),
                release: statement::sign(&record, &gateway.signing),
            };
            let is_queued = narrow(gateway, &queued, told, now).await.map_err(internal)?;
            Ok(is_queued.then_some(queued))
        }
        Recheck::Withheld(told) => {
            info!(%message, recipient = %queued.head.recipient, "policies withhold a message since it was accepted");
            sweep::end(gateway, &queued.head, Event::Narrowed(told), now).await.map_err(internal)?;
            Ok(None)
        }
    }
}

/// Commits what a copy still releases, with a word to its sender. False if it has left the queue.
async fn narrow(
    gateway: &Gateway,
    queued: &QueuedCopy,
    told: RecipientDecision,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let notice = notice(gateway, &queued.head, Event::Narrowed(told), now)?;
    let answers = notice.queue.clone();
    let change = Change {
        delivery: queued.head.delivery,
        to: Next::Narrowed(Box::new(queued.released.clone())),
        notice: Some(notice),
    };
    let is_queued = gateway.store.change(change).await?;
    gateway.wake(&answers);
    Ok(is_queued)
}

/// Asks the policies of now about a copy that others released; none where they can't be asked, because the
/// directory doesn't know a party any more.
fn recheck(
    gateway: &Gateway,
    directory: &Directory,
    policies: &PolicySet,
    queued: &QueuedCopy,
    now: OffsetDateTime,
) -> Result<Option<Recheck>, Refusal> {
    let QueuedCopy { head, content, released, .. } = queued;
    let manifest: Manifest = strict::decode(&content.manifest)?;
    let message = (head.message, head.digest);
    let old: ReleaseRecord = strict::decode(&released.release.record)?;
    if matches!(manifest.kind(), Kind::State | Kind::Onward) {
        return Ok(Some(Recheck::Same(super::thread_release(message, &head.recipient, policies, now))));
    }
    let facts: Facts = strict::decode(&content.facts)?;
    let (Some(from), Some(to)) = (directory.get(&head.sender), directory.get(&head.recipient)) else {
        return Ok(None);
    };
    let bases = super::bases_from_wire(&released.bases)?;
    let side = super::side(&gateway.domain, &head.sender, &head.recipient);
    let decision = super::decide(policies, side, from, to, &super::head(&manifest, Some(&facts)), &bases);
    let sections = content
        .sections
        .iter()
        .map(|section| Ok((super::category(section)?, section.position)))
        .collect::<Result<Vec<_>, strict::StrictError>>()?;
    let mut record = super::release(message, &head.recipient, &sections, &decision, policies, now);
    // What the sender's domain withheld was never to be decided here, and stays named.
    let elsewhere = old.withheld().filter(|category| !bases.contains_key(category));
    record.withheld.extend(elsewhere.map(i32::from));
    Ok(Some(super::recheck((&old, &released.decision), (record, decision.to_wire(&head.recipient)))))
}

fn narrowed_since(copy: &Head, told: &RecipientDecision) -> Refusal {
    let domain = copy.recipient.domain();
    let withheld = told.categories.iter().find_map(|category| category.rule.clone());
    Refusal::new(
        ErrorCode::ForbiddenByPolicy,
        format!(
            "policies release less of the message than when it was offered to {domain}, whose gateway may have \
             it as it was released then"
        ),
        "ask the agency itself whether it has the message; send it again for what may go now",
    )
    .by_rule(told.rule.clone().or(withheld).unwrap_or_default())
}

fn revoked(copy: &Head) -> Refusal {
    Refusal::new(
        ErrorCode::Revoked,
        format!("the membership of {} was ended before the message was handed over", copy.sender),
        "ask the gateway's administrator",
    )
}

fn gone() -> Refusal {
    Refusal::new(
        ErrorCode::UnknownRecipient,
        "a party of the message is not in the directory any more",
        "look the agency up, and send the message again",
    )
}
