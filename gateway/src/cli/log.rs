//! `log`: the domain's logs, read from its database, whether or not the gateway runs.

mod disclosures;
mod export;
mod prove;
mod reopen;
mod show;
mod verify;

use std::{collections::BTreeSet, path::PathBuf};

use clap::{Args, Subcommand};
use liaison_proto::admin::v1::EraseRecordsRequest;
use liaison_trust::{
    keys::SigningKey,
    log::{Checkpoint, LogKey, Note, log_number},
    names::Domain,
};
use serde_json::json;
use uuid::Uuid;

use super::{Failure, output::Output, refused};
use crate::{
    admin::connect,
    config::Config,
    data::DataFolder,
    log::log_key,
    run::signing_key,
    store::{LeafRow, LogHead, LogKind, Snapshot},
};

/// What to do with the logs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show a log's origin, its head as it is signed, and the key to verify it with; the newest log of evidence by itself
    Head(Which),
    /// Show what a log says
    Show(show::Arguments),
    /// Write receipts of leaves, or the proof that the log only grew since an earlier size
    Prove(prove::Arguments),
    /// Verify everything offline: leaves, tree, heads, and all that the database states beside them
    #[command(
        long_about = "Verifies everything offline, whether or not the gateway runs: that every record is what its leaf \
        commits to, that the gateway staged every leaf, that leaves and tiles lead to the root that was signed, and that \
        key records, messages, their copies, threads, agencies, peers, policy sets and the audit are those that the log \
        tells of. Every fault is told with its place, what it means and what to do. Exit status 1 if there is any."
    )]
    Verify,
    /// Write the logs as files that other tools read (C2SP tlog-tiles); records are not in them
    Export(export::Arguments),
    /// Tell of one thread to whom each category was released, by which rule and when, and what was withheld
    Disclosures(disclosures::Arguments),
    /// Erase records where the law demands it; the tree keeps what it commits to, and every proof holds
    #[command(
        long_about = "Erases records where the law demands it, with the salts that hide them. What the tree commits to \
        stays, so that every proof holds; nobody can tell any more what it stood for. The erasure is an act that the \
        log records. With the record of an acceptance goes the acceptance that its sender was answered. Nothing is erased of \
        a message that is still on its way. Receipts that agencies have hold the record still, and so do backups. The \
        gateway has to run."
    )]
    Erase(Erase),
    /// Open a new log after a restore from an older copy, which names the head of the one that was lost
    #[command(
        long_about = "Opens a new log where the database is an older copy than a head that this gateway signed, which the \
        guard file, a peer or an agent has shown; the gateway does not run on such a database. Restore the newest copy \
        instead, if there is one: what the log said since then is lost but for the receipts that agencies have. The new \
        log's first leaf names the head of the one before; peers and agents notice, and agents offer again what no \
        recipient has signed for. The gateway must not run."
    )]
    Reopen,
}

/// Which log. Where a message or a thread is looked for and none is named: all logs of evidence.
#[derive(Debug, Args)]
pub struct Which {
    /// A log by its origin, such as be/log/1; without the number the newest, such as be/keys for that of key records
    #[arg(long, value_name = "ORIGIN")]
    log: Option<String>,
}

/// What to erase.
#[derive(Debug, Args)]
pub struct Erase {
    /// Indexes of leaves about messages, as `log show` tells them
    #[arg(required = true, value_name = "INDEX")]
    indexes: Vec<u64>,
    /// The log of evidence that they stand in, by its origin, such as be/log/1; the newest unless it is named
    #[arg(long, value_name = "ORIGIN")]
    log: Option<String>,
}

/// A look at the logs of the data folder.
struct Logs {
    snapshot: Snapshot,
    domain: Domain,
    gateway: SigningKey,
    folder: PathBuf,
}

/// A log that was looked up.
struct Log {
    kind: LogKind,
    head: LogHead,
    key: LogKey,
    /// Its signed head; none while it is empty.
    signed: Option<(Note, Checkpoint)>,
    /// The newest head that witnesses cosigned.
    cosigned: Option<(Note, Checkpoint)>,
}

