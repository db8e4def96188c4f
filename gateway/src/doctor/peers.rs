//! How a running gateway stands with its peers.

use liaison_proto::admin::v1::{PeerStatus, peer_state::Code as PeerState};

use super::{Finding, ok, warn};

const CHECK: &str = "peer";

/// What there is to say of a peer: nothing of one that was removed.
pub(super) fn examine(peer: &PeerStatus) -> Vec<Finding> {
    let domain = &peer.domain;
    match peer.state() {
        PeerState::Active => active(peer),
        PeerState::Suspended => vec![ok(
            CHECK,
            format!(
                "{domain} is suspended, until `liaison-gateway peer resume {domain}`; {} wait",
                peer.queued
            ),
        )],
        PeerState::Removed | PeerState::Unspecified => Vec::new(),
    }
}

fn active(peer: &PeerStatus) -> Vec<Finding> {
    let PeerStatus { domain, agencies, queued, unconfirmed_countries, .. } = peer;
    let mut findings = Vec::new();
    if !peer.linked {
        findings.push(troubled(
            format!("{domain} is not linked"),
            &peer.problem,
            "run this again in a minute, and look at the gateway's log if it stays so",
        ));
    }
    if peer.linked && !peer.linked_from {
        findings.push(warn(
            CHECK,
            format!("{domain} has no link to this gateway: nothing comes from it"),
            "have its administrator run doctor there",
        ));
    }
    if !peer.same_scheme {
        findings.push(warn(
            CHECK,
            format!("{domain} applies another scheme: nothing crosses"),
            "agree on one with its administrator, and load it in both domains",
        ));
    } else if peer.linked && !peer.problem.is_empty() {
        findings.push(troubled(format!("{domain} is linked, with a problem"), &peer.problem, ""));
    }
    if !unconfirmed_countries.is_empty() {
        findings.push(warn(
            CHECK,
            format!(
                "{domain} says that it speaks for {} as well: agencies from there are refused",
                unconfirmed_countries.join(", ")
            ),
            "if its administrator confirms that, accept its bundle anew with `liaison-gateway peer accept`",
        ));
    }
    if findings.is_empty() {
        findings.push(ok(CHECK, format!("{domain} is linked; {agencies} agencies, {queued} wait for it")));
    }
    findings
}

/// A problem as the gateway words it: what is wrong; what to do, or else this.
fn troubled(what: String, problem: &str, otherwise: &str) -> Finding {
    match problem.split_once("; ") {
        Some((wrong, action)) => warn(CHECK, format!("{what}: {wrong}"), action),
        None => warn(CHECK, what, otherwise),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn linked() -> PeerStatus {
        PeerStatus {
            domain: "hu".to_owned(),
            state: PeerState::Active.into(),
            linked: true,
            linked_from: true,
            same_scheme: true,
            ..PeerStatus::default()
        }
    }

    fn told(peer: &PeerStatus) -> Vec<(Verdict, String)> {
        let findings = examine(peer).into_iter();
        findings.map(|found| (found.verdict, format!("{}; {}", found.detail, found.action))).collect()
    }

    #[test]
    fn a_peer_that_is_linked_or_suspended_is_ok_and_a_removed_one_is_not_told_of() {
        let suspended = PeerState::Suspended.into();
        let suspended = PeerStatus { state: suspended, linked: false, linked_from: false, ..linked() };
        for (peer, word) in [(linked(), "hu is linked"), (suspended, "peer resume hu")] {
            let told = told(&peer);
            let [(Verdict::Ok, detail)] = told.as_slice() else { panic!("{told:?}") };
            assert!(detail.contains(word), "{detail}");
        }
        assert!(examine(&PeerStatus { state: PeerState::Removed.into(), ..linked() }).is_empty());
    }

    #[test]
    fn whatever_keeps_messages_from_crossing_is_told_with_what_to_do() {
        let problem = "hu can't be reached; check the network".to_owned();
        let unlinked = PeerStatus { linked: false, linked_from: false, ..linked() };
        let cases = [
            (PeerStatus { problem: problem.clone(), ..unlinked.clone() }, "reached; check the network"),
            (unlinked, "not linked; run this again"),
            (PeerStatus { problem, ..linked() }, "with a problem: hu can't be reached; check"),
            (PeerStatus { linked_from: false, ..linked() }, "no link to this gateway"),
            (PeerStatus { same_scheme: false, ..linked() }, "another scheme"),
            (
                PeerStatus { unconfirmed_countries: vec!["at".to_owned(), "sk".to_owned()], ..linked() },
                "at, sk as well",
            ),
        ];
        for (peer, word) in cases {
            let told = told(&peer);
            let [(Verdict::Warn, detail)] = told.as_slice() else { panic!("{told:?}") };
            assert!(detail.contains(word), "{detail}");
        }
    }
}
