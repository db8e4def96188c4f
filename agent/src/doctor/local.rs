//! What lies on this machine: files, keys, database, ports.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use liaison_proto::{
    case::v1::{GetStatusRequest, StatusResponse, log_alarm::Code as AlarmKind},
    limits::CASE_PAGE,
};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::process::Command;

use super::{Finding, fail, ok, warn};
use crate::{
    backup::check_database, case::listen, certificate::Credentials, cli::client, config::Config,
    custody::Custody, folder::Folder, limits, store::Store,
};

/// A certificate that ends within this time should have been renewed already: its life is a day.
const CERTIFICATE_SOON: Duration = Duration::hours(4);
/// How long after its end a certificate can still renew itself.
const RENEWABLE: Duration = Duration::days(90);
/// Space on the disk, KiB: below the first nothing is sure to be stored, the second is to be looked at.
const SPACE_LEAST: u64 = 256 << 10;
const SPACE_FEW: u64 = 2 << 20;

/// The folder and its secrets: there, and nobody else's to read.
pub(super) fn files(folder: &Folder) -> Vec<Finding> {
    const CHECK: &str = "data folder";
    let path = folder.path().display();
    if !folder.path().is_dir() {
        return vec![fail(
            CHECK,
            format!("{path} is not there"),
            "give the right one with --data, or run `liaison-agent enroll`",
        )];
    }
    let mut secrets: Vec<PathBuf> = vec![
        folder.path().to_owned(),
        folder.tls_key(),
        folder.api_token(),
        folder.keys(),
        folder.database(),
    ];
    secrets.extend(fs::read_dir(folder.keys()).into_iter().flatten().flatten().map(|entry| entry.path()));
    let open: Vec<String> =
        secrets.iter().filter(|path| is_open(path)).map(|path| path.display().to_string()).collect();
    if open.is_empty() {
        return vec![ok(CHECK, format!("{path}, for its owner alone"))];
    }
    let found = format!("others on this machine may read {}", open.join(", "));
    vec![fail(CHECK, found, &format!("run `chmod -R go= {path}`"))]
}

