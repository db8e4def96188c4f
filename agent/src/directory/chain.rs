//! Chains of key records: plain functions, from what is known and shown of an agency to what follows, or what is broken.

use liaison_proto::message::v1::SignedKeyRecord;
use liaison_trust::{
    digest::{Digest, sha256},
    key_record::{self, KeyRecordError, ProvenKey},
    names::AgencyAddress,
};

use crate::{limits, store::LoggedKey};

/// What the log of keys says of an agency, as seen from one of its records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The chain with that record in it, as far as the log has it.
    pub chain: Vec<ProvenKey>,
    /// Records that are not in it, in the order of the log; each with whether a person has settled that it does not count.
    pub strays: Vec<(ProvenKey, bool)>,
}

impl Standing {
    /// Whether there are keys that no person has looked at.
    pub(crate) fn is_broken(&self) -> bool {
        self.strays.iter().any(|(_, settled)| !settled)
    }
}

/// Sorts what the log holds of an agency: the chain is the one that holds the record `of`; without it, the one that begins
/// with the first record that the log has.
pub(crate) fn standing(of: Option<Digest>, logged: &[LoggedKey]) -> Standing {
    let known = |id: Digest| logged.iter().map(|logged| &logged.key).find(|key| key.id == id);
    // Back to the beginning: what was pinned need not be an agency's first.
    let mut root = of;
    while let Some(key) = root.and_then(known)
        && let Some(before) = key.previous.and_then(known)
        && key_record::follows(before, &key.signed).is_ok()
    {
        root = Some(before.id);
    }
    let mut standing = Standing::default();
    for LoggedKey { key, settled, .. } in logged {
        let follows = match (standing.chain.last(), root) {
            (Some(last), _) => key_record::follows(last, &key.signed).is_ok(),
            (None, Some(root)) => key.id == root,
            (None, None) => key.previous.is_none(),
        };
        // Who pushes records without end is not followed for ever.
        if follows && standing.chain.len() < limits::KEY_CHAIN {
            standing.chain.push(key.clone());
        } else {
            standing.strays.push((key.clone(), *settled));
        }
    }
    standing
}

/// Proves a whole chain that holds every known record where it was.
pub(super) fn continued(
    agency: &AgencyAddress,
    known: &[ProvenKey],
    listed: &[SignedKeyRecord],
) -> Result<Vec<ProvenKey>, KeyRecordError> {
    let other = |what| KeyRecordError::BrokenChain { agency: agency.clone(), what };
    if listed.len() > limits::KEY_CHAIN {
        return Err(other("length"));
    }
    let chain = key_record::prove_chain(listed)?;
    if chain.iter().any(|key| key.agency != *agency) {
        return Err(other("agency"));
    }
    for known in known {
        let same = chain.iter().find(|key| key.sequence == known.sequence);
        if same.is_some_and(|same| same.id != known.id) {
            return Err(other("record"));
        }
    }
    Ok(chain)
}

