//! What is decided about a delivery, as plain functions.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use liaison_gateway::{
    delivery::{Bases, Decided, Recheck, bases_from_wire, bases_to_wire, goes_to_somebody, recheck, told},
    limits,
    policy::{CategoryOutcome, Decision},
};
use liaison_proto::message::v1::{
    CategoryBasis, CategoryDecision, RecipientDecision, ReleaseRecord, ReleasedSection, Rule,
    basis::Code as Basis, data_category::Code as Category, error_code::Code as ErrorCode, kind::Code as Kind,
    verdict::Code as Verdict,
};
use liaison_trust::names::AgencyAddress;
use proptest::prelude::*;
use prost::Message;

const CATEGORIES: [Category; 6] = [
    Category::ServiceRequest,
    Category::Identity,
    Category::Health,
    Category::Location,
    Category::Risk,
    Category::Narrative,
];

/// What one policy set says of one category: withheld (and whether that may be told), or released with
/// its obligations.
#[derive(Debug, Clone)]
enum Say {
    Withheld { named: bool },
    Released { days: u32, onward: bool, evidence: bool },
}

fn say() -> impl Strategy<Value = Say> {
    prop_oneof![
        any::<bool>().prop_map(|named| Say::Withheld { named }),
        (prop_oneof![Just(30), Just(180), Just(730)], any::<bool>(), any::<bool>())
            .prop_map(|(days, onward, evidence)| Say::Released { days, onward, evidence }),
    ]
}

fn says() -> impl Strategy<Value = Vec<Say>> {
    prop::collection::vec(say(), CATEGORIES.len())
}

/// The record and what the sender is told, as a gateway makes them.
fn outcome(says: &[Say], rule: &str) -> (ReleaseRecord, RecipientDecision) {
    let mut record = ReleaseRecord { recipient: "be/b".to_owned(), ..ReleaseRecord::default() };
    let mut told = RecipientDecision {
        recipient: "be/b".to_owned(),
        verdict: Verdict::Released.into(),
        ..RecipientDecision::default()
    };
    for (position, (say, category)) in (0..).zip(says.iter().zip(CATEGORIES)) {
        let mut decision = CategoryDecision { category: category.into(), ..CategoryDecision::default() };
        match say {
            Say::Withheld { named } => {
                decision.set_verdict(Verdict::Withheld);
                decision.rule = Some(Rule { rule: rule.to_owned(), ..Rule::default() });
                if *named {
                    record.withheld.push(category.into());
                }
            }
            Say::Released { days, onward, evidence } => {
                decision.set_verdict(Verdict::Released);
                record.released.push(ReleasedSection {
                    position,
                    retention_days: *days,
                    onward_share: *onward,
                    use_as_evidence: *evidence,
                });
            }
        }
        told.categories.push(decision);
    }
    (record, told)
}

fn by_position(record: &ReleaseRecord) -> BTreeMap<u32, &ReleasedSection> {
    record.released.iter().map(|section| (section.position, section)).collect()
}

proptest! {
    #[test]
    fn a_recheck_never_gives_more_than_either_set(old in says(), new in says()) {
        let ((old_record, old_told), (new_record, new_told)) = (outcome(&old, "old"), outcome(&new, "new"));
        let is_less = |less: &ReleasedSection, more: &ReleasedSection| {
            less.retention_days <= more.retention_days
                && less.onward_share <= more.onward_share
                && less.use_as_evidence <= more.use_as_evidence
        };
        let (old_sections, new_sections) = (by_position(&old_record), by_position(&new_record));
        match recheck((&old_record, &old_told), (new_record.clone(), new_told)) {
            Recheck::Same(record) => {
                prop_assert_eq!(&record.released, &old_record.released);
                for category in &record.withheld {
                    prop_assert!(old_record.withheld.contains(category));
                    prop_assert!(new_record.withheld.contains(category));
                }
                for (position, section) in &old_sections {
                    let allowed = new_sections.get(position);
                    prop_assert!(allowed.is_some_and(|allowed| is_less(section, allowed)));
                }
            }
            Recheck::Narrowed(record, told) => {
                prop_assert_ne!(&record.released, &old_record.released);
                for (position, section) in by_position(&record) {
                    prop_assert!(is_less(section, old_sections[&position]));
                    prop_assert!(is_less(section, new_sections[&position]));
                }
                // Nothing that both release is lost.
                for position in old_sections.keys().filter(|position| new_sections.contains_key(position)) {
                    prop_assert!(by_position(&record).contains_key(position));
                }
                // The recipient learns of no category that neither set let it know.
                for category in &record.withheld {
                    prop_assert!(new_record.withheld.contains(category));
                }
                for (position, decision) in (0..).zip(&told.categories) {
                    let released = by_position(&record).contains_key(&position);
                    prop_assert_eq!(decision.verdict() == Verdict::Released, released);
                    prop_assert_eq!(decision.rule.is_none(), released);
                    if !old_sections.contains_key(&position) {
                        prop_assert_eq!(&decision.rule.as_ref().unwrap().rule, "old");
                    }
                }
            }
            Recheck::Withheld(_) => prop_assert!(false, "the message itself was released by both"),
        }
    }
}

