//! Whether the database goes on from the head in the guard file.

use liaison_trust::{
    keys::SigningKey,
    log::{Checkpoint, Note},
    names::Domain,
};

use super::fault::{CHANGED, Faults};
use crate::{
    log::log_key,
    store::{LogHead, LogKind},
};

const REOPEN: &str = "restore the newest copy that there is, and run `liaison-gateway log reopen` if it is older than the guard file";

/// Compares the newest log of a kind, and that there is one, with the head that the guard file has.
pub(super) fn examine(
    kind: LogKind,
    logs: &[LogHead],
    guard: Option<&Note>,
    (domain, gateway): (&Domain, &SigningKey),
    faults: &mut Faults,
) {
    let place = format!("{domain}/{}", kind.name());
    let Some(newest) = logs.last() else {
        return faults.add("no_log", place, "there is no such log: it was removed", CHANGED);
    };
    if logs.first().is_none_or(|first| first.number != 1) {
        faults.add(
            "log_removed",
            &place,
            "its first log, of number 1, is not there: it was removed",
            CHANGED,
        );
    }
    let Some((number, head)) = guard.and_then(|note| read(note, kind, domain, gateway)) else { return };
    let is_ahead = number > newest.number
        || (number == newest.number
            && (head.size() > newest.size || (newest.checkpoint.is_none() && head.size() > 0)));
    if is_ahead {
        let found = format!(
            "the guard file has the head of {} of {} leaves, and the database holds {} of {place}/{}: it is an older copy, \
             or was emptied",
            head.origin(),
            head.size(),
            newest.size,
            newest.number
        );
        faults.add("older_copy", place, found, REOPEN);
    }
}

/// The head in the guard file, if this gateway signed it, with the number of its log.
fn read(note: &Note, kind: LogKind, domain: &Domain, gateway: &SigningKey) -> Option<(u32, Checkpoint)> {
    let checkpoint: Checkpoint = note.text().parse().ok()?;
    let number = checkpoint.origin().rsplit_once('/')?.1.parse().ok()?;
    let key = log_key(domain, kind, number, gateway).ok()?;
    Some((number, key.open(note).ok()?))
}
