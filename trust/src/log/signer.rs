//! Who signed what a record holds: the second part of the receipt of an acknowledgement. It is the tlog-proof of the
//! signer's key record in the domain's log of keys, whose entries are in clear, so that the signature can be verified when
//! neither the agency nor the gateway is there any more.

use std::fmt;

use liaison_proto::{
    log::v1::{Outcome, outcome},
    message::v1::{Acknowledgement, SignedKeyRecord},
    strict::{self, StrictError},
};

use super::{
    checkpoint::LogKey,
    note::Note,
    succession::log_number,
    tlog_proof::{Proven, ReceiptError, TlogProof},
    tree::leaf_hash,
};
use crate::{
    digest::Digest,
    key_record::{self, KeyRecordError, ProvenKey},
    statement::{self, StatementError},
};

/// The longest entry of a log of keys that is read, in bytes: a key record is shorter.
pub(super) const ENTRY_BYTES: usize = 8 << 10;

/// A key record, where it stands in the domain's log of keys, and the signed head that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The log's entry: the encoding of a SignedKeyRecord.
    pub key: Vec<u8>,
    /// The index of its leaf, from 0.
    pub index: u64,
    /// The inclusion proof, as [`super::inclusion`] makes it.
    pub proof: Vec<Digest>,
    /// The checkpoint, with the log's signature and whatever cosignatures it has.
    pub checkpoint: Note,
}

/// Why an agency is not shown to have signed what a record holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// The log of keys is not that of the domain whose log holds the record.
    #[error("the signer's key is not shown to be in the log of keys of {0}")]
    OtherLog(String),
    /// The key record is not in the log of keys.
    #[error("the signer's key: {0}")]
    Receipt(#[from] ReceiptError),
    /// The entry is no key record.
    #[error("the signer's key: {0}")]
    Entry(#[from] StrictError),
    /// The key record does not hold.
    #[error("the signer's key: {0}")]
    Key(#[from] KeyRecordError),
    /// The record holds nothing that an agency signed.
    #[error("the record holds no acknowledgement, and the receipt a key that would have signed it")]
    NothingSigned,
    /// The key did not sign the acknowledgement.
    #[error("the acknowledgement: {0}")]
    Signature(#[from] StatementError),
    /// What is signed is about another copy, or names another key.
    #[error("the acknowledgement has another {0} than its record")]
    Other(&'static str),
}

impl Signer {
    /// Reads the second part of a receipt.
    pub(super) fn parse(text: &str) -> Result<Self, ReceiptError> {
        let TlogProof { extra: key, index, proof, checkpoint } = TlogProof::parse(text)?;
        if key.len() > ENTRY_BYTES {
            return Err(ReceiptError::TooLong);
        }
        Ok(Self { key, index, proof, checkpoint })
    }

    /// Verifies that the recipient signed the acknowledgement in a record of the log with this key: by a key that stands
    /// in the log of keys of the same domain, whose heads are signed by the same key. Tells what is shown of that
    /// log, and the key.
    ///
    /// # Errors
    /// The acknowledgement is not shown to be the recipient's word about what the record says.
    pub fn verify(&self, log: &LogKey, outcome: &Outcome) -> Result<(Proven, ProvenKey), SignerError> {
        let Some(outcome::Event::Acknowledged(signed)) = &outcome.event else {
            return Err(SignerError::NothingSigned);
        };
        let log = self.log(log)?;
        let proven =
            TlogProof::verify(&self.checkpoint, &log, &leaf_hash(&self.key), self.index, &self.proof)?;
        let key = key_record::prove(&strict::decode::<SignedKeyRecord>(&self.key)?)?;
        let read: Acknowledgement = statement::read(signed, &key.signing)?;
        let is_same = [
            ("recipient", read.recipient == outcome.recipient),
            ("recipient", key.agency.to_string() == outcome.recipient),
            ("key", read.key_id == key.id.as_bytes().as_slice()),
            ("message", read.message_id == outcome.message_id),
            ("manifest", read.manifest_digest == outcome.manifest_digest),
        ];
        match is_same.iter().find(|(_, same)| !same) {
            Some((what, _)) => Err(SignerError::Other(what)),
            None => Ok((proven, key)),
        }
    }

    /// The key of the log of keys that the checkpoint is of, where that is the one of the same domain.
    fn log(&self, log: &LogKey) -> Result<LogKey, SignerError> {
        let (domain, _) = log.name().as_str().split_once('/').unwrap_or((log.name().as_str(), ""));
        let other = || SignerError::OtherLog(domain.to_owned());
        let origin = self.checkpoint.text().lines().next().unwrap_or_default();
        let (of, _) = log_number(origin).ok_or_else(other)?;
        if of.strip_prefix(domain) != Some("/keys") {
            return Err(other());
        }
        Ok(LogKey::new(origin.parse().map_err(|_| other())?, *log.key()))
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        TlogProof::write(f, &self.key, self.index, &self.proof, &self.checkpoint)
    }
}
