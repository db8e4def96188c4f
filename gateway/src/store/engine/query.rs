//! Statements.

use std::{borrow::Cow, fmt::Write as _};

use sqlx::{
    AssertSqlSafe, Postgres, Sqlite, postgres::PgArguments, query::Query as Statement,
    sqlite::SqliteArguments,
};

use super::{Db, FromRow, Row, Value, postgres::answered};
use crate::store::StoreError;

/// A statement with its parameters.
pub(in crate::store) struct Query {
    parts: Vec<Part>,
}

enum Part {
    Sql(Cow<'static, str>),
    /// A parameter that its text names already.
    Bound(Value),
    Value(Value),
    /// `IN` these.
    OneOf(Vec<Value>),
    /// The rows of a table, whose columns are `column1`, `column2` and so on.
    Rows(Vec<Vec<Value>>),
}

/// A statement that begins so.
pub(in crate::store) fn query(sql: impl Into<Cow<'static, str>>) -> Query {
    Query { parts: vec![Part::Sql(sql.into())] }
}

impl Query {
    fn with(mut self, part: Part) -> Self {
        self.parts.push(part);
        self
    }

    /// The value of the next parameter that the text names.
    pub(in crate::store) fn bind(self, value: impl Into<Value>) -> Self {
        self.with(Part::Bound(value.into()))
    }

    /// Goes on with this text.
    pub(in crate::store) fn sql(self, sql: impl Into<Cow<'static, str>>) -> Self {
        self.with(Part::Sql(sql.into()))
    }

    /// Goes on with a value.
    pub(in crate::store) fn value(self, value: impl Into<Value>) -> Self {
        self.with(Part::Value(value.into()))
    }

    /// Goes on with a test whether what stands before is one of these values.
    pub(in crate::store) fn one_of<V: Into<Value>>(self, values: impl IntoIterator<Item = V>) -> Self {
        self.with(Part::OneOf(values.into_iter().map(Into::into).collect()))
    }

    /// Goes on with a `SELECT` of these rows, of each of which the first column is there.
    pub(in crate::store) fn rows<'r, T: 'r, R: Into<Vec<Value>>>(
        self,
        rows: &'r [T],
        values: impl Fn(&'r T) -> R,
    ) -> Self {
        self.with(Part::Rows(rows.iter().map(|row| values(row).into()).collect()))
    }

    /// Every row of the answer.
    pub(in crate::store) async fn fetch_all<T: FromRow>(
        self,
        db: impl Into<Db<'_>>,
    ) -> Result<Vec<T>, StoreError> {
        let rows: Vec<Row> = match db.into() {
            Db::SqlitePool(pool) => rows(self.sqlite().fetch_all(pool).await?, Row::Sqlite),
            Db::Sqlite(connection) => rows(self.sqlite().fetch_all(connection).await?, Row::Sqlite),
            Db::PostgresPool(pool) => rows(answered(self.postgres().fetch_all(pool)).await?, Row::Postgres),
            Db::Postgres(connection) => {
                rows(answered(self.postgres().fetch_all(connection)).await?, Row::Postgres)
            }
        };
        Ok(rows.into_iter().map(T::from_row).collect::<Result<_, _>>()?)
    }

    /// The first row of the answer; none where it has none.
    pub(in crate::store) async fn fetch_optional<T: FromRow>(
        self,
        db: impl Into<Db<'_>>,
    ) -> Result<Option<T>, StoreError> {
        let row = match db.into() {
            Db::SqlitePool(pool) => self.sqlite().fetch_optional(pool).await?.map(Row::Sqlite),
            Db::Sqlite(connection) => self.sqlite().fetch_optional(connection).await?.map(Row::Sqlite),
            Db::PostgresPool(pool) => {
                answered(self.postgres().fetch_optional(pool)).await?.map(Row::Postgres)
            }
            Db::Postgres(connection) => {
                answered(self.postgres().fetch_optional(connection)).await?.map(Row::Postgres)
            }
        };
        Ok(row.map(T::from_row).transpose()?)
    }

    /// The first row of an answer that always has one.
    pub(in crate::store) async fn fetch_one<T: FromRow>(
        self,
        db: impl Into<Db<'_>>,
    ) -> Result<T, StoreError> {
        Ok(self.fetch_optional(db).await?.ok_or(sqlx::Error::RowNotFound)?)
    }

    /// How many rows it changed.
    pub(in crate::store) async fn execute(self, db: impl Into<Db<'_>>) -> Result<u64, StoreError> {
        Ok(match db.into() {
            Db::SqlitePool(pool) => self.sqlite().execute(pool).await?.rows_affected(),
            Db::Sqlite(connection) => self.sqlite().execute(connection).await?.rows_affected(),
            Db::PostgresPool(pool) => answered(self.postgres().execute(pool)).await?.rows_affected(),
            Db::Postgres(connection) => answered(self.postgres().execute(connection)).await?.rows_affected(),
        })
    }

    fn sqlite(self) -> Statement<'static, Sqlite, SqliteArguments> {
        // The engine looks for the name of each parameter among those of all, unless it has none.
        let is_numbered = self.parts.iter().any(|part| matches!(part, Part::Bound(_)));
        let mut text = Text { is_numbered, ..Text::default() };
        let mut values = Vec::new();
        for part in self.parts {
            match part {
                Part::Sql(sql) => text.push(sql),
                Part::Bound(value) => {
                    text.parameters += 1;
                    values.push(value);
                }
                Part::Value(value) => {
                    text.parameter();
                    values.push(value);
                }
                Part::OneOf(all) => {
                    let last = all.last().cloned().unwrap_or(Value::Number(None));
                    let all = filled(all, last);
                    text.push("IN (".into());
                    text.list(all.len());
                    values.extend(all);
                }
                Part::Rows(rows) => {
                    let none = rows.first().map_or(1, Vec::len);
                    text.push("SELECT * FROM (VALUES ".into());
                    for (place, row) in filled(rows, vec![Value::Number(None); none]).into_iter().enumerate()
                    {
                        text.push(if place == 0 { "(" } else { ", (" }.into());
                        text.list(row.len());
                        values.extend(row);
                    }
                    text.push(") WHERE column1 IS NOT NULL".into());
                }
            }
        }
        let mut statement = match text.sql {
            Cow::Borrowed(sql) => sqlx::query(sql),
            Cow::Owned(sql) => sqlx::query(AssertSqlSafe(sql)),
        };
        for value in values {
            statement = match value {
                Value::Number(number) => statement.bind(number),
                Value::Truth(truth) => statement.bind(truth),
                Value::Text(text) => statement.bind(text),
                Value::Bytes(bytes) => statement.bind(bytes),
            };
        }
        statement
    }

