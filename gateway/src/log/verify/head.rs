//! Whether the head of a log is what this gateway signed.

use std::collections::BTreeSet;

use liaison_trust::log::{Checkpoint, LogKey, Note, Tile, root, root_nodes};

use super::fault::{CHANGED, Faults, HEAD, TILES};
use crate::{
    limits,
    log::LogError,
    store::{LogHead, Snapshot, Stager},
};

/// What is wrong with a leaf without the gateway's code.
pub(super) const FOREIGN: &str = "this gateway did not stage it: it was written into the database by hand, or the code \
                                  beside it was changed";

/// Looks at leaves that wait for the next head of a log, a page of them: whether the gateway staged them.
///
/// # Errors
/// The database can't be read.
pub async fn examine_staged(
    snapshot: &mut Snapshot,
    head: &LogHead,
    (key, stager): (&LogKey, &Stager),
    faults: &mut Faults,
) -> Result<(), LogError> {
    for row in snapshot.leaves(head.log, head.size, limits::LOG_PAGE).await? {
        if !row.is_staged(stager, (head.kind, head.number)) {
            faults.add("foreign_leaf", format!("{}, leaf {}", key.name(), row.index()), FOREIGN, CHANGED);
        }
    }
    Ok(())
}

/// The head of a log as it was signed, and whether the tiles lead to its root.
///
/// # Errors
/// The database can't be read.
pub async fn examine_head(
    snapshot: &mut Snapshot,
    head: &LogHead,
    key: &LogKey,
    faults: &mut Faults,
) -> Result<Option<Checkpoint>, LogError> {
    let signed = checkpoint(head, key, faults);
    let nodes = root_nodes(head.size);
    let tiles: BTreeSet<Tile> = nodes.into_iter().filter_map(|node| Tile::holding(node, head.size)).collect();
    let hashes = snapshot.tiles(head.log, tiles).await?;
    match (root(head.size, |node| hashes.hash(node)), &signed) {
        (Ok(root), Some(signed)) if root != signed.root() && signed.size() == head.size => {
            let found =
                "its tiles lead to another root than its checkpoint says: tiles or checkpoint were changed";
            faults.add("other_root", key.name().as_str(), found, CHANGED);
        }
        (Err(error), _) => faults.add("missing_tile", key.name().as_str(), error.to_string(), TILES),
        _ => {}
    }
    Ok(signed)
}

/// The signed checkpoint of a head.
pub(super) fn checkpoint(head: &LogHead, key: &LogKey, faults: &mut Faults) -> Option<Checkpoint> {
    let origin = key.name().as_str();
    let Some(bytes) = &head.checkpoint else {
        if head.size > 0 {
            faults.add(
                "no_checkpoint",
                origin,
                format!("it has {} leaves, and no checkpoint", head.size),
                HEAD,
            );
        }
        return None;
    };
    let opened = Note::parse(bytes).map_err(LogError::from).and_then(|note| Ok(key.open(&note)?));
    let opened =
        opened.map_err(|error| faults.add("foreign_checkpoint", origin, error.to_string(), HEAD)).ok()?;
    if opened.size() != head.size {
        let found =
            format!("{} leaves are under its checkpoint, and its size says {}", opened.size(), head.size);
        faults.add("other_size", origin, found, CHANGED);
    }
    Some(opened)
}
