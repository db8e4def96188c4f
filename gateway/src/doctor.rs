//! What is wrong with a gateway, if anything, and what to do about it. Works whether or not the
//! gateway runs, and changes nothing.

mod logs;
mod peers;
mod running;

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use liaison_trust::certificate::Certificate;
use rustix::fs::statvfs;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    authority::{Cas, Stage},
    config::Config,
    data::{DataFolder, is_exposed},
    limits,
    policy::{self, PolicyFile, PolicySet},
    revoked::Revocations,
    store::{Database, DatabaseVersion, Inspection, probe},
};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub check: &'static str,
    pub verdict: Verdict,
    /// What was seen.
    pub detail: String,
    /// What to do; empty when all is well.
    pub action: String,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Ok,
    /// The gateway works, and something is to be done.
    Warn,
    /// The gateway does not work, or not safely.
    Fail,
}

impl Verdict {
    /// The verdict as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// Looks at everything. The first findings explain the later ones.
pub async fn examine(folder: &DataFolder) -> Vec<Finding> {
    let now = OffsetDateTime::now_utc().truncate_to_second();
    let mut findings = vec![data_folder(folder)];
    if findings.iter().any(|finding| finding.verdict == Verdict::Fail) {
        return findings;
    }
    let config = Config::load(&folder.config());
    findings.push(match &config {
        Ok(config) => ok("configuration", format!("domain {}", config.domain)),
        Err(error) => fail("configuration", error.to_string(), "then run this again"),
    });
    findings.push(secrets(folder));
    findings.extend(authority(folder, config.as_ref().ok(), now));
    findings.push(revocations(folder));
    findings.push(disk(folder.path()));
    // Where it is, the configuration says.
    if let Ok(config) = &config {
        findings.extend(database(folder, &config.database(folder), now).await);
        findings.extend(logs::examine(folder, config).await);
    }
    findings.extend(running::examine(folder, config.ok().as_ref(), now).await);
    findings
}

fn data_folder(folder: &DataFolder) -> Finding {
    const CHECK: &str = "data folder";
    let path = folder.path();
    let shown = path.display();
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fail(
            CHECK,
            format!("{shown} is not there"),
            "make it with `liaison-gateway init`, or name another with --data",
        ),
        Err(error) => {
            fail(CHECK, format!("{shown}: {error}"), "run doctor as the user that runs the gateway")
        }
        Ok(metadata) if !metadata.is_dir() => {
            fail(CHECK, format!("{shown} is no folder"), "name the gateway's folder with --data")
        }
        Ok(_) if !folder.config().exists() => fail(
            CHECK,
            format!("{shown} has no gateway.toml: it is no gateway's, or its init did not finish"),
            "name the gateway's folder with --data, or remove this one and run `liaison-gateway init`",
        ),
        Ok(metadata) if metadata.mode() & 0o077 != 0 => {
            fail(CHECK, format!("others may look into {shown}"), format!("run `chmod 700 {shown}`"))
        }
        Ok(metadata) => match fs::metadata("/proc/self") {
            Ok(own) if own.uid() != metadata.uid() => warn(
                CHECK,
                format!("{shown} belongs to user {}, you are user {}", metadata.uid(), own.uid()),
                "run the gateway and its commands as the user that the folder belongs to",
            ),
            _ => ok(CHECK, shown.to_string()),
        },
    }
}

fn secrets(folder: &DataFolder) -> Finding {
    const CHECK: &str = "private keys";
    for path in folder.secrets() {
        match is_exposed(&path) {
            Err(error) => return fail(CHECK, error.to_string(), "restore it from a backup"),
            Ok(true) => {
                let replace = match path == folder.signing_key() {
                    true => "make a new domain",
                    false => "change the CA, beginning with `liaison-gateway ca prepare`",
                };
                return fail(
                    CHECK,
                    format!("others may read {}", path.display()),
                    format!("run `chmod 600 {}`; if anybody could have read it, {replace}", path.display()),
                );
            }
            Ok(false) => {}
        }
    }
    match crate::run::signing_key(folder) {
        Ok(_) => ok(CHECK, "only the owner can read them"),
        Err(error) => fail(CHECK, error.to_string(), "restore it from a backup"),
    }
}

