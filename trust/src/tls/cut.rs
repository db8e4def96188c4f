//! Connections that can be cut from outside.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A connection that fails as soon as its token is cancelled, even while it waits for the other side:
/// how a revoked agency's live connections end.
#[derive(Debug)]
pub struct Cut<IO> {
    io: IO,
    // One for each direction: the halves of a split connection wait in tasks of their own.
    reading: Pin<Box<WaitForCancellationFutureOwned>>,
    writing: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<IO> Cut<IO> {
    /// The same connection, cut by this token.
    pub fn new(io: IO, token: &CancellationToken) -> Self {
        let wait = || Box::pin(token.clone().cancelled_owned());
        Self { io, reading: wait(), writing: wait() }
    }

    /// The connection underneath.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }
}

fn check(wait: &mut Pin<Box<WaitForCancellationFutureOwned>>, context: &mut Context<'_>) -> io::Result<()> {
    match wait.as_mut().poll(context) {
        Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was cut")),
        Poll::Pending => Ok(()),
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Cut<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        check(&mut self.reading, context)?;
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Cut<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        check(&mut self.writing, context)?;
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        check(&mut self.writing, context)?;
        Pin::new(&mut self.io).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        check(&mut self.writing, context)?;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        check(&mut self.writing, context)?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn carries_bytes_until_it_is_cut() {
        let (mut far, near) = duplex(64);
        let token = CancellationToken::new();
        let mut near = Cut::new(near, &token);
        near.write_all(b"ping").await.unwrap();
        let mut heard = [0; 4];
        far.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ping");

        token.cancel();
        far.write_all(b"pong").await.unwrap();
        assert_eq!(near.read(&mut heard).await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(near.write(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(near.shutdown().await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn wakes_both_halves_of_a_waiting_connection() {
        let (_far, near) = duplex(4);
        let token = CancellationToken::new();
        let (mut reader, mut writer) = tokio::io::split(Cut::new(near, &token));
        let reading = tokio::spawn(async move { reader.read(&mut [0; 1]).await });
        // Four bytes fit, the fifth waits.
        let writing = tokio::spawn(async move { writer.write_all(b"12345").await });
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        token.cancel();
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
