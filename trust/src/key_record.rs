//! Key records: an agency's public keys, each record signed by itself and by the one before it.

use bytes::Bytes;
use liaison_proto::{
    message::v1::{KeyRecord, SignedKeyRecord, kem::Code as Kem},
    strict::{self, StrictError},
    times,
};
use prost::Message;
use time::OffsetDateTime;

use crate::{
    digest::{Digest, sha256},
    kem,
    keys::{KemKey, SigningKey, VerifyingKey},
    names::{AgencyAddress, NameError},
};

/// Label of both signatures.
const LABEL: &str = "key-record/v1";
/// A record is far shorter, bytes.
const LONGEST: usize = 2048;

/// A key record whose own signature holds. That it is the agency's is for the caller to know: by a
/// pin, by [`follows`], or by an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenKey {
    /// SHA-256 digest of the record's bytes.
    pub id: Digest,
    /// Whose keys they are.
    pub agency: AgencyAddress,
    /// 0 for the agency's first record.
    pub sequence: u32,
    /// The key that verifies the agency's signatures.
    pub signing: VerifyingKey,
    /// The KEM of `kem_key`.
    pub kem: Kem,
    /// The key to seal to.
    pub kem_key: Bytes,
    /// First moment of validity.
    pub not_before: OffsetDateTime,
    /// Last moment of validity.
    pub not_after: OffsetDateTime,
    /// Id of the record before; none for the first.
    pub previous: Option<Digest>,
    /// The record with its signatures, as it was proven.
    pub signed: SignedKeyRecord,
}

