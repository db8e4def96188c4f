//! Keys: Ed25519 to sign, X-Wing or X25519 to be sealed to. Each key does one thing; every signature
//! names by a label what it signs, so that no signature can be passed off as another kind's.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use liaison_proto::message::v1::kem::Code as Kem;
use zeroize::Zeroizing;

use crate::{digest::hash, kem, random};

/// A private Ed25519 key.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    seed: Zeroizing<[u8; 32]>,
}

/// A public Ed25519 key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VerifyingKey([u8; 32]);

/// A private key that messages are sealed to.
pub struct KemKey {
    kem: Kem,
    seed: Zeroizing<[u8; 32]>,
}

/// A signature that does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;

/// Bytes that are no Ed25519 public key: their length is not 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an Ed25519 public key has 32 bytes, this has {0}")]
pub struct NotAKey(pub usize);

/// A KEM that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this version knows the KEMs X-Wing and X25519")]
pub struct UnknownKem;

/// The y-coordinates of Curve25519's points of order 1, 2, 4 and 8, little-endian, in every encoding
/// of 255 bits: 0, 1, the two of order 8, -1, and 0 and 1 plus the prime.
const SMALL_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    encoded(0x01, 0, 0),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
    encoded(0xec, 0xff, 0x7f),
    encoded(0xed, 0xff, 0x7f),
    encoded(0xee, 0xff, 0x7f),
];

const fn encoded(first: u8, between: u8, last: u8) -> [u8; 32] {
    let mut bytes = [between; 32];
    let [start, .., end] = &mut bytes;
    *start = first;
    *end = last;
    bytes
}

impl SigningKey {
    /// A new key from the operating system's randomness.
    pub fn generate() -> Self {
        Self::from_seed(&random::secret(&mut random::System))
    }

    /// The key of a seed (RFC 8032: the private key).
    #[allow(clippy::expect_used, reason = "any 32 bytes are an Ed25519 seed")]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed of 32 bytes makes a key");
        Self { pair, seed: Zeroizing::new(*seed) }
    }

    /// The key for another purpose that follows from this one, and tells nothing of it: SHA-256 of the label and the
    /// seed, each preceded by its length, is its seed. So one secret is to be kept where several keys are needed.
    pub fn derived(&self, label: &str) -> Self {
        Self::from_seed(&Zeroizing::new(hash(label, &[self.seed.as_slice()]).0))
    }

    /// The seed, to be stored.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        self.seed.clone()
    }

    /// The public key.
    pub fn public(&self) -> VerifyingKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        VerifyingKey(bytes)
    }

    /// Signs `bytes` as what `label` says they are.
    pub fn sign(&self, label: &str, bytes: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(&labelled(label, bytes)).as_ref());
        signature
    }

    /// Signs a text as it is, as signed notes demand. No text is mistaken for what [`Self::sign`] signs:
    /// that begins with a zero byte, the first of a label's length, and a note has none.
    pub(crate) fn sign_text(&self, text: &str) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        signature
    }
}

impl VerifyingKey {
    /// The 32 bytes (RFC 8032).
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Verifies that the key's holder signed `bytes` as what `label` says they are.
    ///
    /// # Errors
    /// [`BadSignature`] in every other case.
    pub fn verify(&self, label: &str, bytes: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        self.verify_bytes(&labelled(label, bytes), signature)
    }

    /// Verifies that the key's holder signed the text as it is.
    pub(crate) fn verify_text(&self, text: &str, signature: &[u8]) -> Result<(), BadSignature> {
        self.verify_bytes(text.as_bytes(), signature)
    }

    fn verify_bytes(&self, bytes: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        if self.is_of_small_order() {
            return Err(BadSignature);
        }
        UnparsedPublicKey::new(&ED25519, &self.0).verify(bytes, signature).map_err(|_| BadSignature)
    }

    /// Whether one signature fits many messages under this key, so that it proves nothing: whoever
    /// publishes such a key could deny all that it signs. aws-lc, as RFC 8032, lets it pass.
    fn is_of_small_order(&self) -> bool {
        let Self([start @ .., last]) = *self;
        // The sign of x is no part of y.
        SMALL_ORDER.iter().any(|[low @ .., high]| start == *low && last & 0x7f == *high)
    }
}

impl KemKey {
    /// A new key from the operating system's randomness.
    ///
    /// # Errors
    /// [`UnknownKem`] for the unspecified KEM.
    pub fn generate(kem: Kem) -> Result<Self, UnknownKem> {
        Self::from_seed(kem, &random::secret(&mut random::System))
    }

