-- What a gateway holds. Moments are Unix milliseconds; ids, digests and serials are raw bytes; columns that name a wire
-- message hold it encoded. Numbers have 64 bits; texts are in the order of their bytes, as in SQLite. It is what the migrations of SQLite come to, whose comments hold here.

-- Every message accepted, remembered until its id can't be replayed any more.
CREATE TABLE message (
    seq        BIGINT PRIMARY KEY,
    sender     TEXT COLLATE "C"   NOT NULL,
    id         BYTEA  NOT NULL,
    digest     BYTEA  NOT NULL,
    expires    BIGINT NOT NULL,
    -- SignedAcceptance
    acceptance BYTEA  NOT NULL,
    UNIQUE (sender, id)
);
CREATE INDEX message_expires ON message (expires);
-- Notices of peers name a message by its id alone.
CREATE INDEX message_id ON message (id);

-- What the last answer of a recipient deletes: the Envelope without its recipients.
CREATE TABLE content (
    message  BIGINT PRIMARY KEY REFERENCES message,
    envelope BYTEA  NOT NULL
);
-- It is sealed: nothing in it can be pressed together.
ALTER TABLE content ALTER COLUMN envelope SET STORAGE EXTERNAL;

-- The queues, each in the order of seq: copies of messages, and notices.
CREATE TABLE delivery (
    seq         BIGINT  PRIMARY KEY,
    agency      TEXT COLLATE "C"    NOT NULL,
    expires     BIGINT  NOT NULL,
    -- What it counts against its queue's bound.
    bytes       BIGINT  NOT NULL,
    -- A copy of this message ...
    message     BIGINT  REFERENCES message,
    -- ... RecipientProof, PreviewRecipient (the bases), RecipientDecision, SignedReleaseRecord.
    proof       BYTEA,
    bases       BYTEA,
    decision    BYTEA,
    release     BYTEA,
    -- Or a SignedNotice.
    notice      BYTEA,
    -- The Refusal with which the recipient set the copy aside; it is evidence and no longer queued.
    quarantined BYTEA,
    -- The address of a local agency; for another domain `<domain> <agency>`, a lane of its own for each agency of this
    -- domain; `<domain> <agency> notices` for notices about what that agency received.
    queue       TEXT COLLATE "C"    NOT NULL DEFAULT '',
    -- Salt of the bases' digest, for copies that go to another domain.
    bases_salt  BYTEA,
    -- Whether the peer may have it already: then only the peer can say that it expired.
    offered     BOOLEAN NOT NULL DEFAULT FALSE,
    -- The reason of waiting that the sender was told last, liaison.message.v1.ErrorCode, and how often it was told one.
    waiting     BIGINT  NOT NULL DEFAULT 0,
    waitings    BIGINT  NOT NULL DEFAULT 0,
    -- Whether a copy was handed over, to its recipient's agent or a peer, which is logged once.
    handed_over BOOLEAN NOT NULL DEFAULT FALSE,
    -- Whether the peer has accepted it and its end is outstanding. Then it counts in the queue of its recipient, an agency
    -- of the peer, instead of the lane.
    forwarded   BOOLEAN NOT NULL DEFAULT FALSE,
    -- The number of the log of evidence that the peer signed when it accepted the copy; null where it was not heard to, and
    -- where the copy is not to be offered again.
    log         BIGINT,
    -- How often it was offered again because the peer had opened another log.
    again       BIGINT  NOT NULL DEFAULT 0,
    -- How often the peer has told that less of it was released.
    narrowed    BIGINT  NOT NULL DEFAULT 0,
    CHECK ((message IS NULL) = (notice IS NOT NULL))
);
CREATE INDEX delivery_queue ON delivery (queue, seq) WHERE quarantined IS NULL;
CREATE INDEX delivery_quarantine ON delivery (queue, seq) WHERE quarantined IS NOT NULL;
CREATE INDEX delivery_message ON delivery (message) WHERE message IS NOT NULL;
CREATE INDEX delivery_expires ON delivery (expires) WHERE message IS NOT NULL AND quarantined IS NULL;

-- The two parties of every referral: what authorises the states that follow it.
CREATE TABLE thread (
    thread    BYTEA  PRIMARY KEY,
    requester TEXT COLLATE "C"   NOT NULL,
    responder TEXT COLLATE "C"   NOT NULL,
    status    BIGINT NOT NULL
);