/// Why a key record, or a chain of them, is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRecordError {
    #[error("the key record has {0} bytes, more than {LONGEST}")]
    TooLong(usize),
    #[error(transparent)]
    Strict(#[from] StrictError),
    #[error("the key record's agency is no address: {0}")]
    Agency(#[from] NameError),
    #[error("the key record's field {0} is missing or malformed")]
    Field(&'static str),
    #[error("the key record of {agency} is not signed by its own key")]
    BadSignature { agency: AgencyAddress },
    #[error("the key record {sequence} of {agency} is not signed by the key before it")]
    NotByPredecessor { agency: AgencyAddress, sequence: u32 },
    #[error("the key record of {agency} does not follow the one before it: wrong {what}")]
    BrokenChain { agency: AgencyAddress, what: &'static str },
    #[error("a chain of key records starts with a first record")]
    NoFirst,
    #[error("the signing key is not the one of the record before")]
    WrongSigner,
}

/// Makes an agency's first record.
pub fn first(
    agency: &AgencyAddress,
    signing: &SigningKey,
    kem: &KemKey,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
) -> SignedKeyRecord {
    let record = record(agency, 0, signing, kem, not_before, not_after, Bytes::new());
    sign(record, signing, None)
}

/// Makes the record after `previous`, with `previous_signer` as the key of that one.
///
/// # Errors
/// `previous` does not hold, or `previous_signer` is not its key.
pub fn next(
    previous: &SignedKeyRecord,
    previous_signer: &SigningKey,
    signing: &SigningKey,
    kem: &KemKey,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
) -> Result<SignedKeyRecord, KeyRecordError> {
    let previous = prove(previous)?;
    if previous.signing != previous_signer.public() {
        return Err(KeyRecordError::WrongSigner);
    }
    let sequence = previous.sequence.checked_add(1).ok_or(KeyRecordError::Field("sequence"))?;
    let record = record(&previous.agency, sequence, signing, kem, not_before, not_after, previous.id.into());
    Ok(sign(record, signing, Some(previous_signer)))
}

/// Believes that a record was made by the holder of its signing key.
///
/// # Errors
/// What is wrong with it.
pub fn prove(signed: &SignedKeyRecord) -> Result<ProvenKey, KeyRecordError> {
    let bytes = &signed.record;
    if bytes.len() > LONGEST {
        return Err(KeyRecordError::TooLong(bytes.len()));
    }
    let record: KeyRecord = strict::decode(bytes)?;
    let field = KeyRecordError::Field;
    let moment = |at: &Option<_>, name| at.as_ref().and_then(times::from_wire).ok_or(field(name));
    let previous = match (record.sequence, record.previous.as_ref()) {
        (0, []) => None,
        (0, _) => return Err(field("previous")),
        (_, id) => Some(Digest::try_from(id).map_err(|_| field("previous"))?),
    };
    // The signature of the record before is verified where that record is: here only its shape.
    if signed.predecessor_signature.len() != if previous.is_some() { 64 } else { 0 } {
        return Err(field("predecessor_signature"));
    }
    if !kem::is_public_key(record.kem(), &record.kem_key) {
        return Err(field("kem_key"));
    }
    let proven = ProvenKey {
        id: sha256(bytes),
        agency: record.agency.parse()?,
        sequence: record.sequence,
        signing: VerifyingKey::try_from(record.signing_key.as_ref()).map_err(|_| field("signing_key"))?,
        kem: record.kem(),
        not_before: moment(&record.not_before, "not_before")?,
        not_after: moment(&record.not_after, "not_after")?,
        kem_key: record.kem_key,
        previous,
        // A copy of its own: a key is kept, and `signed` may refer into the whole message that it came with.
        signed: SignedKeyRecord {
            record: Bytes::copy_from_slice(bytes),
            signature: Bytes::copy_from_slice(&signed.signature),
            predecessor_signature: Bytes::copy_from_slice(&signed.predecessor_signature),
        },
    };
    if proven.not_after <= proven.not_before {
        return Err(field("not_after"));
    }
    match proven.signing.verify(LABEL, bytes, &signed.signature) {
        Ok(()) => Ok(proven),
        Err(_) => Err(KeyRecordError::BadSignature { agency: proven.agency }),
    }
}

/// Believes all records of an agency, from its first on.
///
/// # Errors
/// What is wrong with the first that is not believed.
pub fn prove_chain(chain: &[SignedKeyRecord]) -> Result<Vec<ProvenKey>, KeyRecordError> {
    let (first, rest) = chain.split_first().ok_or(KeyRecordError::NoFirst)?;
    let mut last = prove(first)?;
    if last.previous.is_some() {
        return Err(KeyRecordError::NoFirst);
    }
    let mut proven = Vec::with_capacity(chain.len());
    for next in rest {
        let next = follows(&last, next)?;
        proven.push(std::mem::replace(&mut last, next));
    }
    proven.push(last);
    Ok(proven)
}

/// Believes that a record is the same agency's next one.
///
/// # Errors
/// What is wrong with it.
pub fn follows(previous: &ProvenKey, next: &SignedKeyRecord) -> Result<ProvenKey, KeyRecordError> {
    let proven = prove(next)?;
    let broken = |what| KeyRecordError::BrokenChain { agency: previous.agency.clone(), what };
    if proven.agency != previous.agency {
        return Err(broken("agency"));
    }
    if Some(proven.sequence) != previous.sequence.checked_add(1) {
        return Err(broken("sequence"));
    }
    if proven.previous != Some(previous.id) {
        return Err(broken("previous"));
    }
    match previous.signing.verify(LABEL, &next.record, &next.predecessor_signature) {
        Ok(()) => Ok(proven),
        Err(_) => Err(KeyRecordError::NotByPredecessor { agency: proven.agency, sequence: proven.sequence }),
    }
}

fn record(
    agency: &AgencyAddress,
    sequence: u32,
    signing: &SigningKey,
    kem: &KemKey,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    previous: Bytes,
) -> Bytes {
    let record = KeyRecord {
        agency: agency.to_string(),
        sequence,
        signing_key: Bytes::copy_from_slice(signing.public().as_bytes()),
        kem: kem.kem().into(),
        kem_key: kem.public().into(),
        not_before: Some(times::to_wire(not_before)),
        not_after: Some(times::to_wire(not_after)),
        previous,
    };
    record.encode_to_vec().into()
}

fn sign(record: Bytes, signing: &SigningKey, previous: Option<&SigningKey>) -> SignedKeyRecord {
    let by = |key: &SigningKey| Bytes::copy_from_slice(&key.sign(LABEL, &record));
    SignedKeyRecord {
        signature: by(signing),
        predecessor_signature: previous.map(by).unwrap_or_default(),
        record,
    }
}

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;

    const FROM: OffsetDateTime = datetime!(2026-11-01 00:00:00 UTC);
    const TO: OffsetDateTime = datetime!(2026-12-01 00:00:00 UTC);

    fn agency() -> AgencyAddress {
        "be/shelter".parse().unwrap()
    }

    fn keys() -> (SigningKey, KemKey) {
        (SigningKey::generate(), KemKey::generate(Kem::X25519).unwrap())
    }

    /// Three records, each by its own keys, and the signing keys.
    fn chain() -> (Vec<SignedKeyRecord>, Vec<SigningKey>) {
        let (signing, kem) = keys();
        let mut chain = vec![first(&agency(), &signing, &kem, FROM, TO)];
        let mut signers = vec![signing];
        for _ in 0..2 {
            let (signing, kem) = keys();
            let last = chain.last().unwrap();
            chain.push(next(last, signers.last().unwrap(), &signing, &kem, FROM, TO).unwrap());
            signers.push(signing);
        }
        (chain, signers)
    }

    /// A record with something changed, signed by the given keys.
    fn changed(
        signed: &SignedKeyRecord,
        by: &SigningKey,
        before: Option<&SigningKey>,
        change: impl FnOnce(&mut KeyRecord),
    ) -> SignedKeyRecord {
        let mut record = KeyRecord::decode(signed.record.clone()).unwrap();
        change(&mut record);
        sign(record.encode_to_vec().into(), by, before)
    }

    #[test]
    fn a_chain_is_proven_from_its_first_record() {
        let (chain, signers) = chain();
        let proven = prove_chain(&chain).unwrap();
        assert_eq!(proven.iter().map(|key| key.sequence).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(proven[2].previous, Some(proven[1].id));
        assert_eq!(proven[2].id, sha256(&chain[2].record));
        assert_eq!(proven[2].signing, signers[2].public());
        assert_eq!((proven[2].not_before, proven[2].not_after), (FROM, TO));
        assert_eq!(proven[0].signed, chain[0]);
        assert_eq!(follows(&proven[0], &chain[1]).unwrap(), proven[1]);
        assert_eq!(prove_chain(&[]), Err(KeyRecordError::NoFirst));
        assert_eq!(prove_chain(&chain[1..]), Err(KeyRecordError::NoFirst));
        let gap = [chain[0].clone(), chain[2].clone()];
        let broken = |what| Err(KeyRecordError::BrokenChain { agency: agency(), what });
        assert_eq!(prove_chain(&gap), broken("sequence"));
    }

    #[test]
    fn a_proven_key_keeps_nothing_of_the_message_that_it_came_with() {
        let (mut chain, _) = chain();
        let record = chain.swap_remove(0);
        let whole = Bytes::from([record.record.as_ref(), record.signature.as_ref(), &[0; 1 << 20]].concat());
        let (end, signed) = (record.record.len(), record.record.len() + record.signature.len());
        let came = SignedKeyRecord {
            record: whole.slice(..end),
            signature: whole.slice(end..signed),
            predecessor_signature: Bytes::new(),
        };
        let proven = prove(&came).unwrap();
        assert_eq!(proven.signed, record);
        drop(came);
        assert!(whole.is_unique(), "a mebibyte stays for a key");
    }

    /// What an operator would try who wants to put a key of their own in an agency's place.
    #[test]
    fn no_other_key_follows() {
        let (chain, signers) = chain();
        let proven = prove_chain(&chain).unwrap();
        let (own, _) = keys();
        let broken = |what| Err(KeyRecordError::BrokenChain { agency: agency(), what });
        let put = |record: &mut KeyRecord| {
            record.signing_key = Bytes::copy_from_slice(own.public().as_bytes());
        };
        let not_signed = Err(KeyRecordError::NotByPredecessor { agency: agency(), sequence: 2 });
        assert_eq!(follows(&proven[1], &changed(&chain[2], &own, Some(&own), put)), not_signed);
        // The predecessor's signature of its true successor.
        let mut stolen = changed(&chain[2], &own, Some(&own), put);
        stolen.predecessor_signature = chain[2].predecessor_signature.clone();
        assert_eq!(follows(&proven[1], &stolen), not_signed);
        let elsewhere = |record: &mut KeyRecord| record.agency = "be/other".into();
        let moved = changed(&chain[2], &signers[2], Some(&signers[1]), elsewhere);
        assert_eq!(follows(&proven[1], &moved), broken("agency"));
        let forked =
            changed(&chain[2], &signers[2], Some(&signers[1]), |record| record.previous = chain_id(0));
        assert_eq!(follows(&proven[1], &forked), broken("previous"));
        let (signing, kem) = keys();
        assert_eq!(next(&chain[0], &own, &signing, &kem, FROM, TO), Err(KeyRecordError::WrongSigner));
        let again = first(&agency(), &own, &kem, FROM, TO);
        assert_eq!(follows(&proven[1], &again), broken("sequence"));
    }

    fn chain_id(byte: u8) -> Bytes {
        Digest([byte; 32]).into()
    }

    #[test]
    fn a_record_is_of_its_own_key() {
        let (chain, signers) = chain();
        let (own, _) = keys();
        let refused = |change: &dyn Fn(&mut KeyRecord)| {
            prove(&changed(&chain[0], &signers[0], None, change)).unwrap_err()
        };
        let field = KeyRecordError::Field;
        let unsigned = KeyRecordError::BadSignature { agency: agency() };
        assert_eq!(prove(&changed(&chain[0], &own, None, |_| ())).unwrap_err(), unsigned);
        assert_eq!(refused(&|record| record.signing_key.truncate(31)), field("signing_key"));
        assert_eq!(refused(&|record| record.kem = Kem::XWing.into()), field("kem_key"));
        assert_eq!(refused(&|record| record.kem = 0), field("kem_key"));
        assert_eq!(refused(&|record| record.kem_key = vec![1; 33].into()), field("kem_key"));
        // Nobody could seal to a point of small order.
        assert_eq!(refused(&|record| record.kem_key = vec![0; 32].into()), field("kem_key"));
        assert_eq!(refused(&|record| record.not_before = None), field("not_before"));
        assert_eq!(refused(&|record| record.not_after = record.not_before), field("not_after"));
        assert_eq!(refused(&|record| record.previous = chain_id(0)), field("previous"));
        assert_eq!(refused(&|record| record.sequence = 1), field("previous"));
        assert_eq!(refused(&|record| record.agency = "Anna".into()), NameError::Address.into());
        assert!(matches!(refused(&|record| record.kem = 9), KeyRecordError::Strict(_)));
        assert_eq!(refused(&|record| record.agency = "a".repeat(3000)), KeyRecordError::TooLong(3089));
        let mut extra = chain[0].clone();
        extra.predecessor_signature = vec![0; 64].into();
        assert_eq!(prove(&extra).unwrap_err(), field("predecessor_signature"));
    }

    #[test]
    fn an_x_wing_record_is_within_the_limit() {
        let (signing, kem) = (SigningKey::generate(), KemKey::generate(Kem::XWing).unwrap());
        let name = format!("{}/{}", "d".repeat(63), "n".repeat(64)).parse().unwrap();
        let from = FROM + Duration::nanoseconds(999_999_999);
        let one = first(&name, &signing, &kem, from, TO);
        let two = next(&one, &signing, &signing, &kem, from, TO).unwrap();
        assert_eq!(prove_chain(&[one, two]).unwrap()[1].kem_key.len(), 1216);
    }
}
