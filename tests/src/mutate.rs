//! Encodings of protobuf messages that are almost right.

use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use prost_reflect::{Kind, MessageDescriptor};

/// Changes that are also tried in a second one of a field, beside the right one.
const REPEATED: [&str; 8] = [
    "empty",
    "longer",
    "not UTF-8",
    "the value 0",
    "the value 1",
    "the value 99",
    "ten bytes and too many bits",
    "removed",
];

/// A field as it is written.
struct Field {
    number: u32,
    wire: WireType,
    /// The varint, or the bytes behind the length.
    value: Vec<u8>,
}

impl Field {
    fn write(&self, out: &mut Vec<u8>) {
        encode_key(self.number, self.wire, out);
        if self.wire == WireType::LengthDelimited {
            encode_varint(self.value.len() as u64, out);
        }
        out.extend_from_slice(&self.value);
    }

    fn with(&self, value: Vec<u8>) -> Self {
        Self { value, ..*self }
    }
}

/// The fields of a message that is well-formed.
fn fields(mut bytes: &[u8]) -> Vec<Field> {
    let mut fields = Vec::new();
    while let Ok((number, wire)) = decode_key(&mut bytes) {
        let before = bytes;
        let Ok(varint) = decode_varint(&mut bytes) else { break };
        let value = if wire == WireType::LengthDelimited {
            let Some((value, rest)) = bytes.split_at_checked(varint as usize) else { break };
            bytes = rest;
            value.to_vec()
        } else {
            before.get(..before.len() - bytes.len()).unwrap_or_default().to_vec()
        };
        fields.push(Field { number, wire, value });
    }
    fields
}

fn encoded(fields: &[&Field]) -> Vec<u8> {
    let mut out = Vec::new();
    fields.iter().for_each(|field| field.write(&mut out));
    out
}

fn varint(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    encode_varint(value, &mut out);
    out
}

/// Other values for one field, with what was done.
fn values(kind: &Kind, field: &Field) -> Vec<(String, Vec<u8>)> {
    let value = &field.value;
    let mut others: Vec<(String, Vec<u8>)> = Vec::new();
    let mut other = |what: &str, value: Vec<u8>| others.push((what.to_owned(), value));
    match kind {
        Kind::Message(inner) => return mutations(inner, value),
        Kind::String | Kind::Bytes => {
            other("empty", Vec::new());
            other("shorter", value.get(1..).unwrap_or_default().to_vec());
            other("longer", [value.as_slice(), b"a"].concat());
            other("not UTF-8", [value.as_slice(), b"\xff"].concat());
            other("a newline", [value.as_slice(), b"\n"].concat());
            other("a hyphen", [value.as_slice(), b"-"].concat());
            other("upper case", value.to_ascii_uppercase());
            other("a surrogate", [value.as_slice(), b"\xed\xa0\x80"].concat());
        }
        _ if field.wire == WireType::LengthDelimited => {
            other("an empty list", Vec::new());
            other("an unknown value", [value.as_slice(), &varint(1000)].concat());
            other("a cut varint", [value.as_slice(), b"\x80"].concat());
            other("a value twice", [value.as_slice(), value].concat());
        }
        _ => {
            let now = decode_varint(&mut value.as_slice()).unwrap_or_default();
            for number in [0, 1, 2, 3, 4, 5, 9, 17, 18, 91, 999_999_999, 1 << 31, 1 << 32, 1 << 63, u64::MAX]
            {
                other(&format!("the value {number}"), varint(number));
            }
            for number in [253_402_300_799_i64, 253_402_300_800, -62_135_596_800, -62_135_596_801] {
                other(&format!("the value {number}"), varint(number.cast_unsigned()));
            }
            other("more bits", varint(now.wrapping_add(1 << 32)));
            let mut long = value.clone();
            long.last_mut().into_iter().for_each(|byte| *byte |= 0x80);
            other("a cut varint", long.clone());
            other("a longer varint", [long.as_slice(), &[0]].concat());
            other("ten bytes", [[0x81; 9].as_slice(), &[1]].concat());
            other("ten bytes and too many bits", [[0x81; 9].as_slice(), &[2]].concat());
            other("eleven bytes", [[0x81; 10].as_slice(), &[0]].concat());
        }
    }
    others
}

/// Encodings that are one change away from this one of a message, at every depth; each with what was changed.
pub fn mutations(message: &MessageDescriptor, bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let all = fields(bytes);
    let name = message.name();
    let whole: Vec<&Field> = all.iter().collect();
    let mut made: Vec<(String, Vec<u8>)> = Vec::new();
    let mut make = |what: String, bytes: Vec<u8>| made.push((what, bytes));
    let appended = |tail: &[u8]| [bytes, tail].concat();
    make(format!("{name}: nothing"), Vec::new());
    for (what, tail) in [
        ("an unknown varint", &b"\x98\x03\x01"[..]),
        ("unknown bytes", b"\x9a\x03\x01a"),
        ("field 0", b"\x00\x01"),
        ("a key alone", b"\x0a"),
        ("a key of eleven bytes", b"\x81\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00"),
        ("a key of 33 bits", b"\x8a\x80\x80\x80\x10\x00"),
        ("a longer key", b"\x8a\x00\x00"),
        ("a group", b"\x0b\x0c"),
        ("a wire type that is none", b"\x0f\x01"),
        ("a length beyond the end", b"\x0a\x7f"),
        ("a length of 64 bits", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
    ] {
        make(format!("{name}: {what}"), appended(tail));
    }
    // One of each other field of the schema, empty or 0.
    for field in message.fields() {
        let number = field.number();
        for (what, wire, value) in [
            ("empty", WireType::LengthDelimited, Vec::new()),
            ("with a varint", WireType::Varint, vec![1]),
            ("with 4 bytes", WireType::ThirtyTwoBit, vec![1; 4]),
            ("with 8 bytes", WireType::SixtyFourBit, vec![1; 8]),
        ] {
            let extra = Field { number, wire, value };
            make(format!("{name}.{} once more, {what}", field.name()), appended(&encoded(&[&extra])));
        }
    }
    for (place, field) in all.iter().enumerate() {
        let Some(known) = message.get_field(field.number) else { continue };
        let (before, after) =
            (whole.get(..place).unwrap_or_default(), whole.get(place + 1..).unwrap_or_default());
        let name = format!("{name}.{}", known.name());
        make(format!("{name} removed"), encoded(&[before, after].concat()));
        make(format!("{name} twice"), encoded(&[before, &[field, field], after].concat()));
        make(format!("{name} last"), encoded(&[before, after, &[field]].concat()));
        make(format!("{name} first"), encoded(&[&[field], before, after].concat()));
        for (what, value) in values(&known.kind(), field) {
            let other = field.with(value);
            make(format!("{name}: {what}"), encoded(&[before, &[&other], after].concat()));
            if !REPEATED.iter().any(|repeated| what.ends_with(repeated)) || what.matches('.').count() > 1 {
                continue;
            }
            // Of a field that is there twice the later one counts, or both are one message.
            make(format!("{name} before {what}"), encoded(&[before, &[field, &other], after].concat()));
            make(format!("{name} after {what}"), encoded(&[before, &[&other, field], after].concat()));
        }
    }
    made
}
