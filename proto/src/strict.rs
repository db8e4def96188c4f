//! Reads a message so that nothing in it is passed over: a field or an enumeration value that the
//! schema doesn't have is an error. prost alone would drop the one and keep the other in silence, and
//! would make a structure of 300 bytes of every two bytes that it is sent.

use prost::{
    Message, Name,
    bytes::Bytes,
    encoding::{WireType, decode_key, decode_varint},
};
use prost_reflect::{EnumDescriptor, Kind, MessageDescriptor};

use crate::{
    POOL,
    limits::{ALL_FIELDS, MESSAGE_FIELDS},
};

/// Why a message was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StrictError {
    #[error("{message} is not well-formed protobuf")]
    Malformed { message: String },
    #[error("{message} has a field number {number} that this version does not know")]
    UnknownField { message: String, number: u32 },
    #[error("{field} has an enumeration value {number} that this version does not know")]
    UnknownValue { field: String, number: i32 },
    #[error("{message} has more than {MESSAGE_FIELDS} fields, or {ALL_FIELDS} with all that is in it")]
    TooManyFields { message: String },
}

/// Decodes `bytes`, refusing what the schema doesn't have at any depth.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode<M: Message + Name + Default>(bytes: &[u8]) -> Result<M, StrictError> {
    check_as::<M>(bytes)?;
    M::decode(bytes).map_err(|_| malformed::<M>())
}

/// [`decode`], whose fields of bytes are references into `bytes` and no copies: as long as one of them lives, all do.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode_shared<M: Message + Name + Default>(bytes: Bytes) -> Result<M, StrictError> {
    check_as::<M>(&bytes)?;
    M::decode(bytes).map_err(|_| malformed::<M>())
}

fn check_as<M: Name>(bytes: &[u8]) -> Result<(), StrictError> {
    let descriptor = POOL.get_message_by_name(&M::full_name()).ok_or_else(malformed::<M>)?;
    check(&descriptor, bytes)
}

fn malformed<M: Name>() -> StrictError {
    StrictError::Malformed { message: M::full_name() }
}

/// Checks that `bytes` are a message of this schema and nothing else. Allocates nothing, so that it
/// can come before all that does.
///
/// # Errors
/// What is wrong with the bytes.
pub fn check(message: &MessageDescriptor, bytes: &[u8]) -> Result<(), StrictError> {
    check_message(message, bytes, &mut 0)
}

/// `all` counts the fields of all messages. No message of the schema holds its own kind, so that the
/// schema bounds the depth.
fn check_message(message: &MessageDescriptor, bytes: &[u8], all: &mut usize) -> Result<(), StrictError> {
    let name = || message.full_name().to_owned();
    let malformed = || StrictError::Malformed { message: name() };
    let mut rest = bytes;
    let mut fields = 0;
    while !rest.is_empty() {
        let (number, wire) = decode_key(&mut rest).map_err(|_| malformed())?;
        let field =
            message.get_field(number).ok_or_else(|| StrictError::UnknownField { message: name(), number })?;
        let mut count = || {
            fields += 1;
            *all += 1;
            let few = fields <= MESSAGE_FIELDS && *all <= ALL_FIELDS;
            few.then_some(()).ok_or_else(|| StrictError::TooManyFields { message: name() })
        };
        match (field.kind(), wire) {
            (Kind::Enum(values), WireType::Varint) => {
                count()?;
                let value = decode_varint(&mut rest).map_err(|_| malformed())?;
                check_value(field.full_name(), &values, value)?;
            }
            (kind, WireType::Varint) if kind.wire_type() == WireType::Varint => {
                count()?;
                decode_varint(&mut rest).map_err(|_| malformed())?;
            }
            (kind, WireType::LengthDelimited) => {
                let length = decode_varint(&mut rest).ok().and_then(|length| usize::try_from(length).ok());
                let (mut part, after) =
                    length.and_then(|length| rest.split_at_checked(length)).ok_or_else(malformed)?;
                rest = after;
                match kind {
                    Kind::Message(inner) => {
                        count()?;
                        check_message(&inner, part, all)?;
                    }
                    Kind::String => {
                        count()?;
                        std::str::from_utf8(part).map_err(|_| malformed())?;
                    }
                    Kind::Bytes => count()?,
                    // A packed list.
                    Kind::Enum(values) if field.is_list() => {
                        while !part.is_empty() {
                            count()?;
                            let value = decode_varint(&mut part).map_err(|_| malformed())?;
                            check_value(field.full_name(), &values, value)?;
                        }
                    }
                    kind if field.is_list() && kind.wire_type() == WireType::Varint => {
                        while !part.is_empty() {
                            count()?;
                            decode_varint(&mut part).map_err(|_| malformed())?;
                        }
                    }
                    _ => return Err(malformed()),
                }
            }
            // The schema has no field of any other encoding.
            _ => return Err(malformed()),
        }
    }
    Ok(())
}

#[allow(clippy::cast_possible_truncation, reason = "as protobuf reads an enumeration")]
fn check_value(field: &str, values: &EnumDescriptor, value: u64) -> Result<(), StrictError> {
    let number = value as i32;
    match values.get_value(number) {
        Some(_) => Ok(()),
        None => Err(StrictError::UnknownValue { field: field.to_owned(), number }),
    }
}
