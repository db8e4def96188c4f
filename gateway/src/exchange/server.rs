//! The listener: every handshake in a task of its own, every limit set.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use liaison_proto::limits as shared;
use liaison_trust::{
    names::SpiffeId,
    tls::{self, Acceptor, Cut, Peer},
};
use metrics::counter;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::sleep,
};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Server, server::Connected},
};
use tracing::{debug, warn};

use super::identity::Caller;
use crate::{gateway::Gateway, limits};

/// How long the listener rests after it failed to accept, so that it doesn't spin.
const REST: std::time::Duration = std::time::Duration::from_millis(100);

/// Serves the exchange API until the gateway stops; sessions then have [`limits::DRAIN`] to finish.
///
/// # Errors
/// The server failed.
pub async fn serve(
    gateway: Arc<Gateway>,
    acceptor: Arc<Acceptor>,
    listener: TcpListener,
    routes: Routes,
) -> Result<(), tonic::transport::Error> {
    let (connections, incoming) = mpsc::channel(limits::CONNECTION_BACKLOG);
    let stop = gateway.stop.clone();
    let listening = tokio::spawn(listen(gateway, acceptor, listener, connections));
    let served = Server::builder()
        .max_concurrent_streams(shared::HTTP2_STREAMS)
        .http2_max_local_error_reset_streams(Some(shared::HTTP2_LOCAL_ERROR_RESETS))
        .http2_max_header_list_size(shared::HTTP2_HEADER_BYTES)
        .http2_adaptive_window(Some(false))
        .http2_keepalive_interval(Some(shared::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(shared::KEEPALIVE_TIMEOUT))
        .max_connection_age(shared::CONNECTION_AGE)
        .max_connection_age_grace(shared::CONNECTION_GRACE)
        .timeout(shared::REQUEST)
        .add_routes(routes)
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), stop.cancelled_owned())
        .await;
    listening.abort();
    served
}

async fn listen(
    gateway: Arc<Gateway>,
    acceptor: Arc<Acceptor>,
    listener: TcpListener,
    connections: mpsc::Sender<Result<Connection, io::Error>>,
) {
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS));
    // Full is full: a connection then waits in the kernel's backlog.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let stream = tokio::select! {
            () = gateway.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match stream {
            Ok((stream, source)) => {
                let (gateway, acceptor) = (Arc::clone(&gateway), Arc::clone(&acceptor));
                let connections = connections.clone();
                tokio::spawn(async move {
                    if let Some(connection) =
                        shake_hands(&gateway, &acceptor, stream, source.ip(), place).await
                    {
                        let _ = connections.send(Ok(connection)).await;
                    }
                });
            }
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                sleep(REST).await;
            }
        }
    }
}

async fn shake_hands(
    gateway: &Gateway,
    acceptor: &Acceptor,
    stream: TcpStream,
    source: IpAddr,
    place: OwnedSemaphorePermit,
) -> Option<Connection> {
    if let Err(error) = tls::tune(&stream) {
        debug!(%error, "a connection went away before its handshake");
        return None;
    }
    match acceptor.accept(stream).await {
        Ok((stream, peer)) => {
            counter!("liaison_gateway_handshakes_total", "outcome" => "ok").increment(1);
            let cut = match &peer {
                Peer::Known { id: SpiffeId::Agency(agency), .. } => gateway.sessions.connection(agency),
                _ => CancellationToken::new(),
            };
            Some(Connection {
                io: Cut::new(stream, &cut),
                caller: Caller { peer: Arc::new(peer), source },
                _place: place,
            })
        }
        Err(error) => {
            counter!("liaison_gateway_handshakes_total", "outcome" => "refused").increment(1);
            debug!(%error, "a TLS handshake failed");
            None
        }
    }
}

/// A connection with who is at its other end.
struct Connection {
    io: Cut<TlsStream<TcpStream>>,
    caller: Caller,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
