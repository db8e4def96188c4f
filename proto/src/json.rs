//! The protobuf JSON mapping of every message, by its schema.

use std::{collections::HashSet, fmt};

use prost::{Message, Name};
use prost_reflect::{DeserializeOptions, DynamicMessage, ReflectMessage, SerializeOptions, Value as Part};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use crate::{POOL, category, strict};

/// Why JSON is not the message that was asked for. Its text names fields and places, never what was
/// written there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("not a {message}: the JSON is not well formed at line {line}, column {column}")]
    Syntax { message: String, line: usize, column: usize },
    #[error(
        "not a {message}: a field, a type or an enumeration value at line {line}, column {column} is not in its schema"
    )]
    Schema { message: String, line: usize, column: usize },
    #[error("not a {message}: a field is given a second time at line {line}, column {column}")]
    Twice { message: String, line: usize, column: usize },
    #[error(transparent)]
    Strict(#[from] strict::StrictError),
}

/// Reads a message from JSON; an unknown field or enumeration value is an error.
pub fn from_slice<M: Message + Name + Default>(json: &[u8]) -> Result<M, JsonError> {
    let message = M::full_name();
    let unknown = || strict::StrictError::Malformed { message: M::full_name() };
    let descriptor = POOL.get_message_by_name(&message).ok_or_else(unknown)?;
    // The mapping itself takes the last of several values and drops the others in silence.
    if let Err(error) = serde_json::from_slice::<EachOnce>(json)
        && error.is_data()
    {
        return Err(JsonError::Twice { message, line: error.line(), column: error.column() });
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    let dynamic =
        DynamicMessage::deserialize_with_options(descriptor, &mut reader, &DeserializeOptions::new())
            .and_then(|dynamic| reader.end().map(|()| dynamic))
            .map_err(|error| {
                let (line, column) = (error.line(), error.column());
                if error.is_data() {
                    JsonError::Schema { message, line, column }
                } else {
                    JsonError::Syntax { message, line, column }
                }
            })?;
    Ok(strict::decode(&dynamic.encode_to_vec())?)
}

/// Any JSON in which no object names a field twice, be it in both of its spellings.
struct EachOnce;

impl<'de> Deserialize<'de> for EachOnce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for EachOnce {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = object.next_key::<String>()? {
            if !names.insert(name.replace('_', "").to_ascii_lowercase()) {
                return Err(de::Error::custom("a field is given a second time"));
            }
            object.next_value::<Self>()?;
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self, A::Error> {
        while array.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
}

/// Writes a message as JSON: lowerCamelCase names, and every field without presence even when it has
/// its default, so that a reader never has to guess what an absent one means; but no data category that
/// content does not hold.
pub fn to_value<M: Message + Name>(message: &M) -> Result<Value, strict::StrictError> {
    let unknown = || strict::StrictError::Malformed { message: M::full_name() };
    let descriptor = POOL.get_message_by_name(&M::full_name()).ok_or_else(unknown)?;
    let dynamic =
        DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).map_err(|_| unknown())?;
    let options = SerializeOptions::new().skip_default_fields(false);
    let mut value =
        dynamic.serialize_with_options(serde_json::value::Serializer, &options).map_err(|_| unknown())?;
    leave_out_absent(&dynamic, &mut value);
    Ok(value)
}

/// Takes out the data categories that a content message does not hold: one that is absent must never
/// read as one that is empty.
fn leave_out_absent(message: &DynamicMessage, json: &mut Value) {
    let Value::Object(json) = json else { return };
    for field in message.descriptor().fields() {
        if category::of_field(&field).is_some() && !message.has_field(&field) {
            json.remove(field.json_name());
        }
    }
    for (field, value) in message.fields() {
        let Some(json) = json.get_mut(field.json_name()) else { continue };
        match (value, json) {
            (Part::Message(part), json) => leave_out_absent(part, json),
            (Part::List(parts), Value::Array(json)) => {
                for (part, json) in parts.iter().zip(json) {
                    part.as_message().into_iter().for_each(|part| leave_out_absent(part, json));
                }
            }
            (Part::Map(parts), Value::Object(json)) => {
                for (key, part) in parts {
                    let key = key.as_str().and_then(|key| json.get_mut(key));
                    if let (Some(part), Some(json)) = (part.as_message(), key) {
                        leave_out_absent(part, json);
                    }
                }
            }
            _ => {}
        }
    }
}
