//! The record of what a recipient gets.

use std::collections::BTreeSet;

use liaison_proto::{
    message::v1::{ReleaseRecord, ReleasedSection, data_category::Code as Category},
    times,
};
use liaison_trust::{digest::Digest, names::AgencyAddress};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::policy::{Decision, PolicySet};

/// The record of what a decision releases to a recipient, out of the sections that the message has.
pub fn release(
    message: (Uuid, Digest),
    recipient: &AgencyAddress,
    sections: &[(Category, u32)],
    decision: &Decision,
    policies: &PolicySet,
    now: OffsetDateTime,
) -> ReleaseRecord {
    let mut record = empty(message, recipient, policies, now);
    let released: BTreeSet<_> = decision.released().collect();
    for (category, position) in sections {
        let Some(outcome) = decision.categories.get(category) else { continue };
        if released.contains(category) {
            record.released.push(ReleasedSection {
                position: *position,
                retention_days: outcome.retention_days,
                onward_share: outcome.onward_share,
                use_as_evidence: outcome.use_as_evidence,
            });
        } else if outcome.name_withheld {
            record.withheld.push((*category).into());
        }
    }
    // In the order of positions and categories, so that the order tells nothing.
    record.released.sort_by_key(|section| section.position);
    record.withheld.sort_unstable();
    record
}

/// The record that goes with a message inside a thread: it has no sections, and no policy is asked.
pub fn thread_release(
    message: (Uuid, Digest),
    recipient: &AgencyAddress,
    policies: &PolicySet,
    now: OffsetDateTime,
) -> ReleaseRecord {
    empty(message, recipient, policies, now)
}

/// The positions that a record releases.
pub fn positions(record: &ReleaseRecord) -> Vec<u32> {
    record.released.iter().map(|section| section.position).collect()
}

fn empty(
    (id, digest): (Uuid, Digest),
    recipient: &AgencyAddress,
    policies: &PolicySet,
    now: OffsetDateTime,
) -> ReleaseRecord {
    ReleaseRecord {
        message_id: bytes::Bytes::copy_from_slice(id.as_bytes()),
        manifest_digest: digest.into(),
        recipient: recipient.to_string(),
        policy_hash: policies.hash().into(),
        scheme_hash: policies.scheme_hash().into(),
        decided_at: Some(times::to_wire(now)),
        released: Vec::new(),
        withheld: Vec::new(),
    }
}
