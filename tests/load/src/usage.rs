//! What processes use, as the kernel counts it.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf, time::Duration};

use anyhow::{Context, Result};

/// Ticks of the kernel's clock for a process, a second: what Linux tells user space on every machine.
const TICKS: u64 = 100;
/// The unit of a file's blocks, bytes.
const BLOCK: u64 = 512;

/// The processes of a system and the folders that it keeps its data in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watched {
    /// What each is called, and its process id.
    pub(crate) processes: Vec<(String, u32)>,
    pub(crate) folders: Vec<PathBuf>,
}

/// What was used until one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Used {
    /// One for each process.
    pub(crate) processes: Vec<ProcessUse>,
    /// Of this program itself.
    pub(crate) generator_cpu: Duration,
    /// Bytes that files take on disk.
    pub(crate) disk: u64,
}

/// The same of one process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ProcessUse {
    pub(crate) cpu: Duration,
    /// Bytes that it had the kernel write to a disk.
    pub(crate) written: u64,
    /// The most memory that it ever had, and what it has now, bytes.
    pub(crate) peak: u64,
    pub(crate) memory: u64,
}

impl Watched {
    /// Looks at everything now.
    pub(crate) fn used(&self) -> Result<Used> {
        let processes = self.processes.iter().map(|(_, pid)| of_process(*pid)).collect::<Result<_>>()?;
        let disk = self.folders.iter().map(|folder| on_disk(folder)).sum();
        Ok(Used { processes, generator_cpu: cpu(std::process::id())?, disk })
    }
}

/// A process with its children: the work of a server may be theirs.
fn of_process(pid: u32) -> Result<ProcessUse> {
    let mut all = of_one(pid)?;
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for child in children.split_ascii_whitespace().filter_map(|child| child.parse().ok()) {
        // One may end meanwhile.
        let Ok(child) = of_one(child) else { continue };
        all.cpu += child.cpu;
        all.written += child.written;
        all.peak += child.peak;
        all.memory += child.memory;
    }
    Ok(all)
}

fn of_one(pid: u32) -> Result<ProcessUse> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("a process is gone")?;
    let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let field = |text: &str, name: &str| -> Result<u64> {
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)).context("the kernel does not tell")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    Ok(ProcessUse {
        cpu: cpu(pid)?,
        written: field(&io, "write_bytes:")?,
        peak: field(&status, "VmHWM:")? << 10,
        memory: field(&status, "VmRSS:")? << 10,
    })
}

/// For how long the machine's processors have worked since it started, for anybody.
pub(crate) fn machine() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields =
        stat.lines().next().and_then(|all| all.strip_prefix("cpu ")).context("the kernel does not tell")?;
    let ticks: Vec<u64> = fields.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    // User, nice, system; idle and waiting for the disk; interrupts.
    let worked: u64 = [0, 1, 2, 5, 6].iter().filter_map(|at| ticks.get(*at)).sum();
    Ok(Duration::from_millis(worked * 1000 / TICKS))
}

/// User and system time of all threads.
fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("a process is gone")?;
    // The name, which may hold anything, ends with the last parenthesis; the state follows as field 3.
    let (_, fields) = stat.rsplit_once(')').context("no name in a process's stat")?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let ticks = |at: usize| -> Result<u64> { Ok(fields.get(at - 3).context("too few fields")?.parse()?) };
    Ok(Duration::from_millis((ticks(14)? + ticks(15)?) * 1000 / TICKS))
}

/// What all files under a path take. One that goes meanwhile takes nothing.
fn on_disk(path: &std::path::Path) -> u64 {
    let Ok(about) = fs::symlink_metadata(path) else { return 0 };
    if !about.is_dir() {
        return about.blocks() * BLOCK;
    }
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| on_disk(&entry.path())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_uses_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let watched = Watched {
            processes: vec![("this".to_owned(), std::process::id())],
            folders: vec![folder.path().to_owned()],
        };
        let before = watched.used().unwrap();
        fs::create_dir(folder.path().join("inside")).unwrap();
        fs::write(folder.path().join("inside/file"), vec![7; 1 << 20]).unwrap();
        while watched.used().unwrap().generator_cpu == before.generator_cpu {
            std::hint::black_box(vec![7; 1 << 20]);
        }
        let after = watched.used().unwrap();
        assert!(after.disk >= before.disk + (1 << 20), "{before:?} {after:?}");
        assert!(after.processes[0].cpu > before.processes[0].cpu);
        assert!(after.processes[0].memory > 0 && after.processes[0].peak >= after.processes[0].memory);
    }
}
