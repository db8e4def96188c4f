//! What a sender is told of a message after it was accepted.

use bytes::Bytes;
use liaison_proto::{
    message::v1::{Notice, notice},
    times,
};
use liaison_trust::{keys::SigningKey, statement};
use metrics::counter;
use time::OffsetDateTime;

use crate::store::{Head, NewNotice};

pub use notice::Event;

/// The signed word to the sender of a message about what became of one copy.
pub fn notice(copy: &Head, event: Event, signing: &SigningKey, now: OffsetDateTime) -> NewNotice {
    counter!("liaison_gateway_notices_total", "event" => name(&event)).increment(1);
    let notice = Notice {
        message_id: Bytes::copy_from_slice(copy.message.as_bytes()),
        manifest_digest: copy.digest.into(),
        recipient: copy.recipient.to_string(),
        at: Some(times::to_wire(now)),
        event: Some(event),
    };
    NewNotice { to: copy.sender.clone(), notice: statement::sign(&notice, signing) }
}

fn name(event: &Event) -> &'static str {
    match event {
        Event::Acknowledged(_) => "acknowledged",
        Event::Expired(_) => "expired",
        Event::Narrowed(_) => "narrowed",
        Event::Quarantined(_) => "quarantined",
        Event::Undeliverable(_) => "undeliverable",
    }
}