    fn postgres(self) -> Statement<'static, Postgres, PgArguments> {
        let mut text = Text { is_numbered: true, ..Text::default() };
        let mut values: Vec<Argument> = Vec::new();
        for part in self.parts {
            match part {
                Part::Sql(sql) => text.push(sql),
                Part::Bound(value) => {
                    text.parameters += 1;
                    values.push(Argument::One(value));
                }
                Part::Value(value) => {
                    text.parameter();
                    values.push(Argument::One(value));
                }
                Part::OneOf(all) => {
                    text.push("= ANY (".into());
                    text.list(1);
                    values.push(Argument::Many(all));
                }
                Part::Rows(rows) => {
                    let columns = columns(rows);
                    text.push("SELECT * FROM UNNEST (".into());
                    text.list(columns.len());
                    text.push(" AS rows (".into());
                    for place in 1..=columns.len() {
                        let comma = if place == 1 { "" } else { ", " };
                        text.push(format!("{comma}column{place}").into());
                    }
                    text.push(")".into());
                    values.extend(columns.into_iter().map(Argument::Many));
                }
            }
        }
        let mut statement = match text.sql {
            Cow::Borrowed(sql) => sqlx::query(sql),
            Cow::Owned(sql) => sqlx::query(AssertSqlSafe(sql)),
        };
        for value in values {
            statement = match value {
                Argument::One(Value::Number(number)) => statement.bind(number),
                Argument::One(Value::Truth(truth)) => statement.bind(truth),
                Argument::One(Value::Text(text)) => statement.bind(text),
                Argument::One(Value::Bytes(bytes)) => statement.bind(bytes),
                Argument::Many(values) => many(statement, values),
            };
        }
        statement
    }
}

/// A parameter of PostgreSQL's.
enum Argument {
    One(Value),
    /// An array, of the type of its first value.
    Many(Vec<Value>),
}

fn many(
    statement: Statement<'static, Postgres, PgArguments>,
    values: Vec<Value>,
) -> Statement<'static, Postgres, PgArguments> {
    macro_rules! array {
        ($variant:ident, $type:ty) => {{
            let of = |value| if let Value::$variant(value) = value { value } else { None };
            statement.bind(values.into_iter().map(of).collect::<Vec<Option<$type>>>())
        }};
    }
    match values.first() {
        None | Some(Value::Number(_)) => array!(Number, i64),
        Some(Value::Truth(_)) => array!(Truth, bool),
        Some(Value::Text(_)) => array!(Text, String),
        Some(Value::Bytes(_)) => array!(Bytes, Vec<u8>),
    }
}

/// Values filled up with one that says nothing new, for statements of few different lengths.
fn filled<T: Clone>(mut values: Vec<T>, with: T) -> Vec<T> {
    values.resize(values.len().next_power_of_two(), with);
    values
}

/// The columns of rows.
fn columns(rows: Vec<Vec<Value>>) -> Vec<Vec<Value>> {
    let mut columns: Vec<Vec<Value>> = Vec::new();
    for row in rows {
        columns.resize_with(row.len(), Vec::new);
        for (column, value) in columns.iter_mut().zip(row) {
            column.push(value);
        }
    }
    columns
}

fn rows<R>(rows: Vec<R>, row: impl Fn(R) -> Row) -> Vec<Row> {
    rows.into_iter().map(row).collect()
}

/// The text of a statement, and how many parameters it has so far.
#[derive(Default)]
struct Text {
    sql: Cow<'static, str>,
    parameters: usize,
    /// Whether they are named by their numbers.
    is_numbered: bool,
}

impl Text {
    fn push(&mut self, more: Cow<'static, str>) {
        if self.sql.is_empty() {
            self.sql = more;
        } else {
            self.sql.to_mut().push_str(&more);
        }
    }

    fn parameter(&mut self) {
        self.parameters += 1;
        if self.is_numbered {
            // A String takes what is written into it.
            let _ = write!(self.sql.to_mut(), "${}", self.parameters);
        } else {
            self.sql.to_mut().push('?');
        }
    }

    /// So many parameters, and a parenthesis.
    fn list(&mut self, parameters: usize) {
        for place in 0..parameters {
            if place > 0 {
                self.push(", ".into());
            }
            self.parameter();
        }
        self.push(")".into());
    }
}
