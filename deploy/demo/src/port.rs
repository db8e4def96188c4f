//! Free ports on the loopback interface, for programs whose addresses stand in a file before they start.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
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
    /// The port of the same number in UDP, which nothing here uses: one process at a time can have
    /// it, and it is free again when that process ends, however it ends.
    _claim: UdpSocket,
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
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, number));
        let claim = UdpSocket::bind(address).ok()?;
        TcpListener::bind(address).ok()?;
        Some(Self { address, _claim: claim })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_claimed_once_at_a_time() {
        let port = Port::free().unwrap();
        let number = port.address.port();
        assert!(Port::claim(number).is_none(), "two have one port");
        drop(port);
        assert!(Port::claim(number).is_some(), "the claim outlives its holder");
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_not_free() {
        let port = Port::free().unwrap();
        let number = port.address.port();
        let listener = TcpListener::bind(port.address).unwrap();
        drop(port);
        assert!(Port::claim(number).is_none());
        drop(listener);
    }
}