fn authority(folder: &DataFolder, config: Option<&Config>, now: OffsetDateTime) -> Vec<Finding> {
    const CHECK: &str = "CA";
    let stage = Stage::of(folder);
    if stage == Stage::Switching {
        let detail = "a switch to the next CA was interrupted";
        return vec![warn(CHECK, detail, "restart the gateway: it finishes that")];
    }
    let cas = match Cas::read(folder) {
        Ok(cas) => cas,
        Err(error) => {
            let action = "restore the files whose names begin with `ca` from one backup";
            return vec![fail(CHECK, error.to_string(), action)];
        }
    };
    let ca = cas.issuing();
    if let Some(config) = config
        && *ca.domain() != config.domain
    {
        let detail = format!("the CA is of the domain {}, gateway.toml of {}", ca.domain(), config.domain);
        return vec![fail(CHECK, detail, "put the files of one domain together")];
    }
    let Ok(certificate) = Certificate::read(ca.certificate_der()) else {
        return vec![fail(CHECK, "ca.pem is damaged", "restore it from a backup")];
    };
    let ends = certificate.not_after;
    let left = ends - now;
    let clock = if now < certificate.not_before {
        fail(
            "clock",
            format!("it is {} here, before the CA was made", moment(now)),
            "set the machine's clock and keep it synchronised (NTP)",
        )
    } else {
        ok("clock", moment(now))
    };
    let life = if left <= Duration::ZERO {
        fail(CHECK, format!("ended {ends}"), "make a new domain and enrol its agencies again")
    } else if left < limits::AUTHORITY_WARNING {
        warn(
            CHECK,
            format!("ends {ends}, in {} days", left.whole_days()),
            "replace it: begin with `liaison-gateway ca prepare`",
        )
    } else {
        ok(CHECK, format!("{} until {}", ca.domain(), ends.date()))
    };
    let change = match stage {
        Stage::Prepared => {
            Some("the next one is prepared; `liaison-gateway ca show` tells when it can be switched to")
        }
        Stage::Switched => {
            Some("the former one is still believed; `liaison-gateway ca show` tells when it can be retired")
        }
        Stage::Settled | Stage::Switching => None,
    };
    [life, clock].into_iter().chain(change.map(|change| ok("CA change", change))).collect()
}

fn revocations(folder: &DataFolder) -> Finding {
    const CHECK: &str = "revocations";
    match Revocations::read_file(&folder.revoked()) {
        Ok(read) => {
            ok(CHECK, format!("{} agencies, {} certificates", read.agencies.len(), read.certificates.len()))
        }
        Err(error) => fail(CHECK, error.to_string(), "restore it, or correct that line by hand"),
    }
}

fn disk(path: &Path) -> Finding {
    const CHECK: &str = "disk space";
    match statvfs(path) {
        Err(error) => fail(CHECK, error.to_string(), "look at the file system"),
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            let detail = format!("{} MiB free", free >> 20);
            match free {
                0..limits::DISK_FAIL_BYTES => {
                    fail(CHECK, detail, "free some at once: nothing can be accepted")
                }
                limits::DISK_FAIL_BYTES..limits::DISK_WARN_BYTES => {
                    warn(CHECK, detail, "free some, or move the data folder to a larger disk")
                }
                _ => ok(CHECK, detail),
            }
        }
    }
}