CREATE TABLE key_record (
    agency   TEXT COLLATE "C"   NOT NULL,
    sequence BIGINT NOT NULL,
    -- SignedKeyRecord
    record   BYTEA  NOT NULL,
    PRIMARY KEY (agency, sequence)
);

CREATE TABLE agency (
    address  TEXT COLLATE "C"   PRIMARY KEY,
    name     TEXT COLLATE "C"   NOT NULL,
    country  TEXT COLLATE "C"   NOT NULL,
    -- Names of liaison.message.v1.Sector, and groups, joined by spaces.
    sectors  TEXT COLLATE "C"   NOT NULL,
    groups   TEXT COLLATE "C"   NOT NULL,
    -- liaison.admin.v1.AgencyState
    state    BIGINT NOT NULL,
    added    BIGINT NOT NULL,
    -- liaison.exchange.v1.Services: what the agency offers; empty where nothing is said.
    services BYTEA  NOT NULL DEFAULT ''
);

CREATE TABLE token (
    digest      BYTEA  PRIMARY KEY,
    agency      TEXT COLLATE "C"   NOT NULL REFERENCES agency,
    expires     BIGINT NOT NULL,
    -- Set by its one use: the digest of the certificate request, and the certificate that it got, so
    -- that the same request after a lost answer gets the same answer.
    request     BYTEA,
    certificate BYTEA,
    CHECK ((request IS NULL) = (certificate IS NULL))
);
CREATE INDEX token_agency ON token (agency);

CREATE TABLE certificate (
    serial    BYTEA  PRIMARY KEY,
    agency    TEXT COLLATE "C"   NOT NULL REFERENCES agency,
    not_after BIGINT NOT NULL,
    -- When it was issued; the SHA-256 of the root that issued it, and of the other root that was told with it where the
    -- CA was being changed.
    issued    BIGINT NOT NULL DEFAULT 0,
    ca        BYTEA,
    other     BYTEA
);
CREATE INDEX certificate_agency ON certificate (agency, not_after);

-- Without references: after a restore the file of revocations may name what this database never knew.
CREATE TABLE revocation (
    serial    BYTEA  PRIMARY KEY,
    agency    TEXT COLLATE "C"   NOT NULL,
    not_after BIGINT NOT NULL,
    at        BIGINT NOT NULL
);

-- Addresses whose membership ended for good. They are never given out again.
CREATE TABLE revoked_agency (
    agency TEXT COLLATE "C"   PRIMARY KEY,
    at     BIGINT NOT NULL
);

CREATE TABLE policy_set (
    hash      BYTEA   PRIMARY KEY,
    -- LoadPolicyRequest
    files     BYTEA   NOT NULL,
    activated BIGINT  NOT NULL,
    active    BOOLEAN NOT NULL
);
CREATE UNIQUE INDEX policy_set_active ON policy_set (active) WHERE active;

-- What administrators did, and which user of the machine it was.
CREATE TABLE audit (
    seq     BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    at      BIGINT NOT NULL,
    actor   TEXT COLLATE "C"   NOT NULL,
    act     TEXT COLLATE "C"   NOT NULL,
    subject TEXT COLLATE "C"   NOT NULL
);

-- One row that readiness writes to learn whether the database takes writes.
CREATE TABLE probe (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    at BIGINT NOT NULL
);

-- How often a gateway has opened the database: one that lost its connection goes on only if no other has since.
CREATE TABLE writer (
    id   BIGINT PRIMARY KEY CHECK (id = 1),
    turn BIGINT NOT NULL
);
INSERT INTO writer (id, turn) VALUES (1, 0);

