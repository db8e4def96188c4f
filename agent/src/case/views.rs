//! Messages as the case API shows them.

use std::collections::HashMap;

use liaison_proto::{
    case::v1::{
        Agency, Alert, AlertDelivery, AlertSection, OnwardRequest, Referral, ReferralSection, StateEvent,
        direction::Code as DirectionCode, disclosure::Code as Disclosure,
    },
    category,
    message::v1::{
        CategoryDecision, DomainDecision, RecipientDecision, ReleaseRecord, Rule, basis::Code as Basis,
        data_category::Code as Category, referral_state::Code as State, verdict::Code as Verdict,
    },
    referral::{self, Party},
    strict, times,
};
use liaison_trust::names::AgencyAddress;
use prost::Name;
use uuid::Uuid;

use crate::{
    directory,
    store::{self, Direction, Message, StoredSection},
};

/// A referral without its sections, as it stands in lists.
pub(super) fn referral(message: Message, me: &AgencyAddress) -> Referral {
    let delivery = message.deliveries.into_iter().next();
    let to = delivery.as_ref().map_or_else(|| me.to_string(), |delivery| delivery.agency.to_string());
    let (decision, refused, parts, at) = delivery.map_or_else(Default::default, |delivery| {
        (delivery.decision, delivery.refusal, delivery.parts, delivery.holder)
    });
    let party = match message.direction {
        Direction::Sent => Party::Requester,
        Direction::Received => Party::Responder,
    };
    let state = message.state.state();
    // A cancellation that is under way is for the recipient to answer.
    let asked = message.cancel_pending.then_some(State::Cancelled);
    let allowed = referral::allowed(state, party)
        .into_iter()
        .filter(|next| Some(*next) != asked)
        .map(i32::from)
        .collect();
    Referral {
        id: message.id.to_string(),
        thread: message.thread.to_string(),
        direction: direction(message.direction).into(),
        from: message.from.to_string(),
        to,
        state: state.into(),
        allowed,
        cancel_pending: message.cancel_pending,
        history: message.history.into_iter().map(event).collect(),
        urgency: message.urgency.into(),
        handling: message.handling,
        status: message.status.into(),
        created: Some(times::to_wire(message.created)),
        expires: Some(times::to_wire(message.expires)),
        sections: HashMap::new(),
        decision: decision.map(|decision| completed(decision, &message.categories)),
        refusal: message.refusal.or(refused),
        policy_hash: message.policy_hash.map(|hash| hash.to_string()).unwrap_or_default(),
        parts: parts.into_iter().map(|part| completed_part(part, me, &message.categories)).collect(),
        at,
        onward_of: message.onward_of.map(|id| id.to_string()).unwrap_or_default(),
    }
}

/// An alert without its sections and its deliveries, as it stands in lists.
pub(super) fn alert(message: &Message) -> Alert {
    Alert {
        id: message.id.to_string(),
        direction: direction(message.direction).into(),
        from: message.from.to_string(),
        kind: message.alert_kind.into(),
        urgency: message.urgency.into(),
        handling: message.handling,
        status: message.status.into(),
        created: Some(times::to_wire(message.created)),
        expires: Some(times::to_wire(message.expires)),
        sections: HashMap::new(),
        deliveries: Vec::new(),
        refusal: message.refusal.clone(),
        policy_hash: message.policy_hash.map(|hash| hash.to_string()).unwrap_or_default(),
    }
}

/// Where a sent alert stands at every agency of its audience.
pub(super) fn deliveries(message: Message, me: &AgencyAddress) -> Vec<AlertDelivery> {
    let delivery = |delivery: crate::store::DeliveryState| AlertDelivery {
        agency: delivery.agency.to_string(),
        state: delivery.state.into(),
        decision: delivery.decision.map(|decision| completed(decision, &message.categories)),
        refusal: delivery.refusal,
        parts: delivery.parts.into_iter().map(|part| completed_part(part, me, &message.categories)).collect(),
        at: delivery.holder,
    };
    message.deliveries.into_iter().map(delivery).collect()
}

/// Every category of a received referral.
pub(super) fn referral_sections(
    id: Uuid,
    stored: &[StoredSection],
    release: &ReleaseRecord,
) -> HashMap<String, ReferralSection> {
    each_category(id, stored, release, |disclosure, section, content| ReferralSection {
        disclosure: disclosure.into(),
        content,
        onward_share: section.is_some_and(|section| section.release.onward_share),
        use_as_evidence: section.is_some_and(|section| section.release.use_as_evidence),
        retain_until: section.map(|section| times::to_wire(section.retain_until)),
    })
}

