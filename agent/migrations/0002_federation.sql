-- Where two domains decide, each has its part: a DomainDecision. `decision` is both together.
alter table deliveries add column own_part blob;
alter table deliveries add column other_part blob;
-- The SignedAcceptance of the gateway of the recipient's domain, where that is another.
alter table deliveries add column forwarded blob;
-- Of a sent message: the agency or the domain that holds it now, or that ended it.
alter table deliveries add column holder text not null default '';
update deliveries set holder = (
    select case
        when deliveries.state = 7 then deliveries.agency
        when o.message is not null or deliveries.state = 2 then m.sender
        else substr(m.sender, 1, instr(m.sender, '/') - 1)
    end
    from messages m left join outbox o on o.message = m.id where m.id = deliveries.message
) where message in (select id from messages where direction = 1);

-- What a message of kind `onward` says: an OnwardRequest.
alter table messages add column onward blob;
-- The received referral that a sent one was referred onward from.
alter table messages add column onward_of blob references messages (id);

-- Requests to refer a received referral onward. A direction is that of the question.
create table onward_requests (
    seq integer primary key autoincrement,
    id blob not null unique,
    direction integer not null,
    referral blob not null references messages (id),
    asker text not null,
    originator text not null,
    recipient text not null,
    purpose integer not null,
    -- The data categories: their numbers, a byte each, ascending.
    categories blob not null,
    step integer not null,
    asked integer not null,
    answered integer,
    -- The messages that asked and that answered.
    question blob not null references messages (id),
    answer blob references messages (id)
) strict;
create index onward_requests_of on onward_requests (referral, recipient, purpose);
create index onward_requests_answered on onward_requests (answer);
create index onward_requests_asked on onward_requests (question);
