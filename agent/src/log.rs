//! This agency's eye on its domain's log of evidence: it has the receipts of what happened to its messages, and sees to
//! it that nobody rewrites the log or shows another one to others.
//!
//! What the gateway must have logged is noted with the event, so that no crash forgets it, and asked for until it is
//! there. Each answer has to go on from the highest head seen before, and from the heads that recipients say they hold.
//! What an honest log does not do is an alarm with its evidence; messages go on all the same.

mod judge;
pub(crate) mod keys;
mod succession;
#[cfg(test)]
mod tests;
mod told;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use liaison_proto::{
    case::v1::{log_alarm::Code as Kind, receipt_event::Code as Event},
    exchange::v1::{Continuation, ListReceiptsRequest, ListReceiptsResponse},
    limits::{RECEIPT_MESSAGES, SHOWN_HEADS},
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use liaison_trust::{keys::VerifyingKey, log::LOGS_FOLLOWED, names::AgencyAddress};
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use judge::{Alarm, Head, Known};
use judge::{EVIDENCE, KEYS};
pub use told::{NotTold, Told};

use crate::{
    agent::Agent,
    limits,
    store::{Due, Store, StoreError},
};

/// Why a log could not be asked, or nothing of the answer counts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("the gateway has not told the key of its log yet")]
    NoKey,
    #[error("the gateway gives no entries of its log of keys: tell its administrator")]
    Withheld,
    #[error("the log of keys is not to be relied on: see the alarm")]
    NotBelieved,
}

impl From<Failed> for Refusal {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Store(error) => error.into(),
            Failed::Refused(refusal) => refusal,
            failed => Refusal::new(
                ErrorCode::InconsistentLog,
                failed.to_string(),
                "what is sent waits; `liaison-agent doctor` says more",
            ),
        }
    }
}

/// Heads of the domain's logs that an agency holds, signed notes; empty where it holds none, or tells of none.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeldHeads {
    pub log: Bytes,
    pub keys: Bytes,
}

/// What each agency was shown last in a session: the same head is not shown to it twice.
#[derive(Debug, Default)]
pub(crate) struct ShownHeads(Mutex<HashMap<AgencyAddress, [Bytes; 2]>>);

impl ShownHeads {
    /// Leaves of the heads of both logs those that are news to an agency.
    pub(crate) fn leave_news(&self, to: &AgencyAddress, heads: [&mut Bytes; 2]) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.len() >= limits::DIRECTORY_AGENCIES {
            shown.clear();
        }
        for (head, before) in heads.into_iter().zip(shown.entry(to.clone()).or_default()) {
            if head == before {
                head.clear();
            } else {
                before.clone_from(head);
            }
        }
    }
}

/// Asks for receipts and heads, and replays the log of keys, until `stop`.
pub(crate) async fn keep(agent: &Agent, stop: &CancellationToken) {
    let mut looked: Option<Instant> = None;
    let mut watched = None;
    while stop.run_until_cancelled(tokio::time::sleep(limits::RECEIPT_TURN)).await.is_some() {
        let Some(key) = agent.link.log_key().filter(|_| agent.link.status().connected) else {
            // The next gateway that it is connected to may be a restored one.
            looked = None;
            continue;
        };
        let is_old = looked.is_none_or(|looked| looked.elapsed() >= limits::HEAD_AGE);
        let keys = stop.run_until_cancelled(look_at_keys(agent, is_old, &mut watched)).await;
        if let Some(Err(error)) = keys {
            tracing::warn!(%error, "the log of keys could not be replayed");
        }
        match stop.run_until_cancelled(turn(agent, &key, is_old)).await {
            Some(Ok(true)) => looked = Some(Instant::now()),
            Some(Ok(false)) | None => {}
            Some(Err(error)) => tracing::warn!(%error, "the log could not be asked for receipts"),
        }
    }
}

