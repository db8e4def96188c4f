//! PostgreSQL: a database of a server, which any number of gateways of one domain use at once, or one command alone.

use std::{io, sync::Arc, time::Instant};

use sqlx::{
    ConnectOptions, Connection, Executor, PgConnection,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgDatabaseError, PgPoolOptions, PgSeverity},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Company, Pool, Soundness, Transaction};
use crate::{limits, store::StoreError};

/// What the server calls its connections.
const APPLICATION: &str = "liaison-gateway";

/// Rows in one statement, as arrays.
pub(super) const ROWS: usize = 1_024;

/// The advisory lock that every gateway on the database shares, or that one program has alone: the letters `liaison`.
pub(super) const GATEWAYS: i64 = 0x006c_6961_6973_6f6e;

/// Whoever holds this row is the only one who changes anything.
const TURN: &str = "SELECT turn FROM shared FOR UPDATE";

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// One of the gateways on a database.
pub(in crate::store) struct Member {
    /// What its connections are made with.
    pub(super) options: PgConnectOptions,
    /// What the others know it by.
    pub(super) name: String,
    /// Cancelled once it can't go on with the database.
    pub(super) lost: CancellationToken,
}

/// What a server answers, unless it stays silent: its machine, or the line to it, may be gone.
pub(super) async fn answered<T>(
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(limits::STATEMENT, answer)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not answer").into()))
}

/// Whether the server said that it did not make a change; of a connection that it ends, that is not known.
pub(super) fn is_refused(fault: &sqlx::Error) -> bool {
    let told = fault.as_database_error().and_then(|fault| fault.try_downcast_ref::<PgDatabaseError>());
    told.is_some_and(|told| told.severity() == PgSeverity::Error)
}

pub(super) async fn open(options: &PgConnectOptions, company: Company) -> Result<(Pool, Pool), StoreError> {
    let member = Arc::new(Member {
        options: watched(options),
        name: format!("{:016x}", rand::random::<u64>()),
        lost: CancellationToken::new(),
    });
    let (entry, turn) = enter(&member.options, company).await?;
    if company == Company::None {
        // The lock ends with its connection, and the writer takes it next.
        entry.close().await?;
        return Ok((writer(&member, company, turn).await?, readers(&member).await?));
    }
    let writer = writer(&member, company, turn).await?;
    entry.close().await?;
    Ok((writer, readers(&member).await?))
}

/// The one connection that writes. It has the lock, and is not given up for being idle or old.
async fn writer(member: &Arc<Member>, company: Company, turn: Turn) -> Result<Pool, StoreError> {
    let lost = member.lost.clone();
    let frozen = format!("SET idle_in_transaction_session_timeout = {}", limits::CHANGE_FROZEN.as_millis());
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .acquire_timeout(limits::DATABASE_BUSY)
        .after_connect(move |connection, _| {
            let (lost, frozen) = (lost.clone(), frozen.clone());
            Box::pin(async move {
                // What is committed is on the server's disk, whatever its default is.
                connection.execute("SET synchronous_commit = on").await?;
                // A gateway that is frozen within a change keeps no other waiting.
                connection.execute(sqlx::AssertSqlSafe(frozen)).await?;
                // The server may not have noticed yet that the connection before is gone.
                lock(connection, company).await?.then_some(()).ok_or(sqlx::Error::PoolTimedOut)?;
                if self::turn(connection).await? != turn {
                    lost.cancel();
                    return Err(sqlx::Error::PoolClosed);
                }
                Ok(())
            })
        })
        .connect_with(member.options.clone())
        .await?;
    Ok(Pool::Postgres(pool, Arc::clone(member)))
}

