//! Whether the threads that authorise states are those of the referrals that the log tells of.

use liaison_proto::{
    log::v1::{Accepted, Record, record::Event},
    message::v1::{kind::Code as Kind, verdict::Code as Verdict},
    strict,
};

use super::fault::{CHANGED, Faults};
use crate::store::{LeafRow, ThreadRow};

/// The requester and the responder of the thread that an acceptance opened; none where it opened none.
pub(super) fn opened(accepted: &Accepted) -> Option<(&str, &str)> {
    let responder = accepted.decisions.first().filter(|one| one.verdict() == Verdict::Released)?;
    (accepted.kind() == Kind::Referral).then_some((&accepted.sender, &responder.recipient))
}

/// Looks at a thread with the leaves that have it beside them.
pub(super) fn examine(row: &ThreadRow, leaves: &[LeafRow], faults: &mut Faults) {
    let ThreadRow { thread, requester, responder } = row;
    let place = format!("thread {}", super::id(thread));
    let accepted: Vec<Accepted> = leaves
        .iter()
        .filter_map(|leaf| match strict::decode::<Record>(leaf.record.as_deref()?).ok()?.event? {
            Event::Accepted(accepted) => Some(accepted),
            _ => None,
        })
        .collect();
    let mut parties = accepted.iter().filter_map(opened).peekable();
    if parties.peek().is_none() {
        if leaves.iter().all(|leaf| leaf.record.is_some()) {
            let found = "no leaf tells of the referral that opened it: it was put in by hand";
            faults.add("thread_without_leaf", place, found, CHANGED);
        }
    } else if !parties.any(|parties| parties == (requester, responder)) {
        let found =
            "its parties are not those of the referral that opened it: others could say how it stands";
        faults.add("changed_thread", place, found, CHANGED);
    }
}
