//! Whether a message that is remembered has the leaf of its acceptance, which says the same.

use liaison_proto::{
    log::v1::Decision,
    message::v1::{Acceptance, Acceptances, SignedAcceptance},
    strict,
};
use liaison_trust::{keys::VerifyingKey, names::Domain, statement};
use prost::Message;

use super::{
    fault::{CHANGED, Faults},
    told::{Told, told_of},
};
use crate::{delivery::evidence, store::MessageRow};

/// Looks at a message of a domain's gateway, at a place, with what the leaves about it tell.
pub(super) fn examine(
    row: &MessageRow,
    place: &str,
    told: &Told,
    (domain, gateway): (&Domain, &VerifyingKey),
    faults: &mut Faults,
) {
    if told.accepted.is_empty() && !told.lacks_decisions {
        let found = "it is remembered as accepted, and no leaf tells of its acceptance: the leaf was removed, or the \
                     log is older than the messages";
        faults.add("message_without_leaf", place, found, CHANGED);
        return;
    }
    if told.accepted.iter().any(|accepted| accepted.manifest_digest != row.digest) {
        let found = "its digest is not the one that the leaf of its acceptance has: it would be taken for another message";
        faults.add("changed_message", place, found, CHANGED);
    }
    if row.acceptance.is_empty() && told.lacks_decisions {
        return;
    }
    if told.accepted.is_empty() {
        let found = "the record of its acceptance was erased, and the acceptance itself stands there";
        faults.add("changed_acceptance", place, found, CHANGED);
        return;
    }
    let is_own = row.sender.split('/').next() == Some(domain.as_str());
    let Some(acceptances) = acceptances(row, is_own, gateway) else {
        let found = "its acceptance can't be read, or is not signed by this gateway: it was changed";
        faults.add("changed_acceptance", place, found, CHANGED);
        return;
    };
    let answered: Vec<Decision> =
        acceptances.iter().flat_map(|acceptance| &acceptance.decisions).map(evidence::decision).collect();
    let logged = told.accepted.iter().flat_map(|accepted| &accepted.decisions).map(told_of);
    if !told.lacks_decisions && answered != logged.collect::<Vec<_>>() {
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
