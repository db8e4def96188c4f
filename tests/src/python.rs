//! Programs that share no code with this project.

use std::path::Path;

use anyhow::{Context, Result};
use liaison_demo::{Gateway, process};

/// Runs a Python script; what it printed.
pub async fn python(arguments: &[&str]) -> Result<String> {
    let python = std::env::var_os("LIAISON_PYTHON").unwrap_or_else(|| "python3".into());
    process::text(Path::new(&python), arguments)
        .await
        .context("run tests/run once: it installs what the foreign clients need, in target/python")
}

/// Prints every row of a database but those that the gateway writes to see whether it can.
const DUMP: &str = "
import sqlite3, sys
for line in sqlite3.connect(sys.argv[1], uri=True).iterdump():
    if not line.startswith('INSERT INTO \"probe\"'):
        print(line)
";

/// All that stands in a gateway's database.
pub async fn database(gateway: &Gateway) -> Result<String> {
    let file = format!("file:{}?mode=ro", gateway.data.join("liaison.db").display());
    python(&["-c", DUMP, &file]).await
}