async fn database(folder: &DataFolder, kept: &Database, now: OffsetDateTime) -> Vec<Finding> {
    const CHECK: &str = "database";
    let inspection = match Inspection::of(kept).await {
        Ok(inspection) => inspection,
        Err(error) => {
            let detail = format!("{kept} can't be read: {error}");
            let action = match kept {
                Database::Sqlite(_) => "restore it from a backup; the revoked file stays as it is",
                Database::Postgres(_) => {
                    "look whether the server runs, and what `database` in gateway.toml names"
                }
            };
            return vec![fail(CHECK, detail, action)];
        }
    };
    let mut findings = vec![match (inspection.faults.first(), inspection.version) {
        (Some(fault), _) => fail(
            CHECK,
            format!("{fault} ({} faults at least)", inspection.faults.len()),
            match kept {
                Database::Sqlite(_) => "stop the gateway, keep a copy of the file, and restore a backup",
                Database::Postgres(_) => "turn it on, for what is accepted has to outlast a crash",
            },
        ),
        (None, DatabaseVersion::Newer) => {
            fail(CHECK, "a newer version of the gateway wrote it", "install that version again")
        }
        (None, DatabaseVersion::Older) => {
            warn(CHECK, "an older version of the gateway wrote it", "keep a copy; the next start upgrades it")
        }
        (None, DatabaseVersion::Same) => match probe(kept, now).await {
            Ok(()) => ok(CHECK, "sound, takes writes"),
            Err(error) => {
                let action = match kept {
                    Database::Sqlite(_) => "look at the disk and its permissions",
                    Database::Postgres(_) => "look at the server's own log",
                };
                fail(CHECK, format!("takes no writes: {error}"), action)
            }
        },
    }];
    if inspection.asynchronous {
        findings.push(warn(
            "standby",
            "the database server's standbys are asynchronous: one that takes over may lack what was accepted",
            "name one in synchronous_standby_names",
        ));
    }
    if let Some(last) = inspection.last_act
        && last > now + liaison_proto::limits::CLOCK_AHEAD
    {
        findings.push(fail(
            "clock",
            format!("it is {} here, but the database was changed at {}", moment(now), moment(last)),
            "set the machine's clock and keep it synchronised (NTP)",
        ));
    }
    let files =
        inspection.policy.map(|request| request.files.into_iter().map(PolicyFile::from).collect::<Vec<_>>());
    findings.push(policies(&folder.policies(), files.as_deref()));
    findings
}

/// Compares the active set with the folder that administrators edit.
fn policies(folder: &Path, active: Option<&[PolicyFile]>) -> Finding {
    const CHECK: &str = "policies";
    let Some(active) = active else {
        return fail(CHECK, "no policy set is active", "restore the database from a backup");
    };
    let active = match PolicySet::load(active) {
        Ok(active) => active,
        Err(error) => {
            let detail = format!("the active set does not fit this version: {error}");
            return fail(
                CHECK,
                detail,
                "install the former version, load a corrected set, and upgrade again",
            );
        }
    };
    let detail = format!("{} active, set {}", active.policies(), active.hash());
    if !folder.exists() {
        return ok(CHECK, detail);
    }
    let load = format!(
        "if you keep your policies there, run `liaison-gateway policy load {}`; if elsewhere, remove it",
        folder.display()
    );
    match policy::read_folder(folder).and_then(|files| PolicySet::load(&files)) {
        Ok(edited) if edited.hash() == active.hash() => ok(CHECK, detail),
        Ok(_) => warn(CHECK, format!("{detail}; {} holds another one", folder.display()), load),
        Err(_) => warn(CHECK, format!("{detail}; the one in {} has faults", folder.display()), load),
    }
}

/// In RFC 3339, to the second.
fn moment(at: OffsetDateTime) -> String {
    at.truncate_to_second().format(&Rfc3339).unwrap_or_else(|_| at.to_string())
}

fn ok(check: &'static str, detail: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Ok, detail: detail.into(), action: String::new() }
}

fn warn(check: &'static str, detail: impl Into<String>, action: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Warn, detail: detail.into(), action: action.into() }
}

fn fail(check: &'static str, detail: impl Into<String>, action: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Fail, detail: detail.into(), action: action.into() }
}
