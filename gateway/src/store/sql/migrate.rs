//! Moving everything from one engine to the other.

use std::collections::BTreeMap;

use liaison_trust::digest::{Digest, sha256};

use super::super::engine::{Company, Database, Db, Pool, Row, Transaction, Value, query};
use crate::{
    limits,
    store::{LogKind, StoreError},
};

/// The tables, each behind those that it refers to, with the columns by which its rows are told apart.
const TABLES: [(&str, &[&str]); 21] = [
    ("message", &["seq"]),
    ("content", &["message"]),
    ("delivery", &["seq"]),
    ("thread", &["thread"]),
    ("key_record", &["agency", "sequence"]),
    ("agency", &["address"]),
    ("token", &["digest"]),
    ("certificate", &["serial"]),
    ("revocation", &["serial"]),
    ("revoked_agency", &["agency"]),
    ("policy_set", &["hash"]),
    ("audit", &["seq"]),
    ("peer", &["domain"]),
    ("peer_agency", &["address"]),
    ("log", &["id"]),
    ("leaf", &["log", "idx"]),
    ("tile", &["log", "level", "idx"]),
    ("witnessed", &["origin"]),
    ("watched", &["origin"]),
    ("foreign_key", &["seq"]),
    ("conflict", &["seq"]),
];

/// The tables whose rows the server numbers.
const NUMBERED: [(&str, &str); 4] =
    [("audit", "seq"), ("log", "id"), ("foreign_key", "seq"), ("conflict", "seq")];

/// What holds nothing that is to be kept: what was done to the database, and what readiness writes.
const LEFT: [&str; 2] = ["_sqlx_migrations", "probe"];

/// What was moved.
#[derive(Debug)]
pub struct Moved {
    /// Each table with its rows.
    pub tables: Vec<(&'static str, Contents)>,
    /// The newest log of each kind that both have: its number, its leaves under the newest head, and that head.
    pub heads: Vec<(LogKind, u32, u64, Option<Vec<u8>>)>,
}

/// The rows of a table: how many, and a digest of all of them in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    pub rows: u64,
    pub digest: Digest,
}

