-- Times are Unix milliseconds. Ids and digests are blobs of 16 and 32 bytes. Columns named after a
-- message of liaison.message.v1 hold that message, encoded. No section stands here in clear.

-- Every message sent or received. For a referral, `change` is where it stands; for a message of
-- kind `state`, what it says.
create table messages (
    seq integer primary key autoincrement,
    id blob not null unique,
    thread blob not null,
    direction integer not null,
    kind integer not null,
    alert_kind integer not null,
    sender text not null,
    urgency integer not null,
    handling blob,
    status integer not null,
    created integer not null,
    expires integer not null,
    -- Of the manifest: once it is sealed, or as received.
    digest blob,
    policy_hash blob,
    refusal blob,
    change blob not null,
    -- The data categories that a sent message holds: their numbers, a byte each.
    categories blob not null default x'',
    cancel_pending integer not null default 0,
    -- What the gateway signed: a SignedAcceptance of a sent message, a SignedReleaseRecord of a received one.
    evidence blob,
    -- The key over the keys of a received message's sections, sealed by the vault; null once all are erased.
    local_key blob
) strict;
create index messages_listed on messages (kind, status, seq);
-- One referral a thread.
create unique index messages_thread on messages (thread) where kind = 1;

create table deliveries (
    message blob not null references messages (id),
    agency text not null,
    state integer not null,
    decision blob,
    refusal blob,
    -- A SignedAcknowledgement.
    acknowledgement blob,
    primary key (message, agency)
) strict, without rowid;

create table history (
    seq integer primary key autoincrement,
    message blob not null references messages (id),
    change blob not null,
    at integer not null,
    by text not null
) strict;
create index history_of on history (message, seq);

-- A draft, sealed by the vault, until the recipients' keys are known; then the envelope, until the
-- gateway has it.
create table outbox (
    seq integer primary key references messages (seq),
    message blob not null unique references messages (id),
    thread blob not null,
    expires integer not null,
    attempts integer not null default 0,
    not_before integer not null default 0,
    bytes integer not null,
    draft blob,
    envelope blob,
    check ((draft is null) <> (envelope is null))
) strict;
create index outbox_thread on outbox (thread, seq);
create index outbox_bytes on outbox (bytes);

-- Received sections as they came, and their keys under the message's local key.
create table sections (
    message blob not null references messages (id),
    position integer not null,
    category integer not null,
    retain_until integer not null,
    wrapped_key blob not null,
    released_section blob not null,
    sealed_section blob not null,
    primary key (message, position)
) strict, without rowid;
create index sections_due on sections (retain_until);

create table idempotency (
    key text primary key,
    digest blob not null,
    -- The ids of the messages, one behind the other.
    messages blob not null,
    at integer not null
) strict, without rowid;

-- Every key record of another agency that was proven; the lowest sequence is the one first seen.
create table keys (
    agency text not null,
    sequence integer not null,
    id blob not null unique,
    signed_key_record blob not null,
    seen integer not null,
    primary key (agency, sequence)
) strict, without rowid;

-- Every other agency as the gateway last listed it: a liaison.exchange.v1.Agency without its keys.
create table agencies (
    address text primary key,
    listed blob not null
) strict, without rowid;

-- Who did what on this side.
create table audit (
    seq integer primary key autoincrement,
    at integer not null,
    actor text not null,
    action text not null,
    message blob not null
) strict;
