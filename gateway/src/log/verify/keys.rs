//! Whether the key records in the log of keys continue one another, and are those that the gateway uses.

use std::collections::{BTreeMap, BTreeSet};

use liaison_proto::{exchange::v1::Agency, message::v1::SignedKeyRecord};
use liaison_trust::{
    digest::{Digest, sha256},
    key_record::{self, ProvenKey},
    names::{AgencyAddress, Domain},
};
use prost::Message;

use super::fault::{CHANGED, Faults};
use crate::store::{KeyRow, LeafRow};

/// The key records of a log of keys so far. Those of agencies of other domains are what their gateways told: nothing here
/// has to continue them, and no table of this gateway has them.
#[derive(Debug)]
pub(super) struct Chains {
    domain: Domain,
    /// The newest of each agency.
    newest: BTreeMap<AgencyAddress, ProvenKey>,
    /// Each, by agency and sequence number.
    logged: BTreeMap<(String, i64), Digest>,
    /// Of agencies of other domains.
    foreign: BTreeSet<Digest>,
}

impl Chains {
    /// None yet, of the log of this domain.
    pub(super) fn new(domain: &Domain) -> Self {
        Self {
            domain: domain.clone(),
            newest: BTreeMap::new(),
            logged: BTreeMap::new(),
            foreign: BTreeSet::new(),
        }
    }

    /// Takes the next leaf. In a log that took the place of another one (`is_first` is not set), an agency's first
    /// record there may be a later one of its chain.
    pub(super) fn take(&mut self, row: &LeafRow, is_first: bool, place: &str, faults: &mut Faults) {
        let has_more =
            row.salt.is_some() || row.record.is_some() || row.message.is_some() || row.thread.is_some();
        if has_more || !row.readers.is_empty() {
            faults.add(
                "changed_column",
                place,
                "a key record stands in clear, and has nothing beside it",
                CHANGED,
            );
        }
        match self.follow(&row.entry, is_first) {
            Ok(()) => {}
            Err(why) => faults.add(
                "broken_key_chain",
                place,
                format!("{why}: agents will stop sending to that agency"),
                "find out with the agency whose key this is; until then tell others not to confirm its fingerprint",
            ),
        }
    }

    fn follow(&mut self, entry: &[u8], is_first: bool) -> Result<(), String> {
        let record = SignedKeyRecord::decode(entry).map_err(|_| "the entry is no key record".to_owned())?;
        let proven = key_record::prove(&record).map_err(|error| error.to_string())?;
        if *proven.agency.domain() != self.domain {
            self.foreign.insert(sha256(entry));
            return Ok(());
        }
        let key = (proven.agency.to_string(), i64::from(proven.sequence));
        self.logged.insert(key, sha256(entry));
        let followed = match self.newest.get(&proven.agency) {
            Some(newest) => key_record::follows(newest, &record).map(drop),
            None if is_first && proven.previous.is_some() => Err(key_record::KeyRecordError::NoFirst),
            None => Ok(()),
        };
        followed.map_err(|error| error.to_string())?;
        self.newest.insert(proven.agency.clone(), proven);
        Ok(())
    }

    /// Looks at a key record that the gateway uses.
    pub(super) fn compare(&self, row: &KeyRow, faults: &mut Faults) {
        let KeyRow { agency, sequence, record } = row;
        let place = format!("key record {sequence} of {agency}");
        match self.logged.get(&(agency.clone(), *sequence)) {
            Some(logged) if *logged == sha256(record) => {}
            Some(_) => {
                let found = "it is another one than in the log of keys: whoever has its private key would read what is \
                             sent to that agency";
                faults.add("substituted_key", place, found, CHANGED);
            }
            None => {
                let found = "it is not in the log of keys: it was put in by hand, or its leaf was removed";
                faults.add("key_without_leaf", place, found, CHANGED);
            }
        }
    }

    /// Looks at an encoded agency of another domain, with the keys that this domain's agencies are given.
    pub(super) fn compare_foreign(&self, address: &str, agency: &[u8], faults: &mut Faults) {
        let keys = Agency::decode(agency).map(|agency| agency.keys);
        let is_logged = |key: &SignedKeyRecord| self.foreign.contains(&sha256(&key.encode_to_vec()));
        if !keys.is_ok_and(|keys| keys.iter().all(is_logged)) {
            let place = format!("agency {address}");
            let found = "a key record of it is not in the log of keys: it was put in by hand, or its leaf was removed";
            faults.add("key_without_leaf", place, found, CHANGED);
        }
    }

    /// Looks at what was not among the key records that the gateway uses; `seen` is how many there were.
    pub(super) fn end(&self, seen: u64, faults: &mut Faults) {
        let logged = self.logged.len() as u64;
        if seen < logged {
            let found = format!(
                "{} key records of the log of keys are not among those that the gateway uses",
                logged - seen
            );
            faults.add("key_removed", "key records", found, CHANGED);
        }
    }
}
