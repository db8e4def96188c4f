//! The log of keys for agents, who replay it.

use liaison_proto::{
    exchange::v1::{ListKeyEntriesRequest, ListKeyEntriesResponse},
    limits::KEY_ENTRIES,
    message::v1::Refusal,
};
use liaison_trust::names::AgencyAddress;

use super::heads;
use crate::{delivery::internal, gateway::Gateway};

/// Gives the newest head, the proofs that it goes on from those that the agency shows, and a page of the entries under it.
///
/// # Errors
/// It shows too many heads; the store failed.
pub(super) async fn list(
    gateway: &Gateway,
    agency: &AgencyAddress,
    request: &ListKeyEntriesRequest,
) -> Result<ListKeyEntriesResponse, Refusal> {
    let log = &gateway.logs.keys;
    let (head, continuations) = heads::continuations(agency, log, &request.heads).await?;
    let left = head.size.saturating_sub(request.from);
    let most = u32::try_from(left).unwrap_or(u32::MAX).min(KEY_ENTRIES);
    let entries = gateway.store.entries(log.tree().id(), request.from, most).await.map_err(internal)?;
    Ok(ListKeyEntriesResponse {
        head: head.note.map(|note| note.to_string()).unwrap_or_default(),
        entries: entries.into_iter().map(Into::into).collect(),
        continuations,
    })
}
