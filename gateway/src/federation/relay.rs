//! Notices of a peer about messages that it accepted: checked, and passed on to their senders.

use std::time::Duration;

use liaison_proto::{
    message::v1::{
        Acknowledgement, Notice, RecipientDecision, Refusal, SignedAcknowledgement, SignedKeyRecord,
        SignedNotice, error_code::Code as ErrorCode, verdict::Code as Verdict,
    },
    strict,
};
use liaison_trust::{key_record::ProvenKey, names::AgencyAddress, statement};
use prost::Message;
use time::OffsetDateTime;
use tracing::info;
use uuid::Uuid;

use super::{
    link::in_words,
    listed,
    peers::Peer,
    refusals::{not_its_word, violation},
};
use crate::{
    delivery::{Event, about, internal},
    directory::{Agency, Directory},
    gateway::Gateway,
    limits,
    store::{ForwardedCopy, Settled, Settlement},
};

/// Takes a notice of a peer: once for each end of a copy, whatever the peer repeats.
///
/// # Errors
/// It is not the peer's to say, or it comes before the peer's acceptance was heard.
pub(super) async fn take(gateway: &Gateway, peer: &Peer, signed: SignedNotice) -> Result<(), Refusal> {
    if signed.encoded_len() > limits::NOTICE_BYTES {
        return Err(violation(format!(
            "a notice of {} has more than {} bytes",
            peer.domain,
            limits::NOTICE_BYTES
        )));
    }
    let notice: Notice = statement::read(&signed, &peer.bundle.signing)
        .map_err(|error| not_its_word("a notice", &peer.domain, error))?;
    let recipient: Option<AgencyAddress> = notice.recipient.parse().ok();
    let recipient = recipient.filter(|recipient| *recipient.domain() == peer.domain);
    let recipient = recipient
        .ok_or_else(|| violation(format!("{} tells of an agency that is not one of its own", peer.domain)))?;
    let id = Uuid::from_slice(&notice.message_id)
        .map_err(|_| violation(format!("{} tells of something that is no message", peer.domain)))?;
    let copy = gateway
        .store
        .sent_copy(id, &notice.manifest_digest, &recipient)
        .await
        .map_err(internal)?
        .filter(|copy| *copy.sender.domain() == gateway.domain);
    // Long over, or never there: whoever repeats it is to stop.
    let Some(copy) = copy else {
        info!(peer = %peer.domain, message = %id, "a notice about a message that is not known was passed over");
        return Ok(());
    };
    let event =
        notice.event.ok_or_else(|| violation(format!("a notice of {} tells nothing", peer.domain)))?;
    let Checked { is_end, recipient } = check(gateway, peer, &copy, &event, &notice.recipient_keys)?;
    let word = about(gateway, &copy, plain(peer, event), Some(signed), OffsetDateTime::now_utc());
    let word = word.map_err(internal)?;
    let queue = word.queue.clone();
    match gateway.store.settle(Settlement { copy, is_end, notice: word }).await.map_err(internal)? {
        Settled::Done => {
            gateway.wake(&queue);
            match recipient {
                Some(recipient) => listed::note(gateway, peer, recipient).await,
                None => Ok(()),
            }
        }
        Settled::Unknown => Ok(()),
        Settled::TooOften => Err(violation(format!(
            "{} tells more than {} times that less of one message was released",
            peer.domain,
            limits::NARROWINGS
        ))),
        Settled::TooEarly => Err(Refusal::new(
            ErrorCode::RateLimited,
            "the acceptance of the message has not been heard yet",
            "send the notice again later",
        )
        .retry_after(limits::SUBMISSION_RETRY)),
    }
}

/// What is known of an event that is the peer's to tell.
struct Checked {
    /// Whether nothing else will be told of the copy.
    is_end: bool,
    /// A recipient that is not listed, with the keys that were told of it.
    recipient: Option<Agency>,
}

impl Checked {
    fn end(is_end: bool) -> Self {
        Self { is_end, recipient: None }
    }
}

/// Checks that an event is the peer's to tell.
fn check(
    gateway: &Gateway,
    peer: &Peer,
    copy: &ForwardedCopy,
    event: &Event,
    keys: &[SignedKeyRecord],
) -> Result<Checked, Refusal> {
    match event {
        Event::Acknowledged(signed) => {
            let recipient = recipient_with(gateway, peer, &copy.recipient, keys)?;
            acknowledged(recipient.as_ref().map_or(&[], |recipient| &recipient.keys), copy, signed)?;
            Ok(Checked { is_end: true, recipient: recipient.filter(|recipient| !recipient.listed) })
        }
        Event::Narrowed(RecipientDecision { recipient, .. }) if *recipient != copy.recipient.to_string() => {
            Err(violation(format!("a notice of {} holds the decision for another agency", peer.domain)))
        }
        Event::Narrowed(decision) => {
            is_its_to_decide(&gateway.directory.load(), peer, decision)?;
            Ok(Checked::end(decision.verdict() != Verdict::Released))
        }
        Event::Expired(_) | Event::Quarantined(_) | Event::Undeliverable(_) => Ok(Checked::end(true)),
        Event::Forwarded(_) | Event::Waiting(_) => {
            Err(violation(format!("{} says what only the gateway of the sender can tell", peer.domain)))
        }
    }
}

