//! The folder that a demonstration has to itself.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::Value;

/// Demonstrations that may run at once.
const AT_ONCE: u32 = 16;
/// The file that says what runs, and where.
pub(crate) const RECORD: &str = "federation.json";

/// A folder under `target`, claimed as long as this lives: `demo`, or `demo-2` while another
/// demonstration has that.
pub(crate) struct Ground {
    folder: PathBuf,
    _claim: File,
}

impl Ground {
    /// Claims the first free folder, empty. Processes of a dead run are ended, in whichever folder it was.
    pub(crate) fn claim() -> Result<Self> {
        let program = std::env::current_exe()?;
        let target = program.ancestors().nth(2).context("this program is in no target folder")?;
        let mut ground = None;
        for number in 1..=AT_ONCE {
            let name = if number == 1 { "demo".to_owned() } else { format!("demo-{number}") };
            let lock = target.join(format!("{name}.lock"));
            if ground.is_some() && !lock.exists() {
                continue;
            }
            let claim = File::options().create(true).append(true).open(lock)?;
            if claim.try_lock().is_err() {
                continue;
            }
            let folder = target.join(name);
            end_leftovers(&folder);
            ground.get_or_insert(Self { folder, _claim: claim });
        }
        let ground =
            ground.with_context(|| format!("{AT_ONCE} demonstrations run already: end one of them"))?;
        let folder = ground.folder();
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("can't empty {}", folder.display()))?;
        }
        fs::create_dir_all(folder)?;
        Ok(ground)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Kills the processes of a run that was killed itself. A process is one of them only if its command
/// line still names its data folder: ids are used again.
fn end_leftovers(folder: &Path) {
    let Ok(record) = fs::read(folder.join(RECORD)) else { return };
    let record: Value = serde_json::from_slice(&record).unwrap_or_default();
    let entries =
        ["gateways", "agencies"].into_iter().filter_map(|list| record.get(list)?.as_array()).flatten();
    for entry in entries {
        let (Some(pid), Some(data)) =
            (entry.get("pid").and_then(Value::as_u64), entry.get("data").and_then(Value::as_str))
        else {
            continue;
        };
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if command.split(|byte| *byte == 0).any(|argument| argument == data.as_bytes()) {
            // If it ends by itself in between, all is well.
            let _ = Command::new("sh").args(["-c", &format!("kill -KILL {pid}")]).status();
        }
    }
}
