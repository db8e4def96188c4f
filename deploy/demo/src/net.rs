//! Hosts of their own on this one machine: network namespaces on a bridge, so that links between gateways
//! can be cut as a network cuts them. Needs root and iproute2.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    path::Path,
    process::{self, Command},
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where iproute2 keeps namespaces that have a name.
const NAMED: &str = "/run/netns";
/// How the names of all namespaces begin that are made here; the id of the process that made it follows.
const PREFIX: &str = "liaison-";
const BRIDGE: &str = "bridge";
/// Every net has this subnet: nothing joins it to the machine's own, or to another net.
const SUBNET: [u8; 2] = [10, 77];
const FIRST_PORT: u16 = 7_400;
const CONNECT: Duration = Duration::from_secs(5);

static NETS: AtomicU32 = AtomicU32::new(0);

/// Hosts that reach one another until a test cuts them off. All of it is gone when this is dropped.
#[derive(Debug)]
pub struct Net {
    hosts: Vec<Arc<Host>>,
    bridge: NameSpace,
}

/// One host: processes started in it have its loopback and its address, and nothing else of the machine's
/// network. Its files are the machine's.
#[derive(Debug)]
pub struct Host {
    /// As it was asked for, such as `be`.
    pub name: String,
    /// What the other hosts of the net call it by.
    pub address: Ipv4Addr,
    space: NameSpace,
    next_port: AtomicU16,
}

impl Net {
    /// Makes a host for each name, of 8 letters at most.
    pub fn new(names: &[&str]) -> Result<Self> {
        ready()?;
        remove_leftovers()?;
        let number = NETS.fetch_add(1, Ordering::Relaxed);
        let own = format!("{PREFIX}{}-{number}", process::id());
        let bridge = NameSpace::new(&format!("{own}-{BRIDGE}"))?;
        bridge.ip("link add bridge type bridge")?;
        bridge.ip("link set bridge up")?;
        let mut net = Self { hosts: Vec::new(), bridge };
        for (place, name) in (2..).zip(names) {
            net.add(&own, name, Ipv4Addr::new(SUBNET[0], SUBNET[1], 0, place))?;
        }
        Ok(net)
    }

    fn add(&mut self, own: &str, name: &str, address: Ipv4Addr) -> Result<()> {
        let space = NameSpace::new(&format!("{own}-{name}"))?;
        self.bridge.ip(&format!("link add {name} type veth peer name eth0 netns {}", space.0))?;
        self.bridge.ip(&format!("link set {name} master bridge up"))?;
        space.ip("link set lo up")?;
        space.ip(&format!("addr add {address}/24 dev eth0"))?;
        space.ip("link set eth0 up")?;
        let next_port = AtomicU16::new(FIRST_PORT);
        self.hosts.push(Arc::new(Host { name: name.to_owned(), address, space, next_port }));
        Ok(())
    }

    /// The host of a name.
    pub fn host(&self, name: &str) -> Result<&Arc<Host>> {
        self.hosts.iter().find(|host| host.name == name).with_context(|| format!("no host is named {name}"))
    }

    /// Cuts a host off from all others.
    pub fn cut(&self, name: &str) -> Result<()> {
        self.bridge.ip(&format!("link set {name} down"))
    }

    /// Ends [`Net::cut`].
    pub fn heal(&self, name: &str) -> Result<()> {
        self.bridge.ip(&format!("link set {name} up"))
    }

    /// Lets nothing pass from one host to another, while all that goes the other way arrives.
    pub fn mute(&self, from: &str, to: &str) -> Result<()> {
        let to = self.host(to)?.address;
        self.host(from)?.space.ip(&format!("route add blackhole {to}/32"))
    }

    /// Ends [`Net::mute`].
    pub fn unmute(&self, from: &str, to: &str) -> Result<()> {
        let to = self.host(to)?.address;
        self.host(from)?.space.ip(&format!("route del blackhole {to}/32"))
    }
}

impl Host {
    /// A port that nobody was given before; the same ones in the same order on every host.
    pub fn next_port(&self) -> u16 {
        self.next_port.fetch_add(1, Ordering::Relaxed)
    }

    /// Does something on this host, such as starting a process or listening, in a thread of its own.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let space = File::open(self.space.path())?;
        let enter = move || {
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        thread::scope(|scope| scope.spawn(enter).join())
            .map_err(|_| io::Error::other("what was to be done on the host panicked"))?
    }

    /// Connects from this host, within five seconds.
    pub fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.inside(|| TcpStream::connect_timeout(&to, CONNECT))
    }

    /// Listens on this host.
    pub fn listen(&self, at: SocketAddr) -> io::Result<TcpListener> {
        self.inside(|| TcpListener::bind(at))
    }
}

/// A network namespace by its name; removed, with its ends of cables, when dropped.
#[derive(Debug)]
struct NameSpace(String);

impl NameSpace {
    fn new(name: &str) -> Result<Self> {
        ip(&["netns", "add", name])?;
        Ok(Self(name.to_owned()))
    }

    fn path(&self) -> String {
        format!("{NAMED}/{}", self.0)
    }

