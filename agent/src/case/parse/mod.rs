//! Requests of the case API into the types of the domain: what comes out of here can be sent, as far
//! as the request alone can tell.

mod consent;
mod content;
mod fields;
mod query;

use std::collections::BTreeSet;

use liaison_proto::{
    case::v1::{ClaimedBasis, ReferOnwardRequest, SendAlertRequest, SendReferralRequest},
    category, limits as wire,
    message::v1::{
        AlertContent, Audience, Consent, Facts, Handling, Refusal, alert_kind::Code as AlertKind,
        data_category::Code as Category, error_code::Code as ErrorCode,
        police_handling::Code as PoliceHandling, purpose::Code as Purpose,
        request_origin::Code as RequestOrigin, sector::Code as Sector, status::Code as Status,
        tlp::Code as Tlp, urgency::Code as Urgency,
    },
};
use liaison_trust::names::AgencyAddress;
use prost_types::Timestamp;
use time::OffsetDateTime;
use uuid::Uuid;

pub(super) use fields::{id, missing};
pub use query::{
    Page, agencies_page, alerts_page, confirmed_keys, keys_page, onward_answer, onward_page, receipts_page,
    referrals_page, state_change,
};

use crate::{
    basis::Grounds,
    limits,
    split::{self, Sections, SplitError},
};
use fields::{address, addresses, code, codes, countries, few, malformed, moment};

/// A referral that can be sent.
pub struct Referral {
    /// One message each; at least one, no agency twice, not oneself.
    pub to: Vec<AgencyAddress>,
    pub body: Body,
}

/// An alert that can be sent once its audience is resolved.
pub struct Alert {
    pub kind: AlertKind,
    pub body: Body,
}

/// What a referral and an alert have in common.
pub struct Body {
    pub sections: Sections,
    pub grounds: Grounds,
    /// For deciders alone; of an alert its audience stands here.
    pub facts: Facts,
    pub urgency: Urgency,
    pub handling: Option<Handling>,
    pub status: Status,
    pub expires: OffsetDateTime,
}

/// Reads a referral that agency `me` asks to send at `now`.
pub fn referral(
    request: &SendReferralRequest,
    me: &AgencyAddress,
    now: OffsetDateTime,
) -> Result<Referral, Refusal> {
    let record = request.content.as_ref().and_then(|content| content.consent.as_ref());
    referral_on(request, record.map(|record| ("content.consent", record)), me, now)
}

/// The same on the consent of a record by itself, named as its refusals call it.
pub fn referral_on(
    request: &SendReferralRequest,
    record: Option<(&str, &Consent)>,
    me: &AgencyAddress,
    now: OffsetDateTime,
) -> Result<Referral, Refusal> {
    let to = recipients(&request.to, me)?;
    let content = request.content.as_ref().ok_or_else(|| missing("content", "say what the case is"))?;
    content::check("content", content)?;
    let sections = split::referral(content).map_err(not_split)?;
    let common = Common {
        purpose: request.purpose,
        minor: request.minor,
        origin: request.origin,
        urgency: request.urgency,
        handling: request.handling.as_ref(),
        status: request.status,
        expires: request.expires.as_ref(),
        claims: &request.claimed_bases,
    };
    Ok(Referral { to, body: common.body(sections, record, None, false, now)? })
}

/// Reads an alert that agency `me` asks to send at `now`.
pub fn alert(request: &SendAlertRequest, me: &AgencyAddress, now: OffsetDateTime) -> Result<Alert, Refusal> {
    let kind = code("kind", request.kind)?.ok_or_else(|| missing("kind", "say what the alert is about"))?;
    let audience = audience(request.audience.as_ref(), me)?;
    let content = request.content.as_ref().ok_or_else(|| missing("content", "say what the alert is"))?;
    content::check::<AlertContent>("content", content)?;
    let sections = split::alert(kind, content).map_err(not_split)?;
    if let Some(record) = &request.consent {
        content::check::<Consent>("consent", record)?;
    }
    let record = request.consent.as_ref().map(|record| ("consent", record));
    let common = Common {
        purpose: request.purpose,
        // Said by the kind, whatever else is said.
        minor: request.minor || kind == AlertKind::MissingMinor,
        origin: request.origin,
        urgency: request.urgency,
        handling: request.handling.as_ref(),
        status: request.status,
        expires: request.expires.as_ref(),
        claims: &request.claimed_bases,
    };
    let not_personal = !category::is_personal(kind);
    Ok(Alert { kind, body: common.body(sections, record, Some(audience), not_personal, now)? })
}

/// A request to refer onward, as far as it can be read without what was received.
pub struct Onward {
    pub id: Uuid,
    /// Not oneself.
    pub to: AgencyAddress,
    pub purpose: Purpose,
    /// Empty for all that may go.
    pub categories: BTreeSet<Category>,
}

/// Reads a request of agency `me` to refer onward.
pub fn onward(request: &ReferOnwardRequest, me: &AgencyAddress) -> Result<Onward, Refusal> {
    let to = address("to", &request.to)?;
    not_oneself("to", &to, me)?;
    if let Some(record) = &request.consent {
        content::check::<Consent>("consent", record)?;
    }
    Ok(Onward {
        id: id("id", &request.id)?,
        to,
        purpose: purpose(request.purpose)?,
        categories: codes("categories", &request.categories)?,
    })
}

/// The fields that both requests have.
struct Common<'a> {
    purpose: i32,
    minor: bool,
    origin: i32,
    urgency: i32,
    handling: Option<&'a Handling>,
    status: i32,
    expires: Option<&'a Timestamp>,
    claims: &'a [ClaimedBasis],
}

