//! Between domain types and columns.

use liaison_trust::{digest::Digest, names::AgencyAddress};
use prost::Message;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::{Queue, StoreError};

/// A moment as Unix milliseconds; rounded down, so that nothing lives longer than it was given.
pub(super) fn millis(at: OffsetDateTime) -> i64 {
    at.unix_timestamp().saturating_mul(1_000).saturating_add(at.millisecond().into())
}

pub(super) fn moment(millis: i64) -> Result<OffsetDateTime, StoreError> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .map_err(|_| StoreError::Corrupt("moment"))
}

pub(super) fn address(text: &str) -> Result<AgencyAddress, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt("agency address"))
}

pub(super) fn queue(text: &str) -> Result<Queue, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt("queue"))
}

pub(super) fn id(bytes: &[u8]) -> Result<Uuid, StoreError> {
    Uuid::from_slice(bytes).map_err(|_| StoreError::Corrupt("message id"))
}

pub(super) fn digest(bytes: &[u8]) -> Result<Digest, StoreError> {
    Digest::try_from(bytes).map_err(|_| StoreError::Corrupt("digest"))
}

/// Reads a column that holds a message of its own making.
pub(super) fn decode<M: Message + Default>(bytes: Vec<u8>) -> Result<M, StoreError> {
    M::decode(bytes::Bytes::from(bytes)).map_err(|_| StoreError::Corrupt("protobuf message"))
}

/// A count or a number of bytes as SQLite keeps it.
pub(super) fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
