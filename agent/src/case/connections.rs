//! The connections of one listener: so many at a time, and none that stays without saying what it wants.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::limits;

/// A listener with places for this many connections. Further ones wait in the kernel's backlog.
pub(super) struct Connections {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Connections {
    pub(super) fn new(listener: TcpListener, places: usize) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(places)) }
    }

    /// The next connection; its place is free again when it is dropped.
    ///
    /// # Errors
    /// The places are closed, which nobody does.
    pub(super) async fn next(&self) -> io::Result<Connection> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        let stream = loop {
            match self.listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection of the case API could not be accepted");
                    sleep(limits::ACCEPT_REST).await;
                }
            }
        };
        // An answer is one small write; without this it could wait for the next one.
        let _ = stream.set_nodelay(true);
        Ok(Connection {
            stream,
            silence: Some(Box::pin(sleep(limits::REQUEST_HEAD))),
            heard: 0,
            _place: place,
        })
    }
}

/// A connection in its place. It fails if its first bytes, as many as HTTP/2 begins with, are not there in
/// time; what follows is for the protocol to watch.
pub(super) struct Connection {
    stream: TcpStream,
    silence: Option<Pin<Box<Sleep>>>,
    heard: usize,
    _place: OwnedSemaphorePermit,
}

/// The preface of HTTP/2, bytes (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(silence) = &mut self.silence
            && silence.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        self.heard = self.heard.saturating_add(buffer.filled().len().saturating_sub(before));
        if self.heard >= PREFACE_BYTES {
            self.silence = None;
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_connection_waits_until_there_is_a_place() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let connections = Connections::new(listener, 1);
        let mut clients = [TcpStream::connect(at).await.unwrap(), TcpStream::connect(at).await.unwrap()];
        let first = connections.next().await.unwrap();
        assert!(connections.next().now_or_never().is_none(), "the second is there, and has no place");
        drop(first);
        let mut second = connections.next().await.unwrap();
        clients[1].write_all(b"hello").await.unwrap();
        let mut said = [0; 5];
        second.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"hello");
    }
}
