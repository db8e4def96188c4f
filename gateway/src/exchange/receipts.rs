//! Receipts for agents: what shows an agency that the log holds what happened to its messages, and that the log goes on
//! from what the agency saw of it. Nothing is remembered here between two calls.

use bytes::Bytes;
use liaison_proto::{
    exchange::v1::{Continuation, ListReceiptsRequest, ListReceiptsResponse, Receipt},
    limits::{HEAD_BYTES, RECEIPT_MESSAGES, SHOWN_HEADS},
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use liaison_trust::{digest::Digest, log::Note, names::AgencyAddress};
use metrics::counter;
use tracing::error;
use uuid::Uuid;

use crate::{
    delivery::internal,
    gateway::Gateway,
    limits,
    log::{Head, Log, LogError, Shown, Tree},
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
    if request.messages.len() > RECEIPT_MESSAGES || request.heads.len() > SHOWN_HEADS {
        return Err(Refusal::new(
            ErrorCode::TooLarge,
            format!("more than {RECEIPT_MESSAGES} messages or {SHOWN_HEADS} heads in one request"),
            "ask for fewer at a time",
        ));
    }
    let messages = request.messages.iter().map(|id| Uuid::from_slice(id)).collect::<Result<Vec<_>, _>>();
    let messages = messages.map_err(|_| {
        Refusal::new(ErrorCode::Malformed, "a message id is 16 bytes", "correct the agent's software")
    })?;
    let log = &gateway.logs.evidence;
    let mut shown = Vec::with_capacity(request.heads.len());
    for head in &request.heads {
        shown.push(look(agency, log, head).await);
    }
    // Read behind the look at heads that were shown, so that it is none of before them.
    let newest = log.head();
    let mut continuations = Vec::with_capacity(shown.len());
    for shown in shown {
        let proven = match shown {
            Ok(size) => log.tree().consistency(size, newest.size).await.map_err(unreadable),
            Err(refusal) => Err(refusal),
        };
        continuations.push(match proven {
            Ok(hashes) => {
                Continuation { hashes: hashes.into_iter().map(Bytes::from).collect(), refusal: None }
            }
            Err(refusal) if refusal.code() == ErrorCode::Internal => return Err(refusal),
            Err(refusal) => Continuation { hashes: Vec::new(), refusal: Some(refusal) },
        });
    }
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
    let pending =
        gateway.store.staged_for(tree.id(), head.size, agency, &messages).await.map_err(internal)?;
    let earlier = gateway.store.earlier_receipts(number, agency, &messages).await.map_err(internal)?;
    let text = |head: &Head| head.note.as_ref().map(ToString::to_string).unwrap_or_default();
    Ok(ListReceiptsResponse {
        continuations,
        receipts: leaves.iter().zip(proofs).filter_map(|(leaf, proof)| receipt(leaf, proof)).collect(),
        pending: pending.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect(),
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

/// The size of a head of the log that an agency shows and that the log goes on from. One that the log's key signed and that
/// the log does not go on from ends this gateway, see [`Log::shown`]; the agency is told before.
async fn look(agency: &AgencyAddress, log: &Log, shown: &str) -> Result<u64, Refusal> {
    let wrong =
        |code, why: String| Refusal::new(code, why, "show a head of the log as this gateway signed it");
    if shown.len() > HEAD_BYTES {
        return Err(wrong(ErrorCode::TooLarge, format!("a head has {HEAD_BYTES} bytes at most")));
    }
    let note =
        Note::parse(shown.as_bytes()).map_err(|fault| wrong(ErrorCode::Malformed, fault.to_string()))?;
    if let Shown::Ahead(ahead) = log.shown(&note).await.map_err(unreadable)? {
        counter!("liaison_gateway_log_ahead_total").increment(1);
        let lines: Vec<&str> = note.text().lines().take(3).collect();
        let (shown, head) = (lines.join(" "), log.head());
        error!(%agency, shown, size = head.size, root = %head.root, "an agency shows a head that the log does not go on from");
        return Err(Refusal::new(
            ErrorCode::InconsistentLog,
            LogError::from(ahead).to_string(),
            "keep both heads, and ask the domain's administrator: a gateway was restored, copied, or shows two histories",
        ));
    }
    let open = log.signer().key().open(&note);
    Ok(open.map_err(|fault| wrong(ErrorCode::BadSignature, fault.to_string()))?.size())
}

fn unreadable(fault: LogError) -> Refusal {
    error!(error = &fault as &dyn std::error::Error, "the log can't be proven");
    Refusal::internal()
}