    /// The key of a seed: X-Wing's seed, X25519's private key.
    ///
    /// # Errors
    /// [`UnknownKem`] for the unspecified KEM.
    pub fn from_seed(kem: Kem, seed: &[u8; 32]) -> Result<Self, UnknownKem> {
        match kem {
            Kem::Unspecified => Err(UnknownKem),
            Kem::XWing | Kem::X25519 => Ok(Self { kem, seed: Zeroizing::new(*seed) }),
        }
    }

    /// The seed, to be stored.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        self.seed.clone()
    }

    /// Which KEM the key is for.
    pub fn kem(&self) -> Kem {
        self.kem
    }

    /// The public key: 1,216 bytes for X-Wing, 32 for X25519.
    pub fn public(&self) -> Vec<u8> {
        kem::public(self)
    }

    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.seed
    }
}

impl TryFrom<&[u8]> for VerifyingKey {
    type Error = NotAKey;

    fn try_from(bytes: &[u8]) -> Result<Self, NotAKey> {
        bytes.try_into().map(Self).map_err(|_| NotAKey(bytes.len()))
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {:?})", self.public())
    }
}

impl fmt::Debug for KemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KemKey({})", self.kem.as_str_name())
    }
}

/// The label with its length before it (32 bits, big-endian), then the bytes.
fn labelled(label: &str, bytes: &[u8]) -> Vec<u8> {
    [&crate::digest::length(label.as_bytes()), label.as_bytes(), bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_key_label_and_bytes_alone() {
        let key = SigningKey::generate();
        let signature = key.sign("a/v1", b"bytes");
        assert_eq!(key.public().verify("a/v1", b"bytes", &signature), Ok(()));
        assert_eq!(key.public().verify("b/v1", b"bytes", &signature), Err(BadSignature));
        assert_eq!(key.public().verify("a/v1", b"other", &signature), Err(BadSignature));
        assert_eq!(key.public().verify("a/v1b", b"ytes", &signature), Err(BadSignature));
        assert_eq!(SigningKey::generate().public().verify("a/v1", b"bytes", &signature), Err(BadSignature));
        assert_eq!(key.public().verify("a/v1", b"bytes", &signature[..63]), Err(BadSignature));
    }

    #[test]
    fn a_signed_text_is_nothing_else() {
        let key = SigningKey::generate();
        let signature = key.sign_text("text\n");
        assert_eq!(key.public().verify_text("text\n", &signature), Ok(()));
        assert_eq!(key.public().verify_text("text", &signature), Err(BadSignature));
        assert_eq!(key.public().verify("", b"text\n", &signature), Err(BadSignature));
        assert_eq!(key.public().verify_text("text\n", &key.sign("", b"text\n")), Err(BadSignature));
    }

    /// Under the neutral point one signature fits every message: R the same point, S zero.
    #[test]
    fn a_key_of_small_order_verifies_nothing() {
        for sign in [0, 0x80] {
            for mut point in SMALL_ORDER {
                point[31] |= sign;
                let key = VerifyingKey(point);
                let fitting = (0..64_u8).filter(|message| {
                    let signature = [SMALL_ORDER[1], [0; 32]].concat();
                    let text = char::from(*message).to_string();
                    key.verify("a/v1", &[*message], &signature).is_ok()
                        || key.verify_text(&text, &signature).is_ok()
                });
                assert_eq!(fitting.count(), 0, "{key:?}");
            }
        }
    }

    #[test]
    fn a_seed_is_the_key() {
        let key = SigningKey::generate();
        assert_eq!(SigningKey::from_seed(&key.seed()).public(), key.public());
        for (kem, length) in [(Kem::XWing, 1216), (Kem::X25519, 32)] {
            let key = KemKey::generate(kem).unwrap();
            assert_eq!(key.public().len(), length);
            assert_eq!(KemKey::from_seed(kem, &key.seed()).unwrap().public(), key.public());
        }
        assert_eq!(KemKey::generate(Kem::Unspecified).unwrap_err(), UnknownKem);
    }

    #[test]
    fn debug_shows_no_secret() {
        let seed = [0xa5; 32];
        let shown = format!(
            "{:?} {:?}",
            SigningKey::from_seed(&seed),
            KemKey::from_seed(Kem::X25519, &seed).unwrap()
        );
        assert!(!shown.contains("a5a5") && !shown.contains("165, 165"), "{shown}");
    }
}
