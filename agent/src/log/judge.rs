//! What an agent believes of its domain's log: plain functions, from what is shown to a head and receipts, or an alarm.

use std::{cmp::Ordering, collections::BTreeMap};

use liaison_proto::{
    case::v1::log_alarm::Code as Kind,
    exchange::v1::{Continuation, ListReceiptsResponse, Receipt as Shown, Signer as ShownSigner},
    limits::HEAD_BYTES,
    log::v1::{Outcome, outcome},
    message::v1::{Acceptance, Acknowledgement, SignedAcknowledgement, SignedKeyRecord},
    strict,
};
use liaison_trust::{
    digest::{Digest, sha256},
    keys::VerifyingKey,
    log::{
        Checkpoint, LogKey, Note, Receipt, SaltedRecord, Signer, log_number, verify_consistency,
        verify_inclusion,
    },
    names::{AgencyAddress, Domain},
};

use super::told::{Told, same_decision};

/// The kind of the log of what happened, in its origin.
pub(super) const EVIDENCE: &str = "log";
/// The kind of the log of key records, in its origin.
pub(super) const KEYS: &str = "keys";

/// A head that the log's key signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub checkpoint: Checkpoint,
    /// As it was shown, with every signature.
    pub note: Note,
    /// With the log's own signatures alone.
    pub bare: Note,
    /// Of the log: one that takes the place of another has a higher one.
    pub(super) number: u32,
}

/// Something that an honest log does not do, with its evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    pub kind: Kind,
    /// What it is told once for.
    pub subject: String,
    pub detail: String,
    /// What this agent holds, and what it was shown: signed notes, or what claims to be.
    pub held: String,
    pub shown: String,
}

/// What this agent knows of a message beside the log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    pub digest: Option<Digest>,
    /// What the gateway signed, of a message that was sent.
    pub acceptance: Option<Acceptance>,
    /// What the gateway passed on as the word of the recipient whose copy a record is about.
    pub acknowledgement: Option<SignedAcknowledgement>,
}

/// Reads a head of a domain's log of a kind, signed by its key.
///
/// # Errors
/// It is none; what is wrong with it.
pub(super) fn head(kind: &str, domain: &Domain, key: &VerifyingKey, note: &str) -> Result<Head, String> {
    if note.len() > HEAD_BYTES {
        return Err(format!("it has more than {HEAD_BYTES} bytes"));
    }
    let note = Note::parse(note.as_bytes()).map_err(|error| error.to_string())?;
    let origin = note.text().lines().next().unwrap_or_default();
    let number = log_number(origin).filter(|(of, _)| *of == format!("{domain}/{kind}"));
    let (_, number) = number.ok_or_else(|| format!("it is not of a log of {domain}"))?;
    let key = LogKey::new(origin.parse().map_err(|_| "its log has no name".to_owned())?, *key);
    let checkpoint = key.open(&note).map_err(|error| error.to_string())?;
    let bare = key.bare(note.clone()).map_err(|error| error.to_string())?;
    Ok(Head { checkpoint, note, bare, number })
}

/// The newest head of an answer, if the gateway's log goes on from what this agent holds, or is a later one; none while it
/// has none. What a later one says of the one before is not judged here.
///
/// # Errors
/// Nothing of the answer counts.
pub(super) fn newest(
    domain: &Domain,
    key: &VerifyingKey,
    held: Option<&Head>,
    answer: &ListReceiptsResponse,
) -> Result<Option<Head>, Alarm> {
    if answer.head.is_empty() {
        return match held {
            None => Ok(None),
            Some(held) => Err(inconsistent(held, String::new(), "the gateway's log is empty".to_owned())),
        };
    }
    let newest = head(EVIDENCE, domain, key, &answer.head)
        .map_err(|why| not_signed(domain, held, &answer.head, &why))?;
    let Some(held) = held.filter(|held| newest.number <= held.number) else { return Ok(Some(newest)) };
    match goes_on(held, &newest, answer.continuations.first()) {
        Ok(()) => Ok(Some(newest)),
        Err(why) => Err(inconsistent(held, newest.bare.to_string(), why)),
    }
}

