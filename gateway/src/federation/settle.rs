//! What becomes of the copies of a message by the answer of the peer that it was offered to.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use liaison_proto::{
    message::v1::{
        Acceptance, Acceptances, RecipientDecision, Refusal, SignedAcceptance, error_code::Code as ErrorCode,
        verdict::Code as Verdict,
    },
    strict::{self, StrictError},
};
use liaison_trust::{
    names::Domain,
    statement::{self, StatementError},
};
use metrics::counter;
use prost::Message;
use time::OffsetDateTime;
use tracing::{error, warn};

use super::{
    forward::Full,
    give::{Given, passes, wait},
    link::{Answer, Gone, Link},
    refusals::queue_full,
    relay, waiting,
};
use crate::{
    delivery::{Event, internal, sweep},
    gateway::to_the_end,
    limits,
    store::{Head, Next, QueuedCopy},
};

/// Settles the copies of a message that was offered, or lets them wait.
///
/// # Errors
/// The store failed, or the peer lies.
pub(super) async fn answered(
    link: &Arc<Link>,
    full: &Full,
    copies: Vec<QueuedCopy>,
    answer: Result<Answer, Gone>,
) -> Result<Given, Refusal> {
    let outcome = match &answer {
        Ok(Answer::Refused(refusal)) => refusal.code().as_str_name(),
        Ok(_) => "accepted",
        Err(Gone) => "gone",
    };
    counter!("liaison_gateway_forwards_total", "peer" => link.peer.domain.to_string(), "outcome" => outcome)
        .increment(1);
    match answer {
        Ok(Answer::Accepted(acceptances)) => accepted(link, full, copies, &acceptances).await,
        Ok(Answer::Refused(refusal)) if passes(&refusal) => {
            Ok(Given::Postponed(postponed(link, full, &copies, &refusal).await?))
        }
        Ok(Answer::Refused(refusal)) => refused(link, copies, refusal).await.map(|()| Given::Settled),
        Ok(Answer::Done) => Err(link.protocol("an answer of another kind")),
        Err(Gone) => Ok(Given::Gone),
    }
}

/// The peer accepted the message: its word goes to the sender, recipient by recipient. The copies that it says
/// nothing of, it has no room for; those of which it says what this gateway can't take wait.
async fn accepted(
    link: &Arc<Link>,
    full: &Full,
    copies: Vec<QueuedCopy>,
    acceptances: &[u8],
) -> Result<Given, Refusal> {
    let read: Acceptances = match strict::decode(acceptances) {
        Ok(read) => read,
        Err(error) => {
            let why = unreadable(link, error, "acceptances that can't be read")?;
            return Ok(Given::Postponed(postponed(link, full, &copies, &why).await?));
        }
    };
    if read.acceptances.is_empty() {
        return Err(link.protocol("it accepted for nobody"));
    }
    let mut words = by_recipient(link, read)?;
    let (mut ends, mut left) = (Vec::with_capacity(copies.len()), Vec::new());
    for copy in copies {
        let word = words.remove(&copy.head.recipient.to_string());
        let word = word.unwrap_or_else(|| Err(queue_full(&link.peer.domain)));
        match word.and_then(|word| Ok((next(link, &copy, &word)?, word))) {
            Ok((to, word)) => {
                let event = heard(&link.peer.domain, &copy.head, &to, word);
                ends.push((copy.head, to, event));
            }
            Err(refusal) if refusal.code() == ErrorCode::PeerViolation => return Err(refusal),
            Err(why) => left.push((copy, why)),
        }
    }
    if !words.is_empty() {
        return Err(link.protocol("it accepted for others than the recipients"));
    }
    settle(link, ends).await?;
    let waits = left.iter().map(|(copy, why)| postponed(link, full, std::slice::from_ref(copy), why));
    let first = try_join_all(waits).await?.into_iter().min();
    Ok(first.map_or(Given::Settled, Given::Postponed))
}

/// What a peer says of one recipient.
struct Word {
    read: Acceptance,
    signed: SignedAcceptance,
}

/// The peer's signed words, each by the recipient that it is about, or why it waits.
fn by_recipient(link: &Link, read: Acceptances) -> Result<BTreeMap<String, Result<Word, Refusal>>, Refusal> {
    let signing = link.peer().bundle.signing;
    let words = read.acceptances.into_iter().map(|signed| {
        if signed.encoded_len() > limits::NOTICE_BYTES {
            return Err(link.protocol("an acceptance that is too long"));
        }
        let why = match statement::read::<Acceptance>(&signed, &signing) {
            Ok(_) => None,
            Err(StatementError::Strict(error)) => {
                Some(unreadable(link, error, "an acceptance that can't be read")?)
            }
            Err(StatementError::BadSignature(_)) => {
                return Err(link.protocol("an acceptance that it did not sign"));
            }
        };
        // Whom a newer version's word is about can be read nevertheless.
        let read = Acceptance::decode(signed.acceptance.clone()).unwrap_or_default();
        let [decision] = read.decisions.as_slice() else {
            return Err(link.protocol("an acceptance that is not about one recipient"));
        };
        Ok((decision.recipient.clone(), why.map_or(Ok(Word { read, signed }), Err)))
    });
    words.collect()
}

