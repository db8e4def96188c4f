//! The gateway's own limits, each with its unit. Those on what crosses a wire stand in
//! [`liaison_proto::limits`].

use std::time::Duration;

/// Deliveries that wait for one agency.
pub const QUEUE_DELIVERIES: u64 = 10_000;
/// Bytes that wait for one agency.
pub const QUEUE_BYTES: u64 = 1 << 30;
/// The most deliveries that may be configured to wait for one agency.
pub const QUEUE_DELIVERIES_MAX: u64 = 1_000_000;
/// The most bytes that may be configured to wait for one agency.
pub const QUEUE_BYTES_MAX: u64 = 1 << 40;
/// How long a sender waits before it offers a message to a full queue again.
pub const QUEUE_RETRY: Duration = Duration::from_secs(30);
/// Quarantined copies kept as evidence for one agency; past it, the oldest goes.
pub const QUARANTINED: u32 = 1_000;
/// Bytes of quarantined copies kept for one agency; past it, the oldest goes.
pub const QUARANTINED_BYTES: u64 = 256 << 20;

/// Changes that wait for the writer.
pub const WRITER_QUEUE: usize = 1_024;
/// Changes in one transaction.
pub const BATCH_CHANGES: usize = 256;
/// Bytes of new messages in one transaction; a single message may exceed it.
pub const BATCH_BYTES: usize = 16 << 20;
/// How long a batch waits for more under load. An idle writer doesn't wait.
pub const BATCH_WAIT: Duration = Duration::from_millis(1);
/// Bytes of deliveries that are kept in memory from their commit until a session takes them.
pub const RECENT_BYTES: u64 = 16 << 20;
/// Recipients of a message whose parts are references into it as it came, and no copies.
pub const SHARING_RECIPIENTS: usize = 32;
/// Pages that the write-ahead log grows by until they are copied into the database: what is written and deleted again
/// meanwhile is not copied at all.
pub const CHECKPOINT_PAGES: u32 = 8_192;
/// Statements that a connection to the database keeps prepared.
pub const STATEMENTS: usize = 256;
/// Rows that are moved to another database at once.
pub const MOVED_ROWS: u32 = 1_000;
/// Connections that read the database.
pub const READERS: u32 = 4;
/// How long a connection waits for a lock on the database, and how often it looks whether another gateway still writes it.
pub const DATABASE_BUSY: Duration = Duration::from_secs(5);
pub const DATABASE_LOCK_TURN: Duration = Duration::from_millis(100);
/// How long a database server may take to answer a statement: longer than a change waits for another gateway's that is
/// frozen. What takes longer, the gateway goes on without.
pub const STATEMENT: Duration = Duration::from_secs(15);
/// How long a database server may take to commit, a standby included, until it counts as lost.
pub const COMMIT: Duration = Duration::from_secs(30);
/// How long one of several gateways may hold a change, or the lead, without a word to the server until that ends it.
pub const CHANGE_FROZEN: Duration = Duration::from_secs(10);
/// How often a gateway asks whether it leads, and how long it waits until it listens to the others again.
pub const DATABASE_RETRY: Duration = Duration::from_millis(500);
/// How often a peer's newer bundle is taken over where other gateways of the domain take others at the same time.
pub const RENEWALS: u32 = 3;
/// How often what was read is put into memory where this gateway changes it at the same time, until it is put over that and
/// read once more.
pub const VIEW_ATTEMPTS: u32 = 3;
/// How often each of several gateways says that it is there, and after how much silence one takes itself for deaf.
pub const ALIVE: Duration = Duration::from_secs(2);
pub const DEAF: Duration = Duration::from_secs(6);
/// How often a gateway reads the account of the queues anew, and looks for changes of the state, whatever it was told.
pub const ACCOUNT: Duration = Duration::from_secs(10);
/// How long what is to be decided waits until the gateway has taken over what others changed.
pub const VIEW: Duration = Duration::from_secs(5);
/// After which a message is to be offered again that was decided before the gateway knew of a change.
pub const VIEW_RETRY: Duration = Duration::from_millis(300);
/// What others tell that is taken in one go.
pub const TOLD: usize = 256;
/// How long a gateway waits after it took over what others changed until it does so again.
pub const STATE_REST: Duration = Duration::from_millis(200);
/// Bytes of one word between gateways on one database, of the 7,999 that a server passes on.
pub const TOLD_BYTES: usize = 7_500;

