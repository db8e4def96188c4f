//! The disclosure record: from the leaves about the messages of one thread, to whom which category was released and by
//! which rule, what was withheld, and what became of it. A plain function of records.

use std::collections::BTreeMap;

use liaison_proto::{
    log::v1::{
        Accepted, CategoryDecision, Decision, HandedOver, Outcome, Permits, Record, Refused, RuleName, ended,
        outcome::Event as What, record::Event,
    },
    message::v1::{basis, data_category, verdict::Code as Verdict},
    times,
};
use time::OffsetDateTime;
use uuid::Uuid;

/// What became of one category of one message at one recipient.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disclosure {
    pub thread: String,
    pub message: String,
    pub sender: String,
    pub recipient: String,
    /// Empty where the message was refused as a whole.
    pub category: String,
    /// On which the recipient may have it.
    pub basis: String,
    /// What this domain decided: `released`, `withheld` or `held`; `refused` where the message was.
    pub verdict: String,
    /// `<layer> <rule>` that withheld it, held it or refused the message.
    pub withheld_by: String,
    /// `<layer> <rule>` of the policies that permitted it.
    pub permitted_by: Vec<String>,
    /// The policy set that was asked, and when.
    pub policy_set: String,
    pub decided_at: Option<OffsetDateTime>,
    /// What the recipient's domain decided, where that is another, and by which rule against it.
    pub peer_verdict: String,
    pub peer_withheld_by: String,
    /// When its section was handed over to the recipient's agent, or to its domain's gateway; none where it was not.
    pub handed_over_at: Option<OffsetDateTime>,
    /// When the recipient's signed word came that it has the message.
    pub acknowledged_at: Option<OffsetDateTime>,
    /// How it ended otherwise: `expired`, `quarantined` or `undeliverable`.
    pub ended: String,
    pub ended_at: Option<OffsetDateTime>,
    /// The leaves that tell of it.
    pub leaves: Vec<u64>,
}

/// The disclosures that leaves tell of, each with its index, in their order.
pub fn disclosures(leaves: &[(u64, Record)]) -> Vec<Disclosure> {
    let mut told = Told::default();
    for (index, record) in leaves {
        let at = record.at.as_ref().and_then(times::from_wire);
        match &record.event {
            Some(Event::Accepted(accepted)) => told.accepted(*index, at, accepted),
            Some(Event::Refused(refused)) => told.refused(*index, at, refused),
            Some(Event::HandedOver(handed_over)) => told.handed_over(*index, at, handed_over),
            Some(Event::Outcome(outcome)) => told.outcome(*index, at, outcome),
            Some(Event::Opened(_) | Event::Act(_)) | None => {}
        }
    }
    told.disclosures
}

#[derive(Default)]
struct Told {
    disclosures: Vec<Disclosure>,
    /// Where those of a message and a recipient stand.
    places: BTreeMap<(String, String), Vec<usize>>,
}

impl Told {
    fn accepted(&mut self, index: u64, at: Option<OffsetDateTime>, accepted: &Accepted) {
        for decision in &accepted.decisions {
            for category in &decision.categories {
                let permits = permits(category, &accepted.permits);
                // Where the message itself is withheld, so is whatever its categories say.
                let verdict = match decision.verdict() {
                    Verdict::Released => category.verdict(),
                    other => other,
                };
                let rule = category.rule.as_ref().or(decision.rule.as_ref());
                self.add(Disclosure {
                    thread: id(&accepted.thread),
                    message: id(&accepted.message_id),
                    sender: accepted.sender.clone(),
                    recipient: decision.recipient.clone(),
                    category: data_category::Code::as_str_name(&category.category()).to_owned(),
                    basis: basis::Code::as_str_name(&category.basis()).to_owned(),
                    verdict: verdict.as_str_name().to_owned(),
                    withheld_by: rule.map(name).unwrap_or_default(),
                    permitted_by: permits.iter().map(name).collect(),
                    policy_set: hex::encode(&accepted.policy_hash),
                    decided_at: at,
                    leaves: vec![index],
                    ..Disclosure::default()
                });
            }
        }
    }

    fn refused(&mut self, index: u64, at: Option<OffsetDateTime>, refused: &Refused) {
        self.add(Disclosure {
            message: id(&refused.message_id),
            sender: refused.sender.clone(),
            verdict: "refused".to_owned(),
            withheld_by: refused.rule.as_ref().map(name).unwrap_or_default(),
            decided_at: at,
            leaves: vec![index],
            ..Disclosure::default()
        });
    }

    fn handed_over(&mut self, index: u64, at: Option<OffsetDateTime>, event: &HandedOver) {
        for told in self.of(&event.message_id, &event.recipient, index) {
            let is_in = event.released().any(|category| category.as_str_name() == told.category);
            if is_in && told.handed_over_at.is_none() {
                told.handed_over_at = at;
            }
        }
    }

