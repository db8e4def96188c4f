//! Makes the connection to the gateway: TCP, perhaps through a proxy, TLS, then HTTP/2.

use std::{io, sync::Mutex};

use hyper_util::rt::TokioIo;
use liaison_proto::limits as wire;
use liaison_trust::{
    names::SpiffeId,
    tls::{self, Connector, ProxyError, TlsError},
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    config::{Config, HostPort, Proxy},
    limits,
};

/// Where the gateway is, and who it must be.
pub struct Dialer {
    gateway: HostPort,
    proxy: Option<Proxy>,
    expected: SpiffeId,
    pub connector: Connector,
}

/// Why there is no connection to the gateway: who is at fault, what was wrong, what to do.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error(
        "the gateway at {gateway} can't be reached: {source}; check its address, this network and the firewall, and that the gateway runs"
    )]
    Tcp { gateway: HostPort, source: io::Error },
    #[error(
        "the gateway at {gateway} can't be reached through the proxy {proxy}: {source}; ask the network's administrator"
    )]
    Proxy { gateway: HostPort, proxy: Proxy, source: ProxyError },
    #[error("the gateway at {gateway} is not connected: {source}; {}", source.action())]
    Tls { gateway: HostPort, source: TlsError },
    #[error("what answers at {gateway} does not speak HTTP/2: {source}; check the gateway's address")]
    Http { gateway: HostPort, source: tonic::transport::Error },
}

impl Dialer {
    pub fn new(config: &Config, connector: Connector) -> Self {
        Self {
            gateway: config.gateway.clone(),
            proxy: config.proxy.clone(),
            expected: SpiffeId::Gateway(config.agency.domain().clone()),
            connector,
        }
    }

    /// One connection; when it breaks, its calls fail and another is to be made.
    pub async fn dial(&self) -> Result<Channel, DialError> {
        let target = self.gateway.to_string();
        let gateway = || self.gateway.clone();
        let tcp = match &self.proxy {
            Some(proxy) => tls::connect_through_proxy(&proxy.0.to_string(), &target)
                .await
                .map_err(|source| DialError::Proxy { gateway: gateway(), proxy: proxy.clone(), source })?,
            None => {
                tls::connect(&target).await.map_err(|source| DialError::Tcp { gateway: gateway(), source })?
            }
        };
        let tls_fault = |source| DialError::Tls { gateway: gateway(), source };
        let stream = self.connector.connect(tcp, &self.expected).await.map_err(tls_fault)?;
        let stream = tls::admitted(stream).await.map_err(tls_fault)?;

        let once = Mutex::new(Some(TokioIo::new(stream)));
        let connector = tower::service_fn(move |_: http::Uri| {
            let stream = once.lock().ok().and_then(|mut once| once.take());
            async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
        });
        endpoint()
            .connect_with_connector(connector)
            .await
            .map_err(|source| DialError::Http { gateway: gateway(), source })
    }
}

fn endpoint() -> Endpoint {
    Endpoint::from_static("http://gateway")
        .http2_keep_alive_interval(wire::KEEPALIVE_INTERVAL)
        .keep_alive_timeout(wire::KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .http2_adaptive_window(false)
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(wire::HTTP2_HEADER_BYTES)
        .http2_max_local_error_reset_streams(wire::HTTP2_LOCAL_ERROR_RESETS)
}
