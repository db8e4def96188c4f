//! Whether a log that takes the place of another one begins with the head of the one before.

use std::collections::BTreeSet;

use liaison_trust::{
    keys::SigningKey,
    log::{Note, Tile, root, root_nodes},
    names::Domain,
};

use super::fault::{CHANGED, Faults};
use crate::{
    log::{LogError, log_key},
    store::{LogHead, Snapshot},
};

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
        let nodes = root_nodes(named.size());
        let tiles: BTreeSet<Tile> =
            nodes.into_iter().filter_map(|node| Tile::holding(node, before.size)).collect();
        let hashes = snapshot.tiles(before.log, tiles).await?;
        let held = root(named.size(), |node| hashes.hash(node));
        if !held.is_ok_and(|held| held == named.root()) {
            let found = format!(
                "it names a head of {} that the leaves in this database do not lead to: two histories of it were signed",
                named.origin()
            );
            faults.add("wrong_previous", place, found, CHANGED);
        }
    }
    Ok(())
}
