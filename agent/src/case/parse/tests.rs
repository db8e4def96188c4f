use liaison_proto::{
    message::v1::{
        AlertInfo, ConsentScope, ExploitationPattern, Health, Identity, ReferralContent,
        alert_severity::Code as Severity, basis::Code as Basis, consent_source::Code as Source,
        data_category::Code as Category,
    },
    times,
};

use super::*;
use crate::basis::Giver;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn me() -> AgencyAddress {
    "be/shelter".parse().unwrap()
}

fn request() -> SendReferralRequest {
    SendReferralRequest {
        to: vec!["be/clinic".into()],
        content: Some(ReferralContent {
            health: Some(Health { physical: "broken arm".into(), ..Health::default() }),
            consent: Some(Consent {
                obtained_from: Source::Individual.into(),
                obtained_at: Some(Timestamp::default()),
                for_disclosure: true,
                scopes: vec![ConsentScope {
                    categories: vec![Category::Health.into()],
                    agencies: vec!["be/clinic".into()],
                    purposes: vec![Purpose::HealthCare.into()],
                    ..ConsentScope::default()
                }],
                ..Consent::default()
            }),
            ..ReferralContent::default()
        }),
        purpose: Purpose::HealthCare.into(),
        ..SendReferralRequest::default()
    }
}

fn alert_request() -> SendAlertRequest {
    SendAlertRequest {
        kind: AlertKind::ExploitationPattern.into(),
        audience: Some(Audience { countries: vec!["be".into()], ..Audience::default() }),
        content: Some(AlertContent {
            info: Some(AlertInfo { severity: Severity::Severe.into(), ..AlertInfo::default() }),
            pattern: Some(ExploitationPattern {
                route: vec!["ro".into(), "be".into()],
                ..Default::default()
            }),
            ..AlertContent::default()
        }),
        purpose: Purpose::Prevention.into(),
        ..SendAlertRequest::default()
    }
}

#[test]
fn a_referral_gets_its_defaults() {
    let Referral { to, body } = referral(&request(), &me(), NOW).unwrap();
    assert_eq!(to, ["be/clinic".parse().unwrap()]);
    assert_eq!(body.sections.keys().copied().collect::<Vec<_>>(), [Category::Health, Category::Consent]);
    assert_eq!((body.urgency, body.status), (Urgency::Immediate, Status::Actual));
    assert_eq!(body.expires, NOW + limits::DEFAULT_LIFETIME);
    assert_eq!(body.handling, None);
    assert_eq!(body.facts.purpose(), Purpose::HealthCare);
    assert_eq!(body.facts.audience, None);
    assert_eq!(body.grounds.consent.unwrap().giver, Some(Giver::Person));
}

#[test]
fn what_is_wrong_with_a_referral_is_named() {
    type Change = fn(&mut SendReferralRequest);
    let cases: [(Change, ErrorCode, &str); 24] = [
        (|r| r.to.clear(), ErrorCode::MissingField, "to"),
        (|r| r.to = vec!["clinic".into()], ErrorCode::Malformed, "to[0]"),
        (|r| r.to.push("be/shelter".into()), ErrorCode::ToOneself, "to[1]"),
        (|r| r.to.push("be/clinic".into()), ErrorCode::Malformed, "to[1]"),
        (|r| r.to = (0..33).map(|n| format!("be/a{n}")).collect(), ErrorCode::Malformed, "to "),
        (|r| r.content = None, ErrorCode::MissingField, "content"),
        (|r| r.content = Some(ReferralContent::default()), ErrorCode::MissingField, "content"),
        (|r| content_of(r).identity = Some(Identity::default()), ErrorCode::MissingField, "content.identity"),
        (|r| r.purpose = 0, ErrorCode::MissingField, "purpose"),
        (|r| r.purpose = 77, ErrorCode::UnknownValue, "purpose"),
        (|r| r.origin = 77, ErrorCode::UnknownValue, "origin"),
        (|r| r.urgency = 77, ErrorCode::UnknownValue, "urgency"),
        (|r| r.status = 77, ErrorCode::UnknownValue, "status"),
        (|r| r.handling = Some(Handling { police: 77, tlp: 0 }), ErrorCode::UnknownValue, "handling.police"),
        (|r| r.handling = Some(Handling { police: 1, tlp: 0 }), ErrorCode::Malformed, "handling.police"),
        (|r| r.expires = Some(times::to_wire(NOW)), ErrorCode::Expired, "expires"),
        (
            |r| r.expires = Some(times::to_wire(NOW + wire::LIFETIME + std::time::Duration::from_secs(1))),
            ErrorCode::Malformed,
            "expires",
        ),
        (|r| r.expires = Some(Timestamp { seconds: i64::MAX, nanos: 0 }), ErrorCode::Malformed, "expires"),
        (|r| record_of(r).obtained_from = 0, ErrorCode::MissingField, "content.consent.obtained_from"),
        (
            |r| record_of(r).scopes[0].sectors = vec![77],
            ErrorCode::UnknownValue,
            "content.consent.scopes[0].sectors[0]",
        ),
        (|r| r.claimed_bases[0].officer = " ".into(), ErrorCode::MissingField, "claimed_bases[0].officer"),
        (|r| r.claimed_bases[0].categories.clear(), ErrorCode::MissingField, "claimed_bases[0].categories"),
        (
            |r| r.claimed_bases[0].basis = Basis::ConsentOfPerson.into(),
            ErrorCode::Malformed,
            "claimed_bases[0].basis",
        ),
        (
            |r| r.claimed_bases[0].agencies = vec!["nobody".into()],
            ErrorCode::Malformed,
            "claimed_bases[0].agencies[0]",
        ),
    ];
    for (change, code, field) in cases {
        let mut request = request();
        request.claimed_bases = vec![ClaimedBasis {
            categories: vec![Category::Health.into()],
            basis: Basis::VitalInterest.into(),
            officer: "Officer 12".into(),
            agencies: vec![],
        }];
        assert!(referral(&request, &me(), NOW).is_ok());
        change(&mut request);
        let refusal = referral(&request, &me(), NOW).err().unwrap();
        assert_eq!(refusal.code(), code, "{refusal}");
        assert!(refusal.message.contains(field), "{refusal} names {field}");
    }
}

