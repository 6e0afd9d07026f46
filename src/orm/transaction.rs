//! A database transaction that invalidates at its commit.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use sea_orm::sea_query::Value;
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, ExecResult, IsolationLevel,
    QueryResult, Statement, StreamTrait, TransactionError, TransactionOptions, TransactionSession,
    TransactionStream, TransactionTrait,
};

use super::connection::values;
use super::effects::Control;
use super::fenced::Fenced;
use super::levels::Level;
use super::probe::{self, Handle};
use super::site::Site;
use super::stream::CachedStream;
use crate::cache::Cache;
use crate::cache::is_over;
use crate::invalidation::Invalidation;

/// A [`DatabaseTransaction`] that invalidates what it wrote at its commit, and nothing before.
///
/// Reads in it do not use the cache. Rolled back or dropped, it invalidates nothing; that holds for
/// a savepoint, too.
///
/// # Consistency
/// A statement that may commit by itself (a raw `COMMIT`; on MySQL a schema change) invalidates what
/// was written so far, and so does from then on every write as it is run.
// Fields are dropped in order: the rollback is queued before the level is forgotten.
#[derive(Debug)]
pub struct CachedTransaction {
    inner: DatabaseTransaction,
    level: Level,
    site: Site,
}

impl CachedTransaction {
    pub(crate) fn new(inner: DatabaseTransaction, site: Site) -> Self {
        let level = Level::root();
        Self { inner, level, site }
    }

    /// The transaction itself. Writes through it are not seen: they invalidate nothing.
    pub fn inner(&self) -> &DatabaseTransaction {
        &self.inner
    }

    /// The cache that this transaction is attached to.
    pub fn cache(&self) -> &Cache {
        &self.site.cache
    }

    /// The database's kind.
    pub fn get_database_backend(&self) -> DbBackend {
        probe::answer(|_| None, || Handle::Transaction(self.site.clone()));
        self.site.backend
    }

    /// Commits, and invalidates what was written. A savepoint hands that up.
    ///
    /// # Errors
    /// That of `COMMIT`, which may have happened: the invalidation is carried out all the same. Under
    /// [`WritePolicy::Strict`](crate::WritePolicy::Strict) also if the cache cannot be reached; then
    /// the transaction is rolled back.
    ///
    /// # Cancel safety
    /// A commit that was begun is carried out and invalidates, also if its future is dropped.
    pub async fn commit(self) -> Result<(), DbErr> {
        let Self { inner, level, site } = self;
        // A savepoint hands up before it is released: a release that is cancelled, or answers an
        // error, may have happened.
        let Some(invalidation) = level.release().filter(|all| !all.is_empty()) else {
            return inner.commit().await;
        };
        let invalidation = site.compact(invalidation);
        let work = async move { inner.commit().await };
        let guarded = site.cache.guarded(invalidation, work);
        guarded.await?
    }

    /// Rolls back. Nothing is invalidated.
    ///
    /// # Errors
    /// That of `ROLLBACK`.
    pub async fn rollback(self) -> Result<(), DbErr> {
        let Self { inner, level, .. } = self;
        let answer = inner.rollback().await;
        if answer.is_err() {
            // A savepoint's writes may still be there, for the outer level to commit.
            level.release();
        }
        answer
    }

    /// Runs `callback` in a savepoint: released if it answers `Ok`, else rolled back.
    ///
    /// # Errors
    /// The callback's, or that of opening or ending the savepoint.
    pub async fn transaction_async<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
    where
        F: for<'c> AsyncFnOnce(&'c CachedTransaction) -> Result<T, E> + Send,
        T: Send,
        E: fmt::Display + fmt::Debug + Send,
    {
        run_async(self.begin().await?, callback).await
    }

    /// [`transaction_async`](Self::transaction_async) with an isolation level and access mode.
    ///
    /// # Errors
    /// The callback's, or that of opening or ending the savepoint.
    pub async fn transaction_with_config_async<F, T, E>(
        &self,
        callback: F,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<T, TransactionError<E>>
    where
        F: for<'c> AsyncFnOnce(&'c CachedTransaction) -> Result<T, E> + Send,
        T: Send,
        E: fmt::Display + fmt::Debug + Send,
    {
        let begun = self.begin_with_config(isolation_level, access_mode).await?;
        run_async(begun, callback).await
    }

    async fn nest<F>(&self, begin: F) -> Result<Self, DbErr>
    where
        F: Future<Output = Result<DatabaseTransaction, DbErr>>,
    {
        let nesting = self.level.nest();
        let inner = begin.await?;
        Ok(Self {
            inner,
            level: nesting.made(),
            site: self.site.clone(),
        })
    }

    /// Takes note of what a statement makes stale, before it runs: an error or a cancellation does
    /// not say that it did not. Answers the fences under which to run it, if it may commit.
    async fn note(&self, sql: &str, values: &[Value]) -> Result<Option<Fenced>, DbErr> {
        let planned = self.site.plan(sql, values);
        let invalidation = planned.invalidation;
        let stale = if planned.control != Control::None {
            self.level.loosen();
            self.add(invalidation);
            self.level.all()
        } else if invalidation.is_empty() {
            return Ok(None);
        } else if self.level.is_loose() {
            self.add(invalidation.clone());
            invalidation
        } else {
            self.add(invalidation);
            return Ok(None);
        };
        if stale.is_empty() {
            return Ok(None);
        }
        Ok(Some(Fenced::plant(&self.site.cache, stale).await?))
    }

    fn add(&self, invalidation: Invalidation) {
        self.level.add(invalidation, |all| self.site.compact(all));
    }

    async fn note_of(&self, stmt: &Statement) -> Result<Option<Fenced>, DbErr> {
        self.note(&stmt.sql, values(stmt)).await
    }
}

