//! The agencies that can be addressed, as the gateway lists them, with their keys as this agent has
//! proven them: the first key record seen of an agency is pinned, and every later one must follow it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use liaison_proto::{
    exchange::v1 as wire,
    limits::AGENCIES_PAGE,
    message::v1::{Refusal, SignedKeyRecord, error_code::Code as ErrorCode, sector::Code as Sector},
};
use liaison_trust::{
    digest::{Digest, sha256},
    key_record::{self, KeyRecordError, ProvenKey},
    names::AgencyAddress,
};
use time::OffsetDateTime;

use crate::{limits, link::Link, store::Store};

/// The gateway's directory, cached.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    link: Link,
    store: Store,
    cache: Mutex<HashMap<AgencyAddress, (Instant, Found)>>,
}

/// An agency as it was found; none where the gateway lists no such agency.
pub(crate) type Found = Result<Option<Agency>, Refusal>;

/// An agency.
#[derive(Debug, Clone)]
pub struct Agency {
    pub address: AgencyAddress,
    pub name: String,
    /// ISO 3166-1 alpha-2, lower case.
    pub country: String,
    pub sectors: Vec<Sector>,
    pub groups: Vec<String>,
    /// What it offers.
    pub services: wire::Services,
    /// Whether it has keys that can be sealed to.
    pub reachable: bool,
    /// The key to seal to, where it is reachable.
    pub key: Option<ProvenKey>,
    /// Id of its first key record: what two people compare by telephone.
    pub fingerprint: Option<Digest>,
}

/// Whether a key record is its agency's.
pub enum Belief {
    Proven(Box<ProvenKey>),
    /// It is not, or not as far as can be proven.
    Broken(Refusal),
    /// The gateway can't be asked now.
    Unknown(Refusal),
}

impl Directory {
    pub fn new(link: Link, store: Store) -> Self {
        Self(Arc::new(Inner { link, store, cache: Mutex::default() }))
    }

    /// An agency by its address; none where the gateway lists no such agency. A chain of keys that does
    /// not continue the one seen before is refused as `key_chain_broken`.
    pub async fn agency(&self, address: &AgencyAddress) -> Result<Option<Agency>, Refusal> {
        self.agencies(std::slice::from_ref(address)).await?.remove(address).unwrap_or(Ok(None))
    }

    /// The same for deciding on what basis it may have something: while the gateway is away, as it was
    /// listed last. What is sent meanwhile waits in the outbox, and is sealed to keys that are looked up
    /// then.
    pub async fn last_listed(&self, address: &AgencyAddress) -> Result<Option<Agency>, Refusal> {
        match self.agency(address).await {
            Err(refusal) if refusal.code() == ErrorCode::GatewayUnreachable => {
                let listed = self.0.store.agency(address).await?.ok_or(refusal)?;
                Ok(Some(Agency::without_keys(address.clone(), &listed)))
            }
            found => found,
        }
    }

    /// Several agencies, as [`Self::agency`] finds each.
    pub(crate) async fn agencies(
        &self,
        addresses: &[AgencyAddress],
    ) -> Result<BTreeMap<AgencyAddress, Found>, Refusal> {
        let mut found = BTreeMap::new();
        let mut missing = Vec::new();
        for address in addresses {
            match self.cached(address) {
                Some(agency) => drop(found.insert(address.clone(), agency)),
                None => missing.push(address.clone()),
            }
        }
        for page in missing.chunks(AGENCIES_PAGE) {
            let request = wire::ListAgenciesRequest {
                addresses: page.iter().map(AgencyAddress::to_string).collect(),
                after: String::new(),
            };
            let mut listed: HashMap<_, _> = self
                .0
                .link
                .list_agencies(request)
                .await?
                .agencies
                .into_iter()
                .map(|agency| (agency.address.clone(), agency))
                .collect();
            for address in page {
                let agency = match listed.remove(&address.to_string()) {
                    Some(agency) => self.adopt(address.clone(), agency).await.map(Some),
                    None => Ok(None),
                };
                self.remember(address.clone(), agency.clone());
                found.insert(address.clone(), agency);
            }
        }
        Ok(found)
    }

