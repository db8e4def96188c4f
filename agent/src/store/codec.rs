//! Between columns and domain types.

use liaison_proto::message::v1::data_category::Code as Category;
use liaison_trust::{digest::Digest, names::AgencyAddress};
use prost::Message;
use time::OffsetDateTime;
use uuid::Uuid;

use super::StoreError;

/// Unix milliseconds.
pub(super) fn ms(at: OffsetDateTime) -> i64 {
    at.unix_timestamp().saturating_mul(1000).saturating_add(i64::from(at.millisecond()))
}

pub(super) fn time(ms: i64) -> Result<OffsetDateTime, StoreError> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .map_err(|_| StoreError::Damaged("time"))
}

pub(super) fn uuid(bytes: &[u8]) -> Result<Uuid, StoreError> {
    Uuid::from_slice(bytes).map_err(|_| StoreError::Damaged("message id"))
}

pub(super) fn digest(bytes: &[u8]) -> Result<Digest, StoreError> {
    Digest::try_from(bytes).map_err(|_| StoreError::Damaged("digest"))
}

pub(super) fn address(text: &str) -> Result<AgencyAddress, StoreError> {
    text.parse().map_err(|_| StoreError::Damaged("agency address"))
}

pub(super) fn code<T: TryFrom<i32>>(value: i64) -> Result<T, StoreError> {
    i32::try_from(value)
        .ok()
        .and_then(|value| T::try_from(value).ok())
        .ok_or(StoreError::Damaged("enumeration value"))
}

pub(super) fn message<M: Message + Default>(bytes: &[u8]) -> Result<M, StoreError> {
    M::decode(bytes).map_err(|_| StoreError::Damaged("encoded message"))
}

pub(super) fn some_message<M: Message + Default>(bytes: Option<&[u8]>) -> Result<Option<M>, StoreError> {
    bytes.map(message).transpose()
}

/// Data categories, a byte each.
pub(super) fn categories<'a>(categories: impl Iterator<Item = &'a Category>) -> Vec<u8> {
    categories.filter_map(|category| u8::try_from(i32::from(*category)).ok()).collect()
}

pub(super) fn categories_of(bytes: &[u8]) -> Result<Vec<Category>, StoreError> {
    bytes.iter().map(|number| code(i64::from(*number))).collect()
}

/// How many bytes, as a column holds it.
pub(super) fn length(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}