/// Every category of a received alert.
pub(super) fn alert_sections(
    id: Uuid,
    stored: &[StoredSection],
    release: &ReleaseRecord,
) -> HashMap<String, AlertSection> {
    each_category(id, stored, release, |disclosure, section, content| AlertSection {
        disclosure: disclosure.into(),
        content,
        onward_share: section.is_some_and(|section| section.release.onward_share),
        use_as_evidence: section.is_some_and(|section| section.release.use_as_evidence),
        retain_until: section.map(|section| times::to_wire(section.retain_until)),
    })
}

/// An agency of the directory.
pub(super) fn agency(agency: directory::Agency) -> Agency {
    Agency {
        address: agency.address.to_string(),
        name: agency.name,
        country: agency.country,
        sectors: agency.sectors.into_iter().map(i32::from).collect(),
        groups: agency.groups,
        reachable: agency.reachable,
        fingerprint: agency.fingerprint.map(|id| id.to_string()).unwrap_or_default(),
        services: agency.services.types,
        languages: agency.services.languages,
        ages: agency.services.ages,
    }
}

/// The decision with the categories of the message that the gateway did not decide on, because no basis
/// covers them towards this recipient; in the order of the categories.
pub(super) fn with_uncovered(
    mut decision: RecipientDecision,
    categories: impl IntoIterator<Item = Category>,
) -> RecipientDecision {
    let decided: Vec<Category> = decision.categories.iter().map(CategoryDecision::category).collect();
    let uncovered = categories.into_iter().filter(|category| !decided.contains(category));
    decision.categories.extend(uncovered.map(|category| CategoryDecision {
        category: category.into(),
        verdict: Verdict::Withheld.into(),
        rule: Some(Rule {
            layer: "consent".into(),
            rule: "none:basis".into(),
            explain:
                "neither a consent nor another legal basis covers this category towards this agency".into(),
            ..Rule::default()
        }),
        basis: Basis::Unspecified.into(),
    }));
    decision.categories.sort_by_key(|category| category.category);
    decision
}

/// The decision that the gateway sent, completed where the message reaches the recipient: what it gets is
/// told category by category.
fn completed(decision: RecipientDecision, categories: &[Category]) -> RecipientDecision {
    if decision.verdict() == Verdict::Released {
        with_uncovered(decision, categories.iter().copied())
    } else {
        decision
    }
}

/// The part of the own domain, completed as the decision is: what no basis covers, the sender's own side has
/// kept back. Another domain's part is what that domain said.
pub(super) fn completed_part(
    mut part: DomainDecision,
    me: &AgencyAddress,
    categories: &[Category],
) -> DomainDecision {
    if part.domain == me.domain().as_str() {
        part.decision = part.decision.map(|decision| completed(decision, categories));
    }
    part
}

/// Shows all categories by name: what is here as released, what policy lets be told as withheld, and
/// anything else as not disclosed, whether it was erased, kept back, never there or can't be read.
fn each_category<M: prost::Message + Name + Default, T>(
    id: Uuid,
    stored: &[StoredSection],
    release: &ReleaseRecord,
    show: impl Fn(Disclosure, Option<&StoredSection>, Option<M>) -> T,
) -> HashMap<String, T> {
    let each = |category: Category| match stored.iter().find(|section| section.category == category) {
        Some(section) => match content(section) {
            Some(content) => show(Disclosure::Released, Some(section), Some(content)),
            None => {
                tracing::warn!(
                    message = %id,
                    "a section can't be read; upgrade this agent, or if it is up to date, tell the sender's IT"
                );
                show(Disclosure::NotDisclosed, None, None)
            }
        },
        None if release.withheld().any(|withheld| withheld == category) => {
            show(Disclosure::Withheld, None, None)
        }
        None => show(Disclosure::NotDisclosed, None, None),
    };
    category::all().map(|category| (category.as_str_name().to_owned(), each(category))).collect()
}

/// A request to refer onward.
pub(super) fn onward_request(request: store::OnwardRequest) -> OnwardRequest {
    OnwardRequest {
        id: request.id.to_string(),
        direction: direction(request.direction).into(),
        referral: request.referral.to_string(),
        from: request.asker.to_string(),
        originator: request.originator.to_string(),
        to: request.to.to_string(),
        purpose: request.purpose.into(),
        categories: request.categories.into_iter().map(i32::from).collect(),
        step: request.step.into(),
        asked: Some(times::to_wire(request.asked)),
        answered: request.answered.map(times::to_wire),
    }
}

/// What a section says; none if it is not of this version's contracts, or holds anything but its own
/// category: that would have passed a policy that never decided on it.
pub(super) fn content<M: prost::Message + Name + Default>(section: &StoredSection) -> Option<M> {
    let content: M = strict::decode(&section.plaintext).ok()?;
    let parts = category::split(&content).ok()?;
    parts.keys().eq([&section.category]).then_some(content)
}

