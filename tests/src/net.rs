//! Networks of their own: namespaces of the kernel with an address each on one bridge, parted, slowed down
//! and healed at will. Needs root and iproute2; all of it goes when it is dropped.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU8, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::{io::copy_bidirectional, net::TcpListener, sync::oneshot, task::JoinHandle};

/// How long a connection across hosts may take to be made: less than what a partition lasts.
const CONNECT: Duration = Duration::from_secs(2);
/// How long what is sent over a slow line waits there at most.
const SLOW_QUEUE: &str = "2s";
/// What all namespaces begin with; the process id follows.
const PREFIX: &str = "liaison-net";
/// Where iproute2 keeps namespaces that have names.
const NAMED: &str = "/run/netns";

/// A bridge in a namespace of its own.
#[derive(Debug)]
pub struct Net {
    bridge: Namespace,
    hosts: AtomicU8,
}

/// A namespace with an address on the bridge and a loopback of its own.
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
    /// The namespace of the bridge, and the host's port in it.
    bridge: String,
    port: String,
    pub address: Ipv4Addr,
}

/// A loopback port of a host, reached under the same number on this process's own loopback while this lives.
#[derive(Debug)]
pub struct Window(JoinHandle<()>);

impl Net {
    /// An empty network. Those of runs that were killed are removed.
    pub fn new() -> Result<Self> {
        static NETS: AtomicU32 = AtomicU32::new(0);
        remove_leftovers();
        let number = NETS.fetch_add(1, Ordering::Relaxed);
        let bridge = Namespace::add(format!("{PREFIX}-{}-{number}", std::process::id()))?;
        ip(&["-n", &bridge.0, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &bridge.0, "link", "set", "bridge", "up"])?;
        Ok(Self { bridge, hosts: AtomicU8::new(0) })
    }

    /// Another host. Addresses are of this network alone: no other has a way here, so that all have the same.
    pub fn host(&self) -> Result<Host> {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed) + 1;
        let address = Ipv4Addr::new(10, 77, 0, number);
        let namespace = Namespace::add(format!("{}-{number}", self.bridge.0))?;
        let (host, bridge, port) = (namespace.0.as_str(), self.bridge.0.clone(), format!("port{number}"));
        let pair = ["type", "veth", "peer", "name", "eth0", "netns", host];
        ip(&[&["-n", &bridge, "link", "add", &port], pair.as_slice()].concat())?;
        ip(&["-n", &bridge, "link", "set", &port, "master", "bridge", "up"])?;
        ip(&["-n", host, "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        ip(&["-n", host, "link", "set", "eth0", "up"])?;
        ip(&["-n", host, "link", "set", "lo", "up"])?;
        Ok(Host { namespace, bridge, port, address })
    }
}

impl Host {
    /// Cuts it from all others, as a broken cable would.
    pub fn cut(&self) -> Result<()> {
        ip(&["-n", &self.bridge, "link", "set", &self.port, "down"])
    }

    /// Undoes [`Self::cut`].
    pub fn join(&self) -> Result<()> {
        ip(&["-n", &self.bridge, "link", "set", &self.port, "up"])
    }

    /// Lets nothing of it reach another host, while all of that one's still arrives here.
    pub fn mute_towards(&self, other: &Self) -> Result<()> {
        let to = format!("{}/32", other.address);
        ip(&["-n", &self.namespace.0, "route", "add", "blackhole", &to])
    }

    /// Undoes [`Self::mute_towards`].
    pub fn unmute_towards(&self, other: &Self) -> Result<()> {
        let to = format!("{}/32", other.address);
        ip(&["-n", &self.namespace.0, "route", "del", "blackhole", &to])
    }

    /// Lets so many kbit a second pass to it and from it and no more, as a slow line does: what is more waits at
    /// either end of it, up to [`SLOW_QUEUE`], and what finds no place there is lost.
    pub fn slow(&self, kbit: u32) -> Result<()> {
        let rate = format!("{kbit}kbit");
        let ends = [(self.namespace.0.as_str(), "eth0"), (self.bridge.as_str(), self.port.as_str())];
        for (namespace, device) in ends {
            let line = ["-n", namespace, "qdisc", "replace", "dev", device, "root", "tbf", "rate", &rate];
            run("tc", &[line.as_slice(), &["burst", "4kb", "latency", SLOW_QUEUE]].concat())?;
        }
        Ok(())
    }

    /// A program in `folder` that runs another one in this host, under its own process id.
    pub fn program(&self, program: &Path, folder: &Path) -> Result<PathBuf> {
        let name = program.file_name().context("a program has a name")?;
        let script = folder.join(name);
        let text =
            format!("#!/bin/sh\nexec ip netns exec {} '{}' \"$@\"\n", self.namespace.0, program.display());
        // Written by a process of its own: a file that this one has open for writing goes into every child that
        // another thread starts meanwhile, and as long as one has it, the script is busy and can't run.
        let mut install = Command::new("install")
            .args(["-m", "755", "/dev/stdin"])
            .arg(&script)
            .stdin(Stdio::piped())
            .spawn()?;
        install.stdin.take().context("no standard input")?.write_all(text.as_bytes())?;
        ensure!(install.wait()?.success(), "install could not write {}", script.display());
        Ok(script)
    }

    /// Does something in a thread that is inside this host: sockets that it makes stay there.
    pub async fn inside<T: Send + 'static>(
        &self,
        what: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        inside(self.namespace.path(), what).await
    }

    /// A connection from this host.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        connect(self.namespace.path(), to).await
    }

    /// Opens a loopback port of this host to this process. The port must be free here.
    pub async fn open(&self, port: SocketAddr) -> Result<Window> {
        let listener = TcpListener::bind(port).await?;
        let namespace = self.namespace.path();
        Ok(Window(tokio::spawn(async move {
            while let Ok((mut outside, _)) = listener.accept().await {
                let namespace = namespace.clone();
                tokio::spawn(async move {
                    // Where nobody listens inside, the caller's connection just ends.
                    let Ok(inside) = connect(namespace, port).await else { return };
                    let Ok(mut inside) = tokio::net::TcpStream::from_std(inside) else { return };
                    let _ = copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        })))
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection from a namespace, ready for a runtime.
async fn connect(namespace: PathBuf, to: SocketAddr) -> io::Result<TcpStream> {
    inside(namespace, move || {
        let stream = TcpStream::connect_timeout(&to, CONNECT)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    })
    .await
}

/// A thread stays in the namespace that it entered, so that each time it is a new one.
async fn inside<T: Send + 'static>(
    namespace: PathBuf,
    what: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (answer, answered) = oneshot::channel();
    thread::Builder::new().spawn(move || {
        let enter = || {
            let namespace = File::open(namespace)?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            what()
        };
        // Whoever asked may have stopped waiting.
        let _ = answer.send(enter());
    })?;
    answered.await.map_err(io::Error::other)?
}

/// A namespace with a name.
#[derive(Debug)]
struct Namespace(String);

impl Namespace {
    fn add(name: String) -> Result<Self> {
        ip(&["netns", "add", &name])?;
        Ok(Self(name))
    }

    fn path(&self) -> PathBuf {
        Path::new(NAMED).join(&self.0)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = ip(&["netns", "del", &self.0]);
    }
}

/// Removes the namespaces of processes that are gone.
fn remove_leftovers() {
    for entry in fs::read_dir(NAMED).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            // Another run may have been quicker.
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments)
}

/// Runs a program of iproute2.
fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().context("iproute2 is missing: install it")?;
    ensure!(
        output.status.success(),
        "{program} {}: {} (networks of their own need root)",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