fn is_open(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

/// The ports of the case API, and whether this agent answers there. Answers whether it runs.
pub(super) async fn api(folder: &Folder, config: &Config, findings: &mut Vec<Finding>) -> bool {
    const CHECK: &str = "case API";
    let at = format!("gRPC {}, REST {}", config.grpc, config.rest);
    let status = match client::connect(folder).await {
        Ok(mut client) => client.get_status(GetStatusRequest {}).await.map_err(|status| status.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match status {
        Ok(status) if status.get_ref().agency == config.agency.to_string() => {
            findings.push(ok(CHECK, format!("the agent runs and answers at {at}")));
            findings.push(session(status.get_ref()));
            return true;
        }
        Ok(status) => findings.push(fail(
            CHECK,
            format!("the agent of {} answers at {at}", status.get_ref().agency),
            "give each agent ports of its own in agent.toml",
        )),
        Err(_) => match (listen(config.grpc).await, listen(config.rest).await) {
            (Ok(_), Ok(_)) => findings.push(warn(
                CHECK,
                format!("the agent does not run; {at} are free"),
                "start it with `liaison-agent run`",
            )),
            (Err(error), _) | (_, Err(error)) => {
                findings.push(fail(CHECK, error, "then start the agent with `liaison-agent run`"));
            }
        },
    }
    false
}

/// How the running agent stands with the gateway.
fn session(status: &StatusResponse) -> Finding {
    const CHECK: &str = "session";
    if status.connected {
        ok(CHECK, "the agent is connected to the gateway")
    } else if status.problem.is_empty() {
        warn(CHECK, "the agent is not connected yet", "ask again in a moment")
    } else {
        fail(CHECK, status.problem.clone(), "the agent tries again by itself; do what stands above")
    }
}

/// The agency's keys and its certificate.
pub(super) fn keys(folder: &Folder, config: &Config, findings: &mut Vec<Finding>) {
    let now = OffsetDateTime::now_utc();
    match Custody::open(folder, &config.agency) {
        Ok(custody) => {
            let current = custody.ring().current().clone();
            findings.push(if current.not_after > now {
                ok(
                    "keys",
                    format!(
                        "record number {}, good until {}",
                        current.sequence + 1,
                        moment(current.not_after)
                    ),
                )
            } else {
                warn(
                    "keys",
                    "the newest key record is over its end",
                    "start the agent: it makes the next one",
                )
            });
        }
        Err(error) => findings.push(fail("keys", error, "restore the data folder from its backup")),
    }
    findings.push(match Credentials::load(folder, config) {
        Err(error) => fail("certificate", error, "enrol again, or restore the data folder from its backup"),
        Ok(credentials) => certificate(credentials.not_before, credentials.not_after, now),
    });
}

fn certificate(not_before: OffsetDateTime, not_after: OffsetDateTime, now: OffsetDateTime) -> Finding {
    const CHECK: &str = "certificate";
    if not_before > now {
        return fail(
            CHECK,
            format!("it begins at {} only", moment(not_before)),
            "set this machine's clock right",
        );
    }
    if not_after + RENEWABLE <= now {
        return fail(
            CHECK,
            format!("it ended at {}, too long ago to renew itself", moment(not_after)),
            "enrol again with a new token",
        );
    }
    if not_after <= now {
        return warn(
            CHECK,
            format!("it ended at {}", moment(not_after)),
            "start the agent: it renews the certificate by itself",
        );
    }
    if not_after - now < CERTIFICATE_SOON {
        return warn(
            CHECK,
            format!("it ends at {}", moment(not_after)),
            "start the agent, or see below why it can't reach the gateway",
        );
    }
    ok(CHECK, format!("until {}", moment(not_after)))
}

fn moment(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

/// The database, what waits in it, and the room it has.
pub(super) async fn database(folder: &Folder, config: &Config, runs: bool, findings: &mut Vec<Finding>) {
    let path = folder.database();
    if !path.exists() {
        findings.push(warn("database", "it is not there yet", "start the agent: it makes it"));
    } else if let Err(error) = check_database(&path).await {
        findings.push(fail("database", error, "stop the agent, and restore the data folder from its backup"));
    } else {
        findings.push(ok("database", "whole"));
        findings.push(queue(folder, config, runs).await);
        findings.push(log(folder, config, runs).await);
    }
    findings.push(space(folder.path()).await);
}

async fn queue(folder: &Folder, config: &Config, runs: bool) -> Finding {
    const CHECK: &str = "outbox";
    let waiting = if runs { waiting_by_api(folder).await } else { waiting_by_store(folder, config).await };
    let most = limits::OUTBOX_MESSAGES.unsigned_abs();
    match waiting {
        Ok(0) => ok(CHECK, "empty"),
        Ok(waiting) if waiting >= most => fail(
            CHECK,
            format!("full: {waiting} messages wait for the gateway"),
            "see below why the gateway can't be reached",
        ),
        Ok(waiting) => warn(
            CHECK,
            format!("{waiting} messages wait for the gateway"),
            "see below whether the gateway can be reached",
        ),
        Err(error) => fail(CHECK, format!("{error:#}"), "restore the data folder from its backup"),
    }
}

/// What this agent has seen of its domain's log that an honest one does not do.
async fn log(folder: &Folder, config: &Config, runs: bool) -> Finding {
    const CHECK: &str = "log of evidence";
    let alarms = if runs { alarms_by_api(folder).await } else { alarms_by_store(folder, config).await };
    match alarms.as_deref() {
        Ok([]) => ok(CHECK, "one history, and nothing is missing in it"),
        // An administrator may have had reasons, and gives them.
        Ok([newest, ..]) if alarms.iter().flatten().all(|alarm| alarm.0 == AlarmKind::NewLog) => {
            warn(CHECK, &newest.1, "ask the domain's administrator why; compare with other agencies")
        }
        Ok([newest, ..]) => fail(
            CHECK,
            format!("not to be relied on; what was seen last: {}", newest.1),
            "tell the domain's administrator, and those of other agencies; the evidence is in agent.db",
        ),
        Err(error) => fail(CHECK, format!("{error:#}"), "restore the data folder from its backup"),
    }
}

async fn alarms_by_api(folder: &Folder) -> anyhow::Result<Vec<(AlarmKind, String)>> {
    let status = client::connect(folder).await?.get_status(GetStatusRequest {}).await;
    let log = status.map_err(|status| client::refused(&status))?.into_inner().log.unwrap_or_default();
    Ok(log.alarms.into_iter().map(|alarm| (alarm.kind(), alarm.detail)).collect())
}

async fn alarms_by_store(folder: &Folder, config: &Config) -> anyhow::Result<Vec<(AlarmKind, String)>> {
    let custody = Custody::open(folder, &config.agency)?;
    let store = Store::open(&folder.database(), custody.vault(), config.agency.clone()).await?;
    let alarms = store.alarms(CASE_PAGE).await;
    store.close().await;
    Ok(alarms?.into_iter().map(|alarm| (alarm.kind, alarm.detail)).collect())
}

async fn waiting_by_api(folder: &Folder) -> anyhow::Result<u64> {
    let status = client::connect(folder).await?.get_status(GetStatusRequest {}).await;
    Ok(status.map_err(|status| client::refused(&status))?.get_ref().outbox)
}

async fn waiting_by_store(folder: &Folder, config: &Config) -> anyhow::Result<u64> {
    let custody = Custody::open(folder, &config.agency)?;
    let store = Store::open(&folder.database(), custody.vault(), config.agency.clone()).await?;
    let counts = store.counts().await;
    store.close().await;
    Ok(counts?.outbox)
}

/// The room on the data folder's disk, as POSIX `df` tells it.
async fn space(path: &Path) -> Finding {
    const CHECK: &str = "disk";
    let output = Command::new("df").arg("-Pk").arg(path).output().await;
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let free: Option<u64> =
        text.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)).and_then(|kib| kib.parse().ok());
    match free {
        None => warn(CHECK, "the room on it can't be told", "look at it with `df`"),
        Some(free) if free < SPACE_LEAST => fail(CHECK, format!("{} MiB are free", free >> 10), "make room"),
        Some(free) if free < SPACE_FEW => {
            warn(CHECK, format!("{} MiB are free", free >> 10), "make room soon")
        }
        Some(free) => ok(CHECK, format!("{} MiB are free", free >> 10)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_running_agent_that_is_not_let_in_is_a_fault() {
        let status = |connected, problem: &str| StatusResponse {
            connected,
            problem: problem.to_owned(),
            ..StatusResponse::default()
        };
        let suspended = session(&status(false, "suspended: be/x is suspended"));
        assert_eq!(
            (suspended.verdict, suspended.detail.as_str()),
            (Verdict::Fail, "suspended: be/x is suspended")
        );
        assert_eq!(session(&status(false, "")).verdict, Verdict::Warn);
        assert_eq!(session(&status(true, "")).verdict, Verdict::Ok);
    }

    #[test]
    fn a_certificate_is_judged_by_its_time() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let verdict = |from: Duration, to: Duration| certificate(now + from, now + to, now).verdict;
        assert_eq!(verdict(-Duration::HOUR, Duration::hours(23)), Verdict::Ok);
        assert_eq!(verdict(-Duration::hours(22), Duration::hours(2)), Verdict::Warn);
        assert_eq!(verdict(-Duration::days(2), -Duration::DAY), Verdict::Warn);
        assert_eq!(verdict(-Duration::days(92), -Duration::days(91)), Verdict::Fail);
        assert_eq!(verdict(Duration::HOUR, Duration::hours(25)), Verdict::Fail);
    }

    #[test]
    fn a_secret_that_others_may_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let data = Folder::new(folder.path());
        fs::write(data.api_token(), "secret").unwrap();
        fs::set_permissions(data.api_token(), fs::Permissions::from_mode(0o640)).unwrap();
        let findings = files(&data);
        assert_eq!(findings[0].verdict, Verdict::Fail);
        assert!(findings[0].detail.contains("api-token"), "{findings:?}");
        fs::set_permissions(data.api_token(), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(files(&data)[0].verdict, Verdict::Ok);
    }

    #[tokio::test]
    async fn the_disk_has_room_or_not() {
        assert!(space(Path::new("/")).await.detail.ends_with("MiB are free"));
        assert_eq!(space(Path::new("/nowhere at all")).await.verdict, Verdict::Warn);
    }
}
