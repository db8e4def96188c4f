//! What each kind of message must and must not have.

use liaison_proto::{
    category,
    message::v1::{
        Audience, Manifest, OnwardRequest, StateChange, alert_kind::Code as AlertKind,
        data_category::Code as Category, kind::Code as Kind, onward_step::Code as OnwardStep,
        outcome::Code as Outcome, referral_state::Code as State, rejection_reason::Code as Reason,
        status::Code as Status,
    },
};

use super::{EnvelopeError, head};
use crate::names::{AgencyAddress, is_label};

/// Checks what a manifest says about its kind, and the categories that come with it (in a copy: those
/// that were released).
pub(super) fn check(
    manifest: &Manifest,
    categories: impl IntoIterator<Item = Category>,
) -> Result<(), EnvelopeError> {
    if manifest.status() == Status::Unspecified {
        return Err(EnvelopeError::Missing("status"));
    }
    let alert = manifest.alert_kind();
    if (manifest.kind() == Kind::Alert) != (alert != AlertKind::Unspecified) {
        return Err(EnvelopeError::Kind("the kind of an alert stands in every alert and nowhere else"));
    }
    if (manifest.kind() == Kind::State) != manifest.state_change.is_some() {
        return Err(EnvelopeError::Kind("a change of state stands in every state message and nowhere else"));
    }
    if (manifest.kind() == Kind::Onward) != manifest.onward.is_some() {
        return Err(EnvelopeError::Kind("an onward request stands in every onward message and nowhere else"));
    }
    let mut categories = categories.into_iter();
    match manifest.kind() {
        Kind::Unspecified => Err(EnvelopeError::Missing("kind")),
        Kind::Referral => Ok(()),
        Kind::Alert => {
            let allowed = category::of_alert(alert);
            match categories.find(|category| !allowed.contains(category)) {
                Some(category) => Err(EnvelopeError::CategoryOfAlert(category)),
                None => Ok(()),
            }
        }
        Kind::State | Kind::Onward if categories.next().is_some() => {
            Err(EnvelopeError::Kind("a state and an onward message have no sections"))
        }
        Kind::State => manifest.state_change.as_ref().map_or(Ok(()), check_state),
        Kind::Onward => manifest.onward.as_ref().map_or(Ok(()), check_onward),
    }
}

/// Checks what only a whole envelope shows.
pub(super) fn check_whole(kind: Kind, recipients: usize, facts: bool) -> Result<(), EnvelopeError> {
    if recipients == 0 {
        return Err(EnvelopeError::Recipients("there are none"));
    }
    if kind != Kind::Alert && recipients != 1 {
        return Err(EnvelopeError::Recipients("all but an alert have exactly one"));
    }
    match (kind, facts) {
        (Kind::State | Kind::Onward, true) => {
            Err(EnvelopeError::Kind("a state and an onward message have no facts"))
        }
        (Kind::Referral | Kind::Alert, false) => Err(EnvelopeError::Missing("facts")),
        _ => Ok(()),
    }
}

/// Checks that an audience holds identifiers alone.
pub(super) fn check_audience(audience: &Audience) -> Result<(), EnvelopeError> {
    let country = |text: &String| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_lowercase());
    if !audience.countries.iter().all(country) {
        return Err(EnvelopeError::Malformed("audience.countries"));
    }
    if !audience.groups.iter().all(|group| is_label(group, 64)) {
        return Err(EnvelopeError::Malformed("audience.groups"));
    }
    if !audience.agencies.iter().all(|address| address.parse::<AgencyAddress>().is_ok()) {
        return Err(EnvelopeError::Malformed("audience.agencies"));
    }
    Ok(())
}

fn check_onward(request: &OnwardRequest) -> Result<(), EnvelopeError> {
    let malformed = EnvelopeError::Malformed;
    if request.step() == OnwardStep::Unspecified {
        return Err(EnvelopeError::Missing("onward.step"));
    }
    head::uuid(&request.request).ok_or(malformed("onward.request"))?;
    request.to.parse::<AgencyAddress>().map_err(|_| malformed("onward.to"))?;
    let numbers = &request.categories;
    let ascending = numbers.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
    if numbers.is_empty()
        || !ascending
        || request.categories().any(|category| category == Category::Unspecified)
    {
        return Err(malformed("onward.categories"));
    }
    Ok(())
}

fn check_state(change: &StateChange) -> Result<(), EnvelopeError> {
    let state = change.state();
    if state == State::Unspecified {
        return Err(EnvelopeError::Missing("state_change.state"));
    }
    if change.reason() != Reason::Unspecified && !matches!(state, State::Rejected | State::Failed) {
        return Err(EnvelopeError::Kind("a reason goes with rejected and failed"));
    }
    if change.outcome() != Outcome::Unspecified && state != State::Completed {
        return Err(EnvelopeError::Kind("an outcome goes with completed"));
    }
    Ok(())
}
