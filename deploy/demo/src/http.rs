//! One HTTP/1.1 request a connection: all that a caseworker system needs to call its agent.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const REQUEST: Duration = Duration::from_secs(30);
const ANSWER_BYTES: u64 = 64 << 20;

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Lower-case names.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null where it is something else.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The code of the error that it tells; empty where it tells none.
    pub fn error_code(&self) -> String {
        self.json().pointer("/error/code").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends one request and reads its answer.
pub async fn request(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    let exchange = async {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(head.as_bytes()).await?;
        // A server may answer and close before it read all of a body that it refuses.
        let sent = stream.write_all(body).await;
        let mut raw = Vec::new();
        let read = stream.take(ANSWER_BYTES).read_to_end(&mut raw).await;
        if raw.is_empty() {
            sent?;
            read?;
        }
        anyhow::Ok(raw)
    };
    let raw = tokio::time::timeout(REQUEST, exchange)
        .await
        .with_context(|| format!("no answer from {to} to {method} {path}"))?
        .with_context(|| format!("{method} {path} at {to}"))?;
    parse(&raw).with_context(|| format!("{method} {path} at {to} was not answered in HTTP"))
}

fn parse(raw: &[u8]) -> Result<Answer> {
    let end = raw.windows(4).position(|four| four == b"\r\n\r\n").context("the head has no end")?;
    let (head, body) = raw.split_at(end);
    let mut lines = std::str::from_utf8(head)?.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?.parse()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let body = body.get(4..).unwrap_or_default();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = if chunked { unchunk(body)? } else { body.to_vec() };
    Ok(Answer { status, headers, body })
}

fn unchunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").context("a chunk has no size")?;
        let (size, after) = rest.split_at(end);
        let size = usize::from_str_radix(std::str::from_utf8(size)?.trim(), 16)?;
        if size == 0 {
            return Ok(body);
        }
        let after = after.get(2..).unwrap_or_default();
        ensure!(after.len() >= size + 2, "a chunk is cut short");
        body.extend_from_slice(after.get(..size).unwrap_or_default());
        rest = after.get(size + 2..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_chunked_answer() {
        let raw = b"HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n2\r\n1}\r\n0\r\n\r\n";
        let answer = parse(raw).unwrap();
        assert_eq!((answer.status, answer.json()), (409, serde_json::json!({"a": 1})));
    }

    #[test]
    fn refuses_a_chunk_cut_short() {
        assert!(unchunk(b"5\r\nab").is_err());
    }
}
