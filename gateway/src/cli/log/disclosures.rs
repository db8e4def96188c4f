//! `log disclosures`

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use clap::Args;
use liaison_proto::{
    log::v1::{Record, record::Event},
    times,
};
use prost::Message;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::{Logs, Output, Which, nothing};
use crate::{
    limits,
    log::{
        ERASE,
        disclosure::{Disclosure, Erased, Said, disclosures},
        log_key, subject,
    },
    store::LogKind,
};

/// Of what.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The thread of a referral or an alert, as caseworkers see it, or the id of one of its messages
    #[arg(value_name = "THREAD")]
    thread: Uuid,
    /// Print CSV, with a header, to be opened in a spreadsheet
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

pub(super) async fn execute(logs: &mut Logs, arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let looked = logs.searched(&Which { log: None }).await?;
    let mut messages = logs.messages_of(&looked, arguments.thread).await?;
    if messages.is_empty() {
        let id = BTreeSet::from([arguments.thread.as_bytes().to_vec()]);
        let rows = logs.about(&looked, &id).await?;
        let thread = rows.iter().find_map(|(_, row)| Uuid::from_slice(row.thread.as_deref()?).ok());
        messages = match thread {
            Some(thread) => logs.messages_of(&looked, thread).await?,
            None => id,
        };
    }
    let rows = logs.about(&looked, &messages).await?;
    let erased = rows.iter().filter(|(_, row)| row.record.is_none()).count();
    let acts = if erased > 0 { erasures(logs).await? } else { BTreeMap::new() };
    let mut leaves = Vec::new();
    for (place, row) in rows {
        let origin = looked.get(place).map(|log| log.key.name().as_str()).unwrap_or_default();
        let leaf = subject(origin, row.index());
        let said = match row.record {
            Some(record) => Said::Record(Record::decode(record.as_slice())?),
            None => Said::Erased(Erased {
                thread: row.thread.unwrap_or_default(),
                message: row.message.unwrap_or_default(),
                by: acts.get(&leaf).cloned(),
            }),
        };
        leaves.push((leaf, said));
    }
    if leaves.is_empty() {
        return Err(nothing(&format!("a thread or a message {}", arguments.thread)).into());
    }
    let told = disclosures(&leaves);
    if arguments.csv {
        return Ok(print_csv(&told)?);
    }
    let json = json!({
        "logs": looked.iter().map(|log| log.key.name().as_str()).collect::<Vec<_>>(),
        "erased": erased,
        "disclosures": told.iter().map(to_json).collect::<Vec<_>>(),
    });
    output.print(&json, || show(&told))?;
    Ok(())
}

/// The acts by which records were erased, by their subject: when, and the origin and the index of the act's leaf.
async fn erasures(logs: &mut Logs) -> anyhow::Result<BTreeMap<String, (Option<OffsetDateTime>, String)>> {
    let mut erasures = BTreeMap::new();
    for head in logs.snapshot.logs(LogKind::Evidence).await? {
        let key = log_key(&logs.domain, LogKind::Evidence, head.number, &logs.gateway)?;
        let mut from = 0;
        loop {
            let page = logs.snapshot.acts(head.log, from, limits::LOG_PAGE).await?;
            let Some(last) = page.last() else { break };
            from = last.index() + 1;
            for row in page {
                let Some(record) = row.record.as_deref() else { continue };
                let record = Record::decode(record)?;
                let Some(Event::Act(act)) = record.event else { continue };
                if act.act == ERASE {
                    let at = record.at.as_ref().and_then(times::from_wire);
                    erasures.insert(act.subject, (at, subject(key.name().as_str(), row.index())));
                }
            }
        }
    }
    Ok(erasures)
}

