//! What is hashed, derived and authenticated, and over what: the formulas of ENVELOPE.md, one function
//! each. Numbers are 32 bits, big-endian; every input is preceded by its length.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
};
use liaison_proto::message::v1::{
    SealedSection, basis::Code as Basis, data_category::Code as Category, suite::Code as Suite,
};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    digest::{Digest, framed, hash, sha256},
    names::AgencyAddress,
};

/// The one suite of this version.
pub(super) const SUITE: Suite = Suite::Aes256GcmSha256Ed25519;
/// Length of an authentication tag, bytes.
pub(super) const TAG: usize = 16;

/// A secret of 32 bytes.
pub(super) type Secret = Zeroizing<[u8; 32]>;

/// leaf_i
pub(super) fn section_leaf(id: &Uuid, section: &SealedSection) -> Digest {
    hash(
        "leaf/v1",
        &[
            id.as_bytes(),
            &section.position.to_be_bytes(),
            &section.salt,
            &section.header,
            &section.commitment,
            sha256(&section.ciphertext).as_ref(),
        ],
    )
}

/// The leaf of the facts.
pub(super) fn facts_leaf(id: &Uuid, salt: &[u8], facts: &[u8]) -> Digest {
    hash("facts/v1", &[id.as_bytes(), salt, facts])
}

/// H(salt_b, bases), the bases in the order of their categories' numbers.
pub(super) fn bases_digest(salt: &[u8], bases: impl IntoIterator<Item = (Category, Basis)>) -> Digest {
    let numbers = bases.into_iter().flat_map(|(category, basis)| [i32::from(category), i32::from(basis)]);
    let bytes: Vec<u8> = numbers.flat_map(i32::to_be_bytes).collect();
    hash("bases/v1", &[salt, &bytes])
}

/// rcpt_r
pub(super) fn recipient_leaf(
    id: &Uuid,
    salt: &[u8],
    address: &AgencyAddress,
    key_id: &Digest,
    bases_digest: &Digest,
) -> Digest {
    hash(
        "rcpt/v1",
        &[id.as_bytes(), salt, address.to_string().as_bytes(), key_id.as_ref(), bases_digest.as_ref()],
    )
}

/// com_i
pub(super) fn commitment(key: &[u8; 32], id: &Uuid, position: u32) -> Option<Secret> {
    hkdf(key, &framed("commit", &[id.as_bytes(), &position.to_be_bytes()]))
}

/// Seals a padded section in place, its tag behind it.
pub(super) fn seal_section(
    key: &[u8; 32],
    id: &Uuid,
    sender: &AgencyAddress,
    position: u32,
    header: &[u8],
    padded: &mut Vec<u8>,
) -> Option<()> {
    let key = section_key(key, id, position)?;
    seal(&key, &section_aad(id, sender, position, header), padded)
}

/// Opens a section: its padded plaintext.
pub(super) fn open_section(
    key: &[u8; 32],
    id: &Uuid,
    sender: &AgencyAddress,
    position: u32,
    header: &[u8],
    ciphertext: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let key = section_key(key, id, position)?;
    open(&key, &section_aad(id, sender, position, header), ciphertext)
}

/// What an encapsulation is bound to.
pub(super) fn wrap_info(
    manifest: &Digest,
    id: &Uuid,
    sender_key: &Digest,
    recipient: &AgencyAddress,
    recipient_key: &Digest,
) -> Vec<u8> {
    framed(
        "wrap/v1",
        &[
            &i32::from(SUITE).to_be_bytes(),
            manifest.as_ref(),
            id.as_bytes(),
            sender_key.as_ref(),
            recipient.to_string().as_bytes(),
            recipient_key.as_ref(),
        ],
    )
}

/// wrap_{i,r}
pub(super) fn wrap(secret: &[u8; 32], manifest: &Digest, position: u32, key: &[u8; 32]) -> Option<Vec<u8>> {
    let mut wrapped = Vec::with_capacity(key.len() + TAG);
    wrapped.extend_from_slice(key);
    let cipher_key = wrap_key(secret, position)?;
    seal(&cipher_key, &wrap_aad(manifest, position), &mut wrapped)?;
    Some(wrapped)
}

/// K_i
pub(super) fn unwrap(secret: &[u8; 32], manifest: &Digest, position: u32, wrapped: &[u8]) -> Option<Secret> {
    let cipher_key = wrap_key(secret, position)?;
    let opened = open(&cipher_key, &wrap_aad(manifest, position), wrapped)?;
    let mut key = Zeroizing::new([0; 32]);
    // The array is written in place, so that no copy of the key stays on the stack.
    (opened.len() == key.len()).then(|| key.copy_from_slice(&opened))?;
    Some(key)
}

fn section_key(key: &[u8; 32], id: &Uuid, position: u32) -> Option<Secret> {
    hkdf(key, &framed("enc", &[id.as_bytes(), &position.to_be_bytes()]))
}

fn section_aad(id: &Uuid, sender: &AgencyAddress, position: u32, header: &[u8]) -> Vec<u8> {
    framed(
        "section/v1",
        &[
            &i32::from(SUITE).to_be_bytes(),
            id.as_bytes(),
            &position.to_be_bytes(),
            sender.to_string().as_bytes(),
            sha256(header).as_ref(),
        ],
    )
}

fn wrap_key(secret: &[u8; 32], position: u32) -> Option<Secret> {
    hkdf(secret, &framed("wrap-key", &[&position.to_be_bytes()]))
}

fn wrap_aad(manifest: &Digest, position: u32) -> Vec<u8> {
    framed("wrap-aad", &[manifest.as_ref(), &position.to_be_bytes()])
}

/// HKDF-SHA-256 without salt.
fn hkdf(secret: &[u8; 32], info: &[u8]) -> Option<Secret> {
    let mut derived = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, &[])
        .extract(secret)
        .expand(&[info], HKDF_SHA256)
        .and_then(|output| output.fill(derived.as_mut_slice()))
        .ok()?;
    Some(derived)
}

/// Every key here is derived for one use, so that its nonce can be zero.
fn seal(key: &[u8; 32], aad: &[u8], in_place: &mut Vec<u8>) -> Option<()> {
    aes(key)?.seal_in_place_append_tag(zero_nonce(), Aad::from(aad), in_place).ok()
}

fn open(key: &[u8; 32], aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut buffer = Zeroizing::new(sealed.to_vec());
    let length = aes(key)?.open_in_place(zero_nonce(), Aad::from(aad), &mut buffer).ok()?.len();
    buffer.truncate(length);
    Some(buffer)
}

fn aes(key: &[u8; 32]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new)
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}
