-- What this agent knows of its domain's log of evidence. Heads are checkpoints, as signed notes.

-- The highest head that was seen and goes on from all seen before.
create table log_head (
    one integer primary key check (one = 1),
    size integer not null,
    note text not null
) strict;

-- Heads that recipients of the own domain hold, by their signed word: to be compared with what is shown here.
create table shown_heads (
    agency text not null,
    -- Of which log: `log`, or `keys`.
    kind text not null,
    size integer not null,
    note text not null,
    primary key (agency, kind)
) strict, without rowid;

-- Receipts that are to be had: of an event (case.v1.ReceiptEvent) of a message, about the copy of an agency where it is
-- about one.
create table receipts_due (
    message blob not null references messages (id),
    event integer not null,
    agency text not null,
    -- How often the gateway had none.
    attempts integer not null default 0,
    not_before integer not null,
    primary key (message, event, agency)
) strict, without rowid;
create index receipts_due_at on receipts_due (not_before);

-- Receipts that were verified: each a C2SP tlog-proof.
create table receipts (
    log text not null,
    idx integer not null,
    message blob not null references messages (id),
    event integer not null,
    agency text not null,
    at integer not null,
    file text not null,
    primary key (log, idx)
) strict, without rowid;
create index receipts_of on receipts (message, log, idx);

-- What an honest log does not do (case.v1.LogAlarm), once for each subject, with the heads that show it.
create table log_alarms (
    seq integer primary key autoincrement,
    at integer not null,
    kind integer not null,
    subject text not null,
    detail text not null,
    held text not null,
    shown text not null,
    unique (kind, subject)
) strict;

-- Envelopes that the gateway accepted, as long as a recipient has neither signed for its copy nor been given up: they
-- are offered again to a gateway that was restored from an older copy.
create table accepted_envelopes (
    message blob primary key references messages (id),
    envelope blob not null
) strict, without rowid;
-- Under way are the states submitted and requested.
create trigger accepted_envelopes_end after update of state on deliveries when new.state not in (2, 6)
begin
    delete from accepted_envelopes where message = new.message
        and not exists (select 1 from deliveries where message = new.message and state in (2, 6));
end;
