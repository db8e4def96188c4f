//! To whom a message goes, and what the gateway would decide: asked before anything is sealed.

use std::collections::{BTreeMap, BTreeSet};

use liaison_proto::{
    case::v1::{
        PreviewRequest, PreviewResponse, SendAlertRequest, SendReferralRequest, preview_request::Message,
    },
    exchange::v1::{
        self as exchange, MessageHead, PreviewRecipient, ResolveAudienceRequest, ResolveAudienceResponse,
    },
    limits as wire,
    message::v1::{
        Audience as Meant, CategoryBasis, RecipientDecision, Refusal, Rule, alert_kind::Code as AlertKind,
        basis::Code as Basis, data_category::Code as Category, error_code::Code as ErrorCode,
        kind::Code as Kind, sector::Code as Sector, verdict::Code as Verdict,
    },
    times,
};
use liaison_trust::names::AgencyAddress;
use time::OffsetDateTime;

use super::{
    parse::{self, Body, missing},
    views,
};
use crate::{agent::Agent, basis::Recipient};

/// An alert's audience, resolved under policy.
pub(super) struct Audience {
    /// Whom it will be sealed to.
    pub(super) recipients: Vec<Recipient>,
    /// Whom it may not or can't reach, with the rule.
    pub(super) refused: Vec<RecipientDecision>,
    /// Hash of the policy set that decided.
    pub(super) policy_hash: Vec<u8>,
}

/// Tells who would receive what, and sends nothing.
pub(super) async fn preview(agent: &Agent, request: PreviewRequest) -> Result<PreviewResponse, Refusal> {
    match request.message {
        Some(Message::Referral(request)) => preview_referral(agent, &request).await,
        Some(Message::Alert(request)) => preview_alert(agent, &request).await,
        None => Err(missing("message", "give the referral or the alert that is to be previewed")),
    }
}

async fn preview_referral(agent: &Agent, request: &SendReferralRequest) -> Result<PreviewResponse, Refusal> {
    let parse::Referral { to, body } = parse::referral(request, &agent.address, OffsetDateTime::now_utc())?;
    let mut recipients = Vec::with_capacity(to.len());
    for address in to {
        recipients.push(recipient(agent, &address).await?);
    }
    decide(agent, head(Kind::Referral, AlertKind::Unspecified, &body), &body, &recipients).await
}

async fn preview_alert(agent: &Agent, request: &SendAlertRequest) -> Result<PreviewResponse, Refusal> {
    let parse::Alert { kind, body } = parse::alert(request, &agent.address, OffsetDateTime::now_utc())?;
    let Audience { recipients, refused, policy_hash } = resolve(agent, kind, &body).await?;
    if recipients.is_empty() {
        return Ok(PreviewResponse {
            recipients: refused,
            policy_hash: hex::encode(policy_hash),
            decided_at: Some(times::to_wire(OffsetDateTime::now_utc())),
            parts: Vec::new(),
        });
    }
    let mut preview = decide(agent, head(Kind::Alert, kind, &body), &body, &recipients).await?;
    preview.recipients.extend(refused);
    Ok(preview)
}

/// What is known of an agency that is addressed by name.
pub(super) async fn recipient(agent: &Agent, address: &AgencyAddress) -> Result<Recipient, Refusal> {
    let agency = agent.directory.last_listed(address).await?.ok_or_else(|| {
        Refusal::new(
            ErrorCode::UnknownRecipient,
            format!("no agency {address} is known"),
            "choose one of the agencies that can be addressed; they are listed at /v1/agencies",
        )
    })?;
    Ok(Recipient { address: agency.address, country: agency.country, sectors: agency.sectors })
}

/// Resolves an alert's audience at the gateway.
pub(super) async fn resolve(agent: &Agent, kind: AlertKind, body: &Body) -> Result<Audience, Refusal> {
    let request = ResolveAudienceRequest { head: Some(head(Kind::Alert, kind, body)) };
    let resolved = agent.link.resolve_audience(request).await?;
    checked(resolved, body.facts.audience.as_ref().unwrap_or(&Meant::default()), &agent.address)
}

