//! Programs that share no code with this project.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use liaison_demo::{Gateway, process};

/// Runs a Python script; what it printed.
pub async fn python(arguments: &[&str]) -> Result<String> {
    process::text(Path::new(&interpreter()), arguments)
        .await
        .context("run tests/run once: it installs what the foreign clients need, in target/python")
}

/// Runs a Python script, whatever its end.
pub async fn output(arguments: &[&str]) -> Result<Output> {
    process::output(Path::new(&interpreter()), arguments)
        .await
        .context("run tests/run once: it installs what the foreign clients need, in target/python")
}

fn interpreter() -> OsString {
    std::env::var_os("LIAISON_PYTHON").unwrap_or_else(|| "python3".into())
}

/// Prints every row of a database but those that the gateway writes by itself: to see whether it can, and how far it has read
/// its peers' logs of keys.
const DUMP: &str = "
import sqlite3, sys
for line in sqlite3.connect(sys.argv[1], uri=True).iterdump():
    if not line.startswith(('INSERT INTO \"probe\"', 'INSERT INTO \"watched\"')):
        print(line)
";

/// All that stands in a gateway's database.
pub async fn database(gateway: &Gateway) -> Result<String> {
    let file = format!("file:{}?mode=ro", gateway.data.join("liaison.db").display());
    python(&["-c", DUMP, &file]).await
}

/// Begins to write to a database, and does not end.
const STALL: &str = "
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute('BEGIN IMMEDIATE')
print('begun', flush=True)
sys.stdin.read()
";

/// Keeps a gateway from writing while it lives, which it bears for five seconds.
pub struct Stalled(Child);

impl Stalled {
    pub fn begin(gateway: &Gateway) -> Result<Self> {
        let child = Command::new(interpreter())
            .args(["-c", STALL])
            .arg(gateway.data.join("liaison.db"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stalled = Self(child);
        let mut told = String::new();
        let output = stalled.0.stdout.take().context("no output")?;
        BufReader::new(output).read_line(&mut told)?;
        ensure!(told == "begun\n", "the database can't be written to");
        Ok(stalled)
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        // It has nothing to lose, and is gone where this fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