async fn readers(member: &Arc<Member>) -> Result<Pool, StoreError> {
    let pool = PgPoolOptions::new()
        .max_connections(limits::READERS)
        .test_before_acquire(false)
        .acquire_timeout(limits::DATABASE_BUSY)
        .connect_with(member.options.clone().options([("default_transaction_read_only", "on")]))
        .await?;
    Ok(Pool::Postgres(pool, Arc::clone(member)))
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

/// Waits until there is room beside those who use the database, and tells its turn. Whoever is alone there brings it to
/// this version and makes the account of the queues anew.
async fn enter(options: &PgConnectOptions, company: Company) -> Result<(PgConnection, Turn), StoreError> {
    let until = Instant::now() + limits::DATABASE_BUSY;
    let mut connection = answered(options.connect()).await?;
    loop {
        if answered(lock(&mut connection, Company::None)).await? {
            MIGRATIONS.run(&mut connection).await?;
            begin_turn(&mut connection, company).await?;
            if company == Company::Gateways {
                lock(&mut connection, company).await?;
                sqlx::query("SELECT pg_advisory_unlock($1)").bind(GATEWAYS).execute(&mut connection).await?;
            }
            break;
        }
        if company == Company::Gateways && answered(lock(&mut connection, company)).await? {
            let newest = MIGRATIONS.iter().map(|migration| migration.version).max();
            if answered(turn(&mut connection)).await?.1 != newest {
                return Err(StoreError::OtherGateways);
            }
            break;
        }
        if Instant::now() >= until {
            return Err(StoreError::OtherGateway);
        }
        // One that has just ended, the server may not have noticed yet.
        tokio::time::sleep(limits::DATABASE_LOCK_TURN).await;
    }
    let turn = answered(turn(&mut connection)).await?;
    Ok((connection, turn))
}

/// What a gateway relies on for as long as it is there: how often a command had the database alone, and the version of the
/// database.
type Turn = (i64, Option<i64>);

async fn begin_turn(connection: &mut PgConnection, company: Company) -> Result<(), sqlx::Error> {
    let mut change = connection.begin().await?;
    sqlx::query(
        "UPDATE shared SET turn = turn + $1, \
         next_message = GREATEST(next_message, (SELECT COALESCE(MAX(seq), 0) + 1 FROM message)), \
         next_delivery = GREATEST(next_delivery, (SELECT COALESCE(MAX(seq), 0) + 1 FROM delivery))",
    )
    .bind(i64::from(company == Company::None))
    .execute(&mut *change)
    .await?;
    sqlx::query("DELETE FROM load").execute(&mut *change).await?;
    sqlx::query(
        "INSERT INTO load (queue, deliveries, bytes) SELECT queue, COUNT(*), SUM(bytes) FROM delivery \
         WHERE quarantined IS NULL GROUP BY queue",
    )
    .execute(&mut *change)
    .await?;
    change.commit().await
}

async fn turn(connection: &mut PgConnection) -> Result<Turn, sqlx::Error> {
    sqlx::query_as("SELECT turn, (SELECT MAX(version) FROM _sqlx_migrations) FROM shared")
        .fetch_one(connection)
        .await
}

/// Makes a connection one of those who use the database, unless others are in its way.
async fn lock(connection: &mut PgConnection, company: Company) -> Result<bool, sqlx::Error> {
    let lock = match company {
        Company::None => "SELECT pg_try_advisory_lock($1)",
        Company::Gateways => "SELECT pg_try_advisory_lock_shared($1)",
    };
    sqlx::query_scalar(lock).bind(GATEWAYS).fetch_one(connection).await
}

/// Begins a change beside those of other gateways.
pub(super) async fn begin(
    pool: &sqlx::PgPool,
) -> Result<sqlx::Transaction<'static, sqlx::Postgres>, sqlx::Error> {
    let mut change = answered(pool.begin()).await?;
    // Within what sqlx knows to have begun: where it gets no answer, or the answer of a fault, it is rolled back.
    answered(sqlx::query(TURN).execute(&mut *change)).await?;
    Ok(change)
}

/// How many gateways are on the database.
pub(super) async fn gateways(pool: &sqlx::PgPool) -> Result<u64, sqlx::Error> {
    let count: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND mode = 'ShareLock' \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND (classid::BIGINT << 32) + objid::BIGINT = $1 AND objsubid = 1",
    )
    .bind(GATEWAYS)
    .fetch_one(pool)
    .await?;
    Ok(count.unsigned_abs())
}

pub(super) async fn look(options: &PgConnectOptions) -> Result<Transaction, StoreError> {
    let pool = one(options).await?;
    let moment = pool.begin_with("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    Ok(Transaction::Postgres(moment, member(options)))
}

pub(super) async fn connect(options: &PgConnectOptions) -> Result<Pool, StoreError> {
    Ok(Pool::Postgres(one(options).await?, member(options)))
}

/// Somebody who is none of the gateways.
fn member(options: &PgConnectOptions) -> Arc<Member> {
    let (options, lost) = (options.clone(), CancellationToken::new());
    Arc::new(Member { options, name: String::new(), lost })
}

pub(super) async fn exists(options: &PgConnectOptions) -> Result<bool, StoreError> {
    let mut connection = answered(watched(options).connect()).await?;
    let exists = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL");
    let exists = answered(exists.fetch_one(&mut connection)).await?;
    connection.close().await?;
    Ok(exists)
}
pub(super) async fn one(options: &PgConnectOptions) -> Result<sqlx::PgPool, sqlx::Error> {
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(limits::DATABASE_BUSY);
    pool.connect_with(watched(options)).await
}

/// What is wrong with how the server keeps the database, and what an administrator should know of it.
pub(super) async fn faults(options: &PgConnectOptions) -> Result<Soundness, StoreError> {
    let mut connection = answered(watched(options).connect()).await?;
    // Of each standby only those may see more than that it is there who may watch the server (`pg_monitor`).
    let told = sqlx::query_as(
        "SELECT current_setting('fsync'), current_setting('full_page_writes'), \
         current_setting('synchronous_standby_names'), (SELECT COUNT(*) FROM pg_stat_replication), \
         EXISTS (SELECT 1 FROM pg_stat_replication WHERE sync_state = 'async')",
    );
    let (fsync, pages, synchronous, standbys, asynchronous): (String, String, String, i64, bool) =
        answered(told.fetch_one(&mut connection)).await?;
    connection.close().await?;
    let off = [("fsync", fsync), ("full_page_writes", pages)].into_iter().filter(|(_, is)| is == "off");
    let faults = off.map(|(setting, _)| format!("the server runs with {setting} = off")).collect();
    Ok(Soundness { faults, asynchronous: asynchronous || synchronous.is_empty() && standbys > 0 })
}
