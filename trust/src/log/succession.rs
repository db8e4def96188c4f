//! Succession: a log that takes the place of another one begins with a record (`liaison.log.v1.Opened`) that names the
//! head of the one before. Whoever held a head of that one, or of one before it, follows these records back to it.
//!
//! What this shows: that the domain names, by its signature, all of the history that was held. It can't show that the
//! head which is named goes on from the one that was held where it is larger, for what lies between them was lost.

use liaison_proto::{
    log::v1::{Record, record::Event},
    strict,
};

use super::{
    checkpoint::{Checkpoint, LogKey, OpenError},
    note::{Note, NoteError},
    receipt::Receipt,
    tlog_proof::ReceiptError,
    vkey::{KeyName, VkeyError},
};
use crate::keys::VerifyingKey;

/// The most logs from a new one back to the one whose head is held.
pub const LOGS_FOLLOWED: u32 = 32;

/// The way back from a log to the one of which a head is held.
#[derive(Debug)]
pub struct Succession<'h> {
    key: VerifyingKey,
    held: &'h Checkpoint,
    held_number: u32,
    /// The log whose opening record is to be taken next.
    wanted: KeyName,
    number: u32,
    left: u32,
}

/// Why a log does not take the place of the one of which a head is held: its domain is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuccessionError {
    /// It is not a later log of the same domain and kind.
    #[error("{0} is no later log of the domain and kind of the one that was held")]
    NotLater(String),
    /// The log has no name.
    #[error("the log's name: {0}")]
    Name(#[from] VkeyError),
    /// The receipt of the opening record is none, or does not hold.
    #[error("the record that opened {log}: {error}")]
    Receipt { log: KeyName, error: ReceiptError },
    /// The first leaf tells something else than what log was before.
    #[error("the first leaf of {0} is no record that names the log before it")]
    NotOpened(KeyName),
    /// What is named is no signed note.
    #[error("the head that a log says was before it: {0}")]
    Note(#[from] NoteError),
    /// What is named was not signed by the domain.
    #[error("the head that a log says was before it: {0}")]
    Previous(#[from] OpenError),
    /// History that was held is not named.
    #[error(
        "history was cut off: a head of {held} with {size} leaves was held, and the log says that {named} was before it"
    )]
    CutOff { held: String, size: u64, named: String },
    /// Two heads of one size.
    #[error(
        "{held} has two heads of {size} leaves with different roots: the one that was held, and the one that its successor names"
    )]
    OtherRoot { held: String, size: u64 },
    /// Too long a way back.
    #[error("more than {LOGS_FOLLOWED} logs took one another's place since the one that was held")]
    TooMany,
}

impl<'h> Succession<'h> {
    /// Begins at a log, by the origin of it, that is to be followed back to a head that was held. `key` signs the heads of
    /// all logs of the domain.
    ///
    /// # Errors
    /// It is no later log of the same domain and kind.
    pub fn new(key: VerifyingKey, held: &'h Checkpoint, origin: &str) -> Result<Self, SuccessionError> {
        let not_later = || SuccessionError::NotLater(origin.to_owned());
        let (of, held_number) = log_number(held.origin()).ok_or_else(not_later)?;
        let (same, number) = log_number(origin).ok_or_else(not_later)?;
        if of != same || number <= held_number {
            return Err(not_later());
        }
        Ok(Self { key, held, held_number, wanted: origin.parse()?, number, left: LOGS_FOLLOWED })
    }

    /// The origin of the log whose opening record is to be taken next.
    pub fn wanted(&self) -> &KeyName {
        &self.wanted
    }

    /// Takes the receipt of the opening record of the log that is [wanted](Self::wanted). True once the head that was held
    /// is reached and stands: equal to what is named, or smaller.
    ///
    /// # Errors
    /// The domain does not name what was held.
    pub fn take(&mut self, receipt: &[u8]) -> Result<bool, SuccessionError> {
        let refused = |error| SuccessionError::Receipt { log: self.wanted.clone(), error };
        let receipt = Receipt::parse(receipt).map_err(refused)?;
        receipt.verify(&LogKey::new(self.wanted.clone(), self.key)).map_err(refused)?;
        let previous = opened(&receipt).ok_or_else(|| SuccessionError::NotOpened(self.wanted.clone()))?;
        let previous = Note::parse(previous.as_bytes())?;
        let origin: KeyName = previous.text().lines().next().unwrap_or_default().parse()?;
        let named = LogKey::new(origin.clone(), self.key).open(&previous)?;
        let number = log_number(origin.as_str()).map(|(of, number)| (of.to_owned(), number));
        let (held, size) = (self.held.origin().to_owned(), self.held.size());
        match number {
            Some((of, number))
                if log_number(&held).is_some_and(|(held, _)| held == of) && number < self.number =>
            {
                if number > self.held_number {
                    self.left = self.left.checked_sub(1).ok_or(SuccessionError::TooMany)?;
                    (self.wanted, self.number) = (origin, number);
                    return Ok(false);
                }
                if number < self.held_number || named.size() < size {
                    let named = format!("{origin} with {} leaves", named.size());
                    return Err(SuccessionError::CutOff { held, size, named });
                }
                if named.size() == size && named.root() != self.held.root() {
                    return Err(SuccessionError::OtherRoot { held, size });
                }
                Ok(true)
            }
            _ => Err(SuccessionError::NotLater(self.wanted.to_string())),
        }
    }
}

/// The head that an opening record names; none where the receipt is of another record.
fn opened(receipt: &Receipt) -> Option<String> {
    let record: Record = strict::decode(receipt.record.record()).ok()?;
    match record.event {
        Some(Event::Opened(opened)) if receipt.index == 0 => Some(opened.previous),
        _ => None,
    }
}

/// Of the origin of a domain's log, `<domain>/<kind>/<number>`, what stands before the number, and the number. A number
/// has one way to be written, so that a log has one name.
pub fn log_number(origin: &str) -> Option<(&str, u32)> {
    let (of, number) = origin.rsplit_once('/')?;
    let read: u32 = number.parse().ok()?;
    (read > 0 && read.to_string() == number).then_some((of, read))
}
