//! TCP connections to put TLS on: direct ones, and ones through an HTTP proxy.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// How long a connection may take to come about, proxy included.
const CONNECT: Duration = Duration::from_secs(10);
/// A proxy's answer, bytes.
const ANSWER_BYTES: usize = 8 << 10;
/// How long a connection is silent before TCP asks whether the other side is there, and how often.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 4;

/// Why there is no connection through a proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The proxy itself isn't reached.
    #[error("the proxy isn't reached: {0}")]
    Unreachable(io::Error),
    /// The target is no `host:port`.
    #[error("{0:?} is not host:port")]
    Target(String),
    /// The proxy wants a user name and password (407).
    #[error(
        "the proxy asks for a user name and password, which are not supported: have it let the gateway's address through"
    )]
    Authentication,
    /// The proxy doesn't connect.
    #[error("the proxy refused to connect to {target}: HTTP status {status}")]
    Refused {
        /// To where.
        target: String,
        /// Its HTTP status.
        status: u16,
    },
    /// What answered doesn't speak HTTP CONNECT.
    #[error("what answers as the proxy is no HTTP proxy")]
    Garbage,
    /// The proxy closed the connection instead of answering.
    #[error("the proxy closed the connection without an answer")]
    Closed,
    /// The proxy took too long.
    #[error("the proxy didn't connect in time")]
    NoAnswer,
}

/// A direct connection to `host:port`, within 10 s.
pub async fn connect(address: &str) -> io::Result<TcpStream> {
    let stream =
        timeout(CONNECT, TcpStream::connect(address)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    tune(&stream)?;
    Ok(stream)
}

/// A connection to `target` (`host:port`) through the HTTP proxy at `proxy` (`host:port`), within 10 s
/// (HTTP CONNECT, RFC 9110, 9.3.6).
pub async fn connect_through_proxy(proxy: &str, target: &str) -> Result<TcpStream, ProxyError> {
    let is_plain = target.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
    if !is_plain || !target.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        return Err(ProxyError::Target(target.to_owned()));
    }
    timeout(CONNECT, tunnel(proxy, target)).await.map_err(|_| ProxyError::NoAnswer)?
}

/// Sends small writes at once, and notices dead connections. For accepted connections; those made here
/// have it.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

async fn tunnel(proxy: &str, target: &str) -> Result<TcpStream, ProxyError> {
    let mut stream = connect(proxy).await.map_err(ProxyError::Unreachable)?;
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|_| ProxyError::Closed)?;
    let mut answer = Vec::with_capacity(ANSWER_BYTES);
    while !answer.ends_with(b"\r\n\r\n") {
        // Byte by byte, so that nothing of what follows the answer is taken.
        let byte = stream.read_u8().await.map_err(|_| ProxyError::Closed)?;
        answer.push(byte);
        if answer.len() > ANSWER_BYTES || !b"HTTP/1.".starts_with(answer.get(..7).unwrap_or(&answer)) {
            return Err(ProxyError::Garbage);
        }
    }
    match status(&answer).ok_or(ProxyError::Garbage)? {
        200..=299 => Ok(stream),
        407 => Err(ProxyError::Authentication),
        status => Err(ProxyError::Refused { target: target.to_owned(), status }),
    }
}

/// The status in an answer that begins `HTTP/1.1 200 `.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    let (version, rest) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let status = rest.split(' ').next()?;
    (matches!(version, "HTTP/1.1" | "HTTP/1.0") && status.len() == 3).then(|| status.parse().ok())?
}
