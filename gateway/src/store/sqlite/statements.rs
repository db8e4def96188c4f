//! Many rows in few statements.

use sqlx::{QueryBuilder, Sqlite, SqliteConnection, query_builder::Separated};

use crate::store::StoreError;

/// Inserts rows with as few statements as their number allows.
pub(super) async fn insert<T>(
    db: &mut SqliteConnection,
    into: &'static str,
    rows: &[T],
    bind: impl Fn(&mut Separated<'_, Sqlite, &'static str>, &T),
) -> Result<(), StoreError> {
    for run in runs(rows) {
        let mut insert = QueryBuilder::new(into);
        insert.push_values(run, |mut row, item| bind(&mut row, item));
        insert.build().execute(&mut *db).await?;
    }
    Ok(())
}

/// Rows of one statement.
const ROWS: usize = 64;

/// Splits rows for statements that may name one row twice: see [`list`].
pub(super) fn lists<T>(rows: &[T]) -> impl Iterator<Item = &[T]> {
    rows.chunks(ROWS)
}

/// Rows with the last of them repeated, for statements of few different lengths.
pub(super) fn padded<T>(rows: &[T]) -> impl Iterator<Item = &T> {
    let length = [1, 4, 16].into_iter().find(|length| rows.len() <= *length).unwrap_or(ROWS);
    rows.iter().chain(rows.last().into_iter().cycle()).take(length.max(rows.len()))
}

/// Ends `... IN (` with the values of these rows.
pub(super) fn list<'a, T, V>(query: &mut QueryBuilder<Sqlite>, rows: &'a [T], value: impl Fn(&'a T) -> V)
where
    V: for<'q> sqlx::Encode<'q, Sqlite> + sqlx::Type<Sqlite> + Send,
{
    let mut values = query.separated(", ");
    for row in padded(rows) {
        values.push_bind(value(row));
    }
    query.push(")");
}

/// Splits rows into runs of few different lengths: the statement for each length is prepared once and
/// stays so, and stays within the engine's bound on parameters.
pub(super) fn runs<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let length = [ROWS, 32, 16, 8, 4, 2, 1].into_iter().find(|length| *length <= rows.len())?;
        let (run, rest) = rows.split_at(length);
        rows = rest;
        Some(run)
    })
}
