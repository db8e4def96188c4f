//! Whether the logs are what was signed, and whether what the gateway works with is what they say: all that can be told
//! offline from the database and the gateway's key. Here it is read; whether it is sound, the functions below judge.

mod fault;
mod guard;
mod head;
mod keys;
mod leaf;
mod message;
mod tree;
mod walk;

use std::{collections::BTreeSet, path::Path};

use liaison_proto::{admin::v1::LoadPolicyRequest, limits::REPLAY_MEMORY, log::v1::record::Event};
use liaison_trust::{digest::Digest, keys::SigningKey, names::Domain};
use prost::Message;
use time::OffsetDateTime;

use super::{Guard, LogError, guard_file, log_key};
use crate::{
    limits,
    policy::{PolicyFile, PolicySet},
    store::{LogHead, LogKind, Snapshot},
};
use fault::CHANGED;
use walk::Walk;

pub use fault::{Fault, Faults};
pub use head::examine_head;
pub use tree::Grown;

/// What was looked at, and what is wrong.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub logs: Vec<Examined>,
    /// Accepted messages that are remembered.
    pub messages: u64,
    /// Key records that the gateway uses.
    pub keys: u64,
    pub faults: Faults,
}

/// A log that was looked at.
#[derive(Debug, Clone)]
pub struct Examined {
    pub origin: String,
    /// Leaves under its checkpoint, and those that wait for the next one.
    pub size: u64,
    pub staged: u64,
    /// Leaves whose records were erased.
    pub erased: u64,
    /// The root of the tree that its leaves make, where all are there.
    pub root: Option<Digest>,
}

/// What the log of evidence says that other tables have to agree with.
#[derive(Debug, Default)]
struct Heard {
    /// The policy set that was activated last.
    policy: Option<String>,
    /// What was erased by an administrator's act, as its subject has it.
    erased: BTreeSet<String>,
}

/// Verifies everything.
///
/// `folder` is where the guard files are.
///
/// # Errors
/// The database or a guard file can't be read.
pub async fn verify(
    snapshot: &mut Snapshot,
    domain: &Domain,
    (gateway, folder): (&SigningKey, &Path),
    now: OffsetDateTime,
) -> Result<Report, LogError> {
    let mut report = Report::default();
    let mut heard = Heard::default();
    for kind in [LogKind::Evidence, LogKind::Keys] {
        let head = Guard::read(&guard_file(folder, kind))?;
        let logs = snapshot.logs(kind).await?;
        guard::examine(kind, &logs, head.as_ref(), (domain, gateway), &mut report.faults);
    }
    let evidence = snapshot.logs(LogKind::Evidence).await?;
    // The act by which a record was erased may stand in a later log.
    let mut all_erased = Vec::new();
    for head in &evidence {
        let key = log_key(domain, LogKind::Evidence, head.number, gateway)?;
        let mut walk = Walk::new(head, &key);
        let mut erased = Vec::new();
        while let Some((row, signed)) = walk.next(snapshot, &mut report.faults).await? {
            let place = walk.place(row.index());
            if row.salt.is_none() && row.record.is_none() {
                erased.push(row.index());
            }
            let Some(said) = leaf::examine(&row, signed, &place, &mut report.faults) else { continue };
            match said.event {
                Event::Act(act) if act.act == "load_policy" => heard.policy = Some(act.subject),
                Event::Act(act) if act.act == super::ERASE => _ = heard.erased.insert(act.subject),
                Event::Accepted(accepted) => {
                    let is_recent = said.at.is_some_and(|at| at + REPLAY_MEMORY > now);
                    if is_recent && !snapshot.remembers(&accepted.sender, &accepted.message_id).await? {
                        let found = "it accepted a message that is not there, and can't have been forgotten yet: the message \
                                     was removed";
                        report.faults.add("leaf_without_message", place, found, CHANGED);
                    }
                }
                _ => {}
            }
        }
        let named = |index: &u64| (super::subject(&walk.origin, *index), walk.place(*index));
        all_erased.extend(erased.iter().map(named));
        report.logs.push(walk.end(snapshot, erased.len() as u64, &mut report.faults).await?);
    }
    for (subject, place) in all_erased {
        if !heard.erased.contains(&subject) {
            let found =
                "its record was erased, and no administrator's act tells of that: it was erased by hand";
            report.faults.add("erased_by_hand", place, found, CHANGED);
        }
    }
    verify_keys(snapshot, domain, gateway, &mut report).await?;
    verify_messages(snapshot, domain, gateway, &evidence, &mut report).await?;
    verify_policy(snapshot, heard.policy.as_deref(), &mut report.faults).await?;
    Ok(report)
}