/// Replays the log of keys if it `is_old` or a recipient has told what it holds of it, and looks for foreign keys of this
/// agency whenever it has grown, by whomever it was replayed.
async fn look_at_keys(agent: &Agent, is_old: bool, watched: &mut Option<u64>) -> Result<(), Failed> {
    if is_old || !agent.store.heads_shown(KEYS, 1).await?.is_empty() {
        agent.directory.replay().await?;
    }
    let size = agent.store.key_log().await?.map(|log| log.frontier.size());
    if size != *watched {
        keys::watch(agent).await?;
        *watched = size;
    }
    Ok(())
}

/// The heads that a recipient of the own domain holds, by its signed word, each with the kind of its log: to be compared
/// when the gateway is asked next.
pub(crate) async fn shown(
    agent: &Agent,
    by: &AgencyAddress,
    heads: &HeldHeads,
) -> Result<Vec<(&'static str, Head)>, StoreError> {
    let mut shown = Vec::new();
    let Some(key) = agent.link.log_key().filter(|_| by.domain() == agent.address.domain()) else {
        return Ok(shown);
    };
    for (kind, head) in [(EVIDENCE, &heads.log), (KEYS, &heads.keys)] {
        if head.is_empty() {
            continue;
        }
        let text = String::from_utf8_lossy(head);
        match judge::head(kind, by.domain(), &key, &text) {
            Ok(head) => shown.push((kind, head)),
            Err(why) => {
                let alarm = Alarm {
                    kind: Kind::WrongKey,
                    subject: by.to_string(),
                    detail: format!("{by} holds a head that the log's key known here did not sign: {why}"),
                    held: agent.store.log_head().await?.unwrap_or_default(),
                    shown: text.into_owned(),
                };
                raise(&agent.store, &alarm).await?;
            }
        }
    }
    Ok(shown)
}

/// Raises an alarm, once for each subject, and keeps its evidence.
pub(crate) async fn raise(store: &Store, alarm: &Alarm) -> Result<(), StoreError> {
    if store.raise(alarm).await? {
        tracing::error!(
            alarm = alarm.kind.as_str_name(),
            detail = alarm.detail,
            "the log of evidence is not to be relied on; the evidence is kept: tell the domain's administrator, and those of other agencies"
        );
    }
    Ok(())
}

/// Asks once for what is due, page by page. False where nothing was.
async fn turn(agent: &Agent, key: &VerifyingKey, is_old: bool) -> Result<bool, Failed> {
    let due = agent.store.receipts_due(OffsetDateTime::now_utc(), RECEIPT_MESSAGES).await?;
    let others = agent.store.heads_shown(EVIDENCE, SHOWN_HEADS - 1).await?;
    if due.is_empty() && others.is_empty() && !is_old {
        return Ok(false);
    }
    let messages: BTreeSet<Uuid> = due.iter().map(|due| due.message).collect();
    let (mut from, mut log, mut pending, mut compare) = (0, 0, BTreeSet::new(), others.as_slice());
    let mut logs = 0;
    loop {
        let held = agent.store.log_head().await?;
        let request = ListReceiptsRequest {
            messages: messages.iter().map(|id| id.as_bytes().to_vec().into()).collect(),
            heads: held.iter().chain(compare.iter().map(|(_, note)| note)).cloned().collect(),
            from,
            log,
        };
        let answer = agent.link.list_receipts(request).await?;
        if !take(agent, key, held.as_deref(), compare, (&messages, log), &answer).await? {
            // What must not happen did. What is due may come once somebody has put it right.
            return postpone(agent, due).await.map(|()| true);
        }
        compare = &[];
        pending.extend(answer.pending.iter().filter_map(|id| Uuid::from_slice(id).ok()));
        if answer.next > from {
            from = answer.next;
            continue;
        }
        // What stands in the log before, whose place this one took.
        logs += 1;
        if answer.earlier == 0 || (log > 0 && answer.earlier >= log) || logs > LOGS_FOLLOWED {
            break;
        }
        (from, log) = (0, answer.earlier);
    }
    settle(agent, due, &pending).await?;
    Ok(true)
}

