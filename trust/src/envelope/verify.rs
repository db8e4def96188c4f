//! Verifying a submission: everything that a gateway can check without a directory or a store.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use liaison_proto::{
    message::v1::{
        CategoryBasis, Envelope, Facts, Manifest, RecipientEntry, RecipientProof, SealedSection,
        SignedKeyRecord, basis::Code as Basis, data_category::Code as Category,
    },
    strict::{self, StrictError},
};
use prost::Name;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    EnvelopeError, derive,
    head::{self, Head},
    rules, seal,
    tree::{self, Tree},
};
use crate::{
    digest::{Digest, sha256},
    kem,
    key_record::{self, ProvenKey},
    names::AgencyAddress,
};

/// Length of a wrapped key, bytes.
pub(super) const WRAPPED_KEY: usize = 48;

/// A submission that is what its sender signed. Of its sender it is known that it holds the key; that
/// the key is the agency's, and the recipients' keys theirs, is for the directory to say.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The manifest, read strictly.
    pub manifest: Manifest,
    /// The message id.
    pub id: Uuid,
    /// The thread that the message belongs to.
    pub thread: Uuid,
    /// Whose message it is.
    pub sender: AgencyAddress,
    /// SHA-256 digest of the manifest's bytes.
    pub digest: Digest,
    /// The key that signed it.
    pub sender_key: ProvenKey,
    /// None for a state or an onward message.
    pub facts: Option<Facts>,
    /// The facts as they were signed, with their salt and position: what another domain's gateway needs.
    pub facts_bytes: Bytes,
    pub facts_salt: Bytes,
    pub facts_position: u32,
    /// When it was made.
    pub created: OffsetDateTime,
    /// When it ends.
    pub expires: OffsetDateTime,
    /// In the order of the submission.
    pub recipients: Vec<VerifiedRecipient>,
    /// In the order of the submission.
    pub sections: Vec<VerifiedSection>,
    /// The manifest as it was signed.
    pub manifest_bytes: Bytes,
    /// The sender's, over the manifest.
    pub signature: Bytes,
    /// As it goes into every copy.
    pub sender_key_record: SignedKeyRecord,
}

/// A recipient that the sender named.
#[derive(Debug, Clone)]
pub struct VerifiedRecipient {
    /// Who it is.
    pub address: AgencyAddress,
    /// Id of the key record that the message is sealed to.
    pub key_id: Digest,
    /// The categories that the recipient may have, each with its basis.
    pub bases: BTreeMap<Category, Basis>,
    /// Salt of the bases' digest: what another domain's gateway needs to check them.
    pub bases_salt: Bytes,
    /// What the recipient gets of its entry, with all of its wrapped keys.
    pub proof: RecipientProof,
}

/// A section that the sender signed.
#[derive(Debug, Clone)]
pub struct VerifiedSection {
    /// What its header says.
    pub category: Category,
    /// As it goes into a copy.
    pub section: SealedSection,
}

/// Verifies a submission.
///
/// # Errors
/// What is wrong with it.
pub fn verify(envelope: Envelope, now: OffsetDateTime) -> Result<Verified, EnvelopeError> {
    verify_known(envelope, now, |_| None)
}

/// [`verify`], where `known` gives a key record that was proven before, by its id: this saves one of
/// two signature verifications.
///
/// # Errors
/// What is wrong with it.
pub fn verify_known<'k>(
    envelope: Envelope,
    now: OffsetDateTime,
    known: impl FnOnce(&Digest) -> Option<&'k ProvenKey>,
) -> Result<Verified, EnvelopeError> {
    seal::check_size(&envelope)?;
    let head = Head::read(&envelope.manifest)?;
    let sender_key_record = envelope.sender_key.ok_or(EnvelopeError::Missing("sender_key"))?;
    let sender_key = match known(&sha256(&sender_key_record.record)) {
        Some(key) if key.signed == sender_key_record => key.clone(),
        _ => key_record::prove(&sender_key_record)?,
    };
    head.check_sender(&sender_key, &envelope.manifest, &envelope.signature)?;
    head.check_times(now)?;

    let facts = facts(&head, &envelope.facts, &envelope.facts_salt, envelope.facts_position)?;
    let sections = sections(&head, envelope.sections)?;
    rules::check(&head.manifest, sections.iter().map(|section| section.category))?;
    rules::check_whole(head.manifest.kind(), envelope.recipients.len(), facts.is_some())?;
    let recipients = recipients(&head, envelope.recipients, &envelope.tree_seed, &sections)?;
    Ok(Verified {
        id: head.id,
        thread: head.thread,
        sender: head.sender,
        digest: head.digest,
        sender_key,
        facts,
        facts_bytes: envelope.facts,
        facts_salt: envelope.facts_salt,
        facts_position: envelope.facts_position,
        created: head.created,
        expires: head.expires,
        recipients,
        sections,
        manifest: head.manifest,
        manifest_bytes: envelope.manifest,
        signature: envelope.signature,
        sender_key_record,
    })
}

/// Facts are there where their salt is.
pub(super) fn facts(
    head: &Head,
    bytes: &[u8],
    salt: &[u8],
    position: u32,
) -> Result<Option<Facts>, EnvelopeError> {
    if salt.is_empty() && bytes.is_empty() && position == 0 {
        return Ok(None);
    }
    if salt.len() != 32 {
        return Err(EnvelopeError::Malformed("facts_salt"));
    }
    if head.leaf(position) != Some(derive::facts_leaf(&head.id, salt, bytes).as_ref()) {
        return Err(EnvelopeError::ChangedFacts);
    }
    let facts: Facts = strict::decode(bytes)?;
    facts.audience.as_ref().map_or(Ok(()), rules::check_audience)?;
    Ok(Some(facts))
}

