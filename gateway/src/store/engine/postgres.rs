//! PostgreSQL: a database of a server, in which a gateway is the only writer by a lock that the server holds for it.

use std::time::Instant;

use sqlx::{
    ConnectOptions, Connection, Executor, PgConnection,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio_util::sync::CancellationToken;

use super::{Pool, Soundness, Transaction};
use crate::{limits, store::StoreError};

/// What the server calls its connections.
const APPLICATION: &str = "liaison-gateway";

/// Rows go as arrays, so a run may have any length.
pub(super) const RUNS: &[usize] = &[1_024];

/// The advisory lock of the gateway that writes: the letters `liaison`.
const WRITER: i64 = 0x006c_6961_6973_6f6e;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

pub(super) async fn open(options: &PgConnectOptions) -> Result<(Pool, Pool), StoreError> {
    let options = watched(options);
    let turn = take_turn(&options).await?;
    let lost = CancellationToken::new();
    let token = lost.clone();
    let writer = PgPoolOptions::new()
        .max_connections(1)
        // It has the lock, and is not given up for being idle or old.
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .acquire_timeout(limits::DATABASE_BUSY)
        .after_connect(move |connection, _| {
            let lost = token.clone();
            Box::pin(async move {
                // What is committed is on the server's disk, whatever its default is.
                connection.execute("SET synchronous_commit = on").await?;
                if self::turn(connection).await? != turn {
                    lost.cancel();
                    return Err(sqlx::Error::PoolClosed);
                }
                // The server may not have noticed yet that the connection before is gone.
                lock(connection).await?.then_some(()).ok_or(sqlx::Error::PoolTimedOut)
            })
        })
        .connect_with(options.clone())
        .await?;
    let readers = PgPoolOptions::new()
        .max_connections(limits::READERS)
        .test_before_acquire(false)
        .acquire_timeout(limits::DATABASE_BUSY)
        .connect_with(options.options([("default_transaction_read_only", "on")]))
        .await?;
    Ok((Pool::Postgres(writer, lost.clone()), Pool::Postgres(readers, lost)))
}

/// Connections of which the server sees soon that their gateway is gone, with its machine or the line to it.
fn watched(options: &PgConnectOptions) -> PgConnectOptions {
    let alive = [
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
        ("tcp_user_timeout", "25000"),
    ];
    options.clone().application_name(APPLICATION).disable_statement_logging().options(alive)
}

/// Waits until no other gateway writes the database, brings it to this version, and tells its turn.
async fn take_turn(options: &PgConnectOptions) -> Result<i64, StoreError> {
    let until = Instant::now() + limits::DATABASE_BUSY;
    let mut connection = options.connect().await?;
    // One that has just ended, the server may not have noticed yet.
    while !lock(&mut connection).await? {
        if Instant::now() >= until {
            return Err(StoreError::OtherGateway);
        }
        tokio::time::sleep(limits::DATABASE_LOCK_TURN).await;
    }
    MIGRATIONS.run(&mut connection).await?;
    sqlx::query("UPDATE writer SET turn = turn + 1").execute(&mut connection).await?;
    let turn = turn(&mut connection).await?;
    // The lock ends with its connection.
    connection.close().await?;
    Ok(turn)
}

async fn turn(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT turn FROM writer").fetch_one(connection).await
}

/// Makes a connection the writer's, unless another is.
async fn lock(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(WRITER).fetch_one(connection).await
}

pub(super) async fn look(options: &PgConnectOptions) -> Result<Transaction, StoreError> {
    let pool = one(options).await?;
    let moment = pool.begin_with("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    Ok(Transaction::Postgres(moment, CancellationToken::new()))
}

pub(super) async fn connect(options: &PgConnectOptions) -> Result<Pool, StoreError> {
    Ok(Pool::Postgres(one(options).await?, CancellationToken::new()))
}

pub(super) async fn exists(options: &PgConnectOptions) -> Result<bool, StoreError> {
    let mut connection = watched(options).connect().await?;
    let exists = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    Ok(exists)
}

async fn one(options: &PgConnectOptions) -> Result<sqlx::PgPool, StoreError> {
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(limits::DATABASE_BUSY);
    Ok(pool.connect_with(watched(options)).await?)
}

/// What is wrong with how the server keeps the database, and what an administrator should know of it.
pub(super) async fn faults(options: &PgConnectOptions) -> Result<Soundness, StoreError> {
    let mut connection = watched(options).connect().await?;
    let (fsync, pages, synchronous, standbys): (String, String, String, i64) = sqlx::query_as(
        "SELECT current_setting('fsync'), current_setting('full_page_writes'), \
         current_setting('synchronous_standby_names'), (SELECT COUNT(*) FROM pg_stat_replication)",
    )
    .fetch_one(&mut connection)
    .await?;
    connection.close().await?;
    let off = [("fsync", fsync), ("full_page_writes", pages)].into_iter().filter(|(_, is)| is == "off");
    let faults = off.map(|(setting, _)| format!("the server runs with {setting} = off")).collect();
    Ok(Soundness { faults, asynchronous: synchronous.is_empty() && standbys > 0 })
}
