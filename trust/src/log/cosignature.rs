//! Cosignatures (C2SP tlog-cosignature, `cosignature/v1`: Ed25519 with a time, type 0x04). By one a
//! witness says that, as of that time, this is the largest head it has seen of the log, and that every
//! earlier one it has seen is consistent with it.

use std::{fmt, str::FromStr};

use super::{
    checkpoint::{Checkpoint, CheckpointError},
    note::{Note, NoteError, NoteSignature},
    vkey::{KeyName, Vkey, VkeyError},
};
use crate::keys::{BadSignature, SigningKey, VerifyingKey};

/// The type of a timestamped Ed25519 cosignature.
const COSIGNATURE_V1: u8 = 0x04;
/// The latest time of a cosignature, in seconds since 1970.
const LATEST: u64 = i64::MAX as u64;

/// The key of a witness. Written as a vkey of type 0x04.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessKey(Vkey);

/// What cosigns the checkpoints of other logs. The key must do nothing else: what it signs does not
/// name the witness.
#[derive(Debug)]
pub struct Witness {
    key: WitnessKey,
    secret: SigningKey,
}

/// Why a note is not cosigned by a witness, or can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CosignatureError {
    /// The witness did not cosign it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// What is to be cosigned is no checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The clock of the witness is broken.
    #[error("a cosignature's time is at most {LATEST} seconds since 1970: set the clock")]
    Time,
}

impl WitnessKey {
    /// The key of the witness `name`.
    pub fn new(name: KeyName, key: VerifyingKey) -> Self {
        Self(Vkey::new(name, COSIGNATURE_V1, key))
    }

    /// The name of the witness.
    pub fn name(&self) -> &KeyName {
        self.0.name()
    }

    /// Verifies that the witness cosigned the checkpoint in a note, and tells when: in seconds since
    /// 1970, the latest if it did so more than once. Whether that is in the future, or too long ago, is
    /// the caller's to judge.
    ///
    /// # Errors
    /// The note is no checkpoint, the witness did not cosign it, or one of its cosignatures does not
    /// verify.
    pub fn verify(&self, note: &Note) -> Result<u64, CosignatureError> {
        note.text().parse::<Checkpoint>()?;
        let times = self.0.verify_all(note, |signature| {
            let (time, signature) = signature.split_first_chunk().ok_or(BadSignature)?;
            let time = u64::from_be_bytes(*time);
            if time > LATEST {
                return Err(BadSignature);
            }
            self.0.key().verify_text(&message(time, note.text()), signature)?;
            Ok(time)
        })?;
        Ok(times.into_iter().max().unwrap_or_default())
    }
}

impl Witness {
    /// The witness `name`.
    pub fn new(name: KeyName, secret: SigningKey) -> Self {
        Self { key: WitnessKey::new(name, secret.public()), secret }
    }

    /// By what others verify.
    pub fn key(&self) -> &WitnessKey {
        &self.key
    }

    /// Cosigns a checkpoint, at `time` in seconds since 1970. That the log signed it and that it is
    /// consistent with all that was cosigned before is the caller's to see to, first. The signature goes
    /// back to the log, or on the note by [`Note::with`].
    ///
    /// # Errors
    /// [`CosignatureError::Time`] if the time is above 2^63 - 1.
    pub fn cosign(&self, checkpoint: &Checkpoint, time: u64) -> Result<NoteSignature, CosignatureError> {
        if time > LATEST {
            return Err(CosignatureError::Time);
        }
        let signature = self.secret.sign_text(&message(time, &checkpoint.to_string()));
        let signature = [time.to_be_bytes().as_slice(), &signature].concat();
        Ok(NoteSignature { name: self.key.name().clone(), key_id: self.key.0.id(), signature })
    }
}

/// What a cosignature signs.
fn message(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

impl FromStr for WitnessKey {
    type Err = VkeyError;

    fn from_str(text: &str) -> Result<Self, VkeyError> {
        Vkey::parse(text, COSIGNATURE_V1).map(Self)
    }
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
