//! Whether a log that takes the place of another one begins with what it takes over: the head of the one before, or its keys.

use liaison_trust::{keys::SigningKey, log::Note, names::Domain};

use super::{
    fault::{CHANGED, Faults},
    guard,
};
use crate::{
    log::{LogError, log_key},
    store::{LogHead, LogKind, Snapshot},
};

/// Whether a log that takes the place of another one has a leaf; `logs` are all of its kind. A log of keys that held none has
/// none to give.
///
/// # Errors
/// The database can't be read.
pub async fn examine_begun(
    snapshot: &mut Snapshot,
    logs: &[LogHead],
    head: &LogHead,
    origin: &str,
    faults: &mut Faults,
) -> Result<(), LogError> {
    if head.number == 1 || !snapshot.leaves(head.log, 0, 1).await?.is_empty() {
        return Ok(());
    }
    if head.kind == LogKind::Keys {
        let before = logs.iter().rev().find(|log| log.number < head.number);
        let Some(before) = before else { return Ok(()) };
        if snapshot.leaves(before.log, 0, 1).await?.is_empty() {
            return Ok(());
        }
    }
    let found =
        "it took the place of another log, and has no leaf that was taken over: it was written by hand";
    faults.add("wrong_previous", origin, found, CHANGED);
    Ok(())
}

/// Looks at the head that the first leaf of a log names, at a place; `logs` are all of its kind.
///
/// # Errors
/// The database can't be read.
pub(super) async fn examine(
    snapshot: &mut Snapshot,
    (head, logs): (&LogHead, &[LogHead]),
    previous: &str,
    (domain, gateway): (&Domain, &SigningKey),
    place: &str,
    faults: &mut Faults,
) -> Result<(), LogError> {
    let named = Note::parse(previous.as_bytes()).ok().and_then(|note| {
        let origin = note.text().lines().next()?;
        let number: u32 = origin.rsplit_once('/')?.1.parse().ok()?;
        let key = log_key(domain, head.kind, number, gateway).ok()?;
        Some((number, key.open(&note).ok()?))
    });
    let Some((number, named)) = named.filter(|(number, _)| *number < head.number) else {
        let found =
            "the head that it names as the one before is none that this gateway signed of an earlier log";
        faults.add("wrong_previous", place, found, CHANGED);
        return Ok(());
    };
    if logs.iter().any(|log| number < log.number && log.number < head.number) {
        let found =
            format!("it names a head of {}, and there is a later log before this one", named.origin());
        faults.add("wrong_previous", place, found, CHANGED);
    }
    // A smaller database is what the new log was opened for, or of another log; then nothing can be compared.
    let before = logs.iter().find(|log| log.number == number && log.size >= named.size());
    if let Some(before) = before {
        let held = guard::held(snapshot, before, named.size()).await?;
        if held != Some(named.root()) {
            let found = format!(
                "it names a head of {} that the leaves in this database do not lead to: two histories of it were signed",
                named.origin()
            );
            faults.add("wrong_previous", place, found, CHANGED);
        }
    }
    Ok(())
}
