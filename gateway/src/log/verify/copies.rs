//! Whether the copies of a message that wait, are set aside or are with a peer are those that the log tells of, and none
//! is gone without an end.

use std::collections::BTreeSet;

use liaison_proto::message::v1::{
    CategoryDecision, Envelope, RecipientDecision, ReleaseRecord, SignedReleaseRecord,
    verdict::Code as Verdict,
};
use liaison_trust::{
    digest::sha256,
    keys::VerifyingKey,
    names::{AgencyAddress, Domain},
    statement,
};
use prost::Message;

use super::{
    fault::{CHANGED, Faults},
    told::{Copy, End, Told},
};
use crate::{
    delivery::{self, evidence},
    store::{CopyRow, MessageRow, Queue},
};

/// What is kept of the copies of a message.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) copies: Vec<CopyRow>,
    /// An encoded Envelope, where there are copies.
    pub(super) content: Option<Vec<u8>>,
}

/// Looks at the copies of a message at a place.
pub(super) fn examine(
    row: &MessageRow,
    place: &str,
    told: &Told,
    kept: &Kept,
    (domain, gateway): (&Domain, &VerifyingKey),
    faults: &mut Faults,
) {
    let content = kept.content.as_deref().and_then(|content| Envelope::decode(content).ok());
    // Of what an earlier version gave to a peer, nothing is kept.
    if kept.copies.iter().any(|copy| !copy.decision.is_empty()) {
        match &content {
            None => {
                let found =
                    "copies of it wait, and its content is gone or can't be read: it can't be delivered";
                faults.add("content_removed", place, found, CHANGED);
            }
            Some(content) if sha256(&content.manifest).as_ref() != row.digest => {
                let found = "its content is not that of the message that was accepted";
                faults.add("changed_content", place, found, CHANGED);
            }
            Some(_) => {}
        }
    }
    let nothing = Copy::default();
    for copy in &kept.copies {
        let place = format!("{place}, copy for {}", copy.agency);
        let logged = told.copies.get(&copy.agency);
        if !logged.is_some_and(Copy::is_released) && !told.lacks_decisions {
            let found = "it waits or is set aside, and the log does not tell that anything was released to that agency";
            faults.add("copy_without_release", place, found, CHANGED);
            continue;
        }
        let logged = logged.unwrap_or(&nothing);
        if !told.lacks_outcomes
            && let Some((code, found)) = state(copy, logged)
        {
            faults.add(code, &place, found, CHANGED);
        }
        if Some(&copy.queue) != queue(domain, row, copy).as_ref() {
            let found = format!("it waits in the queue `{}`, which is not its recipient's", copy.queue);
            faults.add("changed_copy", &place, found, CHANGED);
        }
        if let Some(found) = released(row, copy, logged, content.as_ref(), gateway) {
            faults.add("changed_copy", &place, found, CHANGED);
        }
    }
    let waits: BTreeSet<&str> = kept.copies.iter().map(|copy| copy.agency.as_str()).collect();
    for recipient in told.open().filter(|recipient| !waits.contains(recipient)) {
        let found =
            "the log tells that it was released and of no end, and it waits nowhere: it was removed by hand";
        faults.add("copy_removed", format!("{place}, copy for {recipient}"), found, CHANGED);
    }
}

/// What is wrong with how a copy stands.
fn state(copy: &CopyRow, logged: &Copy) -> Option<(&'static str, &'static str)> {
    if copy.forwarded {
        let is_with_peer = match logged.end {
            None => logged.forwarded,
            Some(End::Undeliverable) => true,
            Some(End::Over | End::Quarantined) => false,
        };
        return (!is_with_peer).then_some((
            "forwarded_without_leaf",
            "a peer counts as having it, and the log does not tell that the peer accepted it, or tells its end",
        ));
    }
    match (copy.quarantined, &logged.end) {
        (true, Some(End::Quarantined)) => {}
        (true, _) => {
            return Some(("changed_copy", "it is set aside as evidence, and the log does not tell of that"));
        }
        (false, Some(_)) => {
            return Some((
                "copy_after_end",
                "it waits, and the log tells its end: it would be delivered once more",
            ));
        }
        (false, None) => {}
    }
    let flags = (copy.handed_over, copy.handed_over || !copy.offered);
    (flags != (logged.handed_over, true)).then_some((
        "changed_copy",
        "whether it was handed over or offered is marked otherwise than the log tells",
    ))
}

/// The queue that a copy belongs into.
fn queue(domain: &Domain, row: &MessageRow, copy: &CopyRow) -> Option<String> {
    let (from, to): (AgencyAddress, AgencyAddress) = (row.sender.parse().ok()?, copy.agency.parse().ok()?);
    let queue = if copy.forwarded { Queue::Agency(to) } else { delivery::queue(domain, &from, &to) };
    Some(queue.to_string())
}

/// What is wrong with what a copy releases.
fn released(
    row: &MessageRow,
    copy: &CopyRow,
    logged: &Copy,
    content: Option<&Envelope>,
    gateway: &VerifyingKey,
) -> Option<&'static str> {
    if copy.forwarded && copy.decision.is_empty() {
        return None;
    }
    let Ok(decision) = RecipientDecision::decode(copy.decision.as_slice()) else {
        return Some("its decision can't be read");
    };
    let stands = evidence::decision(&decision);
    if logged.decision.is_some() && !logged.decision.iter().chain(&logged.since).any(|one| *one == stands) {
        return Some("its decision is not the one that the log tells: other sections would go");
    }
    let record = SignedReleaseRecord::decode(copy.release.as_slice())
        .ok()
        .and_then(|signed| statement::read::<ReleaseRecord>(&signed, gateway).ok());
    let Some(record) = record else {
        return Some("its release record is not signed by this gateway: it was changed");
    };
    if (record.message_id.as_ref(), record.manifest_digest.as_ref(), record.recipient.as_str())
        != (row.id.as_slice(), row.digest.as_slice(), copy.agency.as_str())
    {
        return Some("its release record is that of another copy");
    }
    let categories: BTreeSet<i32> = decision
        .categories
        .iter()
        .filter(|category| CategoryDecision::verdict(category) == Verdict::Released)
        .map(|category| category.category)
        .collect();
    let positions = delivery::positions(&record);
    let sections = content.map_or(&[][..], |content| content.sections.as_slice());
    let goes = sections.iter().filter(|section| positions.contains(&section.position)).all(|section| {
        let category = delivery::category(section).map(i32::from);
        category.is_ok_and(|category| categories.contains(&category))
    });
    (!goes).then_some("its release record is an earlier one, which lets more go than the decision")
}
