//! Messages to send: a referral that holds every category, and alerts.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use liaison_proto::{
    case::v1::{ClaimedBasis, SendAlertRequest, SendReferralRequest},
    category,
    message::v1::{
        AlertContent, AlertInfo, Audience, Consent, ConsentScope, Contact, CriminalProceedings, Demographic,
        Exploitation, ExploitationPattern, Facts, Health, Identity, Location, Migration, Minor, Narrative,
        Perpetrator, PersonName, ReferralContent, Risk, ServiceRequest, SexualExploitation,
        TraffickingStatus, age_band, alert_kind::Code as AlertKind, alert_severity, basis::Code as Basis,
        consent_source, data_category::Code as Category, exploitation_type, kind::Code as Kind,
        purpose::Code as Purpose, risk_level, sector, service_type, victim_status,
    },
    times,
};
use liaison_trust::{
    envelope::{Draft, Recipient},
    key_record::ProvenKey,
};
use prost::Message;
use rand::RngExt;
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// Words that occur nowhere else: one for each category that has a place for words.
#[derive(Debug, Clone)]
pub struct Words(String);

impl Words {
    /// New ones.
    pub fn fresh() -> Self {
        Self(hex::encode(rand::rng().random::<[u8; 8]>()))
    }

    /// The word of a category; lower case, digits and hyphens, so that it fits an address as well.
    pub fn of(&self, category: Category) -> String {
        format!("kanarie-{}-{}", category.as_str_name().replace('_', "-"), self.0)
    }

    /// What all of them have in common.
    pub fn tag(&self) -> &str {
        &self.0
    }
}

/// Content with every category, and a word of its own in each that has a place for words.
pub fn content(words: &Words, consent: Consent) -> ReferralContent {
    let word = |category| words.of(category);
    let mut consent = consent;
    // The consent record holds no free text: the word stands as an agency that nobody knows.
    consent.scopes.push(ConsentScope {
        agencies: vec![format!("be/{}", word(Category::Consent))],
        ..ConsentScope::default()
    });
    ReferralContent {
        service_request: Some(ServiceRequest {
            services: vec![service_type::Code::Safehouse.into()],
            note: word(Category::ServiceRequest),
            ..ServiceRequest::default()
        }),
        identity: Some(Identity {
            names: vec![PersonName { given: word(Category::Identity), ..PersonName::default() }],
            ..Identity::default()
        }),
        contact: Some(Contact { address: word(Category::Contact), ..Contact::default() }),
        demographic: Some(Demographic {
            age_band: age_band::Code::From18To24.into(),
            ..Demographic::default()
        }),
        trafficking_status: Some(TraffickingStatus {
            status: victim_status::Code::PossibleVictimOfTrafficking.into(),
            ..TraffickingStatus::default()
        }),
        exploitation: Some(Exploitation { note: word(Category::Exploitation), ..Exploitation::default() }),
        sexual_exploitation: Some(SexualExploitation {
            note: word(Category::SexualExploitation),
            ..SexualExploitation::default()
        }),
        health: Some(Health { physical: word(Category::Health), ..Health::default() }),
        minor: Some(Minor { guardian: word(Category::Minor), ..Minor::default() }),
        migration: Some(Migration { note: word(Category::Migration), ..Migration::default() }),
        criminal_proceedings: Some(CriminalProceedings {
            case_reference: word(Category::CriminalProceedings),
            ..CriminalProceedings::default()
        }),
        perpetrators: vec![Perpetrator { details: word(Category::Perpetrator), ..Perpetrator::default() }],
        location: Some(Location { whereabouts: word(Category::Location), ..Location::default() }),
        risk: Some(Risk { level: risk_level::Code::High.into(), reasons: vec![word(Category::Risk)] }),
        consent: Some(consent),
        narrative: Some(Narrative { text: word(Category::Narrative) }),
    }
}

/// The person's consent that these agencies get these categories for their support.
pub fn consent(agencies: &[&str], categories: &[Category]) -> Consent {
    Consent {
        obtained_from: consent_source::Code::Individual.into(),
        obtained_at: Some(times::to_wire(OffsetDateTime::now_utc() - Duration::from_secs(3600))),
        scopes: vec![ConsentScope {
            categories: categories.iter().map(|category| i32::from(*category)).collect(),
            agencies: agencies.iter().map(|agency| (*agency).to_owned()).collect(),
            purposes: vec![Purpose::VictimSupport.into()],
            ..ConsentScope::default()
        }],
        for_services: true,
        for_disclosure: true,
        ..Consent::default()
    }
}

