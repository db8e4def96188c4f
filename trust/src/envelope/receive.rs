//! Receiving a copy, and opening what is in it.

use std::collections::BTreeSet;

use liaison_proto::{
    limits::{RECIPIENT_TREE_DEPTH, SECTIONS_BYTES},
    message::v1::{
        Manifest, RecipientProof, ReleaseRecord, SealedCopy, SealedSection, data_category::Code as Category,
    },
};
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    EnvelopeError, derive,
    derive::Secret,
    head::{self, Head},
    padding, rules,
    tree::{self, Path},
};
use crate::{
    digest::Digest,
    kem,
    key_record::ProvenKey,
    keys::{KemKey, VerifyingKey},
    names::AgencyAddress,
    statement::{self, StatementError},
};

/// A copy that is genuine, with the keys of its sections.
pub struct Received {
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
    /// Id of the recipient's key record that it was sealed to.
    pub key_id: Digest,
    /// When it was made.
    pub created: OffsetDateTime,
    /// When it ends.
    pub expires: OffsetDateTime,
    /// What the gateway released, and for what use.
    pub release: ReleaseRecord,
    /// What was released, in the order of the copy.
    pub sections: Vec<ReceivedSection>,
}

/// A released section. It was decrypted once, to know that it can be.
pub struct ReceivedSection {
    /// What its header says.
    pub category: Category,
    /// Opens the section; to be wrapped anew under a local key.
    pub key: Zeroizing<[u8; 32]>,
    /// Still sealed, to be stored so.
    pub section: SealedSection,
}

/// Receives a copy: checks that it is `sender`'s word to `me`, released by `gateway`, and that every
/// section in it can be opened. That it is no replay is for the caller's store to know.
///
/// `sender` is the key of the copy's sender, believed by the caller (a pin, or a chain from one);
/// `kem_key` gives one's own key by the id of its record.
///
/// # Errors
/// What is wrong. Whatever fails behind a section's leaf is one and the same
/// [`EnvelopeError::ChangedSection`].
pub fn receive<'k>(
    copy: &SealedCopy,
    me: &AgencyAddress,
    kem_key: impl FnOnce(&Digest) -> Option<&'k KemKey>,
    sender: &ProvenKey,
    gateway: &VerifyingKey,
    now: OffsetDateTime,
) -> Result<Received, EnvelopeError> {
    let size: usize = copy.sections.iter().map(|section| section.ciphertext.len()).sum();
    if size > SECTIONS_BYTES {
        return Err(EnvelopeError::TooLarge { what: "the sections (bytes)", limit: SECTIONS_BYTES });
    }
    let head = Head::read(&copy.manifest)?;
    if copy.sender_key.as_ref() != Some(&sender.signed) {
        return Err(EnvelopeError::OtherSenderKey(head.sender));
    }
    head.check_sender(sender, &copy.manifest, &copy.signature)?;
    let proof = copy.recipient.as_ref().ok_or(EnvelopeError::Missing("recipient"))?;
    let key_id = own_entry(&head, proof, me)?;
    head.check_times(now)?;
    let release = release(copy, &head, me, gateway)?;

    let mut categories = Vec::with_capacity(copy.sections.len());
    for section in &copy.sections {
        let category = head.check_section(section)?;
        if categories.contains(&category) {
            return Err(EnvelopeError::Malformed("category of a section: it stands twice"));
        }
        categories.push(category);
    }
    rules::check(&head.manifest, categories.iter().copied())?;
    let sections = sections(copy, &categories, proof, &head, me, &key_id, kem_key)?;
    Ok(Received {
        id: head.id,
        thread: head.thread,
        sender: head.sender,
        digest: head.digest,
        key_id,
        created: head.created,
        expires: head.expires,
        manifest: head.manifest,
        release,
        sections,
    })
}

/// Opens a section of a message: its content.
///
/// # Errors
/// [`EnvelopeError::ChangedSection`], whatever is wrong.
pub fn open(
    id: &Uuid,
    sender: &AgencyAddress,
    section: &SealedSection,
    key: &[u8; 32],
) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
    let SealedSection { position, header, commitment, ciphertext, .. } = section;
    let plaintext = || {
        derive::commitment(key, id, *position).filter(|own| own.as_slice() == commitment.as_ref())?;
        let padded = derive::open_section(key, id, sender, *position, header, ciphertext)?;
        padding::unpad(&padded).map(|plaintext| Zeroizing::new(plaintext.to_vec()))
    };
    plaintext().ok_or(EnvelopeError::ChangedSection(*position))
}