/// Takes a page about these messages, of the log of this number; 0 is the newest. False where nothing of it counts.
async fn take(
    agent: &Agent,
    key: &VerifyingKey,
    held: Option<&str>,
    others: &[(AgencyAddress, String)],
    (messages, number): (&BTreeSet<Uuid>, u32),
    answer: &ListReceiptsResponse,
) -> Result<bool, Failed> {
    let domain = agent.address.domain();
    // One under another key, of before this agent was enrolled anew, proves nothing now.
    let held_head = held.and_then(|note| judge::head(EVIDENCE, domain, key, note).ok());
    let judged = judge::newest(domain, key, held_head.as_ref(), answer).and_then(|newest| {
        let earlier = (number > 0).then(|| judge::earlier(domain, key, held_head.as_ref(), number, answer));
        Ok((newest, earlier.transpose()?))
    });
    let (newest, earlier) = match judged {
        Ok(judged) => judged,
        Err(alarm) => {
            raise(&agent.store, &alarm).await?;
            return Ok(false);
        }
    };
    let Some(newest) = newest else { return Ok(true) };
    if let Some(held) = held_head.filter(|held| held.number < newest.number) {
        let alarm = succession::follow(&agent.link, key, &held, &newest).await?;
        // Before the new log's head counts as seen: a crash in between does it again.
        let messages = agent.store.offer_again().await?;
        tracing::warn!(messages, "a new log: what no recipient has signed for is offered again");
        raise(&agent.store, &alarm).await?;
    }
    let continuations = answer.continuations.get(usize::from(held.is_some())..).unwrap_or_default();
    for (agency, note) in others {
        // What another agency saw of an earlier log, the domain has to name as well.
        let Ok(shown) = judge::head(EVIDENCE, domain, key, note) else { continue };
        if shown.number < newest.number {
            let alarm = succession::follow(&agent.link, key, &shown, &newest).await?;
            if alarm.kind == Kind::Inconsistent {
                let detail = format!("what {agency} holds and what is shown here: {}", alarm.detail);
                raise(&agent.store, &Alarm { subject: shown.bare.to_string(), detail, ..alarm }).await?;
            }
        }
    }
    compare_all(&agent.store, EVIDENCE, key, &newest, others, continuations).await?;
    let under = earlier.as_ref().unwrap_or(&newest);
    let origin = under.checkpoint.origin();
    let signers = judge::signers(answer);
    let read: Vec<_> =
        answer.receipts.iter().map(|shown| judge::receipt(key, under, shown, &signers)).collect();
    let told = read.iter().flatten().filter(|(_, told)| messages.contains(&told.message));
    let told = told.map(|(_, told)| (told.message, told.recipient.clone())).collect();
    let mut known = agent.store.known(&told).await?;
    let mut kept = Vec::with_capacity(answer.receipts.len());
    for (shown, read) in answer.receipts.iter().zip(read) {
        let proven = match read {
            Ok((receipt, told)) if messages.contains(&told.message) => {
                let known = known.entry((told.message, told.recipient.clone())).or_default();
                judge::same(&told, known).map(|()| (receipt, told)).map_err(str::to_owned)
            }
            Ok(_) => Err("it is about no message that was asked for".to_owned()),
            Err(why) => Err(why),
        };
        match proven {
            Ok(proven) => kept.push(proven),
            Err(why) => {
                let alarm = Alarm {
                    kind: Kind::WrongRecord,
                    subject: format!("{origin} {}", shown.index),
                    detail: format!("{origin} has a wrong record at {}: {why}", shown.index),
                    held: held.unwrap_or_default().to_owned(),
                    shown: under.bare.to_string(),
                };
                raise(&agent.store, &alarm).await?;
            }
        }
    }
    agent.store.keep_receipts(&newest, origin, &kept).await?;
    Ok(true)
}

