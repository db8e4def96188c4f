//! `log show`

use std::collections::BTreeSet;

use clap::Args;
use liaison_proto::{
    log::v1::{Decision, Permits, Record, RuleName, ended, outcome::Event as What, record::Event},
    message::v1::{SignedKeyRecord, kind},
};
use liaison_trust::key_record;
use prost::Message;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    super::output::{moment, table},
    Log, Logs, Output, Which, nothing,
};
use crate::{
    limits,
    log::disclosure::permits,
    store::{LeafRow, LogKind},
};

/// What to show.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Show leaves from this index on
    #[arg(long, default_value_t = 0, value_name = "INDEX")]
    from: u64,
    /// Show so many at most
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::LOG_SHOWN)))]
    limit: u32,
    /// Show what is about this message
    #[arg(long, value_name = "ID", conflicts_with = "thread")]
    message: Option<Uuid>,
    /// Show what is about the messages of this thread
    #[arg(long, value_name = "ID")]
    thread: Option<Uuid>,
}

pub(super) async fn execute(logs: &mut Logs, arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let (looked, rows) = match (arguments.message, arguments.thread) {
        (None, None) => {
            let log = logs.one(&arguments.which).await?;
            let rows = logs.snapshot.leaves(log.head.log, arguments.from, arguments.limit).await?;
            (vec![log], rows.into_iter().map(|row| (0, row)).collect())
        }
        (message, thread) => {
            let looked = logs.searched(&arguments.which).await?;
            let messages = match (message, thread) {
                (Some(message), _) => BTreeSet::from([message.as_bytes().to_vec()]),
                (None, thread) => logs.messages_of(&looked, thread.unwrap_or_default()).await?,
            };
            let mut rows = logs.about(&looked, &messages).await?;
            if rows.is_empty() {
                return Err(nothing("that message or thread").into());
            }
            rows.retain(|(_, row)| row.index() >= arguments.from);
            rows.truncate(arguments.limit as usize);
            (looked, rows)
        }
    };
    let all: Vec<(&Log, &LeafRow, Shown)> = rows
        .iter()
        .filter_map(|(place, row)| {
            let log = looked.get(*place)?;
            Some((log, row, Shown::of(row, log.kind)))
        })
        .collect();
    let to_json = |(log, row, shown): &(&Log, &LeafRow, Shown)| {
        json!({
            "log": log.key.name().as_str(),
            "index": row.index(),
            "signed": row.index() < log.size(),
            "entry": hex::encode(&row.entry),
            "at": shown.at,
            "event": shown.event,
            "message": shown.message,
            "thread": row.thread.as_deref().and_then(|id| Uuid::from_slice(id).ok()),
            "readers": row.readers.split_whitespace().collect::<Vec<_>>(),
            "says": shown.says,
        })
    };
    let heads = looked.iter().map(|log| json!({"origin": log.key.name().as_str(), "size": log.size()}));
    let json = json!({
        "logs": heads.collect::<Vec<_>>(),
        "leaves": all.iter().map(to_json).collect::<Vec<_>>(),
    });
    output.print(&json, || {
        let rows: Vec<_> = all
            .iter()
            .map(|(log, row, shown)| {
                let index = match row.index() {
                    index if index < log.size() => index.to_string(),
                    index => format!("{index} (staged)"),
                };
                let Shown { at, event, message, text, .. } = shown;
                let log = log.key.name().to_string();
                [
                    log,
                    index,
                    at.clone().unwrap_or_default(),
                    (*event).to_owned(),
                    message.clone(),
                    text.clone(),
                ]
            })
            .collect();
        table(["LOG", "INDEX", "AT", "EVENT", "MESSAGE", "WHAT"], &rows)
    })?;
    Ok(())
}

/// A leaf as it is printed.
struct Shown {
    at: Option<String>,
    event: &'static str,
    message: String,
    text: String,
    says: Value,
}

