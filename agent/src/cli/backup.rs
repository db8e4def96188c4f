//! `liaison-agent backup FILE` and `liaison-agent restore FILE`

use std::{
    io::{BufRead, IsTerminal, Read},
    path::PathBuf,
    process::Command,
};

use anyhow::Context as _;
use clap::Args;
use zeroize::Zeroizing;

use super::{Context, say};
use crate::backup::{self, PASSPHRASE_CHARS};

/// Write keys, inbox and outbox into one encrypted file. The agent may run meanwhile.
#[derive(Args)]
pub(super) struct Backup {
    /// The file to make.
    file: PathBuf,
    #[command(flatten)]
    passphrase: Passphrase,
}

/// Put a backup back into a data folder that is empty or not there. Stop the agent that it is of first:
/// two agents of one agency get in each other's way.
#[derive(Args)]
pub(super) struct Restore {
    /// The file that `backup` made.
    file: PathBuf,
    #[command(flatten)]
    passphrase: Passphrase,
}

/// Where the passphrase comes from: a file, the environment variable LIAISON_BACKUP_PASSPHRASE, or the
/// standard input. Never the command line, which others can read.
#[derive(Args)]
struct Passphrase {
    /// A file whose first line is the passphrase. Without it the environment variable
    /// LIAISON_BACKUP_PASSPHRASE is read; without that it is asked for.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

const VARIABLE: &str = "LIAISON_BACKUP_PASSPHRASE";

impl Backup {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let passphrase = self.passphrase.read(true)?;
        backup::backup(&context.folder, &self.file, &passphrase).await?;
        done(
            context,
            &self.file,
            "backed up",
            "keep it and the passphrase apart; without the passphrase it does not open",
        )
    }
}

impl Restore {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let passphrase = self.passphrase.read(false)?;
        backup::restore(&context.folder, &self.file, &passphrase).await?;
        let next = format!("start it: liaison-agent --data {} run", context.folder.path().display());
        done(context, &self.file, "restored", &next)
    }
}

fn done(context: &Context, file: &std::path::Path, what: &str, next: &str) -> anyhow::Result<()> {
    if context.json {
        say(serde_json::json!({ "file": file.display().to_string() }))?;
    } else {
        say(format_args!("{what}: {}; {next}", file.display()))?;
    }
    Ok(())
}

impl Passphrase {
    /// The passphrase; a new one is asked for twice.
    fn read(self, new: bool) -> anyhow::Result<Zeroizing<String>> {
        let passphrase = match (&self.passphrase_file, std::env::var(VARIABLE)) {
            (Some(path), _) => first_line(path)?,
            (None, Ok(passphrase)) => Zeroizing::new(passphrase),
            (None, Err(_)) => ask(new)?,
        };
        let short = passphrase.chars().count() < PASSPHRASE_CHARS;
        anyhow::ensure!(!(new && short), "a passphrase has at least {PASSPHRASE_CHARS} characters");
        Ok(passphrase)
    }
}

fn first_line(path: &std::path::Path) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    file.take(4_096).read_to_string(&mut text).with_context(|| path.display().to_string())?;
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

fn ask(new: bool) -> anyhow::Result<Zeroizing<String>> {
    let silent = Silence::begin();
    let passphrase = prompt("passphrase: ")?;
    if new && silent.0 {
        anyhow::ensure!(*prompt("again: ")? == *passphrase, "the two are not the same");
    }
    Ok(passphrase)
}

fn prompt(text: &str) -> anyhow::Result<Zeroizing<String>> {
    if std::io::stdin().is_terminal() {
        eprint!("{text}");
    }
    let mut line = Zeroizing::new(String::new());
    std::io::stdin().lock().read_line(&mut line).context("the passphrase can't be read")?;
    if std::io::stdin().is_terminal() {
        eprintln!();
    }
    Ok(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silence(bool);

impl Silence {
    fn begin() -> Self {
        Self(
            std::io::stdin().is_terminal()
                && Command::new("stty").arg("-echo").status().is_ok_and(|s| s.success()),
        )
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if self.0 {
            // A terminal that stays silent is set right by `reset`.
            let _ = Command::new("stty").arg("echo").status();
        }
    }
}
