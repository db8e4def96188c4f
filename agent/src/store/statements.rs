//! Statements that go to SQLite's own thread together: the way there and back costs more than most of them.

use futures_util::TryStreamExt as _;
use sqlx::{
    Arguments as _, AssertSqlSafe, Either, Encode, Executor, FromRow, Sqlite, SqliteExecutor, Type,
    sqlite::{SqliteArguments, SqliteRow},
};

use crate::limits;

/// Statements, and what is bound to their parameters, in the order of both. Parameters are `?` alone: a number would
/// count from the first of all statements.
#[derive(Default)]
pub(super) struct Statements {
    sql: String,
    arguments: SqliteArguments,
    failed: Option<sqlx::Error>,
}

/// What one statement gave.
#[derive(Default)]
pub(super) struct Gave {
    rows: Vec<SqliteRow>,
    /// How many rows it wrote or deleted.
    pub(super) changed: u64,
}

impl Statements {
    /// Adds a statement behind the others.
    pub(super) fn add(&mut self, sql: &'static str) -> &mut Self {
        debug_assert!(!sql.contains("?1"), "a numbered parameter in {sql}");
        if !self.sql.is_empty() {
            self.sql.push_str(";\n");
        }
        self.sql.push_str(sql);
        self
    }

    /// What stands at the next parameter.
    pub(super) fn bind<'q>(&mut self, value: impl Encode<'q, Sqlite> + Type<Sqlite>) -> &mut Self {
        if let Err(error) = self.arguments.add(value) {
            self.failed = Some(sqlx::Error::Encode(error));
        }
        self
    }

    /// Goes on with the same statement.
    pub(super) fn then(&mut self, sql: &'static str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    /// A row of parameters in brackets for each of `items`, parted by commas.
    pub(super) fn rows<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut row: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        for (number, item) in items.into_iter().enumerate() {
            let before = self.arguments.len();
            row(self, item);
            self.sql.push_str(if number == 0 { "(" } else { ", (" });
            for place in before..self.arguments.len() {
                self.sql.push_str(if place == before { "?" } else { ", ?" });
            }
            self.sql.push(')');
        }
        self
    }

    /// Runs them one after another, up to the first that fails. Tells what each gave.
    pub(super) async fn run(self, executor: impl SqliteExecutor<'_>) -> Result<Vec<Gave>, sqlx::Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.sql.is_empty() {
            return Ok(Vec::new());
        }
        // Nothing stands in it but texts of this program. One for thousands of recipients is hardly ever met again.
        let kept = self.sql.len() <= limits::STATEMENT_BYTES;
        let query = sqlx::query_with(AssertSqlSafe(self.sql), self.arguments).persistent(kept);
        let mut answers = Executor::fetch_many(executor, query);
        let (mut all, mut rows) = (Vec::new(), Vec::new());
        while let Some(answer) = answers.try_next().await? {
            match answer {
                Either::Right(row) => rows.push(row),
                Either::Left(done) => {
                    all.push(Gave { rows: std::mem::take(&mut rows), changed: done.rows_affected() });
                }
            }
        }
        Ok(all)
    }
}

impl Gave {
    /// The rows.
    pub(super) fn all<T: for<'r> FromRow<'r, SqliteRow>>(self) -> Result<Vec<T>, sqlx::Error> {
        self.rows.iter().map(T::from_row).collect()
    }

    /// The first row.
    pub(super) fn first<T: for<'r> FromRow<'r, SqliteRow>>(self) -> Result<Option<T>, sqlx::Error> {
        self.rows.first().map(T::from_row).transpose()
    }
}
