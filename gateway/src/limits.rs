//! The gateway's own limits, each with its unit. Those on what crosses a wire stand in
//! [`liaison_proto::limits`].

use std::time::Duration;

/// Deliveries that wait for one agency.
pub const QUEUE_DELIVERIES: u64 = 10_000;
/// Bytes that wait for one agency.
pub const QUEUE_BYTES: u64 = 1 << 30;
/// How long a sender waits before it offers a message to a full queue again.
pub const QUEUE_RETRY: Duration = Duration::from_secs(30);
/// Quarantined copies kept as evidence for one agency; past it, the oldest goes.
pub const QUARANTINED: u32 = 1_000;

/// Changes that wait for the writer.
pub const WRITER_QUEUE: usize = 1_024;
/// Changes in one transaction.
pub const BATCH_CHANGES: usize = 256;
/// Bytes of new messages in one transaction; a single message may exceed it.
pub const BATCH_BYTES: usize = 16 << 20;
/// How long a batch waits for more under load. An idle writer doesn't wait.
pub const BATCH_WAIT: Duration = Duration::from_millis(1);
/// Connections that read the database.
pub const READERS: u32 = 4;
/// How long a connection waits for a lock on the database.
pub const DATABASE_BUSY: Duration = Duration::from_secs(5);

/// Deliveries read from a queue at once.
pub const PAGE_DELIVERIES: u32 = 64;
/// Bytes of deliveries read from a queue at once; a single delivery may exceed it.
pub const PAGE_BYTES: u64 = 1 << 20;

/// Connections, handshakes under way included.
pub const CONNECTIONS: usize = 10_000;
/// Connections waiting for the server after their handshake.
pub const CONNECTION_BACKLOG: usize = 64;
/// How long sessions have to finish what is under way when the gateway stops.
pub const DRAIN: Duration = Duration::from_secs(5);
/// How long a new session may take to say hello.
pub const HELLO: Duration = Duration::from_secs(10);
/// Age at which a session is asked to end, before its connection is.
pub const SESSION_AGE: Duration = Duration::from_secs(25 * 60);
/// Frames between a session and its connection, each a chunk at most.
pub const SESSION_FRAMES: usize = 8;
/// Bytes of submissions under way on one session.
pub const SESSION_BYTES: usize = 32 << 20;
/// Bytes of submissions under way on all sessions.
pub const SUBMISSION_BYTES: usize = 512 << 20;
/// How long a sender waits before it offers a message again that found no room in memory.
pub const SUBMISSION_RETRY: Duration = Duration::from_secs(1);
/// Encoded decisions of one message: an acceptance is one frame.
pub const DECISIONS_BYTES: usize = 768 << 10;

/// How often expired messages and forgotten ids are looked for.
pub const SWEEP: Duration = Duration::from_secs(5);
/// Deliveries or messages that one step of a sweep handles.
pub const SWEEP_PAGE: u32 = 256;
