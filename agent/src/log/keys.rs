//! The domain's log of keys, replayed entry by entry: what it holds counts once its root was found to be the one that the
//! log's key signed; and what it holds of this agency has to be what this agent published.

use std::mem;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use liaison_proto::{
    case::v1::log_alarm::Code as Kind,
    exchange::v1::ListKeyEntriesRequest,
    limits::{KEY_ENTRIES, SHOWN_HEADS},
    message::v1::SignedKeyRecord,
    strict,
};
use liaison_trust::{
    key_record::{self, ProvenKey},
    log::{Frontier, leaf_hash},
};
use prost::Message as _;

use super::{
    Alarm, Failed, Head, compare_all,
    judge::{self, KEYS},
    raise,
};
use crate::{
    agent::Agent,
    link::Link,
    store::{LoggedKey, Store, StoreError},
};

/// Reads on to the newest head. What was read before stays what it was, or it is an alarm and nothing new counts.
pub(crate) async fn replay(link: &Link, store: &Store) -> Result<(), Failed> {
    let key = link.log_key().ok_or(Failed::NoKey)?;
    let domain = store.address().domain().clone();
    let known = store.key_log().await?;
    // One under another key, of before this agent was enrolled anew, proves nothing now.
    let known =
        known.and_then(|known| Some((judge::head(KEYS, &domain, &key, &known.note).ok()?, known.frontier)));
    let (mut held, mut reached) = match known {
        Some((head, frontier)) => {
            store.forget_unproven_keys().await?;
            (Some(head), frontier)
        }
        None => {
            store.forget_key_log().await?;
            (None, Frontier::new())
        }
    };
    let mut others = store.heads_shown(KEYS, SHOWN_HEADS - 1).await?;
    // The gateway hears first what this agent holds: one that was restored from before does not go on.
    let mut shown: Vec<String> = held.iter().map(|held| held.bare.to_string()).collect();
    let own = shown.len();
    shown.extend(others.iter().map(|(_, note)| note.clone()));
    loop {
        let request = ListKeyEntriesRequest { from: reached.size(), heads: mem::take(&mut shown) };
        let answer = link.list_key_entries(request).await?;
        if answer.head.is_empty() && held.is_none() {
            return Ok(());
        }
        let head = match judge::head(KEYS, &domain, &key, &answer.head) {
            Ok(head) => head,
            Err(why) => {
                let detail =
                    format!("the gateway shows a head that the log's key known here did not sign: {why}");
                return alarm(
                    store,
                    Kind::WrongKey,
                    format!("{domain} {KEYS}"),
                    detail,
                    held.as_ref(),
                    &answer.head,
                )
                .await;
            }
        };
        let continuations = answer.continuations.get(own..).unwrap_or_default();
        compare_all(store, KEYS, &key, &head, &mem::take(&mut others), continuations).await?;
        let shown = head.bare.to_string();
        if let Some(before) = held.take_if(|held| head.number > held.number) {
            let (old, new) = (before.checkpoint.origin(), head.checkpoint.origin().to_owned());
            let detail = format!("{new} has taken the place of {old}, which this agent has replayed");
            raised(store, Kind::NewLog, new, detail, Some(&before), &shown).await?;
            store.forget_key_log().await?;
            reached = Frontier::new();
            continue;
        }
        match &held {
            Some(held) if head.number < held.number || head.checkpoint.size() < reached.size() => {
                let detail = format!(
                    "the log of keys has shrunk: {} with {} leaves was shown, and now {} with {}",
                    held.checkpoint.origin(),
                    held.checkpoint.size(),
                    head.checkpoint.origin(),
                    head.checkpoint.size()
                );
                return alarm(store, Kind::Inconsistent, held.bare.to_string(), detail, Some(held), &shown)
                    .await;
            }
            _ => {}
        }
        let before = reached.size();
        let mut read = Vec::new();
        for entry in answer.entries.iter().take(KEY_ENTRIES as usize) {
            if reached.size() >= head.checkpoint.size() {
                break;
            }
            let index = reached.size();
            reached.append(leaf_hash(entry)).map_err(|_| Failed::Withheld)?;
            match record(entry) {
                Ok(key) => read.push((index, key)),
                Err(why) => {
                    let origin = head.checkpoint.origin();
                    let detail = format!("{origin} holds something else than a key record at {index}: {why}");
                    raised(
                        store,
                        Kind::WrongRecord,
                        format!("{origin} {index}"),
                        detail,
                        held.as_ref(),
                        &shown,
                    )
                    .await?;
                }
            }
        }
        if reached.size() < head.checkpoint.size() {
            if reached.size() == before {
                return Err(Failed::Withheld);
            }
            store.keys_read(&read, None).await?;
            held.get_or_insert(head);
            continue;
        }
        if reached.root() != head.checkpoint.root() {
            store.forget_unproven_keys().await?;
            let (origin, size) = (head.checkpoint.origin(), head.checkpoint.size());
            let detail = format!(
                "the entries of {origin} that were shown are not the {size} under the head that it signed"
            );
            let subject = held.as_ref().map_or_else(|| shown.clone(), |held| held.bare.to_string());
            return alarm(store, Kind::Inconsistent, subject, detail, held.as_ref(), &shown).await;
        }
        if reached.size() > before || held.is_none() {
            store.keys_read(&read, Some((&reached, &head.bare))).await?;
        }
        return Ok(());
    }
}

