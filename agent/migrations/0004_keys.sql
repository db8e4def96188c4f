-- The domain's log of keys, as far as this agent has replayed it.

-- Up to where, and the checkpoint whose root was found to be that of exactly these entries.
create table key_log (
    one integer primary key check (one = 1),
    size integer not null,
    -- The hashes of a liaison-trust Frontier, 32 bytes each.
    frontier blob not null,
    note text not null
) strict;

-- The key records in it. Those at or behind the size above have been read, and count once a checkpoint is found to be over
-- them.
create table logged_keys (
    agency text not null,
    id blob not null,
    -- Null while the log that took the place of another has not been found to hold it.
    idx integer,
    signed_key_record blob not null,
    -- Whether a person has confirmed other keys of the agency, knowing of this one.
    settled integer not null default 0,
    primary key (agency, id)
) strict, without rowid;
create index logged_keys_at on logged_keys (idx);

-- Who said, and when, that an agency's keys are those of a fingerprint.
create table confirmed_keys (
    seq integer primary key autoincrement,
    at integer not null,
    actor text not null,
    agency text not null,
    fingerprint blob not null
) strict;