pub(super) async fn execute(folder: &DataFolder, command: Command, output: Output) -> anyhow::Result<()> {
    if let Command::Erase(Erase { indexes, log }) = command {
        let request = EraseRecordsRequest { indexes, log: log.unwrap_or_default() };
        let done = connect(folder).await?.erase_records(request).await.map_err(refused)?.into_inner();
        output.print(&json!({"erased": done.erased}), || match done.erased.as_slice() {
            [] => "These were erased before.".to_owned(),
            erased => format!("{} erased. `liaison-gateway log verify` holds as before.", erased.len()),
        })?;
        return Ok(());
    }
    if let Command::Reopen = command {
        return reopen::execute(folder, output).await;
    }
    let mut logs = Logs::open(folder).await?;
    match command {
        Command::Head(which) => head(&mut logs, &which, output).await?,
        Command::Show(arguments) => show::execute(&mut logs, &arguments, output).await?,
        Command::Prove(arguments) => prove::execute(&mut logs, &arguments, output).await?,
        Command::Verify => verify::execute(&mut logs, output).await?,
        Command::Export(arguments) => export::execute(&mut logs, &arguments, output).await?,
        Command::Disclosures(arguments) => disclosures::execute(&mut logs, &arguments, output).await?,
        Command::Erase(_) | Command::Reopen => {}
    }
    Ok(logs.snapshot.close().await?)
}

impl Logs {
    async fn open(folder: &DataFolder) -> anyhow::Result<Self> {
        let config = Config::load(&folder.config())?;
        let snapshot = Snapshot::of(&config.database(folder)).await?;
        let gateway = signing_key(folder)?;
        Ok(Self { snapshot, domain: config.domain, gateway, folder: folder.path().to_owned() })
    }

    /// The log that is named; the newest log of evidence where none is.
    async fn one(&mut self, Which { log }: &Which) -> anyhow::Result<Log> {
        let evidence = format!("{}/{}", self.domain, LogKind::Evidence.name());
        let named = log.as_ref().unwrap_or(&evidence);
        let of = |kind: &LogKind| format!("{}/{}", self.domain, kind.name());
        let (number, kind) = match log_number(named) {
            Some((before, number)) => {
                (Some(number), LogKind::ALL.into_iter().find(|kind| of(kind) == before))
            }
            None => (None, LogKind::ALL.into_iter().find(|kind| of(kind) == *named)),
        };
        let mut logs = match kind {
            Some(kind) => self.snapshot.logs(kind).await?.into_iter().map(|head| (kind, head)).collect(),
            None => Vec::new(),
        };
        logs.retain(|(_, head)| number.is_none_or(|number| head.number == number));
        let Some((kind, head)) = logs.pop() else {
            let there = self.every().await?;
            let there: Vec<_> = there.iter().map(|log| log.key.name().as_str()).collect();
            let action = format!("name one that is there: {}", there.join(", "));
            return Err(Failure::failed("no_log", format!("the database has no log {named}"), action).into());
        };
        self.look_up(kind, head)
    }

    /// The log that is named; all logs of evidence where none is, the oldest first.
    async fn searched(&mut self, which: &Which) -> anyhow::Result<Vec<Log>> {
        if which.log.is_some() {
            return Ok(vec![self.one(which).await?]);
        }
        let logs = self.snapshot.logs(LogKind::Evidence).await?;
        logs.into_iter().map(|head| self.look_up(LogKind::Evidence, head)).collect()
    }

    /// All logs, of both kinds, the oldest of each first.
    async fn every(&mut self) -> anyhow::Result<Vec<Log>> {
        let mut every = Vec::new();
        for kind in LogKind::ALL {
            for head in self.snapshot.logs(kind).await? {
                every.push(self.look_up(kind, head)?);
            }
        }
        Ok(every)
    }

    /// The messages of a thread that logs tell of.
    async fn messages_of(&mut self, looked: &[Log], thread: Uuid) -> anyhow::Result<BTreeSet<Vec<u8>>> {
        let mut messages = BTreeSet::new();
        for log in looked {
            messages.extend(self.snapshot.messages_of(log.head.log, thread).await?);
        }
        Ok(messages)
    }