/// Whether the log holds keys of this agency that this agent did not publish.
pub(crate) async fn watch(agent: &Agent) -> Result<(), StoreError> {
    let ring = agent.custody.ring();
    for LoggedKey { index, key, .. } in agent.store.logged_keys(&agent.address).await? {
        if ring.chain().iter().all(|own| own.id != key.id) {
            foreign(agent, &key, &format!("stands in the log of keys at {index}")).await?;
        }
    }
    Ok(())
}

/// Raises the alarm that there is a key of this agency that this agent did not publish.
pub(crate) async fn foreign(agent: &Agent, key: &ProvenKey, place: &str) -> Result<(), StoreError> {
    let by = if key.signing == agent.custody.signing().public() {
        "was made with its signing key, but not by this agent: another machine runs with a copy of this folder, or the key \
         was stolen"
    } else {
        "this agent did not publish: somebody may receive in its name"
    };
    let alarm = Alarm {
        kind: Kind::ForeignKey,
        subject: key.id.to_string(),
        detail: format!("the key {} of {} {place}, and {by}", key.id, agent.address),
        held: agent.store.key_log().await?.map(|log| log.note).unwrap_or_default(),
        shown: evidence(&key.signed),
    };
    raise(&agent.store, &alarm).await
}

/// A key record as it is kept with an alarm.
pub(crate) fn evidence(key: &SignedKeyRecord) -> String {
    STANDARD.encode(key.encode_to_vec())
}

fn record(entry: &[u8]) -> Result<ProvenKey, String> {
    let record: SignedKeyRecord = strict::decode(entry).map_err(|error| error.to_string())?;
    key_record::prove(&record).map_err(|error| error.to_string())
}

/// Raises an alarm, and ends the replay.
async fn alarm(
    store: &Store,
    kind: Kind,
    subject: String,
    detail: String,
    held: Option<&Head>,
    shown: &str,
) -> Result<(), Failed> {
    raised(store, kind, subject, detail, held, shown).await?;
    Err(Failed::NotBelieved)
}

async fn raised(
    store: &Store,
    kind: Kind,
    subject: String,
    detail: String,
    held: Option<&Head>,
    shown: &str,
) -> Result<(), StoreError> {
    let held = held.map(|held| held.bare.to_string()).unwrap_or_default();
    raise(store, &Alarm { kind, subject, detail, held, shown: shown.to_owned() }).await
}