    /// A page of the agencies behind `after` in the order of addresses, and whether there are more. One
    /// with a broken chain of keys is listed as not reachable.
    pub async fn list(&self, after: Option<&AgencyAddress>) -> Result<(Vec<Agency>, bool), Refusal> {
        let after = after.map(AgencyAddress::to_string).unwrap_or_default();
        let page =
            self.0.link.list_agencies(wire::ListAgenciesRequest { addresses: Vec::new(), after }).await?;
        let mut agencies = Vec::with_capacity(page.agencies.len());
        for listed in page.agencies {
            let Ok(address) = listed.address.parse::<AgencyAddress>() else { continue };
            let shown = Agency::without_keys(address.clone(), &listed);
            agencies.push(match self.adopt(address, listed).await {
                Ok(agency) => agency,
                Err(refusal) => {
                    tracing::warn!(agency = %shown.address, %refusal, "an agency's keys are not believed");
                    shown
                }
            });
        }
        Ok((agencies, page.more))
    }

    /// Whether a key record that came with a message is its agency's: it is known, follows what is
    /// known, stands in the gateway's directory, or is the first of an agency that is not listed there. `told`
    /// are the newest records of such an agency, as they came with the message.
    pub async fn believe(&self, record: &SignedKeyRecord, told: &[SignedKeyRecord]) -> Belief {
        match self.try_believe(record, told).await {
            Ok(belief) => belief,
            Err(refusal) if refusal.code() == ErrorCode::KeyChainBroken => Belief::Broken(refusal),
            Err(refusal) => Belief::Unknown(refusal),
        }
    }

    async fn try_believe(
        &self,
        record: &SignedKeyRecord,
        told: &[SignedKeyRecord],
    ) -> Result<Belief, Refusal> {
        let key = match key_record::prove(record) {
            Ok(key) => key,
            Err(error) => return Ok(Belief::Broken(broken(&error))),
        };
        let known = self.0.store.keys(&key.agency).await?;
        if known.iter().any(|known| known.id == key.id) {
            return Ok(Belief::Proven(Box::new(key)));
        }
        if let Some(last) = known.last()
            && key_record::follows(last, record).is_ok()
        {
            self.0.store.add_keys(std::slice::from_ref(&key)).await?;
            return Ok(Belief::Proven(Box::new(key)));
        }
        if self.key(&key.agency, &key.id, told).await?.is_some() {
            return Ok(Belief::Proven(Box::new(key)));
        }
        let known = self.0.store.keys(&key.agency).await?;
        if known.is_empty() && self.agency(&key.agency).await?.is_none() {
            self.0.store.add_keys(std::slice::from_ref(&key)).await?;
            return Ok(Belief::Proven(Box::new(key)));
        }
        Ok(Belief::Broken(Refusal::new(
            ErrorCode::KeyChainBroken,
            format!(
                "the message came with a key of {} that does not continue the one known here",
                key.agency
            ),
            COMPARE,
        )))
    }

    /// The key record of this id, if it is the agency's. `told` are the newest records of an agency that the
    /// gateway does not list, as they came with what it signed.
    pub async fn key(
        &self,
        agency: &AgencyAddress,
        id: &Digest,
        told: &[SignedKeyRecord],
    ) -> Result<Option<ProvenKey>, Refusal> {
        let find = |keys: Vec<ProvenKey>| keys.into_iter().find(|key| key.id == *id);
        let known = self.0.store.keys(agency).await?;
        let is_pinned = !known.is_empty();
        if let Some(key) = find(known) {
            return Ok(Some(key));
        }
        // What continues a pin needs no directory to be believed.
        if is_pinned && let Some(key) = find(self.learn(agency, told).await?) {
            return Ok(Some(key));
        }
        let listed = self.refreshed(agency).await?;
        if !is_pinned && listed.is_none() {
            self.learn(agency, told).await?;
        }
        Ok(find(self.0.store.keys(agency).await?))
    }