/// Compares heads of a kind that other agencies hold with the newest one, each by its proof.
async fn compare_all(
    store: &Store,
    kind: &'static str,
    key: &VerifyingKey,
    newest: &Head,
    others: &[(AgencyAddress, String)],
    continuations: &[Continuation],
) -> Result<(), StoreError> {
    for (number, (agency, note)) in others.iter().enumerate() {
        if let Ok(shown) = judge::head(kind, store.address().domain(), key, note)
            && let Err(alarm) = judge::compare(agency, &shown, newest, continuations.get(number))
        {
            raise(store, &alarm).await?;
        }
    }
    store.heads_compared(others).await
}

/// What was due is there now, or comes later, or never: then the log lacks it.
async fn settle(agent: &Agent, due: Vec<Due>, pending: &BTreeSet<Uuid>) -> Result<(), Failed> {
    let now = OffsetDateTime::now_utc();
    let (mut settled, mut postponed) = (Vec::new(), Vec::new());
    let answered = due.iter().map(|due| due.message).filter(|message| !pending.contains(message));
    let there = agent.store.receipted(&answered.collect()).await?;
    for due in due {
        if pending.contains(&due.message) {
            postponed.push((due, now));
        } else if satisfied(&due, &there) {
            settled.push(due);
        } else if due.attempts >= limits::RECEIPT_ATTEMPTS {
            if must_be_there(agent, &due) {
                missing(agent, &due).await?;
            }
            settled.push(due);
        } else {
            let wait = Duration::from_secs(1 << due.attempts.min(limits::RECEIPT_ATTEMPTS));
            postponed.push((Due { attempts: due.attempts + 1, ..due }, now + wait));
        }
    }
    agent.store.receipts_settled(&settled).await?;
    Ok(agent.store.receipts_postponed(&postponed).await?)
}

async fn postpone(agent: &Agent, due: Vec<Due>) -> Result<(), Failed> {
    let later = OffsetDateTime::now_utc() + limits::HEAD_AGE;
    let postponed: Vec<_> = due.into_iter().map(|due| (due, later)).collect();
    Ok(agent.store.receipts_postponed(&postponed).await?)
}

/// Whether there is a receipt of what is due. A gateway that gave a copy up tells its sender one word for two events.
fn satisfied(due: &Due, there: &BTreeSet<(Uuid, Event, String)>) -> bool {
    let events: &[Event] = match due.event {
        Event::Undeliverable => &[Event::Undeliverable, Event::Quarantined],
        _ => std::slice::from_ref(&due.event),
    };
    events.iter().any(|event| there.contains(&(due.message, *event, due.agency.clone())))
}

/// Whether the gateway has signed or told something that it could not without logging it.
fn must_be_there(agent: &Agent, due: &Due) -> bool {
    match due.event {
        // A word that may not have reached the gateway: the copy may have expired there before.
        Event::Acknowledged => due.agency != agent.address.to_string(),
        Event::Refused | Event::Unspecified => false,
        _ => true,
    }
}

async fn missing(agent: &Agent, due: &Due) -> Result<(), StoreError> {
    // A gateway that was restored from a copy of the moment before does not know it any more.
    if due.event == Event::Accepted {
        agent.store.offer_again().await?;
    }
    let (message, event) = (due.message, due.event.as_str_name());
    let of = if due.agency.is_empty() { String::new() } else { format!(" of the copy of {}", due.agency) };
    let alarm = Alarm {
        kind: Kind::MissingRecord,
        subject: format!("{message} {event} {}", due.agency),
        detail: format!("the log has no record `{event}`{of} of message {message}"),
        held: agent.store.log_head().await?.unwrap_or_default(),
        shown: String::new(),
    };
    raise(&agent.store, &alarm).await
}
