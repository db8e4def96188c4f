//! Receipts: all that shows, without the log and offline, that it holds a record. A file of one is named `*.tlog-proof`:
//! a C2SP tlog-proof, and where the record holds what an agency signed, a second one behind it, of the key; see [`Signer`].
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <base64 of the salt's 32 bytes and the record>
//! index <index of the leaf>
//! <base64 of a hash of the inclusion proof, the leaf's sibling first>
//! ...
//!
//! <the checkpoint, a signed note>
//! ```

use std::fmt;

use super::{
    checkpoint::LogKey,
    note::Note,
    record::{RECORD_BYTES, SALT_BYTES, SaltedRecord},
    signer::Signer,
    tlog_proof::{self, Proven, ReceiptError, TlogProof},
};
use crate::digest::Digest;

/// The longest receipt, in bytes.
const RECEIPT_BYTES: usize = 2 * tlog_proof::BYTES
    + (SALT_BYTES + RECORD_BYTES).div_ceil(3) * 4
    + super::signer::ENTRY_BYTES.div_ceil(3) * 4;
/// Where the second tlog-proof begins.
const NEXT: &str = "\nc2sp.org/tlog-proof@v1\n";

/// A record, where it stands in a log, and the signed head that holds it. Its text tells salt and
/// record: whoever has the receipt has the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// What is shown to be in the log.
    pub record: SaltedRecord,
    /// The index of its leaf, from 0.
    pub index: u64,
    /// The inclusion proof, as [`super::inclusion`] makes it.
    pub proof: Vec<Digest>,
    /// The checkpoint, with the log's signature and whatever cosignatures it has.
    pub checkpoint: Note,
    /// Of an acknowledgement, the key that signed it.
    pub signer: Option<Signer>,
}

impl Receipt {
    /// Reads a receipt. What [`fmt::Display`] writes is again the same bytes. Nothing in it is
    /// believed before [`Self::verify`].
    ///
    /// # Errors
    /// The bytes are not a receipt within the limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReceiptError> {
        if bytes.len() > RECEIPT_BYTES {
            return Err(ReceiptError::TooLong);
        }
        let form = |expected| ReceiptError::Form { expected };
        let text = std::str::from_utf8(bytes).map_err(|_| form("UTF-8"))?;
        let (first, second) = match text.find(NEXT) {
            Some(end) => {
                let (first, second) = text.split_at(end + 1);
                (first, Some(second))
            }
            None => (text, None),
        };
        let TlogProof { extra, index, proof, checkpoint } = TlogProof::parse(first)?;
        let record = salted_record(&extra).ok_or(form("the line 'extra' with salt and record"))?;
        let signer = second.map(Signer::parse).transpose()?;
        Ok(Self { record, index, proof, checkpoint, signer })
    }

    /// Verifies that the log with this key holds the record, and tells under which head. Whether
    /// enough witnesses cosigned that head is the caller's to ask, each by its
    /// [`super::WitnessKey::verify`]; whether an agency signed what the record holds, by [`Signer::verify`].
    ///
    /// # Errors
    /// The log did not sign the checkpoint, or the record is not where the receipt says.
    pub fn verify(&self, log: &LogKey) -> Result<Proven, ReceiptError> {
        TlogProof::verify(&self.checkpoint, log, &self.record.entry().leaf_hash(), self.index, &self.proof)
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extra = [self.record.salt().as_slice(), self.record.record()].concat();
        TlogProof::write(f, &extra, self.index, &self.proof, &self.checkpoint)?;
        self.signer.as_ref().map_or(Ok(()), |signer| signer.fmt(f))
    }
}

fn salted_record(extra: &[u8]) -> Option<SaltedRecord> {
    let (salt, record) = extra.split_first_chunk()?;
    SaltedRecord::from_parts(*salt, record.to_vec()).ok()
}
