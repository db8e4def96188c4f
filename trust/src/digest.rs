//! SHA-256 digests. Whatever is hashed from several parts is hashed with a label and with lengths, so
//! that no two different inputs can look alike.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// Bytes that are no digest: their length is not 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest has 32 bytes, this has {0}")]
pub struct NotADigest(pub usize);

/// SHA-256 over the label and the parts, each preceded by its length (32 bits, big-endian).
pub fn hash(label: &str, parts: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA256);
    for part in std::iter::once(label.as_bytes()).chain(parts.iter().copied()) {
        context.update(&length(part));
        context.update(part);
    }
    finish(context)
}

/// SHA-256 over the bytes as they are.
pub fn sha256(bytes: &[u8]) -> Digest {
    let mut context = Context::new(&SHA256);
    context.update(bytes);
    finish(context)
}

/// The label and the parts, each preceded by its length, as one string of bytes.
pub(crate) fn framed(label: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut framed = Vec::new();
    for part in std::iter::once(label.as_bytes()).chain(parts.iter().copied()) {
        framed.extend_from_slice(&length(part));
        framed.extend_from_slice(part);
    }
    framed
}

/// Nothing that is hashed here is longer than the limits on messages, far below 4 GiB.
pub(crate) fn length(part: &[u8]) -> [u8; 4] {
    u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes()
}

fn finish(context: Context) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    Digest(bytes)
}

impl Digest {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl AsRef<[u8]> for Digest {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Digest {
    type Error = NotADigest;

    fn try_from(bytes: &[u8]) -> Result<Self, NotADigest> {
        bytes.try_into().map(Self).map_err(|_| NotADigest(bytes.len()))
    }
}

impl From<Digest> for Bytes {
    fn from(digest: Digest) -> Self {
        Bytes::copy_from_slice(&digest.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_sha_256() {
        assert_eq!(
            sha256(b"abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(hash("x", &[b"ab", b""]), sha256(b"\0\0\0\x01x\0\0\0\x02ab\0\0\0\0"));
        assert_eq!(hash("x", &[b"ab", b""]), sha256(&framed("x", &[b"ab", b""])));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(hash("x", &[b"ab", b"c"]), hash("x", &[b"a", b"bc"]));
        assert_ne!(hash("x", &[b"a"]), hash("xa", &[]));
        assert_ne!(hash("x", &[b"a"]), hash("x", &[b"a", b""]));
    }

    #[test]
    fn has_32_bytes() {
        assert_eq!(Digest::try_from([7; 32].as_slice()), Ok(Digest([7; 32])));
        assert_eq!(Digest::try_from([7; 31].as_slice()), Err(NotADigest(31)));
    }
}
