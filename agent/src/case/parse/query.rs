//! Requests that read, and those that move a referral.

use liaison_proto::{
    case::v1::{
        AnswerOnwardRequestRequest, ConfirmKeysRequest, ListAgenciesRequest, ListAlertsRequest,
        ListKeysRequest, ListOnwardRequestsRequest, ListReceiptsRequest, ListReferralsRequest,
        UpdateReferralRequest, direction::Code as DirectionCode,
    },
    limits as wire,
    message::v1::{
        Refusal, StateChange, onward_step::Code as OnwardStep, outcome::Code as Outcome,
        referral_state::Code as State, rejection_reason::Code as RejectionReason, status::Code as Status,
    },
};
use liaison_trust::{digest::Digest, names::AgencyAddress};
use uuid::Uuid;

use super::fields::{address, code, id, malformed, missing};
use crate::{limits, store::Direction};

/// A page of messages.
pub struct Page {
    /// None for both.
    pub direction: Option<Direction>,
    pub status: Status,
    /// Entries behind this message alone.
    pub after: Option<Uuid>,
    /// Entries at most.
    pub size: u32,
}

/// The page of referrals that is asked for.
pub fn referrals_page(request: &ListReferralsRequest) -> Result<Page, Refusal> {
    page(request.direction, request.status, request.page_size, &request.page_token)
}

/// The page of alerts that is asked for.
pub fn alerts_page(request: &ListAlertsRequest) -> Result<Page, Refusal> {
    page(request.direction, request.status, request.page_size, &request.page_token)
}

/// The page of requests to refer onward that is asked for.
pub fn onward_page(request: &ListOnwardRequestsRequest) -> Result<Page, Refusal> {
    page(request.direction, 0, request.page_size, &request.page_token)
}

/// The message whose receipts are asked for, the log and index behind which the page begins, and its entries at most.
pub fn receipts_page(request: &ListReceiptsRequest) -> Result<(Uuid, Option<(&str, u64)>, u32), Refusal> {
    let token = Some(request.page_token.as_str()).filter(|token| !token.is_empty());
    let after = token.map(|token| {
        let after = token.rsplit_once(':').and_then(|(log, index)| Some((log, index.parse().ok()?)));
        after.ok_or_else(|| {
            malformed("page_token", "is none", "give the `next_page_token` of the page before")
        })
    });
    Ok((id("id", &request.id)?, after.transpose()?, page_size(request.page_size)?))
}

/// The address behind which the page of agencies with keys begins, and its entries at most.
pub fn keys_page(request: &ListKeysRequest) -> Result<(String, u32), Refusal> {
    let after = Some(&request.page_token).filter(|token| !token.is_empty());
    let after = after.map(|token| address("page_token", token)).transpose()?;
    Ok((after.map(|after| after.to_string()).unwrap_or_default(), page_size(request.page_size)?))
}

/// An agency, and the fingerprint that a person compared with it.
pub fn confirmed_keys(request: &ConfirmKeysRequest) -> Result<(AgencyAddress, Digest), Refusal> {
    if request.agency.is_empty() {
        return Err(missing("agency", "give the agency's address"));
    }
    let digits: String = request.fingerprint.split_whitespace().collect();
    let mut fingerprint = Digest([0; 32]);
    hex::decode_to_slice(digits, &mut fingerprint.0).map_err(|_| {
        malformed("fingerprint", "is none", "give the 64 hexadecimal digits that the agency reads out")
    })?;
    Ok((address("agency", &request.agency)?, fingerprint))
}

/// The id of the request that is to be answered, and whether it is granted or denied.
pub fn onward_answer(request: &AnswerOnwardRequestRequest) -> Result<(Uuid, OnwardStep), Refusal> {
    let id = id("id", &request.id)?;
    match code("step", request.step)? {
        Some(step @ (OnwardStep::Granted | OnwardStep::Denied)) => Ok((id, step)),
        Some(_) => Err(malformed("step", "is no answer", "give granted or denied")),
        None => Err(missing("step", "give granted or denied")),
    }
}

/// The address behind which the page of agencies that is asked for begins.
pub fn agencies_page(request: &ListAgenciesRequest) -> Result<Option<AgencyAddress>, Refusal> {
    (!request.page_token.is_empty()).then(|| address("page_token", &request.page_token)).transpose()
}

/// The id of the referral that is to move, and where to.
pub fn state_change(request: &UpdateReferralRequest) -> Result<(Uuid, StateChange), Refusal> {
    let id = id("id", &request.id)?;
    let state: State = code("state", request.state)?
        .ok_or_else(|| missing("state", "name the state that the referral is to move to"))?;
    let reason: Option<RejectionReason> = code("reason", request.reason)?;
    let outcome: Option<Outcome> = code("outcome", request.outcome)?;
    if reason.is_some() && !matches!(state, State::Rejected | State::Failed) {
        return Err(malformed("reason", "goes with the states rejected and failed alone", "leave it out"));
    }
    if outcome.is_some() && state != State::Completed {
        return Err(malformed("outcome", "goes with the state completed alone", "leave it out"));
    }
    let change = StateChange {
        state: state.into(),
        reason: reason.unwrap_or_default().into(),
        outcome: outcome.unwrap_or_default().into(),
    };
    Ok((id, change))
}

fn page(direction: i32, status: i32, size: u32, token: &str) -> Result<Page, Refusal> {
    let direction = match code("direction", direction)? {
        Some(DirectionCode::Sent) => Some(Direction::Sent),
        Some(DirectionCode::Received) => Some(Direction::Received),
        Some(DirectionCode::Unspecified) | None => None,
    };
    let size = page_size(size)?;
    let after = (!token.is_empty()).then(|| id("page_token", token)).transpose()?;
    Ok(Page { direction, status: code("status", status)?.unwrap_or(Status::Actual), after, size })
}

fn page_size(size: u32) -> Result<u32, Refusal> {
    match size {
        0 => Ok(limits::DEFAULT_PAGE),
        1..=wire::CASE_PAGE => Ok(size),
        _ => Err(malformed("page_size", "is more than 100", "ask for 1 to 100 entries")),
    }
}