fn show(told: &[Disclosure]) -> String {
    if told.is_empty() {
        return "The messages of this thread have no content that could be disclosed.".to_owned();
    }
    let rows: Vec<_> = told
        .iter()
        .map(|one| {
            let verdict = match one.peer_verdict.as_str() {
                "" => one.verdict.clone(),
                theirs => format!("{}, there {theirs}", one.verdict),
            };
            let rules = [&one.withheld_by, &one.peer_withheld_by].into_iter().filter(|rule| !rule.is_empty());
            let rules: Vec<&str> = rules.chain(&one.permitted_by).map(String::as_str).collect();
            [
                one.recipient.clone(),
                one.category.clone(),
                verdict,
                one.basis.clone(),
                rules.join(", "),
                moment(one.handed_over_at),
                moment(one.acknowledged_at),
                match one.erased_at {
                    Some(at) => format!("leaf {} erased {}", one.leaves.join("; "), moment(Some(at))),
                    None => one.ended.clone(),
                },
            ]
        })
        .collect();
    let header =
        ["RECIPIENT", "CATEGORY", "VERDICT", "BASIS", "RULES", "HANDED OVER", "ACKNOWLEDGED", "ENDED"];
    super::super::output::table(header, &rows)
}

fn to_json(one: &Disclosure) -> Value {
    let mut object = serde_json::Map::new();
    for (name, value) in columns(one) {
        object.insert(name.to_owned(), if value.is_empty() { Value::Null } else { value.into() });
    }
    object.insert("permitted_by".to_owned(), json!(one.permitted_by));
    object.insert("leaves".to_owned(), json!(one.leaves));
    Value::Object(object)
}

fn columns(one: &Disclosure) -> [(&'static str, String); 20] {
    [
        ("thread", one.thread.clone()),
        ("message", one.message.clone()),
        ("sender", one.sender.clone()),
        ("recipient", one.recipient.clone()),
        ("category", one.category.clone()),
        ("basis", one.basis.clone()),
        ("verdict", one.verdict.clone()),
        ("withheld_by", one.withheld_by.clone()),
        ("permitted_by", one.permitted_by.join("; ")),
        ("policy_set", one.policy_set.clone()),
        ("decided_at", moment(one.decided_at)),
        ("peer_verdict", one.peer_verdict.clone()),
        ("peer_withheld_by", one.peer_withheld_by.clone()),
        ("handed_over_at", moment(one.handed_over_at)),
        ("acknowledged_at", moment(one.acknowledged_at)),
        ("ended", one.ended.clone()),
        ("ended_at", moment(one.ended_at)),
        ("erased_at", moment(one.erased_at)),
        ("erased_by", one.erased_by.clone()),
        ("leaves", one.leaves.join("; ")),
    ]
}

fn print_csv(told: &[Disclosure]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let line = |cells: &[String]| cells.iter().map(|cell| csv(cell)).collect::<Vec<_>>().join(",");
    let header = columns(&Disclosure::default()).map(|(name, _)| name.to_owned());
    // RFC 4180 ends lines so.
    write!(stdout, "{}\r\n", line(&header))?;
    for one in told {
        write!(stdout, "{}\r\n", line(&columns(one).map(|(_, value)| value)))?;
    }
    stdout.flush()
}

/// A cell that every reader takes for text: quoted, and with a `'` before what a spreadsheet would compute.
fn csv(cell: &str) -> String {
    let computes =
        cell.trim_start().starts_with(['=', '+', '-', '@']) || cell.starts_with(['\t', '\r', '\n']);
    format!("\"{}{}\"", if computes { "'" } else { "" }, cell.replace('"', "\"\""))
}

fn moment(at: Option<OffsetDateTime>) -> String {
    at.and_then(|at| at.replace_nanosecond(0).ok()?.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_text_to_a_spreadsheet() {
        for (cell, written) in [
            ("scheme share", "\"scheme share\""),
            ("a\"b,c", "\"a\"\"b,c\""),
            ("=1+1", "\"'=1+1\""),
            (" @SUM(A1)", "\"' @SUM(A1)\""),
            ("-2", "\"'-2\""),
            ("\tx", "\"'\tx\""),
            ("", "\"\""),
        ] {
            assert_eq!(csv(cell), written);
        }
    }
}
