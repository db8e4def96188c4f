//! `log`: the domain's logs, read from its database, whether or not the gateway runs.

mod disclosures;
mod export;
mod prove;
mod reopen;
mod show;
mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use liaison_proto::admin::v1::EraseRecordsRequest;
use liaison_trust::{
    keys::SigningKey,
    log::{Checkpoint, LogKey, Note},
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
    store::{LogHead, LogKind, Snapshot},
};

/// What to do with the logs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show a log's origin, its head as it is signed, and the key to verify it with
    Head(Which),
    /// Show what the log says, or the log of keys
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

/// Which log.
#[derive(Debug, Args)]
pub struct Which {
    /// The log of key records instead of the log of evidence
    #[arg(long)]
    keys: bool,
}

/// What to erase.
#[derive(Debug, Args)]
pub struct Erase {
    /// Indexes of leaves about messages, as `log show` tells them
    #[arg(required = true, value_name = "INDEX")]
    indexes: Vec<u64>,
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
    head: LogHead,
    key: LogKey,
    /// Its signed head; none while it is empty.
    signed: Option<(Note, Checkpoint)>,
}

pub(super) async fn execute(folder: &DataFolder, command: Command, output: Output) -> anyhow::Result<()> {
    if let Command::Erase(Erase { indexes }) = command {
        let request = EraseRecordsRequest { indexes };
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
        Command::Head(Which { keys }) => head(&mut logs, keys, output).await?,
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
        let snapshot = Snapshot::of(&folder.database()).await?;
        let gateway = signing_key(folder)?;
        Ok(Self { snapshot, domain: config.domain, gateway, folder: folder.path().to_owned() })
    }

    /// The newest log of a kind, with its head if that is this gateway's.
    async fn newest(&mut self, keys: bool) -> anyhow::Result<Log> {
        let kind = if keys { LogKind::Keys } else { LogKind::Evidence };
        let head = self.snapshot.logs(kind).await?.pop().ok_or_else(|| {
            Failure::failed("no_log", "the database has no log", "restore it from a backup")
        })?;
        let key = log_key(&self.domain, kind, head.number, &self.gateway)?;
        let damaged = |why: String| {
            Failure::failed("bad_head", format!("the head of {} is not sound: {why}", key.name()), VERIFY)
        };
        let note = head.checkpoint.as_deref().map(Note::parse).transpose();
        let note = note.map_err(|error| damaged(error.to_string()))?;
        let signed = match note {
            Some(note) => {
                let checkpoint = key.open(&note).map_err(|error| damaged(error.to_string()))?;
                Some((note, checkpoint))
            }
            None => None,
        };
        Ok(Log { head, key, signed })
    }
}

const VERIFY: &str = "run `liaison-gateway log verify`, which tells more";

impl Log {
    /// The signed head.
    fn signed(&self) -> Result<&(Note, Checkpoint), Failure> {
        self.signed.as_ref().ok_or_else(|| {
            let message =
                format!("{} has no head yet: nothing was recorded, or not a moment ago", self.key.name());
            Failure::failed("no_head", message, "run the gateway, and try again in a second")
        })
    }
}

async fn head(logs: &mut Logs, keys: bool, output: Output) -> anyhow::Result<()> {
    let log = logs.newest(keys).await?;
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
    });
    output.print(&json, || {
        format!(
            "origin  {}\nsize    {size}\nroot    {root}\nvkey    {}\n\n{}",
            log.key.name(),
            log.key,
            note.unwrap_or_else(|| "There is no checkpoint yet.".to_owned())
        )
    })?;
    Ok(())
}

/// An index or the id of a message or a thread that isn't there.
fn nothing(what: &str) -> Failure {
    let action =
        "look it up with `liaison-gateway log show`; what happened a moment ago is there within a second";
    Failure::failed("nothing_there", format!("the log tells nothing of {what}"), action)
}

/// The folder of a log among those that are exported, or the name of a file about it.
fn file_name(origin: &str) -> PathBuf {
    PathBuf::from(origin.replace('/', "-"))
}

/// The leaves of a log about a message.
async fn about(logs: &mut Logs, log: &Log, message: Uuid) -> anyhow::Result<Vec<crate::store::LeafRow>> {
    Ok(logs.snapshot.leaves_about(log.head.log, message.as_bytes()).await?)
}
