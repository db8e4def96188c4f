//! What a running gateway says, and what its addresses say when none runs.

use std::net::SocketAddr;

use liaison_proto::{
    admin::v1::{ListPeersRequest, StatusRequest, StatusResponse},
    times,
};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{Finding, fail, moment, ok, peers, warn};
use crate::{admin, config::Config, data::DataFolder, limits};

const GATEWAY: &str = "gateway";

pub(super) async fn examine(
    folder: &DataFolder,
    config: Option<&Config>,
    now: OffsetDateTime,
) -> Vec<Finding> {
    let Ok(mut gateway) = admin::connect(folder).await else {
        let asleep = warn(GATEWAY, "does not run", "start it with `liaison-gateway run`");
        let Some(config) = config else { return vec![asleep] };
        let mut findings = vec![asleep];
        for (check, address) in listeners(config).chain([("metrics address", config.metrics)]) {
            findings.push(is_free(check, address).await);
        }
        return findings;
    };
    let status = match gateway.status(StatusRequest {}).await {
        Ok(status) => status.into_inner(),
        Err(error) => {
            return vec![fail(
                GATEWAY,
                format!("runs, but does not answer: {}", error.message()),
                "restart it",
            )];
        }
    };
    let mut findings = vec![version(&status), certificate(&status, now)];
    if let Some(config) = config {
        for (check, address) in listeners(config) {
            findings.push(answers(check, address).await);
        }
        findings.push(is_ready(config.metrics).await);
    }
    match gateway.list_peers(ListPeersRequest {}).await {
        Ok(listed) => findings.extend(listed.into_inner().peers.iter().flat_map(peers::examine)),
        Err(error) => findings.push(fail(
            GATEWAY,
            format!("does not tell of its peers: {}", error.message()),
            "look at the gateway's log",
        )),
    }
    findings
}

/// Where others connect, by what it is called.
fn listeners(config: &Config) -> impl Iterator<Item = (&'static str, SocketAddr)> {
    let federation = config.federation.map(|address| ("federation address", address));
    [("exchange address", config.exchange)].into_iter().chain(federation)
}

fn version(status: &StatusResponse) -> Finding {
    let StatusResponse { version, agencies, sessions, queued, .. } = status;
    let detail = format!(
        "runs, version {version}; {agencies} agencies, {sessions} connected, {queued} deliveries wait"
    );
    if version == env!("CARGO_PKG_VERSION") {
        ok(GATEWAY, detail)
    } else {
        warn(GATEWAY, detail, format!("restart it to run version {}", env!("CARGO_PKG_VERSION")))
    }
}

fn certificate(status: &StatusResponse, now: OffsetDateTime) -> Finding {
    const CHECK: &str = "certificate";
    let Some(ends) = status.certificate_expires.as_ref().and_then(times::from_wire) else {
        return fail(CHECK, "the gateway has none", "restart it");
    };
    if ends <= now {
        fail(
            CHECK,
            format!("ended {}", moment(ends)),
            "look at the gateway's log for why it was not renewed, and restart it",
        )
    } else {
        ok(CHECK, format!("until {}, renews itself", moment(ends)))
    }
}

async fn is_free(check: &'static str, address: SocketAddr) -> Finding {
    match TcpListener::bind(address).await {
        Ok(_) => ok(check, format!("{address} is free")),
        Err(error) => fail(
            check,
            format!("{address} can't be listened on: {error}"),
            "stop what uses it, or choose another in gateway.toml",
        ),
    }
}

async fn answers(check: &'static str, address: SocketAddr) -> Finding {
    match timeout(limits::DOCTOR_WAIT, TcpStream::connect(local(address))).await {
        Ok(Ok(_)) => ok(check, format!("{address} answers")),
        _ => fail(
            check,
            format!("{address} does not answer"),
            "restart the gateway if gateway.toml was changed since it started; look at the firewall",
        ),
    }
}

async fn is_ready(address: SocketAddr) -> Finding {
    const CHECK: &str = "readiness";
    let ask = async {
        let mut stream = TcpStream::connect(local(address)).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.take(limits::DOCTOR_ANSWER_BYTES).read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    match timeout(limits::DOCTOR_WAIT, ask).await {
        Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200") => ok(CHECK, format!("{address} says ready")),
        Ok(Ok(answer)) => {
            let why = answer.lines().last().unwrap_or_default().to_owned();
            fail(CHECK, format!("{address} says not ready: {why}"), "look at the gateway's log")
        }
        _ => fail(
            CHECK,
            format!("{address} does not answer"),
            "restart the gateway if gateway.toml was changed",
        ),
    }
}

/// Where this machine reaches an address that is listened on everywhere.
fn local(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => ([127, 0, 0, 1], v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (std::net::Ipv6Addr::LOCALHOST, v6.port()).into(),
        other => other,
    }
}
