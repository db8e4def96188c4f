//! A listener for gRPC over TLS: every handshake in a task of its own, every limit set.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use liaison_proto::limits as shared;
use liaison_trust::tls::{self, Acceptor, Cut, Peer};
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

use crate::{exchange::identity::Caller, limits};

/// How long the listener rests after it failed to accept, so that it doesn't spin.
const REST: Duration = Duration::from_millis(100);

/// A place for a connection, with what cuts it.
pub type Place = (OwnedSemaphorePermit, CancellationToken);

/// Who gets a place, by what the handshake proved and when it began; none where there is none. Strangers, who
/// have no certificate or one of no use here, have places of their own.
pub type Admit = Arc<dyn Fn(&Peer, Instant) -> Option<Place> + Send + Sync>;

/// Serves an API until the gateway stops; streams then have [`limits::DRAIN`] to finish.
///
/// # Errors
/// The server failed.
pub async fn serve(
    stop: CancellationToken,
    admit: Admit,
    acceptor: Arc<Acceptor>,
    listener: TcpListener,
    routes: Routes,
) -> Result<(), tonic::transport::Error> {
    let (connections, incoming) = mpsc::channel(limits::CONNECTION_BACKLOG);
    let listening = tokio::spawn(listen(stop.clone(), admit, acceptor, listener, connections));
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
    stop: CancellationToken,
    admit: Admit,
    acceptor: Arc<Acceptor>,
    listener: TcpListener,
    connections: mpsc::Sender<Result<Connection, io::Error>>,
) {
    let handshakes = Arc::new(Semaphore::new(limits::HANDSHAKES));
    // Full is full: a connection then waits in the kernel's backlog.
    while let Ok(handshake) = Arc::clone(&handshakes).acquire_owned().await {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match stream {
            Ok((stream, source)) => {
                let (admit, acceptor) = (Arc::clone(&admit), Arc::clone(&acceptor));
                let connections = connections.clone();
                tokio::spawn(async move {
                    let connection = shake_hands(&admit, &acceptor, stream, source.ip()).await;
                    drop(handshake);
                    if let Some(connection) = connection {
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
    admit: &Admit,
    acceptor: &Acceptor,
    stream: TcpStream,
    source: IpAddr,
) -> Option<Connection> {
    if let Err(error) = tls::tune(&stream) {
        debug!(%error, "a connection went away before its handshake");
        return None;
    }
    let outcome = |outcome| counter!("liaison_gateway_handshakes_total", "outcome" => outcome).increment(1);
    let began = Instant::now();
    let (stream, peer) = match acceptor.accept(stream).await {
        Ok(accepted) => accepted,
        Err(error) => {
            outcome("refused");
            debug!(%error, "a TLS handshake failed");
            return None;
        }
    };
    let place = admit(&peer, began);
    let Some((place, cut)) = place else {
        outcome("turned_away");
        warn!(
            "a connection was turned away: whoever it is was cut off meanwhile, or there are enough of its kind"
        );
        return None;
    };
    outcome("ok");
    let caller = Caller { peer: Arc::new(peer), source };
    Some(Connection { io: Cut::new(stream, &cut), caller, _place: place })
}

/// Places for strangers, so that members' can't be taken by them: what they may do takes one call, not long.
pub struct Strangers(Arc<Semaphore>);

impl Default for Strangers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(limits::STRANGERS)))
    }
}

impl Strangers {
    /// A place for a while.
    pub fn admit(&self) -> Option<Place> {
        let place = Arc::clone(&self.0).try_acquire_owned().ok()?;
        let cut = CancellationToken::new();
        let end = cut.clone();
        tokio::spawn(async move {
            sleep(limits::STRANGER_STAY).await;
            end.cancel();
        });
        Some((place, cut))
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
