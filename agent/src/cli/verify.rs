//! `liaison-agent verify`

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use clap::Args;
use liaison_proto::{json as wire_json, log::v1::Record, strict};
use liaison_trust::{
    digest::Digest,
    log::{Checkpoint, Continuation, LogKey, Note, Receipt},
    names::AgencyAddress,
};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::{Context, say};
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
    checkpoint: Checkpoint,
    what: What,
}

enum What {
    /// That the log holds a record; what it tells where it is about a message.
    Receipt { receipt: Box<Receipt>, record: Record, told: Option<Box<Told>> },
    /// That the log only grew since an earlier head.
    Growth(Continuation),
}

/// What the receipts of one log have shown so far: they have one key, one root at each size, and one leaf at each index.
#[derive(Default)]
struct Seen {
    keys: BTreeMap<String, String>,
    roots: BTreeMap<(String, u64), Digest>,
    leaves: BTreeMap<(String, u64), Digest>,
}

impl Verify {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        let mut seen = Seen::default();
        let (mut told, mut failed) = (Vec::new(), 0);
        for file in &self.receipts {
            let shown = read(file).and_then(|bytes| verify(&bytes, &self.keys));
            let shown = shown.and_then(|shown| seen.agrees(&shown).map(|()| shown));
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
        let checkpoint = growth.verify(&key)?;
        return Ok(Shown { key, checkpoint, what: What::Growth(growth) });
    }
    let receipt = Receipt::parse(bytes)?;
    let key = key_of(&receipt.checkpoint, keys)?;
    let checkpoint = receipt.verify(&key)?;
    let record: Record = strict::decode(receipt.record.record())?;
    let told = match Told::read(receipt.record.record()) {
        Ok(told) => {
            // Whoever made the log can put anything there, lines of a terminal too.
            let is_address = |text: &str| text.parse::<AgencyAddress>().is_ok();
            let named =
                is_address(&told.sender) && (told.recipient.is_empty() || is_address(&told.recipient));
            ensure!(named, "its record names somebody who is no agency");
            Some(told)
        }
        Err(NotTold::NoMessage) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Shown {
        key,
        checkpoint,
        what: What::Receipt { receipt: Box::new(receipt), record, told: told.map(Box::new) },
    })
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

impl Seen {
    /// Checks that a receipt does not contradict those before.
    fn agrees(&mut self, shown: &Shown) -> anyhow::Result<()> {
        let Shown { key, checkpoint, what } = shown;
        let log = checkpoint.origin().to_owned();
        let key = key.to_string();
        let same_key = *self.keys.entry(log.clone()).or_insert_with(|| key.clone()) == key;
        ensure!(same_key, "another receipt of {log} is signed by another key");
        let mut heads = vec![(checkpoint.size(), checkpoint.root())];
        if let What::Growth(growth) = what {
            heads.push((growth.old, growth.old_root));
        }
        for (size, root) in heads {
            let same_root = *self.roots.entry((log.clone(), size)).or_insert(root) == root;
            ensure!(
                same_root,
                "another file of {log} has another root of the same size: the log has two histories"
            );
        }
        let What::Receipt { receipt, .. } = what else { return Ok(()) };
        let leaf = receipt.record.entry().leaf_hash();
        let same_leaf = *self.leaves.entry((log.clone(), receipt.index)).or_insert(leaf) == leaf;
        ensure!(
            same_leaf,
            "another receipt of {log} has another record at the same index: the log has two histories"
        );
        Ok(())
    }
}

fn print(file: &Path, shown: &anyhow::Result<Shown>, by_its_own_key: bool) -> std::io::Result<()> {
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
        What::Receipt { told: Some(told), .. } => {
            say(format_args!("  event      {}", told.event.as_str_name()))?;
            say(format_args!("  at         {}", told.at.format(&Rfc3339).unwrap_or_default()))?;
            say(format_args!("  message    {}", told.message))?;
            say(format_args!("  sender     {}", told.sender))?;
            if !told.recipient.is_empty() {
                say(format_args!("  recipient  {}", told.recipient))?;
            }
        }
        What::Receipt { record, .. } => {
            say(format_args!("  record     {}", wire_json::to_value(record).unwrap_or_default()))?;
        }
    }
    let (size, root) = (shown.checkpoint.size(), shown.checkpoint.root());
    let leaf = match &shown.what {
        What::Receipt { receipt, .. } => format!("leaf {} of {size}", receipt.index),
        What::Growth(_) => format!("{size} leaves"),
    };
    say(format_args!("  log        {}, {leaf}", shown.checkpoint.origin()))?;
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
    let (index, record, told, old) = match &shown.what {
        What::Receipt { receipt, record, told } => {
            (Some(receipt.index), Some(wire_json::to_value(record)?), told.as_deref(), None)
        }
        What::Growth(growth) => (None, None, None, Some(growth.old)),
    };
    Ok(json!({
        "file": file,
        "holds": true,
        "event": told.map(|told| told.event.as_str_name()),
        "at": told.and_then(|told| told.at.format(&Rfc3339).ok()),
        "message": told.map(|told| told.message.to_string()),
        "sender": told.map(|told| told.sender.clone()),
        "recipient": told.map(|told| told.recipient.clone()).filter(|to| !to.is_empty()),
        "log": shown.checkpoint.origin(),
        "index": index,
        "grew_from": old,
        "size": shown.checkpoint.size(),
        "root": shown.checkpoint.root().to_string(),
        "key": shown.key.to_string(),
        "record": record,
    }))
}