CREATE TABLE peer (
    domain             TEXT COLLATE "C"   PRIMARY KEY,
    -- liaison.admin.v1.PeerState
    state              BIGINT NOT NULL,
    -- The newest SignedBundle.
    bundle             BYTEA  NOT NULL,
    -- Countries that an administrator confirmed, joined by spaces.
    countries          TEXT COLLATE "C"   NOT NULL,
    -- How much of its directory is known; null for nothing.
    directory_epoch    BYTEA,
    directory_sequence BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE peer_agency (
    address TEXT COLLATE "C"    PRIMARY KEY,
    domain  TEXT COLLATE "C"    NOT NULL REFERENCES peer,
    -- Whether the peer lets it be seen. What it was is remembered, for messages that it sent.
    listed  BOOLEAN NOT NULL,
    -- The epoch of the directory in which it was told last.
    epoch   BYTEA   NOT NULL,
    -- liaison.exchange.v1.Agency
    agency  BYTEA   NOT NULL
);
CREATE INDEX peer_agency_domain ON peer_agency (domain);

-- A log of a kind (`log` for what happened to messages and what administrators did, `keys` for key records). The first has
-- the number 1, one that takes the place of another the moment at which it was opened, in Unix seconds. The newest of a
-- kind grows; the others are as they were signed last.
CREATE TABLE log (
    id         BIGINT GENERATED BY DEFAULT AS IDENTITY (START WITH 3) PRIMARY KEY,
    kind       TEXT COLLATE "C"   NOT NULL,
    number     BIGINT NOT NULL,
    -- Leaves under the newest checkpoint.
    size       BIGINT NOT NULL,
    -- That checkpoint, a signed note with the cosignatures that it has; null before the first.
    checkpoint BYTEA,
    -- The newest checkpoint that witnesses cosigned, with their cosignatures.
    cosigned   BYTEA,
    UNIQUE (kind, number)
);
INSERT INTO log (id, kind, number, size) VALUES (1, 'log', 1, 0), (2, 'keys', 1, 0);

CREATE TABLE leaf (
    log     BIGINT NOT NULL REFERENCES log,
    idx     BIGINT NOT NULL,
    -- What the tree commits to: the salted digest of a record, or a record in clear.
    entry   BYTEA  NOT NULL,
    -- The liaison.log.v1.Record and its salt; null once they were erased, and where the entry is in clear.
    salt    BYTEA,
    record  BYTEA,
    -- What it is about, where that is a message, and the thread of a message that was accepted or refused: random ids,
    -- which stay where the record was erased.
    message BYTEA,
    thread  BYTEA,
    -- Agencies that may have the record in a receipt, joined by a space.
    readers TEXT COLLATE "C"   NOT NULL,
    -- The gateway's code of what it staged. Erasing a record leaves it valid.
    mac     BYTEA  NOT NULL,
    PRIMARY KEY (log, idx),
    CHECK ((salt IS NULL) = (record IS NULL))
);
-- An entry in clear stands in a log once, and is longer than a tree of an index takes; digests are shorter.
CREATE INDEX leaf_in_clear ON leaf USING hash (entry) WHERE LENGTH(entry) > 32;
CREATE INDEX leaf_message ON leaf (message) WHERE message IS NOT NULL;
CREATE INDEX leaf_thread ON leaf (thread) WHERE thread IS NOT NULL;

-- Tiles (C2SP tlog-tiles), the widest of each: 1 to 256 hashes of 32 bytes.
CREATE TABLE tile (
    log    BIGINT NOT NULL REFERENCES log,
    level  BIGINT NOT NULL,
    idx    BIGINT NOT NULL,
    hashes BYTEA  NOT NULL,
    PRIMARY KEY (log, level, idx)
);
ALTER TABLE tile ALTER COLUMN hashes SET STORAGE EXTERNAL;

-- The largest head of each log of a peer that this gateway has seen and cosigned: a signed note.
CREATE TABLE witnessed (
    origin     TEXT COLLATE "C"    PRIMARY KEY,
    size       BIGINT  NOT NULL,
    checkpoint BYTEA   NOT NULL,
    -- Whether it was found out what it says of the log before it, of which a head was cosigned as well.
    compared   BOOLEAN NOT NULL DEFAULT FALSE
);

-- How far the log of keys of a peer was read, and the hashes of its liaison-trust Frontier, 32 bytes each.
CREATE TABLE watched (
    origin   TEXT COLLATE "C"   PRIMARY KEY,
    size     BIGINT NOT NULL,
    frontier BYTEA  NOT NULL
);

-- Evidence: key records of agencies of this domain that a peer has logged and this gateway did not publish, each under a
-- head that the peer's log signed.
CREATE TABLE foreign_key (
    seq        BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    at         BIGINT NOT NULL,
    origin     TEXT COLLATE "C"   NOT NULL,
    idx        BIGINT NOT NULL,
    record     BYTEA  NOT NULL,
    checkpoint BYTEA  NOT NULL
);

-- Evidence: two heads that one log signed, of which the one was not shown to be the beginning of the other. Of a log that
-- took the place of another, whose opening record does not name what was seen of that one.
CREATE TABLE conflict (
    seq    BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    at     BIGINT NOT NULL,
    origin TEXT COLLATE "C"   NOT NULL,
    -- What was known, and what was shown later: signed notes, or the tlog-proof of an opening record.
    known  BYTEA  NOT NULL,
    shown  BYTEA  NOT NULL
);
CREATE INDEX conflict_origin ON conflict (origin);
