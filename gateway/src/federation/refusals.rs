//! What gateways refuse one another, in one wording.

use liaison_proto::message::v1::{Refusal, error_code::Code as ErrorCode};
use liaison_trust::{digest::Digest, names::Domain, statement::StatementError};

use crate::limits;

/// A peer said what it has no right to say.
pub(super) fn violation(message: String) -> Refusal {
    Refusal::new(
        ErrorCode::PeerViolation,
        message,
        "send what belongs to the sending domain and what its own record lists, or compare with this gateway's log",
    )
}

/// What a peer says that can't be read as signed by it.
pub(super) fn not_its_word(what: &str, domain: &Domain, error: StatementError) -> Refusal {
    match error {
        StatementError::BadSignature(_) => Refusal::new(
            ErrorCode::BadSignature,
            format!("{what} is not signed by {domain}"),
            "sign with the key that stands in the domain's bundle",
        ),
        StatementError::Strict(error) => error.into(),
    }
}

/// Nothing is exchanged by a bundle that is too old.
pub(super) fn stale(domain: &Domain) -> Refusal {
    Refusal::new(
        ErrorCode::StaleBundle,
        format!("the newest bundle of {domain} is too old to be relied on"),
        "look at why its gateway does not renew it; messages wait meanwhile",
    )
    .retry_after(limits::QUEUE_RETRY)
}

/// A recipient of another domain takes nothing more at present.
pub(super) fn queue_full(domain: &Domain) -> Refusal {
    Refusal::new(
        ErrorCode::QueueFull,
        format!("{domain}: the agency's queue is full: it takes nothing at present"),
        "it is delivered when that agency takes what waits for it; reach the agency another way",
    )
    .retry_after(limits::QUEUE_RETRY)
}

/// Two domains with different schemes exchange nothing.
pub(super) fn scheme_mismatch(domain: &Domain, theirs: &[u8], own: Digest) -> Refusal {
    Refusal::new(
        ErrorCode::SchemeMismatch,
        format!("the scheme here has the hash {own}, that of {domain} {}", hex::encode(theirs)),
        "make the federation's scheme of the same version active in both domains; messages wait meanwhile",
    )
    .retry_after(limits::QUEUE_RETRY)
}

/// Whether a refusal is for something that no gateway that keeps to the rules sends. What it may send again later
/// is none.
pub(super) fn is_violation(refusal: &Refusal) -> bool {
    let is_against_rules = matches!(
        refusal.code(),
        ErrorCode::PeerViolation
            | ErrorCode::StaleBundle
            | ErrorCode::BadSignature
            | ErrorCode::ChangedSection
            | ErrorCode::BadRecipients
            | ErrorCode::SenderMismatch
            | ErrorCode::Malformed
            | ErrorCode::MissingField
            | ErrorCode::UnknownValue
            | ErrorCode::Unsupported
            | ErrorCode::IdReused
            | ErrorCode::TransitionNotAllowed
            | ErrorCode::KeyChainBroken
            | ErrorCode::UnknownKey
    );
    is_against_rules && refusal.retry_after_ms == 0
}