/// Checks one's own entry under the signed root, and gives the id of the key that was sealed to.
fn own_entry(head: &Head, proof: &RecipientProof, me: &AgencyAddress) -> Result<Digest, EnvelopeError> {
    let address: AgencyAddress =
        proof.address.parse().map_err(|_| EnvelopeError::Malformed("address of the recipient"))?;
    if address != *me {
        return Err(EnvelopeError::NotForMe(address));
    }
    if *me == head.sender {
        return Err(EnvelopeError::ToOneself(me.clone()));
    }
    let bases = head::digest(&proof.bases_digest, "bases_digest")?;
    check_entry(head, proof, me, &bases)
}

/// Checks an entry under the signed root, and gives the id of the key that was sealed to.
pub(super) fn check_entry(
    head: &Head,
    proof: &RecipientProof,
    recipient: &AgencyAddress,
    bases: &Digest,
) -> Result<Digest, EnvelopeError> {
    let key_id = head::digest(&proof.key_id, "key_id of the recipient")?;
    if proof.path.len() != RECIPIENT_TREE_DEPTH {
        return Err(EnvelopeError::Malformed("path"));
    }
    let mut path: Path = [Digest([0; 32]); RECIPIENT_TREE_DEPTH];
    for (place, sibling) in path.iter_mut().zip(&proof.path) {
        *place = head::digest(sibling, "path")?;
    }
    let leaf = derive::recipient_leaf(&head.id, &proof.salt, recipient, &key_id, bases);
    match tree::root_of(leaf, proof.index, &path) {
        Some(root) if root == head.root => Ok(key_id),
        _ => Err(EnvelopeError::ChangedRecipients),
    }
}

/// Checks that the gateway released to `me` exactly what is in the copy.
fn release(
    copy: &SealedCopy,
    head: &Head,
    me: &AgencyAddress,
    gateway: &VerifyingKey,
) -> Result<ReleaseRecord, EnvelopeError> {
    let signed = copy.release.as_ref().ok_or(EnvelopeError::Missing("release"))?;
    let release: ReleaseRecord = statement::read(signed, gateway).map_err(|error| match error {
        StatementError::BadSignature(_) => EnvelopeError::ReleaseSignature,
        StatementError::Strict(error) => error.into(),
    })?;
    let other = |what| Err(EnvelopeError::OtherRelease(what));
    if release.message_id != head.id.as_bytes().as_slice() || release.manifest_digest != head.digest.as_ref()
    {
        return other("message");
    }
    if release.recipient != me.to_string() {
        return other("recipient");
    }
    let released: BTreeSet<u32> = release.released.iter().map(|section| section.position).collect();
    let sections: BTreeSet<u32> = copy.sections.iter().map(|section| section.position).collect();
    if released != sections
        || released.len() != release.released.len()
        || sections.len() != copy.sections.len()
    {
        return other("sections");
    }
    Ok(release)
}

/// Opens the keys of all sections, and each section once.
fn sections<'k>(
    copy: &SealedCopy,
    categories: &[Category],
    proof: &RecipientProof,
    head: &Head,
    me: &AgencyAddress,
    key_id: &Digest,
    kem_key: impl FnOnce(&Digest) -> Option<&'k KemKey>,
) -> Result<Vec<ReceivedSection>, EnvelopeError> {
    let wrong = |what| EnvelopeError::Recipient { recipient: me.clone(), what };
    if proof.wrapped_keys.len() != copy.sections.len() {
        return Err(wrong("wrapped keys other than those of the sections"));
    }
    let Some(first) = copy.sections.first() else {
        let bare = proof.encapsulation.is_empty();
        return if bare { Ok(Vec::new()) } else { Err(wrong("an encapsulation without sections")) };
    };
    let kem_key = kem_key(key_id).ok_or(EnvelopeError::UnknownKey(*key_id))?;
    let info = derive::wrap_info(&head.digest, &head.id, &head.sender_key_id, me, key_id);
    let secret = kem::decapsulate(kem_key, &proof.encapsulation, &info)
        .map_err(|_| EnvelopeError::ChangedSection(first.position))?;
    let sections = copy.sections.iter().zip(categories);
    sections.map(|(section, category)| received(section, *category, proof, head, &secret)).collect()
}

fn received(
    section: &SealedSection,
    category: Category,
    proof: &RecipientProof,
    head: &Head,
    secret: &Secret,
) -> Result<ReceivedSection, EnvelopeError> {
    let position = section.position;
    let key = proof
        .wrapped_keys
        .iter()
        .find(|wrapped| wrapped.position == position)
        .and_then(|wrapped| derive::unwrap(secret, &head.digest, position, &wrapped.sealed_key))
        .ok_or(EnvelopeError::ChangedSection(position))?;
    open(&head.id, &head.sender, section, &key)?;
    Ok(ReceivedSection { category, key, section: section.clone() })
}