/// Deliveries read from a queue at once.
pub const PAGE_DELIVERIES: u32 = 64;
/// Bytes of deliveries read from a queue at once; a single delivery may exceed it.
pub const PAGE_BYTES: u64 = 1 << 20;

/// Handshakes under way.
pub const HANDSHAKES: usize = 512;
/// Connections of one agency.
pub const AGENCY_CONNECTIONS: usize = 16;
/// Streams of sessions of one agency: the one that lives, and those whose connection has yet to go.
pub const AGENCY_STREAMS: usize = 8;
/// Connections of callers that are no agency, such as those that enrol.
pub const STRANGERS: usize = 256;
/// How long such a connection may last.
pub const STRANGER_STAY: Duration = Duration::from_secs(60);
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

/// How long certificates are valid by default, seconds.
pub const CERTIFICATE_SECONDS: u32 = 24 * 3600;
/// The shortest life of a certificate that may be configured, seconds.
pub const CERTIFICATE_SECONDS_MIN: u32 = 2;
/// The longest life of a certificate that may be configured, seconds.
pub const CERTIFICATE_SECONDS_MAX: u32 = 7 * 24 * 3600;
/// How long after its end a certificate still lets its own key renew it.
pub const RENEWAL_GRACE: Duration = Duration::from_secs(90 * 24 * 3600);
/// Valid certificates of one agency.
pub const CERTIFICATES_PER_AGENCY: u32 = 100;
/// A certificate request, bytes.
pub const CERTIFICATE_REQUEST_BYTES: usize = 16 << 10;
/// How often the gateway's own certificate and the revocation list are looked at.
pub const AUTHORITY_CHECK: Duration = Duration::from_secs(60);
/// How often a new revocation list is made even when nothing was revoked.
pub const REVOCATION_LIST_AGE: Duration = Duration::from_secs(3600);
/// How long a revocation list may be relied on.
pub const REVOCATION_LIST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// How long a token can be used by default, hours.
pub const TOKEN_HOURS: u32 = 72;
/// The longest that a token may be usable, hours.
pub const TOKEN_HOURS_MAX: u32 = 720;
/// Tokens of one agency that are neither used nor expired.
pub const TOKENS_PER_AGENCY: u32 = 10;
/// Attempts to enrol or to renew without a certificate, for one source in one window.
pub const ATTEMPTS: u32 = 300;
/// The window of those attempts.
pub const ATTEMPTS_WINDOW: Duration = Duration::from_secs(60);
/// Sources of attempts that are told apart.
pub const ATTEMPT_SOURCES: usize = 10_000;

/// Agencies of the domain.
pub const AGENCIES: u32 = 10_000;
/// An agency's name for people, characters.
pub const AGENCY_TITLE_CHARS: usize = 200;
/// Sectors of one agency.
pub const AGENCY_SECTORS: usize = 8;
/// Types of services of one agency.
pub const AGENCY_SERVICES: usize = 24;
/// Languages of one agency.
pub const AGENCY_LANGUAGES: usize = 32;
/// Groups of one agency.
pub const AGENCY_GROUPS: usize = 32;
/// Name of a group, characters.
pub const GROUP_CHARS: usize = 64;

