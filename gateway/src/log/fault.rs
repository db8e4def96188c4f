//! Why a log can't be read or does not grow.

use std::fmt;

use liaison_trust::log::{
    CheckpointError, FrontierError, NoteError, OpenError, TileError, TreeError, VkeyError,
};

use crate::{data::DataError, store::StoreError};

/// Why a log can't be read or does not grow.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the name of a log can't be made of the domain: {0}")]
    Name(#[from] VkeyError),
    #[error("the checkpoint in the database is none: {0}")]
    Note(#[from] NoteError),
    #[error("the checkpoint in the database is not this log's: {0}")]
    Open(#[from] OpenError),
    #[error("the log can't be signed: {0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("the log's tree in the database is damaged: {0}")]
    Tree(#[from] TreeError),
    #[error("the log's tree in the database is damaged: {0}")]
    Frontier(#[from] FrontierError),
    #[error("the log's tree in the database is damaged: {0}")]
    Tile(#[from] TileError),
    #[error("the guard file: {0}")]
    Guard(#[from] DataError),
    #[error(
        "this gateway signed a head of {origin} with {size} leaves, and {behind}; restore the newest copy, or run \
         `liaison-gateway log reopen`, which opens a new log that names that head"
    )]
    Ahead { origin: String, size: u64, behind: Behind },
    #[error("{0} has leaves under its head, and no checkpoint in the database: it was removed by hand")]
    NoCheckpoint(String),
    #[error(
        "the checkpoint of {0} is of another size than its row in the database says: one was changed by hand"
    )]
    OtherSize(String),
    #[error(
        "the tiles of {0} lead to another root than its checkpoint says: the database was changed by hand"
    )]
    OtherRoot(String),
    #[error(
        "the log {0} does not begin with a leaf that this gateway staged: it was written into the database by hand; \
         restore the newest copy"
    )]
    NotOpened(String),
    #[error(
        "{0} has the highest number that there is, so that no log can take its place: restore the newest copy"
    )]
    NoNumber(String),
    #[error("the tiles of {0} were changed by hand while the gateway ran: it grows no more")]
    Changed(String),
}

/// How a database is behind a head that was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// It has an earlier log only.
    NoSuchLog,
    /// It has fewer leaves.
    Fewer(u64),
    /// It has as many leaves or more, and they are not those.
    Others,
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchLog => f.write_str("the database has no such log: it is an older copy, of before that one was opened"),
            Self::Fewer(known) => write!(f, "the database has {known} of them: it is an older copy"),
            Self::Others => f.write_str(
                "the database has other leaves in their place: an older copy was gone on from, or it is another gateway's",
            ),
        }
    }
}
