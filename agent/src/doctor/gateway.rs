//! The way to the gateway: name, network, proxy, TLS, clock.

use std::time::Duration;

use liaison_proto::limits as wire;
use liaison_trust::tls::{Connector, Fault, TlsError};
use time::{OffsetDateTime, PrimitiveDateTime, macros::format_description};
use tokio::net::lookup_host;
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{Finding, fail, ok, warn};
use crate::{
    certificate::Credentials,
    config::Config,
    dial::{DialError, Dialer},
    folder::Folder,
};

/// How long a name may take.
const RESOLVE: Duration = Duration::from_secs(10);
/// A clock may be off by this much before it is worth a word.
const CLOCK_FEW: time::Duration = time::Duration::seconds(60);

/// Goes all the way to the gateway, as the agent does.
pub(super) async fn reach(folder: &Folder, config: &Config, findings: &mut Vec<Finding>) {
    findings.push(resolve(config).await);
    // Why there are none is said by the check of the certificate.
    let Ok(credentials) = Credentials::load(folder, config) else { return };
    let connector = match Connector::new(credentials.trust, Some(credentials.identity)) {
        Ok(connector) => connector,
        Err(error) => {
            findings.push(fail("TLS", error, "enrol again, or restore the data folder from its backup"));
            return;
        }
    };
    match Dialer::new(config, connector).dial().await {
        Ok(channel) => {
            findings.push(ok("network", "the gateway's port answers"));
            findings.push(ok("TLS", "the gateway is who it must be, and takes this agent's certificate"));
            findings.push(clock(channel).await);
        }
        Err(error) => findings.extend(unreachable(&error)),
    }
}

/// The name that has to be resolved here: with a proxy it resolves the gateway's.
async fn resolve(config: &Config) -> Finding {
    const CHECK: &str = "name";
    let at = config.proxy.as_ref().map_or_else(|| config.gateway.to_string(), |proxy| proxy.0.to_string());
    let found = tokio::time::timeout(RESOLVE, lookup_host(&at)).await;
    match found.map(|found| {
        found.map(|addresses| addresses.map(|address| address.ip().to_string()).collect::<Vec<_>>())
    }) {
        Ok(Ok(addresses)) if !addresses.is_empty() => ok(CHECK, format!("{at} is {}", addresses.join(", "))),
        Ok(Ok(_)) => fail(CHECK, format!("{at} has no address"), "check the name in agent.toml"),
        Ok(Err(error)) => fail(
            CHECK,
            format!("{at} can't be resolved: {error}"),
            "check the name in agent.toml and this machine's DNS",
        ),
        Err(_) => fail(CHECK, format!("{at} is not resolved in time"), "check this machine's DNS"),
    }
}

fn unreachable(error: &DialError) -> Vec<Finding> {
    let answers = || ok("network", "the gateway's port answers");
    match error {
        DialError::Tcp { .. } => vec![fail("network", error, "ask the network's administrator")],
        DialError::Proxy { .. } => vec![fail("proxy", error, "check the proxy in agent.toml")],
        DialError::Http { .. } => {
            vec![answers(), fail("TLS", error, "check the gateway's address in agent.toml")]
        }
        DialError::Tls { source, .. } => {
            let mut findings = vec![answers(), fail("TLS", error, source.action())];
            if let TlsError::Theirs(Fault::Expired | Fault::NotYetValid)
            | TlsError::Ours(Fault::Expired | Fault::NotYetValid) = source
            {
                findings.push(warn(
                    "clock",
                    format!("it is {} here", OffsetDateTime::now_utc()),
                    "compare it with a clock that you trust",
                ));
            }
            findings
        }
    }
}

/// Compares this machine's clock with the gateway's, by the date that it puts on an answer.
async fn clock(channel: Channel) -> Finding {
    const CHECK: &str = "clock";
    let mut health = HealthClient::new(channel);
    let asked = health.check(HealthCheckRequest { service: String::new() });
    let answer = match tokio::time::timeout(wire::REQUEST, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(status)) => {
            return fail(CHECK, format!("the gateway does not answer: {status}"), "tell its administrator");
        }
        Err(_) => return fail(CHECK, "the gateway does not answer in time", "tell its administrator"),
    };
    let date = answer.metadata().get("date").and_then(|date| date.to_str().ok()).and_then(http_date);
    match date {
        Some(theirs) => skew(theirs, OffsetDateTime::now_utc()),
        None => warn(
            CHECK,
            "the gateway does not tell its time",
            "compare this machine's clock with one that you trust",
        ),
    }
}

fn skew(theirs: OffsetDateTime, ours: OffsetDateTime) -> Finding {
    const CHECK: &str = "clock";
    let off = ours - theirs;
    let found = format!(
        "{} s {} the gateway's",
        off.whole_seconds().abs(),
        if off.is_negative() { "behind" } else { "ahead of" }
    );
    let action = "set this machine's clock right, and let it be set by NTP";
    if off.unsigned_abs() >= wire::CLOCK_AHEAD {
        fail(CHECK, found, action)
    } else if off.abs() >= CLOCK_FEW {
        warn(CHECK, found, action)
    } else {
        ok(CHECK, found)
    }
}

/// The date of an HTTP answer (RFC 9110, IMF-fixdate).
fn http_date(text: &str) -> Option<OffsetDateTime> {
    let format = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    PrimitiveDateTime::parse(text, format).ok().map(PrimitiveDateTime::assume_utc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_clock_is_judged_by_how_far_it_is_off() {
        let theirs = http_date("Tue, 24 Nov 2026 03:10:59 GMT").unwrap();
        assert_eq!(theirs.unix_timestamp(), 1_795_489_859);
        let verdict = |seconds| skew(theirs, theirs + time::Duration::seconds(seconds)).verdict;
        assert_eq!(
            [verdict(0), verdict(-59), verdict(60), verdict(-299)],
            [Verdict::Ok, Verdict::Ok, Verdict::Warn, Verdict::Warn]
        );
        assert_eq!([verdict(300), verdict(-86_400)], [Verdict::Fail, Verdict::Fail]);
        assert_eq!(http_date("yesterday"), None);
    }

    #[test]
    fn an_intercepted_connection_is_recognised() {
        let error = DialError::Tls {
            gateway: "gateway.example:7400".parse().unwrap(),
            source: TlsError::Intercepted { issuer: "CN=Proxy".into() },
        };
        let findings = unreachable(&error);
        assert_eq!(findings[1].verdict, Verdict::Fail);
        assert!(findings[1].detail.contains("intercepted"), "{findings:?}");
        assert!(findings[1].action.contains("TLS inspection"), "{findings:?}");
    }
}