fn content_of(request: &mut SendReferralRequest) -> &mut ReferralContent {
    request.content.as_mut().unwrap()
}

fn record_of(request: &mut SendReferralRequest) -> &mut Consent {
    content_of(request).consent.as_mut().unwrap()
}

#[test]
fn handling_without_a_code_is_none() {
    let mut request = request();
    request.handling = Some(Handling::default());
    assert_eq!(referral(&request, &me(), NOW).unwrap().body.handling, None);
    let red = Handling { police: 0, tlp: Tlp::Red.into() };
    request.handling = Some(red);
    assert_eq!(referral(&request, &me(), NOW).unwrap().body.handling, Some(red));
    let h1 = Handling { police: PoliceHandling::H1.into(), tlp: Tlp::Amber.into() };
    (request.handling, request.purpose) = (Some(h1), Purpose::CriminalInvestigation.into());
    assert_eq!(referral(&request, &me(), NOW).unwrap().body.handling, Some(h1));
}

#[test]
fn an_alert_is_read_by_its_kind() {
    let Alert { kind, body } = alert(&alert_request(), &me(), NOW).unwrap();
    assert_eq!(kind, AlertKind::ExploitationPattern);
    assert!(body.grounds.not_personal && !body.facts.minor);
    assert_eq!(body.facts.audience, alert_request().audience);

    let mut missing = alert_request();
    missing.kind = AlertKind::MissingMinor.into();
    missing.content = Some(AlertContent {
        identity: Some(Identity { birthdate: "2012-05".into(), ..Identity::default() }),
        ..AlertContent::default()
    });
    let body = alert(&missing, &me(), NOW).unwrap().body;
    assert!(!body.grounds.not_personal && body.facts.minor);
}

#[test]
fn what_is_wrong_with_an_alert_is_named() {
    type Change = fn(&mut SendAlertRequest);
    let cases: [(Change, ErrorCode, &str); 9] = [
        (|r| r.kind = 0, ErrorCode::MissingField, "kind"),
        (|r| r.kind = 77, ErrorCode::UnknownValue, "kind"),
        (|r| r.kind = AlertKind::HealthRisk.into(), ErrorCode::Malformed, "exploitation"),
        (|r| r.audience = None, ErrorCode::EmptyAudience, "audience"),
        (|r| r.audience = Some(Audience::default()), ErrorCode::EmptyAudience, "audience"),
        (
            |r| audience_of(r).agencies = vec!["be/shelter".into()],
            ErrorCode::ToOneself,
            "audience.agencies[0]",
        ),
        (
            |r| audience_of(r).countries = vec!["Belgium".into()],
            ErrorCode::Malformed,
            "audience.countries[0]",
        ),
        (|r| audience_of(r).groups = vec!["A B".into()], ErrorCode::Malformed, "audience.groups[0]"),
        (|r| audience_of(r).sectors = vec![0], ErrorCode::MissingField, "audience.sectors[0]"),
    ];
    for (change, code, field) in cases {
        let mut request = alert_request();
        change(&mut request);
        let refusal = alert(&request, &me(), NOW).err().unwrap();
        assert_eq!(refusal.code(), code, "{refusal}");
        assert!(refusal.message.contains(field), "{refusal} names {field}");
    }
}

fn audience_of(request: &mut SendAlertRequest) -> &mut Audience {
    request.audience.as_mut().unwrap()
}