/// The audience as the gateway resolved it, if it added nobody. An agency that has no keys yet would hold
/// the alert up for all others, and is told as not reached instead.
fn checked(
    resolved: ResolveAudienceResponse,
    meant: &Meant,
    me: &AgencyAddress,
) -> Result<Audience, Refusal> {
    let mut audience = Audience {
        recipients: Vec::with_capacity(resolved.agencies.len()),
        refused: resolved.refused,
        policy_hash: resolved.policy_hash.into(),
    };
    let mut seen = BTreeSet::new();
    for agency in &resolved.agencies {
        let known = agency.address != me.to_string() && is_meant(agency, meant);
        if !known || !seen.insert(agency.address.as_str()) {
            return Err(wrongly_resolved());
        }
        if agency.keys.is_empty() {
            audience.refused.push(without_keys(&agency.address));
        } else {
            audience.recipients.push(resolved_recipient(agency)?);
        }
    }
    if audience.recipients.len() > wire::RECIPIENTS {
        return Err(Refusal::new(
            ErrorCode::TooLarge,
            format!(
                "the audience has {} agencies, and {} are the most",
                audience.recipients.len(),
                wire::RECIPIENTS
            ),
            "send it to parts of the audience, one after the other",
        ));
    }
    Ok(audience)
}

/// Why an alert goes to nobody at all.
pub(super) fn reaches_nobody(refused: Vec<RecipientDecision>) -> Refusal {
    match refused.into_iter().find_map(|decision| Some((decision.recipient, decision.rule?))) {
        Some((recipient, rule)) => Refusal::new(
            ErrorCode::ForbiddenByPolicy,
            format!("no agency of the audience may receive this alert; {recipient} and others are refused"),
            "choose another audience, or ask the rule's owner",
        )
        .by_rule(rule),
        None => Refusal::new(
            ErrorCode::EmptyAudience,
            "no agency is in the audience that was described",
            "describe another audience; agencies are listed at /v1/agencies",
        ),
    }
}

/// Asks the gateway, and adds what it was not asked: the categories that no basis covers.
async fn decide(
    agent: &Agent,
    head: MessageHead,
    body: &Body,
    recipients: &[Recipient],
) -> Result<PreviewResponse, Refusal> {
    let now = OffsetDateTime::now_utc();
    let bases: BTreeMap<String, BTreeMap<Category, Basis>> = recipients
        .iter()
        .map(|to| (to.address.to_string(), body.grounds.bases(to, body.sections.keys().copied(), now)))
        .collect();
    let asked = recipients.iter().map(|to| to.address.to_string()).map(|address| PreviewRecipient {
        bases: bases.get(&address).into_iter().flatten().map(category_basis).collect(),
        address,
    });
    let request = exchange::PreviewRequest { head: Some(head), recipients: asked.collect() };
    let decided = agent.link.preview(request).await?;
    let categories: Vec<Category> = body.sections.keys().copied().collect();
    let complete =
        |decision: RecipientDecision| views::with_uncovered(decision, body.sections.keys().copied());
    Ok(PreviewResponse {
        recipients: decided.decisions.into_iter().map(complete).collect(),
        policy_hash: hex::encode(decided.policy_hash),
        decided_at: decided.decided_at,
        parts: decided
            .parts
            .into_iter()
            .map(|part| views::completed_part(part, &agent.address, &categories))
            .collect(),
    })
}

/// Whether an audience means this agency, by what the gateway says of it.
fn is_meant(agency: &exchange::Agency, meant: &Meant) -> bool {
    let Meant { sectors, countries, groups, agencies } = meant;
    let restricts = !(sectors.is_empty() && countries.is_empty() && groups.is_empty());
    agencies.contains(&agency.address)
        || restricts
            && (sectors.is_empty() || agency.sectors.iter().any(|sector| sectors.contains(sector)))
            && (countries.is_empty() || countries.contains(&agency.country))
            && (groups.is_empty() || agency.groups.iter().any(|group| groups.contains(group)))
}

fn wrongly_resolved() -> Refusal {
    tracing::error!(
        "the gateway resolved an audience into agencies that it does not mean, or twice into one"
    );
    Refusal::new(
        ErrorCode::Internal,
        "the gateway resolved the audience into agencies that it does not mean; nothing was sent",
        "tell the gateway's administrator",
    )
}

