//! What administrators did, as the log tells it: replayed, and compared with the audit and with what the acts made.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use liaison_proto::{
    admin::v1::{agency_state::Code as AgencyState, peer_state::Code as PeerState},
    log::v1::Act,
};
use time::OffsetDateTime;

use super::fault::{CHANGED, Faults};
use crate::{
    limits,
    log::ERASE,
    revoked::Revocations,
    store::{AgencyRow, AuditRow, PeerRow, PolicyRow},
};

/// The acts of the logs so far, and what they made.
#[derive(Debug, Default)]
pub(super) struct Acts {
    /// The last ones, as many as the audit keeps: act, subject, and when in Unix milliseconds.
    last: VecDeque<(String, String, i64)>,
    agencies: BTreeMap<String, Agency>,
    peers: BTreeMap<String, PeerState>,
    /// The policy sets that are kept, and when each was activated last.
    policies: Vec<(String, i64)>,
    /// The one that was activated last.
    pub(super) active: Option<String>,
    /// Records that were erased, as the acts name them.
    pub(super) erased: BTreeSet<String>,
}

#[derive(Debug)]
struct Agency {
    added: i64,
    /// Which state it may be in.
    states: &'static [AgencyState],
}

impl Acts {
    /// Takes the next act.
    pub(super) fn take(&mut self, act: Act, at: Option<OffsetDateTime>) {
        let Act { act, subject } = act;
        let at = at.map_or(i64::MIN, millis);
        match act.as_str() {
            "add_agency" => {
                let added = Agency { added: at, states: &[AgencyState::Invited] };
                self.agencies.insert(subject.clone(), added);
            }
            "enrol" => self.agency(&subject, &[AgencyState::Active]),
            "suspend_agency" => self.agency(&subject, &[AgencyState::Suspended]),
            // Whether it was enrolled before, certificates tell, which are forgotten.
            "resume_agency" => self.agency(&subject, &[AgencyState::Active, AgencyState::Invited]),
            "revoke_agency" => self.agency(&subject, &[AgencyState::Revoked]),
            "accept_peer" => {
                let state = self.peers.entry(subject.clone()).or_insert(PeerState::Active);
                if *state != PeerState::Suspended {
                    *state = PeerState::Active;
                }
            }
            "suspend_peer" => _ = self.peers.insert(subject.clone(), PeerState::Suspended),
            "resume_peer" => _ = self.peers.insert(subject.clone(), PeerState::Active),
            "remove_peer" => _ = self.peers.insert(subject.clone(), PeerState::Removed),
            "load_policy" => self.load(&subject, at),
            ERASE => _ = self.erased.insert(subject.clone()),
            _ => {}
        }
        self.last.push_back((act, subject, at));
        if self.last.len() > usize::try_from(limits::AUDIT_ENTRIES).unwrap_or(usize::MAX) {
            self.last.pop_front();
        }
    }

    fn agency(&mut self, address: &str, states: &'static [AgencyState]) {
        if let Some(agency) = self.agencies.get_mut(address) {
            agency.states = states;
        }
    }

    /// The set that is activated is kept, and of the others those that were activated last.
    fn load(&mut self, hash: &str, at: i64) {
        self.policies.retain(|(known, _)| known != hash);
        self.policies.push((hash.to_owned(), at));
        self.policies.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
        let mut left = limits::POLICY_SETS;
        self.policies.retain(|(known, _)| {
            let is_recent = left > 0;
            left = left.saturating_sub(1);
            is_recent || known == hash
        });
        self.active = Some(hash.to_owned());
    }

    /// Compares the audit.
    pub(super) fn audit(&self, rows: &[AuditRow], faults: &mut Faults) {
        let mut left: BTreeMap<(&str, &str, i64), u64> = BTreeMap::new();
        for (act, subject, at) in &self.last {
            *left.entry((act, subject, *at)).or_default() += 1;
        }
        for AuditRow { seq, at, act, subject } in rows {
            match left.get_mut(&(act.as_str(), subject.as_str(), *at)).filter(|count| **count > 0) {
                Some(count) => *count -= 1,
                None => {
                    let place = format!("audit, entry {seq}, {act} {subject}");
                    let found =
                        "no leaf tells of that act at that time: the entry was put in or changed by hand";
                    faults.add("audit_without_leaf", place, found, CHANGED);
                }
            }
        }
        for ((act, subject, _), _) in left.into_iter().filter(|(_, count)| *count > 0) {
            let place = format!("audit, {act} {subject}");
            let found =
                "the log tells of that act, and the audit does not: its entry was removed or changed by hand";
            faults.add("audit_removed", place, found, CHANGED);
        }
    }

