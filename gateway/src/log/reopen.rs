//! A new log in the place of one that the database is behind: by an administrator's word, after a restore from an older
//! copy.

use liaison_proto::log::v1::{Opened, record::Event};
use time::OffsetDateTime;

use super::{Guard, Log, LogError, Shown, guard_file};
use crate::{
    data::DataFolder,
    store::{Act, LogKind, NewLeaf, Store},
};
use liaison_trust::{keys::SigningKey, names::Domain};

/// A log that was opened.
#[derive(Debug, Clone)]
pub struct Reopened {
    /// The new log's origin.
    pub origin: String,
    /// The origin of the log before, whose head it names, and the leaves under that.
    pub before: (String, u64),
}

/// Opens a new log for each that the guard file is ahead of. The first leaf of the new log of evidence names the head of
/// the one before; the new log of keys holds the key records of this database.
///
/// # Errors
/// The folder or its database can't be read.
pub async fn reopen(
    folder: &DataFolder,
    (store, domain, gateway): (&Store, &Domain, &SigningKey),
    act: Act<'_>,
) -> Result<Vec<Reopened>, LogError> {
    let mut reopened = Vec::new();
    for kind in [LogKind::Evidence, LogKind::Keys] {
        let log = Log::load(store, kind, domain, gateway, folder.path()).await?;
        let Some(note) = Guard::read(&guard_file(folder.path(), kind))? else { continue };
        if log.stands(&note).await? != Shown::Ahead {
            continue;
        }
        let Some((checkpoint, number)) = log.own(&note) else { continue };
        let number = number.max(log.number) + 1;
        let first = match kind {
            LogKind::Evidence => Some(opened(&note.to_string(), act.at)?),
            LogKind::Keys => None,
        };
        store.reopen_log(kind, number, first, act).await?;
        // So that nobody who asks finds it without a head.
        Log::load(store, kind, domain, gateway, folder.path()).await?.grow().await?;
        reopened.push(Reopened {
            origin: super::origin(domain, kind, number)?.to_string(),
            before: (checkpoint.origin().to_owned(), checkpoint.size()),
        });
    }
    Ok(reopened)
}

fn opened(previous: &str, at: OffsetDateTime) -> Result<NewLeaf, LogError> {
    Ok(NewLeaf::new(Event::Opened(Opened { previous: previous.to_owned() }), at)?)
}
