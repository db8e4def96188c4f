//! Receipts for agents: what shows an agency that the log holds what happened to its messages, and that the log goes on
//! from what the agency saw of it. Nothing is remembered here between two calls.

use bytes::Bytes;
use liaison_proto::{
    exchange::v1::{ListReceiptsRequest, ListReceiptsResponse, Receipt},
    limits::RECEIPT_MESSAGES,
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use liaison_trust::{digest::Digest, names::AgencyAddress};
use uuid::Uuid;

use super::{
    heads::{self, unreadable},
    signers::Signers,
};
use crate::{delivery::internal, gateway::Gateway, limits, store::Leaf};

/// Answers an agency's request.
///
/// # Errors
/// It asks for too much, or names what is no message id; the store failed.
pub(super) async fn list(
    gateway: &Gateway,
    agency: &AgencyAddress,
    request: ListReceiptsRequest,
) -> Result<ListReceiptsResponse, Refusal> {
    if request.messages.len() > RECEIPT_MESSAGES {
        return Err(Refusal::new(
            ErrorCode::TooLarge,
            format!("more than {RECEIPT_MESSAGES} messages in one request"),
            "ask for fewer at a time",
        ));
    }
    let messages = request.messages.iter().map(|id| Uuid::from_slice(id)).collect::<Result<Vec<_>, _>>();
    let messages = messages.map_err(|_| {
        Refusal::new(ErrorCode::Malformed, "a message id is 16 bytes", "correct the agent's software")
    })?;
    let log = &gateway.logs.evidence;
    let head = log.head();
    let continuations = heads::continuations(agency, log, &head, &request.heads).await?;
    let page = (limits::RECEIPTS, limits::RECEIPTS_BYTES);
    let (leaves, next) = gateway
        .store
        .leaves_for(log.id(), request.from..head.size, agency, &messages, page)
        .await
        .map_err(internal)?;
    let indexes: Vec<u64> = leaves.iter().map(|leaf| leaf.index).collect();
    let proofs = log.inclusion(&indexes, head.size).await.map_err(unreadable)?;
    let mut pending =
        gateway.store.staged_for(log.id(), head.size, agency, &messages).await.map_err(internal)?;
    let Signers { head: keys_head, signers, early } = Signers::of(gateway, &leaves).await?;
    let (early, ready): (Vec<_>, Vec<_>) =
        leaves.iter().zip(proofs).partition(|(leaf, _)| early.contains(&leaf.index));
    pending.extend(early.iter().filter_map(|(leaf, _)| leaf.about.message));
    Ok(ListReceiptsResponse {
        continuations,
        receipts: ready.into_iter().filter_map(|(leaf, proof)| receipt(leaf, proof)).collect(),
        pending: pending.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect(),
        keys_head,
        signers,
        next: next.unwrap_or_default(),
        head: head.note.map(|note| note.to_string()).unwrap_or_default(),
    })
}

fn receipt(leaf: &Leaf, proof: Vec<Digest>) -> Option<Receipt> {
    let record = leaf.record.as_ref()?;
    Some(Receipt {
        index: leaf.index,
        salt: Bytes::copy_from_slice(record.salt()),
        record: Bytes::copy_from_slice(record.record()),
        proof: proof.into_iter().map(Bytes::from).collect(),
    })
}
