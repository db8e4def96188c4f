//! Sealing: from a draft to the envelope that its sender submits.

use std::collections::BTreeMap;

use bytes::Bytes;
use hpke::rand_core::CryptoRng;
use liaison_proto::{
    limits::{ENVELOPE_HEAD_BYTES, LEAVES_MULTIPLE, RECIPIENTS, SECTIONS_BYTES},
    message::v1::{
        CategoryBasis, Envelope, Facts, Handling, Manifest, OnwardRequest, RecipientEntry, Refusal,
        SealedSection, SectionHeader, SignedKeyRecord, StateChange, WrappedKey,
        alert_kind::Code as AlertKind, basis::Code as Basis, data_category::Code as Category,
        error_code::Code as ErrorCode, kind::Code as Kind, status::Code as Status, urgency::Code as Urgency,
    },
    times,
};
use prost::Message;
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{EnvelopeError, derive, derive::Secret, head, padding, rules, tree::Tree};
use crate::{
    digest::{Digest, sha256},
    kem,
    key_record::{self, KeyRecordError, ProvenKey},
    keys::SigningKey,
    names::AgencyAddress,
    random::{self, System},
};

/// A message that is yet to be sealed.
pub struct Draft {
    /// A UUIDv7 that no other message has.
    pub message_id: Uuid,
    /// A UUIDv7: of the referral that the message belongs to, or new.
    pub thread: Uuid,
    /// The agency whose key signs.
    pub sender: AgencyAddress,
    /// Decides what else must be set.
    pub kind: Kind,
    /// Set for an alert alone.
    pub alert_kind: AlertKind,
    /// Within the validity of the sender's key.
    pub created: OffsetDateTime,
    /// At most 30 days after `created`.
    pub expires: OffsetDateTime,
    /// CAP urgency.
    pub urgency: Urgency,
    /// Handling codes, where there are any.
    pub handling: Option<Handling>,
    /// Actual or exercise.
    pub status: Status,
    /// Set for a state message alone.
    pub state_change: Option<StateChange>,
    /// Set for a message about referring onward alone.
    pub onward: Option<OnwardRequest>,
    /// Set for a referral and an alert.
    pub facts: Option<Facts>,
    /// The encoded content of each category.
    pub sections: BTreeMap<Category, Zeroizing<Vec<u8>>>,
    /// One, or for an alert up to 4,096.
    pub recipients: Vec<Recipient>,
}

/// To whom a message is sealed.
pub struct Recipient {
    /// The recipient's current key, believed by the caller.
    pub key: ProvenKey,
    /// The categories that the recipient may have, each with its basis.
    pub bases: BTreeMap<Category, Basis>,
}

