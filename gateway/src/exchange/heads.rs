//! Heads that agencies show: what they hold, or what another agency says it holds. Each log goes on from all that it
//! signed.

use bytes::Bytes;
use liaison_proto::{
    exchange::v1::Continuation,
    limits::{HEAD_BYTES, SHOWN_HEADS},
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use liaison_trust::{digest::Digest, log::Note, names::AgencyAddress};
use metrics::counter;
use tracing::error;

use crate::log::{Head, Log, LogError, Shown};

/// The proof for each head that an agency shows, or why there is none.
///
/// # Errors
/// There are too many, or the log can't be read.
pub(super) async fn continuations(
    agency: &AgencyAddress,
    log: &Log,
    head: &Head,
    shown: &[String],
) -> Result<Vec<Continuation>, Refusal> {
    if shown.len() > SHOWN_HEADS {
        return Err(Refusal::new(
            ErrorCode::TooLarge,
            format!("more than {SHOWN_HEADS} heads in one request"),
            "show fewer at a time",
        ));
    }
    let mut continuations = Vec::with_capacity(shown.len());
    for shown in shown {
        continuations.push(match continuation(agency, log, head, shown).await {
            Ok(hashes) => {
                Continuation { hashes: hashes.into_iter().map(Bytes::from).collect(), refusal: None }
            }
            Err(refusal) if refusal.code() == ErrorCode::Internal => return Err(refusal),
            Err(refusal) => Continuation { hashes: Vec::new(), refusal: Some(refusal) },
        });
    }
    Ok(continuations)
}

/// The proof that the newest head goes on from a head that an agency shows. One that the log's key signed and that the
/// log does not go on from ends this gateway, see [`Log::shown`]; the agency is told before.
async fn continuation(
    agency: &AgencyAddress,
    log: &Log,
    head: &Head,
    shown: &str,
) -> Result<Vec<Digest>, Refusal> {
    let wrong =
        |code, why: String| Refusal::new(code, why, "show a head of the log as this gateway signed it");
    if shown.len() > HEAD_BYTES {
        return Err(wrong(ErrorCode::TooLarge, format!("a head has {HEAD_BYTES} bytes at most")));
    }
    let note =
        Note::parse(shown.as_bytes()).map_err(|fault| wrong(ErrorCode::Malformed, fault.to_string()))?;
    if log.shown(&note).await.map_err(unreadable)? == Shown::Ahead {
        counter!("liaison_gateway_log_ahead_total").increment(1);
        let lines: Vec<&str> = note.text().lines().take(3).collect();
        let shown = lines.join(" ");
        error!(%agency, shown, size = head.size, root = %head.root, "an agency shows a head that the log does not go on from");
        return Err(Refusal::new(
            ErrorCode::InconsistentLog,
            format!(
                "this gateway's key signed the head {shown}, and its log of {} leaves does not go on from it",
                head.size
            ),
            "keep both heads, and ask the domain's administrator: a gateway was restored, copied, or shows two histories",
        ));
    }
    let open = log.signer().key().open(&note);
    let shown = open.map_err(|fault| wrong(ErrorCode::BadSignature, fault.to_string()))?;
    log.consistency(shown.size(), head.size).await.map_err(unreadable)
}

pub(super) fn unreadable(fault: LogError) -> Refusal {
    error!(error = &fault as &dyn std::error::Error, "the log can't be proven");
    Refusal::internal()
}
