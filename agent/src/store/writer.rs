//! Group commit: changes that come at the same time share a transaction, and each is answered only after that
//! transaction is durable.
//!
//! Whoever changes something holds the one writing connection while its own statements run, then lets in who came next.
//! What it writes waits until it reads something, or is to be kept, and goes to SQLite's thread together.
//! The transaction is committed when those who waited as it began have had their turn: one that comes alone waits for
//! nobody.

use std::sync::{Arc, atomic::Ordering};

use sqlx::{Encode, FromRow, Sqlite, SqliteConnection, Type, sqlite::SqliteRow};
use tokio::sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard, oneshot};

use super::{
    Store, StoreError,
    statements::{Gave, Statements},
};

/// The connection that writes, and the transaction under way on it. Whoever waits for it has it in the order of coming.
pub(super) type Writer = Arc<Mutex<Option<Connection>>>;

type Held = OwnedMappedMutexGuard<Option<Connection>, Connection>;

pub(super) struct Connection {
    sqlite: SqliteConnection,
    /// Whom to tell that the transaction under way is durable; none where none is under way.
    waiting: Option<Vec<oneshot::Sender<Result<(), Arc<sqlx::Error>>>>>,
    /// The change before was not finished, and must not be kept.
    given_up: bool,
}

/// One change, with others in a transaction. It is kept by [`Self::commit`], and undone if it is dropped. What it finds may
/// be of another that is not durable yet: whoever tells others of it commits first, or undoes.
pub(super) struct Change {
    writer: Held,
    kept: bool,
    /// Not run yet.
    statements: Statements,
}

/// A statement of a change whose answer is asked for.
pub(super) struct Asked<'c>(&'c mut Change);

pub(super) fn new(sqlite: SqliteConnection) -> Writer {
    Arc::new(Mutex::new(Some(Connection { sqlite, waiting: None, given_up: false })))
}

impl Store {
    /// Begins a change. Changes are made in the order in which this was first polled.
    pub(super) async fn begin(&self) -> Result<Change, StoreError> {
        let mut change =
            Change { writer: held(&self.0.writer).await?, kept: false, statements: Statements::default() };
        let writer = Arc::clone(&self.0.writer);
        // By itself, so that it is not cut off half-way where nobody waits for the change any more.
        let begun = tokio::spawn(async move {
            change.writer.begin(writer).await?;
            Ok::<_, sqlx::Error>(change)
        });
        Ok(begun.await.map_err(|_| StoreError::Closed)??)
    }

    /// Something was deleted that must not stay on the disk. Until the write-ahead log is moved into the database it does.
    pub(super) fn has_erased(&self) {
        self.0.has_erased.store(true, Ordering::Relaxed);
    }

    /// Where something was erased since it was done last: moves what the write-ahead log holds into the database, and
    /// empties it. Who reads the database meanwhile may be in the way; then the next time.
    pub(super) async fn empty_log(&self) -> Result<(), StoreError> {
        if !self.0.has_erased.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let mut writer = held(&self.0.writer).await?;
        let emptied = tokio::spawn(async move {
            writer.commit().await;
            let emptied = sqlx::query_as("pragma wal_checkpoint(truncate)");
            emptied.fetch_one(&mut writer.sqlite).await.map(|(busy, _, _): (i64, i64, i64)| busy == 0)
        });
        match emptied.await.map_err(|_| StoreError::Closed)? {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.has_erased();
                Ok(())
            }
            Err(error) => {
                self.has_erased();
                Err(error.into())
            }
        }
    }

    pub(super) async fn close_writer(&self) {
        if let Some(mut writer) = self.0.writer.lock().await.take() {
            writer.commit().await;
            if let Err(error) = sqlx::Connection::close(writer.sqlite).await {
                tracing::warn!(%error, "the database was not closed");
            }
        }
    }
}

async fn held(writer: &Writer) -> Result<Held, StoreError> {
    // Not put off where a task has done much: whoever polls first comes first.
    let writer = tokio::task::unconstrained(Arc::clone(writer).lock_owned()).await;
    OwnedMutexGuard::try_map(writer, Option::as_mut).map_err(|_| StoreError::Closed)
}

impl Connection {
    async fn run(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(sql).execute(&mut self.sqlite).await.map(drop)
    }

