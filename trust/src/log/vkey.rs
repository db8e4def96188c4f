//! Who signs notes (C2SP signed-note): names, key ids, and keys in the form of vkeys.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::note::{Note, NoteError};
use crate::{
    digest::sha256,
    keys::{BadSignature, VerifyingKey},
};

/// The longest name of a key, in bytes.
pub(super) const NAME_BYTES: usize = 255;

/// The name of a key, by which its signatures are found: 1 to 255 bytes of UTF-8 without spaces of any
/// kind, control characters and `+`. A log's key is called as its log is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

/// Why a text is no vkey, or no name of one: whoever wrote it down is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VkeyError {
    /// Not a [`KeyName`].
    #[error("a key's name has 1 to {NAME_BYTES} bytes without spaces, control characters and '+'")]
    Name,
    /// Not a vkey at all.
    #[error("a vkey is written <name>+<key id, 8 hexadecimal digits>+<base64 of type and public key>")]
    Form,
    /// A key for something else.
    #[error("this key makes signatures of type {got:#04x}, where one of type {expected:#04x} is needed")]
    Type { expected: u8, got: u8 },
    /// The key id is another key's: the text was cut, mixed up or mistyped.
    #[error("the vkey's key id does not fit its name and key: copy it anew")]
    Id,
}

/// An Ed25519 key with its name, for one type of signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Vkey {
    name: KeyName,
    kind: u8,
    key: VerifyingKey,
    id: u32,
}

impl KeyName {
    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = VkeyError;

    fn from_str(text: &str) -> Result<Self, VkeyError> {
        let forbidden = |c: char| c.is_whitespace() || c < ' ' || c == '+';
        let valid = (1..=NAME_BYTES).contains(&text.len()) && !text.contains(forbidden);
        valid.then(|| Self(text.to_owned())).ok_or(VkeyError::Name)
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Vkey {
    /// The key id is SHA-256(name, newline, type, public key), the first four bytes of it, big-endian.
    pub(super) fn new(name: KeyName, kind: u8, key: VerifyingKey) -> Self {
        let digest = sha256(&[name.as_str().as_bytes(), b"\n", &[kind], key.as_bytes()].concat());
        let [a, b, c, d, ..] = digest.0;
        Self { name, kind, key, id: u32::from_be_bytes([a, b, c, d]) }
    }

    /// Reads a vkey of this type.
    pub(super) fn parse(text: &str, kind: u8) -> Result<Self, VkeyError> {
        // A `+` of base64 comes after the second one that divides.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(material)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(VkeyError::Form);
        };
        let name = name.parse()?;
        let material = STANDARD.decode(material).map_err(|_| VkeyError::Form)?;
        let (got, key) = material.split_first().ok_or(VkeyError::Form)?;
        if *got != kind {
            return Err(VkeyError::Type { expected: kind, got: *got });
        }
        let key = VerifyingKey::try_from(key).map_err(|_| VkeyError::Form)?;
        let vkey = Self::new(name, kind, key);
        if format!("{:08x}", vkey.id) == id { Ok(vkey) } else { Err(VkeyError::Id) }
    }

    pub(super) fn name(&self) -> &KeyName {
        &self.name
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn key(&self) -> &VerifyingKey {
        &self.key
    }

    /// This key's signatures on a note, each as `verify` reads it: at least one, and none that does not
    /// verify.
    pub(super) fn verify_all<T>(
        &self,
        note: &Note,
        verify: impl Fn(&[u8]) -> Result<T, BadSignature>,
    ) -> Result<Vec<T>, NoteError> {
        let mine = note.signatures().iter().filter(|of| of.name == self.name && of.key_id == self.id);
        let verified: Result<Vec<T>, BadSignature> = mine.map(|of| verify(&of.signature)).collect();
        match verified {
            Err(BadSignature) => Err(NoteError::BadSignature(self.name.clone())),
            Ok(verified) if verified.is_empty() => Err(NoteError::NotSignedBy(self.name.clone())),
            Ok(verified) => Ok(verified),
        }
    }
}

impl fmt::Display for Vkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let material = [&[self.kind], self.key.as_bytes().as_slice()].concat();
        write!(f, "{}+{:08x}+{}", self.name, self.id, STANDARD.encode(material))
    }
}
