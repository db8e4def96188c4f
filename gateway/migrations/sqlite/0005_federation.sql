-- Peers, and what waits for them. Moments are Unix milliseconds.

-- The queue of a delivery: the address of a local agency; for another domain `<domain> <agency>`, a lane of
-- its own for each agency of this domain, so that none can hold up the others; `<domain> <agency> notices` for
-- notices about what that agency received.
ALTER TABLE delivery ADD COLUMN queue TEXT NOT NULL DEFAULT '';
UPDATE delivery SET queue = agency;
-- Salt of the bases' digest, for copies that go to another domain.
ALTER TABLE delivery ADD COLUMN bases_salt BLOB;
-- Whether the peer may have it already: then only the peer can say that it expired.
ALTER TABLE delivery ADD COLUMN offered INTEGER NOT NULL DEFAULT 0;
-- The reason of waiting that the sender was told last, liaison.message.v1.ErrorCode, and how often it was told one.
ALTER TABLE delivery ADD COLUMN waiting INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN waitings INTEGER NOT NULL DEFAULT 0;
DROP INDEX delivery_queue;
DROP INDEX delivery_quarantine;
CREATE INDEX delivery_queue ON delivery (queue, seq) WHERE quarantined IS NULL;
CREATE INDEX delivery_quarantine ON delivery (queue, seq) WHERE quarantined IS NOT NULL;
-- Notices of peers name a message by its id alone.
CREATE INDEX message_id ON message (id);

-- Copies that a peer accepted and has not told the end of.
CREATE TABLE forwarded (
    message   INTEGER NOT NULL REFERENCES message,
    recipient TEXT    NOT NULL,
    domain    TEXT    NOT NULL,
    expires   INTEGER NOT NULL,
    -- How often the peer has told that less of it was released.
    narrowed  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (message, recipient)
) STRICT, WITHOUT ROWID;
CREATE INDEX forwarded_expires ON forwarded (expires);
CREATE INDEX forwarded_domain ON forwarded (domain);

CREATE TABLE peer (
    domain             TEXT    PRIMARY KEY,
    -- liaison.admin.v1.PeerState
    state              INTEGER NOT NULL,
    -- The newest SignedBundle.
    bundle             BLOB    NOT NULL,
    -- Countries that an administrator confirmed, joined by spaces.
    countries          TEXT    NOT NULL,
    -- How much of its directory is known; null for nothing.
    directory_epoch    BLOB,
    directory_sequence INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE peer_agency (
    address TEXT PRIMARY KEY,
    domain  TEXT NOT NULL REFERENCES peer,
    -- Whether the peer lets it be seen. What it was is remembered, for messages that it sent.
    listed  INTEGER NOT NULL,
    -- The epoch of the directory in which it was told last.
    epoch   BLOB NOT NULL,
    -- liaison.exchange.v1.Agency
    agency  BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX peer_agency_domain ON peer_agency (domain);