fn without_keys(address: &str) -> RecipientDecision {
    RecipientDecision {
        recipient: address.to_owned(),
        verdict: Verdict::Withheld.into(),
        rule: Some(Rule {
            layer: "keys".into(),
            rule: "none:keys".into(),
            explain: "the agency's agent has not published its keys yet, so nothing can be sealed to it"
                .into(),
            ..Rule::default()
        }),
        categories: Vec::new(),
    }
}

/// An agency as the gateway describes it.
fn resolved_recipient(agency: &exchange::Agency) -> Result<Recipient, Refusal> {
    let address = agency.address.parse().map_err(|error| {
        tracing::error!(%error, "the gateway resolved an audience into something that is not an address");
        Refusal::internal()
    })?;
    let sectors: Vec<Sector> = agency.sectors().collect();
    Ok(Recipient { address, country: agency.country.clone(), sectors })
}

fn head(kind: Kind, alert_kind: AlertKind, body: &Body) -> MessageHead {
    MessageHead {
        kind: kind.into(),
        alert_kind: alert_kind.into(),
        urgency: body.urgency.into(),
        handling: body.handling,
        status: body.status.into(),
        facts: Some(body.facts.clone()),
    }
}

fn category_basis((category, basis): (&Category, &Basis)) -> CategoryBasis {
    CategoryBasis { category: (*category).into(), basis: (*basis).into() }
}

#[cfg(test)]
mod tests {
    use liaison_proto::message::v1::SignedKeyRecord;

    use super::*;

    fn agency(address: &str) -> exchange::Agency {
        exchange::Agency {
            address: address.into(),
            country: "be".into(),
            sectors: vec![Sector::Ngo.into()],
            groups: vec!["network".into()],
            keys: vec![SignedKeyRecord::default()],
            ..exchange::Agency::default()
        }
    }

    fn resolved(agencies: &[exchange::Agency], meant: &Meant) -> Result<usize, ErrorCode> {
        let response =
            ResolveAudienceResponse { agencies: agencies.to_vec(), ..ResolveAudienceResponse::default() };
        checked(response, meant, &"be/police".parse().unwrap())
            .map(|audience| audience.recipients.len())
            .map_err(|refusal| refusal.code())
    }

    #[test]
    fn a_gateway_adds_nobody_to_an_audience() {
        let shelter = [agency("be/shelter")];
        let named = Meant { agencies: vec!["be/shelter".into()], ..Meant::default() };
        assert_eq!(resolved(&shelter, &named), Ok(1));
        assert_eq!(resolved(&[agency("be/shelter"), agency("be/clinic")], &named), Err(ErrorCode::Internal));
        assert_eq!(resolved(&[agency("be/shelter"), agency("be/shelter")], &named), Err(ErrorCode::Internal));

        let described = |sector: Sector, country: &str, group: &str| Meant {
            sectors: vec![sector.into()],
            countries: vec![country.into()],
            groups: vec![group.into()],
            agencies: Vec::new(),
        };
        assert_eq!(resolved(&shelter, &described(Sector::Ngo, "be", "network")), Ok(1));
        for other in [
            described(Sector::LawEnforcement, "be", "network"),
            described(Sector::Ngo, "hu", "network"),
            described(Sector::Ngo, "be", "courts"),
            Meant::default(),
        ] {
            assert_eq!(resolved(&shelter, &other), Err(ErrorCode::Internal), "{other:?}");
        }
        let belgium = Meant { countries: vec!["be".into()], ..Meant::default() };
        assert_eq!(resolved(&shelter, &belgium), Ok(1));
        assert_eq!(resolved(&[agency("be/police")], &belgium), Err(ErrorCode::Internal), "the sender itself");
    }

    #[test]
    fn who_has_no_keys_is_told_and_does_not_hold_up_the_rest() {
        let asleep = exchange::Agency { keys: Vec::new(), ..agency("be/asleep") };
        let meant = Meant { countries: vec!["be".into()], ..Meant::default() };
        let response = ResolveAudienceResponse {
            agencies: vec![agency("be/shelter"), asleep],
            ..ResolveAudienceResponse::default()
        };
        let audience = checked(response, &meant, &"be/police".parse().unwrap()).unwrap();
        assert_eq!(audience.recipients.len(), 1);
        assert_eq!(audience.refused[0].recipient, "be/asleep");
    }
}
