//! Checkpoints (C2SP tlog-checkpoint): the head of a log as the text of a signed note, and the log's
//! own signature on it (Ed25519, type 0x01).
//!
//! ```text
//! example.com/behind-the-sofa
//! 20852163
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//! ```

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    MAX_SIZE,
    note::{Note, NoteError, NoteSignature},
    tile_path::decimal,
    vkey::{KeyName, NAME_BYTES, Vkey, VkeyError},
};
use crate::{
    digest::Digest,
    keys::{SigningKey, VerifyingKey},
};

/// The type of a plain Ed25519 signature on a note.
const ED25519: u8 = 0x01;
/// The most extension lines of a checkpoint.
const EXTENSIONS: usize = 16;
/// The longest extension line, in bytes.
const EXTENSION_BYTES: usize = 1024;

/// The head of a log: so many leaves, and the root over them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    size: u64,
    root: Digest,
    extensions: Vec<String>,
}

/// Why a text is no checkpoint, or can't be made one: whoever wrote it is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not the lines of a checkpoint.
    #[error("a checkpoint is an origin, a size, a root and extensions, one a line, and no empty line")]
    Form,
    /// The origin is too long.
    #[error("a checkpoint's origin has 1 to {NAME_BYTES} bytes on one line")]
    Origin,
    /// The size is not a number as it is to be written, or too large.
    #[error("a checkpoint's size is a decimal number without leading zeros, at most {MAX_SIZE}")]
    Size,
    /// The root is not 32 bytes.
    #[error("a checkpoint's root is the base64 of 32 bytes")]
    Root,
    /// More or longer extensions than this version reads.
    #[error("a checkpoint has at most {EXTENSIONS} extension lines, of 1 to {EXTENSION_BYTES} bytes each")]
    Extension,
}

/// Why a note is not the checkpoint of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The log did not sign it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// What is signed is no checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// What is signed is another log's.
    #[error("{key} signed a checkpoint of another log, {origin}")]
    Origin { key: KeyName, origin: String },
}

/// The key by which a log is known: its name is the log's origin. Written as a vkey of type 0x01.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogKey(Vkey);

/// What signs a log's checkpoints. The key must sign nothing else that is a note.
#[derive(Debug)]
pub struct LogSigner {
    key: LogKey,
    secret: SigningKey,
}

impl Checkpoint {
    /// The head of the log `origin`, with `size` leaves and the root over them, without extensions.
    ///
    /// # Errors
    /// The size is above [`MAX_SIZE`].
    pub fn new(origin: &KeyName, size: u64, root: Digest) -> Result<Self, CheckpointError> {
        if size > MAX_SIZE {
            return Err(CheckpointError::Size);
        }
        Ok(Self { origin: origin.as_str().to_owned(), size, root, extensions: Vec::new() })
    }

    /// The checkpoint with one more extension line. Nobody but the log says that it is true: a witness
    /// does not look at it.
    ///
    /// # Errors
    /// The line is empty, too long, or no line; or there are too many.
    pub fn with_extension(mut self, line: &str) -> Result<Self, CheckpointError> {
        if !is_line(line, EXTENSION_BYTES) || self.extensions.len() >= EXTENSIONS {
            return Err(CheckpointError::Extension);
        }
        self.extensions.push(line.to_owned());
        Ok(self)
    }

    /// Which log it is the head of.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root over them.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// The log's key as the checkpoint tells it: the extension line that is a vkey of the log's name. It is worth as
    /// much as whoever believes it knows of it from elsewhere.
    pub fn told_key(&self) -> Option<LogKey> {
        let keys = self.extensions.iter().filter_map(|line| line.parse().ok());
        keys.into_iter().find(|key: &LogKey| key.name().as_str() == self.origin)
    }

