//! The two programs that verify receipts offline: the agent's command, and one that shares no code with it.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use liaison_demo::{Programs, process};
use serde_json::Value;
use tempfile::TempDir;

use crate::python;

/// Both verifiers, and a folder for receipts.
pub struct Verifiers {
    pub folder: TempDir,
    programs: Programs,
    files: u32,
}

impl Verifiers {
    pub fn new() -> Result<Self> {
        Ok(Self { folder: TempDir::new()?, programs: Programs::beside_this_one()?, files: 0 })
    }

    /// Writes a receipt into a file of its own.
    pub fn file(&mut self, receipt: impl ToString) -> Result<String> {
        self.bytes(receipt.to_string().as_bytes())
    }

    /// The same, whatever it is.
    pub fn bytes(&mut self, receipt: &[u8]) -> Result<String> {
        self.files += 1;
        let path = self.folder.path().join(format!("{}.tlog-proof", self.files));
        fs::write(&path, receipt)?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// Whether the agent's command says that all holds.
    pub async fn agent(&self, arguments: &[&str]) -> Result<bool> {
        let output = process::output(&self.programs.agent, [&["verify"], arguments].concat()).await?;
        Ok(output.status.success())
    }

    /// Whether the foreign program does.
    pub async fn foreign(&self, arguments: &[&str]) -> bool {
        python::python(&[&[&*script().to_string_lossy()], arguments].concat()).await.is_ok()
    }

    /// Checks that both say the same of these files.
    pub async fn both(&self, what: &str, arguments: &[&str], expected: bool) -> Result<()> {
        ensure!(self.agent(arguments).await? == expected, "the agent: {what}");
        ensure!(self.foreign(arguments).await == expected, "the foreign program: {what}");
        Ok(())
    }

    /// What both end with and print, all of it: the agent's command first.
    pub async fn print(&self, arguments: &[&str]) -> Result<[(Option<i32>, String); 2]> {
        let agent = process::output(&self.programs.agent, [&["verify"], arguments].concat()).await?;
        let foreign = python::output(&[&[&*script().to_string_lossy()], arguments].concat()).await?;
        Ok([agent, foreign].map(|output| {
            let printed = [output.stdout, output.stderr].concat();
            (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
        }))
    }

    /// What the agent's command prints as JSON, which it has to be.
    pub async fn agent_json(&self, arguments: &[&str]) -> Result<String> {
        let told = process::output(&self.programs.agent, [&["--json", "verify"], arguments].concat()).await?;
        serde_json::from_slice::<Value>(&told.stdout).context("the agent told nothing")?;
        Ok(String::from_utf8(told.stdout)?)
    }

    /// What both say of each file, looked at together: whether it holds, by the agent and by the foreign program.
    pub async fn verdicts(&self, files: &[String]) -> Result<Vec<(bool, bool)>> {
        let arguments: Vec<&str> = files.iter().map(String::as_str).collect();
        let told: Value = serde_json::from_str(&self.agent_json(&arguments).await?)?;
        let told = told.get("receipts").and_then(Value::as_array).context("the agent told of no receipts")?;
        let script = script().to_string_lossy().into_owned();
        let foreign = python::output(&[&[&*script], &*arguments].concat()).await?;
        let foreign = [foreign.stdout, foreign.stderr].concat();
        let foreign = String::from_utf8_lossy(&foreign);
        ensure!(told.len() == files.len(), "the agent did not tell of all files");
        let lines: HashMap<&str, &str> = foreign.lines().filter_map(|line| line.split_once(": ")).collect();
        let verdict = |(file, told): (&String, &Value)| {
            let agent = told.get("holds").and_then(Value::as_bool).context("no verdict")?;
            let line = lines.get(file.as_str());
            let line =
                line.with_context(|| format!("the foreign program does not tell of {file}: {foreign}"))?;
            Ok((agent, line.starts_with("holds: ")))
        };
        files.iter().zip(told).map(verdict).collect()
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign/verify_receipt.py")
}

/// Has both verifiers judge, and demands that they say the same; tells how many hold.
pub async fn agree(files: Vec<(String, Vec<u8>)>) -> Result<usize> {
    let mut verifiers = Verifiers::new()?;
    let paths = files.iter().map(|(_, file)| verifiers.bytes(file)).collect::<Result<Vec<_>>>()?;
    let (mut verdicts, mut differ) = (Vec::new(), Vec::new());
    for paths in paths.chunks(1_000) {
        verdicts.extend(verifiers.verdicts(paths).await?);
    }
    for ((what, _), (agent, foreign)) in files.iter().zip(&verdicts) {
        if agent != foreign {
            differ.push(format!("{what}: the agent says {agent}, the foreign program {foreign}"));
        }
    }
    ensure!(differ.is_empty(), "{} of {} differ:\n{}", differ.len(), files.len(), differ.join("\n"));
    Ok(verdicts.iter().filter(|(holds, _)| *holds).count())
}
