//! What the gateway holds durably. Everything outside this module speaks of messages, deliveries and
//! keys; the SQL is `sql`'s, and what is different between SQLite and PostgreSQL `engine`'s.

mod engine;
mod leaf;
mod queue;
mod recent;
mod sql;

use std::ops::AddAssign;

use bytes::Bytes;
use liaison_proto::{
    exchange::v1::PreviewRecipient,
    limits::REPLAY_MEMORY,
    message::v1::{
        Envelope, RecipientDecision, RecipientProof, Refusal, SignedNotice, SignedReleaseRecord,
        error_code::Code as ErrorCode, status::Code as Status,
    },
};
use liaison_trust::{digest::Digest, log::RecordTooLong, names::AgencyAddress};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::limits;

pub use engine::{Company, Database, NoDatabase};
pub use leaf::{About, Act, Leaf, LogHead, LogId, LogKind, NewLeaf, Staged, Stager};
pub use queue::Queue;
pub use sql::{
    Addition, AgencyRow, AuditRow, Contents, CopyRow, DatabaseVersion, Erasure, ForeignKey, Heard,
    Inspection, IssuedBy, IssuedCertificate, KeyRow, KnownPeer, Lead, LeafRow, MessageRow, MigrateError,
    Moved, PeerRow, PolicyRow, Renewal, RevokedCertificate, Snapshot, Store, ThreadRow, Token, TokenUse,
    Told, ToldPage, Witnessed, migrate, probe,
};

/// A message to accept, with everything that follows from it: it is all stored, or nothing is.
#[derive(Debug)]
pub struct NewMessage {
    pub sender: AgencyAddress,
    pub id: Uuid,
    /// Digest of the manifest.
    pub digest: Digest,
    pub expires: OffsetDateTime,
    /// What the sender is answered, now and whenever it offers the message again.
    pub acceptance: Bytes,
    /// The acceptance that this one goes on from, of a message that was accepted for some of its recipients.
    pub extends: Option<Bytes>,
    /// The envelope without its recipients and the seed of their tree.
    pub content: Envelope,
    /// The thread that a referral opens.
    pub opens: Option<Thread>,
    /// What goes to each recipient that the decision lets it reach.
    pub copies: Vec<NewCopy>,
    /// Up to which change of the domain's state the gateway knew what it was decided by ([`Store::known`]).
    pub view: u64,
    /// What the log says of its acceptance. None in the measurement of what that costs (`examples/log_cost`), and nowhere
    /// else: `log verify` tells of a message without its leaf.
    pub leaf: Option<NewLeaf>,
}

/// The two parties of a referral.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    pub id: Uuid,
    pub requester: AgencyAddress,
    pub responder: AgencyAddress,
    pub status: Status,
}

/// One recipient's part of a message.
#[derive(Debug, Clone)]
pub struct NewCopy {
    pub recipient: AgencyAddress,
    /// Where it waits.
    pub queue: Queue,
    /// Where the words about it wait for the sender.
    pub answers: Queue,
    pub proof: RecipientProof,
    /// Salt of the digest of the bases; empty where it goes to no other domain.
    pub bases_salt: Bytes,
    pub released: Released,
    /// What the log says of its hand-over, where it goes to its recipient's agent as soon as it is stored.
    pub handed_over: Option<NewLeaf>,
}

/// What was decided for one recipient, and from what; asked again when the policies change.
#[derive(Debug, Clone, PartialEq)]
pub struct Released {
    /// The bases that the decision was made on.
    pub bases: PreviewRecipient,
    pub decision: RecipientDecision,
    pub release: SignedReleaseRecord,
}

/// What became of an offered message.
#[derive(Debug, Clone, PartialEq)]
pub enum Accepted {
    New,
    /// It was accepted before; this is the acceptance of then.
    Again(Bytes),
}

/// Why a message was not stored.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("the message id was used for another message")]
    IdReused,
    #[error("the thread belongs to another referral")]
    ThreadTaken,
    #[error("the message was accepted before, and its acceptance was erased")]
    Erased,
    #[error("the queue of {0} is full")]
    QueueFull(Queue),
    #[error("it was decided before this gateway knew what another one changed")]
    Outdated,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A delivery in some agency's queue; in the order of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DeliveryId(i64);

impl DeliveryId {
    /// The place right before this delivery.
    pub fn before(self) -> Self {
        Self(self.0 - 1)
    }
}

/// A change to one delivery, with the word of it to the message's sender. It happens once: where the
/// delivery has left the queue already, nothing is done.
#[derive(Debug)]
pub struct Change {
    pub delivery: DeliveryId,
    pub to: Next,
    pub notice: Option<NewNotice>,
}

/// What a delivery becomes.
#[derive(Debug)]
pub enum Next {
    /// Taken, expired or returned. With a message's last delivery its content goes.
    Gone,
    /// The same, unless it was offered to a peer meanwhile: only the peer says then that it expired.
    Expired,
    /// Set aside as evidence, with the recipient's reason.
    Quarantined(Refusal),
    /// Still to be delivered, with less in it.
    Narrowed(Box<Released>),
    /// Still to be delivered, and its recipient's agent may have it from now on; what the log says of that, the first
    /// time. It goes by this view of the domain's state, or is [`StoreError::Outdated`].
    HandedOver { leaf: Box<NewLeaf>, view: u64 },
    /// Still to be delivered, and a peer may have it from now on, by this view; what the log says of that, the first time.
    Offered { leaf: Option<Box<NewLeaf>>, view: u64 },
    /// Still to be delivered, for this reason; whether a peer that was offered it has just said that it has not taken
    /// it.
    Waiting { why: ErrorCode, is_back: bool },
    /// With the gateway of another domain, whose word about its end is outstanding. Where it accepted the copy, under
    /// the log of this number; where it perhaps did, the copy is never offered again.
    Forwarded { log: Option<u32> },
    /// Forwarded before, and now to be offered again in this lane.
    Again(Queue),
}

