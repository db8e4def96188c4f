//! Leaves of the log, as they are staged: in the transaction of what they record.

use bytes::Bytes;
use liaison_proto::{
    log::v1::{self as wire, Outcome, Record, outcome, record::Event},
    times,
};
use liaison_trust::{
    keys::SigningKey,
    log::SaltedRecord,
    mac::{MAC_BYTES, MacKey},
    names::AgencyAddress,
};
use prost::Message;
use time::OffsetDateTime;
use uuid::Uuid;

use super::StoreError;

/// Under this label the key follows from the gateway's by which it knows its own leaves again.
const STAGED: &str = "log-leaf/v1";

/// Stages leaves, each with a code under a key of the gateway's: whoever can write the database and has no key can't put
/// one in that would be signed.
#[derive(Debug, Clone)]
pub struct Stager(MacKey);

/// What the code of a leaf is over: where it stands, its entry, and the message and the thread that it is found by, all
/// of which stay when its record is erased.
#[derive(Debug, Clone, Copy)]
pub struct Staged<'l> {
    /// The kind and the number of its log.
    pub log: (LogKind, u32),
    pub index: u64,
    pub entry: &'l [u8],
    pub message: Option<&'l [u8]>,
    pub thread: Option<&'l [u8]>,
}

impl Stager {
    /// That of a gateway with this key.
    pub fn new(gateway: &SigningKey) -> Self {
        Self(MacKey::derived(gateway, STAGED))
    }

    /// The code of a leaf.
    pub fn mac(&self, leaf: Staged<'_>) -> [u8; MAC_BYTES] {
        leaf.parts(|parts| self.0.mac(parts))
    }

    /// Whether the gateway staged a leaf, by its code.
    pub fn staged(&self, leaf: Staged<'_>, mac: &[u8]) -> bool {
        leaf.parts(|parts| self.0.is_of(parts, mac))
    }
}

impl Staged<'_> {
    fn parts<T>(&self, take: impl FnOnce(&[&[u8]]) -> T) -> T {
        let (kind, number) = self.log;
        let (message, thread) = (self.message.unwrap_or_default(), self.thread.unwrap_or_default());
        take(&[
            kind.name().as_bytes(),
            &number.to_be_bytes(),
            &self.index.to_be_bytes(),
            self.entry,
            message,
            thread,
        ])
    }
}

/// A leaf to append to the log of evidence.
#[derive(Debug, Clone)]
pub struct NewLeaf {
    pub record: SaltedRecord,
    pub about: About,
}

/// What a leaf is found by. It follows from its record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// The message that it is about.
    pub message: Option<Uuid>,
    /// The thread that an accepted or refused message belongs to.
    pub thread: Option<Uuid>,
    /// Agencies that may have its receipt.
    pub readers: Vec<AgencyAddress>,
}

impl NewLeaf {
    /// The leaf of an event.
    ///
    /// # Errors
    /// Its record is longer than a log takes, or names what is none.
    pub fn new(event: Event, at: OffsetDateTime) -> Result<Self, StoreError> {
        let about = About::of(&event)?;
        let record = Record { at: Some(times::to_wire(at)), event: Some(event) };
        let record = SaltedRecord::new(record.encode_to_vec())?;
        Ok(Self { record, about })
    }
}

impl About {
    /// What an event is found by.
    ///
    /// # Errors
    /// It names an id or an address that is none.
    pub fn of(event: &Event) -> Result<Self, StoreError> {
        let (message, thread, readers) = match event {
            Event::Accepted(event) => (&event.message_id, Some(&event.thread), vec![&event.sender]),
            Event::Refused(event) => (&event.message_id, Some(&event.thread), vec![&event.sender]),
            Event::HandedOver(event) => (&event.message_id, None, vec![&event.recipient]),
            Event::Outcome(event) => (&event.message_id, None, outcome_readers(event)),
            Event::Opened(_) | Event::Act(_) => return Ok(Self::default()),
        };
        let readers = readers.into_iter().map(|reader| reader.parse());
        Ok(Self {
            message: Some(id(message)?),
            thread: thread.map(id).transpose()?,
            readers: readers.collect::<Result<_, _>>().map_err(|_| StoreError::Corrupt("agency address"))?,
        })
    }
}

/// What a recipient signed concerns both; the rest is the sender's.
fn outcome_readers(event: &Outcome) -> Vec<&String> {
    match event.event {
        Some(outcome::Event::Acknowledged(_)) => vec![&event.sender, &event.recipient],
        _ => vec![&event.sender],
    }
}

fn id(bytes: &Bytes) -> Result<Uuid, StoreError> {
    Uuid::from_slice(bytes).map_err(|_| StoreError::Corrupt("message id"))
}

/// Which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogKind {
    /// What happened to messages, and what administrators did.
    Evidence,
    /// Key records, in clear.
    Keys,
}

impl LogKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Evidence, Self::Keys];

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What the log's origin calls it, and the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Evidence => "log",
            Self::Keys => "keys",
        }
    }
}

/// A log in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId(pub(super) i64);

/// A log with its head.
#[derive(Debug, Clone)]
pub struct LogHead {
    pub log: LogId,
    pub kind: LogKind,
    /// The number in its origin: 1, or the moment at which it took the place of another one, in Unix seconds.
    pub number: u32,
    /// Leaves under the checkpoint.
    pub size: u64,
    /// A signed note; none before the first.
    pub checkpoint: Option<Vec<u8>>,
}

/// A leaf as it is kept.
#[derive(Debug, Clone)]
pub struct Leaf {
    pub index: u64,
    /// What the tree commits to.
    pub entry: Vec<u8>,
    /// None where it was erased, or the entry is in clear.
    pub record: Option<SaltedRecord>,
    pub about: About,
}

/// An administrative act, for the audit and the log: who of this machine, what, to what.
#[derive(Debug, Clone, Copy)]
pub struct Act<'a> {
    pub at: OffsetDateTime,
    pub actor: &'a str,
    pub act: &'static str,
    pub subject: &'a str,
}

impl Act<'_> {
    /// What the log says of it: who it was, only the audit does.
    ///
    /// # Errors
    /// Its subject is longer than a log takes.
    pub(super) fn leaf(&self) -> Result<NewLeaf, StoreError> {
        let act = wire::Act { act: self.act.to_owned(), subject: self.subject.to_owned() };
        NewLeaf::new(Event::Act(act), self.at)
    }
}
