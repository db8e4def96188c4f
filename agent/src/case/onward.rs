//! Referring onward: what was received, as a new message of this agency, as far as its originator lets it go.

use std::collections::{BTreeMap, BTreeSet};

use liaison_proto::{
    case::v1::{
        AnswerOnwardRequestRequest, ListOnwardRequestsRequest, ListOnwardRequestsResponse, OnwardRequest,
        ReferOnwardRequest, ReferOnwardResponse, Referral, SendReferralRequest,
        refer_onward_response::Outcome,
    },
    message::v1::{
        Consent, ReferralContent, Refusal, age_band::Code as AgeBand, alert_kind::Code as AlertKind,
        consent_source::Code as ConsentSource, data_category::Code as Category,
        error_code::Code as ErrorCode, kind::Code as Kind, onward_step::Code as Step,
    },
};
use prost::Message as _;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::{
    audience,
    caller::Caller,
    operations::{find, idempotency, message, repeated},
    parse, views,
};
use crate::{
    agent::Agent,
    handling::{self, Onward},
    outbox::NewMessage,
    store::{Direction, Message, Question, StoredSection},
};

/// Sends what was received onward, or asks the originator where it must permit that first.
pub(super) async fn refer_onward(
    agent: &Agent,
    caller: &Caller,
    request: ReferOnwardRequest,
) -> Result<ReferOnwardResponse, Refusal> {
    let now = OffsetDateTime::now_utc();
    // It is bound to what was sent: a question is asked once anyway, and its answer is to change the outcome.
    let idempotency = idempotency(caller, &request);
    if let Some(ids) = repeated(agent, idempotency.as_ref()).await? {
        return sent(agent, &ids).await;
    }
    let parse::Onward { id, to, purpose, categories } = parse::onward(&request, &agent.address)?;
    let received = find(agent, id, Kind::Referral).await?;
    if received.direction != Direction::Received {
        return Err(malformed("id is a referral that this agency sent", "send the case as a new referral"));
    }
    if to == received.from {
        return Err(malformed("to is the agency that the referral came from", "answer in its own thread"));
    }
    let rule = handling::onward(received.handling.as_ref(), purpose);
    if let Onward::Forbidden(why) = rule {
        return Err(forbidden(format!("the referral may not be referred onward: {why}")));
    }
    let sections = agent.store.content(id).await?.map(|(_, sections)| sections).unwrap_or_default();
    let shareable = shareable(&sections);
    let chosen = chosen(&categories, &shareable)?;
    let whole = new_referral(&request, &received, &sections, merged(&shareable, &chosen)?, now);
    let consent = received_consent(&sections);
    let record = match &request.consent {
        Some(given) => Some(("consent", given)),
        None => consent.as_ref().map(|received| ("the received consent", received)),
    };
    let body = parse::referral_on(&whole, record, &agent.address, now)?.body;
    let recipient = audience::recipient(agent, &to).await?;
    if rule == Onward::Asked {
        let question = Question { referral: id, to, purpose, categories: chosen.into_iter().collect() };
        let permission = agent.store.ask_onward(&question, &caller.actor).await?;
        match permission.step {
            Step::Granted => {}
            Step::Denied => {
                let by = permission.originator;
                return Err(forbidden(format!("{by} does not let it be referred to {}", permission.to)));
            }
            Step::Asked | Step::Unspecified => {
                let request = views::onward_request(permission);
                return Ok(ReferOnwardResponse { outcome: Some(Outcome::Request(request)) });
            }
        }
    }
    let new = message(Kind::Referral, AlertKind::Unspecified, &body, &[recipient], now);
    let new = NewMessage { onward_of: Some(id), ..new };
    let officers = body.grounds.officers();
    let (_, ids) = agent.store.add(vec![new], idempotency, &caller.actor, &officers, Vec::new()).await?;
    sent(agent, &ids).await
}

/// A page of requests to refer onward, newest first.
pub(super) async fn list_requests(
    agent: &Agent,
    request: ListOnwardRequestsRequest,
) -> Result<ListOnwardRequestsResponse, Refusal> {
    let page = parse::onward_page(&request)?;
    // One more than is shown tells whether there is a next page.
    let mut requests = agent.store.onward_requests(page.direction, page.after, page.size + 1).await?;
    let size = usize::try_from(page.size).unwrap_or(usize::MAX);
    let more = requests.len() > size;
    requests.truncate(size);
    let last = requests.last().filter(|_| more);
    let next_page_token = last.map(|request| request.id.to_string()).unwrap_or_default();
    let requests = requests.into_iter().map(views::onward_request).collect();
    Ok(ListOnwardRequestsResponse { requests, next_page_token })
}