/// Peers of the domain; those that were removed don't count.
pub const PEERS: usize = 200;
/// Agencies of one peer.
pub const PEER_AGENCIES: usize = 10_000;
/// CA certificates in one bundle: one, or two while the CA changes.
pub const BUNDLE_ROOTS: usize = 2;
/// A bundle as text, bytes.
pub const BUNDLE_TEXT_BYTES: usize = liaison_proto::limits::BUNDLE_BYTES * 2;
/// An address of a gateway, bytes: a host name of 253, a colon, a port.
pub const HOST_PORT_BYTES: usize = 260;
/// How much older than the newest a bundle may be that was overtaken on its way.
pub const BUNDLES_CROSS: time::Duration = time::Duration::MINUTE;
/// How long after a bundle was refused as older than the one that is known the next is made.
pub const BUNDLE_RETRY: Duration = Duration::from_secs(5);
/// Connections of one peer's gateway.
pub const PEER_CONNECTIONS: usize = 16;
/// Links from one peer: the one that lives, and those whose connection has yet to go.
pub const PEER_LINKS: usize = 4;
/// How often a bundle is made anew though nothing in it has changed.
pub const BUNDLE_RENEWAL: Duration = Duration::from_secs(3600);
/// Bytes of messages that a gateway has under way on one link, and of those of one peer that it puts together.
pub const LINK_BYTES: usize = 64 << 20;
/// Messages of one agency that were given to a link and are under way or wait to be offered again; past it, no
/// others of the agency are. The same of its notices.
pub const LANE_OPEN: usize = 10_000;
/// Bytes of answers of a peer on one link whose last part has not come yet.
pub const ANSWERS_BYTES: usize = 128 << 20;
/// How long a peer may leave everything that it was sent without an answer.
pub const LINK_ANSWER: Duration = Duration::from_secs(600);
/// Waiting between two attempts to reach a peer, at least and at most.
pub const LINK_BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// How long a link has to stand for the next attempt not to count as another failure.
pub const LINK_STOOD: Duration = Duration::from_secs(5);
/// How long a link is silent before the peer is asked whether it is there, and how long it may take to answer: behind a
/// long message on a slow line.
pub const LINK_KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));
/// How long a change of the directory or of the policies waits for others before peers are told.
pub const TELL_WAIT: Duration = Duration::from_millis(50);
/// What a peer says in a refusal that is passed on, characters.
pub const PEER_WORDS_CHARS: usize = 500;
/// What a peer says in one notice, bytes: the newest key records of an agency fit.
pub const NOTICE_BYTES: usize = 256 << 10;
/// Key records that go with what an agency sends that the peer's directory does not show.
pub const HIDDEN_KEYS: usize = 100;
/// How often a peer may tell of one copy that less of it was released.
pub const NARROWINGS: u32 = 16;
/// How often one copy is offered again that a peer had accepted, because the peer has opened another log since.
pub const OFFERED_AGAIN: u32 = 16;
/// How long after its start a gateway that was restored from an older copy takes a thread that it does not know for one
/// that agents or peers are about to offer again.
pub const RETURNING: Duration = Duration::from_secs(60);
/// How often a sender is told of one copy why it waits.
pub const WAITINGS: u32 = 16;
/// How long a peer may take to answer before senders are told that their messages wait for it.
pub const ANSWER_LATE: Duration = Duration::from_secs(30);
/// How long a link is gone before senders are told that their messages wait for it.
pub const APART: Duration = Duration::from_secs(10);
/// The least time between two pages of a peer's directory that are taken.
pub const PAGE_PACE: Duration = Duration::from_millis(10);
/// How long a message waits until it is offered to a peer again that refused it for now, where the peer does not say;
/// twice as long after each time, up to [`QUEUE_RETRY`].
pub const FORWARD_RETRY: Duration = Duration::from_secs(5);
/// What a peer may do against the rules in one window before it is not listened to until the window's end.
pub const VIOLATIONS: u32 = 100;
/// That window.
pub const VIOLATIONS_WINDOW: Duration = Duration::from_secs(60);
/// Previews that one peer may ask for in a second.
pub const PEER_PREVIEWS: u32 = 20;
/// Previews that one agency of this domain may have asked of one peer in a second.
pub const AGENCY_PREVIEWS: u32 = 5;
/// How long a peer may take to answer a preview.
pub const PREVIEW_WAIT: Duration = Duration::from_secs(5);