async fn verify_keys(
    snapshot: &mut Snapshot,
    domain: &Domain,
    gateway: &SigningKey,
    report: &mut Report,
) -> Result<(), LogError> {
    let mut chains = keys::Chains::new(domain);
    for head in snapshot.logs(LogKind::Keys).await? {
        let key = log_key(domain, LogKind::Keys, head.number, gateway)?;
        let mut walk = Walk::new(&head, &key);
        chains = keys::Chains::new(domain);
        while let Some((row, _)) = walk.next(snapshot, &mut report.faults).await? {
            chains.take(&row, head.number == 1, &walk.place(row.index()), &mut report.faults);
        }
        report.logs.push(walk.end(snapshot, 0, &mut report.faults).await?);
    }
    let mut after = (String::new(), i64::MIN);
    loop {
        let page = snapshot.key_records((&after.0, after.1), limits::LOG_PAGE).await?;
        let Some(last) = page.last() else { break };
        after = (last.agency.clone(), last.sequence);
        report.keys += page.len() as u64;
        page.iter().for_each(|row| chains.compare(row, &mut report.faults));
    }
    chains.end(report.keys, &mut report.faults);
    Ok(())
}

async fn verify_messages(
    snapshot: &mut Snapshot,
    domain: &Domain,
    gateway: &SigningKey,
    logs: &[LogHead],
    report: &mut Report,
) -> Result<(), LogError> {
    let public = gateway.public();
    let mut after = i64::MIN;
    loop {
        let page = snapshot.messages(after, limits::LOG_PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.seq;
        report.messages += page.len() as u64;
        for row in &page {
            let mut leaves = Vec::new();
            for head in logs {
                leaves.extend(snapshot.leaves_about(head.log, &row.id).await?);
            }
            message::examine(row, &leaves, (domain, &public), &mut report.faults);
        }
    }
}

/// Whether the active policy set is the one that was activated last.
async fn verify_policy(
    snapshot: &mut Snapshot,
    logged: Option<&str>,
    faults: &mut Faults,
) -> Result<(), LogError> {
    const PLACE: &str = "active policy set";
    const LOAD: &str = "load the set that is to be active with `liaison-gateway policy load`, and find out who had access \
                        to the database";
    let Some((hash, files)) = snapshot.active_policy().await? else {
        faults.add("changed_policy", PLACE, "there is none", LOAD);
        return Ok(());
    };
    let set = LoadPolicyRequest::decode(files.as_slice()).ok().and_then(|request| {
        let files: Vec<_> = request.files.into_iter().map(PolicyFile::from).collect();
        PolicySet::load(&files).ok()
    });
    let Some(set) = set else {
        faults.add(
            "changed_policy",
            PLACE,
            "its files can't be read, or are no sound set in this version",
            LOAD,
        );
        return Ok(());
    };
    if hash != set.hash().as_ref() {
        let found =
            format!("its files have the hash {}, and it stands there as {}", set.hash(), hex::encode(&hash));
        faults.add("changed_policy", PLACE, found, LOAD);
    } else if let Some(logged) = logged.filter(|logged| **logged != *set.hash().to_string()) {
        let found =
            format!("{} is active, and {logged} is the one that an administrator activated last", set.hash());
        faults.add("changed_policy", PLACE, found, LOAD);
    }
    Ok(())
}
