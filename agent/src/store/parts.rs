//! What was decided for one recipient, and who holds the message on its way there. Towards another domain
//! both domains decide: each part is kept, and what both say together.

use liaison_proto::message::v1::{
    CategoryDecision, DomainDecision, RecipientDecision, referral_state::Code as State,
    verdict::Code as Verdict,
};
use liaison_trust::names::Domain;
use prost::Message as _;
use uuid::Uuid;

use super::{StoreError, codec, writer::Change};

/// Which of two decisions of one domain counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    First,
    Last,
    /// The last, with what an earlier one released: both may have taken effect.
    Either,
}

/// Keeps what a domain decided for one recipient. `own` is the domain of this agency.
pub(super) async fn keep(
    tx: &mut Change,
    id: Uuid,
    own: &Domain,
    said: &DomainDecision,
    which: Keep,
) -> Result<(), StoreError> {
    let row: Option<(Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>)> = tx
        .ask("select decision, own_part, other_part from deliveries where message = ? and agency = ?")
        .bind(id.as_bytes().as_slice())
        .bind(&said.recipient)
        .first()
        .await?;
    let (Some((known, own_part, other_part)), Some(decision)) = (row, &said.decision) else { return Ok(()) };
    let within = said.recipient.split('/').next() == Some(own.as_str());
    let (before, mut parts) = if within {
        (known.is_some(), None)
    } else {
        let parts: [Option<DomainDecision>; 2] =
            [codec::some_message(own_part.as_deref())?, codec::some_message(other_part.as_deref())?];
        // Why a domain has not decided is no decision.
        (parts.get(place(own, said)).and_then(decision_of).is_some(), Some(parts))
    };
    if before && which == Keep::First {
        return Ok(());
    }
    if let Some(part) = parts.as_mut().and_then(|parts| parts.get_mut(place(own, said))) {
        let earlier = decision_of(part).filter(|_| which == Keep::Either);
        let decision = earlier.map_or_else(|| decision.clone(), |earlier| either(earlier, decision));
        *part = Some(DomainDecision { decision: Some(decision), ..said.clone() });
    }
    let together = match &parts {
        Some([own, other]) => together(decision_of(own), decision_of(other)),
        None => Some(decision.clone()),
    };
    let encoded = |part: Option<DomainDecision>| part.map(|part| part.encode_to_vec());
    let [own_part, other_part] = parts.unwrap_or_default().map(encoded);
    tx.write(
        "update deliveries set decision = ?, own_part = ?, other_part = ? where message = ? and agency = ?",
    )
    .bind(together.map(|decision| decision.encode_to_vec()))
    .bind(own_part)
    .bind(other_part)
    .bind(id.as_bytes().as_slice())
    .bind(&said.recipient);
    Ok(())
}

/// Keeps why a copy waits on its way to the domain of its recipient, as long as that has not decided.
pub(super) async fn waits(tx: &mut Change, id: Uuid, why: &DomainDecision) -> Result<(), StoreError> {
    let row: Option<(Option<Vec<u8>>,)> = tx
        .ask("select other_part from deliveries where message = ? and agency = ?")
        .bind(id.as_bytes().as_slice())
        .bind(&why.recipient)
        .first()
        .await?;
    let Some((known,)) = row else { return Ok(()) };
    if decision_of(&codec::some_message(known.as_deref())?).is_some() {
        return Ok(());
    }
    tx.write("update deliveries set other_part = ? where message = ? and agency = ?")
        .bind(why.encode_to_vec())
        .bind(id.as_bytes().as_slice())
        .bind(&why.recipient);
    Ok(())
}

/// Whether a part says anything of a delivery that stands so: why a domain has not decided matters as long
/// as the copy is on its way.
pub(super) fn is_told(part: &DomainDecision, state: State) -> bool {
    part.decision.is_some() || matches!(state, State::Submitted | State::Requested)
}

/// A message that has not reached its recipient is now at `domain`.
pub(super) fn under_way_at(tx: &mut Change, id: Uuid, recipient: &str, domain: &str) {
    tx.write("update deliveries set holder = ? where message = ? and agency = ? and state in (?, ?)")
        .bind(domain)
        .bind(id.as_bytes().as_slice())
        .bind(recipient)
        .bind(i32::from(State::Submitted))
        .bind(i32::from(State::Requested));
}