    /// The leaves of logs about messages, each with the place of its log among these: log by log, in its order.
    async fn about(
        &mut self,
        looked: &[Log],
        messages: &BTreeSet<Vec<u8>>,
    ) -> anyhow::Result<Vec<(usize, LeafRow)>> {
        let mut all = Vec::new();
        for (place, log) in looked.iter().enumerate() {
            let mut rows = Vec::new();
            for message in messages {
                rows.extend(self.snapshot.leaves_about(log.head.log, message).await?);
            }
            rows.sort_by_key(|row| row.index);
            all.extend(rows.into_iter().map(|row| (place, row)));
        }
        Ok(all)
    }

    /// A log with its head, if that is this gateway's.
    fn look_up(&self, kind: LogKind, head: LogHead) -> anyhow::Result<Log> {
        let key = log_key(&self.domain, kind, head.number, &self.gateway)?;
        let damaged = |why: String| {
            Failure::failed("bad_head", format!("the head of {} is not sound: {why}", key.name()), VERIFY)
        };
        let open = |note: &Option<Vec<u8>>| {
            let Some(note) = note else { return Ok(None) };
            let note = Note::parse(note).map_err(|error| damaged(error.to_string()))?;
            let checkpoint = key.open(&note).map_err(|error| damaged(error.to_string()))?;
            Ok::<_, Failure>(Some((note, checkpoint)))
        };
        let (signed, cosigned) = (open(&head.checkpoint)?, open(&head.cosigned)?);
        Ok(Log { kind, head, key, signed, cosigned })
    }
}

const VERIFY: &str = "run `liaison-gateway log verify`, which tells more";

impl Log {
    /// The leaves under its head.
    fn size(&self) -> u64 {
        self.signed.as_ref().map_or(0, |(_, checkpoint)| checkpoint.size())
    }

    /// The head that a leaf is proven under: the newest that witnesses cosigned, where that holds it.
    fn over(&self, index: u64) -> Result<&(Note, Checkpoint), Failure> {
        match &self.cosigned {
            Some(cosigned) if index < cosigned.1.size() => Ok(cosigned),
            _ => self.signed(),
        }
    }

    /// The signed head.
    fn signed(&self) -> Result<&(Note, Checkpoint), Failure> {
        self.signed.as_ref().ok_or_else(|| {
            let message =
                format!("{} has no head yet: nothing was recorded, or not a moment ago", self.key.name());
            Failure::failed("no_head", message, "run the gateway, and try again in a second")
        })
    }
}

async fn head(logs: &mut Logs, which: &Which, output: Output) -> anyhow::Result<()> {
    let log = logs.one(which).await?;
    let (size, root, note) = match &log.signed {
        Some((note, checkpoint)) => {
            (checkpoint.size(), checkpoint.root().to_string(), Some(note.to_string()))
        }
        None => (0, String::new(), None),
    };
    let json = json!({
        "origin": log.key.name().as_str(),
        "size": size,
        "root": (!root.is_empty()).then_some(&root),
        "vkey": log.key.to_string(),
        "checkpoint": note,
        "cosigned": log.cosigned.as_ref().map(|(note, _)| note.to_string()),
    });
    output.print(&json, || {
        format!(
            "origin  {}\nsize    {size}\nroot    {root}\nvkey    {}\n\n{}\n{}",
            log.key.name(),
            log.key,
            note.unwrap_or_else(|| "There is no checkpoint yet.\n".to_owned()),
            match &log.cosigned {
                Some((note, _)) => format!("The newest that peers cosigned:\n\n{note}"),
                None => "No peer has cosigned one yet.".to_owned(),
            }
        )
    })?;
    Ok(())
}

/// An index or the id of a message or a thread that isn't there, in so many logs of the domain.
fn nothing(what: &str, logs: usize) -> Failure {
    let action = match logs {
        0 | 1 => {
            "look it up with `liaison-gateway log show`; what happened a moment ago is there within a second"
        }
        _ => {
            "the domain was restored from an older copy: of what happened between that copy and the log that was opened \
             then, only receipts tell, which agencies hold"
        }
    };
    Failure::failed("nothing_there", format!("the log tells nothing of {what}"), action)
}

/// The folder of a log among those that are exported, or the name of a file about it.
fn file_name(origin: &str) -> PathBuf {
    PathBuf::from(origin.replace('/', "-"))
}
