//! Two domains' parts of a decision, put together for the caseworker.

use std::collections::BTreeMap;

use liaison_proto::message::v1::{CategoryDecision, RecipientDecision, verdict::Code as Verdict};

/// What the sender's domain and the recipient's decide together: the sender's refusal first, then the
/// recipient's. What only the other domain could decide, and can't be asked about, is undecided.
pub fn merged(own: RecipientDecision, theirs: Option<&RecipientDecision>) -> RecipientDecision {
    let mut merged = own;
    let categories: BTreeMap<i32, &CategoryDecision> = theirs
        .iter()
        .flat_map(|theirs| &theirs.categories)
        .map(|decision| (decision.category, decision))
        .collect();
    if merged.verdict() == Verdict::Released {
        match theirs {
            Some(theirs) => (merged.verdict, merged.rule) = (theirs.verdict, theirs.rule.clone()),
            None => merged.verdict = Verdict::Undecided.into(),
        }
    }
    for category in merged.categories.iter_mut().filter(|one| one.verdict() == Verdict::Released) {
        match categories.get(&category.category) {
            Some(theirs) => (category.verdict, category.rule) = (theirs.verdict, theirs.rule.clone()),
            None => category.verdict = Verdict::Undecided.into(),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use liaison_proto::message::v1::{Rule, data_category::Code as Category};

    use super::*;

    fn decision(verdict: Verdict, categories: &[(Category, Verdict, &str)]) -> RecipientDecision {
        let rule = |name: &str| (!name.is_empty()).then(|| Rule { rule: name.into(), ..Rule::default() });
        RecipientDecision {
            recipient: "hu/shelter".into(),
            verdict: verdict.into(),
            rule: None,
            categories: categories
                .iter()
                .map(|(category, verdict, name)| CategoryDecision {
                    category: (*category).into(),
                    verdict: (*verdict).into(),
                    rule: rule(name),
                    basis: 0,
                })
                .collect(),
        }
    }

    #[test]
    fn either_domain_withholds_and_neither_is_passed_over() {
        use Verdict::{Released, Undecided, Withheld};
        let own = decision(
            Released,
            &[
                (Category::Identity, Released, ""),
                (Category::Health, Withheld, "ours"),
                (Category::Risk, Released, ""),
            ],
        );
        let theirs =
            decision(Released, &[(Category::Identity, Withheld, "theirs"), (Category::Risk, Released, "")]);
        let both = merged(own.clone(), Some(&theirs));
        let expected = decision(
            Released,
            &[
                (Category::Identity, Withheld, "theirs"),
                (Category::Health, Withheld, "ours"),
                (Category::Risk, Released, ""),
            ],
        );
        assert_eq!(both, expected);
        let alone = merged(own.clone(), None);
        assert_eq!(alone.verdict(), Undecided);
        let verdicts: Vec<_> = alone.categories.iter().map(CategoryDecision::verdict).collect();
        assert_eq!(verdicts, [Undecided, Withheld, Undecided]);
        assert_eq!(merged(decision(Withheld, &[]), Some(&theirs)).verdict(), Withheld);
        assert_eq!(merged(own, Some(&decision(Withheld, &[]))).verdict(), Withheld);
    }
}