impl Shown {
    fn of(row: &LeafRow, kind: LogKind) -> Self {
        let message = row.message.as_deref().and_then(|id| Uuid::from_slice(id).ok());
        let message = message.map(|id| id.to_string()).unwrap_or_default();
        let bare = |event, text: &str| Self {
            at: None,
            event,
            message: message.clone(),
            text: text.to_owned(),
            says: Value::Null,
        };
        if kind == LogKind::Keys {
            let proven = SignedKeyRecord::decode(row.entry.as_slice())
                .ok()
                .and_then(|key| key_record::prove(&key).ok());
            let Some(key) = proven else { return bare("unreadable", "run `liaison-gateway log verify`") };
            return Self {
                text: format!("{} {}", key.agency, key.sequence),
                says: json!({"agency": key.agency.to_string(), "sequence": key.sequence, "key_id": key.id.to_string()}),
                ..bare("key_record", "")
            };
        }
        let Some(record) = &row.record else { return bare("erased", "its record was erased") };
        let Ok(record) = Record::decode(record.as_slice()) else {
            return bare("unreadable", "run `liaison-gateway log verify`");
        };
        let at = moment(record.at.as_ref());
        let Some(event) = &record.event else { return Self { at, ..bare("unreadable", "") } };
        let (event, text, says) = said(event);
        Self { at, text, says, ..bare(event, "") }
    }
}

/// What an event is called, in a line, and in full.
fn said(event: &Event) -> (&'static str, String, Value) {
    match event {
        Event::Opened(opened) => {
            ("opened", "in place of an earlier log".to_owned(), json!({"previous": opened.previous}))
        }
        Event::Accepted(accepted) => {
            let to: Vec<_> = accepted.decisions.iter().map(line).collect();
            let says = json!({
                "sender": accepted.sender,
                "manifest_digest": hex::encode(&accepted.manifest_digest),
                "kind": kind::Code::as_str_name(&accepted.kind()),
                "policy": hex::encode(&accepted.policy_hash),
                "scheme": hex::encode(&accepted.scheme_hash),
                "decisions": accepted.decisions.iter().map(|one| decision(one, &accepted.permits)).collect::<Vec<_>>(),
            });
            (
                "accepted",
                format!("{} of {} to {}", accepted.kind().as_str_name(), accepted.sender, to.join(", ")),
                says,
            )
        }
        Event::HandedOver(over) => {
            let released: Vec<_> = over.released().map(|category| category.as_str_name()).collect();
            let says = json!({
                "sender": over.sender,
                "recipient": over.recipient,
                "manifest_digest": hex::encode(&over.manifest_digest),
                "policy": hex::encode(&over.policy_hash),
                "released": released,
            });
            ("handed_over", format!("to {}: {}", over.recipient, released.join(" ")), says)
        }
        Event::Outcome(outcome) => {
            let (what, says) = match &outcome.event {
                Some(What::Acknowledged(_)) => ("acknowledged", Value::Null),
                Some(What::Forwarded(theirs)) => ("forwarded", decision(theirs, &[])),
                Some(What::Narrowed(now)) => ("narrowed", decision(now, &[])),
                Some(What::Ended(ended)) => {
                    (ended::Code::as_str_name(&ended.how()), json!(ended.why().as_str_name()))
                }
                None => ("unreadable", Value::Null),
            };
            let says = json!({
                "sender": outcome.sender,
                "recipient": outcome.recipient,
                "manifest_digest": hex::encode(&outcome.manifest_digest),
                "what": says,
            });
            (what, format!("by or for {}", outcome.recipient), says)
        }
        Event::Refused(refused) => {
            let rule = refused.rule.clone().unwrap_or_default();
            let says = json!({
                "sender": refused.sender,
                "manifest_digest": hex::encode(&refused.manifest_digest),
                "rule": self::rule(&rule),
            });
            ("refused", format!("of {}, by {} of {}", refused.sender, rule.rule, rule.layer), says)
        }
        Event::Act(act) => {
            ("act", format!("{} {}", act.act, act.subject), json!({"act": act.act, "subject": act.subject}))
        }
    }
}

fn line(decision: &Decision) -> String {
    format!("{} ({})", decision.recipient, decision.verdict().as_str_name())
}

fn decision(decision: &Decision, given: &[Permits]) -> Value {
    let categories = decision.categories.iter().map(|one| {
        json!({
            "category": one.category().as_str_name(),
            "verdict": one.verdict().as_str_name(),
            "basis": one.basis().as_str_name(),
            "rule": one.rule.as_ref().map(rule),
            "permitted_by": permits(one, given).iter().map(rule).collect::<Vec<_>>(),
        })
    });
    json!({
        "recipient": decision.recipient,
        "verdict": decision.verdict().as_str_name(),
        "rule": decision.rule.as_ref().map(rule),
        "categories": categories.collect::<Vec<_>>(),
    })
}

fn rule(rule: &RuleName) -> Value {
    json!({"layer": rule.layer, "rule": rule.rule})
}
