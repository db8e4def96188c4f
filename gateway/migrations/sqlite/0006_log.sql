-- The log of evidence: its leaves, the tiles of its tree, and its signed head. See liaison-trust's `log` for the bytes.

-- A log of a kind (`log` for what happened to messages and what administrators did, `keys` for key records). The first has
-- the number 1, one that takes the place of another the moment at which it was opened, in Unix seconds. The newest of a
-- kind grows; the others are as they were signed last.
CREATE TABLE log (
    id         INTEGER PRIMARY KEY,
    kind       TEXT    NOT NULL,
    number     INTEGER NOT NULL,
    -- Leaves under the newest checkpoint.
    size       INTEGER NOT NULL,
    -- That checkpoint, a signed note with the cosignatures that it has; null before the first.
    checkpoint BLOB,
    -- The newest checkpoint that witnesses cosigned, with their cosignatures.
    cosigned   BLOB,
    UNIQUE (kind, number)
) STRICT;

CREATE TABLE leaf (
    log     INTEGER NOT NULL REFERENCES log,
    idx     INTEGER NOT NULL,
    -- What the tree commits to: the salted digest of a record, or a record in clear.
    entry   BLOB    NOT NULL,
    -- The liaison.log.v1.Record and its salt; null once they were erased, and where the entry is in clear.
    salt    BLOB,
    record  BLOB,
    -- What it is about, where that is a message, and the thread of a message that was accepted or refused: random ids,
    -- which stay where the record was erased.
    message BLOB,
    thread  BLOB,
    -- Agencies that may have the record in a receipt, joined by a space.
    readers TEXT    NOT NULL,
    -- The gateway's code of what it staged: see `store::Staged`. Erasing a record leaves it valid.
    mac     BLOB    NOT NULL,
    PRIMARY KEY (log, idx),
    CHECK ((salt IS NULL) = (record IS NULL))
) STRICT, WITHOUT ROWID;
-- An entry in clear stands in a log once; digests are shorter.
CREATE UNIQUE INDEX leaf_in_clear ON leaf (log, entry) WHERE LENGTH(entry) > 32;
CREATE INDEX leaf_message ON leaf (message) WHERE message IS NOT NULL;
CREATE INDEX leaf_thread ON leaf (thread) WHERE thread IS NOT NULL;

-- Tiles (C2SP tlog-tiles), the widest of each: 1 to 256 hashes of 32 bytes.
CREATE TABLE tile (
    log    INTEGER NOT NULL REFERENCES log,
    level  INTEGER NOT NULL,
    idx    INTEGER NOT NULL,
    hashes BLOB    NOT NULL,
    PRIMARY KEY (log, level, idx)
) STRICT, WITHOUT ROWID;

INSERT INTO log (id, kind, number, size) VALUES (1, 'log', 1, 0), (2, 'keys', 1, 0);

-- The largest head of each log of a peer that this gateway has seen and cosigned: a signed note.
CREATE TABLE witnessed (
    origin     TEXT    PRIMARY KEY,
    size       INTEGER NOT NULL,
    checkpoint BLOB    NOT NULL,
    -- Whether it was found out what it says of the log before it, of which a head was cosigned as well.
    compared   INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- How far the log of keys of a peer was read, and the hashes of its liaison-trust Frontier, 32 bytes each.
CREATE TABLE watched (
    origin   TEXT    PRIMARY KEY,
    size     INTEGER NOT NULL,
    frontier BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

-- Evidence: key records of agencies of this domain that a peer has logged and this gateway did not publish, each under a
-- head that the peer's log signed.
CREATE TABLE foreign_key (
    seq        INTEGER PRIMARY KEY,
    at         INTEGER NOT NULL,
    origin     TEXT    NOT NULL,
    idx        INTEGER NOT NULL,
    record     BLOB    NOT NULL,
    checkpoint BLOB    NOT NULL
) STRICT;

-- Evidence: two heads that one log signed, of which the one was not shown to be the beginning of the other. Of a log that
-- took the place of another, whose opening record does not name what was seen of that one.
CREATE TABLE conflict (
    seq    INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    origin TEXT    NOT NULL,
    -- What was known, and what was shown later: signed notes, or the tlog-proof of an opening record.
    known  BLOB    NOT NULL,
    shown  BLOB    NOT NULL
) STRICT;
CREATE INDEX conflict_origin ON conflict (origin);

-- Whether a copy was handed over, to its recipient's agent or a peer, which is logged once.
ALTER TABLE delivery ADD COLUMN handed_over INTEGER NOT NULL DEFAULT 0;
