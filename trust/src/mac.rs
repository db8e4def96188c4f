//! Authentication codes: HMAC-SHA256 by which the holder of a key knows again what it wrote itself.

use std::fmt;

use aws_lc_rs::hmac;

use crate::{digest::framed, keys::SigningKey};

/// A key of authentication codes of one purpose.
#[derive(Clone)]
pub struct MacKey {
    label: &'static str,
    key: hmac::Key,
}

/// The bytes of a code.
pub const MAC_BYTES: usize = 32;

impl MacKey {
    /// The key of a purpose that follows from a signing key, and tells nothing of it.
    pub fn derived(from: &SigningKey, label: &'static str) -> Self {
        Self { label, key: hmac::Key::new(hmac::HMAC_SHA256, from.derived(label).seed().as_slice()) }
    }

    /// The code over the label and the parts, each preceded by its length (32 bits, big-endian).
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; MAC_BYTES] {
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(hmac::sign(&self.key, &framed(self.label, parts)).as_ref());
        mac
    }

    /// Whether this is the code of these parts; it takes as long whatever the code is.
    pub fn is_of(&self, parts: &[&[u8]], mac: &[u8]) -> bool {
        hmac::verify(&self.key, &framed(self.label, parts), mac).is_ok()
    }
}

/// Shows no secret.
impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MacKey({})", self.label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_holds_for_its_key_label_and_parts_alone() {
        let signing = SigningKey::from_seed(&[7; 32]);
        let key = MacKey::derived(&signing, "a/v1");
        let mac = key.mac(&[b"ab", b"c"]);
        assert!(key.is_of(&[b"ab", b"c"], &mac));
        assert!(!key.is_of(&[b"a", b"bc"], &mac) && !key.is_of(&[b"ab"], &mac));
        assert!(!key.is_of(&[b"ab", b"c"], &mac[..31]) && !key.is_of(&[b"ab", b"c"], &[]));
        assert!(!MacKey::derived(&signing, "b/v1").is_of(&[b"ab", b"c"], &mac));
        let other = SigningKey::from_seed(&[8; 32]);
        assert!(!MacKey::derived(&other, "a/v1").is_of(&[b"ab", b"c"], &mac));
    }

    /// HMAC-SHA256 (RFC 2104) as another implementation makes it of the same bytes: Python's `hmac`.
    #[test]
    fn a_code_is_hmac_sha256_over_lengths_and_parts() {
        let key = MacKey { label: "a/v1", key: hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]) };
        assert_eq!(
            hex::encode(key.mac(&[b"ab", b"c"])),
            "49a56f164f47469e1a46abc216cf5fc80d1ce44fa70d12937667c9aa42776d5a"
        );
    }
}
