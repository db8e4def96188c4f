-- A sealed envelope stands in one place, from when it is sealed until no recipient's copy is under way any more.
drop trigger accepted_envelopes_end;
alter table accepted_envelopes rename to envelopes;
insert or ignore into envelopes (message, envelope) select message, envelope from outbox where envelope is not null;

create table waiting (
    seq integer primary key references messages (seq),
    message blob not null unique references messages (id),
    thread blob not null,
    expires integer not null,
    attempts integer not null default 0,
    not_before integer not null default 0,
    bytes integer not null,
    -- Sealed by the vault, until the message itself is sealed.
    draft blob
) strict;
insert into waiting (seq, message, thread, expires, attempts, not_before, bytes, draft)
    select seq, message, thread, expires, attempts, not_before, bytes, draft from outbox;
drop table outbox;
alter table waiting rename to outbox;
create index outbox_thread on outbox (thread, seq);
create index outbox_bytes on outbox (bytes);

-- Under way are the states submitted and requested. What waits in the outbox is offered again until the gateway answers,
-- whatever it has told before that.
create trigger envelopes_end after update of state on deliveries when new.state not in (2, 6)
begin
    delete from envelopes where message = new.message
        and not exists (select 1 from outbox where message = new.message)
        and not exists (select 1 from deliveries where message = new.message and state in (2, 6));
end;