/// How often staged leaves are taken into the logs, and their heads signed.
pub const LOG_GROWS: Duration = Duration::from_millis(200);
/// Leaves that a log grows by at once.
pub const LOG_PAGE: u32 = 4_096;
/// Faults of logs that are listed; more are counted.
pub const LOG_FAULTS: usize = 100;
/// Leaves that one command shows, at most and by itself.
pub const LOG_SHOWN: u32 = 10_000;
/// Leaves whose records one command erases.
pub const LOG_ERASED: usize = 100;
/// Receipts of one answer to an agent, and the bytes of their records, but for one that has more by itself.
pub const RECEIPTS: usize = 256;
pub const RECEIPTS_BYTES: usize = 4 << 20;

/// How long after a restart nothing new is signed, so that peers and agents can show what was signed before.
pub const LOG_QUIET: Duration = Duration::from_secs(2);
/// How long a gateway to which a head was shown that its database does not hold waits for higher ones before it ends.
pub const LOG_SHOWN_MORE: Duration = Duration::from_secs(2);
/// How often the guard file is written.
pub const LOG_GUARD: Duration = Duration::from_secs(1);
/// How often peers are asked to cosign a head.
pub const LOG_COSIGN: Duration = Duration::from_secs(60);
/// How long a witness may take to answer.
pub const LOG_COSIGN_WAIT: Duration = Duration::from_secs(10);
/// What is read of a witness's answer, bytes.
pub const LOG_COSIGN_BYTES: usize = 256 << 10;
/// How often a gateway looks whether there is more to read of a peer's log of keys.
pub const KEYS_WATCH: Duration = Duration::from_secs(5);
/// Entries of a peer's log of keys that are read at once.
pub const KEYS_WATCHED: u64 = 1 << 20;
/// One bundle of 256 key records, bytes.
pub const KEY_BUNDLE_BYTES: usize = 1 << 20;
/// Key records of agencies of this domain, logged by peers and not published here, that are kept as evidence: the first
/// ones.
pub const FOREIGN_KEYS: usize = 100;
/// Logs of one peer that are witnessed: it opens new ones only after it was restored from an older copy.
pub const LOGS_WITNESSED: u32 = 32;
/// Conflicting heads of the logs of one domain that are kept as evidence: the first ones.
pub const LOG_CONFLICTS: u32 = 100;

/// Former policy sets that are kept.
pub const POLICY_SETS: u32 = 100;
/// Administrative acts that are kept.
pub const AUDIT_ENTRIES: i64 = 100_000;
/// One message on the admin API, bytes: a whole policy set fits.
pub const ADMIN_MESSAGE_BYTES: usize = 32 << 20;
/// How old an answer on readiness may be.
pub const READINESS_AGE: Duration = Duration::from_secs(2);
/// The faults that a refusal quotes, bytes: they travel in an answer's trailers.
pub const FAULT_BYTES: usize = 3 << 10;
/// How long a write may take, or taking over what other gateways changed, for the gateway to count as ready.
pub const PROBE: Duration = Duration::from_secs(5);
/// How often the metrics recorder drops what it no longer needs.
pub const METRICS_UPKEEP: Duration = Duration::from_secs(5);
/// How long what is under way has to finish when the gateway stops.
pub const STOP: Duration = Duration::from_secs(20);
/// How long each of the metrics listener and the database has to close after that.
pub const CLOSE: Duration = Duration::from_secs(5);

/// Agencies in one page of the directory, bytes; a single agency may exceed it.
pub const AGENCIES_BYTES: usize = 768 << 10;
/// Key records of one agency.
pub const KEY_RECORDS: usize = 500;

/// How long before its end a CA is to be replaced.
pub const AUTHORITY_WARNING: Duration = Duration::from_secs(365 * 24 * 3600);
/// Free space on the disk below which `doctor` warns, bytes.
pub const DISK_WARN_BYTES: u64 = 2 << 30;
/// Free space on the disk below which nothing can be relied on, bytes.
pub const DISK_FAIL_BYTES: u64 = 64 << 20;
/// How long `doctor` waits for an answer.
pub const DOCTOR_WAIT: Duration = Duration::from_secs(5);
/// What `doctor` reads of an answer, bytes.
pub const DOCTOR_ANSWER_BYTES: u64 = 4 << 10;
