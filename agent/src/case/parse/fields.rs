//! What single fields hold. A refusal names the field and what it must be, never what was written.

use std::{collections::BTreeSet, str::FromStr};

use liaison_proto::{
    message::v1::{Refusal, error_code::Code as ErrorCode},
    times,
};
use liaison_trust::names::AgencyAddress;
use prost_types::Timestamp;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::limits;

/// A field that has to be there.
pub(crate) fn missing(field: &str, action: &str) -> Refusal {
    Refusal::new(ErrorCode::MissingField, format!("the request has no {field}"), action)
}

/// A field that is not what it must be; `wrong` goes on after the field's name.
pub(super) fn malformed(field: &str, wrong: &str, action: &str) -> Refusal {
    Refusal::new(ErrorCode::Malformed, format!("{field} {wrong}"), action)
}

/// An enumeration value that this version does not know.
pub(super) fn unknown(field: &str, number: i32) -> Refusal {
    Refusal::new(
        ErrorCode::UnknownValue,
        format!("{field} has the enumeration value {number}, which this version does not know"),
        "use a value of this version's contracts, or upgrade the agent",
    )
}

/// An enumeration value; the one of number 0 means that none was given.
pub(super) fn code<E: TryFrom<i32> + Default + PartialEq>(
    field: &str,
    number: i32,
) -> Result<Option<E>, Refusal> {
    let value = E::try_from(number).map_err(|_| unknown(field, number))?;
    Ok(Some(value).filter(|value| *value != E::default()))
}

/// A set of enumeration values.
pub(super) fn codes<E>(field: &str, numbers: &[i32]) -> Result<BTreeSet<E>, Refusal>
where
    E: TryFrom<i32> + Default + Ord,
{
    few(field, numbers.len())?;
    let value = |(index, number): (usize, &i32)| {
        let field = format!("{field}[{index}]");
        code(&field, *number)?.ok_or_else(|| missing(&field, "name a value, or leave it out of the list"))
    };
    numbers.iter().enumerate().map(value).collect()
}

/// A list that is not too long.
pub(super) fn few(field: &str, items: usize) -> Result<(), Refusal> {
    if items <= limits::LIST_ITEMS {
        return Ok(());
    }
    let most = limits::LIST_ITEMS;
    Err(malformed(field, &format!("has more than {most} entries"), "shorten the list"))
}

/// An agency's address.
pub(super) fn address(field: &str, text: &str) -> Result<AgencyAddress, Refusal> {
    AgencyAddress::from_str(text).map_err(|_| {
        malformed(field, "is not an agency's address", "write <domain>/<name>, such as be/shelter-antwerp")
    })
}

/// A list of agencies.
pub(super) fn addresses(field: &str, texts: &[String], most: usize) -> Result<Vec<AgencyAddress>, Refusal> {
    if texts.len() > most {
        return Err(malformed(field, &format!("names more than {most} agencies"), "name fewer"));
    }
    texts.iter().enumerate().map(|(index, text)| address(&format!("{field}[{index}]"), text)).collect()
}

/// A country: ISO 3166-1 alpha-2 by its shape.
pub(super) fn country(field: &str, text: &str) -> Result<String, Refusal> {
    if is_country(text) {
        return Ok(text.to_owned());
    }
    Err(malformed(field, "is not a country's code", "write ISO 3166-1 alpha-2 in lower case, such as be"))
}

pub(super) fn is_country(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// A list of countries.
pub(super) fn countries(field: &str, texts: &[String]) -> Result<BTreeSet<String>, Refusal> {
    few(field, texts.len())?;
    texts.iter().enumerate().map(|(index, text)| country(&format!("{field}[{index}]"), text)).collect()
}

/// A moment.
pub(super) fn moment(field: &str, at: Option<&Timestamp>) -> Result<Option<OffsetDateTime>, Refusal> {
    let read = |at| {
        times::from_wire(at)
            .ok_or_else(|| malformed(field, "is not a moment in the years 1 to 9999", "write it as RFC 3339"))
    };
    at.map(read).transpose()
}

/// A text that has to be there, of at most so many characters and on one line.
pub(super) fn line(field: &str, text: &str, most: usize) -> Result<String, Refusal> {
    if text.chars().count() > most || text.chars().any(char::is_control) {
        let wrong = format!("is longer than {most} characters or has control characters");
        return Err(malformed(field, &wrong, "shorten it to one line of text"));
    }
    Ok(text.to_owned())
}

/// The id of a message.
pub(crate) fn id(field: &str, text: &str) -> Result<Uuid, Refusal> {
    if text.is_empty() {
        return Err(missing(field, "give the id that the agent answered with"));
    }
    // Hyphenated only: one id is written in one way.
    Uuid::try_parse(text).ok().filter(|id| text.len() == 36 && id.get_version_num() == 7).ok_or_else(|| {
        malformed(field, "is not the id of a message", "give the id that the agent answered with")
    })
}
