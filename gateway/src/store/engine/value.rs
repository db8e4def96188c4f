//! Values of parameters.

use bytes::Bytes;

/// A value, or none, of one of the types that columns have.
#[derive(Debug, Clone)]
pub(in crate::store) enum Value {
    Number(Option<i64>),
    Truth(Option<bool>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
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
