//! A new log in the place of one that the database is behind: by an administrator's word, after a restore from an older
//! copy. The one before is never signed again, for nobody knows what was signed of it: its head is the last that the
//! database holds, and what was staged behind that goes into the new log.

use liaison_proto::log::v1::{Opened, record::Event};
use time::OffsetDateTime;
use tracing::warn;

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
        let Shown::Ahead(ahead) = log.stands(&note).await? else { continue };
        let highest = ahead.number.max(log.number);
        let number = number(act.at, highest)
            .ok_or_else(|| LogError::NoNumber(ahead.checkpoint.origin().to_owned()))?;
        let first = match kind {
            LogKind::Evidence => Some(opened(&note.to_string(), act.at)?),
            LogKind::Keys => None,
        };
        store.reopen_log(kind, number, first, act).await?;
        // So that nobody who asks finds it without a head.
        Log::load(store, kind, domain, gateway, folder.path()).await?.grow().await?;
        reopened.push(Reopened {
            origin: super::origin(domain, kind, number)?.to_string(),
            before: (ahead.checkpoint.origin().to_owned(), ahead.checkpoint.size()),
        });
    }
    Ok(reopened)
}

/// The number of a log that is opened now: the moment in Unix seconds, so that two restores never open the same log,
/// whatever they know of one another. It is higher than all that are known: where the clock is behind those, by chance.
fn number(at: OffsetDateTime, highest: u32) -> Option<u32> {
    let now = u32::try_from(at.unix_timestamp()).unwrap_or_default();
    if now > highest {
        return Some(now);
    }
    warn!("the clock is behind the moment at which the log before was opened: set it");
    highest.checked_add(1)?.checked_add(rand::random::<u16>().into())
}

fn opened(previous: &str, at: OffsetDateTime) -> Result<NewLeaf, LogError> {
    Ok(NewLeaf::new(Event::Opened(Opened { previous: previous.to_owned() }), at)?)
}