fn event(event: crate::store::StateEvent) -> StateEvent {
    StateEvent {
        state: event.change.state,
        reason: event.change.reason,
        outcome: event.change.outcome,
        at: Some(times::to_wire(event.at)),
        by: event.by,
    }
}

fn direction(direction: Direction) -> DirectionCode {
    match direction {
        Direction::Sent => DirectionCode::Sent,
        Direction::Received => DirectionCode::Received,
    }
}

#[cfg(test)]
mod tests {
    use liaison_proto::{
        exchange::v1 as exchange,
        message::v1::{
            Health, Narrative, ReferralContent, ReleasedSection, age_band::Code as AgeBand,
            service_type::Code as ServiceType,
        },
    };
    use prost::Message as _;
    use time::OffsetDateTime;
    use zeroize::Zeroizing;

    use super::*;
    use crate::testing::Domain;

    fn section(category: Category, content: &ReferralContent) -> StoredSection {
        StoredSection {
            category,
            plaintext: Zeroizing::new(content.encode_to_vec()),
            release: ReleasedSection { onward_share: true, ..ReleasedSection::default() },
            retain_until: OffsetDateTime::UNIX_EPOCH,
        }
    }

    fn health() -> ReferralContent {
        ReferralContent {
            health: Some(Health { physical: "broken arm".into(), ..Health::default() }),
            ..ReferralContent::default()
        }
    }

    #[test]
    fn every_category_is_shown_and_none_is_empty() {
        let release =
            ReleaseRecord { withheld: vec![Category::Narrative.into()], ..ReleaseRecord::default() };
        let sections = referral_sections(Uuid::nil(), &[section(Category::Health, &health())], &release);
        assert_eq!(sections.len(), 17);
        for (name, section) in &sections {
            let expected = match name.as_str() {
                "health" => Disclosure::Released,
                "narrative" => Disclosure::Withheld,
                _ => Disclosure::NotDisclosed,
            };
            assert_eq!(section.disclosure(), expected, "{name}");
            assert_eq!(section.content.is_some(), name == "health", "{name}");
            assert_eq!(section.onward_share, name == "health", "{name}");
        }
        assert_eq!(sections["health"].content, Some(health()));
    }

    #[tokio::test]
    async fn what_an_agency_offers_is_known_while_the_gateway_is_away() {
        let (_dir, agent) = Domain::new().agent("police").await;
        let address: AgencyAddress = "hu/shelter".parse().unwrap();
        let services = exchange::Services {
            types: vec![ServiceType::Safehouse.into()],
            languages: vec!["hu".into()],
            ages: vec![AgeBand::Under12.into()],
        };
        let listed = exchange::Agency {
            address: address.to_string(),
            services: Some(services.clone()),
            ..exchange::Agency::default()
        };
        agent.store.set_agency(&address, &listed).await.unwrap();
        let found = agent.directory.last_listed(&address).await.unwrap().unwrap();
        assert_eq!(found.services, services);
        let shown = agency(found);
        assert_eq!(
            (shown.services, shown.languages, shown.ages),
            (services.types, services.languages, services.ages)
        );
    }

    #[test]
    fn the_own_domain_s_part_tells_what_no_basis_covers() {
        let me = "be/police".parse().unwrap();
        let part = |domain: &str, verdict: Verdict| {
            let decision = RecipientDecision { verdict: verdict.into(), ..RecipientDecision::default() };
            DomainDecision { domain: domain.into(), decision: Some(decision), ..DomainDecision::default() }
        };
        let told = |part| {
            let decision = completed_part(part, &me, &[Category::Health]).decision.unwrap();
            decision.categories.into_iter().map(|said| said.rule.unwrap().rule).collect::<Vec<_>>()
        };
        assert_eq!(told(part("be", Verdict::Released)), ["none:basis"]);
        assert!(told(part("be", Verdict::Withheld)).is_empty());
        assert!(told(part("hu", Verdict::Released)).is_empty(), "that domain was not asked about it");
        assert!(told(part("hu", Verdict::Undecided)).is_empty());
        let away = DomainDecision { domain: "hu".into(), ..DomainDecision::default() };
        assert_eq!(completed_part(away.clone(), &me, &[Category::Health]), away);
    }

    #[test]
    fn a_section_that_holds_another_category_is_not_shown() {
        let smuggled = ReferralContent { narrative: Some(Narrative { text: "a story".into() }), ..health() };
        for content in [smuggled, ReferralContent::default()] {
            let stored = [section(Category::Health, &content)];
            let shown = referral_sections(Uuid::nil(), &stored, &ReleaseRecord::default());
            assert_eq!(shown.len(), 17);
            for section in shown.into_values() {
                let nothing =
                    ReferralSection { disclosure: Disclosure::NotDisclosed.into(), ..Default::default() };
                assert_eq!(section, nothing);
            }
        }
    }
}
