//! What can be driven, and where it lives.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use futures_util::future::LocalBoxFuture;
use liaison_certs_dev::Plan;
use liaison_demo::wait;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::{
    limits,
    round::{Load, Outcome},
};

/// A system that was started. It stops when dropped.
pub(crate) trait System {
    /// Makes what a round needs before its clock starts, for so many messages.
    fn prepare(&mut self, messages: u64) -> LocalBoxFuture<'_, Result<()>>;

    /// Drives it for one round: connects, starts the clock, and ends when all is done.
    fn round<'a>(&'a mut self, load: &'a Load) -> LocalBoxFuture<'a, Result<Outcome>>;
}

/// The folder of everything that systems write, on the disk that the build is on, and the certificates of those that
/// are not Liaison. It is removed at the end.
pub(crate) struct Ground {
    folder: TempDir,
}

impl Ground {
    /// A new one under `load` in cargo's target folder.
    pub(crate) fn new() -> Result<Self> {
        let parent = target()?.join("load");
        fs::create_dir_all(&parent)?;
        let ground = Self { folder: TempDir::with_prefix_in("run-", parent)? };
        // A server under it may run as another user.
        fs::set_permissions(ground.folder.path(), Permissions::from_mode(0o711))?;
        let plan = Plan {
            domain: "be".parse()?,
            agencies: vec!["be/load".parse()?],
            hosts: vec!["localhost".to_owned()],
            bad: Vec::new(),
        };
        liaison_certs_dev::make(&ground.certificates(), &plan)?;
        Ok(ground)
    }

    /// A new folder of a system.
    pub(crate) fn folder(&self, system: &str) -> Result<PathBuf> {
        let folder = self.folder.path().join(system);
        fs::create_dir(&folder)?;
        Ok(folder)
    }

    /// The folder of the certificates.
    pub(crate) fn certificates(&self) -> PathBuf {
        self.folder.path().join("certificates")
    }
}

/// Files of certificates and keys, PEM: the root, the server's, the clients'.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    pub(crate) root: PathBuf,
    pub(crate) server: (PathBuf, PathBuf),
    pub(crate) client: (PathBuf, PathBuf),
}

impl Certificates {
    pub(crate) fn of(folder: &Path) -> Self {
        let pair = |stem: &str| (folder.join(format!("{stem}.pem")), folder.join(format!("{stem}.key")));
        Self { root: folder.join("ca.pem"), server: pair("gateway"), client: pair("agencies/load") }
    }
}

/// Cargo's target folder: this program lies in a profile's folder there.
pub(crate) fn target() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.ancestors().nth(2).context("this program is in no target folder of cargo")?.to_owned())
}

/// Waits until somebody listens on a port of the loopback.
pub(crate) async fn listening(what: &str, port: u16, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    wait::within(limits::START, &format!("{what} listens"), async || {
        if let Err(ended) = check() {
            return Some(Err(ended));
        }
        TcpStream::connect(("127.0.0.1", port)).await.ok().map(|_| Ok(()))
    })
    .await?
}
