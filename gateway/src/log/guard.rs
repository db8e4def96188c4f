//! The rollback guard: a gateway that was restored from an older copy does not go on behind a head that it signed. The
//! highest is kept in a file beside the database; peers and agents show what they saw.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use liaison_trust::log::{Checkpoint, LogKey, Note, root, root_nodes};
use tokio::sync::Notify;
use tracing::error;

use super::{Log, LogError};
use crate::data::{DataError, write_private};

/// The file of one log.
#[derive(Debug)]
pub struct Guard {
    file: PathBuf,
    /// A head that the log does not go on from.
    ahead: OnceLock<Note>,
    found: Notify,
}

/// How a head that was shown stands to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// The log goes on from it; or it is an older log's, or nobody's.
    Known,
    /// This log's key signed it, and it is not in the log: the database is an older copy, or another one.
    Ahead,
}

impl Guard {
    /// The guard of a log that is kept in this file.
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, ahead: OnceLock::new(), found: Notify::new() }
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

    /// A head that somebody showed and the log does not go on from, once there is one.
    pub async fn ahead(&self) -> Note {
        loop {
            let found = self.found.notified();
            if let Some(note) = self.ahead.get() {
                return note.clone();
            }
            found.await;
        }
    }

    /// Whether there is none.
    pub(super) fn is_clear(&self) -> bool {
        self.ahead.get().is_none()
    }
}

impl Log {
    /// Looks at a head of this log that somebody shows. One that it does not go on from is written into the guard file,
    /// and the log grows no more.
    ///
    /// # Errors
    /// The store lacks tiles, or the file can't be written.
    pub async fn shown(&self, note: &Note) -> Result<Shown, LogError> {
        let shown = self.stands(note).await?;
        if shown == Shown::Ahead && self.guard.ahead.set(note.clone()).is_ok() {
            error!(
                log = %self.signer.key().name(),
                "a head was shown that this gateway signed and its database does not hold: it is an older copy"
            );
            write_private(self.guard.file(), note.to_string().as_bytes())?;
            self.guard.found.notify_waiters();
        }
        Ok(shown)
    }

    /// How a head stands to this log.
    pub(super) async fn stands(&self, note: &Note) -> Result<Shown, LogError> {
        let Some((checkpoint, number)) = self.own(note) else { return Ok(Shown::Known) };
        if number != self.number {
            return Ok(if number > self.number { Shown::Ahead } else { Shown::Known });
        }
        let (size, known) = (checkpoint.size(), self.head().size);
        if size > known {
            return Ok(Shown::Ahead);
        }
        let hashes = self.hashes(root_nodes(size), known).await?;
        let is_known = root(size, |node| hashes.hash(node))? == checkpoint.root();
        Ok(if is_known { Shown::Known } else { Shown::Ahead })
    }

    /// A checkpoint of this log, or of one before or after it, that the gateway signed; with its number.
    pub(super) fn own(&self, note: &Note) -> Option<(Checkpoint, u32)> {
        let checkpoint: Checkpoint = note.text().parse().ok()?;
        let (own, _) = self.signer.key().name().as_str().rsplit_once('/')?;
        let (of, number) = checkpoint.origin().rsplit_once('/')?;
        let number = number.parse().ok().filter(|_| of == own)?;
        let key = LogKey::new(checkpoint.origin().parse().ok()?, self.public);
        Some((key.open(note).ok()?, number))
    }
}
