//! Every limit on what crosses a wire, with its unit. Limits that only one program has stand in that
//! program's own `limits` module.

use std::time::Duration;

/// Recipients of one message.
pub const RECIPIENTS: usize = 4_096;
/// Levels of the recipients' Merkle tree.
pub const RECIPIENT_TREE_DEPTH: usize = 12;
/// Manifest leaves come in multiples of this.
pub const LEAVES_MULTIPLE: usize = 24;
/// Leaves of one manifest.
pub const LEAVES: usize = 96;
/// An encoded envelope before its sections, bytes.
pub const ENVELOPE_HEAD_BYTES: usize = 4 << 20;
/// All sections of one message, sealed, bytes.
pub const SECTIONS_BYTES: usize = 4 << 20;
/// An encoded envelope, bytes.
pub const ENVELOPE_BYTES: usize = ENVELOPE_HEAD_BYTES + SECTIONS_BYTES;
/// One gRPC message, bytes.
pub const GRPC_MESSAGE_BYTES: usize = 1 << 20;
/// One chunk on a session, bytes.
pub const CHUNK_BYTES: usize = 256 << 10;
/// An encoded Forward, bytes: each recipient has a path and a record beside its entry.
pub const FORWARD_BYTES: usize = 2 * ENVELOPE_HEAD_BYTES + SECTIONS_BYTES;
/// Encoded acceptances of one Forward, bytes.
pub const ACCEPTANCES_BYTES: usize = 16 << 20;
/// Frames under way on one link without an answer.
pub const LINK_WINDOW: u32 = 256;
/// Agencies on one page of a peer's directory.
pub const DIRECTORY_PAGE: usize = 100;
/// Withdrawn addresses on one page of a peer's directory.
pub const DIRECTORY_WITHDRAWN: usize = 1_000;
/// A signed bundle, bytes.
pub const BUNDLE_BYTES: usize = 32 << 10;
/// Addresses of a gateway in its bundle.
pub const BUNDLE_ADDRESSES: usize = 8;
/// Countries in a bundle.
pub const BUNDLE_COUNTRIES: usize = 64;
/// How long a bundle can be relied on.
pub const BUNDLE_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Fields of one protobuf message, every element of a list counted.
pub const MESSAGE_FIELDS: usize = 2 * RECIPIENTS;
/// Fields of a protobuf message and of all messages in it: more than the acceptance of the largest
/// alert has.
pub const ALL_FIELDS: usize = 1 << 19;
/// A request to the case API, bytes.
pub const CASE_REQUEST_BYTES: usize = 4 << 20;
/// Recipients of one `SendReferral`.
pub const REFERRAL_RECIPIENTS: usize = 32;
/// Length of an agency's name inside its domain, characters.
pub const AGENCY_NAME_CHARS: usize = 64;
/// Length of a domain's name, characters.
pub const DOMAIN_NAME_CHARS: usize = 63;

/// Messages that one request for receipts names.
pub const RECEIPT_MESSAGES: usize = 256;
/// Heads of a log that one request for receipts shows.
pub const SHOWN_HEADS: usize = 16;
/// One head of a log that is shown, a signed note, bytes.
pub const HEAD_BYTES: usize = 16 << 10;

/// Entries of the log of keys in one answer.
pub const KEY_ENTRIES: u32 = 256;

/// How far in the future a message may have been created.
pub const CLOCK_AHEAD: Duration = Duration::from_secs(5 * 60);
/// How long before it expires a message may have been created.
pub const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long after its expiry a message's id is remembered, so that a replay is known.
pub const REPLAY_MEMORY: Duration = Duration::from_secs(24 * 3600);

/// Submissions and deliveries under way on one session.
pub const SESSION_WINDOW: u32 = 256;
/// Agencies in one page.
pub const AGENCIES_PAGE: usize = 100;
/// Entries in one page of the case API.
pub const CASE_PAGE: u32 = 100;

/// HTTP/2 streams on one connection.
pub const HTTP2_STREAMS: u32 = 64;
/// Resets of a peer's own making before its connection is closed.
pub const HTTP2_LOCAL_ERROR_RESETS: usize = 128;
/// HTTP/2 header list, bytes.
pub const HTTP2_HEADER_BYTES: u32 = 16 << 10;
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(5);
pub const REQUEST: Duration = Duration::from_secs(30);
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(60);
/// Age at which a connection is asked to end, and what it has to finish.
pub const CONNECTION_AGE: Duration = Duration::from_secs(30 * 60);
pub const CONNECTION_GRACE: Duration = Duration::from_secs(30);
