//! The agencies that can be addressed, as the gateway lists them, with their keys as this agent has
//! proven them: the first key record seen of an agency is pinned, and every later one must follow it. None is pinned or
//! sealed to that the domain's log of keys does not hold.

mod chain;
mod vouch;

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
    digest::Digest,
    key_record::{self, KeyRecordError, ProvenKey},
    names::AgencyAddress,
};
use time::OffsetDateTime;
use tokio::time::timeout;

use self::chain::{added, continued};
use crate::{limits, link::Link, store::Store};

pub(crate) use chain::standing;

/// The gateway's directory, cached.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    link: Link,
    store: Store,
    cache: Mutex<HashMap<AgencyAddress, (Instant, Found)>>,
    /// Held by whoever replays the log of keys.
    replaying: tokio::sync::Mutex<()>,
    /// Keys that were handed out and are not in the log, each since when.
    unlogged: Mutex<HashMap<Digest, Instant>>,
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
        Self(Arc::new(Inner {
            link,
            store,
            cache: Mutex::default(),
            replaying: Default::default(),
            unlogged: Mutex::default(),
        }))
    }

    /// An agency by its address; none where the gateway lists no such agency. A chain of keys that does
    /// not continue the one seen before, or beside which the log of keys holds another, is refused as `key_chain_broken`;
    /// one that the log does not hold yet, for now, as `unknown_key`.
    pub async fn agency(&self, address: &AgencyAddress) -> Result<Option<Agency>, Refusal> {
        self.agencies(std::slice::from_ref(address)).await?.remove(address).unwrap_or(Ok(None))
    }

    /// The key of an agency, where nobody has to be asked for it.
    pub(crate) fn key_at_hand(&self, address: &AgencyAddress) -> Option<ProvenKey> {
        self.cached(address)?.ok()??.key.filter(|key| OffsetDateTime::now_utc() <= key.not_after)
    }

    /// The same for deciding on what basis it may have something: while the gateway is away, as it was
    /// listed last. What is sent meanwhile waits in the outbox, and is sealed to keys that are looked up
    /// then.
    pub async fn last_listed(&self, address: &AgencyAddress) -> Result<Option<Agency>, Refusal> {
        let found = timeout(limits::LOOK_UP, self.agency(address)).await.unwrap_or_else(|_| {
            let message = "the gateway does not answer";
            Err(Refusal::new(ErrorCode::GatewayUnreachable, message, "ask again in a moment"))
        });
        match found {
            // Whom it can be sealed to turns out when it is sealed.
            Err(refusal)
                if matches!(refusal.code(), ErrorCode::GatewayUnreachable | ErrorCode::UnknownKey) =>
            {
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
        match patiently(async || self.try_believe(record, told).await).await {
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
        let key = match self.0.store.prove(record) {
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
        if self.try_key(&key.agency, &key.id, told).await?.is_some() {
            return Ok(Belief::Proven(Box::new(key)));
        }
        let known = self.0.store.keys(&key.agency).await?;
        if known.is_empty() && self.agency(&key.agency).await?.is_none() {
            self.vouch(&key.agency, std::slice::from_ref(&key)).await?;
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
        patiently(async || self.try_key(agency, id, told).await).await
    }

    async fn try_key(
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
        let known = self.0.store.keys(agency).await?;
        match added(agency, &known, told) {
            Ok(new) => {
                // What continues a pin was signed by the agency itself.
                if known.is_empty() {
                    self.vouch(agency, &new).await?;
                }
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
        let chain = match continued(&agency.address, &known, &listed.keys) {
            Ok(chain) => chain,
            Err(error) => {
                // So that a person sees what the log says of it.
                if let Err(error) = self.replay().await {
                    tracing::warn!(%error, "the log of keys could not be replayed");
                }
                return Err(broken(&error));
            }
        };
        let new: Vec<_> = chain.iter().filter(|key| !known.contains(key)).cloned().collect();
        // Where the gateway's list is behind what is known here, what is known here is newer.
        let newest = chain.last().into_iter().chain(known.last()).max_by_key(|key| key.sequence).cloned();
        let used: Vec<_> = new.iter().chain(&newest).cloned().collect();
        self.vouch(&agency.address, &used).await?;
        if !new.is_empty() {
            self.0.store.add_keys(&new).await?;
        }
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
                       tell the gateway's administrator; `liaison-agent keys` lists what the log holds of it";

/// Asks again for a while where a key is not in the log yet: what is published stands in it a moment later.
async fn patiently<T>(ask: impl AsyncFn() -> Result<T, Refusal>) -> Result<T, Refusal> {
    let begun = Instant::now();
    loop {
        match ask().await {
            Err(refusal)
                if refusal.code() == ErrorCode::UnknownKey && begun.elapsed() < limits::KEY_PATIENCE =>
            {
                tokio::time::sleep(limits::KEY_AGAIN).await;
            }
            answer => return answer,
        }
    }
}

fn broken(error: &KeyRecordError) -> Refusal {
    Refusal::new(ErrorCode::KeyChainBroken, error.to_string(), COMPARE)
}