impl Common<'_> {
    fn body(
        self,
        sections: Sections,
        consent: Option<(&str, &Consent)>,
        audience: Option<Audience>,
        not_personal: bool,
        now: OffsetDateTime,
    ) -> Result<Body, Refusal> {
        let purpose = purpose(self.purpose)?;
        let origin: Option<RequestOrigin> = code("origin", self.origin)?;
        let consent = consent.map(|(name, record)| consent::consent(name, record)).transpose()?;
        let claims = consent::claims("claimed_bases", self.claims)?;
        Ok(Body {
            sections,
            grounds: Grounds { purpose, consent, claims, not_personal },
            facts: Facts {
                purpose: purpose.into(),
                minor: self.minor,
                audience,
                origin: origin.unwrap_or_default().into(),
            },
            urgency: code("urgency", self.urgency)?.unwrap_or(Urgency::Immediate),
            handling: handling(self.handling, purpose)?,
            status: code("status", self.status)?.unwrap_or(Status::Actual),
            expires: expires(self.expires, now)?,
        })
    }
}

fn purpose(number: i32) -> Result<Purpose, Refusal> {
    code("purpose", number)?
        .ok_or_else(|| missing("purpose", "say what the recipient is to use the message for"))
}

fn recipients(to: &[String], me: &AgencyAddress) -> Result<Vec<AgencyAddress>, Refusal> {
    if to.is_empty() {
        return Err(missing("to", "name at least one agency"));
    }
    let to = addresses("to", to, wire::REFERRAL_RECIPIENTS)?;
    for (index, agency) in to.iter().enumerate() {
        let field = format!("to[{index}]");
        not_oneself(&field, agency, me)?;
        if to.iter().take(index).any(|earlier| earlier == agency) {
            return Err(malformed(&field, "names an agency a second time", "name each agency once"));
        }
    }
    Ok(to)
}

fn audience(audience: Option<&Audience>, me: &AgencyAddress) -> Result<Audience, Refusal> {
    let empty = Audience::default();
    let audience = audience.unwrap_or(&empty);
    if *audience == empty {
        return Err(Refusal::new(
            ErrorCode::EmptyAudience,
            "the alert's audience names nobody",
            "name sectors, countries, groups or agencies",
        ));
    }
    let agencies = addresses("audience.agencies", &audience.agencies, wire::RECIPIENTS)?;
    for (index, agency) in agencies.iter().enumerate() {
        not_oneself(&format!("audience.agencies[{index}]"), agency, me)?;
    }
    let sectors: BTreeSet<Sector> = codes("audience.sectors", &audience.sectors)?;
    few("audience.groups", audience.groups.len())?;
    let groups = audience.groups.iter().enumerate().map(|(index, name)| group(index, name));
    let agencies: BTreeSet<AgencyAddress> = agencies.into_iter().collect();
    Ok(Audience {
        sectors: sectors.into_iter().map(i32::from).collect(),
        countries: countries("audience.countries", &audience.countries)?.into_iter().collect(),
        groups: groups.collect::<Result<BTreeSet<_>, _>>()?.into_iter().collect(),
        agencies: agencies.iter().map(AgencyAddress::to_string).collect(),
    })
}

fn group(index: usize, name: &str) -> Result<String, Refusal> {
    let is_group = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let field = format!("audience.groups[{index}]");
    let action = "write 1 to 64 lower-case letters, digits and hyphens";
    if is_group { Ok(name.to_owned()) } else { Err(malformed(&field, "is not a group's name", action)) }
}

fn not_oneself(field: &str, agency: &AgencyAddress, me: &AgencyAddress) -> Result<(), Refusal> {
    if agency != me {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::ToOneself,
        format!("{field} is this agency itself"),
        "leave it out; a message goes to another agency",
    ))
}

/// One code a scheme at most is by construction; that health care takes none of the police's is not.
fn handling(handling: Option<&Handling>, purpose: Purpose) -> Result<Option<Handling>, Refusal> {
    let Some(handling) = handling else { return Ok(None) };
    let police: Option<PoliceHandling> = code("handling.police", handling.police)?;
    let tlp: Option<Tlp> = code("handling.tlp", handling.tlp)?;
    if police.is_some() && purpose == Purpose::HealthCare {
        let action = "leave handling.police out, or send it for another purpose";
        return Err(malformed("handling.police", "does not go with the purpose health_care", action));
    }
    Ok((police.is_some() || tlp.is_some()).then_some(*handling))
}

fn expires(at: Option<&Timestamp>, now: OffsetDateTime) -> Result<OffsetDateTime, Refusal> {
    let Some(at) = moment("expires", at)? else { return Ok(now + limits::DEFAULT_LIFETIME) };
    if at <= now {
        return Err(Refusal::new(
            ErrorCode::Expired,
            "expires is in the past",
            "give a moment in the next 30 days; if it is one, set this machine's clock right",
        ));
    }
    if at > now + wire::LIFETIME {
        return Err(malformed("expires", "is more than 30 days ahead", "give a moment in the next 30 days"));
    }
    Ok(at)
}

fn not_split(error: SplitError) -> Refusal {
    match error {
        SplitError::Empty => missing("content", "fill in at least one category"),
        SplitError::NotOfKind { .. } => Refusal::new(
            ErrorCode::Malformed,
            error.to_string(),
            "leave the category out, or send it in a referral",
        ),
        SplitError::Schema(error) => error.into(),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