/// Every category that a referral may hold.
pub fn referral_categories() -> Vec<Category> {
    category::all().filter(|category| *category != Category::Attachment).collect()
}

/// A referral with every category, all of it consented to for each of the agencies.
pub fn referral(to: &[&str], words: &Words) -> SendReferralRequest {
    SendReferralRequest {
        to: to.iter().map(|agency| (*agency).to_owned()).collect(),
        content: Some(content(words, consent(to, &referral_categories()))),
        purpose: Purpose::VictimSupport.into(),
        ..SendReferralRequest::default()
    }
}

/// A referral of a few bytes, for traffic.
pub fn small_referral(to: &str) -> SendReferralRequest {
    let mut request = referral(&[to], &Words::fresh());
    if let Some(content) = request.content.take() {
        request.content = Some(ReferralContent {
            service_request: content.service_request,
            health: content.health,
            consent: content.consent,
            ..ReferralContent::default()
        });
    }
    request
}

/// A draft made an alert about a risk to health, to these.
pub fn health_alert(draft: Draft, to: &[ProvenKey]) -> Draft {
    let risk = AlertContent { info: Some(AlertInfo::default()), ..AlertContent::default() };
    let audience = Audience { sectors: vec![sector::Code::Ngo.into()], ..Audience::default() };
    let bases = BTreeMap::from([(Category::Risk, Basis::NotPersonal)]);
    Draft {
        kind: Kind::Alert,
        alert_kind: AlertKind::HealthRisk,
        facts: Some(Facts { audience: Some(audience), ..Facts::default() }),
        sections: BTreeMap::from([(Category::Risk, Zeroizing::new(risk.encode_to_vec()))]),
        recipients: to.iter().map(|key| Recipient { key: key.clone(), bases: bases.clone() }).collect(),
        ..draft
    }
}

/// An alert about a pattern of exploitation, without any person in it.
pub fn pattern_alert(audience: Audience) -> SendAlertRequest {
    SendAlertRequest {
        kind: AlertKind::ExploitationPattern.into(),
        audience: Some(audience),
        purpose: Purpose::Prevention.into(),
        content: Some(AlertContent {
            info: Some(AlertInfo { severity: alert_severity::Code::Severe.into(), ..AlertInfo::default() }),
            pattern: Some(ExploitationPattern {
                types: vec![exploitation_type::Code::ForcedLabour.into()],
                ..ExploitationPattern::default()
            }),
            ..AlertContent::default()
        }),
        ..SendAlertRequest::default()
    }
}

/// An alert about a missing child, under the public task of finding it.
pub fn missing_minor_alert(audience: Audience, words: &Words) -> SendAlertRequest {
    let categories = category::of_alert(AlertKind::MissingMinor);
    SendAlertRequest {
        kind: AlertKind::MissingMinor.into(),
        audience: Some(audience),
        purpose: Purpose::Protection.into(),
        minor: true,
        content: Some(AlertContent {
            info: Some(AlertInfo { severity: alert_severity::Code::Extreme.into(), ..AlertInfo::default() }),
            identity: Some(Identity {
                names: vec![PersonName { given: words.of(Category::Identity), ..PersonName::default() }],
                ..Identity::default()
            }),
            location: Some(Location { whereabouts: words.of(Category::Location), ..Location::default() }),
            narrative: Some(Narrative { text: words.of(Category::Narrative) }),
            ..AlertContent::default()
        }),
        claimed_bases: vec![ClaimedBasis {
            categories: categories.into_iter().map(i32::from).collect(),
            basis: Basis::PublicTask.into(),
            ..ClaimedBasis::default()
        }],
        ..SendAlertRequest::default()
    }
}

/// A request as the JSON that the REST API takes.
pub fn to_json<M: prost::Message + prost::Name>(request: &M) -> Result<serde_json::Value> {
    Ok(liaison_proto::json::to_value(request)?)
}