    /// The lines after the root.
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    /// Reads the text of a note. What [`fmt::Display`] writes is again the same text.
    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::Form)?.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(CheckpointError::Form);
        };
        if !is_line(origin, NAME_BYTES) {
            return Err(CheckpointError::Origin);
        }
        let size = decimal(size).filter(|size| *size <= MAX_SIZE).ok_or(CheckpointError::Size)?;
        let root = STANDARD.decode(root).map_err(|_| CheckpointError::Root)?;
        let root = Digest::try_from(root.as_slice()).map_err(|_| CheckpointError::Root)?;
        let checkpoint = Self { origin: origin.to_owned(), size, root, extensions: Vec::new() };
        lines.try_fold(checkpoint, Self::with_extension)
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, STANDARD.encode(self.root))?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl LogKey {
    /// The key of the log `name`.
    pub fn new(name: KeyName, key: VerifyingKey) -> Self {
        Self(Vkey::new(name, ED25519, key))
    }

    /// The log's origin.
    pub fn name(&self) -> &KeyName {
        self.0.name()
    }

    /// The key itself.
    pub fn key(&self) -> &VerifyingKey {
        self.0.key()
    }

    /// The note with no other signatures than those under the name and id of this key.
    ///
    /// # Errors
    /// There is none.
    pub fn bare(&self, note: Note) -> Result<Note, NoteError> {
        note.only(|signature| signature.name == *self.name() && signature.key_id == self.0.id())
            .ok_or_else(|| NoteError::NotSignedBy(self.name().clone()))
    }

    /// Verifies that the key's holder signed the note's text.
    ///
    /// # Errors
    /// The key did not sign it, or one of its signatures does not verify.
    pub fn verify(&self, note: &Note) -> Result<(), NoteError> {
        self.0.verify_all(note, |signature| self.0.key().verify_text(note.text(), signature)).map(drop)
    }

    /// The checkpoint in a note that the log signed.
    ///
    /// # Errors
    /// The log did not sign it, or it is no checkpoint of this log.
    pub fn open(&self, note: &Note) -> Result<Checkpoint, OpenError> {
        self.verify(note)?;
        let checkpoint: Checkpoint = note.text().parse()?;
        if checkpoint.origin != self.name().as_str() {
            return Err(OpenError::Origin { key: self.name().clone(), origin: checkpoint.origin });
        }
        Ok(checkpoint)
    }
}

impl LogSigner {
    /// The signer of the log `name`.
    pub fn new(name: KeyName, secret: SigningKey) -> Self {
        Self { key: LogKey::new(name, secret.public()), secret }
    }

    /// By what others verify.
    pub fn key(&self) -> &LogKey {
        &self.key
    }

    /// Signs the log's head of `size` leaves. A log must never sign two heads of which one is not the
    /// beginning of the other: that is the caller's to see to.
    ///
    /// # Errors
    /// The size is above [`MAX_SIZE`].
    pub fn sign(&self, size: u64, root: Digest) -> Result<Note, OpenError> {
        self.sign_checkpoint(&Checkpoint::new(self.key.name(), size, root)?)
    }

    /// Signs a head of this log that has extension lines; see [`Self::sign`].
    ///
    /// # Errors
    /// It is another log's.
    pub fn sign_checkpoint(&self, checkpoint: &Checkpoint) -> Result<Note, OpenError> {
        let key = self.key.name();
        if checkpoint.origin != key.as_str() {
            return Err(OpenError::Origin { key: key.clone(), origin: checkpoint.origin.clone() });
        }
        let text = checkpoint.to_string();
        let signature = self.secret.sign_text(&text).to_vec();
        let signature = NoteSignature { name: key.clone(), key_id: self.key.0.id(), signature };
        Ok(Note::signed(text, signature)?)
    }
}

impl FromStr for LogKey {
    type Err = VkeyError;

    fn from_str(text: &str) -> Result<Self, VkeyError> {
        Vkey::parse(text, ED25519).map(Self)
    }
}

impl fmt::Display for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a text is one line of a note, not empty and at most so many bytes.
fn is_line(text: &str, bytes: usize) -> bool {
    (1..=bytes).contains(&text.len()) && text.bytes().all(|byte| byte >= b' ')
}
