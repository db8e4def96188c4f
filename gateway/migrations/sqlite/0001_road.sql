-- The road of messages. Moments are Unix milliseconds; ids and digests are raw bytes; columns that
-- name a wire message hold it encoded.

-- Every message accepted, remembered until its id can't be replayed any more.
CREATE TABLE message (
    seq        INTEGER PRIMARY KEY,
    sender     TEXT    NOT NULL,
    id         BLOB    NOT NULL,
    digest     BLOB    NOT NULL,
    expires    INTEGER NOT NULL,
    -- SignedAcceptance
    acceptance BLOB    NOT NULL,
    UNIQUE (sender, id)
) STRICT;
CREATE INDEX message_expires ON message (expires);

-- What the last answer of a recipient deletes: the Envelope without its recipients.
CREATE TABLE content (
    message  INTEGER PRIMARY KEY REFERENCES message,
    envelope BLOB    NOT NULL
) STRICT;

-- One queue an agency, in the order of seq: its copies of messages, and notices of its own.
CREATE TABLE delivery (
    seq         INTEGER PRIMARY KEY,
    agency      TEXT    NOT NULL,
    expires     INTEGER NOT NULL,
    -- What it counts against its agency's bound.
    bytes       INTEGER NOT NULL,
    -- A copy of this message ...
    message     INTEGER REFERENCES message,
    -- ... RecipientProof, PreviewRecipient (the bases), RecipientDecision, SignedReleaseRecord.
    proof       BLOB,
    bases       BLOB,
    decision    BLOB,
    release     BLOB,
    policy_hash BLOB,
    -- Or a SignedNotice.
    notice      BLOB,
    -- The Refusal with which the recipient set the copy aside; it is evidence and no longer queued.
    quarantined BLOB,
    CHECK ((message IS NULL) = (notice IS NOT NULL))
) STRICT;
CREATE INDEX delivery_queue ON delivery (agency, seq) WHERE quarantined IS NULL;
CREATE INDEX delivery_quarantine ON delivery (agency, seq) WHERE quarantined IS NOT NULL;
CREATE INDEX delivery_message ON delivery (message) WHERE message IS NOT NULL;
CREATE INDEX delivery_expires ON delivery (expires) WHERE message IS NOT NULL AND quarantined IS NULL;

-- The two parties of every referral: what authorises the states that follow it.
CREATE TABLE thread (
    thread    BLOB    PRIMARY KEY,
    requester TEXT    NOT NULL,
    responder TEXT    NOT NULL,
    status    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE key_record (
    agency   TEXT    NOT NULL,
    sequence INTEGER NOT NULL,
    -- SignedKeyRecord
    record   BLOB    NOT NULL,
    PRIMARY KEY (agency, sequence)
) STRICT;