async fn unfence(fenced: Option<Fenced>, over: bool) {
    if let Some(fenced) = fenced {
        fenced.end(over).await;
    }
}

/// Runs `callback` and ends the transaction by its answer.
pub(crate) async fn run<F, T, E>(
    transaction: CachedTransaction,
    callback: F,
) -> Result<T, TransactionError<E>>
where
    F: for<'c> FnOnce(
            &'c CachedTransaction,
        ) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>
        + Send,
    T: Send,
    E: fmt::Display + fmt::Debug + Send,
{
    let answer = callback(&transaction).await;
    end(transaction, answer).await
}

/// [`run`] for async closures.
pub(crate) async fn run_async<F, T, E>(
    transaction: CachedTransaction,
    callback: F,
) -> Result<T, TransactionError<E>>
where
    F: for<'c> AsyncFnOnce(&'c CachedTransaction) -> Result<T, E> + Send,
    T: Send,
    E: fmt::Display + fmt::Debug + Send,
{
    let answer = callback(&transaction).await;
    end(transaction, answer).await
}

async fn end<T, E>(
    transaction: CachedTransaction,
    answer: Result<T, E>,
) -> Result<T, TransactionError<E>> {
    let ended = match &answer {
        Ok(_) => transaction.commit().await,
        Err(_) => transaction.rollback().await,
    };
    ended.map_err(TransactionError::Connection)?;
    answer.map_err(TransactionError::Transaction)
}

#[async_trait::async_trait]
impl TransactionSession for CachedTransaction {
    async fn commit(self) -> Result<(), DbErr> {
        self.commit().await
    }

    async fn rollback(self) -> Result<(), DbErr> {
        self.rollback().await
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for CachedTransaction {
    fn get_database_backend(&self) -> DbBackend {
        self.get_database_backend()
    }

    async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
        let fenced = self.note_of(&stmt).await?;
        let answer = self.inner.execute_raw(stmt).await;
        unfence(fenced, is_over(&answer)).await;
        answer
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let fenced = self.note(sql, &[]).await?;
        let answer = self.inner.execute_unprepared(sql).await;
        unfence(fenced, is_over(&answer)).await;
        answer
    }

    async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
        let fenced = self.note_of(&stmt).await?;
        let answer = self.inner.query_one_raw(stmt).await;
        unfence(fenced, is_over(&answer)).await;
        answer
    }

    async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let fenced = self.note_of(&stmt).await?;
        let answer = self.inner.query_all_raw(stmt).await;
        unfence(fenced, is_over(&answer)).await;
        answer
    }

    fn support_returning(&self) -> bool {
        self.inner.support_returning()
    }

    fn is_mock_connection(&self) -> bool {
        self.inner.is_mock_connection()
    }
}

impl StreamTrait for CachedTransaction {
    type Stream<'a> = CachedStream<TransactionStream<'a>>;

    fn get_database_backend(&self) -> DbBackend {
        self.get_database_backend()
    }

    fn stream_raw<'a>(
        &'a self,
        stmt: Statement,
    ) -> Pin<Box<dyn Future<Output = Result<Self::Stream<'a>, DbErr>> + 'a + Send>> {
        Box::pin(async move {
            let fenced = self.note_of(&stmt).await?;
            CachedStream::open(self.inner.stream_raw(stmt).await, fenced).await
        })
    }
}

#[async_trait::async_trait]
impl TransactionTrait for CachedTransaction {
    type Transaction = CachedTransaction;

    async fn begin(&self) -> Result<CachedTransaction, DbErr> {
        self.nest(self.inner.begin()).await
    }

    async fn begin_with_config(
        &self,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<CachedTransaction, DbErr> {
        self.nest(self.inner.begin_with_config(isolation_level, access_mode))
            .await
    }

    async fn begin_with_options(
        &self,
        options: TransactionOptions,
    ) -> Result<CachedTransaction, DbErr> {
        self.nest(self.inner.begin_with_options(options)).await
    }

    async fn transaction<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(
                &'c CachedTransaction,
            ) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>
            + Send,
        T: Send,
        E: fmt::Display + fmt::Debug + Send,
    {
        run(self.begin().await?, callback).await
    }

    async fn transaction_with_config<F, T, E>(
        &self,
        callback: F,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(
                &'c CachedTransaction,
            ) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>
            + Send,
        T: Send,
        E: fmt::Display + fmt::Debug + Send,
    {
        let begun = self.begin_with_config(isolation_level, access_mode).await?;
        run(begun, callback).await
    }
}

#[cfg(test)]
mod tests;
