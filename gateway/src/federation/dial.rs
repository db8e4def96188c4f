//! A connection to a peer's gateway, under the peer's own roots.

use std::{io, sync::Mutex};

use hyper_util::rt::TokioIo;
use liaison_proto::{
    limits::HTTP2_HEADER_BYTES,
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use liaison_trust::{
    names::SpiffeId,
    tls::{self, Connector, Cut},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::peers::Peer;
use crate::{authority::Authority, limits};

/// A connection to the peer's gateway, at the first of its addresses that answers.
pub(super) async fn dial(
    authority: &Authority,
    peer: &Peer,
    cut: &CancellationToken,
) -> Result<Channel, Refusal> {
    let unusable = |error: &dyn std::fmt::Display| {
        let message = format!("the bundle of {} is not usable: {error}", peer.domain);
        Refusal::new(ErrorCode::GatewayUnreachable, message, "accept a newer bundle of that domain")
    };
    let connector =
        Connector::new(peer.bundle.trust(), Some(authority.identity())).map_err(|error| unusable(&error))?;
    let expected = SpiffeId::Gateway(peer.domain.clone());
    let mut last = unusable(&"it has no address");
    for address in &peer.bundle.addresses {
        let attempt = async {
            let tcp = tls::connect(address).await.map_err(|error| {
                let action = "check its address, the network and the firewall, and that its gateway runs";
                unreachable(peer, address, &error, action)
            })?;
            let refused = |error: tls::TlsError| {
                let unknown = matches!(error, tls::TlsError::Ours(tls::Fault::UnknownCa));
                let action = if unknown {
                    "have that domain's administrator accept this domain's bundle"
                } else {
                    error.action()
                };
                unreachable(peer, address, &error, action)
            };
            let stream = connector.connect(tcp, &expected).await.map_err(refused)?;
            let stream = tls::admitted(stream).await.map_err(refused)?;
            http2(Cut::new(stream, cut)).await.map_err(|error| {
                unreachable(
                    peer,
                    address,
                    &error,
                    "check that the address is that of its federation listener",
                )
            })
        };
        match attempt.await {
            Ok(channel) => return Ok(channel),
            Err(refusal) => last = refusal,
        }
    }
    Err(last)
}

async fn http2<IO>(io: IO) -> Result<Channel, tonic::transport::Error>
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let once = Mutex::new(Some(TokioIo::new(io)));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = once.lock().ok().and_then(|mut once| once.take());
        async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    let (interval, patience) = limits::LINK_KEEPALIVE;
    Endpoint::from_static("http://peer")
        .http2_keep_alive_interval(interval)
        .keep_alive_timeout(patience)
        .keep_alive_while_idle(true)
        .http2_adaptive_window(false)
        .http2_max_header_list_size(HTTP2_HEADER_BYTES)
        .connect_with_connector(connector)
        .await
}

fn unreachable(peer: &Peer, address: &str, error: &dyn std::fmt::Display, action: &str) -> Refusal {
    Refusal::new(
        ErrorCode::GatewayUnreachable,
        format!("the gateway of {} at {address} can't be reached: {error}", peer.domain),
        action,
    )
}
