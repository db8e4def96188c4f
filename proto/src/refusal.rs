//! The one vocabulary of errors, and how it maps to gRPC and HTTP.

use std::time::Duration;

use tonic::{Code, Status, metadata::MetadataValue};

use crate::{
    message::v1::{Refusal, Rule, error_code::Code as ErrorCode},
    strict::StrictError,
};

/// The trailer that holds a refusal's code.
pub const CODE: &str = "liaison-code";
/// The trailer that holds a refusal's advice.
pub const ACTION: &str = "liaison-action";
/// The trailer that holds how long to wait before trying again, milliseconds.
pub const RETRY_AFTER: &str = "liaison-retry-after-ms";

impl Refusal {
    /// A refusal: what was wrong and whose fault it is, then what to do about it.
    pub fn new(code: ErrorCode, message: impl Into<String>, action: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            action: action.into(),
            rule: None,
            retry_after_ms: 0,
        }
    }

    /// The same, quoting the rule that refused.
    #[must_use]
    pub fn by_rule(self, rule: Rule) -> Self {
        Self { rule: Some(rule), ..self }
    }

    /// The same, to be tried again after this long; milliseconds count.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX), ..self }
    }

    /// A fault of this program's own; what happened is in its log.
    pub fn internal() -> Self {
        Self::new(
            ErrorCode::Internal,
            "this program failed to handle the request",
            "try again; if it fails again, ask whoever runs it to look at its log",
        )
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; {}", self.code().as_str_name(), self.message, self.action)
    }
}

impl std::error::Error for Refusal {}

/// The gRPC status code of an error.
pub fn grpc(code: ErrorCode) -> Code {
    match code {
        ErrorCode::Malformed
        | ErrorCode::UnknownValue
        | ErrorCode::MissingField
        | ErrorCode::EmptyAudience
        | ErrorCode::ToOneself
        | ErrorCode::ChangedSection
        | ErrorCode::BadSignature
        | ErrorCode::BadRecipients
        | ErrorCode::ClockSkew
        | ErrorCode::Expired
        | ErrorCode::Unsupported => Code::InvalidArgument,
        ErrorCode::NoClientCertificate | ErrorCode::WrongName | ErrorCode::BadToken => Code::Unauthenticated,
        ErrorCode::SenderMismatch
        | ErrorCode::Suspended
        | ErrorCode::Revoked
        | ErrorCode::ForbiddenByPolicy
        | ErrorCode::NotAParty
        | ErrorCode::PeerViolation
        | ErrorCode::OnwardForbidden => Code::PermissionDenied,
        ErrorCode::UnknownRecipient
        | ErrorCode::UnknownKey
        | ErrorCode::UnknownMessage
        | ErrorCode::UnknownDomain => Code::NotFound,
        ErrorCode::IdReused | ErrorCode::IdempotencyConflict => Code::AlreadyExists,
        ErrorCode::TransitionNotAllowed
        | ErrorCode::KeyChainBroken
        | ErrorCode::NotEnrolled
        | ErrorCode::SchemeMismatch
        | ErrorCode::StaleBundle
        | ErrorCode::InconsistentLog => Code::FailedPrecondition,
        ErrorCode::QueueFull | ErrorCode::TooLarge | ErrorCode::RateLimited => Code::ResourceExhausted,
        ErrorCode::GatewayUnreachable | ErrorCode::ShuttingDown => Code::Unavailable,
        ErrorCode::Unspecified | ErrorCode::Internal => Code::Internal,
    }
}

/// The HTTP status of an error.
pub fn http(code: ErrorCode) -> u16 {
    match (code, grpc(code)) {
        (ErrorCode::TooLarge, _) => 413,
        (_, Code::InvalidArgument) => 400,
        (_, Code::Unauthenticated) => 401,
        (_, Code::PermissionDenied) => 403,
        (_, Code::NotFound) => 404,
        (_, Code::AlreadyExists | Code::FailedPrecondition) => 409,
        (_, Code::ResourceExhausted) => 429,
        (_, Code::Unavailable) => 503,
        _ => 500,
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let mut status =
            Status::new(grpc(refusal.code()), format!("{}; {}", refusal.message, refusal.action));
        let metadata = status.metadata_mut();
        metadata.insert(CODE, MetadataValue::from_static(refusal.code().as_str_name()));
        if let Ok(action) = refusal.action.parse() {
            metadata.insert(ACTION, action);
        }
        if refusal.retry_after_ms > 0 {
            metadata.insert(RETRY_AFTER, refusal.retry_after_ms.into());
        }
        status
    }
}

impl From<&Status> for Refusal {
    fn from(status: &Status) -> Self {
        let text = |key| status.metadata().get(key).and_then(|value| value.to_str().ok());
        let code = text(CODE).and_then(ErrorCode::from_str_name).unwrap_or(match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => ErrorCode::GatewayUnreachable,
            Code::InvalidArgument | Code::OutOfRange => ErrorCode::Malformed,
            _ => ErrorCode::Internal,
        });
        let action = text(ACTION).unwrap_or("try again later").to_owned();
        let message = status.message();
        let message = message.strip_suffix(&format!("; {action}")).unwrap_or(message);
        let wait = text(RETRY_AFTER).and_then(|ms| ms.parse().ok()).unwrap_or(0);
        Refusal { retry_after_ms: wait, ..Refusal::new(code, message, action) }
    }
}

impl StrictError {
    /// Its place in the one vocabulary of errors.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Malformed { .. } => ErrorCode::Malformed,
            Self::UnknownField { .. } | Self::UnknownValue { .. } => ErrorCode::UnknownValue,
            Self::TooManyFields { .. } => ErrorCode::TooLarge,
        }
    }
}

impl From<StrictError> for Refusal {
    fn from(error: StrictError) -> Self {
        let code = error.code();
        let action = match code {
            ErrorCode::TooLarge => "send less in one message",
            _ => "send what this version's contracts define, or upgrade the receiver",
        };
        Refusal::new(code, error.to_string(), action)
    }
}

impl From<crate::json::JsonError> for Refusal {
    fn from(error: crate::json::JsonError) -> Self {
        match error {
            crate::json::JsonError::Strict(error) => error.into(),
            crate::json::JsonError::Syntax { .. } => {
                Refusal::new(ErrorCode::Malformed, error.to_string(), "send well-formed JSON")
            }
            crate::json::JsonError::Twice { .. } => {
                Refusal::new(ErrorCode::Malformed, error.to_string(), "give each field once")
            }
            crate::json::JsonError::Schema { .. } => Refusal::new(
                ErrorCode::UnknownValue,
                error.to_string(),
                "compare the request with the document at /openapi.json",
            ),
        }
    }
}
