//! The rollback guard: a gateway that was restored from an older copy does not go on behind a head that it signed. The
//! highest is kept in a file beside the database; peers and agents show what they saw.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use liaison_trust::log::{Checkpoint, LogKey, Note, log_number};
use tokio::sync::Notify;
use tracing::error;

use super::{Behind, Head, Log, LogError};
use crate::data::{DataError, write_private};

/// The file of one log.
#[derive(Debug)]
pub struct Guard {
    file: PathBuf,
    /// The highest head that was shown and that the log does not go on from.
    ahead: Mutex<Option<Ahead>>,
    found: Notify,
}

/// How a head that was shown stands to a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// The log goes on from it; or it is an older log's, or nobody's.
    Known,
    /// This log's key signed it, and it is not in the log.
    Ahead(Ahead),
}

/// A head that this gateway signed and its database does not go on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    /// Of the log that it is a head of.
    pub(super) number: u32,
    pub(super) checkpoint: Checkpoint,
    behind: Behind,
}

impl Shown {
    /// Nothing where the log goes on from it.
    ///
    /// # Errors
    /// It does not.
    pub fn known(self) -> Result<(), LogError> {
        match self {
            Self::Known => Ok(()),
            Self::Ahead(ahead) => Err(ahead.into()),
        }
    }
}

impl From<Ahead> for LogError {
    fn from(Ahead { checkpoint, behind, .. }: Ahead) -> Self {
        Self::Ahead { origin: checkpoint.origin().to_owned(), size: checkpoint.size(), behind }
    }
}

impl Guard {
    /// The guard of a log that is kept in this file.
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, ahead: Mutex::default(), found: Notify::new() }
    }

    /// The head in the file; none before the first.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn read(file: &Path) -> Result<Option<Note>, DataError> {
        match std::fs::read(file) {
            Ok(bytes) => {
                let damaged = |error: &dyn std::fmt::Display| DataError::Damaged {
                    path: file.to_owned(),
                    fault: error.to_string(),
                };
                Note::parse(&bytes).map(Some).map_err(|error| damaged(&error))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DataError::Unreadable { path: file.to_owned(), source }),
        }
    }

    /// The file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The highest head so far that somebody showed and the log does not go on from, once there is one.
    pub async fn ahead(&self) -> Ahead {
        loop {
            let found = self.found.notified();
            if let Some(ahead) = self.known_ahead().clone() {
                return ahead;
            }
            found.await;
        }
    }

    /// Whether there is none.
    pub(super) fn is_clear(&self) -> bool {
        self.known_ahead().is_none()
    }

    /// Writes the newest head of the log into the file, unless a head stands there that the log does not go on from.
    pub(super) fn keep(&self, note: &Note) -> Result<(), DataError> {
        let ahead = self.known_ahead();
        if ahead.is_none() && Self::read(&self.file)?.as_ref() != Some(note) {
            write_private(&self.file, note.to_string().as_bytes())?;
        }
        Ok(())
    }

    /// Writes a head that the log does not go on from into the file, if it is higher than those of before: the one that a
    /// new log has to name. True for the first.
    fn refuse(&self, ahead: &Ahead, note: &Note) -> Result<bool, DataError> {
        let rank = |ahead: &Ahead| (ahead.number, ahead.checkpoint.size());
        let mut known = self.known_ahead();
        let is_first = known.is_none();
        if known.as_ref().is_none_or(|known| rank(known) < rank(ahead)) {
            *known = Some(ahead.clone());
            write_private(&self.file, note.to_string().as_bytes())?;
        }
        Ok(is_first)
    }

    fn known_ahead(&self) -> MutexGuard<'_, Option<Ahead>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Looks at a head of this log that somebody shows. One that it does not go on from is written into the guard file,
    /// the highest of them, and the log grows no more.
    ///
    /// # Errors
    /// The store lacks tiles, or the file can't be written.
    pub async fn shown(&self, note: &Note) -> Result<Shown, LogError> {
        let shown = self.stands(note).await?;
        if let Shown::Ahead(ahead) = &shown {
            self.refuse(ahead, note)?;
        }
        Ok(shown)
    }

    /// The database holds fewer leaves than are under the head that this gateway stands by: it is an older copy.
    pub(super) fn is_behind(&self, known: &Head, leaves: u64) -> Result<(), LogError> {
        let Some(note) = &known.note else { return Ok(()) };
        let Some((checkpoint, number)) = self.own(note) else { return Ok(()) };
        let ahead = Ahead { number, checkpoint, behind: Behind::Fewer(leaves) };
        self.refuse(&ahead, note)?;
        Err(ahead.into())
    }

    fn refuse(&self, ahead: &Ahead, note: &Note) -> Result<(), LogError> {
        if self.guard.refuse(ahead, note)? {
            error!(
                log = %self.signer.key().name(),
                "this gateway signed a head that its database does not hold: it is an older copy"
            );
            self.guard.found.notify_waiters();
        }
        Ok(())
    }

    /// How a head stands to this log.
    pub(super) async fn stands(&self, note: &Note) -> Result<Shown, LogError> {
        let Some((checkpoint, number)) = self.own(note) else { return Ok(Shown::Known) };
        if number == self.number && checkpoint.size() > self.head().size {
            // Another gateway of the domain may have signed it a moment ago.
            self.follow().await?;
        }
        let known = self.head().size;
        let behind = if number > self.number {
            Behind::NoSuchLog
        } else if number < self.number {
            return Ok(Shown::Known);
        } else if checkpoint.size() > known {
            Behind::Fewer(known)
        } else if self.tree.root(checkpoint.size(), known).await? != checkpoint.root() {
            Behind::Others
        } else {
            return Ok(Shown::Known);
        };
        Ok(Shown::Ahead(Ahead { number, checkpoint, behind }))
    }

    /// A checkpoint of this log, or of one before or after it, that the gateway signed; with its number.
    fn own(&self, note: &Note) -> Option<(Checkpoint, u32)> {
        let checkpoint: Checkpoint = note.text().parse().ok()?;
        let (own, _) = log_number(self.signer.key().name().as_str())?;
        let (of, number) = log_number(checkpoint.origin())?;
        if of != own {
            return None;
        }
        let key = LogKey::new(checkpoint.origin().parse().ok()?, self.public);
        Some((key.open(note).ok()?, number))
    }
}
