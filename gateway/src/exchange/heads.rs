//! Heads that agencies show: what they hold, or what another agency says it holds. Each log goes on from all that it
//! signed.

use bytes::Bytes;
use liaison_proto::{
    exchange::v1::Continuation,
    limits::{HEAD_BYTES, SHOWN_HEADS},
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use liaison_trust::{log::Note, names::AgencyAddress};
use metrics::counter;
use tracing::error;

use crate::log::{Head, Log, LogError, Shown};

/// The newest head of a log, and the proof for each head that an agency shows that it goes on from that, or why there is
/// none.
///
/// # Errors
/// There are too many, or the log can't be read.
pub(super) async fn continuations(
    agency: &AgencyAddress,
    log: &Log,
    heads: &[String],
) -> Result<(Head, Vec<Continuation>), Refusal> {
    if heads.len() > SHOWN_HEADS {
        return Err(Refusal::new(
            ErrorCode::TooLarge,
            format!("more than {SHOWN_HEADS} heads in one request"),
            "show fewer at a time",
        ));
    }
    let mut shown = Vec::with_capacity(heads.len());
    for head in heads {
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
    Ok((newest, continuations))
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

pub(super) fn unreadable(fault: LogError) -> Refusal {
    error!(error = &fault as &dyn std::error::Error, "the log can't be proven");
    Refusal::internal()
}