/// The head that the receipts of an answer stand under, where a log was asked for by its number; the last one that the
/// gateway holds of it.
///
/// # Errors
/// Nothing of the answer counts.
pub(super) fn earlier(
    domain: &Domain,
    key: &VerifyingKey,
    held: Option<&Head>,
    number: u32,
    answer: &ListReceiptsResponse,
) -> Result<Head, Alarm> {
    let shown = &answer.earlier_head;
    let read = head(EVIDENCE, domain, key, shown).and_then(|head| match head.number == number {
        true => Ok(head),
        false => Err(format!("it is not of the log {number}, which was asked for")),
    });
    let read = read.map_err(|why| not_signed(domain, held, shown, &why))?;
    // What is held of the same log may be higher: what lies between was lost.
    match held.filter(|held| held.number == number && held.checkpoint.size() == read.checkpoint.size()) {
        Some(held) if held.checkpoint.root() != read.checkpoint.root() => {
            let why = "it has another head of the same size".to_owned();
            Err(inconsistent(held, read.bare.to_string(), why))
        }
        _ => Ok(read),
    }
}

fn not_signed(domain: &Domain, held: Option<&Head>, shown: &str, why: &str) -> Alarm {
    Alarm {
        kind: Kind::WrongKey,
        subject: domain.to_string(),
        detail: format!("the gateway shows a head that the log's key known here did not sign: {why}"),
        held: held.map(|held| held.bare.to_string()).unwrap_or_default(),
        shown: shown.to_owned(),
    }
}

/// Compares a head that an agency holds with the newest one.
///
/// # Errors
/// They are of two histories. A head of an earlier log can't be compared here.
pub(super) fn compare(
    agency: &AgencyAddress,
    shown: &Head,
    newest: &Head,
    continuation: Option<&Continuation>,
) -> Result<(), Alarm> {
    let goes_on = match shown.number.cmp(&newest.number) {
        Ordering::Less => Ok(()),
        Ordering::Equal => goes_on(shown, newest, continuation),
        // The gateway signed that before it gave this one.
        Ordering::Greater => Err(format!("it is older than {}", shown.checkpoint.origin())),
    };
    goes_on.map_err(|why| {
        let alarm = inconsistent(newest, shown.bare.to_string(), why);
        Alarm {
            subject: shown.bare.to_string(),
            detail: format!("what {agency} holds and what is shown here: {}", alarm.detail),
            ..alarm
        }
    })
}

fn goes_on(old: &Head, new: &Head, continuation: Option<&Continuation>) -> Result<(), String> {
    let (old, new) = (&old.checkpoint, &new.checkpoint);
    let Some(continuation) = continuation.filter(|_| old.origin() == new.origin()) else {
        return Err("the gateway gave no proof".to_owned());
    };
    if let Some(refusal) = &continuation.refusal {
        return Err(format!("the gateway refuses the proof: {}", refusal.message));
    }
    let proof: Result<Vec<Digest>, _> =
        continuation.hashes.iter().map(|hash| Digest::try_from(hash.as_ref())).collect();
    let proof = proof.map_err(|_| "the gateway's proof is none".to_owned())?;
    verify_consistency(old.size(), &old.root(), new.size(), &new.root(), &proof)
        .map(drop)
        .map_err(|error| error.to_string())
}

fn inconsistent(held: &Head, shown: String, why: String) -> Alarm {
    let (origin, size) = (held.checkpoint.origin(), held.checkpoint.size());
    Alarm {
        kind: Kind::Inconsistent,
        subject: held.bare.to_string(),
        detail: format!("the log does not go on from {origin} with {size} leaves: {why}"),
        held: held.bare.to_string(),
        shown,
    }
}

