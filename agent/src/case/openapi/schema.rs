//! Messages, enumerations and fields of the contracts as JSON schemas, with what their comments say.

use std::collections::{BTreeMap, BTreeSet};

use liaison_proto::{POOL, category::format_of, message::v1::format::Code as Format};
use prost_reflect::{
    EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor, MethodDescriptor,
};
use serde_json::{Map, Value, json};

use crate::limits;

/// The schemas that the document's operations refer to, by name.
#[derive(Default)]
pub(super) struct Schemas {
    values: BTreeMap<String, Value>,
    /// Messages that a request holds: they take no property that they do not name.
    closed: BTreeSet<String>,
}

impl Schemas {
    /// A reference to the schema of a message, which is added with all that it holds.
    pub(super) fn message(&mut self, message: &MessageDescriptor) -> Value {
        let name = message.name().to_owned();
        if !self.values.contains_key(&name) {
            // Put first, so that a message that holds itself ends here.
            self.values.insert(name.clone(), Value::Null);
            let schema = self.object(message);
            self.values.insert(name.clone(), schema);
        }
        reference(&name)
    }

    /// The same for the message of a request, which is read strictly.
    pub(super) fn request(&mut self, message: &MessageDescriptor) -> Value {
        let reference = self.message(message);
        self.close(message);
        reference
    }

    /// A reference to the schema of the message of this full name.
    pub(super) fn named(&mut self, full_name: &str) -> Value {
        POOL.get_message_by_name(full_name).map_or(Value::Bool(false), |message| self.message(&message))
    }

    pub(super) fn insert(&mut self, name: &str, schema: Value) {
        self.values.insert(name.to_owned(), schema);
    }

    /// The schema of a field's value.
    pub(super) fn field(&mut self, field: &FieldDescriptor) -> Value {
        match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                let values = self.single(&entry.map_entry_value_field());
                json!({"type": "object", "additionalProperties": values})
            }
            _ if field.is_list() => json!({"type": "array", "items": self.single(field)}),
            _ => self.single(field),
        }
    }

    pub(super) fn into_values(mut self) -> Map<String, Value> {
        for name in &self.closed {
            if let Some(Value::Object(schema)) = self.values.get_mut(name) {
                schema.insert("additionalProperties".into(), false.into());
            }
        }
        self.values.into_iter().collect()
    }

    fn object(&mut self, message: &MessageDescriptor) -> Value {
        let mut properties = Map::new();
        for field in message.fields() {
            let mut schema = self.field(&field);
            if let Value::Object(schema) = &mut schema {
                describe(schema, comment_of_field(&field));
            }
            properties.insert(field.json_name().to_owned(), schema);
        }
        let mut schema = Map::from_iter([("type".to_owned(), json!("object"))]);
        describe(&mut schema, comment_of_message(message));
        schema.insert("properties".into(), properties.into());
        if message.oneofs().any(|oneof| oneof.fields().count() == message.fields().count()) {
            schema.insert("minProperties".into(), 1.into());
            schema.insert("maxProperties".into(), 1.into());
        }
        Value::Object(schema)
    }

    fn close(&mut self, message: &MessageDescriptor) {
        if message.full_name() == TIMESTAMP || !self.closed.insert(message.name().to_owned()) {
            return;
        }
        for field in message.fields() {
            if let Kind::Message(part) = field.kind() {
                self.close(&part);
            }
        }
    }

    /// The schema of a field's value, or of each of them where there are several.
    fn single(&mut self, field: &FieldDescriptor) -> Value {
        match field.kind() {
            Kind::Message(message) if message.full_name() == TIMESTAMP => {
                json!({"type": "string", "format": "date-time"})
            }
            Kind::Message(message) => self.message(&message),
            Kind::Enum(values) => self.enumeration(&values),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::String => text(format_of(field)),
            Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Kind::Uint32 | Kind::Fixed32 => json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                json!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX})
            }
            // The JSON mapping writes 64 bits as text, because many readers have only floating point.
            Kind::Uint64 | Kind::Fixed64 => json!({"type": "string", "pattern": "^[0-9]+$"}),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => json!({"type": "string", "pattern": "^-?[0-9]+$"}),
            Kind::Double | Kind::Float => json!({"type": "number"}),
        }
    }

    /// A reference to the schema of an enumeration. All are named `Code` inside the message that names
    /// them.
    fn enumeration(&mut self, values: &EnumDescriptor) -> Value {
        let holder = values.parent_message();
        let name = holder.as_ref().map_or(values.name(), |holder| holder.name()).to_owned();
        if !self.values.contains_key(&name) {
            let names: Vec<String> = values.values().map(|value| value.name().to_owned()).collect();
            let mut schema =
                Map::from_iter([("type".to_owned(), json!("string")), ("enum".to_owned(), json!(names))]);
            let mut lines: Vec<String> =
                holder.iter().map(comment_of_message).filter(|c| !c.is_empty()).collect();
            for value in values.values() {
                let comment = comment(&values.parent_file(), value.path());
                if !comment.is_empty() {
                    lines.push(format!("- `{}`: {comment}", value.name()));
                }
            }
            describe(&mut schema, lines.join("\n"));
            self.values.insert(name.clone(), Value::Object(schema));
        }
        reference(&name)
    }
}

const TIMESTAMP: &str = "google.protobuf.Timestamp";

fn text(format: Option<Format>) -> Value {
    let mut schema = match format {
        Some(Format::Uuid) => return json!({"type": "string", "format": "uuid"}),
        Some(Format::Address) => json!({
            "pattern": "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$",
            "examples": ["be/shelter-antwerp"],
        }),
        Some(Format::Country) => json!({"pattern": "^[a-z]{2}$", "examples": ["be"]}),
        Some(Format::Language) => json!({"pattern": "^[a-z]{2,3}$", "examples": ["ro"]}),
        Some(Format::Phone) => json!({"pattern": "^\\+[1-9][0-9]{6,14}$", "examples": ["+3212345678"]}),
        Some(Format::Email) => json!({"format": "email"}),
        Some(Format::Date) => {
            json!({"pattern": "^[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?$", "examples": ["1999-12"]})
        }
        Some(Format::Prose) => json!({"maxLength": limits::PROSE_CHARS}),
        Some(Format::Image | Format::Unspecified) | None => json!({}),
    };
    if let Value::Object(schema) = &mut schema {
        schema.insert("type".into(), "string".into());
    }
    schema
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn describe(schema: &mut Map<String, Value>, comment: String) {
    if !comment.is_empty() {
        schema.insert("description".into(), comment.into());
    }
}

pub(super) fn comment_of_message(message: &MessageDescriptor) -> String {
    comment(&message.parent_file(), message.path())
}

pub(super) fn comment_of_field(field: &FieldDescriptor) -> String {
    comment(&field.parent_file(), field.path())
}

pub(super) fn comment_of_method(method: &MethodDescriptor) -> String {
    comment(&method.parent_file(), method.path())
}

/// What stands above a definition, as one paragraph.
fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let location = info.and_then(|info| info.location.iter().find(|location| location.path == path));
    let text = location.and_then(|location| location.leading_comments.as_deref()).unwrap_or_default();
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