    /// Makes a place in the transaction to which a change can be undone.
    async fn begin(&mut self, writer: Writer) -> Result<(), sqlx::Error> {
        if self.waiting.is_some() {
            let next = if self.given_up { "rollback to change" } else { "release change; savepoint change" };
            match self.run(next).await {
                Ok(()) => return Ok(()),
                Err(error) => self.fail(error).await,
            }
        }
        if let Err(error) = self.run("begin immediate; savepoint change").await {
            // Where it was begun.
            let _ = self.run("rollback").await;
            return Err(error);
        }
        self.waiting = Some(Vec::new());
        // Its turn comes behind those who wait by now.
        let turn = writer.lock_owned();
        tokio::spawn(async move {
            if let Some(writer) = turn.await.as_mut() {
                writer.commit().await;
            }
        });
        Ok(())
    }

    /// Commits the transaction, if one is under way, and tells whoever waits.
    async fn commit(&mut self) {
        if self.waiting.is_none() {
            return;
        }
        let given_up = std::mem::take(&mut self.given_up);
        match self.run(if given_up { "rollback to change; commit" } else { "commit" }).await {
            Ok(()) => {
                for waiting in self.waiting.take().into_iter().flatten() {
                    // The change is durable, whether or not anybody waits for it.
                    let _ = waiting.send(Ok(()));
                }
            }
            Err(error) => self.fail(error).await,
        }
    }

    /// Nothing of the transaction is kept.
    async fn fail(&mut self, error: sqlx::Error) {
        let error = Arc::new(error);
        for waiting in self.waiting.take().into_iter().flatten() {
            let _ = waiting.send(Err(Arc::clone(&error)));
        }
        self.given_up = false;
        // Where the disk is full SQLite has rolled back by itself.
        let _ = self.run("rollback").await;
    }
}

impl Change {
    /// A statement whose answer nothing depends on. It is run before what is asked next; where it fails, that fails, or
    /// the commit.
    pub(super) fn write(&mut self, sql: &'static str) -> &mut Statements {
        self.statements.add(sql)
    }

    /// A statement whose answer is waited for.
    pub(super) fn ask(&mut self, sql: &'static str) -> Asked<'_> {
        self.statements.add(sql);
        Asked(self)
    }

    /// Runs what was not run yet.
    pub(super) async fn flush(&mut self) -> Result<(), sqlx::Error> {
        self.run().await.map(drop)
    }

    /// Runs what was not run yet, and gives what the last statement gave.
    async fn run(&mut self) -> Result<Gave, sqlx::Error> {
        let statements = std::mem::take(&mut self.statements);
        Ok(statements.run(&mut self.writer.sqlite).await?.pop().unwrap_or_default())
    }

    /// Keeps the change, and lets in who comes next. Answers once it is durable.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        self.run().await?;
        self.end(true).await
    }

    /// Undoes the change, and lets in who comes next. Answers once what it has found is durable.
    pub(super) async fn undo(self) -> Result<(), StoreError> {
        self.end(false).await
    }

    async fn end(mut self, kept: bool) -> Result<(), StoreError> {
        let (told, durable) = oneshot::channel();
        self.writer.waiting.get_or_insert_default().push(told);
        self.kept = kept;
        drop(self);
        Ok(durable.await.map_err(|_| StoreError::Closed)??)
    }
}

impl Asked<'_> {
    /// See [`Statements::rows`].
    pub(super) fn rows<T>(
        self,
        items: impl IntoIterator<Item = T>,
        row: impl FnMut(&mut Statements, T),
    ) -> Self {
        self.0.statements.rows(items, row);
        self
    }

    /// Goes on with the same statement.
    pub(super) fn then(self, sql: &'static str) -> Self {
        self.0.statements.then(sql);
        self
    }

    /// What stands at the next parameter.
    pub(super) fn bind<'q>(self, value: impl Encode<'q, Sqlite> + Type<Sqlite>) -> Self {
        self.0.statements.bind(value);
        self
    }

    /// How many rows it wrote or deleted.
    pub(super) async fn changed(self) -> Result<u64, sqlx::Error> {
        Ok(self.0.run().await?.changed)
    }

    /// Its first row.
    pub(super) async fn first<T: for<'r> FromRow<'r, SqliteRow>>(self) -> Result<Option<T>, sqlx::Error> {
        self.0.run().await?.first()
    }

    /// Its rows.
    pub(super) async fn all<T: for<'r> FromRow<'r, SqliteRow>>(self) -> Result<Vec<T>, sqlx::Error> {
        self.0.run().await?.all()
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        self.writer.given_up = !self.kept;
    }
}
