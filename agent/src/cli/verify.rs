//! `liaison-agent verify`

use std::{
    collections::BTreeMap,
    fmt::{Display, Write as _},
    fs::File,
    io::{self, Read as _},
    iter,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use liaison_proto::{case::v1::receipt_event::Code as Event, json as wire_json, log::v1::Record, strict};
use liaison_trust::{
    key_record::ProvenKey,
    keys::VerifyingKey,
    log::{Checkpoint, Continuation, History, LogKey, Note, Proven, Receipt},
    names::AgencyAddress,
};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::Context;
use crate::{
    limits,
    log::{NotTold, Told},
};

/// Verify receipts and consistency proofs, offline and without a data folder: prints what each shows, and fails unless all
/// hold and none contradicts another.
#[derive(Args)]
pub(super) struct Verify {
    /// Receipts, files `*.tlog-proof`; and consistency proofs, files `*.tlog-consistency`
    #[arg(required = true, value_name = "RECEIPT")]
    receipts: Vec<PathBuf>,
    /// The key of a log, as its domain tells it: a vkey, `<name>+<id>+<base64>`; repeat it for several logs. Without
    /// one, each receipt is verified by the key that it names itself
    #[arg(long = "key", value_name = "VKEY")]
    keys: Vec<LogKey>,
}

/// What a file shows.
struct Shown {
    key: LogKey,
    proven: Proven,
    what: What,
}

enum What {
    /// That the log holds a record; what it tells where it is about a message, and who signed an acknowledgement.
    Receipt { index: u64, record: Record, told: Option<Box<Told>>, signer: Option<Box<(Proven, ProvenKey)>> },
    /// That the log only grew since an earlier head.
    Growth(Continuation),
}

/// What the files have shown so far: one key signs all logs of a domain, and each log has one history.
#[derive(Default)]
struct Seen<'a> {
    /// By domains, with the file that showed it first.
    keys: BTreeMap<String, (VerifyingKey, &'a Path)>,
    /// By origins.
    histories: BTreeMap<String, History>,
}

impl Verify {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        let mut seen = Seen::default();
        let (mut told, mut failed) = (Vec::new(), 0);
        let shown = self.receipts.iter().map(|file| {
            let shown = read(file).and_then(|bytes| verify(&bytes, &self.keys))?;
            seen.add(file, &shown).map(|()| shown)
        });
        let shown: Vec<_> = shown.collect();
        for (file, shown) in self.receipts.iter().zip(shown) {
            let shown = shown.and_then(|shown| seen.check(&shown).map(|()| shown));
            failed += usize::from(shown.is_err());
            if context.json {
                told.push(in_json(file, &shown)?);
            } else {
                print(file, &shown, self.keys.is_empty())?;
            }
        }
        if context.json {
            say(json!({ "holds": failed == 0, "receipts": told }))?;
        }
        ensure!(failed == 0, "{failed} of {} receipts do not hold", self.receipts.len());
        Ok(())
    }
}

/// Reads a file, unless it is longer than any receipt.
fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let opened = File::open(file).with_context(|| format!("{} can't be read", file.display()))?;
    opened.take(limits::RECEIPT_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= limits::RECEIPT_FILE_BYTES, "it is longer than any receipt");
    Ok(bytes)
}

/// Verifies a receipt by the key of these that has its log's name, or by its own where none are given.
fn verify(bytes: &[u8], keys: &[LogKey]) -> anyhow::Result<Shown> {
    if bytes.starts_with(Continuation::HEADER.as_bytes()) {
        let growth = Continuation::parse(bytes)?;
        let key = key_of(&growth.checkpoint, keys)?;
        let proven = growth.verify(&key)?;
        return Ok(Shown { key, proven, what: What::Growth(growth) });
    }
    let receipt = Receipt::parse(bytes)?;
    let key = key_of(&receipt.checkpoint, keys)?;
    let proven = receipt.verify(&key)?;
    let record: Record = strict::decode(receipt.record.record())?;
    let told = match Told::read(receipt.record.record()) {
        Ok(told) => {
            // Whoever made the log can put anything there, lines of a terminal too.
            let is_address = |text: &str| text.parse::<AgencyAddress>().is_ok();
            let is_about_a_copy = !matches!(told.event, Event::Accepted | Event::Refused);
            let named = is_address(&told.sender) && (!is_about_a_copy || is_address(&told.recipient));
            ensure!(named, "its record names somebody who is no agency");
            Some(told)
        }
        Err(NotTold::NoMessage) => None,
        Err(error) => return Err(error.into()),
    };
    let signer = match (told.as_ref().and_then(|told| told.acknowledged.as_ref()), &receipt.signer) {
        (Some(outcome), Some(signer)) => Some(Box::new(signer.verify(&key, outcome)?)),
        (Some(_), None) => bail!(
            "it lacks the key that signed its acknowledgement: ask the agency or the domain for the receipt with it"
        ),
        (None, Some(_)) => bail!("it has the key of a signature, and its record holds none"),
        (None, None) => None,
    };
    let (index, told) = (receipt.index, told.map(Box::new));
    Ok(Shown { key, proven, what: What::Receipt { index, record, told, signer } })
}

