//! Verifying what the gateway of another domain forwards: the sender's message as far as that gateway
//! released it, with the record of what it released.

use std::collections::BTreeSet;

use liaison_proto::{
    federation::v1::{Forward, ForwardedRecipient},
    limits::{RECIPIENTS, SECTIONS_BYTES},
    message::v1::{ReleaseRecord, SignedReleaseRecord},
};
use time::OffsetDateTime;

use super::{
    EnvelopeError, Verified, VerifiedRecipient, derive,
    head::{self, Head},
    receive, rules,
    verify::{self, WRAPPED_KEY},
};
use crate::{
    digest::{Digest, sha256},
    kem,
    key_record::{self, ProvenKey},
    keys::VerifyingKey,
    names::AgencyAddress,
    statement::{self, StatementError},
};

/// A forwarded message that is what its sender signed and its gateway released.
#[derive(Debug, Clone)]
pub struct VerifiedForward {
    /// The message with the recipients and the sections that were forwarded.
    pub message: Verified,
    /// What the sender's gateway released to each recipient, in the order of the recipients.
    pub releases: Vec<ReleaseRecord>,
}

/// Verifies what the gateway of the sender's domain, whose key is `gateway`, forwards. `known` gives a key
/// record that was proven before, by its id.
///
/// # Errors
/// What is wrong with it; [`EnvelopeError::NotAsReleased`] where it holds less or more than the sender's
/// gateway says that it released.
pub fn verify_forward<'k>(
    forward: Forward,
    gateway: &VerifyingKey,
    now: OffsetDateTime,
    known: impl FnOnce(&Digest) -> Option<&'k ProvenKey>,
) -> Result<VerifiedForward, EnvelopeError> {
    check_size(&forward)?;
    let head = Head::read(&forward.manifest)?;
    let sender_key_record = forward.sender_key.ok_or(EnvelopeError::Missing("sender_key"))?;
    let sender_key = match known(&sha256(&sender_key_record.record)) {
        Some(key) if key.signed == sender_key_record => key.clone(),
        _ => key_record::prove(&sender_key_record)?,
    };
    head.check_sender(&sender_key, &forward.manifest, &forward.signature)?;
    head.check_times(now)?;

    let facts = verify::facts(&head, &forward.facts, &forward.facts_salt, forward.facts_position)?;
    let sections = verify::sections(&head, forward.sections)?;
    rules::check(&head.manifest, sections.iter().map(|section| section.category))?;
    rules::check_whole(head.manifest.kind(), forward.recipients.len(), facts.is_some())?;
    let held: BTreeSet<u32> = sections.iter().map(|section| section.section.position).collect();
    let mut named = BTreeSet::new();
    let mut verified = Vec::with_capacity(forward.recipients.len());
    let mut releases = Vec::with_capacity(forward.recipients.len());
    let mut released = BTreeSet::new();
    for entry in forward.recipients {
        let (recipient, release) = recipient(&head, entry, gateway)?;
        if !named.insert(recipient.address.clone()) {
            return Err(EnvelopeError::Recipients("one is named twice"));
        }
        released.extend(release.released.iter().map(|section| section.position));
        verified.push(recipient);
        releases.push(release);
    }
    if released != held {
        return Err(EnvelopeError::NotAsReleased("its sections are others than those released"));
    }
    let message = Verified {
        id: head.id,
        thread: head.thread,
        sender: head.sender,
        digest: head.digest,
        sender_key,
        facts,
        facts_bytes: forward.facts,
        facts_salt: forward.facts_salt,
        facts_position: forward.facts_position,
        created: head.created,
        expires: head.expires,
        recipients: verified,
        sections,
        manifest: head.manifest,
        manifest_bytes: forward.manifest,
        signature: forward.signature,
        sender_key_record,
    };
    Ok(VerifiedForward { message, releases })
}

fn check_size(forward: &Forward) -> Result<(), EnvelopeError> {
    let sections: usize = forward.sections.iter().map(|section| section.ciphertext.len()).sum();
    if sections > SECTIONS_BYTES {
        return Err(EnvelopeError::TooLarge { what: "the sections (bytes)", limit: SECTIONS_BYTES });
    }
    if forward.recipients.len() > RECIPIENTS {
        return Err(EnvelopeError::TooLarge { what: "the list of recipients", limit: RECIPIENTS });
    }
    Ok(())
}

/// Checks one entry under the signed root, and that it is as the sender's gateway released it.
fn recipient(
    head: &Head,
    entry: ForwardedRecipient,
    gateway: &VerifyingKey,
) -> Result<(VerifiedRecipient, ReleaseRecord), EnvelopeError> {
    let proof = entry.proof.ok_or(EnvelopeError::Missing("proof of a recipient"))?;
    let bases = entry.bases.ok_or(EnvelopeError::Missing("bases of a recipient"))?;
    let address: AgencyAddress =
        proof.address.parse().map_err(|_| EnvelopeError::Malformed("address of a recipient"))?;
    if address == head.sender {
        return Err(EnvelopeError::ToOneself(address));
    }
    let wrong = |what| EnvelopeError::Recipient { recipient: address.clone(), what };
    if proof.salt.len() != 32 || bases.salt.len() != 32 {
        return Err(wrong("salt"));
    }
    let grounds = verify::bases(&address, &bases.bases)?;
    let digest =
        derive::bases_digest(&bases.salt, grounds.iter().map(|(category, basis)| (*category, *basis)));
    if digest != head::digest(&proof.bases_digest, "bases_digest")? {
        return Err(wrong("bases other than those signed"));
    }
    let key_id = receive::check_entry(head, &proof, &address, &digest)?;

    let release = release(head, &address, &entry.release.unwrap_or_default(), gateway)?;
    let released: BTreeSet<u32> = release.released.iter().map(|section| section.position).collect();
    let wrapped: BTreeSet<u32> = proof.wrapped_keys.iter().map(|wrapped| wrapped.position).collect();
    if released.len() != release.released.len() || wrapped.len() != proof.wrapped_keys.len() {
        return Err(EnvelopeError::NotAsReleased("a position stands twice"));
    }
    if released != wrapped {
        return Err(EnvelopeError::NotAsReleased("its keys are others than those released"));
    }
    if proof.wrapped_keys.iter().any(|wrapped| wrapped.sealed_key.len() != WRAPPED_KEY) {
        return Err(wrong("a wrapped key's length"));
    }
    let encapsulation = proof.encapsulation.len();
    let fits =
        if wrapped.is_empty() { encapsulation == 0 } else { kem::is_encapsulation_length(encapsulation) };
    if !fits {
        return Err(wrong("encapsulation"));
    }
    Ok((VerifiedRecipient { address, key_id, bases: grounds, bases_salt: bases.salt, proof }, release))
}

/// Reads the record of what the sender's gateway released to a recipient of this message.
fn release(
    head: &Head,
    recipient: &AgencyAddress,
    signed: &SignedReleaseRecord,
    gateway: &VerifyingKey,
) -> Result<ReleaseRecord, EnvelopeError> {
    let release: ReleaseRecord = statement::read(signed, gateway).map_err(|error| match error {
        StatementError::BadSignature(_) => EnvelopeError::ReleaseSignature,
        StatementError::Strict(error) => error.into(),
    })?;
    let is_about_it = release.message_id == head.id.as_bytes().as_slice()
        && release.manifest_digest == head.digest.as_ref()
        && release.recipient == recipient.to_string();
    if is_about_it {
        Ok(release)
    } else {
        Err(EnvelopeError::NotAsReleased("the record is about another copy"))
    }
}
