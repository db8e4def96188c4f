//! Rows that were read.

use sqlx::{ColumnIndex, Row as _, postgres::PgRow, sqlite::SqliteRow};

/// A row of either engine.
pub(in crate::store) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// The value of a column, by its name or its place.
    pub(in crate::store) fn get<'r, T: Column<'r>>(&'r self, column: impl Place) -> Result<T, sqlx::Error> {
        T::of(self, column)
    }
}

/// What names a column.
pub(in crate::store) trait Place: ColumnIndex<SqliteRow> + ColumnIndex<PgRow> {}

impl<P: ColumnIndex<SqliteRow> + ColumnIndex<PgRow>> Place for P {}

/// What a column holds.
pub(in crate::store) trait Column<'r>: Sized {
    fn of(row: &'r Row, column: impl Place) -> Result<Self, sqlx::Error>;
}

macro_rules! native {
    ($($type:ty),+) => {$(
        impl<'r> Column<'r> for $type {
            fn of(row: &'r Row, column: impl Place) -> Result<Self, sqlx::Error> {
                match row {
                    Row::Sqlite(row) => row.try_get(column),
                    Row::Postgres(row) => row.try_get(column),
                }
            }
        }
    )+};
}
native!(
    &'r str,
    &'r [u8],
    i64,
    bool,
    String,
    Vec<u8>,
    Option<i64>,
    Option<bool>,
    Option<String>,
    Option<Vec<u8>>
);

/// Numbers are kept in 64 bits.
macro_rules! narrower {
    ($($type:ty),+) => {$(
        impl<'r> Column<'r> for $type {
            fn of(row: &'r Row, column: impl Place) -> Result<Self, sqlx::Error> {
                i64::of(row, column)?.try_into().map_err(|error| sqlx::Error::Decode(Box::new(error)))
            }
        }

        impl<'r> Column<'r> for Option<$type> {
            fn of(row: &'r Row, column: impl Place) -> Result<Self, sqlx::Error> {
                let number = Option::<i64>::of(row, column)?;
                number.map(TryInto::try_into).transpose().map_err(|error| sqlx::Error::Decode(Box::new(error)))
            }
        }
    )+};
}
narrower!(i32, u32);

/// What a row is read as.
pub(in crate::store) trait FromRow: Sized {
    fn from_row(row: Row) -> Result<Self, sqlx::Error>;
}

impl FromRow for Row {
    fn from_row(row: Row) -> Result<Self, sqlx::Error> {
        Ok(row)
    }
}

/// Its only column.
impl<T: for<'r> Column<'r>> FromRow for T {
    fn from_row(row: Row) -> Result<Self, sqlx::Error> {
        row.get(0)
    }
}

macro_rules! tuples {
    ($($column:ident $place:tt),+) => {
        impl<$($column: for<'r> Column<'r>),+> FromRow for ($($column,)+) {
            fn from_row(row: Row) -> Result<Self, sqlx::Error> {
                Ok(($(row.get::<$column>($place)?,)+))
            }
        }
    };
}
tuples!(A 0, B 1);
tuples!(A 0, B 1, C 2);
tuples!(A 0, B 1, C 2, D 3);
tuples!(A 0, B 1, C 2, D 3, E 4);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);

/// Reads a struct from the columns of its fields' names.
macro_rules! row_of {
    ($($type:ident { $($field:ident $(as $column:literal)?),+ $(,)? })+) => {$(
        impl $crate::store::engine::FromRow for $type {
            fn from_row(row: $crate::store::engine::Row) -> Result<Self, sqlx::Error> {
                Ok(Self { $($field: row.get(row_of!(@column $field $($column)?))?),+ })
            }
        }
    )+};
    (@column $field:ident $column:literal) => { $column };
    (@column $field:ident) => { stringify!($field) };
}
pub(in crate::store) use row_of;