    fn outcome(&mut self, index: u64, at: Option<OffsetDateTime>, outcome: &Outcome) {
        for told in self.of(&outcome.message_id, &outcome.recipient, index) {
            match &outcome.event {
                Some(What::Acknowledged(_)) => told.acknowledged_at = at,
                Some(What::Forwarded(theirs)) => {
                    let (verdict, rule) = of_category(theirs, &told.category);
                    // What was not released to them, they were not asked. What they released before they lost it, and
                    // now do not, the agency may have.
                    let released = Verdict::Released.as_str_name();
                    if told.verdict == released && told.peer_verdict != released {
                        told.peer_verdict = verdict.as_str_name().to_owned();
                        told.peer_withheld_by = rule.map(name).unwrap_or_default();
                    }
                }
                Some(What::Narrowed(now)) => {
                    let (verdict, rule) = of_category(now, &told.category);
                    let released = Verdict::Released.as_str_name();
                    if verdict == Verdict::Released || told.verdict != released {
                        continue;
                    }
                    // What the other domain has accepted, that one narrows.
                    if told.peer_verdict == released {
                        told.peer_verdict = verdict.as_str_name().to_owned();
                        told.peer_withheld_by = rule.map(name).unwrap_or_default();
                    } else if told.peer_verdict.is_empty() {
                        told.verdict = verdict.as_str_name().to_owned();
                        told.withheld_by = rule.map(name).unwrap_or_default();
                        told.permitted_by.clear();
                    }
                }
                Some(What::Ended(ended)) => {
                    told.ended = ended::Code::as_str_name(&ended.how()).to_owned();
                    told.ended_at = at;
                }
                None => {}
            }
        }
    }

    fn add(&mut self, disclosure: Disclosure) {
        let key = (disclosure.message.clone(), disclosure.recipient.clone());
        self.places.entry(key).or_default().push(self.disclosures.len());
        self.disclosures.push(disclosure);
    }

    /// Those of a message and a recipient, of which another leaf tells.
    fn of(&mut self, message: &[u8], recipient: &str, index: u64) -> Vec<&mut Disclosure> {
        let places = self.places.get(&(id(message), recipient.to_owned())).cloned().unwrap_or_default();
        let all = self.disclosures.iter_mut().enumerate();
        let mut of: Vec<_> = all.filter(|(place, _)| places.contains(place)).map(|(_, told)| told).collect();
        of.iter_mut().for_each(|told| told.leaves.push(index));
        of
    }
}

/// The policies by which a category was released.
pub fn permits<'a>(category: &CategoryDecision, permits: &'a [Permits]) -> &'a [RuleName] {
    let place = (category.permitted_by as usize).checked_sub(1);
    place.and_then(|place| permits.get(place)).map_or(&[], |permits| &permits.policies)
}

/// What a decision says of a category, with the rule against it.
fn of_category<'d>(decision: &'d Decision, category: &str) -> (Verdict, Option<&'d RuleName>) {
    let found = decision.categories.iter().find(|one| one.category().as_str_name() == category);
    match (decision.verdict(), found) {
        (Verdict::Released, Some(found)) => (CategoryDecision::verdict(found), found.rule.as_ref()),
        (Verdict::Released, None) => (Verdict::Withheld, None),
        (other, found) => (other, found.and_then(|found| found.rule.as_ref()).or(decision.rule.as_ref())),
    }
}

fn name(rule: &RuleName) -> String {
    format!("{} {}", rule.layer, rule.rule)
}

/// An id as caseworkers see it.
fn id(bytes: &[u8]) -> String {
    Uuid::from_slice(bytes).map_or_else(|_| hex::encode(bytes), |id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one decision says of health, and of the copy as a whole.
    fn health(verdict: Verdict) -> Decision {
        let rule = (verdict != Verdict::Released)
            .then(|| RuleName { layer: "country/hu".to_owned(), rule: "no-health".to_owned() });
        let category = CategoryDecision {
            category: data_category::Code::Health.into(),
            verdict: verdict.into(),
            rule,
            ..CategoryDecision::default()
        };
        Decision {
            recipient: "hu/shelter".to_owned(),
            verdict: Verdict::Released.into(),
            rule: None,
            categories: vec![category],
        }
    }

    fn told(events: Vec<Event>) -> Disclosure {
        let leaves: Vec<_> =
            (0..).zip(events.into_iter().map(|event| Record { at: None, event: Some(event) })).collect();
        disclosures(&leaves).pop().unwrap()
    }

    fn outcome(event: What) -> Event {
        Event::Outcome(Outcome {
            recipient: "hu/shelter".to_owned(),
            event: Some(event),
            ..Outcome::default()
        })
    }

    #[test]
    fn what_a_domain_narrows_is_told_of_that_domain() {
        let accepted = || {
            Event::Accepted(Accepted { decisions: vec![health(Verdict::Released)], ..Accepted::default() })
        };
        let narrowed = || outcome(What::Narrowed(health(Verdict::Withheld)));
        let own = told(vec![accepted(), narrowed()]);
        assert_eq!((own.verdict.as_str(), own.peer_verdict.as_str()), ("withheld", ""));
        let theirs = told(vec![accepted(), outcome(What::Forwarded(health(Verdict::Released))), narrowed()]);
        assert_eq!((theirs.verdict.as_str(), theirs.peer_verdict.as_str()), ("released", "withheld"));
        assert_eq!(
            (theirs.withheld_by.as_str(), theirs.peer_withheld_by.as_str()),
            ("", "country/hu no-health")
        );
    }
}