/// A recipient as it is known here; one that is not listed with the keys that are told with the notice.
fn recipient_with(
    gateway: &Gateway,
    peer: &Peer,
    recipient: &AgencyAddress,
    told: &[SignedKeyRecord],
) -> Result<Option<Agency>, Refusal> {
    let Some(known) = gateway.directory.load().get(recipient).map(|known| Agency::clone(known)) else {
        return Ok(None);
    };
    if known.listed {
        return Ok(Some(known));
    }
    let keys = listed::keys(peer, recipient, &known.keys, told)?;
    Ok(Some(Agency { keys, ..known }))
}

/// Checks that every rule of a decision is of a layer that the peer decides by: a sender is not to be told that its
/// own country forbade what another did.
pub(super) fn is_its_to_decide(
    directory: &Directory,
    peer: &Peer,
    decision: &RecipientDecision,
) -> Result<(), Refusal> {
    let recipient: Option<AgencyAddress> = decision.recipient.parse().ok();
    let recipient = recipient.and_then(|recipient| directory.get(&recipient));
    let country = recipient.map(|recipient| recipient.country.as_str());
    let rules = decision.categories.iter().filter_map(|category| category.rule.as_ref());
    match rules.chain(&decision.rule).find(|rule| !is_its_layer(peer, country, &rule.layer)) {
        None => Ok(()),
        Some(rule) => Err(violation(format!(
            "{} decides by the layer {}, which is not its own",
            peer.domain, rule.layer
        ))),
    }
}

/// Whether a peer decides by a layer for a recipient of this country: it may be one that the peer speaks for no more,
/// because its last other agency there left or its bundle was accepted anew.
fn is_its_layer(peer: &Peer, recipient: Option<&str>, layer: &str) -> bool {
    match layer.split_once('/') {
        Some(("country", country)) => {
            peer.countries.contains(country)
                || peer.bundle.countries.contains(country)
                || recipient == Some(country)
        }
        Some(("agency", address)) => {
            address.parse().is_ok_and(|address: AgencyAddress| *address.domain() == peer.domain)
        }
        Some(_) => false,
        None => matches!(layer, "scheme" | "consent" | "keys" | "directory" | "queue"),
    }
}

/// An event of a peer as it is shown to people: what the peer says is told as its word.
fn plain(peer: &Peer, event: Event) -> Event {
    match event {
        Event::Quarantined(refusal) => Event::Quarantined(in_words(&peer.domain, refusal)),
        Event::Undeliverable(refusal) => Event::Undeliverable(in_words(&peer.domain, refusal)),
        event => event,
    }
}

/// Checks an acknowledgement against the recipient's keys, where they are known here. Its sender checks it
/// again.
fn acknowledged(
    keys: &[ProvenKey],
    copy: &ForwardedCopy,
    signed: &SignedAcknowledgement,
) -> Result<(), Refusal> {
    let claimed: Acknowledgement = strict::decode(&signed.acknowledgement)?;
    let key = keys.iter().find(|key| claimed.key_id == key.id.as_bytes().as_slice());
    let read = match key {
        Some(key) => statement::read(signed, &key.signing).ok(),
        None if keys.is_empty() => Some(claimed),
        None => {
            return Err(Refusal::new(
                ErrorCode::UnknownKey,
                format!("an acknowledgement of {} names a key that is not known here", copy.recipient),
                "send the recipient's key records with the directory first, then the notice again",
            )
            .retry_after(Duration::from_secs(1)));
        }
    };
    let is_about_it = read.is_some_and(|read: Acknowledgement| {
        read.message_id == copy.message.as_bytes().as_slice()
            && read.manifest_digest == copy.digest.as_bytes().as_slice()
            && read.recipient == copy.recipient.to_string()
    });
    if is_about_it {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::BadSignature,
        format!("an acknowledgement is not {}'s own word about what was forwarded", copy.recipient),
        "pass on what the recipient signed",
    ))
}

/// What a peer's refusal means for the copies of a message that it was offered.
pub(super) fn event(refusal: &Refusal) -> Event {
    match refusal.code() {
        ErrorCode::Expired => Event::Expired(liaison_proto::message::v1::notice::Expired::default()),
        _ => Event::Undeliverable(refusal.clone()),
    }
}

#[cfg(test)]
mod tests {
    use liaison_proto::message::v1::Rule;

    use super::{super::testing, *};

    #[test]
    fn a_peer_decides_by_its_own_layers() {
        // It names one country more in its bundle than an administrator has confirmed.
        let peer = testing::peer("hu", &["hu"], &["hu", "sk"]);
        let by = |layer: &str| RecipientDecision {
            rule: Some(Rule { layer: layer.to_owned(), ..Rule::default() }),
            ..RecipientDecision::default()
        };
        let none = Directory::default();
        for own in ["scheme", "consent", "country/hu", "country/sk", "agency/hu/shelter"] {
            is_its_to_decide(&none, &peer, &by(own)).unwrap();
        }
        for foreign in ["country/be", "agency/be/shelter", "agency/hu", "else", "else/hu"] {
            let refusal = is_its_to_decide(&none, &peer, &by(foreign)).unwrap_err();
            assert_eq!(refusal.code(), ErrorCode::PeerViolation, "{foreign}");
        }

        // Nor is one that it speaks for no more that of another country's agency.
        let directory = none.with(testing::agency("hu/annex", "at"));
        let decision =
            |recipient: &str| RecipientDecision { recipient: recipient.to_owned(), ..by("country/at") };
        is_its_to_decide(&directory, &peer, &decision("hu/annex")).unwrap();
        is_its_to_decide(&directory, &peer, &decision("hu/shelter")).unwrap_err();
    }
}