    /// Compares the agencies of the domain, and those whose membership ended. The file of revocations counts as well: it is
    /// merged without an act where the database is older.
    pub(super) fn agencies(
        &self,
        rows: &[AgencyRow],
        ended: &[String],
        revocations: &Revocations,
        faults: &mut Faults,
    ) {
        let in_file: BTreeSet<String> =
            revocations.agencies.iter().map(|(agency, _)| agency.to_string()).collect();
        for AgencyRow { address, state, added } in rows {
            let place = format!("agency {address}");
            let Some(agency) = self.agencies.get(address) else {
                let found = "it is there, and no act tells that it was added: it was put in by hand";
                faults.add("agency_without_act", place, found, CHANGED);
                continue;
            };
            let state = AgencyState::try_from(*state).unwrap_or_default();
            let by_file = state == AgencyState::Revoked && in_file.contains(address);
            if !agency.states.contains(&state) && !by_file {
                let may_be: Vec<_> = agency.states.iter().map(AgencyState::as_str_name).collect();
                let (state, may_be) = (state.as_str_name(), may_be.join(" or "));
                let found = format!("it is {state}, and by the acts of the log {may_be}");
                faults.add("changed_agency", place, found, CHANGED);
            } else if agency.added != *added {
                let found = "it stands there as added at another time than the log says";
                faults.add("changed_agency", place, found, CHANGED);
            }
        }
        let present: BTreeSet<&String> = rows.iter().map(|row| &row.address).collect();
        for address in self.agencies.keys().filter(|address| !present.contains(address)) {
            let found = "the log tells that it was added, and it is not there: it was removed by hand";
            faults.add("agency_removed", format!("agency {address}"), found, CHANGED);
        }
        let is_revoked = |address: &String| {
            self.agencies.get(address).is_some_and(|agency| agency.states == [AgencyState::Revoked])
        };
        for address in ended.iter().filter(|address| !is_revoked(address) && !in_file.contains(*address)) {
            let found =
                "it counts as revoked for good, and neither an act nor the file of revocations says so";
            faults.add("changed_agency", format!("agency {address}"), found, CHANGED);
        }
        for address in self.agencies.keys().filter(|address| is_revoked(address) && !ended.contains(address))
        {
            let found = "the log tells that it was revoked, and its address could be given out again";
            faults.add("changed_agency", format!("agency {address}"), found, CHANGED);
        }
    }

    /// Compares the peers.
    pub(super) fn peers(&self, rows: &[PeerRow], faults: &mut Faults) {
        for PeerRow { domain, state } in rows {
            let place = format!("peer {domain}");
            let state = PeerState::try_from(*state).unwrap_or_default();
            match self.peers.get(domain) {
                None => {
                    let found = "it is there, and no act tells that it was accepted: it was put in by hand";
                    faults.add("peer_without_act", place, found, CHANGED);
                }
                Some(told) if *told != state => {
                    let (state, told) = (state.as_str_name(), told.as_str_name());
                    let found = format!("it is {state}, and by the acts of the log {told}");
                    faults.add("changed_peer", place, found, CHANGED);
                }
                Some(_) => {}
            }
        }
        let present: BTreeSet<&String> = rows.iter().map(|row| &row.domain).collect();
        for domain in self.peers.keys().filter(|domain| !present.contains(domain)) {
            let found = "the log tells that it was accepted, and it is not there: it was removed by hand";
            faults.add("peer_removed", format!("peer {domain}"), found, CHANGED);
        }
    }

    /// Compares the policy sets that are kept.
    pub(super) fn policies(&self, rows: &[PolicyRow], faults: &mut Faults) {
        let kept: BTreeMap<&str, i64> = self.policies.iter().map(|(hash, at)| (hash.as_str(), *at)).collect();
        let mut present = BTreeSet::new();
        for PolicyRow { hash, activated } in rows {
            let hash = hex::encode(hash);
            match kept.get(hash.as_str()) {
                Some(at) if at == activated => {}
                Some(_) => {
                    let found = "it stands there as activated at another time than the log says";
                    faults.add("changed_policy", format!("policy set {hash}"), found, CHANGED);
                }
                None => {
                    let found = "no act tells that it was activated: it was put in by hand";
                    faults.add("policy_without_act", format!("policy set {hash}"), found, CHANGED);
                }
            }
            present.insert(hash);
        }
        for hash in kept.keys().filter(|hash| !present.contains(**hash)) {
            let found = "the log tells that it was activated, and it is not there: it was removed by hand";
            faults.add("policy_removed", format!("policy set {hash}"), found, CHANGED);
        }
    }
}

/// As the other tables count.
fn millis(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).unwrap_or(i64::MAX)
}
