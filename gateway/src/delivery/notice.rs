//! What a sender is told of a message after it was accepted.

use bytes::Bytes;
use liaison_proto::{
    message::v1::{Notice, SignedKeyRecord, SignedNotice, notice},
    times,
};
use liaison_trust::statement;
use metrics::counter;
use time::OffsetDateTime;

use super::evidence;
use crate::{
    gateway::Gateway,
    limits,
    store::{ForwardedCopy, Head, NewNotice, StoreError},
};

pub use notice::Event;

/// The signed word to the sender of a message about what became of one copy.
///
/// # Errors
/// The event is longer than the log takes.
pub fn notice(
    gateway: &Gateway,
    copy: &Head,
    event: Event,
    now: OffsetDateTime,
) -> Result<NewNotice, StoreError> {
    let copy = ForwardedCopy {
        sender: copy.sender.clone(),
        message: copy.message,
        digest: copy.digest,
        recipient: copy.recipient.clone(),
    };
    about(gateway, &copy, event, None, now)
}

/// The signed word about what became of a copy, perhaps passed on from the recipient's gateway; with what the log says
/// of it.
///
/// # Errors
/// The event is longer than the log takes.
pub fn about(
    gateway: &Gateway,
    copy: &ForwardedCopy,
    event: Event,
    relayed: Option<SignedNotice>,
    now: OffsetDateTime,
) -> Result<NewNotice, StoreError> {
    counter!("liaison_gateway_notices_total", "event" => name(&event)).increment(1);
    let leaf = evidence::outcome(copy, &event, now)?;
    let recipient_keys = match &event {
        Event::Acknowledged(_) => hidden_keys(gateway, copy),
        _ => Vec::new(),
    };
    let notice = Notice {
        message_id: Bytes::copy_from_slice(copy.message.as_bytes()),
        manifest_digest: copy.digest.into(),
        recipient: copy.recipient.to_string(),
        at: Some(times::to_wire(now)),
        event: Some(event),
        relayed,
        recipient_keys,
    };
    Ok(NewNotice {
        leaf,
        to: copy.sender.clone(),
        queue: super::answers(&gateway.domain, &copy.sender, &copy.recipient),
        notice: statement::sign(&notice, &gateway.signing),
    })
}

/// The keys of a recipient of this domain that the sender's, another, is not let know of.
fn hidden_keys(gateway: &Gateway, copy: &ForwardedCopy) -> Vec<SignedKeyRecord> {
    let (from, own) = (copy.sender.domain(), &gateway.domain);
    let directory = gateway.directory.load();
    let recipient = directory.get(&copy.recipient).filter(|_| from != own && copy.recipient.domain() == own);
    recipient
        .filter(|recipient| !super::may_see(&gateway.policy.load(), from, recipient))
        .map_or_else(Vec::new, |recipient| recipient.newest_keys(limits::HIDDEN_KEYS))
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
