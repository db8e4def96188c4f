//! What content holds, checked by its schema: lengths, lists, and the format that a field names.

use liaison_proto::{
    POOL,
    category::format_of,
    message::v1::{Refusal, format::Code as Format},
    times,
};
use liaison_trust::names::AgencyAddress;
use prost::{Message, Name};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage, Value};
use prost_types::Timestamp;
use time::{Date, Month};

use super::fields::{few, is_country, malformed, missing, unknown};
use crate::limits;

/// Checks every field of `content`, which stands in the request's field `name`.
pub(super) fn check<M: Message + Name>(name: &str, content: &M) -> Result<(), Refusal> {
    let size = content.encoded_len();
    if size > limits::CONTENT_BYTES {
        let wrong = format!("has {size} bytes, and {} are the most", limits::CONTENT_BYTES);
        return Err(malformed(name, &wrong, "leave out or shorten what is long"));
    }
    let schema = POOL.get_message_by_name(&M::full_name()).ok_or_else(Refusal::internal)?;
    let content = DynamicMessage::decode(schema, content.encode_to_vec().as_slice())
        .map_err(|_| Refusal::internal())?;
    message(name, &content)
}

fn message(path: &str, message: &DynamicMessage) -> Result<(), Refusal> {
    if message.descriptor().full_name() == Timestamp::full_name() {
        let at = message.transcode_to::<Timestamp>().map_err(|_| Refusal::internal())?;
        return match times::from_wire(&at) {
            Some(_) => Ok(()),
            None => Err(malformed(path, "is not a moment in the years 1 to 9999", "write it as RFC 3339")),
        };
    }
    if message.fields().next().is_none() && !can_say_no(message) {
        return Err(missing(path, "fill it in, or leave it out"));
    }
    message.fields().try_for_each(|(field, value)| {
        let path = format!("{path}.{}", field.name());
        match value {
            Value::List(items) => {
                few(&path, items.len())?;
                items
                    .iter()
                    .enumerate()
                    .try_for_each(|(index, item)| self::value(&format!("{path}[{index}]"), &field, item))
            }
            one => self::value(&path, &field, one),
        }
    })
}

/// Whether a message with nothing set still says something: a boolean that is false leaves no trace.
fn can_say_no(message: &DynamicMessage) -> bool {
    message.descriptor().fields().any(|field| field.kind() == Kind::Bool)
}

fn value(path: &str, field: &FieldDescriptor, value: &Value) -> Result<(), Refusal> {
    match (field.kind(), value) {
        (_, Value::Message(part)) => message(path, part),
        (Kind::Enum(values), Value::EnumNumber(number)) => match values.get_value(*number) {
            None => Err(unknown(path, *number)),
            Some(_) if *number == 0 => Err(missing(path, "name a value, or leave it out of the list")),
            Some(_) => Ok(()),
        },
        (_, Value::String(text)) => self::text(path, format_of(field), text),
        (_, Value::Bytes(bytes)) => image(path, bytes),
        _ => Ok(()),
    }
}

fn text(path: &str, format: Option<Format>, text: &str) -> Result<(), Refusal> {
    let most = if format == Some(Format::Prose) { limits::PROSE_CHARS } else { limits::TEXT_CHARS };
    if text.is_empty() {
        return Err(missing(path, "fill it in, or leave it out"));
    }
    if text.chars().count() > most {
        return Err(malformed(path, &format!("has more than {most} characters"), "shorten it"));
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(malformed(path, "has control characters", "send plain text"));
    }
    let Some((is, expected)) = format.and_then(grammar) else { return Ok(()) };
    if is(text) { Ok(()) } else { Err(malformed(path, "has another format", expected)) }
}