    /// Takes over records that continue the chain known of an agency, all or none. Gives those that are new.
    async fn learn(
        &self,
        agency: &AgencyAddress,
        told: &[SignedKeyRecord],
    ) -> Result<Vec<ProvenKey>, Refusal> {
        if told.is_empty() {
            return Ok(Vec::new());
        }
        match added(agency, &self.0.store.keys(agency).await?, told) {
            Ok(new) => {
                self.0.store.add_keys(&new).await?;
                Ok(new)
            }
            Err(error) => {
                tracing::warn!(%agency, %error, "the keys that came along are not believed");
                Ok(Vec::new())
            }
        }
    }

    async fn refreshed(&self, agency: &AgencyAddress) -> Result<Option<Agency>, Refusal> {
        self.cache().remove(agency);
        self.agency(agency).await
    }

    /// Takes over what the gateway lists of an agency, if its keys continue those known.
    async fn adopt(&self, address: AgencyAddress, listed: wire::Agency) -> Result<Agency, Refusal> {
        self.0.store.set_agency(&address, &listed).await?;
        let agency = Agency::without_keys(address, &listed);
        if listed.keys.is_empty() {
            return Ok(agency);
        }
        let known = self.0.store.keys(&agency.address).await?;
        let chain = continued(&agency.address, &known, &listed.keys).map_err(|error| broken(&error))?;
        let new: Vec<_> = chain.iter().filter(|key| !known.contains(key)).cloned().collect();
        if !new.is_empty() {
            self.0.store.add_keys(&new).await?;
        }
        // Where the gateway's list is behind what is known here, what is known here is newer.
        let newest = chain.last().into_iter().chain(known.last()).max_by_key(|key| key.sequence).cloned();
        let key = newest.filter(|key| OffsetDateTime::now_utc() <= key.not_after);
        Ok(Agency { fingerprint: chain.first().map(|key| key.id), reachable: key.is_some(), key, ..agency })
    }

    fn cached(&self, address: &AgencyAddress) -> Option<Found> {
        let cache = self.cache();
        let (at, found) = cache.get(address)?;
        (at.elapsed() < limits::DIRECTORY_AGE).then(|| found.clone())
    }

    fn remember(&self, address: AgencyAddress, found: Found) {
        // Who has no keys yet may have some a moment later.
        if !matches!(&found, Ok(Some(agency)) if agency.reachable) {
            return;
        }
        let mut cache = self.cache();
        if cache.len() >= limits::DIRECTORY_AGENCIES {
            cache.retain(|_, (at, _)| at.elapsed() < limits::DIRECTORY_AGE);
        }
        if cache.len() < limits::DIRECTORY_AGENCIES {
            cache.insert(address, (Instant::now(), found));
        }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<AgencyAddress, (Instant, Found)>> {
        self.0.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agency {
    fn without_keys(address: AgencyAddress, listed: &wire::Agency) -> Self {
        Self {
            address,
            name: listed.name.clone(),
            country: listed.country.clone(),
            sectors: listed.sectors().collect(),
            groups: listed.groups.clone(),
            services: listed.services.clone().unwrap_or_default(),
            reachable: false,
            key: None,
            fingerprint: None,
        }
    }
}

const COMPARE: &str = "compare the agency's fingerprint with it by telephone before anything is sent to it; \
                       tell the gateway's administrator";

/// Proves a whole chain that holds every known record where it was.
fn continued(
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
fn added(
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

fn broken(error: &KeyRecordError) -> Refusal {
    Refusal::new(ErrorCode::KeyChainBroken, error.to_string(), COMPARE)
}

#[cfg(test)]
mod tests {
    use liaison_proto::message::v1::kem::Code as Kem;
    use liaison_trust::keys::{KemKey, SigningKey};
    use time::Duration;

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
}
