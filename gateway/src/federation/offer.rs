//! What a peer's gateway releases of a message to one recipient of this domain, and what this domain's layers let
//! pass of that.

use std::collections::BTreeSet;

use bytes::Bytes;
use liaison_proto::message::v1::{
    Refusal, ReleaseRecord, ReleasedSection, Rule, data_category::Code as Category, verdict::Code as Verdict,
};
use liaison_trust::{
    envelope::{Verified, VerifiedRecipient},
    statement,
};
use time::OffsetDateTime;

use super::{refusals::violation, told};
use crate::{
    delivery::{self, Bases},
    directory::{Agency, Directory},
    gateway::Gateway,
    policy::{Decision, PolicySet, Side},
    store::{NewCopy, Released},
};

/// What the sender's gateway released to one recipient.
pub(super) struct Offer<'a> {
    pub(super) sender: &'a Agency,
    pub(super) message: &'a Verified,
    pub(super) recipient: &'a VerifiedRecipient,
    pub(super) release: &'a ReleaseRecord,
}

impl Offer<'_> {
    /// Decides what of it goes to the recipient; a copy where anything goes at all.
    ///
    /// # Errors
    /// The peer had no right to let it pass.
    pub(super) fn decide(
        &self,
        gateway: &Gateway,
        directory: &Directory,
        policies: &PolicySet,
        now: OffsetDateTime,
    ) -> Result<(Decision, Option<NewCopy>), Refusal> {
        let head = delivery::head(&self.message.manifest, self.message.facts.as_ref());
        let bases = self.released_bases();
        let from = self.sender.address.domain();
        let to = match told::addressed(directory, policies, from, &self.recipient.address) {
            Ok(agency) => agency,
            Err(rule) => return Ok((Decision::refused(&bases, rule), None)),
        };
        if to.usable_key(&self.recipient.key_id, now).is_none() {
            return Ok((Decision::refused(&bases, other_keys()), None));
        }
        // The same scheme was asked by the sender's gateway: what it forbids should never have left.
        let scheme = delivery::decide(policies, Side::Scheme, self.sender, to, &head, &bases);
        let forbidden = scheme.verdict != Verdict::Released
            || scheme.categories.values().any(|outcome| outcome.verdict != Verdict::Released);
        if forbidden {
            let categories = scheme.categories.values().filter_map(|outcome| outcome.rule.as_ref());
            let rule = scheme.rule.as_ref().or_else(|| categories.into_iter().next());
            return Err(violation(format!(
                "{} forwards to {} what the scheme's rule {} forbids",
                self.sender.address.domain(),
                self.recipient.address,
                rule.map_or("(none)", |rule| rule.rule.as_str())
            )));
        }
        let decision = delivery::decide(policies, Side::Recipient, self.sender, to, &head, &bases);
        if decision.verdict != Verdict::Released {
            return Ok((decision, None));
        }
        let record = self.record(policies, to, &decision, now);
        let own = &gateway.domain;
        let copy = NewCopy {
            recipient: self.recipient.address.clone(),
            queue: delivery::queue(own, &self.sender.address, &self.recipient.address),
            answers: delivery::answers(own, &self.sender.address, &self.recipient.address),
            proof: self.recipient.proof.clone(),
            bases_salt: Bytes::new(),
            handed_over: None,
            released: Released {
                bases: delivery::bases_to_wire(&self.recipient.address, &bases),
                decision: decision.to_wire(&self.recipient.address),
                release: statement::sign(&record, &gateway.signing),
            },
        };
        Ok((decision, Some(copy)))
    }

    /// The bases of the categories that the sender's gateway released to the recipient.
    fn released_bases(&self) -> Bases {
        let positions: BTreeSet<u32> = self.release.released.iter().map(|section| section.position).collect();
        let categories: BTreeSet<Category> = self
            .message
            .sections
            .iter()
            .filter(|section| positions.contains(&section.section.position))
            .map(|section| section.category)
            .collect();
        let bases = self.recipient.bases.iter().filter(|(category, _)| categories.contains(category));
        bases.map(|(category, basis)| (*category, *basis)).collect()
    }

    /// The record of what goes to the recipient: the obligations of both domains bind, and a withheld category
    /// is named only where both let it be.
    fn record(
        &self,
        policies: &PolicySet,
        to: &Agency,
        decision: &Decision,
        now: OffsetDateTime,
    ) -> ReleaseRecord {
        let sections: Vec<_> = self
            .message
            .sections
            .iter()
            .map(|section| (section.category, section.section.position))
            .collect();
        let message = (self.message.id, self.message.digest);
        let own = delivery::release(message, &self.recipient.address, &sections, decision, policies, now);
        let head = delivery::head(&self.message.manifest, self.message.facts.as_ref());
        let question = delivery::question(&head, &self.recipient.bases);
        let (from, to) = (delivery::party(self.sender), delivery::party(to));
        let named = self.release.withheld().filter(|category| {
            let answer = policies.may_name(Side::Recipient, &from, &to, &question, *category);
            delivery::report(&answer.incidents);
            answer.is_permitted()
        });
        let mut withheld: BTreeSet<i32> = own.withheld.iter().copied().collect();
        withheld.extend(named.map(i32::from));
        ReleaseRecord {
            released: own.released.iter().filter_map(|own| self.with_obligations(own)).collect(),
            withheld: withheld.into_iter().collect(),
            ..own
        }
    }

    fn with_obligations(&self, own: &ReleasedSection) -> Option<ReleasedSection> {
        let theirs = self.release.released.iter().find(|theirs| theirs.position == own.position)?;
        Some(ReleasedSection {
            position: own.position,
            retention_days: own.retention_days.min(theirs.retention_days),
            onward_share: own.onward_share && theirs.onward_share,
            use_as_evidence: own.use_as_evidence && theirs.use_as_evidence,
        })
    }
}

fn other_keys() -> Rule {
    Rule {
        layer: "keys".to_owned(),
        rule: "none:keys".to_owned(),
        explain:
            "The message is sealed to keys that the agency no longer uses. Send it again: its new keys are \
                  known by then."
                .to_owned(),
        ..Rule::default()
    }
}