#[test]
fn a_message_that_is_refused_by_now_goes_nowhere() {
    let released = vec![Say::Released { days: 30, onward: false, evidence: false }; CATEGORIES.len()];
    let (old, old_told) = outcome(&released, "old");
    let (new, mut new_told) = outcome(&released, "new");
    new_told.set_verdict(Verdict::Withheld);
    new_told.rule = Some(Rule { rule: "closed".to_owned(), ..Rule::default() });
    let Recheck::Withheld(told) = recheck((&old, &old_told), (new, new_told)) else { panic!("it goes on") };
    assert_eq!((told.verdict(), told.rule.unwrap().rule.as_str()), (Verdict::Withheld, "closed"));
}

fn decided(recipient: usize, verdict: Verdict, explain: usize) -> Decided {
    let rule = |name: &str| Rule {
        layer: "scheme".to_owned(),
        rule: name.to_owned(),
        explain: "x".repeat(explain),
        ..Rule::default()
    };
    let withheld = CategoryOutcome {
        verdict: Verdict::Withheld,
        rule: Some(rule("scheme.category")),
        permitted_by: Vec::new(),
        basis: Basis::PublicTask,
        name_withheld: false,
        retention_days: 30,
        onward_share: false,
        use_as_evidence: false,
    };
    Decided {
        recipient: format!("be/agency-{recipient}").parse().unwrap(),
        bases: Bases::new(),
        decision: Decision {
            verdict,
            rule: (verdict != Verdict::Released).then(|| rule("scheme.message")),
            categories: [(Category::Health, withheld)].into(),
            incidents: Vec::new(),
        },
    }
}

#[test]
fn what_is_told_fits_into_an_acceptance() {
    let few: Vec<_> = (0..3).map(|recipient| decided(recipient, Verdict::Withheld, 500)).collect();
    for decision in told(&few).unwrap() {
        assert_eq!(decision.rule.unwrap().explain.len(), 500);
    }
    let many: Vec<_> = (0..4_096).map(|recipient| decided(recipient, Verdict::Withheld, 500)).collect();
    let fits = told(&many).unwrap();
    assert!(fits.iter().map(Message::encoded_len).sum::<usize>() <= limits::DECISIONS_BYTES);
    // Each rule is explained once, and named everywhere.
    assert_eq!(fits[0].rule.as_ref().unwrap().explain.len(), 500);
    assert_eq!(fits[4_095].rule.as_ref().unwrap().rule, "scheme.message");
    assert!(fits[4_095].rule.as_ref().unwrap().explain.is_empty());

    let mut too_many = many;
    for decided in &mut too_many {
        let outcome = decided.decision.categories[&Category::Health].clone();
        let outcomes = liaison_proto::category::all().map(|category| (category, outcome.clone()));
        decided.decision.categories = outcomes.collect();
    }
    assert_eq!(told(&too_many).unwrap_err().code(), ErrorCode::TooLarge);
}

#[test]
fn one_released_recipient_is_enough() {
    let none = [decided(0, Verdict::Withheld, 1), decided(1, Verdict::Withheld, 1)];
    let refusal = goes_to_somebody(Kind::Alert, &none).unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::ForbiddenByPolicy);
    assert_eq!(refusal.rule.unwrap().rule, "scheme.message");
    let one = [decided(0, Verdict::Withheld, 1), decided(1, Verdict::Released, 1)];
    goes_to_somebody(Kind::Alert, &one).unwrap();
}

#[test]
fn bases_are_read_as_they_were_written() {
    let recipient: AgencyAddress = "be/b".parse().unwrap();
    let bases = Bases::from([
        (Category::Health, Basis::ConsentOfPerson),
        (Category::Identity, Basis::LegalObligation),
    ]);
    let mut wire = bases_to_wire(&recipient, &bases);
    assert_eq!(bases_from_wire(&wire).unwrap(), bases);
    wire.bases.push(wire.bases[0]);
    assert_eq!(bases_from_wire(&wire).unwrap_err().code(), ErrorCode::Malformed);
    wire.bases = vec![CategoryBasis { category: Category::Health.into(), basis: 0 }];
    assert_eq!(bases_from_wire(&wire).unwrap_err().code(), ErrorCode::MissingField);
}
