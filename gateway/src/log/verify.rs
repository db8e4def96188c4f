//! Whether the logs are what was signed, and whether what the gateway works with is what they say: all that can be told
//! offline from the database and the gateway's key. Here it is read; whether it is sound, the functions below judge.

mod acts;
mod copies;
mod fault;
mod guard;
mod head;
mod keys;
mod leaf;
mod message;
mod opened;
mod threads;
mod told;
mod tree;
mod walk;

use std::path::Path;

use liaison_proto::{
    admin::v1::LoadPolicyRequest,
    limits::REPLAY_MEMORY,
    log::v1::{Accepted, record::Event},
};
use liaison_trust::{digest::Digest, keys::SigningKey, names::Domain};
use prost::Message;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Guard, LogError, guard_file, log_key};
use crate::{
    data::DataFolder,
    limits,
    policy::{PolicyFile, PolicySet},
    revoked::Revocations,
    store::{LeafRow, LogHead, LogKind, Snapshot, Stager},
};
use acts::Acts;
use copies::Kept;
use fault::CHANGED;
use leaf::Said;
use told::Told;
use walk::Walk;

pub use fault::{Fault, Faults};
pub use head::{examine_head, examine_staged};
pub use opened::examine_begun;
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

/// Where everything is looked at: whose logs these are, and of when.
struct Place<'a> {
    domain: &'a Domain,
    gateway: &'a SigningKey,
    stager: Stager,
    now: OffsetDateTime,
}

/// Verifies everything.
///
/// `folder` is where the guard files and the file of revocations are.
///
/// # Errors
/// The database or one of the files can't be read.
pub async fn verify(
    snapshot: &mut Snapshot,
    domain: &Domain,
    (gateway, folder): (&SigningKey, &Path),
    now: OffsetDateTime,
) -> Result<Report, LogError> {
    let mut report = Report::default();
    for kind in [LogKind::Evidence, LogKind::Keys] {
        let head = Guard::read(&guard_file(folder, kind))?;
        let logs = snapshot.logs(kind).await?;
        let whose = (domain, gateway);
        guard::examine(snapshot, kind, &logs, head.as_ref(), whose, &mut report.faults).await?;
    }
    let place = Place { domain, gateway, stager: Stager::new(gateway), now };
    let evidence = snapshot.logs(LogKind::Evidence).await?;
    let acts = verify_evidence(snapshot, &place, &evidence, &mut report).await?;
    verify_keys(snapshot, &place, &mut report).await?;
    verify_messages(snapshot, &place, &evidence, &mut report).await?;
    verify_threads(snapshot, &mut report.faults).await?;
    acts.audit(&snapshot.audit().await?, &mut report.faults);
    let revocations = Revocations::read_file(&DataFolder::new(folder.to_owned()).revoked())?;
    let (agencies, ended) = (snapshot.agencies().await?, snapshot.revoked_agencies().await?);
    acts.agencies(&agencies, &ended, &revocations, &mut report.faults);
    acts.peers(&snapshot.peers().await?, &mut report.faults);
    acts.policies(&snapshot.policies().await?, &mut report.faults);
    verify_policy(snapshot, acts.active.as_deref(), &mut report.faults).await?;
    Ok(report)
}

/// Looks at the logs of evidence, leaf by leaf; what administrators did, as they tell it.
async fn verify_evidence(
    snapshot: &mut Snapshot,
    place: &Place<'_>,
    logs: &[LogHead],
    report: &mut Report,
) -> Result<Acts, LogError> {
    let mut acts = Acts::default();
    // The act by which a record was erased may stand in a later log.
    let mut all_erased = Vec::new();
    for head in logs {
        let key = log_key(place.domain, LogKind::Evidence, head.number, place.gateway)?;
        let mut walk = Walk::new(head, &key, &place.stager);
        let mut erased = Vec::new();
        while let Some((row, signed)) = walk.next(snapshot, &mut report.faults).await? {
            let at = walk.place(row.index());
            if row.salt.is_none() && row.record.is_none() {
                erased.push(row.index());
            }
            let before = report.faults.count;
            let said = leaf::examine(&row, signed, &at, &mut report.faults);
            if report.faults.count == before {
                walk.examine_code(&row, signed, &mut report.faults);
            }
            let Some(Said { at: when, event }) = said else { continue };
            if (row.index() == 0 && head.number > 1) != matches!(event, Event::Opened(_)) {
                let found = "the first leaf of a log that takes the place of another, and no other, names the one before";
                report.faults.add("wrong_previous", &at, found, CHANGED);
            }
            match event {
                Event::Act(act) => acts.take(act, when),
                Event::Accepted(accepted) => {
                    let is_recent = when.is_some_and(|at| at + REPLAY_MEMORY > place.now);
                    verify_acceptance(snapshot, logs, (&accepted, is_recent), &at, &mut report.faults)
                        .await?;
                }
                Event::Opened(opened) => {
                    let whose = (place.domain, place.gateway);
                    let faults = &mut report.faults;
                    opened::examine(snapshot, (head, logs), &opened.previous, whose, &at, faults).await?;
                }
                _ => {}
            }
        }
        examine_begun(snapshot, logs, head, &walk.origin, &mut report.faults).await?;
        let named = |index: &u64| (super::subject(&walk.origin, *index), walk.place(*index));
        all_erased.extend(erased.iter().map(named));
        report.logs.push(walk.end(snapshot, erased.len() as u64, &mut report.faults).await?);
    }
    for (subject, place) in all_erased {
        if !acts.erased.contains(&subject) {
            let found =
                "its record was erased, and no administrator's act tells of that: it was erased by hand";
            report.faults.add("erased_by_hand", place, found, CHANGED);
        }
    }
    Ok(acts)
}

