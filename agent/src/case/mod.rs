//! The case API: what an agency's case system asks of its agent, over gRPC and over REST.

use std::net::SocketAddr;

use tokio::net::TcpListener;

mod audience;
mod body;
pub mod caller;
mod connections;
pub mod grpc;
mod keys;
mod metrics;
mod onward;
pub mod openapi;
mod operations;
pub mod parse;
mod receipts;
pub mod rest;
mod views;

/// Why the case API is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{0} is not a loopback address; the case API speaks to systems on the same host alone")]
    NotLoopback(SocketAddr),
    #[error("nothing can listen at {at} ({source}); stop what else listens there, or change agent.toml")]
    Listen { at: SocketAddr, source: std::io::Error },
    #[error("the contracts can't be reflected: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("the gRPC API failed: {0}")]
    Grpc(#[from] tonic::transport::Error),
    #[error("the REST API failed: {0}")]
    Rest(#[from] std::io::Error),
}

/// Listens for the case API, at a loopback address alone.
pub async fn listen(at: SocketAddr) -> Result<TcpListener, ServeError> {
    if !at.ip().is_loopback() {
        return Err(ServeError::NotLoopback(at));
    }
    TcpListener::bind(at).await.map_err(|source| ServeError::Listen { at, source })
}

#[cfg(test)]
mod tests;
