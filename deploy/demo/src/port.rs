//! Free ports on the loopback interface, for programs whose addresses stand in a file before they start.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
};

use anyhow::{Context, Result};
use rand::RngExt;

/// Below every system's range of ephemeral ports, so that no outgoing connection takes one between
/// two starts of a program.
const PORTS: Range<u16> = 10_000..32_000;
const ATTEMPTS: usize = 1_000;

/// A port that nobody listens on and that no other picker on this machine gets while this lives.
#[derive(Debug)]
pub struct Port {
    /// The loopback address with the port.
    pub address: SocketAddr,
    _claim: File,
}

impl Port {
    /// Claims one.
    pub fn free() -> Result<Self> {
        let mut random = rand::rng();
        (0..ATTEMPTS)
            .find_map(|_| Self::claim(random.random_range(PORTS)))
            .context("no free port on 127.0.0.1 between 10000 and 32000: stop what listens there")
    }

    fn claim(number: u16) -> Option<Self> {
        let path = std::env::temp_dir().join(format!("liaison-port-{number}.lock"));
        let claim = fs::OpenOptions::new().create(true).append(true).open(path).ok()?;
        claim.try_lock().ok()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, number));
        TcpListener::bind(address).ok()?;
        Some(Self { address, _claim: claim })
    }
}
