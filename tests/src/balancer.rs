//! What stands before several gateways of one domain: a TCP balancer, which gives each connection to the next of them that
//! answers.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result};
use liaison_demo::port::Port;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// A running balancer; it ends with this.
#[derive(Debug)]
pub struct Balancer {
    port: Port,
    task: JoinHandle<()>,
}

impl Balancer {
    /// One before these gateways.
    pub async fn start(gateways: Vec<SocketAddr>) -> Result<Self> {
        let port = Port::free()?;
        let listener = TcpListener::bind(port.address).await?;
        let task = tokio::spawn(async move {
            let turn = AtomicUsize::new(0);
            let mut connections = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                let turn = turn.fetch_add(1, Ordering::Relaxed);
                let gateways = gateways.clone();
                connections.spawn(async move {
                    let mut to = reach(&gateways, turn).await?;
                    copy_bidirectional(&mut from, &mut to).await?;
                    anyhow::Ok(())
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { port, task })
    }

    /// Where it is reached.
    pub fn address(&self) -> SocketAddr {
        self.port.address
    }
}

/// A connection to one of them, the one whose turn it is first.
async fn reach(gateways: &[SocketAddr], turn: usize) -> Result<TcpStream> {
    for place in 0..gateways.len() {
        let gateway = gateways.get((turn + place) % gateways.len()).context("there is no gateway")?;
        if let Ok(stream) = TcpStream::connect(gateway).await {
            return Ok(stream);
        }
    }
    anyhow::bail!("no gateway answers")
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