/// What records add to the chain known of an agency: those after the newest known one, or all of them where
/// none is known.
pub(super) fn added(
    agency: &AgencyAddress,
    known: &[ProvenKey],
    told: &[SignedKeyRecord],
) -> Result<Vec<ProvenKey>, KeyRecordError> {
    if told.len() > limits::TOLD_KEYS {
        return Err(KeyRecordError::BrokenChain { agency: agency.clone(), what: "length" });
    }
    let Some(newest) = known.last() else { return continued(agency, known, told) };
    let after = told.iter().position(|record| sha256(&record.record) == newest.id).map_or(0, |at| at + 1);
    let mut new = Vec::new();
    for record in told.iter().skip(after) {
        let next = key_record::follows(new.last().unwrap_or(newest), record)?;
        new.push(next);
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use liaison_proto::message::v1::kem::Code as Kem;
    use liaison_trust::keys::{KemKey, SigningKey};
    use time::{Duration, OffsetDateTime};

    use super::*;

    fn chain(length: usize) -> (AgencyAddress, Vec<SignedKeyRecord>) {
        let agency: AgencyAddress = "be/shelter".parse().unwrap();
        let now = OffsetDateTime::now_utc();
        let (signing, kem) = (SigningKey::generate(), KemKey::generate(Kem::X25519).unwrap());
        let until = now + Duration::DAY;
        let mut chain = vec![key_record::first(&agency, &signing, &kem, now, until)];
        while chain.len() < length {
            let last = chain.last().unwrap();
            chain.push(key_record::next(last, &signing, &signing, &kem, now, until).unwrap());
        }
        (agency, chain)
    }

    #[test]
    fn a_chain_continues_what_is_known_or_is_broken() {
        let (agency, records) = chain(3);
        let proven = key_record::prove_chain(&records).unwrap();
        assert_eq!(continued(&agency, &[], &records).unwrap(), proven);
        assert_eq!(continued(&agency, &proven[..2], &records).unwrap(), proven);
        assert_eq!(continued(&agency, &proven, &records[..2]).unwrap().len(), 2, "a list that is behind");

        let (_, others) = chain(3);
        let broken = continued(&agency, &proven[..1], &others).unwrap_err();
        assert!(matches!(broken, KeyRecordError::BrokenChain { what: "record", .. }), "{broken}");
        let swapped = [records[0].clone(), others[1].clone()];
        assert!(continued(&agency, &[], &swapped).is_err());
        assert_eq!(continued(&agency, &[], &records[1..]), Err(KeyRecordError::NoFirst));
        let other: AgencyAddress = "be/police".parse().unwrap();
        let broken = continued(&other, &[], &records).unwrap_err();
        assert!(matches!(broken, KeyRecordError::BrokenChain { what: "agency", .. }), "{broken}");
    }

    #[test]
    fn records_that_are_told_add_what_follows_the_newest_known_one() {
        let (agency, records) = chain(5);
        let proven = key_record::prove_chain(&records).unwrap();
        let added = |known: &[ProvenKey], told: &[SignedKeyRecord]| added(&agency, known, told);
        for told in [&records[..], &records[1..], &records[2..]] {
            assert_eq!(added(&proven[..2], told).unwrap(), proven[2..]);
        }
        assert_eq!(added(&proven, &records[2..]).unwrap(), [], "nothing new");
        assert_eq!(added(&[], &records).unwrap(), proven);

        let (_, others) = chain(5);
        let mut forked = records.clone();
        forked[4] = others[4].clone();
        let long = vec![records[2].clone(); limits::TOLD_KEYS + 1];
        for (what, known, told) in [
            ("a gap", &proven[..2], &records[3..]),
            ("a list that is behind", &proven[..], &records[..3]),
            ("another chain", &proven[..2], &others[..]),
            ("a last record of another chain", &proven[..2], &forked[..]),
            ("more than may be told", &proven[..2], &long[..]),
            ("no first record", &[], &records[1..]),
            ("nothing", &[], &[]),
        ] {
            assert!(added(known, told).is_err(), "{what}");
        }
        let other: AgencyAddress = "be/police".parse().unwrap();
        assert!(super::added(&other, &[], &records).is_err());
    }

    fn logged(records: &[&SignedKeyRecord], settled: bool) -> Vec<LoggedKey> {
        let key = |record: &&SignedKeyRecord| key_record::prove(record).unwrap();
        (0..).zip(records).map(|(index, record)| LoggedKey { index, key: key(record), settled }).collect()
    }

    #[test]
    fn what_the_log_holds_beside_a_chain_breaks_it_until_a_person_has_settled_it() {
        let ((_, own), (_, others)) = (chain(3), chain(2));
        let proven = key_record::prove_chain(&own).unwrap();
        let pin = Some(proven[0].id);
        let all: Vec<_> = own.iter().collect();
        for first in [None, pin, Some(proven[1].id), Some(proven[2].id)] {
            let standing = standing(first, &logged(&all, false));
            assert_eq!((standing.chain.as_slice(), standing.is_broken()), (&proven[..], false));
        }
        // Another first record, one that only says that it follows, and one left out.
        let own_two = [&own[0], &own[1]];
        for stray in [vec![&others[0]], vec![&others[1]], vec![&others[0], &others[1]]] {
            let records = [&own_two[..], &stray].concat();
            let standing = standing(pin, &logged(&records, false));
            assert_eq!((standing.chain.len(), standing.strays.len()), (2, stray.len()));
            assert!(standing.is_broken());
            assert!(!super::standing(pin, &logged(&records, true)).is_broken());
        }
        assert!(standing(pin, &logged(&[&own[0], &own[2]], false)).is_broken(), "a gap");
        assert!(
            !standing(Some(proven[1].id), &logged(&[&own[1], &own[2]], false)).is_broken(),
            "from a later one"
        );
        assert!(standing(pin, &logged(&[&others[0], &own[0]], false)).is_broken(), "whichever came first");
        let standing = standing(pin, &logged(&[&others[0]], false));
        assert!(standing.chain.is_empty() && standing.is_broken(), "only others");
    }
}