/// A word of a peer about a copy that it accepted.
#[derive(Debug)]
pub struct Settlement {
    pub copy: ForwardedCopy,
    /// Whether nothing else will be said about the copy.
    pub is_end: bool,
    pub notice: NewNotice,
}

/// A copy that a peer accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedCopy {
    pub sender: AgencyAddress,
    pub message: Uuid,
    pub digest: Digest,
    pub recipient: AgencyAddress,
}

/// What became of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    Done,
    /// The peer's acceptance of the copy is still to be heard.
    TooEarly,
    /// The peer has told often enough that less of the copy was released.
    TooOften,
    /// No such copy is outstanding: its end was told before, or it never was there.
    Unknown,
}

/// A notice to queue.
#[derive(Debug, Clone)]
pub struct NewNotice {
    pub to: AgencyAddress,
    pub queue: Queue,
    pub notice: SignedNotice,
    /// What the log says of the event; none where it is no more than that the copy waits.
    pub leaf: Option<NewLeaf>,
}

/// The next of a queue.
#[derive(Debug)]
pub struct Page {
    pub queued: Vec<Queued>,
    /// Whether there may be more behind it already.
    pub may_be_more: bool,
}

/// A delivery as it stands in the queue.
#[derive(Debug, Clone)]
pub struct Queued {
    pub id: DeliveryId,
    pub item: Item,
}

/// What is delivered.
#[derive(Debug, Clone)]
pub enum Item {
    Copy(Box<QueuedCopy>),
    Notice(SignedNotice),
}

/// A copy of a message as it waits for its recipient.
#[derive(Debug, Clone)]
pub struct QueuedCopy {
    pub head: Head,
    pub content: Envelope,
    pub proof: RecipientProof,
    pub bases_salt: Bytes,
    pub released: Released,
    /// Whether it comes from this gateway's memory, and nobody who can write the database had it in hand.
    pub from_memory: bool,
}

/// Which message a delivery is a copy of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub delivery: DeliveryId,
    pub recipient: AgencyAddress,
    pub sender: AgencyAddress,
    pub message: Uuid,
    pub digest: Digest,
    pub expires: OffsetDateTime,
    /// Whether a peer may have it already.
    pub offered: bool,
    /// Whether the log says that it was handed over, to its recipient's agent or a peer.
    pub handed_over: bool,
    /// Whether a peer has accepted it before, and may have lost it with its database.
    pub accepted: bool,
    /// The reason of waiting that the sender was told last, and how often it was told one.
    pub waiting: (ErrorCode, u32),
}

/// What a lane to another domain holds next: one message with all its copies there, or one notice.
#[derive(Debug, Clone)]
pub enum Unit {
    Message { first: DeliveryId, last: DeliveryId, copies: Vec<QueuedCopy>, content: Box<Envelope> },
    Notice { id: DeliveryId, notice: SignedNotice },
}

/// What waits in one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    pub deliveries: u64,
    pub bytes: u64,
}

impl Load {
    /// What one delivery of this many bytes adds.
    pub fn one(bytes: u64) -> Self {
        Self { deliveries: 1, bytes }
    }
}

impl AddAssign for Load {
    fn add_assign(&mut self, more: Self) {
        self.deliveries += more.deliveries;
        self.bytes += more.bytes;
    }
}

/// The bound of every queue.
#[derive(Debug, Clone, Copy)]
pub struct QueueBound {
    pub deliveries: u64,
    pub bytes: u64,
}

impl QueueBound {
    /// Whether a queue with this load takes so much more.
    pub fn has_room(self, load: Load, more: Load) -> bool {
        load.deliveries + more.deliveries <= self.deliveries && load.bytes + more.bytes <= self.bytes
    }
}

impl Default for QueueBound {
    fn default() -> Self {
        Self { deliveries: limits::QUEUE_DELIVERIES, bytes: limits::QUEUE_BYTES }
    }
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the database could not be brought to this version: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error(
        "the database is used by another gateway or command: end that one, or give this one a database of its own"
    )]
    OtherGateway,
    #[error("gateways of another version run on the database: end them, then start this one first")]
    OtherGateways,
    #[error(
        "a command or another version has had the database alone, or its server did not tell what became of a change: start this \
         gateway again, which then goes on from what is there"
    )]
    Lost,
    #[error("SQLite {0} can corrupt its write-ahead log; 3.51.3 or newer is needed")]
    OldEngine(String),
    #[error(
        "another version of the gateway wrote the database: start this one once, or use that version's commands"
    )]
    OtherVersion,
    #[error("the database holds a {0} that can't be read")]
    Corrupt(&'static str),
    #[error(
        "leaf {0} was not staged by this gateway: somebody wrote it into the database; stop the gateway, keep a copy of its \
         data folder as evidence, find out who had access to it, and restore the newest backup of which \
         `liaison-gateway log verify` finds no fault"
    )]
    ForeignLeaf(u64),
    #[error(transparent)]
    RecordTooLong(#[from] RecordTooLong),
    #[error(
        "what another gateway of the domain changed is not taken over yet; where it stays so, the log says why"
    )]
    Outdated,
    #[error("the change was not committed; the log says why")]
    NotCommitted,
    #[error("the store has stopped")]
    Stopped,
}

/// Messages that expired before this are remembered no more.
fn remembered_since(now: OffsetDateTime) -> OffsetDateTime {
    now - REPLAY_MEMORY
}