/// Whether what an acceptance made is there: its message, until that can be forgotten, and the thread that it opened.
async fn verify_acceptance(
    snapshot: &mut Snapshot,
    logs: &[LogHead],
    (accepted, is_recent): (&Accepted, bool),
    place: &str,
    faults: &mut Faults,
) -> Result<(), LogError> {
    let Accepted { sender, message_id, thread, .. } = accepted;
    if !snapshot.remembers(sender, message_id).await? {
        let leaves = leaves_about(snapshot, logs, message_id).await?;
        if is_recent || Told::of(sender, &leaves).open().next().is_some() {
            let found = "it accepted a message that is not there, and can't have been forgotten yet: the message was removed";
            faults.add("leaf_without_message", place, found, CHANGED);
        }
    }
    if threads::opened(accepted).is_some() && !snapshot.has_thread(thread).await? {
        let found =
            "it accepted a referral whose thread is not there: nobody could say any more how it stands";
        faults.add("thread_removed", place, found, CHANGED);
    }
    Ok(())
}

async fn leaves_about(
    snapshot: &mut Snapshot,
    logs: &[LogHead],
    message: &[u8],
) -> Result<Vec<LeafRow>, LogError> {
    let mut leaves = Vec::new();
    for head in logs {
        leaves.extend(snapshot.leaves_about(head.log, message).await?);
    }
    Ok(leaves)
}

async fn verify_keys(
    snapshot: &mut Snapshot,
    place: &Place<'_>,
    report: &mut Report,
) -> Result<(), LogError> {
    let mut chains = keys::Chains::new(place.domain);
    let logs = snapshot.logs(LogKind::Keys).await?;
    for head in &logs {
        let key = log_key(place.domain, LogKind::Keys, head.number, place.gateway)?;
        let mut walk = Walk::new(head, &key, &place.stager);
        chains = keys::Chains::new(place.domain);
        while let Some((row, signed)) = walk.next(snapshot, &mut report.faults).await? {
            walk.examine_code(&row, signed, &mut report.faults);
            chains.take(&row, head.number == 1, &walk.place(row.index()), &mut report.faults);
        }
        examine_begun(snapshot, &logs, head, &walk.origin, &mut report.faults).await?;
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
    let mut after = String::new();
    loop {
        let page = snapshot.peer_agencies(&after, limits::SWEEP_PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after.clone_from(last);
        page.iter().for_each(|(address, agency)| chains.compare_foreign(address, agency, &mut report.faults));
    }
}

async fn verify_messages(
    snapshot: &mut Snapshot,
    place: &Place<'_>,
    logs: &[LogHead],
    report: &mut Report,
) -> Result<(), LogError> {
    let whose = (place.domain, &place.gateway.public());
    let mut after = i64::MIN;
    loop {
        let page = snapshot.messages(after, limits::LOG_PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        report.messages += page.len() as u64;
        for row in &page {
            let at = format!("message {} of {}", id(&row.id), row.sender);
            let told = Told::of(&row.sender, &leaves_about(snapshot, logs, &row.id).await?);
            message::examine(row, &at, &told, whose, &mut report.faults);
            let mut kept = Kept { copies: snapshot.copies(row.seq).await?, content: None };
            if !kept.copies.is_empty() {
                kept.content = snapshot.content(row.seq).await?;
            }
            if !told.accepted.is_empty() || told.lacks_decisions {
                copies::examine(row, &at, &told, &kept, whose, &mut report.faults);
            }
        }
    }
    for recipient in snapshot.orphans().await? {
        let found =
            "it is of no message that is remembered: the message was removed, or the copy put in by hand";
        report.faults.add("copy_without_message", format!("copy for {recipient}"), found, CHANGED);
    }
    Ok(())
}

async fn verify_threads(snapshot: &mut Snapshot, faults: &mut Faults) -> Result<(), LogError> {
    let mut after = Vec::new();
    loop {
        let page = snapshot.threads(&after, limits::LOG_PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after.clone_from(&last.thread);
        for row in &page {
            let leaves = snapshot.leaves_of_thread(&row.thread).await?;
            threads::examine(row, &leaves, faults);
        }
    }
}

/// An id as caseworkers see it.
fn id(bytes: &[u8]) -> String {
    Uuid::from_slice(bytes).map_or_else(|_| hex::encode(bytes), |id| id.to_string())
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
