//! Whether a leaf is what was signed: its record, its salt, its entry, and the columns that it is found by.

use liaison_proto::{
    log::v1::{Record, record::Event},
    strict,
};
use liaison_trust::{digest::Digest, log::leaf_hash};
use time::OffsetDateTime;

use super::fault::{CHANGED, Faults};
use crate::store::{About, LeafRow};

/// What a sound leaf says.
pub(super) struct Said {
    pub(super) at: Option<OffsetDateTime>,
    pub(super) event: Event,
}

/// Looks at a leaf of the log of evidence at a place; `signed` is the hash that the tiles have of it. What its record
/// says, unless it was erased or is not sound.
pub(super) fn examine(
    row: &LeafRow,
    signed: Option<Digest>,
    place: &str,
    faults: &mut Faults,
) -> Option<Said> {
    if row.entry.len() != 32 {
        faults.add("changed_entry", place, "its entry has not 32 bytes: it was changed", CHANGED);
        return None;
    }
    if row.salt.is_none() && row.record.is_none() {
        if !row.readers.is_empty() {
            let found = "its record was erased, and who may have it was not: both go together";
            faults.add("changed_column", place, found, CHANGED);
        }
        return None;
    }
    let Some(salted) = row.salted() else {
        faults.add("changed_salt", place, "its salt has not 32 bytes, or its record is too long", CHANGED);
        return None;
    };
    if salted.entry().as_bytes().as_slice() != row.entry {
        let (code, found) = if signed == Some(salted.entry().leaf_hash()) {
            ("changed_entry", "its entry was changed; its record is the one that was signed")
        } else if signed == Some(leaf_hash(&row.entry)) {
            (
                "changed_record",
                "its record or its salt was changed: they are not what its signed entry commits to",
            )
        } else {
            (
                "changed_record",
                "record, salt and entry don't belong together, and none is the one that was signed",
            )
        };
        faults.add(code, place, found, CHANGED);
        return None;
    }
    let record: Record = match strict::decode(salted.record()) {
        Ok(record) => record,
        Err(error) => {
            let action = "verify with the version of the gateway that wrote it";
            faults.add("unreadable_record", place, error.to_string(), action);
            return None;
        }
    };
    let at = record.at.as_ref().and_then(liaison_proto::times::from_wire);
    let Some(event) = record.event else {
        faults.add("unreadable_record", place, "its record says nothing", CHANGED);
        return None;
    };
    for column in differing(row, &event) {
        let found =
            format!("its column `{column}` is not what its record says: it would be found by the wrong one");
        faults.add("changed_column", place, found, CHANGED);
    }
    Some(Said { at, event })
}

/// The columns that don't follow from the record.
fn differing(row: &LeafRow, event: &Event) -> Vec<&'static str> {
    let Ok(About { message, thread, readers }) = About::of(event) else { return vec!["message"] };
    let readers: Vec<String> = readers.iter().map(ToString::to_string).collect();
    let same = |id: Option<uuid::Uuid>, column: &Option<Vec<u8>>| {
        id.as_ref().map(|id| id.as_bytes().as_slice()) == column.as_deref()
    };
    let columns = [
        ("message", same(message, &row.message)),
        ("thread", same(thread, &row.thread)),
        ("readers", readers.join(" ") == row.readers),
    ];
    columns.into_iter().filter(|(_, same)| !same).map(|(column, _)| column).collect()
}
