//! The signed head of a message, read and checked: what a gateway and a recipient do alike.

use bytes::Bytes;
use liaison_proto::{
    limits::{CLOCK_AHEAD, LEAVES, LEAVES_MULTIPLE, LIFETIME},
    message::v1::{Manifest, SealedSection, SectionHeader, data_category::Code as Category},
    strict, times,
};
use time::OffsetDateTime;
use uuid::{Uuid, Variant, Version};

use super::{EnvelopeError, derive, padding};
use crate::{
    digest::{Digest, sha256},
    key_record::ProvenKey,
    names::AgencyAddress,
};

/// Label of the signature over a manifest.
pub(super) const LABEL: &str = "manifest/v1";
/// Version of the manifest.
pub(super) const VERSION: u32 = 1;
/// Version of the content in a section.
pub(super) const SCHEMA_VERSION: u32 = 1;

/// A manifest that is well formed.
pub(super) struct Head {
    pub(super) manifest: Manifest,
    /// H(M)
    pub(super) digest: Digest,
    pub(super) id: Uuid,
    pub(super) thread: Uuid,
    pub(super) sender: AgencyAddress,
    pub(super) sender_key_id: Digest,
    pub(super) created: OffsetDateTime,
    pub(super) expires: OffsetDateTime,
    pub(super) root: Digest,
}

impl Head {
    /// Reads a manifest from the bytes that were signed.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let manifest: Manifest = strict::decode(bytes)?;
        let malformed = EnvelopeError::Malformed;
        if manifest.version != VERSION {
            return Err(EnvelopeError::Unsupported("version"));
        }
        if manifest.suite() != derive::SUITE {
            return Err(EnvelopeError::Unsupported("suite"));
        }
        if manifest.leaves.len() > LEAVES {
            return Err(EnvelopeError::TooLarge { what: "the list of leaves", limit: LEAVES });
        }
        if manifest.leaves.is_empty() || !manifest.leaves.len().is_multiple_of(LEAVES_MULTIPLE) {
            return Err(malformed("number of leaves"));
        }
        if manifest.leaves.iter().any(|leaf| leaf.len() != 32) {
            return Err(malformed("leaves"));
        }
        let moment = |at: &Option<_>, name| at.as_ref().and_then(times::from_wire).ok_or(malformed(name));
        let created = moment(&manifest.created, "created")?;
        let expires = moment(&manifest.expires, "expires")?;
        check_lifetime(created, expires)?;
        Ok(Self {
            digest: sha256(bytes),
            id: uuid(&manifest.message_id).ok_or(malformed("message_id"))?,
            thread: uuid(&manifest.thread).ok_or(malformed("thread"))?,
            sender: manifest.sender.parse().map_err(|_| malformed("sender"))?,
            sender_key_id: digest(&manifest.sender_key_id, "sender_key_id")?,
            root: digest(&manifest.recipients_root, "recipients_root")?,
            created,
            expires,
            manifest,
        })
    }

    /// Checks that the holder of `key` made the message while the key was valid.
    pub(super) fn check_sender(
        &self,
        key: &ProvenKey,
        manifest: &[u8],
        signature: &[u8],
    ) -> Result<(), EnvelopeError> {
        let sender = || self.sender.clone();
        if key.agency != self.sender {
            return Err(EnvelopeError::SenderMismatch { sender: sender(), key: key.agency.clone() });
        }
        if key.id != self.sender_key_id {
            return Err(EnvelopeError::OtherSenderKey(sender()));
        }
        key.signing.verify(LABEL, manifest, signature).map_err(|_| EnvelopeError::BadSignature(sender()))?;
        if self.created < key.not_before || key.not_after < self.created {
            return Err(EnvelopeError::KeyNotValid(sender()));
        }
        Ok(())
    }

    /// Checks that the message is neither from the future nor past its end.
    pub(super) fn check_times(&self, now: OffsetDateTime) -> Result<(), EnvelopeError> {
        if self.created > now + CLOCK_AHEAD {
            return Err(EnvelopeError::FromTheFuture);
        }
        if self.expires <= now {
            return Err(EnvelopeError::Expired);
        }
        Ok(())
    }

    /// Checks a section against its leaf, and gives its category.
    pub(super) fn check_section(&self, section: &SealedSection) -> Result<Category, EnvelopeError> {
        let position = section.position;
        if self.leaf(position) != Some(derive::section_leaf(&self.id, section).as_ref()) {
            return Err(EnvelopeError::ChangedSection(position));
        }
        if section.salt.len() != 32 || section.commitment.len() != 32 {
            return Err(EnvelopeError::Malformed("section"));
        }
        let padded = section.ciphertext.len().checked_sub(derive::TAG);
        if !padded.is_some_and(padding::is_padded_length) {
            return Err(EnvelopeError::Malformed("ciphertext"));
        }
        let header: SectionHeader = strict::decode(&section.header)?;
        if header.schema_version != SCHEMA_VERSION {
            return Err(EnvelopeError::Unsupported("version of a section's content"));
        }
        match header.category() {
            Category::Unspecified => Err(EnvelopeError::Missing("category of a section")),
            category => Ok(category),
        }
    }

    /// The leaf at a position.
    pub(super) fn leaf(&self, position: u32) -> Option<&[u8]> {
        let position = usize::try_from(position).ok()?;
        self.manifest.leaves.get(position).map(Bytes::as_ref)
    }
}

/// Checks that a message ends after it was created, and not long after.
pub(super) fn check_lifetime(created: OffsetDateTime, expires: OffsetDateTime) -> Result<(), EnvelopeError> {
    let life = expires - created;
    if life.is_positive() && life <= LIFETIME { Ok(()) } else { Err(EnvelopeError::Lifetime) }
}

/// A digest in a field.
pub(super) fn digest(bytes: &[u8], name: &'static str) -> Result<Digest, EnvelopeError> {
    Digest::try_from(bytes).map_err(|_| EnvelopeError::Malformed(name))
}

/// Whether an id is one that a message can have.
pub(super) fn is_id(id: &Uuid) -> bool {
    id.get_version() == Some(Version::SortRand) && id.get_variant() == Variant::RFC4122
}

/// The id in a field.
pub(super) fn uuid(bytes: &[u8]) -> Option<Uuid> {
    Uuid::from_slice(bytes).ok().filter(is_id)
}
