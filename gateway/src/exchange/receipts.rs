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
use crate::{
    delivery::internal,
    gateway::Gateway,
    limits,
    log::{Head, Log, Tree},
    store::Leaf,
};

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
    let (newest, continuations) = heads::continuations(agency, log, &request.heads).await?;
    let (number, of) = match request.log {
        0 => (log.number(), None),
        number => (number, Some(earlier(log, number).await?)),
    };
    let (tree, head) = of.as_ref().map_or((log.tree(), &newest), |(tree, head)| (tree, head));
    let page = (limits::RECEIPTS, limits::RECEIPTS_BYTES);
    let (leaves, next) = gateway
        .store
        .leaves_for(tree.id(), request.from..head.size, agency, &messages, page)
        .await
        .map_err(internal)?;
    let indexes: Vec<u64> = leaves.iter().map(|leaf| leaf.index).collect();
    let proofs = tree.inclusion(&indexes, head.size).await.map_err(unreadable)?;
    let mut pending =
        gateway.store.staged_for(tree.id(), head.size, agency, &messages).await.map_err(internal)?;
    let earlier = gateway.store.earlier_receipts(number, agency, &messages).await.map_err(internal)?;
    let Signers { head: keys_head, signers, early } = Signers::of(gateway, &leaves).await?;
    let (early, ready): (Vec<_>, Vec<_>) =
        leaves.iter().zip(proofs).partition(|(leaf, _)| early.contains(&leaf.index));
    pending.extend(early.iter().filter_map(|(leaf, _)| leaf.about.message));
    let text = |head: &Head| head.note.as_ref().map(ToString::to_string).unwrap_or_default();
    Ok(ListReceiptsResponse {
        continuations,
        receipts: ready.into_iter().filter_map(|(leaf, proof)| receipt(leaf, proof)).collect(),
        pending: pending.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect(),
        keys_head,
        signers,
        next: next.unwrap_or_default(),
        head: text(&newest),
        earlier_head: of.as_ref().map(|(_, head)| text(head)).unwrap_or_default(),
        earlier: earlier.unwrap_or_default(),
    })
}

/// A log whose place another one has taken.
async fn earlier(log: &Log, number: u32) -> Result<(Tree, Head), Refusal> {
    let found = match number < log.number() {
        true => log.numbered(number).await.map_err(unreadable)?,
        false => None,
    };
    found.ok_or_else(|| {
        let message = format!("this gateway holds no earlier log of the number {number}");
        Refusal::new(ErrorCode::Malformed, message, "name none, or one that an answer named as `earlier`")
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
