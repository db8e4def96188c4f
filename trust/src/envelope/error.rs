//! Why an envelope or a copy is refused.

use liaison_proto::{
    message::v1::{Refusal, data_category::Code as Category, error_code::Code as ErrorCode},
    strict::StrictError,
};

use crate::{digest::Digest, key_record::KeyRecordError, names::AgencyAddress};

/// Why an envelope or a copy is refused. Names the culprit, and never holds a word of a section.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("{what} of the message has more than {limit}")]
    TooLarge { what: &'static str, limit: usize },
    #[error(transparent)]
    Strict(#[from] StrictError),
    #[error("the message has no {0}")]
    Missing(&'static str),
    #[error("the message's {0} is malformed")]
    Malformed(&'static str),
    #[error("the message's {0} is not one that this version supports")]
    Unsupported(&'static str),
    #[error("the message breaks a rule of its kind: {0}")]
    Kind(&'static str),
    #[error("an alert of this kind can't hold the category {}", .0.as_str_name())]
    CategoryOfAlert(Category),
    #[error("the message's sender is not to be believed: {0}")]
    SenderKey(#[from] KeyRecordError),
    #[error("the message is from {sender}, its key is of {key}")]
    SenderMismatch { sender: AgencyAddress, key: AgencyAddress },
    #[error("the message names another key of {0} than the one that came with it or is known")]
    OtherSenderKey(AgencyAddress),
    #[error("the message was made when the key of {0} was not valid")]
    KeyNotValid(AgencyAddress),
    #[error("the signature of {0} over the message does not verify")]
    BadSignature(AgencyAddress),
    #[error("the section at position {0} is not the one that its sender signed")]
    ChangedSection(u32),
    #[error("the facts are not those that their sender signed")]
    ChangedFacts,
    #[error("{0} is named as sender and as recipient")]
    ToOneself(AgencyAddress),
    #[error("the recipients are not those that their sender signed")]
    ChangedRecipients,
    #[error("the message's recipients are wrong: {0}")]
    Recipients(&'static str),
    #[error("the entry of {recipient} is wrong: {what}")]
    Recipient { recipient: AgencyAddress, what: &'static str },
    #[error("the message was created more than 5 minutes in the future")]
    FromTheFuture,
    #[error("the message expires before it was created, or more than 30 days after")]
    Lifetime,
    #[error("the message has expired")]
    Expired,
    #[error("the copy is for {0}")]
    NotForMe(AgencyAddress),
    #[error("the copy is sealed to the key {0}, which is not here")]
    UnknownKey(Digest),
    #[error("the gateway's release record does not verify")]
    ReleaseSignature,
    #[error("the gateway's release record is not about this copy: other {0}")]
    OtherRelease(&'static str),
    #[error("what was forwarded is not what the sending gateway's release record lists: {0}")]
    NotAsReleased(&'static str),
}

impl EnvelopeError {
    /// Its place in the one vocabulary of errors.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Strict(error) => error.code(),
            Self::Malformed(_)
            | Self::Kind(_)
            | Self::CategoryOfAlert(_)
            | Self::Lifetime
            | Self::OtherRelease(_) => ErrorCode::Malformed,
            Self::Missing(_) => ErrorCode::MissingField,
            Self::Unsupported(_) => ErrorCode::Unsupported,
            Self::SenderKey(_) | Self::OtherSenderKey(_) | Self::BadSignature(_) | Self::ReleaseSignature => {
                ErrorCode::BadSignature
            }
            Self::SenderMismatch { .. } => ErrorCode::SenderMismatch,
            Self::KeyNotValid(_) | Self::UnknownKey(_) => ErrorCode::UnknownKey,
            Self::ChangedSection(_) | Self::ChangedFacts => ErrorCode::ChangedSection,
            Self::ToOneself(_) => ErrorCode::ToOneself,
            Self::ChangedRecipients | Self::Recipients(_) | Self::Recipient { .. } | Self::NotForMe(_) => {
                ErrorCode::BadRecipients
            }
            Self::NotAsReleased(_) => ErrorCode::PeerViolation,
            Self::FromTheFuture => ErrorCode::ClockSkew,
            Self::Expired => ErrorCode::Expired,
        }
    }

    fn action(&self) -> &'static str {
        match self.code() {
            ErrorCode::TooLarge => "send less in one message",
            ErrorCode::UnknownValue | ErrorCode::Unsupported => {
                "send what this version's contracts define, or upgrade the receiver"
            }
            ErrorCode::SenderMismatch => "send as the agency that the certificate and the keys are of",
            ErrorCode::UnknownKey => "look up the current keys and seal the message again",
            ErrorCode::ToOneself => "name other recipients than the sender",
            ErrorCode::ClockSkew => "set the clock of the sender's machine",
            ErrorCode::Expired => "send the message again under a new id",
            ErrorCode::BadSignature | ErrorCode::ChangedSection | ErrorCode::BadRecipients => {
                "send the message as its sender signed it; if it was, find out what changed it on the way"
            }
            ErrorCode::PeerViolation => "tell the administrator of the sending gateway",
            _ => "correct the sender's software",
        }
    }
}

impl From<EnvelopeError> for Refusal {
    fn from(error: EnvelopeError) -> Self {
        Refusal::new(error.code(), error.to_string(), error.action())
    }
}
