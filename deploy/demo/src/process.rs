//! Child processes: their programs, their logs, and their end.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tokio::runtime::Handle;

use crate::{Host, wait};

const COMMAND: Duration = Duration::from_secs(60);
const DRAIN: Duration = Duration::from_secs(60);
const LOG_TAIL_LINES: usize = 15;

/// The programs under test, and where they run.
#[derive(Debug, Clone)]
pub struct Programs {
    pub gateway: PathBuf,
    pub agent: PathBuf,
    /// A host of a net; none for this machine itself.
    pub host: Option<Arc<Host>>,
}

impl Programs {
    /// Those that cargo built beside the program that runs.
    pub fn beside_this_one() -> Result<Self> {
        let this = std::env::current_exe()?;
        let folder = this
            .ancestors()
            .skip(1)
            .find(|folder| !folder.ends_with("deps"))
            .context("this program is in no folder")?;
        let find = |name: &str| {
            let program = folder.join(name);
            ensure!(
                program.is_file(),
                "{} is missing: build it first, `cargo build --bins`",
                program.display()
            );
            Ok(program)
        };
        Ok(Self { gateway: find("liaison-gateway")?, agent: find("liaison-agent")?, host: None })
    }

    /// The same on a host of a net.
    pub fn on(&self, host: &Arc<Host>) -> Self {
        Self { host: Some(Arc::clone(host)), ..self.clone() }
    }
}

/// A running child; killed when dropped, so that nothing outlives what started it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program, on a host if one is given. Its output goes to the end of the log file.
    pub fn start<A: AsRef<OsStr>>(
        name: &str,
        host: Option<&Host>,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> Result<Self> {
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child =
            on(host, || command.spawn()).with_context(|| format!("{} does not start", program.display()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with the end of the log if the process ended by itself.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended ({status}):\n{}", self.name, self.log_tail());
        }
        Ok(())
    }

    /// Ends it as a crash would: no time to say goodbye.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub async fn stop(mut self) -> Result<ExitStatus> {
        self.signal("TERM")?;
        let name = self.name.clone();
        wait::within(DRAIN, &format!("{name} ends after SIGTERM"), async || {
            self.child.try_wait().ok().flatten()
        })
        .await
    }

    /// Stops it where it stands, connections open, until [`Process::resume`].
    pub fn pause(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid())]).status()?;
        ensure!(status.success(), "SIG{name} did not reach {}", self.name);
        Ok(())
    }

    /// The last lines that it wrote.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(LOG_TAIL_LINES)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, and there is nobody left to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does something on a host, or here.
fn on<T: Send>(host: Option<&Host>, work: impl FnOnce() -> std::io::Result<T> + Send) -> std::io::Result<T> {
    match host {
        Some(host) => host.inside(work),
        None => work(),
    }
}

/// Runs a command to its end, on a host if one is given.
pub async fn output<A: AsRef<OsStr>>(
    host: Option<&Host>,
    program: &Path,
    arguments: impl IntoIterator<Item = A>,
) -> Result<Output> {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    let runtime = Handle::current();
    let child = on(host, || {
        let _runtime = runtime.enter();
        command.spawn()
    })
    .with_context(|| format!("{} does not start", program.display()))?;
    tokio::time::timeout(COMMAND, child.wait_with_output())
        .await
        .with_context(|| format!("{} did not end within {} s", program.display(), COMMAND.as_secs()))?
        .with_context(|| format!("what {} printed can't be read", program.display()))
}

/// Runs a command that has to succeed; what it printed, without the last line break.
pub async fn text<A: AsRef<OsStr>>(
    host: Option<&Host>,
    program: &Path,
    arguments: impl IntoIterator<Item = A>,
) -> Result<String> {
    let arguments: Vec<A> = arguments.into_iter().collect();
    let told: Vec<String> =
        arguments.iter().map(|argument| argument.as_ref().to_string_lossy().into_owned()).collect();
    let output = output(host, program, arguments).await?;
    ensure!(
        output.status.success(),
        "{} {} failed ({}): {}{}",
        program.display(),
        told.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}
