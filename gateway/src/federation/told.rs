//! What a peer was told of this domain's directory, so that it is told what changed and nothing else.

use std::collections::BTreeMap;

use bytes::Bytes;
use liaison_proto::{
    admin::v1::agency_state::Code as AgencyState,
    exchange::v1 as wire,
    federation::v1::DirectoryPage,
    limits::{DIRECTORY_PAGE, DIRECTORY_WITHDRAWN},
    message::v1::Rule,
};
use liaison_trust::{
    digest::{Digest, sha256},
    names::{AgencyAddress, Domain},
};
use prost::Message;

use crate::{
    delivery::{self, may_see},
    directory::{Agency, Directory},
    limits,
    policy::PolicySet,
};

/// What a peer may see, numbered by when it changed last. The numbers hold as long as the gateway runs; a new
/// run has a new epoch, in which everything is told again.
pub(super) struct Told {
    epoch: [u8; 16],
    sequence: u64,
    agencies: BTreeMap<AgencyAddress, (u64, Digest)>,
    withdrawn: BTreeMap<AgencyAddress, u64>,
}

impl Default for Told {
    fn default() -> Self {
        Self { epoch: rand::random(), sequence: 0, agencies: BTreeMap::new(), withdrawn: BTreeMap::new() }
    }
}

impl Told {
    /// How much of this epoch a peer knows that says that it knows this much.
    pub(super) fn known(&self, epoch: &[u8], sequence: u64) -> Option<u64> {
        (epoch == self.epoch && sequence <= self.sequence).then_some(sequence)
    }

    /// Takes a new look at what the peer may see, and gives the pages that lead from `known` to it; none where
    /// nothing changed. Without `known`, everything is told.
    pub(super) fn pages(
        &mut self,
        visible: &BTreeMap<AgencyAddress, wire::Agency>,
        known: Option<u64>,
        own: &Domain,
        peer: &Domain,
    ) -> Vec<DirectoryPage> {
        self.look(visible);
        let after = known.unwrap_or(0);
        let changed = |at: u64| known.is_none() || at > after;
        let agencies: Vec<_> = self
            .agencies
            .iter()
            .filter(|(_, (at, _))| changed(*at))
            .filter_map(|(address, _)| visible.get(address).cloned())
            .collect();
        let withdrawn: Vec<_> = self
            .withdrawn
            .iter()
            .filter(|(_, at)| known.is_some() && changed(**at))
            .map(|(address, _)| address.to_string())
            .collect();
        if known == Some(self.sequence) {
            return Vec::new();
        }
        let mut pages: Vec<DirectoryPage> = in_pages(agencies)
            .into_iter()
            .map(|agencies| DirectoryPage { agencies, ..DirectoryPage::default() })
            .collect();
        pages.extend(
            withdrawn
                .chunks(DIRECTORY_WITHDRAWN)
                .map(|withdrawn| DirectoryPage { withdrawn: withdrawn.to_vec(), ..DirectoryPage::default() }),
        );
        if pages.is_empty() {
            pages.push(DirectoryPage::default());
        }
        for page in &mut pages {
            page.domain = own.to_string();
            page.peer = peer.to_string();
            page.epoch = Bytes::copy_from_slice(&self.epoch);
            page.sequence = self.sequence;
        }
        if let Some(first) = pages.first_mut() {
            first.first = known.is_none();
        }
        if let Some(last) = pages.last_mut() {
            last.complete = true;
        }
        pages
    }

    /// Numbers what is new, changed or gone since the last look.
    fn look(&mut self, visible: &BTreeMap<AgencyAddress, wire::Agency>) {
        let next = self.sequence + 1;
        let mut changes = false;
        for (address, agency) in visible {
            let digest = sha256(&agency.encode_to_vec());
            if self.agencies.get(address).is_none_or(|(_, known)| *known != digest) {
                self.agencies.insert(address.clone(), (next, digest));
                self.withdrawn.remove(address);
                changes = true;
            }
        }
        let gone: Vec<_> =
            self.agencies.keys().filter(|address| !visible.contains_key(address)).cloned().collect();
        for address in gone {
            self.agencies.remove(&address);
            self.withdrawn.insert(address, next);
            changes = true;
        }
        // The first look tells even that there is nobody.
        if changes || self.sequence == 0 {
            self.sequence = next;
        }
    }
}

/// The agencies of this domain that policies let another domain see.
pub(super) fn visible(
    directory: &Directory,
    policies: &PolicySet,
    own: &Domain,
    peer: &Domain,
) -> BTreeMap<AgencyAddress, wire::Agency> {
    directory
        .of(own)
        .filter(|agency| agency.state == AgencyState::Active && may_see(policies, peer, agency))
        .map(|agency| (agency.address.clone(), agency.to_wire()))
        .collect()
}