/// A leaf fixes its section to the byte, so sections of distinct categories stand at distinct positions.
pub(super) fn sections(
    head: &Head,
    sections: Vec<SealedSection>,
) -> Result<Vec<VerifiedSection>, EnvelopeError> {
    let mut categories = BTreeSet::new();
    let mut verified = Vec::new();
    for section in sections {
        let category = head.check_section(&section)?;
        if !categories.insert(category) {
            return Err(EnvelopeError::Malformed("category of a section: it stands twice"));
        }
        verified.push(VerifiedSection { category, section });
    }
    Ok(verified)
}

fn recipients(
    head: &Head,
    entries: Vec<RecipientEntry>,
    seed: &[u8],
    sections: &[VerifiedSection],
) -> Result<Vec<VerifiedRecipient>, EnvelopeError> {
    if seed.len() != 32 {
        return Err(EnvelopeError::Malformed("tree_seed"));
    }
    let mut addresses = BTreeSet::new();
    let mut leaves = BTreeMap::new();
    let mut recipients = Vec::with_capacity(entries.len());
    for entry in entries {
        let (leaf, recipient) = recipient(head, entry, sections)?;
        if !addresses.insert(recipient.address.clone()) {
            return Err(EnvelopeError::Recipients("one is named twice"));
        }
        if leaves.insert(recipient.proof.index, leaf).is_some() {
            return Err(EnvelopeError::Recipients("two have the same index"));
        }
        recipients.push(recipient);
    }
    let tree = Tree::new(leaves, seed);
    if tree.root() != head.root {
        return Err(EnvelopeError::ChangedRecipients);
    }
    for VerifiedRecipient { proof, .. } in &mut recipients {
        let path = tree.path(proof.index).ok_or(EnvelopeError::ChangedRecipients)?;
        proof.path = path.into_iter().map(Bytes::from).collect();
    }
    Ok(recipients)
}

/// Checks one entry, and gives its leaf.
fn recipient(
    head: &Head,
    entry: RecipientEntry,
    sections: &[VerifiedSection],
) -> Result<(Digest, VerifiedRecipient), EnvelopeError> {
    let address: AgencyAddress =
        entry.address.parse().map_err(|_| EnvelopeError::Malformed("address of a recipient"))?;
    let wrong = |what| EnvelopeError::Recipient { recipient: address.clone(), what };
    if address == head.sender {
        return Err(EnvelopeError::ToOneself(address));
    }
    if !tree::is_index(entry.index) {
        return Err(wrong("index"));
    }
    if entry.salt.len() != 32 || entry.bases_salt.len() != 32 {
        return Err(wrong("salt"));
    }
    if !kem::is_encapsulation_length(entry.encapsulation.len()) {
        return Err(wrong("encapsulation"));
    }
    let key_id = head::digest(&entry.key_id, "key_id of a recipient")?;
    let bases = bases(&address, &entry.bases)?;
    let covered = sections.iter().filter(|section| bases.contains_key(&section.category));
    let covered: BTreeSet<u32> = covered.map(|section| section.section.position).collect();
    let wrapped: BTreeSet<u32> = entry.wrapped_keys.iter().map(|wrapped| wrapped.position).collect();
    if covered.len() != bases.len() {
        return Err(wrong("a basis for a category that the message does not hold"));
    }
    if wrapped != covered || wrapped.len() != entry.wrapped_keys.len() {
        return Err(wrong("wrapped keys other than those that a basis covers"));
    }
    if entry.wrapped_keys.iter().any(|wrapped| wrapped.sealed_key.len() != WRAPPED_KEY) {
        return Err(wrong("a wrapped key's length"));
    }
    let bases_digest =
        derive::bases_digest(&entry.bases_salt, bases.iter().map(|(category, basis)| (*category, *basis)));
    let leaf = derive::recipient_leaf(&head.id, &entry.salt, &address, &key_id, &bases_digest);
    let proof = RecipientProof {
        address: entry.address,
        key_id: entry.key_id,
        index: entry.index,
        salt: entry.salt,
        bases_digest: bases_digest.into(),
        path: Vec::new(),
        encapsulation: entry.encapsulation,
        wrapped_keys: entry.wrapped_keys,
    };
    Ok((leaf, VerifiedRecipient { address, key_id, bases, bases_salt: entry.bases_salt, proof }))
}

/// Reads the bases of a recipient: each category once, ascending, so that there is one way to write them.
pub(super) fn bases(
    recipient: &AgencyAddress,
    listed: &[CategoryBasis],
) -> Result<BTreeMap<Category, Basis>, EnvelopeError> {
    let wrong = |what| EnvelopeError::Recipient { recipient: recipient.clone(), what };
    let unknown = |field: &str, number| StrictError::UnknownValue {
        field: format!("{}.{field}", CategoryBasis::full_name()),
        number,
    };
    let mut bases = BTreeMap::new();
    for basis in listed {
        let category = Category::try_from(basis.category).map_err(|_| unknown("category", basis.category))?;
        let ground = Basis::try_from(basis.basis).map_err(|_| unknown("basis", basis.basis))?;
        if category == Category::Unspecified || ground == Basis::Unspecified {
            return Err(wrong("a basis is unspecified"));
        }
        if bases.last_key_value().is_some_and(|(last, _)| *last >= category) {
            return Err(wrong("bases out of order"));
        }
        bases.insert(category, ground);
    }
    Ok(bases)
}
