//! Whether a message that is remembered has the leaf of its acceptance, which says the same.

use liaison_proto::{
    log::v1::{Accepted, Decision, Record, record::Event},
    message::v1::{Acceptance, Acceptances, SignedAcceptance},
    strict,
};
use liaison_trust::{keys::VerifyingKey, names::Domain, statement};
use prost::Message;
use uuid::Uuid;

use super::fault::{CHANGED, Faults};
use crate::{
    delivery::evidence,
    store::{LeafRow, MessageRow},
};

/// Looks at a message of a domain's gateway with the leaves about it, of all its logs in their order.
pub(super) fn examine(
    row: &MessageRow,
    leaves: &[LeafRow],
    (domain, gateway): (&Domain, &VerifyingKey),
    faults: &mut Faults,
) {
    let id = Uuid::from_slice(&row.id).map_or_else(|_| hex::encode(&row.id), |id| id.to_string());
    let place = format!("message {id} of {}", row.sender);
    let records = leaves.iter().filter_map(|leaf| Record::decode(leaf.record.as_deref()?).ok());
    let accepted: Vec<Accepted> = records
        .filter_map(|record| match record.event {
            Some(Event::Accepted(accepted)) if accepted.sender == row.sender => Some(accepted),
            _ => None,
        })
        .collect();
    let is_erased = leaves.iter().any(|leaf| leaf.record.is_none());
    if accepted.is_empty() {
        if !is_erased {
            let found = "it is remembered as accepted, and no leaf tells of its acceptance: the leaf was removed, or the \
                         log is older than the messages";
            faults.add("message_without_leaf", place, found, CHANGED);
        }
        return;
    }
    if accepted.iter().any(|accepted| accepted.manifest_digest != row.digest) {
        let found = "its digest is not the one that the leaf of its acceptance has: it would be taken for another message";
        faults.add("changed_message", place.clone(), found, CHANGED);
    }
    let is_own = row.sender.split('/').next() == Some(domain.as_str());
    let Some(told) = acceptances(row, is_own, gateway) else {
        let found = "its acceptance can't be read, or is not signed by this gateway: it was changed";
        faults.add("changed_acceptance", place, found, CHANGED);
        return;
    };
    let told: Vec<Decision> =
        told.iter().flat_map(|acceptance| &acceptance.decisions).map(evidence::decision).collect();
    let logged = accepted.iter().flat_map(|accepted| &accepted.decisions).map(told_of);
    if !is_erased && told != logged.collect::<Vec<_>>() {
        let found = "its acceptance tells its sender other decisions than the log does";
        faults.add("changed_acceptance", place, found, CHANGED);
    }
}

/// What was answered for a message, signed by this gateway: for one of its own agencies a single acceptance, for a peer
/// one for each recipient.
fn acceptances(row: &MessageRow, is_own: bool, gateway: &VerifyingKey) -> Option<Vec<Acceptance>> {
    let signed = if is_own {
        vec![SignedAcceptance::decode(row.acceptance.as_slice()).ok()?]
    } else {
        strict::decode::<Acceptances>(&row.acceptance).ok()?.acceptances
    };
    let read = signed.iter().map(|signed| statement::read::<Acceptance>(signed, gateway).ok());
    let read: Vec<Acceptance> = read.collect::<Option<_>>()?;
    let are_of_it = read.iter().all(|one| one.message_id == row.id && one.manifest_digest == row.digest);
    are_of_it.then_some(read)
}

/// A decision of the log as far as its sender is told it.
fn told_of(logged: &Decision) -> Decision {
    let mut told = logged.clone();
    told.categories.iter_mut().for_each(|category| category.permitted_by = 0);
    told
}
