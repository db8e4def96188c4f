//! Who is in the domain: an immutable snapshot of every agency, swapped as a whole when one changes.

use std::{collections::BTreeMap, sync::Arc};

use liaison_proto::{
    admin::v1::agency_state::Code as AgencyState,
    message::v1::{SignedKeyRecord, sector::Code as Sector},
};
use liaison_trust::names::AgencyAddress;

/// All agencies of a domain at one moment.
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
    /// Every key record so far, in order; each was checked when it was published.
    pub keys: Vec<SignedKeyRecord>,
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

    /// The same directory with one agency added or replaced.
    #[must_use]
    pub fn with(&self, agency: Agency) -> Self {
        let mut agencies = self.agencies.clone();
        agencies.insert(agency.address.clone(), Arc::new(agency));
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
