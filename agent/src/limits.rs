//! The agent's own limits, each with its unit. Those of the wire stand in [`liaison_proto::limits`].

use std::time::Duration;

/// Messages in the outbox that the gateway has not accepted yet.
pub const OUTBOX_MESSAGES: i64 = 10_000;
/// Drafts and sealed envelopes in the outbox, bytes.
pub const OUTBOX_BYTES: i64 = 1 << 30;
/// How long an idempotency key is remembered.
pub const IDEMPOTENCY: Duration = Duration::from_secs(48 * 3600);
/// How long a looked up agency may be used before it is looked up again.
pub const DIRECTORY_AGE: Duration = Duration::from_secs(60);
/// Agencies kept in the directory's cache.
pub const DIRECTORY_AGENCIES: usize = 4_096;
/// How long a sender of a message waits for the gateway to tell of an agency that it told of before.
pub const LOOK_UP: Duration = Duration::from_secs(3);
/// Key records of one agency: rotations every 30 days for over 80 years.
pub const KEY_CHAIN: usize = 1_024;
/// Key records that are remembered as proven, some 2 KB each.
pub const PROVEN_KEYS: usize = 4_096;
/// Key records of one agency that a notice brings.
pub const TOLD_KEYS: usize = 100;
/// How long a key that is handed out may be missing in the log of keys before it is an alarm: a gateway that has just been
/// started signs no head for some seconds.
pub const KEY_LOGGED: Duration = Duration::from_secs(15);
/// How long what came with a key that is not in the log yet is kept waiting, and how often the log is looked at meanwhile.
pub const KEY_PATIENCE: Duration = Duration::from_secs(5);
pub const KEY_AGAIN: Duration = Duration::from_millis(250);
/// Deliveries that may be under way on the session without an answer.
pub const DELIVERY_WINDOW: u32 = 64;
/// Parts of unfinished deliveries kept in memory, bytes.
pub const DELIVERIES_BYTES: usize = 64 << 20;
/// Frames of the session that were read and are being committed.
pub const COMMITS: usize = 256;
/// Messages looked at in one turn of the outbox, and how many of them are read and sealed at the same time.
pub const OUTBOX_TURN: u32 = 64;
pub const PREPARING: usize = 16;
/// One answer of the gateway, bytes: an audience of [`liaison_proto::limits::RECIPIENTS`] with their keys, or
/// the decisions for it, category by category.
pub const ANSWER_BYTES: usize = 32 << 20;
/// Connections of each listener of the case API at a time. Further ones wait.
pub const API_CONNECTIONS: usize = 256;
/// How long a connection of the case API may take for the head of a request, or be idle before one.
pub const REQUEST_HEAD: Duration = Duration::from_secs(10);
/// After a connection that could not be accepted: what is short, such as open files, needs time.
pub const ACCEPT_REST: Duration = Duration::from_millis(100);
/// Connections that read the database at the same time.
pub const READERS: u32 = 4;
/// Rows that one statement writes.
pub const ROWS: usize = 64;
/// Texts of statements that a connection keeps prepared, each with all that goes to SQLite at once, and how long the longest
/// of them is, bytes.
pub const STATEMENTS: usize = 512;
pub const STATEMENT_BYTES: usize = 8 << 10;
/// Pages of 4 KiB in the write-ahead log from which on it is moved into the database: the more, the more changes of a page
/// are written there once.
pub const LOG_PAGES: u32 = 8_192;

/// Waiting between two attempts to connect or to submit, at least and at most.
pub const BACKOFF_LEAST: Duration = Duration::from_millis(500);
pub const BACKOFF_MOST: Duration = Duration::from_secs(60);
/// Between two looks at whether receipts are due; how long after an event its receipt is asked for first; and how old
/// what is known of the log's head may become.
pub const RECEIPT_TURN: Duration = Duration::from_millis(500);
pub const RECEIPT_FIRST: Duration = Duration::from_millis(500);
pub const HEAD_AGE: Duration = Duration::from_secs(60);
/// How often a gateway may have nothing staged and no receipt of what it told, each time after twice as many seconds:
/// then the log lacks it.
pub const RECEIPT_ATTEMPTS: u32 = 6;
/// A file that is taken for a receipt, bytes: more than the longest has.
pub const RECEIPT_FILE_BYTES: u64 = 32 << 20;
/// The receipt of a record that opened a log, bytes.
pub const OPENED_BYTES: usize = 256 << 10;
/// Alarms about the log that are kept.
pub const LOG_ALARMS: i64 = 1_000;
/// Between two rounds of erasing what is due.
pub const SWEEP: Duration = Duration::from_secs(30);
/// A message that changes a state may be delivered this long.
pub const STATE_LIFETIME: Duration = liaison_proto::limits::LIFETIME;

/// A key record is replaced at this age.
pub const KEY_ROTATION: Duration = Duration::from_secs(30 * 24 * 3600);
/// What a key record allows from its beginning: an agent may sleep this long and stay reachable.
pub const KEY_VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);

/// HTTP/2 flow control: one stream, and the connection with its calls beside the session, bytes. The
/// connection's is larger, so that a session that waits can't stop a call.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;
pub const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// The content of one message, encoded, bytes: what [`liaison_proto::limits::SECTIONS_BYTES`] leaves after
/// padding and sealing.
pub const CONTENT_BYTES: usize = 3 << 20;
/// A text of content that is not prose, characters.
pub const TEXT_CHARS: usize = 4_000;
/// A narrative, characters.
pub const PROSE_CHARS: usize = 100_000;
/// A photo, bytes.
pub const PHOTO_BYTES: usize = 256 << 10;
/// Entries of any list in a request to the case API, but for recipients.
pub const LIST_ITEMS: usize = 64;
/// An officer's name, characters.
pub const OFFICER_CHARS: usize = 128;
/// Who is asking, and an idempotency key, characters.
pub const ACTOR_CHARS: usize = 128;
pub const IDEMPOTENCY_KEY_CHARS: usize = 128;
/// How long a message may be delivered where its sender does not say.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// Entries in a page of the case API where the caller does not say how many.
pub const DEFAULT_PAGE: u32 = 50;
