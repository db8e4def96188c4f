//! The database of a test: a file in its folder, or, where `LIAISON_POSTGRES` is the URL of a database of a PostgreSQL
//! server, one there of its own, which stays with the server.

#![allow(dead_code, reason = "each program of tests uses some of it")]

use std::path::Path;

use liaison_gateway::store::Database;
use liaison_trust::digest::sha256;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqliteConnection, postgres::PgConnectOptions,
};

/// The database of a folder; made where it is a server's and not there.
pub(crate) async fn database(folder: &Path) -> Database {
    let Ok(url) = std::env::var("LIAISON_POSTGRES") else { return folder.join("liaison.db").into() };
    let options: PgConnectOptions = url.parse().unwrap();
    let digest = sha256(folder.as_os_str().as_encoded_bytes()).to_string();
    let name = format!("test_{}", digest.get(..16).unwrap());
    let mut connection = options.connect().await.unwrap();
    let is_there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)")
        .bind(&name)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    if !is_there {
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::query(create).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    Database::Postgres(Box::new(options.database(&name)))
}

/// Changes a database as somebody would who has its file, or is its server's administrator; how many rows. Bytes are
/// written as SQLite has them, `x'00'`.
pub(crate) async fn by_hand(database: &Database, change: &str) -> u64 {
    let change = match database {
        Database::Sqlite(_) => change.to_owned(),
        Database::Postgres(_) => change.replace("x'", r"BYTEA '\x"),
    };
    let change = AssertSqlSafe(change);
    match database {
        Database::Sqlite(file) => {
            let mut connection =
                SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
            let changed = sqlx::query(change).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
            changed.rows_affected()
        }
        Database::Postgres(options) => {
            let mut connection: PgConnection = options.connect().await.unwrap();
            let changed = sqlx::query(change).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
            changed.rows_affected()
        }
    }
}

/// What the engine does once the process that used the database is gone.
pub(crate) async fn abandoned(database: &Database) {
    if let Database::Postgres(options) = database {
        let mut connection = options.connect().await.unwrap();
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        sqlx::query(end).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

/// How many rows of a table hold these bytes in a column.
pub(crate) async fn rows_with(database: &Database, (table, column): (&str, &str), bytes: &[u8]) -> u64 {
    let bytes = hex::encode(bytes);
    let holds = match database {
        Database::Sqlite(_) => format!("INSTR({column}, x'{bytes}') > 0"),
        Database::Postgres(_) => format!("POSITION(x'{bytes}' IN {column}) > 0"),
    };
    by_hand(database, &format!("UPDATE {table} SET {column} = {column} WHERE {holds}")).await
}

/// Somebody else who is changing a database, until this is dropped.
pub(crate) enum Busy {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// Keeps everybody else from writing the log.
pub(crate) async fn busy(database: &Database) -> Busy {
    match database {
        Database::Sqlite(file) => {
            let mut other = SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
            sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
            Busy::Sqlite(other)
        }
        Database::Postgres(options) => {
            let mut other = options.connect().await.unwrap();
            sqlx::query("BEGIN").execute(&mut other).await.unwrap();
            sqlx::query("LOCK TABLE leaf, probe IN EXCLUSIVE MODE").execute(&mut other).await.unwrap();
            Busy::Postgres(other)
        }
    }
}

impl Busy {
    /// Lets the others write.
    pub(crate) async fn end(self) {
        match self {
            Self::Sqlite(connection) => connection.close().await.unwrap(),
            Self::Postgres(connection) => connection.close().await.unwrap(),
        }
    }
}
