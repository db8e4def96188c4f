//! The disclosure record: from the leaves about the messages of one thread, to whom which category was released and by
//! which rule, what was withheld, and what became of it. A plain function of records.

use std::collections::{BTreeMap, BTreeSet};

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
    /// What this domain decided: `released`, `withheld` or `held`; `refused` where the message was, and `erased` where the
    /// record was that told it.
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
    /// Of a record that was erased: when, and the origin and the index of the leaf that tells of that act; empty where no
    /// act does.
    pub erased_at: Option<OffsetDateTime>,
    pub erased_by: String,
    /// The leaves that tell of it, each `<origin> <index>`.
    pub leaves: Vec<String>,
}

/// A leaf as far as it can be read.
#[derive(Debug, Clone)]
pub enum Said {
    Record(Record),
    Erased(Erased),
}

/// A leaf whose record was erased.
#[derive(Debug, Clone, Default)]
pub struct Erased {
    pub thread: Vec<u8>,
    pub message: Vec<u8>,
    /// The act by which that happened: when, and the origin and the index of its leaf.
    pub by: Option<(Option<OffsetDateTime>, String)>,
}

/// The disclosures that leaves tell of, each with its name, in their order; and the records that were erased.
pub fn disclosures(leaves: &[(String, Said)]) -> Vec<Disclosure> {
    let mut told = Told::default();
    for (leaf, said) in leaves {
        let record = match said {
            Said::Record(record) => record,
            Said::Erased(erased) => {
                told.erased(leaf, erased);
                continue;
            }
        };
        let at = record.at.as_ref().and_then(times::from_wire);
        match &record.event {
            Some(Event::Accepted(accepted)) => told.accepted(leaf, at, accepted),
            Some(Event::Refused(refused)) => told.refused(leaf, at, refused),
            Some(Event::HandedOver(handed_over)) => told.handed_over(leaf, at, handed_over),
            Some(Event::Outcome(outcome)) => told.outcome(leaf, at, outcome),
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
    /// Messages of whose acceptance a leaf tells.
    accepted: BTreeSet<Vec<u8>>,
}

impl Told {
    fn accepted(&mut self, leaf: &str, at: Option<OffsetDateTime>, accepted: &Accepted) {
        self.accepted.insert(accepted.message_id.to_vec());
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
                    leaves: vec![leaf.to_owned()],
                    ..Disclosure::default()
                });
            }
        }
    }

    fn refused(&mut self, leaf: &str, at: Option<OffsetDateTime>, refused: &Refused) {
        self.add(Disclosure {
            thread: id(&refused.thread),
            message: id(&refused.message_id),
            sender: refused.sender.clone(),
            verdict: "refused".to_owned(),
            withheld_by: refused.rule.as_ref().map(name).unwrap_or_default(),
            decided_at: at,
            leaves: vec![leaf.to_owned()],
            ..Disclosure::default()
        });
    }

    fn erased(&mut self, leaf: &str, erased: &Erased) {
        let (erased_at, erased_by) = erased.by.clone().unwrap_or_default();
        self.add(Disclosure {
            thread: id(&erased.thread),
            message: id(&erased.message),
            verdict: "erased".to_owned(),
            erased_at,
            erased_by,
            leaves: vec![leaf.to_owned()],
            ..Disclosure::default()
        });
    }

    fn handed_over(&mut self, leaf: &str, at: Option<OffsetDateTime>, event: &HandedOver) {
        // Where its acceptance was erased, this alone tells what went.
        if !self.is_told_of(&event.message_id, &event.recipient) {
            for category in event.released() {
                self.add(Disclosure {
                    message: id(&event.message_id),
                    sender: event.sender.clone(),
                    recipient: event.recipient.clone(),
                    category: category.as_str_name().to_owned(),
                    verdict: Verdict::Released.as_str_name().to_owned(),
                    policy_set: hex::encode(&event.policy_hash),
                    ..Disclosure::default()
                });
            }
        }
        for told in self.of(&event.message_id, &event.recipient, leaf) {
            let is_in = event.released().any(|category| category.as_str_name() == told.category);
            if is_in && told.handed_over_at.is_none() {
                told.handed_over_at = at;
            }
        }
    }

    fn outcome(&mut self, leaf: &str, at: Option<OffsetDateTime>, outcome: &Outcome) {
        if !self.is_told_of(&outcome.message_id, &outcome.recipient) {
            self.add(Disclosure {
                message: id(&outcome.message_id),
                sender: outcome.sender.clone(),
                recipient: outcome.recipient.clone(),
                ..Disclosure::default()
            });
        }
        for told in self.of(&outcome.message_id, &outcome.recipient, leaf) {
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

    /// Whether it is known what was decided of a message, or what went of it to a recipient.
    fn is_told_of(&self, message: &[u8], recipient: &str) -> bool {
        self.accepted.contains(message) || self.places.contains_key(&(id(message), recipient.to_owned()))
    }

    fn add(&mut self, disclosure: Disclosure) {
        let key = (disclosure.message.clone(), disclosure.recipient.clone());
        self.places.entry(key).or_default().push(self.disclosures.len());
        self.disclosures.push(disclosure);
    }

    /// Those of a message and a recipient, of which another leaf tells.
    fn of(&mut self, message: &[u8], recipient: &str, leaf: &str) -> Vec<&mut Disclosure> {
        let places = self.places.get(&(id(message), recipient.to_owned())).cloned().unwrap_or_default();
        let all = self.disclosures.iter_mut().enumerate();
        let mut of: Vec<_> = all.filter(|(place, _)| places.contains(place)).map(|(_, told)| told).collect();
        of.iter_mut().for_each(|told| told.leaves.push(leaf.to_owned()));
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
    use liaison_proto::message::v1::data_category::Code as Category;

    use super::*;

    /// What one decision says of health, and of the copy as a whole.
    fn health(verdict: Verdict) -> Decision {
        let rule = (verdict != Verdict::Released)
            .then(|| RuleName { layer: "country/hu".to_owned(), rule: "no-health".to_owned() });
        let category = CategoryDecision {
            category: Category::Health.into(),
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
        all(events.into_iter().map(record).collect()).pop().unwrap()
    }

    fn record(event: Event) -> Said {
        Said::Record(Record { at: None, event: Some(event) })
    }

    fn all(said: Vec<Said>) -> Vec<Disclosure> {
        let named = said.into_iter().enumerate().map(|(index, said)| (format!("hu/log/1 {index}"), said));
        disclosures(&named.collect::<Vec<_>>())
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

    #[test]
    fn an_erased_acceptance_is_told_of_with_what_is_left() {
        let handed_over = HandedOver {
            message_id: vec![7; 16].into(),
            recipient: "hu/shelter".to_owned(),
            released: vec![Category::Health.into()],
            ..HandedOver::default()
        };
        let ended = Outcome {
            message_id: vec![7; 16].into(),
            recipient: "hu/shelter".to_owned(),
            event: Some(What::Acknowledged(Default::default())),
            ..Outcome::default()
        };
        let by = Some((None, "be/log/1 9".to_owned()));
        let erased = Erased { thread: vec![8; 16], message: vec![7; 16], by };
        let told = all(vec![
            Said::Erased(erased.clone()),
            record(Event::HandedOver(handed_over)),
            record(Event::Outcome(ended.clone())),
        ]);
        let words = |one: &Disclosure| (one.verdict.clone(), one.category.clone(), one.leaves.clone());
        assert_eq!(
            told.iter().map(words).collect::<Vec<_>>(),
            [
                ("erased".to_owned(), String::new(), vec!["hu/log/1 0".to_owned()]),
                (
                    "released".to_owned(),
                    "health".to_owned(),
                    vec!["hu/log/1 1".to_owned(), "hu/log/1 2".to_owned()]
                )
            ]
        );
        assert_eq!((told[0].erased_by.as_str(), told[0].thread.is_empty()), ("be/log/1 9", false));
        // The hand-over was erased as well.
        let told =
            all(vec![Said::Erased(erased.clone()), Said::Erased(erased), record(Event::Outcome(ended))]);
        assert_eq!((told.len(), told[2].recipient.as_str()), (3, "hu/shelter"));
    }
}
