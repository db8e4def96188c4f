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
