-- What administrators and enrolment change. Moments are Unix milliseconds; serials and digests are
-- raw bytes.

CREATE TABLE agency (
    address TEXT    PRIMARY KEY,
    name    TEXT    NOT NULL,
    country TEXT    NOT NULL,
    -- Names of liaison.message.v1.Sector, and groups, joined by spaces.
    sectors TEXT    NOT NULL,
    groups  TEXT    NOT NULL,
    -- liaison.admin.v1.AgencyState
    state   INTEGER NOT NULL,
    added   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE token (
    digest      BLOB    PRIMARY KEY,
    agency      TEXT    NOT NULL REFERENCES agency,
    expires     INTEGER NOT NULL,
    -- Set by its one use: the digest of the certificate request, and the certificate that it got, so
    -- that the same request after a lost answer gets the same answer.
    request     BLOB,
    certificate BLOB,
    CHECK ((request IS NULL) = (certificate IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX token_agency ON token (agency);

CREATE TABLE certificate (
    serial    BLOB    PRIMARY KEY,
    agency    TEXT    NOT NULL REFERENCES agency,
    not_after INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX certificate_agency ON certificate (agency, not_after);

-- Without references: after a restore the file of revocations may name what this database never knew.
CREATE TABLE revocation (
    serial    BLOB    PRIMARY KEY,
    agency    TEXT    NOT NULL,
    not_after INTEGER NOT NULL,
    at        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Addresses whose membership ended for good. They are never given out again.
CREATE TABLE revoked_agency (
    agency TEXT    PRIMARY KEY,
    at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE policy_set (
    hash      BLOB    PRIMARY KEY,
    -- LoadPolicyRequest
    files     BLOB    NOT NULL,
    activated INTEGER NOT NULL,
    active    INTEGER NOT NULL CHECK (active IN (0, 1))
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX policy_set_active ON policy_set (active) WHERE active = 1;

-- What administrators did, and which user of the machine it was.
CREATE TABLE audit (
    seq     INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    actor   TEXT    NOT NULL,
    act     TEXT    NOT NULL,
    subject TEXT    NOT NULL
) STRICT;

-- One row that readiness writes to learn whether the database takes writes.
CREATE TABLE probe (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at INTEGER NOT NULL
) STRICT;
