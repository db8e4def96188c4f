//! Where something listens: an address, on this machine or on a host of a net.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use tokio::net::TcpStream;

use crate::Host;

/// An address as it is reached from where its server runs.
#[derive(Debug, Clone)]
pub struct Place {
    pub address: SocketAddr,
    /// The host on which the address counts; none for this machine itself.
    pub host: Option<Arc<Host>>,
}

impl Place {
    /// Connects from the host itself.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        let Some(host) = self.host.clone() else { return TcpStream::connect(self.address).await };
        let address = self.address;
        let stream = tokio::task::spawn_blocking(move || host.connect(address)).await??;
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    }
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self { address, host: None }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(formatter, "{} on {}", self.address, host.name),
            None => self.address.fmt(formatter),
        }
    }
}
