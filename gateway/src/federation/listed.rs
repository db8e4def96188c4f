//! Agencies of other domains, as their gateways describe them: read, checked, and taken into the directory.

use std::{collections::BTreeSet, sync::Arc};

use liaison_proto::{
    admin::v1::agency_state::Code as AgencyState,
    exchange::v1 as wire,
    federation::v1::{DirectoryPage, SignedDirectoryPage},
    limits::{DIRECTORY_PAGE, DIRECTORY_WITHDRAWN},
    message::v1::{Refusal, SignedKeyRecord, error_code::Code as ErrorCode, sector::Code as Sector},
};
use liaison_trust::{
    key_record::{self, ProvenKey},
    names::{AgencyAddress, Domain},
    statement,
};
use tracing::{info, warn};

use super::{
    bundle::is_country,
    peers::Peer,
    refusals::{not_its_word, violation},
};
use crate::{
    delivery::internal,
    directory::{Agency, Directory},
    gateway::Gateway,
    limits,
    store::ToldPage,
};

/// Reads an agency of a peer, without its keys.
///
/// # Errors
/// The peer has no right to say so.
fn read(peer: &Peer, listed: &wire::Agency) -> Result<Agency, Refusal> {
    let address = address(peer, &listed.address)?;
    let wrong = |what: &str| violation(format!("{} says {what} of its agency {address}", peer.domain));
    if !is_country(&listed.country) {
        return Err(wrong("a country that is none"));
    }
    let sectors: Vec<Sector> = listed.sectors().collect();
    if !(1..=limits::AGENCY_SECTORS).contains(&sectors.len()) || sectors.contains(&Sector::Unspecified) {
        return Err(wrong("no sector, or too many"));
    }
    let is_group = |group: &String| {
        (1..=limits::GROUP_CHARS).contains(&group.len())
            && group.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    if listed.groups.len() > limits::AGENCY_GROUPS || !listed.groups.iter().all(is_group) {
        return Err(wrong("groups that are none, or too many"));
    }
    let title = listed.name.chars();
    if title.clone().count() > limits::AGENCY_TITLE_CHARS || title.clone().any(char::is_control) {
        return Err(wrong("a name that is none"));
    }
    Ok(Agency {
        keys: Vec::new(),
        address,
        name: listed.name.clone(),
        country: listed.country.clone(),
        sectors,
        groups: listed.groups.clone(),
        state: AgencyState::Active,
        listed: true,
        services: listed.services.clone().unwrap_or_default(),
    })
}

/// Proves the key records of an agency, all of them or the newest, which must go on from those that are known.
///
/// # Errors
/// They do not, or do not hold.
pub(super) fn keys(
    peer: &Peer,
    address: &AgencyAddress,
    known: &[ProvenKey],
    told: &[SignedKeyRecord],
) -> Result<Vec<ProvenKey>, Refusal> {
    // No violation: an agency that changes its keys often enough leaves a gap by itself.
    chain(address, known, told).map_err(|what| {
        Refusal::new(
            ErrorCode::UnknownKey,
            format!("{} says {what} of its agency {address}", peer.domain),
            "have the agency's keys looked at; if its gateway was restored from a backup, peer anew",
        )
    })
}

fn chain(
    address: &AgencyAddress,
    known: &[ProvenKey],
    told: &[SignedKeyRecord],
) -> Result<Vec<ProvenKey>, String> {
    let Some(first) = told.first() else { return Ok(known.to_vec()) };
    let start = known.iter().position(|known| known.signed == *first).unwrap_or(0);
    if start + told.len() > limits::KEY_RECORDS {
        return Err("too many key records".to_owned());
    }
    let overlap = known.get(start..).unwrap_or_default();
    // One that tells fewer than it did was restored from a backup: what is known here stays.
    if !overlap.iter().zip(told).all(|(known, told)| known.signed == *told) {
        return Err("key records other than those it said before".to_owned());
    }
    let mut chain = known.to_vec();
    for record in told.iter().skip(overlap.len()) {
        let proven = match chain.last() {
            Some(last) => key_record::follows(last, record),
            None => key_record::prove_chain(std::slice::from_ref(record))
                .and_then(|mut first| first.pop().ok_or(key_record::KeyRecordError::NoFirst)),
        };
        let proven = proven.map_err(|fault| format!("a key record that does not hold ({fault})"))?;
        if proven.agency != *address {
            return Err("a key record of another agency".to_owned());
        }
        chain.push(proven);
    }
    Ok(chain)
}

/// Takes a page of a peer's directory; whether all of it has been told with that, and was taken.
///
/// # Errors
/// The peer has no right to say so, and nothing of the page is taken; or the store failed.
pub(super) async fn take(
    gateway: &Gateway,
    peer: &Peer,
    signed: &SignedDirectoryPage,
) -> Result<bool, Refusal> {
    let page: DirectoryPage = statement::read(signed, &peer.bundle.signing)
        .map_err(|error| not_its_word("a page of the directory", &peer.domain, error))?;
    if page.domain != peer.domain.as_str() || page.peer != gateway.domain.as_str() || page.epoch.len() != 16 {
        return Err(violation(format!("{} sent a page of a directory that is not its own", peer.domain)));
    }
    if page.agencies.len() > DIRECTORY_PAGE || page.withdrawn.len() > DIRECTORY_WITHDRAWN {
        return Err(violation(format!("a page of {}'s directory is too long: send more pages", peer.domain)));
    }
    let withdrawn: Vec<AgencyAddress> =
        page.withdrawn.iter().map(|text| address(peer, text)).collect::<Result<_, _>>()?;
    let Read { agencies, broken } = read_all(gateway, peer, &page.agencies)?;
    let is_whole = page.complete && broken.is_empty();
    let kept: Vec<wire::Agency> = agencies.iter().map(Agency::to_wire).collect();
    let told = ToldPage {
        domain: &peer.domain,
        countries: &peer.countries,
        page: &page,
        agencies: &kept,
        withdrawn: &[withdrawn, broken].concat(),
    };
    let gone = gateway.store.set_peer_agencies(told).await.map_err(internal)?;
    info!(peer = %peer.domain, told = agencies.len(), withdrawn = gone.len(), complete = page.complete, "a peer told of its agencies");
    gateway.directory.rcu(|directory| {
        let gone = gone.iter().filter_map(|address| directory.get(address));
        let gone: Vec<_> = gone.map(|agency| Agency { listed: false, ..Agency::clone(agency) }).collect();
        directory.with_all(agencies.iter().cloned().chain(gone))
    });
    Ok(is_whole)
}

/// The agencies of a page.
#[derive(Default)]
struct Read {
    agencies: Vec<Agency>,
    /// Those whose keys do not hold: nobody can address them until they do.
    broken: Vec<AgencyAddress>,
}

/// Reads the agencies of a page. Those of a country that no administrator has confirmed are left out, whether or not
/// the peer's bundle of now names it: that depends on what other agencies the domain has.
fn read_all(gateway: &Gateway, peer: &Peer, listed: &[wire::Agency]) -> Result<Read, Refusal> {
    let directory = gateway.directory.load();
    let own = directory.of(&peer.domain).count();
    let mut seen = BTreeSet::new();
    let mut page = Read::default();
    for listed in listed {
        let agency = read(peer, listed)?;
        if !peer.countries.contains(&agency.country) {
            warn!(peer = %peer.domain, country = agency.country, "an agency of a country that is not confirmed is left out");
            continue;
        }
        let known = directory.get(&agency.address);
        if !seen.insert(agency.address.clone()) {
            return Err(violation(format!("{} lists {} twice on one page", peer.domain, agency.address)));
        }
        if known.is_none() && own + seen.len() > limits::PEER_AGENCIES {
            return Err(too_many(peer));
        }
        match keys(peer, &agency.address, known.map_or(&[], |known| &known.keys), &listed.keys) {
            Ok(keys) => page.agencies.push(Agency { keys, ..agency }),
            // The others on the page have nothing to do with it.
            Err(refusal) => {
                peer.violation(&refusal);
                peer.refuses(Some(&refusal));
                page.broken.push(agency.address);
            }
        }
    }
    Ok(page)
}

/// The agency that sends: as the directory lists it, or as its gateway describes it with the message.
///
/// # Errors
/// The peer has no right to say so.
pub(super) fn sender(gateway: &Gateway, peer: &Peer, described: &wire::Agency) -> Result<Agency, Refusal> {
    let agency = read(peer, described)?;
    let known = gateway.directory.load().get(&agency.address).cloned();
    if !peer.countries.contains(&agency.country) {
        return Err(Refusal::new(
            ErrorCode::Suspended,
            format!(
                "{} has yet to confirm that {} speaks for {}",
                gateway.domain, peer.domain, agency.country
            ),
            format!(
                "have the administrator of {} accept this domain's bundle anew; messages wait",
                gateway.domain
            ),
        )
        .retry_after(limits::QUEUE_RETRY));
    }
    match known {
        Some(known) if known.listed => Ok(Agency::clone(&known)),
        known => {
            let known = known.as_ref().map_or(&[][..], |known| &known.keys);
            let keys = keys(peer, &agency.address, known, &described.keys)?;
            Ok(Agency { listed: false, keys, ..agency })
        }
    }
}

/// Remembers an agency that is not listed, for a message that it sent or took.
///
/// # Errors
/// The peer has too many agencies, or the store failed.
pub(super) async fn note(gateway: &Gateway, peer: &Peer, agency: Agency) -> Result<(), Refusal> {
    let directory = gateway.directory.load_full();
    match directory.get(&agency.address) {
        Some(known) if known.to_wire() == agency.to_wire() => return Ok(()),
        Some(_) => {}
        None if directory.of(&peer.domain).count() >= limits::PEER_AGENCIES => return Err(too_many(peer)),
        None => {}
    }
    gateway.store.note_sender(&peer.domain, &agency.to_wire()).await.map_err(internal)?;
    gateway.directory.rcu(|directory| match directory.get(&agency.address) {
        // The peer has told of it meanwhile.
        Some(known) if known.listed => Directory::clone(directory),
        _ => directory.with(agency.clone()),
    });
    Ok(())
}

/// The agencies of peers that the store knows; those that are `known` are not proven again. One of a country that is not
/// confirmed any more can't be addressed, but what it sent and was sent before may have to be decided again.
pub fn from_store(listed: &[(wire::Agency, bool)], peers: &[Arc<Peer>], known: &Directory) -> Vec<Agency> {
    let mut agencies = Vec::with_capacity(listed.len());
    for (agency, is_listed) in listed {
        let domain: Option<Domain> =
            agency.address.parse().ok().map(|address: AgencyAddress| address.domain().clone());
        let Some(peer) = peers.iter().find(|peer| Some(&peer.domain) == domain.as_ref()) else { continue };
        let read = read(peer, agency).and_then(|read| {
            let known = known.get(&read.address).filter(|known| known.to_wire() == *agency);
            let keys = known.map_or_else(
                || keys(peer, &read.address, &[], &agency.keys),
                |known| Ok(known.keys.clone()),
            )?;
            Ok(Agency { keys, ..read })
        });
        match read {
            Ok(read) => {
                let listed = *is_listed && peer.countries.contains(&read.country);
                agencies.push(Agency { listed, ..read });
            }
            Err(refusal) => {
                warn!(agency = agency.address, "an agency of a peer is left out: {}", refusal.message);
            }
        }
    }
    agencies
}

fn too_many(peer: &Peer) -> Refusal {
    Refusal::new(
        ErrorCode::TooLarge,
        format!("{} has more than {} agencies", peer.domain, limits::PEER_AGENCIES),
        "withdraw some of them",
    )
}

/// An agency of a peer by its name.
///
/// # Errors
/// It is not one of its own.
pub(super) fn address(peer: &Peer, text: &str) -> Result<AgencyAddress, Refusal> {
    let address: Option<AgencyAddress> = text.parse().ok();
    address
        .filter(|address| *address.domain() == peer.domain)
        .ok_or_else(|| violation(format!("{} speaks of an agency that is not one of its own", peer.domain)))
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};

    #[test]
    fn agencies_of_a_country_that_is_not_confirmed_any_more_are_known_and_not_addressed() {
        let peer = Arc::new(testing::peer("hu", &["hu"], &["hu"]));
        let kept = [testing::agency("hu/shelter", "hu"), testing::agency("hu/annex", "at")];
        let kept: Vec<_> = kept.iter().map(|agency| (agency.to_wire(), true)).collect();
        let read = from_store(&kept, &[peer], &Directory::default());
        let read: Vec<_> = read.iter().map(|agency| (agency.country.as_str(), agency.listed)).collect();
        assert_eq!(read, [("hu", true), ("at", false)]);
    }
}
