//! What unit tests of the federation share.

use std::sync::Arc;

use liaison_proto::{
    admin::v1::{agency_state::Code as AgencyState, peer_state::Code as State},
    exchange::v1::Services,
    federation::v1::SignedBundle,
    message::v1::sector::Code as Sector,
};
use liaison_trust::{digest::Digest, keys::SigningKey};
use time::OffsetDateTime;

use super::{bundle::Bundle, peers::Peer};
use crate::directory::Agency;

/// An active peer with these countries confirmed, and those in its bundle.
pub(super) fn peer(domain: &str, countries: &[&str], named: &[&str]) -> Peer {
    let set = |countries: &[&str]| countries.iter().map(|country| (*country).to_owned()).collect();
    Peer {
        domain: domain.parse().unwrap(),
        state: State::Active,
        bundle: Bundle {
            domain: domain.parse().unwrap(),
            roots: Vec::new(),
            signing: SigningKey::generate().public(),
            log: SigningKey::generate().public(),
            witness: SigningKey::generate().public(),
            addresses: Vec::new(),
            countries: set(named),
            sequence: 1,
            issued: OffsetDateTime::now_utc(),
            scheme_hash: Digest([1; 32]),
            signed: SignedBundle::default(),
        },
        countries: set(countries),
        removed: None,
        live: Arc::default(),
    }
}

/// A listed agency of a country.
pub(super) fn agency(address: &str, country: &str) -> Agency {
    Agency {
        address: address.parse().unwrap(),
        name: address.to_owned(),
        country: country.to_owned(),
        sectors: vec![Sector::Ngo],
        groups: Vec::new(),
        state: AgencyState::Active,
        listed: true,
        services: Services::default(),
        keys: Vec::new(),
    }
}
