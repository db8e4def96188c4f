//! What the schema says of data categories: which field is which, which group has which, and the
//! split of content into one part a category. Nothing here names a field by hand.

use std::collections::BTreeMap;

use prost::{Message, Name};
use prost_reflect::{DynamicMessage, FieldDescriptor, Value};

use crate::{
    POOL,
    message::v1::{alert_kind, category_group, data_category::Code as Category, format::Code as Format},
    strict::StrictError,
};

/// Every data category, in the order of their numbers.
pub fn all() -> impl Iterator<Item = Category> {
    (1..).map_while(|number| Category::try_from(number).ok())
}

/// The groups that a category belongs to.
pub fn groups(category: Category) -> Vec<category_group::Code> {
    value_option("liaison.message.v1.DataCategory.Code", category.into(), "liaison.message.v1.groups")
        .iter()
        .filter_map(|number| category_group::Code::try_from(*number).ok())
        .collect()
}

/// The categories that an alert of this kind may hold.
pub fn of_alert(kind: alert_kind::Code) -> Vec<Category> {
    value_option("liaison.message.v1.AlertKind.Code", kind.into(), "liaison.message.v1.categories")
        .iter()
        .filter_map(|number| Category::try_from(*number).ok())
        .collect()
}

/// Whether an alert of this kind is about a person.
pub fn is_personal(kind: alert_kind::Code) -> bool {
    let Some(values) = POOL.get_enum_by_name("liaison.message.v1.AlertKind.Code") else { return true };
    let Some(extension) = POOL.get_extension_by_name("liaison.message.v1.personal") else { return true };
    values
        .get_value(kind.into())
        .and_then(|value| value.options().get_extension(&extension).as_bool())
        .unwrap_or(true)
}

/// The category of a content field; none where the schema names none.
pub fn of_field(field: &FieldDescriptor) -> Option<Category> {
    let number = field_option(field, "liaison.message.v1.category")?;
    Category::try_from(number).ok().filter(|category| *category != Category::Unspecified)
}

/// What a text or a byte field holds; none where it is free text.
pub fn format_of(field: &FieldDescriptor) -> Option<Format> {
    let number = field_option(field, "liaison.message.v1.format")?;
    Format::try_from(number).ok().filter(|format| *format != Format::Unspecified)
}

/// Splits content into its parts, one a category that is present: each is the encoded content with
/// the fields of that category alone.
pub fn split<M: Message + Name>(content: &M) -> Result<BTreeMap<Category, Vec<u8>>, StrictError> {
    let malformed = || StrictError::Malformed { message: M::full_name() };
    let descriptor = POOL.get_message_by_name(&M::full_name()).ok_or_else(malformed)?;
    let whole = DynamicMessage::decode(descriptor.clone(), content.encode_to_vec().as_slice())
        .map_err(|_| malformed())?;
    let mut parts: BTreeMap<Category, DynamicMessage> = BTreeMap::new();
    for (field, value) in whole.fields() {
        let category = of_field(&field).ok_or_else(malformed)?;
        parts
            .entry(category)
            .or_insert_with(|| DynamicMessage::new(descriptor.clone()))
            .set_field(&field, value.clone());
    }
    Ok(parts.into_iter().map(|(category, part)| (category, part.encode_to_vec())).collect())
}

/// The number of an enumeration option of a field.
fn field_option(field: &FieldDescriptor, option: &str) -> Option<i32> {
    let extension = POOL.get_extension_by_name(option)?;
    field.options().get_extension(&extension).as_enum_number()
}

/// The numbers that a repeated enumeration option of an enumeration value lists.
fn value_option(values: &str, number: i32, option: &str) -> Vec<i32> {
    let (Some(values), Some(extension)) = (POOL.get_enum_by_name(values), POOL.get_extension_by_name(option))
    else {
        return Vec::new();
    };
    let Some(value) = values.get_value(number) else { return Vec::new() };
    match value.options().get_extension(&extension).as_ref() {
        Value::List(list) => list.iter().filter_map(Value::as_enum_number).collect(),
        _ => Vec::new(),
    }
}