/// The recipient's own word shows that it has a message, whatever a gateway told of it. The referral of the
/// thread no longer tells why that message failed.
pub(super) fn reached(tx: &mut Change, id: Uuid, recipient: &str) {
    let id = id.as_bytes().as_slice();
    tx.write(
        "update messages set refusal = null where kind = 1 \
         and thread = (select thread from messages where id = ?) \
         and refusal = (select refusal from deliveries where message = ? and agency = ?)",
    )
    .bind(id)
    .bind(id)
    .bind(recipient);
    tx.write(
        "update deliveries set state = ?, refusal = null, holder = agency where message = ? and agency = ?",
    )
    .bind(i32::from(State::Received))
    .bind(id)
    .bind(recipient);
}

/// The own domain's part stands before the other's.
fn place(own: &Domain, said: &DomainDecision) -> usize {
    usize::from(said.domain != own.as_str())
}

fn decision_of(part: &Option<DomainDecision>) -> Option<&RecipientDecision> {
    part.as_ref().and_then(|part| part.decision.as_ref())
}

/// What one domain released by either of two decisions.
fn either(earlier: &RecipientDecision, later: &RecipientDecision) -> RecipientDecision {
    let released = |said: &CategoryDecision| said.verdict() == Verdict::Released;
    let categories = later.categories.iter().map(|later| {
        let earlier = earlier.categories.iter().find(|said| said.category == later.category);
        earlier.filter(|earlier| released(earlier)).unwrap_or(later).clone()
    });
    RecipientDecision { categories: categories.collect(), ..later.clone() }
}

/// What two domains say together, as far as they have said it: for the message and for each category, the
/// own domain's refusal first, then the other's; else it is released.
fn together(own: Option<&RecipientDecision>, other: Option<&RecipientDecision>) -> Option<RecipientDecision> {
    let (own, other) = match (own, other) {
        (Some(own), Some(other)) => (own, other),
        (one, another) => return one.or(another).cloned(),
    };
    let head = if own.verdict() == Verdict::Released { other } else { own };
    let mut categories = own.categories.clone();
    for said in &other.categories {
        match categories.iter_mut().find(|known| known.category == said.category) {
            Some(known) if known.verdict() == Verdict::Released => *known = said.clone(),
            Some(_) => {}
            None => categories.push(said.clone()),
        }
    }
    categories.sort_by_key(|decision| decision.category);
    Some(RecipientDecision { categories, ..head.clone() })
}

#[cfg(test)]
mod tests {
    use liaison_proto::message::v1::{Rule, data_category::Code as Category};

    use super::*;

    fn rule(layer: &str) -> Option<Rule> {
        Some(Rule { layer: layer.into(), ..Rule::default() })
    }

    fn said(layer: &str, verdict: Verdict, refused: &[Category]) -> RecipientDecision {
        let each = [Category::Identity, Category::Health, Category::Risk].map(|category| {
            let no = refused.contains(&category);
            CategoryDecision {
                category: category.into(),
                verdict: if no { Verdict::Withheld } else { Verdict::Released }.into(),
                rule: rule(layer).filter(|_| no),
                basis: 0,
            }
        });
        RecipientDecision {
            recipient: "hu/shelter".into(),
            verdict: verdict.into(),
            rule: rule(layer).filter(|_| verdict != Verdict::Released),
            categories: each.to_vec(),
        }
    }

    #[test]
    fn either_domain_s_refusal_counts_and_the_own_one_is_told_first() {
        let own = said("own", Verdict::Released, &[Category::Identity, Category::Health]);
        let other = said("other", Verdict::Released, &[Category::Health, Category::Risk]);
        let both = together(Some(&own), Some(&other)).unwrap();
        assert_eq!(both.verdict(), Verdict::Released);
        let layers: Vec<_> =
            both.categories.iter().map(|said| said.rule.as_ref().map(|rule| rule.layer.as_str())).collect();
        assert_eq!(layers, [Some("own"), Some("own"), Some("other")]);
        for (mine, theirs, expected) in [
            (Verdict::Withheld, Verdict::Withheld, rule("own")),
            (Verdict::Released, Verdict::Withheld, rule("other")),
            (Verdict::Withheld, Verdict::Released, rule("own")),
            (Verdict::Released, Verdict::Released, None),
        ] {
            let both = together(Some(&said("own", mine, &[])), Some(&said("other", theirs, &[]))).unwrap();
            assert_eq!(both.rule, expected);
            assert_eq!(both.verdict() == Verdict::Released, expected.is_none());
        }
        assert_eq!(together(None, Some(&other)), Some(other));
        assert_eq!(together(None, None), None);
    }
}