/// Why nothing was moved.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("the other database is a gateway's already, or was to become one")]
    NotEmpty,
    #[error("this version does not move the table {0}")]
    UnknownTable(String),
    #[error("the rows of {0} that were read again are not those that were written")]
    Differs(&'static str),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Copies everything from a file to a server's empty database, and reads it again there, in one transaction; nothing is
/// there if it fails. The file stays as it is.
///
/// # Errors
/// See [`MigrateError`].
pub async fn migrate(from: &Database, to: &Database) -> Result<Moved, MigrateError> {
    // Before anything is done to it: a gateway may run on it.
    if to.exists().await? {
        return Err(MigrateError::NotEmpty);
    }
    let mut source = super::Snapshot::of(from).await?.transaction;
    let (writer, readers) = to.open(Company::None).await?;
    readers.close().await;
    let moved = copy(&mut source, &writer).await;
    writer.close().await;
    source.commit().await?;
    moved
}

async fn copy(source: &mut Transaction, writer: &Pool) -> Result<Moved, MigrateError> {
    let names: Vec<String> =
        query("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
            .fetch_all(&mut *source)
            .await?;
    let is_known =
        |name: &String| LEFT.contains(&name.as_str()) || TABLES.iter().any(|(table, _)| table == name);
    if let Some(unknown) = names.into_iter().find(|name| !is_known(name)) {
        return Err(MigrateError::UnknownTable(unknown));
    }
    let mut change = writer.begin().await?;
    // Those that every new database begins with.
    query("DELETE FROM log").execute(&mut change).await?;
    let mut tables = Vec::with_capacity(TABLES.len());
    for (name, key) in TABLES {
        let table = Table { name, key, columns: columns(&mut change, name).await? };
        let mut written = Contents::NONE;
        let mut last = None;
        while let Some(page) = table.page(&mut *source, last.take()).await? {
            written.add(&page);
            let into = format!("INSERT INTO {name} ({}) ", table.names());
            for run in change.runs(&page) {
                query(into.clone()).rows(run, Clone::clone).execute(&mut change).await?;
            }
            last = page.into_iter().next_back();
        }
        let mut read = Contents::NONE;
        while let Some(page) = table.page(&mut change, last.take()).await? {
            read.add(&page);
            last = page.into_iter().next_back();
        }
        if read != written {
            return Err(MigrateError::Differs(name));
        }
        tables.push((name, read));
    }
    for (table, column) in NUMBERED {
        let next = format!(
            "SELECT setval(pg_get_serial_sequence('{table}', '{column}'), \
             (SELECT COALESCE(MAX({column}), 0) + 1 FROM {table}), FALSE)"
        );
        query(next).fetch_one::<i64>(&mut change).await?;
    }
    let (before, heads) = (heads(&mut *source).await?, heads(&mut change).await?);
    if before != heads {
        return Err(MigrateError::Differs("log"));
    }
    change.commit().await?;
    Ok(Moved { tables, heads })
}

async fn heads(db: &mut Transaction) -> Result<Vec<(LogKind, u32, u64, Option<Vec<u8>>)>, StoreError> {
    let mut heads = Vec::new();
    for kind in LogKind::ALL {
        let head: (u32, i64, Option<Vec<u8>>) =
            query("SELECT number, size, checkpoint FROM log WHERE kind = $1 ORDER BY number DESC LIMIT 1")
                .bind(kind.name())
                .fetch_one(&mut *db)
                .await?;
        heads.push((kind, head.0, head.1.unsigned_abs(), head.2));
    }
    Ok(heads)
}

/// The columns of a table with their types, as the server names them.
async fn columns(db: &mut Transaction, table: &str) -> Result<Vec<(String, String)>, StoreError> {
    query(
        "SELECT CAST(column_name AS TEXT), CAST(data_type AS TEXT) FROM information_schema.columns \
         WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position",
    )
    .bind(table)
    .fetch_all(db)
    .await
}

struct Table {
    name: &'static str,
    key: &'static [&'static str],
    columns: Vec<(String, String)>,
}

impl Table {
    fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The rows behind one in the order of the key, a page of them; none where there are no more.
    async fn page(
        &self,
        db: impl Into<Db<'_>>,
        after: Option<Vec<Value>>,
    ) -> Result<Option<Vec<Vec<Value>>>, StoreError> {
        let key = self.key.join(", ");
        let mut page = query(format!("SELECT {} FROM {} ", self.names(), self.name));
        if let Some(row) = after {
            let values: BTreeMap<&str, Value> =
                self.columns.iter().map(|(name, _)| name.as_str()).zip(row).collect();
            page = page.sql(format!("WHERE ({key}) > ("));
            for (place, column) in self.key.iter().enumerate() {
                page = page.sql(if place == 0 { "" } else { ", " });
                page = page.value(values.get(column).cloned().ok_or(StoreError::Corrupt("key of a table"))?);
            }
            page = page.sql(") ");
        }
        let page = page.sql(format!("ORDER BY {key} LIMIT ")).value(limits::MOVED_ROWS);
        let rows: Vec<Row> = page.fetch_all(db).await?;
        let rows = rows.iter().map(|row| self.values(row)).collect::<Result<Vec<_>, _>>()?;
        Ok((!rows.is_empty()).then_some(rows))
    }

    fn values(&self, row: &Row) -> Result<Vec<Value>, StoreError> {
        let value = |(place, (_, kind)): (usize, &(String, String))| {
            Ok(match kind.as_str() {
                "bigint" => Value::Number(row.get(place)?),
                "boolean" => Value::Truth(row.get(place)?),
                "text" => Value::Text(row.get(place)?),
                "bytea" => Value::Bytes(row.get(place)?),
                _ => return Err(StoreError::Corrupt("column of another type")),
            })
        };
        self.columns.iter().enumerate().map(value).collect()
    }
}

impl Contents {
    const NONE: Self = Self { rows: 0, digest: Digest([0; 32]) };

    fn add(&mut self, rows: &[Vec<Value>]) {
        for row in rows {
            self.rows += 1;
            let mut bytes = Vec::new();
            for value in row {
                value.write(&mut bytes);
            }
            for (all, one) in self.digest.0.iter_mut().zip(sha256(&bytes).0) {
                *all ^= one;
            }
        }
    }
}