/// Whether a text has a format, and how to write it.
fn grammar(format: Format) -> Option<(fn(&str) -> bool, &'static str)> {
    Some(match format {
        Format::Address => (
            |text| text.parse::<AgencyAddress>().is_ok(),
            "write <domain>/<name>, such as be/shelter-antwerp",
        ),
        Format::Country => (is_country, "write ISO 3166-1 alpha-2 in lower case, such as be"),
        Format::Language => (is_language, "write ISO 639: two or three lower-case letters, such as ro"),
        Format::Phone => (is_phone, "write E.164: + and 7 to 15 digits, the first not 0"),
        Format::Email => (is_email, "write it as <name>@<host>"),
        Format::Date => (is_date, "write YYYY-MM-DD, or YYYY-MM or YYYY where the rest is not known"),
        Format::Uuid => (|text| uuid::Uuid::try_parse(text).is_ok(), "write a UUID"),
        Format::Unspecified | Format::Image | Format::Prose => return None,
    })
}

fn is_language(text: &str) -> bool {
    matches!(text.len(), 2 | 3) && text.bytes().all(|byte| byte.is_ascii_lowercase())
}

fn is_phone(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|digits| {
        (7..=15).contains(&digits.len())
            && !digits.starts_with('0')
            && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Enough to notice what is no address at all; only its host can say more (RFC 5321).
fn is_email(text: &str) -> bool {
    text.len() <= 254
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
        && text.rsplit_once('@').is_some_and(|(name, host)| {
            !name.is_empty() && !host.is_empty() && !host.starts_with('.') && !host.ends_with('.')
        })
}

fn is_date(text: &str) -> bool {
    let number = |part: &str, digits: usize| {
        (part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| part.parse::<u16>().ok())
            .flatten()
    };
    let mut parts = text.split('-');
    let year = parts.next().and_then(|part| number(part, 4));
    let mut next =
        || parts.next().map_or(Some(1), |part| number(part, 2)).and_then(|part| u8::try_from(part).ok());
    let (month, day) = (next(), next());
    let date = || {
        let month = Month::try_from(month?).ok()?;
        Date::from_calendar_date(i32::from(year?), month, day?).ok()
    };
    date().is_some() && parts.next().is_none()
}

fn image(path: &str, bytes: &[u8]) -> Result<(), Refusal> {
    let known = bytes.starts_with(b"\xff\xd8\xff") || bytes.starts_with(b"\x89PNG\r\n\x1a\n");
    if known && bytes.len() <= limits::PHOTO_BYTES {
        return Ok(());
    }
    Err(malformed(
        path,
        "is not a JPEG or PNG of 256 KiB at most",
        "send a smaller picture in one of these formats",
    ))
}

#[cfg(test)]
mod tests {
    use liaison_proto::message::v1::{
        Contact, Demographic, Health, Identity, Minor, Narrative, PersonName, ReferralContent,
        ServiceRequest, TraffickingEvent, TraffickingStatus, error_code::Code as ErrorCode,
    };

    use super::*;

    fn refused(content: ReferralContent) -> (ErrorCode, String) {
        let refusal = check("content", &content).unwrap_err();
        (refusal.code(), refusal.message)
    }

    fn contact(contact: Contact) -> ReferralContent {
        ReferralContent { contact: Some(contact), ..ReferralContent::default() }
    }

    #[test]
    fn formats() {
        let cases: [(Format, &[&str], &[&str]); 6] = [
            (Format::Country, &["be", "hu"], &["BE", "bel", "b", "b1"]),
            (Format::Language, &["ro", "rom"], &["RO", "r", "romn", "r-o"]),
            (
                Format::Phone,
                &["+3212345678", "+1234567"],
                &["012345678", "+012345678", "+32 12", "+123456", "+1234567890123456"],
            ),
            (Format::Email, &["a@b.be", "\"x@y\"@b.be"], &["a", "a@", "@b", "a b@c.be", "a@.be"]),
            (
                Format::Date,
                &["1990", "1990-02", "2000-02-29"],
                &["90", "1990-13", "1999-02-29", "1990-2", "1990-01-01-01", "1990-", "+199"],
            ),
            (Format::Address, &["be/shelter"], &["shelter", "be/", "be/Shelter"]),
        ];
        for (format, good, bad) in cases {
            for text in good {
                assert!(super::text("x", Some(format), text).is_ok(), "{format:?} {text}");
            }
            for text in bad {
                assert_eq!(
                    super::text("x", Some(format), text).unwrap_err().code(),
                    ErrorCode::Malformed,
                    "{format:?} {text}"
                );
            }
        }
    }

    #[test]
    fn a_refusal_names_the_field_and_not_what_stands_in_it() {
        let phones = vec!["+3212345678".into(), "Maria's".into()];
        let (code, message) = refused(contact(Contact { phones, ..Contact::default() }));
        assert_eq!(
            (code, message.as_str()),
            (ErrorCode::Malformed, "content.contact.phones[1] has another format")
        );
    }

    #[test]
    fn what_says_nothing_is_missing() {
        let names = Identity { names: vec![PersonName::default()], ..Identity::default() };
        let content = ReferralContent { identity: Some(names), ..ReferralContent::default() };
        assert_eq!(refused(content).0, ErrorCode::MissingField);
        assert_eq!(refused(contact(Contact::default())).0, ErrorCode::MissingField);
        let emails = vec![String::new()];
        assert_eq!(refused(contact(Contact { emails, ..Contact::default() })).0, ErrorCode::MissingField);
        let services = ServiceRequest { services: vec![0], ..ServiceRequest::default() };
        let content = ReferralContent { service_request: Some(services), ..ReferralContent::default() };
        assert_eq!(refused(content).0, ErrorCode::MissingField);

        let says_no = ReferralContent {
            minor: Some(Minor::default()),
            health: Some(Health::default()),
            ..ReferralContent::default()
        };
        assert_eq!(check("content", &says_no), Ok(()));
    }

    #[test]
    fn enumerations_times_lengths_and_lists() {
        let demographic = Demographic { gender: 99, ..Demographic::default() };
        let content = ReferralContent { demographic: Some(demographic), ..ReferralContent::default() };
        assert_eq!(refused(content).0, ErrorCode::UnknownValue);

        let at = Timestamp { seconds: i64::MAX, nanos: 0 };
        let status = TraffickingStatus { decided_at: Some(at), ..TraffickingStatus::default() };
        let content = ReferralContent { trafficking_status: Some(status), ..ReferralContent::default() };
        assert_eq!(
            refused(content).1,
            "content.trafficking_status.decided_at is not a moment in the years 1 to 9999"
        );

        let narrative = |text: String| ReferralContent {
            narrative: Some(Narrative { text }),
            ..ReferralContent::default()
        };
        assert_eq!(check("content", &narrative("é".repeat(limits::PROSE_CHARS))), Ok(()));
        assert_eq!(refused(narrative("é".repeat(limits::PROSE_CHARS + 1))).0, ErrorCode::Malformed);
        assert_eq!(refused(narrative("nul \0".into())).0, ErrorCode::Malformed);

        let address = "x".repeat(limits::TEXT_CHARS + 1);
        assert_eq!(refused(contact(Contact { address, ..Contact::default() })).0, ErrorCode::Malformed);
        let phones = vec!["+3212345678".to_owned(); limits::LIST_ITEMS + 1];
        assert_eq!(refused(contact(Contact { phones, ..Contact::default() })).0, ErrorCode::Malformed);
    }

    #[test]
    fn nested_lists_are_read() {
        let event = TraffickingEvent { country: "Belgium".into(), ..TraffickingEvent::default() };
        let exploitation =
            liaison_proto::message::v1::Exploitation { events: vec![event], ..Default::default() };
        let content = ReferralContent { exploitation: Some(exploitation), ..ReferralContent::default() };
        assert_eq!(refused(content).1, "content.exploitation.events[0].country has another format");
    }

    #[test]
    fn a_photo_is_a_small_picture() {
        let identity = |photo: Vec<u8>| ReferralContent {
            identity: Some(Identity { photo: photo.into(), ..Identity::default() }),
            ..ReferralContent::default()
        };
        assert_eq!(check("content", &identity(b"\xff\xd8\xff\xe0 and so on".to_vec())), Ok(()));
        assert_eq!(refused(identity(b"GIF89a".to_vec())).0, ErrorCode::Malformed);
        let mut large = b"\xff\xd8\xff".to_vec();
        large.resize(limits::PHOTO_BYTES + 1, 0);
        assert_eq!(refused(identity(large)).0, ErrorCode::Malformed);
    }
}
