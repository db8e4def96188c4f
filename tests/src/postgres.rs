//! A PostgreSQL server of a test: a cluster in a folder of its own, on a port of its own, which ends with it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use liaison_demo::{
    port::Port,
    process::{self, Process},
    wait,
};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

/// The user whose server it is.
const USER: &str = "liaison";

/// A cluster and, while it runs, its server.
#[derive(Debug)]
pub struct Server {
    port: Port,
    folder: TempDir,
    process: Option<Process>,
}

impl Server {
    /// Makes a cluster and starts its server.
    pub async fn start() -> Result<Self> {
        Self::start_in(&std::env::temp_dir()).await
    }

    /// The same under a folder, which all may enter.
    pub async fn start_in(folder: &Path) -> Result<Self> {
        let mut server = Self::empty(folder)?;
        let data = server.data().to_string_lossy().into_owned();
        // In the order of a language, as servers are made where people speak one.
        let language = ["--encoding", "UTF8", "--locale", "C.UTF-8", "--locale-provider", "icu"];
        let language = [language.as_slice(), &["--icu-locale", "en-US"]].concat();
        let arguments = ["--pgdata", &data, "--auth", "trust", "--username", USER, "--no-sync"];
        run("initdb", &[arguments.as_slice(), &language].concat()).await?;
        server.run().await?;
        Ok(server)
    }

    /// A standby that streams from this server, which from now on waits for it before anything is committed.
    pub async fn standby(&self) -> Result<Self> {
        let mut standby = Self::empty(&std::env::temp_dir())?;
        let data = standby.data().to_string_lossy().into_owned();
        let from = format!("{} application_name=standby", self.connection());
        run(
            "pg_basebackup",
            &[
                "--pgdata",
                &data,
                "--dbname",
                &from,
                "--write-recovery-conf",
                "--checkpoint",
                "fast",
                "--no-sync",
            ],
        )
        .await?;
        standby.run().await?;
        Ok(standby)
    }

    /// Sets what the server is run with, from now on.
    pub async fn set(&self, setting: &str, value: &str) -> Result<()> {
        let alter = sqlx::AssertSqlSafe(format!("ALTER SYSTEM SET {setting} = '{value}'"));
        let mut connection = self.connect("postgres").await?;
        sqlx::query(alter).execute(&mut connection).await?;
        sqlx::query("SELECT pg_reload_conf()").execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// A standby takes over, on the port of the server that is gone.
    pub async fn take_over(&mut self, mut gone: Self) -> Result<()> {
        let data = self.data().to_string_lossy().into_owned();
        run("pg_ctl", &["promote", "--pgdata", &data]).await?;
        self.kill()?;
        std::mem::swap(&mut self.port, &mut gone.port);
        self.run().await
    }

    /// Makes a database; its URL.
    pub async fn database(&self, name: &str) -> Result<String> {
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        let mut connection = self.connect("postgres").await?;
        sqlx::query(create).execute(&mut connection).await?;
        connection.close().await?;
        Ok(self.url(name))
    }

    /// A connection to a database.
    pub async fn connect(&self, database: &str) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.url(database)).await?)
    }

    /// The URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@{}/{database}", self.port.address)
    }

    fn connection(&self) -> String {
        format!("host={} port={} user={USER}", self.port.address.ip(), self.port.address.port())
    }

    fn empty(parent: &Path) -> Result<Self> {
        let folder = TempDir::with_prefix_in("liaison-postgres-", parent)?;
        // The server refuses to run as root: then it runs as the user that Debian's package makes.
        if let Some(user) = other_user()? {
            chown(folder.path(), Some(user), None)?;
            fs::set_permissions(folder.path(), Permissions::from_mode(0o711))?;
        }
        Ok(Self { port: Port::free()?, folder, process: None })
    }

    /// The process of the server, whose children do its work.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Where the cluster lies.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the server, and waits until it answers.
    pub async fn run(&mut self) -> Result<()> {
        let (program, before) = command("postgres")?;
        let (data, folder) = (self.data(), self.folder.path().to_string_lossy().into_owned());
        let port = self.port.address.port().to_string();
        let data = data.to_string_lossy().into_owned();
        // Each gateway has a few connections, and each test a gateway or more.
        let arguments =
            ["-D", &data, "-p", &port, "-h", "127.0.0.1", "-k", &folder, "-c", "max_connections=400"];
        let log = self.folder.path().with_extension("log");
        let arguments = before.iter().map(String::as_str).chain(arguments);
        self.process = Some(Process::start("postgres", &program, arguments, &log)?);
        wait::until("PostgreSQL answers", async || self.connect("postgres").await.ok())
            .await?
            .close()
            .await?;
        Ok(())
    }

    /// Ends the server as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        let process = self.process.take().context("the server does not run")?;
        // SIGQUIT: at once, without a checkpoint, but with its children.
        process.quit()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, and there is nobody left to tell.
        _ = self.kill();
        _ = fs::remove_file(self.folder.path().with_extension("log"));
    }
}

/// Runs one of PostgreSQL's programs to its end.
async fn run(name: &str, arguments: &[&str]) -> Result<String> {
    let (program, before) = command(name)?;
    process::text(&program, before.iter().map(String::as_str).chain(arguments.iter().copied())).await
}

/// How a program of PostgreSQL's is started: the program, and the arguments before its own.
fn command(name: &str) -> Result<(PathBuf, Vec<String>)> {
    let program = program(name)?;
    Ok(match other_user()? {
        Some(user) => {
            let user = format!("--reuid={user}");
            let program = program.to_string_lossy().into_owned();
            ("setpriv".into(), vec![user, "--clear-groups".to_owned(), program])
        }
        None => (program, Vec::new()),
    })
}

/// One of PostgreSQL's programs, where Debian's package puts them.
fn program(name: &str) -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").context("install Debian's package postgresql")?;
    let programs = versions.filter_map(|version| Some(version.ok()?.path().join("bin").join(name)));
    programs.filter(|program| program.is_file()).max().context("install Debian's package postgresql")
}

/// The id of the user that the server runs as, where that is not the one who runs this.
fn other_user() -> Result<Option<u32>> {
    let own = fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own))?;
    if own != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string(Path::new("/etc/passwd"))?;
    let postgres =
        users.lines().find_map(|line| line.strip_prefix("postgres:")?.split(':').nth(1)?.parse().ok());
    postgres.map(Some).context("install Debian's package postgresql")
}
