//! Values of parameters.

use std::borrow::Cow;

use bytes::Bytes;

/// A value, or none, of one of the types that columns have.
#[derive(Debug, Clone)]
pub(in crate::store) enum Value {
    Number(Option<i64>),
    Truth(Option<bool>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

impl Value {
    /// Writes what it is, so that no two values are written alike.
    pub(in crate::store) fn write(&self, to: &mut Vec<u8>) {
        let bytes: Option<Cow<'_, [u8]>> = match self {
            Self::Number(number) => number.map(|number| number.to_be_bytes().to_vec().into()),
            Self::Truth(truth) => truth.map(|truth| vec![u8::from(truth)].into()),
            Self::Text(text) => text.as_deref().map(|text| text.as_bytes().into()),
            Self::Bytes(bytes) => bytes.as_deref().map(Into::into),
        };
        let length = bytes.as_ref().map_or(u64::MAX, |bytes| bytes.len() as u64);
        to.extend_from_slice(&length.to_be_bytes());
        to.extend_from_slice(bytes.as_deref().unwrap_or_default());
    }
}

macro_rules! values {
    ($($variant:ident: $($of:ty),+);+ $(;)?) => {$($(
        impl From<$of> for Value {
            fn from(value: $of) -> Self {
                Self::$variant(Some(value.into()))
            }
        }

        impl From<Option<$of>> for Value {
            fn from(value: Option<$of>) -> Self {
                Self::$variant(value.map(Into::into))
            }
        }
    )+)+};
}

values! {
    Number: i64, i32, u32, u8;
    Truth: bool;
    Text: &str, &String, String;
    Bytes: &[u8], Vec<u8>, Bytes;
}

impl From<&Vec<u8>> for Value {
    fn from(value: &Vec<u8>) -> Self {
        value.as_slice().into()
    }
}

/// The values of a row, in the order of its columns.
macro_rules! row {
    ($($value:expr),+ $(,)?) => { [$($crate::store::engine::Value::from($value)),+] };
}
pub(in crate::store) use row;