/// Why copies wait of which a newer version says what this one can't read.
///
/// # Errors
/// No version says so.
fn unreadable(link: &Link, error: StrictError, what: &str) -> Result<Refusal, Refusal> {
    let refusal = Refusal::from(error);
    if refusal.code() != ErrorCode::UnknownValue {
        return Err(link.protocol(what));
    }
    let domain = &link.peer.domain;
    warn!(peer = %domain, "{what}: {}", refusal.message);
    Ok(Refusal {
        message: format!("{domain} answers what this version can't read: {}", refusal.message),
        action: format!(
            "upgrade this gateway, or have {domain} send what this version defines; messages wait"
        ),
        ..refusal
    })
}

/// What becomes of a copy by the peer's word about it.
///
/// # Errors
/// The word is not what it should be: the link's fault, or that of this one copy, which waits.
fn next(link: &Link, copy: &QueuedCopy, Word { read, .. }: &Word) -> Result<Next, Refusal> {
    let is_about_it = read.message_id == copy.head.message.as_bytes().as_slice()
        && read.manifest_digest == copy.head.digest.as_bytes().as_slice();
    if !is_about_it {
        return Err(link.protocol("an acceptance of another message"));
    }
    let decision = read.decisions.first();
    if let Some(decision) = decision {
        relay::is_its_to_decide(&link.gateway.directory.load(), &link.peer(), decision).map_err(
            |refusal| {
                link.peer.violation(&refusal);
                // It concerns this message alone.
                Refusal { code: ErrorCode::Unsupported.into(), ..refusal }
            },
        )?;
    }
    match decision.map(RecipientDecision::verdict) {
        Some(Verdict::Released) => Ok(Next::Forwarded { log: Some(link.log) }),
        Some(Verdict::Withheld) => Ok(Next::Gone),
        _ => Err(link.protocol("an acceptance without a verdict")),
    }
}

/// What a sender is told of the peer's word about a copy. One that the peer had accepted before, its recipient may have.
fn heard(domain: &Domain, head: &Head, to: &Next, word: Word) -> Event {
    if !head.accepted || matches!(to, Next::Forwarded { .. }) {
        return Event::Forwarded(word.signed);
    }
    let rule = word.read.decisions.into_iter().find_map(|decision| decision.rule).unwrap_or_default();
    let why = format!("the rule {} of {} withholds it", rule.rule, rule.layer);
    Event::Undeliverable(taken_once(domain, ErrorCode::ForbiddenByPolicy, &why).by_rule(rule))
}

/// A peer does not take again what it had accepted.
fn taken_once(domain: &Domain, code: ErrorCode, why: &str) -> Refusal {
    Refusal::new(
        code,
        format!(
            "{domain} had accepted the message, was restored from an older copy before it told whether the agency has \
             it, and does not take it again: {why}"
        ),
        "ask the agency itself whether it has the message; send it again if it has not",
    )
}

/// Settles copies together, to the end even if the link ends meanwhile.
async fn settle(link: &Link, ends: Vec<(Head, Next, Event)>) -> Result<(), Refusal> {
    let gateway = Arc::clone(&link.gateway);
    to_the_end(async move {
        let now = OffsetDateTime::now_utc();
        let ends = ends
            .into_iter()
            .map(async |(head, to, event)| sweep::end_as(&gateway, &head, to, event, now).await);
        try_join_all(ends).await.map_err(internal)?;
        Ok(())
    })
    .await
}

/// The peer takes copies later: their senders are told why. How long to wait.
async fn postponed(
    link: &Link,
    full: &Full,
    copies: &[QueuedCopy],
    why: &Refusal,
) -> Result<Duration, Refusal> {
    // It says so of what it has not taken.
    let is_back = matches!(
        why.code(),
        ErrorCode::QueueFull
            | ErrorCode::ClockSkew
            | ErrorCode::Suspended
            | ErrorCode::SchemeMismatch
            | ErrorCode::StaleBundle
    );
    if why.code() == ErrorCode::QueueFull {
        copies.iter().for_each(|copy| full.note(&copy.head.recipient));
    }
    // These pass by themselves in a moment.
    let is_momentary =
        matches!(why.code(), ErrorCode::UnknownKey | ErrorCode::RateLimited | ErrorCode::ShuttingDown);
    if !is_momentary {
        let heads = copies.iter().map(|copy| &copy.head);
        waiting::tell(&link.gateway, heads, why, is_back).await?;
    }
    Ok(wait(why))
}

/// The peer refused the message for good.
async fn refused(link: &Link, copies: Vec<QueuedCopy>, refusal: Refusal) -> Result<(), Refusal> {
    let as_evidence = is_about_us(refusal.code());
    let ends = copies.into_iter().map(|QueuedCopy { head, .. }| {
        let (message, recipient, code) = (head.message, &head.recipient, refusal.code().as_str_name());
        let (to, event) = if as_evidence {
            error!(%message, %recipient, code, "a peer does not take a message as genuine; it is kept as evidence");
            (Next::Quarantined(refusal.clone()), Event::Quarantined(refusal.clone()))
        } else {
            warn!(%message, %recipient, code, "a peer refused a message");
            let event = match head.accepted {
                true => Event::Undeliverable(taken_once(
                    &link.peer.domain,
                    refusal.code(),
                    &refusal.message,
                )),
                false => relay::event(&refusal),
            };
            (Next::Gone, event)
        };
        (head, to, event)
    });
    settle(link, ends.collect()).await
}

/// Whether a refusal says that this gateway, or an agency of it, breaks the rules.
fn is_about_us(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::PeerViolation
            | ErrorCode::BadSignature
            | ErrorCode::ChangedSection
            | ErrorCode::BadRecipients
            | ErrorCode::SenderMismatch
            | ErrorCode::Malformed
            | ErrorCode::MissingField
    )
}
