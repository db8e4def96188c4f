//! The decision asked again before a hand-over, because the policies changed since: the stricter wins.

use std::collections::BTreeMap;

use liaison_proto::message::v1::{
    CategoryDecision, RecipientDecision, ReleaseRecord, ReleasedSection, verdict::Code as Verdict,
};

/// What becomes of a delivery under the policies of now.
#[derive(Debug, Clone, PartialEq)]
pub enum Recheck {
    /// No section less than was released. The record of now goes with the copy: one of then would tell
    /// the recipient, beside one of now, that the latter was narrowed.
    Same(ReleaseRecord),
    /// Less: the record that goes with the copy from now on, and what the sender is told.
    Narrowed(ReleaseRecord, RecipientDecision),
    /// Nothing goes to the recipient any more.
    Withheld(RecipientDecision),
}

/// Compares what was released with what the policies of now release.
pub fn recheck(
    old: (&ReleaseRecord, &RecipientDecision),
    new: (ReleaseRecord, RecipientDecision),
) -> Recheck {
    let ((old_record, old_told), (new_record, new_told)) = (old, new);
    let told = stricter(old_told, &new_told);
    if new_told.verdict() != Verdict::Released {
        return Recheck::Withheld(told);
    }
    let released = intersection(&old_record.released, &new_record.released);
    let is_same = released == old_record.released;
    let withheld = new_record
        .withheld
        .iter()
        .filter(|category| old_record.withheld.contains(category) || was_released(old_told, **category))
        .copied()
        .collect();
    let record = ReleaseRecord { released, withheld, ..new_record };
    if is_same { Recheck::Same(record) } else { Recheck::Narrowed(record, told) }
}

/// What both records release, with the obligations of both.
fn intersection(old: &[ReleasedSection], new: &[ReleasedSection]) -> Vec<ReleasedSection> {
    let new: BTreeMap<u32, &ReleasedSection> =
        new.iter().map(|section| (section.position, section)).collect();
    old.iter()
        .filter_map(|old| {
            let new = new.get(&old.position)?;
            Some(ReleasedSection {
                position: old.position,
                retention_days: old.retention_days.min(new.retention_days),
                onward_share: old.onward_share && new.onward_share,
                use_as_evidence: old.use_as_evidence && new.use_as_evidence,
            })
        })
        .collect()
}

/// Of each verdict the one against, and the older where both are.
fn stricter(old: &RecipientDecision, new: &RecipientDecision) -> RecipientDecision {
    let new_categories: BTreeMap<i32, &CategoryDecision> =
        new.categories.iter().map(|decision| (decision.category, decision)).collect();
    let categories = old.categories.iter().map(|old| match new_categories.get(&old.category) {
        Some(new) if old.verdict() == Verdict::Released => (*new).clone(),
        _ => old.clone(),
    });
    let whole = if old.verdict() == Verdict::Released { new } else { old };
    RecipientDecision {
        recipient: old.recipient.clone(),
        verdict: whole.verdict,
        rule: whole.rule.clone(),
        categories: categories.collect(),
    }
}

fn was_released(told: &RecipientDecision, category: i32) -> bool {
    told.categories
        .iter()
        .any(|decision| decision.category == category && decision.verdict() == Verdict::Released)
}
