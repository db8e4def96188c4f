//! Whether the database goes on from the head in the guard file.

use std::collections::BTreeSet;

use liaison_trust::{
    digest::Digest,
    keys::SigningKey,
    log::{Checkpoint, Note, Tile, root, root_nodes},
    names::Domain,
};

use super::fault::{CHANGED, Faults};
use crate::{
    log::{LogError, log_key},
    store::{LogHead, LogKind, Snapshot},
};

const REOPEN: &str = "restore the newest copy that there is, and run `liaison-gateway log reopen` if it is older than the guard file";

/// Compares the newest log of a kind, and that there is one, with the head that the guard file has.
///
/// # Errors
/// The database can't be read.
pub(super) async fn examine(
    snapshot: &mut Snapshot,
    kind: LogKind,
    logs: &[LogHead],
    guard: Option<&Note>,
    (domain, gateway): (&Domain, &SigningKey),
    faults: &mut Faults,
) -> Result<(), LogError> {
    let place = format!("{domain}/{}", kind.name());
    let Some(newest) = logs.last() else {
        faults.add("no_log", place, "there is no such log: it was removed", CHANGED);
        return Ok(());
    };
    if logs.first().is_none_or(|first| first.number != 1) {
        faults.add(
            "log_removed",
            &place,
            "its first log, of number 1, is not there: it was removed",
            CHANGED,
        );
    }
    for log in logs {
        let Some(note) = &log.cosigned else { continue };
        let cosigned = Note::parse(note).ok().and_then(|note| read(&note, kind, domain, gateway));
        let held = match &cosigned {
            Some((number, head)) if *number == log.number => held(snapshot, log, head.size()).await?,
            _ => None,
        };
        if held.is_none() || held != cosigned.map(|(_, head)| head.root()) {
            let found = "the head that witnesses cosigned is none that the leaves in this database lead to: it was changed";
            faults.add("wrong_cosigned", format!("{place}/{}", log.number), found, CHANGED);
        }
    }
    let Some((number, head)) = guard.and_then(|note| read(note, kind, domain, gateway)) else {
        return Ok(());
    };
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
    } else if number == newest.number
        && held(snapshot, newest, head.size()).await?.is_some_and(|root| root != head.root())
    {
        let found = format!(
            "the guard file has a head of {} of {} leaves that the leaves in this database do not lead to: it is another \
             copy, and two histories were signed",
            head.origin(),
            head.size()
        );
        faults.add("other_copy", place, found, REOPEN);
    }
    Ok(())
}

/// The root of the first leaves of a log, as the tiles have it; none where they are damaged.
pub(super) async fn held(
    snapshot: &mut Snapshot,
    log: &LogHead,
    size: u64,
) -> Result<Option<Digest>, LogError> {
    let nodes = root_nodes(size);
    let tiles: BTreeSet<Tile> = nodes.into_iter().filter_map(|node| Tile::holding(node, log.size)).collect();
    let hashes = snapshot.tiles(log.log, tiles).await?;
    Ok(root(size, |node| hashes.hash(node)).ok())
}

/// The head in the guard file, if this gateway signed it, with the number of its log.
fn read(note: &Note, kind: LogKind, domain: &Domain, gateway: &SigningKey) -> Option<(u32, Checkpoint)> {
    let checkpoint: Checkpoint = note.text().parse().ok()?;
    let number = checkpoint.origin().rsplit_once('/')?.1.parse().ok()?;
    let key = log_key(domain, kind, number, gateway).ok()?;
    Some((number, key.open(note).ok()?))
}