/// Why a draft was not sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("the sender's own key record is wrong: {0}")]
    SenderKey(#[from] KeyRecordError),
    #[error("the signing key and the key record are not those of {0}")]
    NotTheSender(AgencyAddress),
    #[error(transparent)]
    Draft(#[from] EnvelopeError),
    #[error("there is a basis for {recipient} to have {}, which the message does not hold", category.as_str_name())]
    BasisWithoutSection { recipient: AgencyAddress, category: Category },
    #[error("the key of {0} is not one that a message can be sealed to")]
    RecipientKey(AgencyAddress),
    #[error("the cipher failed")]
    Cipher,
}

impl From<SealError> for Refusal {
    fn from(error: SealError) -> Self {
        let message = error.to_string();
        match error {
            SealError::Draft(error) => error.into(),
            SealError::RecipientKey(_) => Refusal::new(
                ErrorCode::UnknownKey,
                message,
                "ask the recipient's IT to publish a new key, then send again",
            ),
            SealError::SenderKey(_) | SealError::NotTheSender(_) => {
                Refusal::new(ErrorCode::BadSignature, message, "restore the agent's keys from its backup")
            }
            SealError::BasisWithoutSection { .. } => {
                Refusal::new(ErrorCode::BadRecipients, message, "correct the sender's software")
            }
            SealError::Cipher => Refusal::internal(),
        }
    }
}

/// Seals a draft and signs it. Done once per message id.
///
/// # Errors
/// The draft is not one that a gateway would take, or a key is wrong.
pub fn seal(draft: &Draft, signer: &SigningKey, sender_key: &SignedKeyRecord) -> Result<Envelope, SealError> {
    seal_with(draft, signer, sender_key, &mut System)
}

/// [`seal`], from given randomness.
pub(super) fn seal_with(
    draft: &Draft,
    signer: &SigningKey,
    sender_key: &SignedKeyRecord,
    random: &mut impl CryptoRng,
) -> Result<Envelope, SealError> {
    let key = key_record::prove(sender_key)?;
    if key.agency != draft.sender || key.signing != signer.public() {
        return Err(SealError::NotTheSender(draft.sender.clone()));
    }
    check(draft, &key)?;

    let mut positions = positions(draft, random).into_iter();
    let mut leaves: BTreeMap<u32, Digest> = BTreeMap::new();
    let mut sealed = BTreeMap::new();
    for (category, plaintext) in &draft.sections {
        let position = positions.next().ok_or(SealError::Cipher)?;
        let (section, secret) = section(draft, *category, position, plaintext, random)?;
        leaves.insert(position, derive::section_leaf(&draft.message_id, &section));
        sealed.insert(*category, (section, secret));
    }
    let facts = draft.facts.as_ref().map(Message::encode_to_vec).unwrap_or_default();
    let (mut facts_salt, mut facts_position) = (Bytes::new(), 0);
    if draft.facts.is_some() {
        facts_salt = salt(random);
        facts_position = positions.next().ok_or(SealError::Cipher)?;
        leaves.insert(facts_position, derive::facts_leaf(&draft.message_id, &facts_salt, &facts));
    }
    leaves.extend(positions.map(|position| (position, Digest(random::bytes(random)))));

    let tree_seed = salt(random);
    let mut recipients = entries(draft, random);
    let root = root(draft, &recipients, &tree_seed);
    let manifest = Bytes::from(manifest(draft, &key, leaves, root).encode_to_vec());
    for (entry, recipient) in recipients.iter_mut().zip(&draft.recipients) {
        wrap(entry, recipient, draft, &key, &sha256(&manifest), &sealed, random)?;
    }
    let mut sections: Vec<_> = sealed.into_values().map(|(section, _)| section).collect();
    sections.sort_by_key(|section| section.position);
    let envelope = Envelope {
        signature: Bytes::copy_from_slice(&signer.sign(head::LABEL, &manifest)),
        manifest,
        sender_key: Some(sender_key.clone()),
        facts: facts.into(),
        facts_salt,
        facts_position,
        tree_seed,
        recipients,
        sections,
    };
    check_size(&envelope)?;
    Ok(envelope)
}

/// Checks the sizes of an envelope.
pub(super) fn check_size(envelope: &Envelope) -> Result<(), EnvelopeError> {
    let sections: usize = envelope.sections.iter().map(|section| section.ciphertext.len()).sum();
    if sections > SECTIONS_BYTES {
        return Err(EnvelopeError::TooLarge { what: "the sections (bytes)", limit: SECTIONS_BYTES });
    }
    if envelope.encoded_len().saturating_sub(sections) > ENVELOPE_HEAD_BYTES {
        return Err(EnvelopeError::TooLarge { what: "the head (bytes)", limit: ENVELOPE_HEAD_BYTES });
    }
    if envelope.recipients.len() > RECIPIENTS {
        return Err(EnvelopeError::TooLarge { what: "the list of recipients", limit: RECIPIENTS });
    }
    Ok(())
}

/// What a gateway would refuse is not sealed.
fn check(draft: &Draft, key: &ProvenKey) -> Result<(), SealError> {
    for (id, name) in [(&draft.message_id, "message_id"), (&draft.thread, "thread")] {
        if !head::is_id(id) {
            return Err(EnvelopeError::Malformed(name).into());
        }
    }
    if draft.created < key.not_before || key.not_after < draft.created {
        return Err(EnvelopeError::KeyNotValid(draft.sender.clone()).into());
    }
    head::check_lifetime(draft.created, draft.expires)?;
    let empty = manifest(draft, key, BTreeMap::new(), key.id);
    rules::check(&empty, draft.sections.keys().copied())?;
    rules::check_whole(draft.kind, draft.recipients.len(), draft.facts.is_some())?;
    if let Some(audience) = draft.facts.as_ref().and_then(|facts| facts.audience.as_ref()) {
        rules::check_audience(audience)?;
    }
    if draft.recipients.len() > RECIPIENTS {
        return Err(EnvelopeError::TooLarge { what: "the list of recipients", limit: RECIPIENTS }.into());
    }
    let mut addresses = std::collections::BTreeSet::new();
    for Recipient { key, bases } in &draft.recipients {
        if key.agency == draft.sender {
            return Err(EnvelopeError::ToOneself(key.agency.clone()).into());
        }
        if !addresses.insert(&key.agency) {
            return Err(EnvelopeError::Recipients("one is named twice").into());
        }
        if let Some(category) = bases.keys().find(|category| !draft.sections.contains_key(category)) {
            return Err(SealError::BasisWithoutSection {
                recipient: key.agency.clone(),
                category: *category,
            });
        }
        if bases.values().any(|basis| *basis == Basis::Unspecified) {
            return Err(EnvelopeError::Missing("basis").into());
        }
    }
    Ok(())
}

/// All positions of the manifest's leaves, in random order.
fn positions(draft: &Draft, random: &mut impl CryptoRng) -> Vec<u32> {
    let used = draft.sections.len() + usize::from(draft.facts.is_some());
    let count = used.max(1).next_multiple_of(LEAVES_MULTIPLE);
    random::choose(count, count, random)
}

fn section(
    draft: &Draft,
    category: Category,
    position: u32,
    plaintext: &[u8],
    random: &mut impl CryptoRng,
) -> Result<(SealedSection, Secret), SealError> {
    let key: Secret = random::secret(random);
    let salt = salt(random);
    let header =
        SectionHeader { category: category.into(), schema_version: head::SCHEMA_VERSION }.encode_to_vec();
    let too_large = EnvelopeError::TooLarge { what: "a section (bytes)", limit: SECTIONS_BYTES };
    if plaintext.len() > SECTIONS_BYTES {
        return Err(too_large.into());
    }
    let mut ciphertext = padding::pad(plaintext).ok_or(too_large)?;
    derive::seal_section(&key, &draft.message_id, &draft.sender, position, &header, &mut ciphertext)
        .ok_or(SealError::Cipher)?;
    let commitment = derive::commitment(&key, &draft.message_id, position).ok_or(SealError::Cipher)?;
    let section = SealedSection {
        position,
        header: header.into(),
        salt,
        commitment: Bytes::copy_from_slice(commitment.as_slice()),
        ciphertext: std::mem::take(&mut *ciphertext).into(),
    };
    Ok((section, key))
}

/// The entries, yet without encapsulations: those depend on the manifest, which has their root.
fn entries(draft: &Draft, random: &mut impl CryptoRng) -> Vec<RecipientEntry> {
    let indices = random::choose(draft.recipients.len(), RECIPIENTS, random);
    let entry = |(index, Recipient { key, bases }): (u32, &Recipient)| RecipientEntry {
        address: key.agency.to_string(),
        key_id: key.id.into(),
        index,
        salt: salt(random),
        bases: bases
            .iter()
            .map(|(category, basis)| CategoryBasis { category: (*category).into(), basis: (*basis).into() })
            .collect(),
        bases_salt: salt(random),
        encapsulation: Bytes::new(),
        wrapped_keys: Vec::new(),
    };
    indices.into_iter().zip(&draft.recipients).map(entry).collect()
}

fn root(draft: &Draft, entries: &[RecipientEntry], seed: &[u8]) -> Digest {
    let leaf = |(entry, Recipient { key, bases }): (&RecipientEntry, &Recipient)| {
        let bases = bases.iter().map(|(category, basis)| (*category, *basis));
        let bases = derive::bases_digest(&entry.bases_salt, bases);
        let leaf = derive::recipient_leaf(&draft.message_id, &entry.salt, &key.agency, &key.id, &bases);
        (entry.index, leaf)
    };
    Tree::new(entries.iter().zip(&draft.recipients).map(leaf).collect(), seed).root()
}

fn manifest(draft: &Draft, key: &ProvenKey, leaves: BTreeMap<u32, Digest>, root: Digest) -> Manifest {
    Manifest {
        version: head::VERSION,
        suite: derive::SUITE.into(),
        message_id: Bytes::copy_from_slice(draft.message_id.as_bytes()),
        sender: draft.sender.to_string(),
        sender_key_id: key.id.into(),
        kind: draft.kind.into(),
        alert_kind: draft.alert_kind.into(),
        thread: Bytes::copy_from_slice(draft.thread.as_bytes()),
        created: Some(times::to_wire(draft.created)),
        expires: Some(times::to_wire(draft.expires)),
        urgency: draft.urgency.into(),
        handling: draft.handling,
        status: draft.status.into(),
        state_change: draft.state_change,
        onward: draft.onward.clone(),
        leaves: leaves.into_values().map(Bytes::from).collect(),
        recipients_root: root.into(),
    }
}

fn wrap(
    entry: &mut RecipientEntry,
    recipient: &Recipient,
    draft: &Draft,
    sender_key: &ProvenKey,
    manifest: &Digest,
    sealed: &BTreeMap<Category, (SealedSection, Secret)>,
    random: &mut impl CryptoRng,
) -> Result<(), SealError> {
    let Recipient { key, bases } = recipient;
    let info = derive::wrap_info(manifest, &draft.message_id, &sender_key.id, &key.agency, &key.id);
    let (encapsulation, secret) = kem::encapsulate(key.kem, &key.kem_key, &info, random)
        .map_err(|_| SealError::RecipientKey(key.agency.clone()))?;
    entry.encapsulation = encapsulation.into();
    for (section, section_key) in bases.keys().filter_map(|category| sealed.get(category)) {
        let position = section.position;
        let sealed_key =
            derive::wrap(&secret, manifest, position, section_key).ok_or(SealError::Cipher)?.into();
        entry.wrapped_keys.push(WrappedKey { position, sealed_key });
    }
    entry.wrapped_keys.sort_by_key(|wrapped| wrapped.position);
    Ok(())
}

fn salt(random: &mut impl CryptoRng) -> Bytes {
    Bytes::copy_from_slice(&random::bytes::<32>(random))
}
