//! The agencies that can be addressed, as the gateway lists them, with their keys as this agent has
//! proven them.

use liaison_proto::message::v1::{Refusal, sector::Code as Sector};
use liaison_trust::{digest::Digest, names::AgencyAddress};

/// The gateway's directory, cached.
#[derive(Clone)]
pub struct Directory {}

/// An agency.
#[derive(Debug, Clone)]
pub struct Agency {
    pub address: AgencyAddress,
    pub name: String,
    /// ISO 3166-1 alpha-2, lower case.
    pub country: String,
    pub sectors: Vec<Sector>,
    pub groups: Vec<String>,
    /// Whether it has keys, and they can be sealed to.
    pub reachable: bool,
    /// Id of its first key record: what two people compare by telephone.
    pub fingerprint: Option<Digest>,
}

impl Directory {
    /// An agency by its address; none where the gateway lists no such agency. A chain of keys that does
    /// not continue the one seen before is refused as `key_chain_broken`.
    pub async fn agency(&self, _address: &AgencyAddress) -> Result<Option<Agency>, Refusal> {
        Ok(None)
    }

    /// A page of the agencies behind `after` in the order of addresses, and whether there are more. One
    /// with a broken chain of keys is listed as not reachable.
    pub async fn list(&self, _after: Option<&AgencyAddress>) -> Result<(Vec<Agency>, bool), Refusal> {
        Ok((Vec::new(), false))
    }
}
