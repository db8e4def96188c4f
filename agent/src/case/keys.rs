//! Other agencies' keys, and a person's word about them.

use liaison_proto::{
    case::v1::{
        AgencyKeys, ConfirmKeysRequest, ListKeysRequest, ListKeysResponse, agency_keys::Code as State,
    },
    message::v1::Refusal,
};
use liaison_trust::names::AgencyAddress;

use super::{caller::Caller, parse};
use crate::agent::Agent;

/// A page of the agencies that this agent has keys of, in the order of their addresses.
pub(super) async fn list(agent: &Agent, request: ListKeysRequest) -> Result<ListKeysResponse, Refusal> {
    let (after, size) = parse::keys_page(&request)?;
    // One more than is shown tells whether there is a next page.
    let mut agencies = agent.store.agencies_with_keys(&after, size + 1).await?;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let more = agencies.len() > size;
    agencies.truncate(size);
    let next_page_token = agencies.last().filter(|_| more).map(ToString::to_string).unwrap_or_default();
    let mut keys = Vec::with_capacity(agencies.len());
    for agency in &agencies {
        keys.push(shown(agent, agency).await?);
    }
    Ok(ListKeysResponse { keys, next_page_token })
}

/// Takes a person's word for an agency's fingerprint.
pub(super) async fn confirm(
    agent: &Agent,
    caller: &Caller,
    request: ConfirmKeysRequest,
) -> Result<AgencyKeys, Refusal> {
    let (agency, fingerprint) = parse::confirmed_keys(&request)?;
    agent.directory.confirm(&agency, fingerprint, &caller.actor).await?;
    tracing::warn!(%agency, %fingerprint, "a person has confirmed the keys of an agency");
    shown(agent, &agency).await
}

async fn shown(agent: &Agent, agency: &AgencyAddress) -> Result<AgencyKeys, Refusal> {
    let (standing, is_pinned) = agent.directory.logged(agency).await?;
    let state = match (standing.is_broken(), is_pinned) {
        (true, _) => State::Broken,
        (false, true) => State::Pinned,
        (false, false) => State::Seen,
    };
    // A pin that the log does not hold is a pin all the same.
    let pinned = agent.store.keys(agency).await?;
    let first = pinned.first().or(standing.chain.first()).map(|first| first.id.to_string());
    let firsts = standing.strays.iter().filter(|(key, _)| key.previous.is_none());
    Ok(AgencyKeys {
        agency: agency.to_string(),
        state: state.into(),
        fingerprint: first.unwrap_or_default(),
        others: firsts.map(|(key, _)| key.id.to_string()).collect(),
        records: u32::try_from(standing.chain.len().max(pinned.len())).unwrap_or(u32::MAX),
    })
}
