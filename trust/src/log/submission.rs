//! What a log sends to a witness (C2SP tlog-witness, the body of `add-checkpoint`): its head, and the proof that the
//! head which the witness has seen last is the beginning of it.
//!
//! ```text
//! old 20852014
//! PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
//! jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
//!
//! <the checkpoint, a signed note>
//! ```

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    note::{NOTE_BYTES, Note, NoteError},
    proof::{HASHES, read_hash},
    tile_path::decimal,
};
use crate::digest::Digest;

/// The longest body, in bytes.
pub const SUBMISSION_BYTES: usize = NOTE_BYTES + HASHES * 45 + 32;

/// A head that a witness is to cosign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The size of the head that the log believes the witness to have seen last; 0 for none.
    pub old: u64,
    /// The proof that the tree of `old` leaves is the beginning of this one.
    pub proof: Vec<Digest>,
    /// The head, signed by the log.
    pub checkpoint: Note,
}

/// Why bytes are no submission: the log that sends them is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmissionError {
    /// Not the lines of one, or too long.
    #[error(
        "a submission (C2SP tlog-witness) is `old <size>`, {HASHES} hashes at most, an empty line and a checkpoint"
    )]
    Form,
    /// What follows is no signed note.
    #[error("the submitted checkpoint: {0}")]
    Note(#[from] NoteError),
}

impl Submission {
    /// Reads a submission; nothing in it is verified.
    ///
    /// # Errors
    /// The bytes are none.
    pub fn parse(bytes: &[u8]) -> Result<Self, SubmissionError> {
        if bytes.len() > SUBMISSION_BYTES {
            return Err(SubmissionError::Form);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| SubmissionError::Form)?;
        let (head, note) = text.split_once("\n\n").ok_or(SubmissionError::Form)?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(decimal);
        let proof: Option<Vec<Digest>> = lines.take(HASHES + 1).map(read_hash).collect();
        let (Some(old), Some(proof)) = (old, proof.filter(|proof| proof.len() <= HASHES)) else {
            return Err(SubmissionError::Form);
        };
        Ok(Self { old, proof, checkpoint: Note::parse(note.as_bytes())? })
    }
}

impl fmt::Display for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        self.proof.iter().try_for_each(|hash| writeln!(f, "{}", STANDARD.encode(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{keys::SigningKey, log::LogSigner};

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        let signer = LogSigner::new("be/log/1".parse().unwrap(), SigningKey::generate());
        let checkpoint = signer.sign(5, Digest([7; 32])).unwrap();
        let submission = Submission { old: 3, proof: vec![Digest([1; 32]), Digest([2; 32])], checkpoint };
        let text = submission.to_string();
        assert_eq!(Submission::parse(text.as_bytes()), Ok(submission.clone()));
        let first = Submission { old: 0, proof: Vec::new(), ..submission };
        assert_eq!(Submission::parse(first.to_string().as_bytes()), Ok(first));
        for wrong in [
            text.replacen("old 3", "old 03", 1),
            text.replacen("old ", "", 1),
            text.replacen("\n\n", "\n", 1),
            text.replacen("AQEB", "AQE", 1),
            String::new(),
            format!("old 1\n{}\n{}", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n".repeat(64), text),
        ] {
            assert!(Submission::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