/// The keys that an answer gives for those who verify its acknowledgements, by their ids.
pub(super) fn signers(answer: &ListReceiptsResponse) -> BTreeMap<Digest, Signer> {
    let Ok(checkpoint) = Note::parse(answer.keys_head.as_bytes()) else { return BTreeMap::new() };
    let signer = |shown: &ShownSigner| {
        let key: SignedKeyRecord = strict::decode(&shown.key).ok()?;
        let proof = shown.proof.iter().map(|hash| Digest::try_from(hash.as_ref()).ok());
        let proof = proof.collect::<Option<_>>()?;
        let (index, checkpoint) = (shown.index, checkpoint.clone());
        Some((sha256(&key.record), Signer { key: shown.key.to_vec(), index, proof, checkpoint }))
    };
    answer.signers.iter().filter_map(signer).collect()
}

/// A receipt under a head, which was verified as it was read, with what its record tells; that of an acknowledgement with
/// the key that signed it, if it is among these.
///
/// # Errors
/// It shows nothing.
pub(super) fn receipt(
    key: &VerifyingKey,
    head: &Head,
    shown: &Shown,
    signers: &BTreeMap<Digest, Signer>,
) -> Result<(Receipt, Told), String> {
    let salt = shown.salt.as_ref().try_into().map_err(|_| "its salt is not 32 bytes".to_owned())?;
    let record = SaltedRecord::from_parts(salt, shown.record.to_vec()).map_err(|error| error.to_string())?;
    let proof: Result<Vec<Digest>, _> =
        shown.proof.iter().map(|hash| Digest::try_from(hash.as_ref())).collect();
    let proof = proof.map_err(|_| "its proof is none".to_owned())?;
    let checkpoint = head.note.clone();
    let mut receipt = Receipt { record, index: shown.index, proof, checkpoint, signer: None };
    let leaf = receipt.record.entry().leaf_hash();
    let (size, root) = (head.checkpoint.size(), head.checkpoint.root());
    verify_inclusion(&leaf, receipt.index, size, &receipt.proof, &root).map_err(|error| error.to_string())?;
    let told = Told::read(receipt.record.record()).map_err(|error| error.to_string())?;
    if let Some(outcome) = &told.acknowledged {
        receipt.signer = acknowledged_by(outcome).and_then(|id| signers.get(&id).cloned());
        let name = head.checkpoint.origin().parse().map_err(|_| "its log has no name".to_owned())?;
        let log = LogKey::new(name, *key);
        let signer = receipt.signer.as_ref().map(|signer| signer.verify(&log, outcome));
        signer.transpose().map_err(|error| error.to_string())?;
    }
    Ok((receipt, told))
}

/// The id of the key by which an acknowledgement says that it is signed.
fn acknowledged_by(outcome: &Outcome) -> Option<Digest> {
    let Some(outcome::Event::Acknowledged(signed)) = &outcome.event else { return None };
    let read: Acknowledgement = strict::decode(&signed.acknowledgement).ok()?;
    Digest::try_from(read.key_id.as_ref()).ok()
}

/// Compares a record with what this agent knows otherwise.
///
/// # Errors
/// What differs.
pub(super) fn same(told: &Told, known: &Known) -> Result<(), &'static str> {
    if known.digest.is_none_or(|digest| digest.as_bytes().as_slice() != told.digest) {
        return Err("it is about another message of the same id");
    }
    if let (Some(logged), Some(signed)) = (&told.accepted, &known.acceptance) {
        let same = logged.policy_hash == signed.policy_hash.as_ref()
            && logged.scheme_hash == signed.scheme_hash.as_ref()
            && logged.decisions.len() == signed.decisions.len()
            && logged
                .decisions
                .iter()
                .zip(&signed.decisions)
                .all(|(logged, signed)| same_decision(logged, signed));
        if !same {
            return Err("its decisions are not those of the signed acceptance");
        }
    }
    if let (Some(logged), Some(told)) = (&told.acknowledged, &known.acknowledgement)
        && logged.event != Some(outcome::Event::Acknowledged(told.clone()))
    {
        return Err("its acknowledgement is not the one that was passed on");
    }
    Ok(())
}
