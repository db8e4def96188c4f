//! Signed notes (C2SP signed-note): a text with the signatures below it.
//!
//! ```text
//! This is an example message.
//!
//! — example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
//! ```

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::vkey::KeyName;

/// The longest note, in bytes: room for the 16 signatures that every reader must bear, of post-quantum
/// size.
pub(super) const NOTE_BYTES: usize = 128 << 10;
/// The most signatures of a note.
const SIGNATURES: usize = 64;
/// The longest signature, in bytes: that of ML-DSA-87 has 4,627.
const SIGNATURE_BYTES: usize = 8 << 10;
/// What a signature line begins with: an em dash and a space.
const DASH: &str = "\u{2014} ";

/// A text with its signatures. Reading one verifies none of them: believe no text before the key that
/// must have signed it says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// A signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    pub(super) name: KeyName,
    pub(super) key_id: u32,
    pub(super) signature: Vec<u8>,
}

/// Why something is no signed note, or not one of that signer: whoever wrote it is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// More than a note may have.
    #[error("a signed note has at most {NOTE_BYTES} bytes and {SIGNATURES} signatures")]
    TooLong,
    /// Not UTF-8, or a control character.
    #[error("a signed note is UTF-8 without control characters but newlines")]
    Characters,
    /// No empty line with signatures after it, or no newline at the end.
    #[error("a signed note is a text, an empty line and signature lines, each ended by a newline")]
    Form,
    /// A line among the signatures that is none.
    #[error(
        "a signature line is an em dash, a space, the key's name, a space, and base64 of key id and signature"
    )]
    SignatureLine,
    /// No signature under the name and id of the key.
    #[error("the note is not signed by {0} with the key known here")]
    NotSignedBy(KeyName),
    /// A signature under the name and id of the key that is not by it.
    #[error("the signature of {0} does not verify: the note was changed, or is a forgery")]
    BadSignature(KeyName),
}

impl Note {
    /// Puts a text and its first signature together.
    pub(super) fn signed(text: String, signature: NoteSignature) -> Result<Self, NoteError> {
        Self { text, signatures: vec![signature] }.within_limits()
    }

    /// Reads a note. What [`fmt::Display`] writes is again the same bytes.
    ///
    /// # Errors
    /// The bytes are not a note within the limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_BYTES {
            return Err(NoteError::TooLong);
        }
        let note = std::str::from_utf8(bytes).map_err(|_| NoteError::Characters)?;
        if note.bytes().any(|byte| byte < b' ' && byte != b'\n') {
            return Err(NoteError::Characters);
        }
        let (text, lines) = note.rsplit_once("\n\n").ok_or(NoteError::Form)?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Form)?;
        if lines.split('\n').count() > SIGNATURES {
            return Err(NoteError::TooLong);
        }
        let signatures = lines.split('\n').map(NoteSignature::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: format!("{text}\n"), signatures })
    }

    /// What is signed, the newline at its end included.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures, in their order.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// The note with one more signature, in place of those that the same key made before.
    ///
    /// # Errors
    /// [`NoteError::TooLong`] if the note has no room for it.
    pub fn with(mut self, signature: NoteSignature) -> Result<Self, NoteError> {
        self.signatures.retain(|old| (&old.name, old.key_id) != (&signature.name, signature.key_id));
        self.signatures.push(signature);
        self.within_limits()
    }

    /// The note with those of its signatures alone; none if that leaves none.
    pub(super) fn only(mut self, keep: impl Fn(&NoteSignature) -> bool) -> Option<Self> {
        self.signatures.retain(keep);
        (!self.signatures.is_empty()).then_some(self)
    }

    fn within_limits(self) -> Result<Self, NoteError> {
        let within = self.signatures.len() <= SIGNATURES && self.to_string().len() <= NOTE_BYTES;
        if within { Ok(self) } else { Err(NoteError::TooLong) }
    }
}

impl NoteSignature {
    /// The name of the key that it is said to be by.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// Reads a signature line, without the newline at its end.
    ///
    /// # Errors
    /// [`NoteError::SignatureLine`] if it is none.
    pub fn parse(line: &str) -> Result<Self, NoteError> {
        Self::read(line).ok_or(NoteError::SignatureLine)
    }

    fn read(line: &str) -> Option<Self> {
        let (name, encoded) = line.strip_prefix(DASH)?.split_once(' ')?;
        let name = name.parse().ok()?;
        // Four characters of base64 are three bytes.
        if encoded.len() > (4 + SIGNATURE_BYTES).div_ceil(3) * 4 {
            return None;
        }
        let bytes = STANDARD.decode(encoded).ok()?;
        let (id, signature) = bytes.split_first_chunk()?;
        let valid = (1..=SIGNATURE_BYTES).contains(&signature.len());
        valid.then(|| Self { name, key_id: u32::from_be_bytes(*id), signature: signature.to_vec() })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.key_id.to_be_bytes().as_slice(), &self.signature].concat();
        write!(f, "{DASH}{} {}", self.name, STANDARD.encode(bytes))
    }
}
