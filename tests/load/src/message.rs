//! What is sent to Liaison: a referral of six sections, and an alert.

use anyhow::{Context, Result};
use liaison_proto::{
    case::v1::SendReferralRequest,
    message::v1::{
        AlertContent, AlertInfo, Consent, Health, Identity, Location, Narrative, PersonName, ReferralContent,
        ServiceRequest, alert_severity, data_category::Code as Category, purpose::Code as Purpose,
        service_type,
    },
};
use liaison_tests::message;
use prost::{Message, Name};

/// Bytes of all its sections before they are sealed, and of what every other system carries.
pub(crate) const BYTES: usize = 4096;
/// Its sections.
pub(crate) const SECTIONS: [Category; 6] = [
    Category::ServiceRequest,
    Category::Identity,
    Category::Health,
    Category::Location,
    Category::Consent,
    Category::Narrative,
];

/// A referral of [`BYTES`] to an agency, which the person consented to.
pub(crate) fn referral(to: &str) -> Result<SendReferralRequest> {
    referral_of(to, BYTES)
}

/// The same of so many bytes, 1,024 at the least.
pub(crate) fn referral_of(to: &str, length: usize) -> Result<SendReferralRequest> {
    // Texts take all but what their fields and the consent do, the last one what is left over. They are longer than 127
    // bytes each, so that their lengths take two.
    // Made once: it has the time in it, and not all times are as long.
    let consent = message::consent(&[to], &SECTIONS);
    let around = bytes(&content(&consent, 512, 512))? - 5 * 512;
    let text = (length - around) / 5;
    let last = length - around - 4 * text;
    Ok(SendReferralRequest {
        to: vec![to.to_owned()],
        content: Some(content(&consent, text, last)),
        purpose: Purpose::VictimSupport.into(),
        ..SendReferralRequest::default()
    })
}

fn content(consent: &Consent, text: usize, last: usize) -> ReferralContent {
    ReferralContent {
        service_request: Some(ServiceRequest {
            services: vec![service_type::Code::Safehouse.into()],
            note: words(text),
            ..ServiceRequest::default()
        }),
        identity: Some(Identity {
            names: vec![PersonName { given: words(text), ..PersonName::default() }],
            ..Identity::default()
        }),
        health: Some(Health { physical: words(text), ..Health::default() }),
        location: Some(Location { whereabouts: words(text), ..Location::default() }),
        consent: Some(consent.clone()),
        narrative: Some(Narrative { text: words(last) }),
        ..ReferralContent::default()
    }
}

/// What an alert about a missing child says, [`BYTES`] in four sections.
pub(crate) fn alert() -> Result<AlertContent> {
    let of = |text: usize, last: usize| AlertContent {
        info: Some(AlertInfo { severity: alert_severity::Code::Extreme.into(), ..AlertInfo::default() }),
        identity: Some(Identity {
            names: vec![PersonName { given: words(text), ..PersonName::default() }],
            ..Identity::default()
        }),
        location: Some(Location { whereabouts: words(text), ..Location::default() }),
        narrative: Some(Narrative { text: words(last) }),
        ..AlertContent::default()
    };
    let around = bytes(&of(512, 512))? - 3 * 512;
    let text = (BYTES - around) / 3;
    Ok(of(text, BYTES - around - 2 * text))
}

fn words(length: usize) -> String {
    "word ".chars().cycle().take(length).collect()
}

/// Of all sections of a content.
fn bytes<C: Message + Name>(content: &C) -> Result<usize> {
    let sections = liaison_proto::category::split(content).context("the content has no sections")?;
    Ok(sections.values().map(Vec::len).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_size_and_its_sections() {
        for (to, length) in [("be/a", BYTES), ("be/load-15", BYTES), ("be/a", 2_048), ("be/a", 16_000)] {
            let content = referral_of(to, length).unwrap().content.unwrap();
            assert_eq!(bytes(&content).unwrap(), length);
            let sections = liaison_proto::category::split(&content).unwrap();
            assert_eq!(sections.keys().copied().collect::<Vec<_>>(), SECTIONS);
        }
        assert_eq!(bytes(&alert().unwrap()).unwrap(), BYTES);
    }
}