/// Grants or denies what this agency was asked.
pub(super) async fn answer_request(
    agent: &Agent,
    caller: &Caller,
    request: AnswerOnwardRequestRequest,
) -> Result<OnwardRequest, Refusal> {
    let (id, step) = parse::onward_answer(&request)?;
    Ok(views::onward_request(agent.store.answer_onward(id, step, &caller.actor).await?))
}

async fn sent(agent: &Agent, ids: &[Uuid]) -> Result<ReferOnwardResponse, Refusal> {
    let id = ids.first().copied().ok_or_else(Refusal::internal)?;
    let referral: Referral = views::referral(find(agent, id, Kind::Referral).await?, &agent.address);
    Ok(ReferOnwardResponse { outcome: Some(Outcome::Referral(referral)) })
}

/// The consent that came with the referral. Where it may not go onward it is no basis, but what the person
/// excluded stays excluded.
fn received_consent(sections: &[StoredSection]) -> Option<Consent> {
    let section = sections.iter().find(|section| section.category == Category::Consent)?;
    let mut consent = views::content::<ReferralContent>(section)?.consent?;
    if !section.release.onward_share {
        consent.scopes.clear();
    }
    Some(consent)
}

/// What may be shared onward and can be read, by category.
fn shareable(sections: &[StoredSection]) -> BTreeMap<Category, ReferralContent> {
    let content = |section: &StoredSection| Some((section.category, views::content(section)?));
    sections.iter().filter(|section| section.release.onward_share).filter_map(content).collect()
}

/// The categories that go: those asked for, or all that may.
fn chosen(
    asked: &BTreeSet<Category>,
    shareable: &BTreeMap<Category, ReferralContent>,
) -> Result<BTreeSet<Category>, Refusal> {
    let barred: Vec<_> = asked
        .iter()
        .filter(|category| !shareable.contains_key(category))
        .map(Category::as_str_name)
        .collect();
    if !barred.is_empty() {
        return Err(forbidden(format!(
            "what was received may not be referred onward, or is not here any more: {}",
            barred.join(", ")
        )));
    }
    match (asked.is_empty(), shareable.is_empty()) {
        (true, true) => Err(forbidden("nothing of the referral may be referred onward".to_owned())),
        (true, false) => Ok(shareable.keys().copied().collect()),
        (false, _) => Ok(asked.clone()),
    }
}

fn merged(
    shareable: &BTreeMap<Category, ReferralContent>,
    chosen: &BTreeSet<Category>,
) -> Result<ReferralContent, Refusal> {
    let mut content = ReferralContent::default();
    for (_, part) in shareable.iter().filter(|(category, _)| chosen.contains(category)) {
        content.merge(part.encode_to_vec().as_slice()).map_err(|_| Refusal::internal())?;
    }
    Ok(content)
}

/// The referral as this agency would send it by itself. Its handling and its status are the originator's.
fn new_referral(
    request: &ReferOnwardRequest,
    received: &Message,
    sections: &[StoredSection],
    content: ReferralContent,
    now: OffsetDateTime,
) -> SendReferralRequest {
    let consent = request.consent.clone().or_else(|| content.consent.clone());
    SendReferralRequest {
        to: vec![request.to.clone()],
        content: Some(ReferralContent { consent, ..content }),
        purpose: request.purpose,
        minor: request.minor || tell_of_a_minor(sections, now.date()),
        origin: request.origin,
        urgency: request.urgency,
        handling: received.handling,
        status: received.status.into(),
        expires: request.expires,
        claimed_bases: request.claimed_bases.clone(),
    }
}

/// Whether anything that was received tells that the person is or may be under 18, whether it goes onward
/// or not.
fn tell_of_a_minor(sections: &[StoredSection], today: Date) -> bool {
    let adults = today.replace_year(today.year() - 18).unwrap_or(today).to_string();
    sections.iter().filter_map(views::content::<ReferralContent>).any(|content| {
        let young = content.demographic.as_ref().is_some_and(|demographic| {
            matches!(
                demographic.age_band(),
                AgeBand::Under12 | AgeBand::From12To15 | AgeBand::From16To17 | AgeBand::Unknown
            )
        });
        // A date that was cut to a year or a month may be any day of it.
        let born_late = content.identity.as_ref().is_some_and(|identity| {
            let born = identity.birthdate.as_str();
            !born.is_empty() && adults.get(..born.len()).is_none_or(|adults| born >= adults)
        });
        let by_caregiver = |consent: &Consent| consent.obtained_from() == ConsentSource::Caregiver;
        content.minor.is_some() || young || born_late || content.consent.as_ref().is_some_and(by_caregiver)
    })
}

fn forbidden(message: String) -> Refusal {
    Refusal::new(
        ErrorCode::OnwardForbidden,
        message,
        "ask the originator to refer the person itself; each received section tells whether it has onward_share",
    )
}

fn malformed(message: &str, action: &str) -> Refusal {
    Refusal::new(ErrorCode::Malformed, message, action)
}
