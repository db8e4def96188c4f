//! Reads a message so that nothing in it is passed over: a field or an enumeration value that the
//! schema doesn't have is an error. prost alone would drop the one and keep the other in silence.

use prost::{Message, Name};
use prost_reflect::{DynamicMessage, Kind, ReflectMessage, Value};

use crate::POOL;

/// Why a message was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StrictError {
    #[error("{message} is not well-formed protobuf")]
    Malformed { message: String },
    #[error("{message} has a field number {number} that this version does not know")]
    UnknownField { message: String, number: u32 },
    #[error("{field} has an enumeration value {number} that this version does not know")]
    UnknownValue { field: String, number: i32 },
}

/// Decodes `bytes`, refusing what the schema doesn't have at any depth.
pub fn decode<M: Message + Name + Default>(bytes: &[u8]) -> Result<M, StrictError> {
    let malformed = || StrictError::Malformed { message: M::full_name() };
    let descriptor = POOL.get_message_by_name(&M::full_name()).ok_or_else(malformed)?;
    let dynamic = DynamicMessage::decode(descriptor, bytes).map_err(|_| malformed())?;
    check(&dynamic)?;
    M::decode(bytes).map_err(|_| malformed())
}

/// Checks a message that was read by its schema.
pub fn check(message: &DynamicMessage) -> Result<(), StrictError> {
    if let Some(unknown) = message.unknown_fields().next() {
        return Err(StrictError::UnknownField {
            message: message.descriptor().full_name().to_owned(),
            number: unknown.number(),
        });
    }
    for (field, value) in message.fields() {
        // A map is a repeated entry message; its values have the kind of the entry's second field.
        let kind = match field.kind() {
            Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
            kind => kind,
        };
        check_value(field.full_name(), &kind, value)?;
    }
    Ok(())
}

fn check_value(field: &str, kind: &Kind, value: &Value) -> Result<(), StrictError> {
    match (kind, value) {
        (_, Value::Message(message)) => check(message),
        (Kind::Enum(values), Value::EnumNumber(number)) if values.get_value(*number).is_none() => {
            Err(StrictError::UnknownValue { field: field.to_owned(), number: *number })
        }
        (_, Value::List(list)) => list.iter().try_for_each(|item| check_value(field, kind, item)),
        (_, Value::Map(map)) => map.values().try_for_each(|item| check_value(field, kind, item)),
        _ => Ok(()),
    }
}
