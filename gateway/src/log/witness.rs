//! This gateway as a witness of its peers' logs (C2SP tlog-witness): it cosigns a head once it was shown that all heads
//! which it cosigned before are the beginning of it, and keeps what shows that a log changed its past.

use axum::http::StatusCode;
use liaison_trust::{
    keys::VerifyingKey,
    log::{
        Checkpoint, CosignatureError, KeyName, LogKey, Note, NoteSignature, Submission, SubmissionError,
        Witness, empty_root, log_number, verify_consistency,
    },
    names::Domain,
};
use metrics::counter;
use time::OffsetDateTime;
use tracing::{error, info, warn};

use super::WITNESS;
use crate::{
    gateway::Gateway,
    limits,
    store::{LogKind, Store, StoreError},
};

/// Why a head is not cosigned. The log that shows it is at fault, unless its witness failed.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    #[error(transparent)]
    Malformed(#[from] SubmissionError),
    #[error("the head is smaller than the one that it is said to go on from")]
    Shrinks,
    #[error("this witness knows no log of that origin for this caller, or too many others")]
    UnknownLog,
    #[error("the head is not signed by the log's key")]
    NotSigned,
    /// The size of the head that was cosigned last.
    #[error("{0}")]
    Another(u64),
    #[error("the head was not shown to go on from the one that was cosigned last; both are kept as evidence")]
    Inconsistent,
    #[error(
        "of this log nothing was cosigned yet: its first head goes on from 0 leaves, with an empty proof"
    )]
    NotFirst,
    #[error("another log has taken the place of this one, and was cosigned")]
    Succeeded,
    #[error("the witness failed")]
    Store(#[from] StoreError),
    #[error("the witness failed")]
    Cosignature(#[from] CosignatureError),
}

impl WitnessError {
    /// Whether no honest gateway shows such a head.
    pub fn is_violation(&self) -> bool {
        matches!(
            self,
            Self::Malformed(_)
                | Self::Shrinks
                | Self::NotFirst
                | Self::UnknownLog
                | Self::NotSigned
                | Self::Inconsistent
        )
    }

    /// As C2SP tlog-witness says it in HTTP.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::Shrinks | Self::NotFirst => StatusCode::BAD_REQUEST,
            Self::UnknownLog => StatusCode::NOT_FOUND,
            Self::NotSigned => StatusCode::FORBIDDEN,
            Self::Another(_) => StatusCode::CONFLICT,
            Self::Succeeded => StatusCode::GONE,
            Self::Inconsistent => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Store(_) | Self::Cosignature(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// The name of a domain as a witness.
pub fn name(domain: &Domain) -> Option<KeyName> {
    format!("{domain}/witness").parse().ok()
}

/// Cosigns a head of a log of a domain, whose log key this is.
///
/// # Errors
/// Why it does not.
pub async fn cosign(
    gateway: &Gateway,
    (domain, key): (&Domain, &VerifyingKey),
    body: &[u8],
    now: OffsetDateTime,
) -> Result<NoteSignature, WitnessError> {
    let submission = Submission::parse(body)?;
    let note = &submission.checkpoint;
    let (origin, kind, number) = log(note, domain).ok_or(WitnessError::UnknownLog)?;
    let shown = LogKey::new(origin.clone(), *key).open(note).map_err(|_| WitnessError::NotSigned)?;
    let origin = origin.as_str();
    let logs = gateway.store.witnessed_logs(domain, kind).await?;
    if logs.iter().filter_map(|log| log_number(&log.origin)).any(|(_, other)| other > number) {
        return Err(WitnessError::Succeeded);
    }
    let known = gateway.store.witnessed(origin).await?;
    if known.is_none() {
        let before = gateway.store.count_witnessed(domain).await?;
        if before >= limits::LOGS_WITNESSED {
            return Err(WitnessError::UnknownLog);
        }
        if !logs.is_empty() {
            counter!("liaison_gateway_log_reopened_total", "peer" => domain.to_string()).increment(1);
            warn!(
                log = origin,
                "a peer shows another log than before: its gateway was restored from an older copy, and may have lost what it accepted since; ask its administrator"
            );
        }
    }
    let seen = known.as_deref().and_then(read);
    let (size, root) = seen.as_ref().map_or_else(|| (0, empty_root()), |seen| (seen.size(), seen.root()));
    if submission.old > shown.size() {
        return Err(WitnessError::Shrinks);
    }
    // Two heads of one size need no proof: one of them is a lie.
    let is_another = shown.size() == size && shown.root() != root;
    if submission.old != size && !is_another {
        return Err(WitnessError::Another(size));
    }
    if seen.is_none() && !submission.proof.is_empty() {
        return Err(WitnessError::NotFirst);
    }
    if is_another || verify_consistency(size, &root, shown.size(), &shown.root(), &submission.proof).is_err()
    {
        let known = known.as_deref().unwrap_or_default();
        let why = "it shows a head that does not go on from what it showed before: it changed its past, or tells two stories";
        conflict(&gateway.store, origin, (known, note.to_string().as_bytes()), why, now).await?;
        return Err(WitnessError::Inconsistent);
    }
    let text = note.to_string();
    let old = seen.is_some().then_some(size);
    if !gateway.store.witness(origin, old, shown.size(), text.as_bytes()).await? {
        return Err(WitnessError::Another(shown.size()));
    }
    if known.is_none() {
        info!(log = origin, size = shown.size(), "the log of a peer is witnessed from now on");
    }
    let name = name(&gateway.domain).ok_or(WitnessError::UnknownLog)?;
    let witness = Witness::new(name, gateway.signing.derived(WITNESS));
    let time = u64::try_from(now.unix_timestamp()).unwrap_or_default();
    Ok(witness.cosign(&shown, time)?)
}

/// Keeps as evidence what was known of a log and what it showed that contradicts it, and raises the alarm.
///
/// # Errors
/// The database failed.
pub async fn conflict(
    store: &Store,
    origin: &str,
    (known, shown): (&[u8], &[u8]),
    why: &str,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    counter!("liaison_gateway_log_conflicts_total", "log" => origin.to_owned()).increment(1);
    error!(log = origin, why, "a log contradicts what it showed before; both are kept as evidence");
    store.keep_conflict(origin, (known, shown), now).await
}

/// The log of the domain that a head is of: its origin, kind and number.
fn log(note: &Note, domain: &Domain) -> Option<(KeyName, LogKind, u32)> {
    let checkpoint: Checkpoint = note.text().parse().ok()?;
    let (of, number) = log_number(checkpoint.origin())?;
    let kind = of.strip_prefix(domain.as_str())?.strip_prefix('/')?;
    Some((checkpoint.origin().parse().ok()?, LogKind::named(kind)?, number))
}

fn read(note: &[u8]) -> Option<Checkpoint> {
    Note::parse(note).ok()?.text().parse().ok()
}