/// The key of these that has the name of a checkpoint's log, or the one that it names itself where none are given.
fn key_of(note: &Note, keys: &[LogKey]) -> anyhow::Result<LogKey> {
    if keys.is_empty() {
        let checkpoint: Checkpoint = note.text().parse()?;
        return checkpoint
            .told_key()
            .context("the checkpoint's line with the log's key is missing or ill-formed");
    }
    let origin = note.text().lines().next().unwrap_or_default();
    let key = keys.iter().find(|key| key.name().as_str() == origin);
    Ok(key.with_context(|| format!("it is of the log {origin}, whose key was not given"))?.clone())
}

impl Shown {
    /// The logs that it shows something of.
    fn logs(&self) -> impl Iterator<Item = &Proven> {
        let signer = match &self.what {
            What::Receipt { signer: Some(signer), .. } => Some(&signer.0),
            _ => None,
        };
        iter::once(&self.proven).chain(signer)
    }
}

impl<'a> Seen<'a> {
    /// Adds what a file shows, unless it contradicts those before.
    fn add(&mut self, file: &'a Path, shown: &Shown) -> anyhow::Result<()> {
        for Proven { checkpoint, subtrees } in shown.logs() {
            let origin = checkpoint.origin();
            let domain = origin.split('/').next().unwrap_or_default();
            let key = *shown.key.key();
            let (known, before) = *self.keys.entry(domain.to_owned()).or_insert((key, file));
            ensure!(
                known == key,
                "{origin} is signed by another key than {}: one key signs all logs of {domain}, ask the domain which",
                before.display()
            );
            let history = self.histories.entry(origin.to_owned()).or_default();
            history.add(subtrees).with_context(|| origin.to_owned())?;
        }
        Ok(())
    }

    /// Compares what a file shows with all that the others do.
    fn check(&self, shown: &Shown) -> anyhow::Result<()> {
        for Proven { checkpoint, subtrees } in shown.logs() {
            if let Some(history) = self.histories.get(checkpoint.origin()) {
                history.check(subtrees).with_context(|| checkpoint.origin().to_owned())?;
            }
        }
        Ok(())
    }
}

/// Prints a line, with what steers a terminal escaped as JSON has it: whoever made a file chose its words.
fn say(line: impl Display) -> io::Result<()> {
    let mut escaped = String::new();
    for c in line.to_string().chars() {
        // Those that change the direction of writing.
        let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if turns || c.is_control() {
            // Writing to a string does not fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    super::say(escaped)
}

fn print(file: &Path, shown: &anyhow::Result<Shown>, by_its_own_key: bool) -> io::Result<()> {
    let file = file.display();
    let shown = match shown {
        Ok(shown) => shown,
        Err(error) => return say(format_args!("{file}: does not hold: {error:#}")),
    };
    say(format_args!("{file}: holds"))?;
    match &shown.what {
        What::Growth(growth) => {
            say(format_args!("  shows      that the log only grew from {} leaves", growth.old))?
        }
        What::Receipt { told: Some(told), signer, .. } => {
            say(format_args!("  event      {}", told.event.as_str_name()))?;
            say(format_args!("  at         {}", told.at.format(&Rfc3339).unwrap_or_default()))?;
            say(format_args!("  message    {}", told.message))?;
            say(format_args!("  sender     {}", told.sender))?;
            if !told.recipient.is_empty() {
                say(format_args!("  recipient  {}", told.recipient))?;
            }
            if let Some(signer) = signer {
                say(format_args!("  signed by  {}, with the key {}", signer.1.agency, signer.1.id))?;
            }
        }
        What::Receipt { record, .. } => {
            say(format_args!("  record     {}", wire_json::to_value(record).unwrap_or_default()))?;
        }
    }
    let checkpoint = &shown.proven.checkpoint;
    let (size, root) = (checkpoint.size(), checkpoint.root());
    let leaf = match &shown.what {
        What::Receipt { index, .. } => format!("leaf {index} of {size}"),
        What::Growth(_) => format!("{size} leaves"),
    };
    say(format_args!("  log        {}, {leaf}", checkpoint.origin()))?;
    say(format_args!("  root       {root}"))?;
    let word = if by_its_own_key { " (by its own word: compare it with what the domain tells)" } else { "" };
    say(format_args!("  key        {}{word}", shown.key))
}

fn in_json(file: &Path, shown: &anyhow::Result<Shown>) -> anyhow::Result<Value> {
    let file = file.display().to_string();
    let shown = match shown {
        Ok(shown) => shown,
        Err(error) => return Ok(json!({ "file": file, "holds": false, "error": format!("{error:#}") })),
    };
    let checkpoint = &shown.proven.checkpoint;
    let (index, record, told, signer, old) = match &shown.what {
        What::Receipt { index, record, told, signer } => {
            (Some(index), Some(wire_json::to_value(record)?), told.as_deref(), signer.as_deref(), None)
        }
        What::Growth(growth) => (None, None, None, None, Some(growth.old)),
    };
    Ok(json!({
        "file": file,
        "holds": true,
        "event": told.map(|told| told.event.as_str_name()),
        "at": told.and_then(|told| told.at.format(&Rfc3339).ok()),
        "message": told.map(|told| told.message.to_string()),
        "sender": told.map(|told| told.sender.clone()),
        "recipient": told.map(|told| told.recipient.clone()).filter(|to| !to.is_empty()),
        "signer_key": signer.map(|(_, key)| key.id.to_string()),
        "log": checkpoint.origin(),
        "index": index,
        "grew_from": old,
        "size": checkpoint.size(),
        "root": checkpoint.root().to_string(),
        "key": shown.key.to_string(),
        "record": record,
    }))
}
