//! What a sender is told of a message after it was accepted.

use bytes::Bytes;
use liaison_proto::{
    message::v1::{Notice, SignedNotice, notice},
    times,
};
use liaison_trust::statement;
use metrics::counter;
use time::OffsetDateTime;

use crate::{
    gateway::Gateway,
    store::{ForwardedCopy, Head, NewNotice},
};

pub use notice::Event;

/// The signed word to the sender of a message about what became of one copy.
pub fn notice(gateway: &Gateway, copy: &Head, event: Event, now: OffsetDateTime) -> NewNotice {
    let copy = ForwardedCopy {
        sender: copy.sender.clone(),
        message: copy.message,
        digest: copy.digest,
        recipient: copy.recipient.clone(),
    };
    about(gateway, &copy, event, None, now)
}

/// The signed word about what became of a copy, perhaps passed on from the recipient's gateway.
pub fn about(
    gateway: &Gateway,
    copy: &ForwardedCopy,
    event: Event,
    relayed: Option<SignedNotice>,
    now: OffsetDateTime,
) -> NewNotice {
    counter!("liaison_gateway_notices_total", "event" => name(&event)).increment(1);
    let notice = Notice {
        message_id: Bytes::copy_from_slice(copy.message.as_bytes()),
        manifest_digest: copy.digest.into(),
        recipient: copy.recipient.to_string(),
        at: Some(times::to_wire(now)),
        event: Some(event),
        relayed,
        recipient_keys: Vec::new(),
    };
    NewNotice {
        to: copy.sender.clone(),
        queue: super::answers(&gateway.domain, &copy.sender, &copy.recipient),
        notice: statement::sign(&notice, &gateway.signing),
    }
}

/// The name of an event, for metrics.
pub fn name(event: &Event) -> &'static str {
    match event {
        Event::Acknowledged(_) => "acknowledged",
        Event::Expired(_) => "expired",
        Event::Narrowed(_) => "narrowed",
        Event::Quarantined(_) => "quarantined",
        Event::Undeliverable(_) => "undeliverable",
        Event::Forwarded(_) => "forwarded",
        Event::Waiting(_) => "waiting",
    }
}
