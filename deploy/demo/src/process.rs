//! Child processes: their programs, their logs, and their end.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::wait::{self, PATIENCE};

const LOG_TAIL_LINES: usize = 15;

/// The programs under test.
#[derive(Debug, Clone)]
pub struct Programs {
    pub gateway: PathBuf,
    pub agent: PathBuf,
}

impl Programs {
    /// Builds them as the program that runs was built itself; what cargo says goes to stderr.
    pub async fn build() -> Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = tokio::process::Command::new(cargo);
        build.current_dir(root).args(["build", "--package", "liaison-gateway", "--package", "liaison-agent"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let status = build.stdout(Stdio::null()).status().await.context("cargo does not start")?;
        ensure!(status.success(), "cargo could not build the gateway and the agent: see what it says above");
        Ok(())
    }

    /// Those that cargo built beside the program that runs.
    pub fn beside_this_one() -> Result<Self> {
        let this = std::env::current_exe()?;
        let folder = this
            .ancestors()
            .skip(1)
            .find(|folder| !folder.ends_with("deps") && !folder.ends_with("examples"))
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
        Ok(Self { gateway: find("liaison-gateway")?, agent: find("liaison-agent")? })
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
    /// Starts a program whose output goes to the end of the log file.
    pub fn start<A: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> Result<Self> {
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{} does not start", program.display()))?;
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

    /// Ends it with SIGQUIT, which a server with children of its own takes for a crash of them all.
    pub fn quit(mut self) -> Result<()> {
        Command::new("sh").args(["-c", &format!("kill -QUIT {}", self.pid())]).status()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub async fn stop(mut self) -> Result<ExitStatus> {
        Command::new("sh").args(["-c", &format!("kill -TERM {}", self.pid())]).status()?;
        let name = self.name.clone();
        wait::until(&format!("{name} ends after SIGTERM"), async || self.child.try_wait().ok().flatten())
            .await
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

/// Runs a command to its end.
pub async fn output<A: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = A>,
) -> Result<Output> {
    let command = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(PATIENCE, command)
        .await
        .with_context(|| format!("{} did not end within {} s", program.display(), PATIENCE.as_secs()))?
        .with_context(|| format!("{} does not start", program.display()))
}

/// Runs a command that has to succeed; what it printed, without the last line break.
pub async fn text<A: AsRef<OsStr>>(program: &Path, arguments: impl IntoIterator<Item = A>) -> Result<String> {
    let arguments: Vec<A> = arguments.into_iter().collect();
    let told: Vec<String> =
        arguments.iter().map(|argument| argument.as_ref().to_string_lossy().into_owned()).collect();
    let output = output(program, arguments).await?;
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
