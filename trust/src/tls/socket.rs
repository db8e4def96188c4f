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
/// How long the other host may leave bytes unacknowledged. It is the network that is asked: on a slow line, what asks
/// the program waits behind the message that is under way.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

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
    if !is_plain || target.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
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
    let socket = SockRef::from(stream);
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    socket.set_tcp_keepalive(&keepalive)
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

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener, task::JoinHandle};

    use super::*;

    const TARGET: &str = "gateway.example:7400";

    /// A proxy that answers one client with `answer`, whatever it asks; its result is what it was asked.
    async fn proxy(answer: &'static [u8]) -> (String, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
            String::from_utf8(request).unwrap()
        });
        (address, asked)
    }

    async fn answered(answer: &'static [u8]) -> Result<TcpStream, ProxyError> {
        connect_through_proxy(&proxy(answer).await.0, TARGET).await
    }

    #[tokio::test]
    async fn tunnels_and_leaves_what_follows_the_answer() {
        let (address, asked) = proxy(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nhello").await;
        let mut stream = connect_through_proxy(&address, TARGET).await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "hello");
        let asked = asked.await.unwrap();
        assert_eq!(asked, format!("CONNECT {TARGET} HTTP/1.1\r\nHost: {TARGET}\r\n\r\n"));
        assert!(stream.nodelay().unwrap());
        assert!(SockRef::from(&stream).keepalive().unwrap());
    }

    #[tokio::test]
    async fn says_what_a_proxy_refuses() {
        let refused = answered(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
        assert!(matches!(refused, Err(ProxyError::Refused { status: 403, target }) if target == TARGET));
        let refused = answered(b"HTTP/1.0 407 Who are you\r\n\r\n").await;
        assert!(matches!(refused, Err(ProxyError::Authentication)));
        assert!(matches!(answered(b"").await, Err(ProxyError::Closed)));
        assert!(matches!(answered(b"HTTP/1.1 200 OK\r\n").await, Err(ProxyError::Closed)));
    }

    #[tokio::test]
    async fn knows_what_is_no_proxy() {
        const ENDLESS: [u8; 9_000] = {
            let mut answer = [b'x'; 9_000];
            answer.split_at_mut(9).0.copy_from_slice(b"HTTP/1.1 ");
            answer
        };
        let garbage: [&[u8]; 5] = [
            b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
            b"\x15\x03\x01\x00\x02\x02\x16",
            b"HTTP/1.1 ok\r\n\r\n",
            b"HTTP/2 200\r\n\r\n",
            &ENDLESS,
        ];
        for answer in garbage {
            assert!(matches!(answered(answer).await, Err(ProxyError::Garbage)), "{:?}", answer.get(..9));
        }
    }

    #[tokio::test]
    async fn refuses_targets_that_would_smuggle_headers() {
        for target in ["host", "host:port", "host:70000", "host:1\r\nX: y:2", "a b:1", "user@host:1"] {
            let refused = connect_through_proxy("127.0.0.1:1", target).await;
            assert!(matches!(refused, Err(ProxyError::Target(_))), "{target}");
        }
    }

    #[tokio::test]
    async fn names_an_unreachable_proxy() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        assert!(matches!(connect_through_proxy(&address, TARGET).await, Err(ProxyError::Unreachable(_))));
    }
}
