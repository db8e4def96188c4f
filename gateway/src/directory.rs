//! Who is in the domain, and who of other domains is known here: an immutable snapshot of every agency, swapped as a whole when one changes.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use liaison_proto::{
    admin::v1::agency_state::Code as AgencyState,
    exchange::v1 as wire,
    limits::CLOCK_AHEAD,
    message::v1::{Audience, SignedKeyRecord, sector::Code as Sector},
};
use liaison_trust::{
    digest::Digest,
    key_record::ProvenKey,
    names::{AgencyAddress, Domain},
};
use time::OffsetDateTime;

/// All agencies at one moment.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    agencies: BTreeMap<AgencyAddress, Arc<Agency>>,
}

/// An agency as the gateway knows it.
#[derive(Debug, Clone)]
pub struct Agency {
    pub address: AgencyAddress,
    /// For people.
    pub name: String,
    /// ISO 3166-1 alpha-2, lower case.
    pub country: String,
    pub sectors: Vec<Sector>,
    pub groups: Vec<String>,
    pub state: AgencyState,
    /// Whether it can be addressed. An agency of another domain that is not, is known for what it sent.
    pub listed: bool,
    /// What it offers to those who are referred to it.
    pub services: wire::Services,
    /// Every key record so far, the current one last.
    pub keys: Vec<ProvenKey>,
}

impl Directory {
    /// The agency at an address.
    pub fn get(&self, address: &AgencyAddress) -> Option<&Arc<Agency>> {
        self.agencies.get(address)
    }

    /// All agencies, in the order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Agency>> {
        self.agencies.values()
    }

    /// The agencies behind an address in that order.
    pub fn after(&self, address: &AgencyAddress) -> impl Iterator<Item = &Arc<Agency>> {
        self.agencies.range((Bound::Excluded(address), Bound::Unbounded)).map(|(_, agency)| agency)
    }

    /// The active agencies that an audience means.
    pub fn audience(&self, audience: &Audience) -> impl Iterator<Item = &Arc<Agency>> {
        let reachable = |agency: &Agency| agency.listed && agency.state == AgencyState::Active;
        self.iter().filter(move |agency| reachable(agency) && agency.is_in(audience))
    }

    /// The agencies of a domain.
    pub fn of(&self, domain: &Domain) -> impl Iterator<Item = &Arc<Agency>> {
        self.iter().filter(move |agency| agency.address.domain() == domain)
    }

    /// The same directory with one agency added or replaced.
    #[must_use]
    pub fn with(&self, agency: Agency) -> Self {
        self.with_all([agency])
    }

    /// The same directory with agencies added or replaced.
    #[must_use]
    pub fn with_all(&self, changed: impl IntoIterator<Item = Agency>) -> Self {
        let mut agencies = self.agencies.clone();
        agencies.extend(changed.into_iter().map(|agency| (agency.address.clone(), Arc::new(agency))));
        Self { agencies }
    }

    /// The same directory without the agencies of a domain.
    #[must_use]
    pub fn without(&self, domain: &Domain) -> Self {
        let mut agencies = self.agencies.clone();
        agencies.retain(|address, _| address.domain() != domain);
        Self { agencies }
    }
}

impl FromIterator<Agency> for Directory {
    fn from_iter<I: IntoIterator<Item = Agency>>(agencies: I) -> Self {
        Self {
            agencies: agencies.into_iter().map(|agency| (agency.address.clone(), Arc::new(agency))).collect(),
        }
    }
}

impl Agency {
    /// The key record that others seal to; none before the agency's agent published one.
    pub fn current(&self) -> Option<&ProvenKey> {
        self.keys.last()
    }

    /// The current key or the one before, if it has this id and is valid now. The one before still
    /// counts because messages and its successor may cross on the way.
    pub fn usable_key(&self, id: &Digest, now: OffsetDateTime) -> Option<&ProvenKey> {
        self.keys
            .iter()
            .rev()
            .take(2)
            .find(|key| key.id == *id && key.not_before <= now + CLOCK_AHEAD && now <= key.not_after)
    }

    /// Whether an audience means this agency: by name, or by all of the lists that it gives.
    pub fn is_in(&self, audience: &Audience) -> bool {
        let Audience { sectors, countries, groups, agencies } = audience;
        if agencies.iter().any(|address| *address == self.address.to_string()) {
            return true;
        }
        let restricts = !(sectors.is_empty() && countries.is_empty() && groups.is_empty());
        restricts
            && (sectors.is_empty() || self.sectors.iter().any(|own| sectors.contains(&i32::from(*own))))
            && (countries.is_empty() || countries.contains(&self.country))
            && (groups.is_empty() || self.groups.iter().any(|own| groups.contains(own)))
    }

    /// The newest of its key records, in their order.
    pub fn newest_keys(&self, most: usize) -> Vec<SignedKeyRecord> {
        let keys = self.keys.iter().skip(self.keys.len().saturating_sub(most));
        keys.map(|key| key.signed.clone()).collect()
    }

    /// The agency as other agencies are told of it.
    pub fn to_wire(&self) -> wire::Agency {
        wire::Agency {
            address: self.address.to_string(),
            name: self.name.clone(),
            country: self.country.clone(),
            sectors: self.sectors.iter().map(|sector| (*sector).into()).collect(),
            groups: self.groups.clone(),
            keys: self.keys.iter().map(|key| key.signed.clone()).collect(),
            services: Some(self.services.clone()),
        }
    }
}

/// Whether an audience names nobody at all.
pub fn is_empty(audience: &Audience) -> bool {
    let Audience { sectors, countries, groups, agencies } = audience;
    sectors.is_empty() && countries.is_empty() && groups.is_empty() && agencies.is_empty()
}