/// The agency of this domain that another domain addresses.
///
/// # Errors
/// It is not there, takes no part, or policies don't let that domain know of it: it is told the same of those.
pub(super) fn addressed<'d>(
    directory: &'d Directory,
    policies: &PolicySet,
    peer: &Domain,
    address: &AgencyAddress,
) -> Result<&'d Agency, Rule> {
    let is_seen = directory.get(address).is_some_and(|agency| may_see(policies, peer, agency));
    let seen = is_seen.then_some(()).ok_or_else(|| delivery::unknown_recipient(address));
    seen.and_then(|()| delivery::recipient(directory, address)).map_err(|refusal| Rule {
        layer: "directory".to_owned(),
        rule: "none:member".to_owned(),
        explain: format!("{}; {}", refusal.message, refusal.action),
        ..Rule::default()
    })
}

/// Pages bounded in number and bytes; a single agency may exceed the latter.
fn in_pages(agencies: Vec<wire::Agency>) -> Vec<Vec<wire::Agency>> {
    let mut pages: Vec<Vec<wire::Agency>> = Vec::new();
    let mut bytes = 0;
    for agency in agencies {
        let size = agency.encoded_len();
        match pages.last_mut() {
            Some(page) if page.len() < DIRECTORY_PAGE && bytes + size <= limits::AGENCIES_BYTES => {
                bytes += size;
                page.push(agency);
            }
            _ => {
                bytes = size;
                pages.push(vec![agency]);
            }
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visible(agencies: &[(&str, &str)]) -> BTreeMap<AgencyAddress, wire::Agency> {
        let agency = |(address, name): &(&str, &str)| {
            let wire =
                wire::Agency { address: (*address).into(), name: (*name).into(), ..Default::default() };
            (address.parse().unwrap(), wire)
        };
        agencies.iter().map(agency).collect()
    }

    fn told(pages: &[DirectoryPage]) -> (Vec<&str>, Vec<&str>) {
        let agencies = pages.iter().flat_map(|page| &page.agencies).map(|agency| agency.address.as_str());
        let withdrawn = pages.iter().flat_map(|page| &page.withdrawn).map(String::as_str);
        (agencies.collect(), withdrawn.collect())
    }

    #[test]
    fn a_peer_is_told_what_changed_and_nothing_else() {
        let (own, peer): (Domain, Domain) = ("be".parse().unwrap(), "hu".parse().unwrap());
        let mut told_to = Told::default();
        let first = told_to.pages(&visible(&[("be/a", "A"), ("be/b", "B")]), None, &own, &peer);
        assert_eq!(told(&first), (vec!["be/a", "be/b"], vec![]));
        assert!(first[0].first && first[0].complete);
        let (epoch, at) = (first[0].epoch.clone(), first[0].sequence);
        assert_eq!(told_to.known(&epoch, at), Some(at));
        assert_eq!(told_to.known(&[0; 16], at), None, "of another run");
        assert_eq!(told_to.known(&epoch, at + 9), None, "more than was ever told");

        let same = visible(&[("be/a", "A"), ("be/b", "B")]);
        assert!(told_to.pages(&same, Some(at), &own, &peer).is_empty());
        let changed = visible(&[("be/a", "A"), ("be/c", "C")]);
        let pages = told_to.pages(&changed, Some(at), &own, &peer);
        assert_eq!(told(&pages), (vec!["be/c"], vec!["be/b"]));
        assert!(!pages[0].first && pages.last().unwrap().complete);
        let again = told_to.pages(&changed, Some(at), &own, &peer);
        assert_eq!(told(&again), (vec!["be/c"], vec!["be/b"]), "asked from the same position");
        let all = told_to.pages(&changed, None, &own, &peer);
        assert_eq!(told(&all), (vec!["be/a", "be/c"], vec![]));
        let back = told_to.pages(&visible(&[("be/b", "B")]), Some(at + 1), &own, &peer);
        assert_eq!(told(&back), (vec!["be/b"], vec!["be/a", "be/c"]));
    }

    #[test]
    fn nobody_is_told_as_well() {
        let (own, peer): (Domain, Domain) = ("be".parse().unwrap(), "hu".parse().unwrap());
        let pages = Told::default().pages(&BTreeMap::new(), None, &own, &peer);
        assert!(pages[0].first && pages[0].complete && pages[0].agencies.is_empty());
    }

    #[test]
    fn pages_are_bounded() {
        let many: Vec<_> = (0..250).map(|_| wire::Agency::default()).collect();
        let lengths: Vec<_> = in_pages(many).iter().map(Vec::len).collect();
        assert_eq!(lengths, [100, 100, 50]);
    }
}