    /// Runs `ip` in it.
    fn ip(&self, arguments: &str) -> Result<()> {
        let own = ["-netns", &self.0];
        ip(&own.into_iter().chain(arguments.split(' ')).collect::<Vec<_>>())
    }
}

impl Drop for NameSpace {
    fn drop(&mut self) {
        // What stays is removed as a leftover by the next net.
        let _ = ip(&["netns", "del", &self.0]);
    }
}

/// An error that says what is missing for namespaces.
fn ready() -> Result<()> {
    let version = Command::new("ip").arg("-Version").output();
    ensure!(version.is_ok(), "hosts of their own need iproute2: install it (tests/run does)");
    ensure!(
        rustix::process::geteuid().is_root(),
        "hosts of their own are network namespaces, which root alone may make: run this as root"
    );
    Ok(())
}

/// Removes the namespaces of processes that were killed, with the processes that still run in them.
fn remove_leftovers() -> Result<()> {
    if !Path::new(NAMED).exists() {
        return Ok(());
    }
    for entry in fs::read_dir(NAMED)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let Some(owner) = owner.and_then(|owner| owner.parse::<u32>().ok()) else { continue };
        if Path::new(&format!("/proc/{owner}")).exists() {
            continue;
        }
        // Another process may remove the same leftovers at this moment: what counts is that they go.
        let running = Command::new("ip").args(["netns", "pids", &name]).output()?;
        for pid in String::from_utf8_lossy(&running.stdout).split_whitespace() {
            let _ = Command::new("sh").args(["-c", &format!("kill -KILL {pid}")]).status();
        }
        drop(NameSpace(name));
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("ip does not start")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u16 = 7_777;

    fn reaches(net: &Net, from: &str, to: &str) -> bool {
        let address = SocketAddr::from((net.host(to).unwrap().address, PORT));
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(500));
        net.host(from).unwrap().inside(connect).is_ok()
    }

    #[test]
    fn hosts_reach_one_another_until_they_are_cut_off() {
        let net = Net::new(&["be", "hu", "fr"]).unwrap();
        let listen = |name: &str| {
            let host = net.host(name).unwrap();
            host.listen(SocketAddr::from((host.address, PORT))).unwrap()
        };
        let _listeners = ["be", "hu", "fr"].map(listen);
        let pairs = [("be", "hu"), ("hu", "be"), ("be", "fr"), ("fr", "hu")];
        assert!(pairs.iter().all(|(from, to)| reaches(&net, from, to)), "a new net is cut");

        net.cut("hu").unwrap();
        assert_eq!(pairs.map(|(from, to)| reaches(&net, from, to)), [false, false, true, false]);
        net.heal("hu").unwrap();
        assert!(pairs.iter().all(|(from, to)| reaches(&net, from, to)), "it did not heal");
    }

    #[test]
    fn one_way_what_is_sent_arrives_and_no_answer_does() {
        let net = Net::new(&["be", "hu"]).unwrap();
        let hu = net.host("hu").unwrap();
        let at = SocketAddr::from((hu.address, PORT));
        let datagrams = |name: &str| {
            let host = net.host(name).unwrap();
            let socket = host.inside(|| std::net::UdpSocket::bind((host.address, PORT))).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            socket
        };
        let (be, hu) = (datagrams("be"), datagrams("hu"));
        let mut room = [0; 8];
        // Met once, so that neither looks for the other's hardware address from now on.
        be.send_to(b"hello", at).unwrap();
        let (_, from) = hu.recv_from(&mut room).unwrap();
        hu.send_to(b"hello", from).unwrap();
        be.recv_from(&mut room).unwrap();

        net.mute("hu", "be").unwrap();
        be.send_to(b"again", at).unwrap();
        assert_eq!(hu.recv_from(&mut room).unwrap(), (5, from));
        // Whether the sender is told is the system's affair.
        let _ = hu.send_to(b"again", from);
        assert!(be.recv_from(&mut room).is_err(), "the answer arrived");
        net.unmute("hu", "be").unwrap();
        hu.send_to(b"after", from).unwrap();
        assert_eq!(be.recv_from(&mut room).unwrap().0, 5);
    }

    #[test]
    fn each_host_has_a_loopback_of_its_own() {
        let (one, other) = (Net::new(&["be"]).unwrap(), Net::new(&["be"]).unwrap());
        let (one, other) = (one.host("be").unwrap(), other.host("be").unwrap());
        let port = one.next_port();
        assert_eq!(port, other.next_port(), "ports are not the same everywhere");
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let _listener = one.listen(at).unwrap();
        assert!(one.connect(at).is_ok());
        assert!(other.connect(at).is_err());
    }

    #[test]
    fn a_net_that_is_dropped_leaves_nothing() {
        let net = Net::new(&["be"]).unwrap();
        let paths = [net.bridge.path(), net.host("be").unwrap().space.path()];
        assert!(paths.iter().all(|path| Path::new(path).exists()));
        drop(net);
        assert!(!paths.iter().any(|path| Path::new(path).exists()));
        // A process that was killed could not remove its own; none has an id as large as this.
        let leftover = NameSpace::new(&format!("{PREFIX}4294967295-{}", process::id())).unwrap();
        remove_leftovers().unwrap();
        assert!(!Path::new(&leftover.path()).exists());
    }
}
