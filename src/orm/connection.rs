//! A database connection whose writes invalidate.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use sea_orm::sea_query;
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, IsolationLevel,
    QueryResult, QueryStream, Schema, SchemaBuilder, Statement, StreamTrait, TransactionError,
    TransactionOptions, TransactionTrait,
};

use super::fenced::Fenced;
use super::levels::MOST_KEYS;
use super::manual::{Manual, Write};
use super::probe::{self, Asked, Handle};
use super::site::Site;
use super::stream::CachedStream;
use super::transaction::{self, CachedTransaction};
use crate::cache::Cache;
use crate::config::Consistency;
use crate::tier::Value;

/// A [`DatabaseConnection`] attached to a cache: every write through it invalidates.
///
/// It takes the place of the [`DatabaseConnection`] wherever SeaORM asks for a `ConnectionTrait`, a
/// `TransactionTrait` or a `StreamTrait`. It does not dereference to one, because a write through
/// the bare connection would not be seen.
///
/// # Cancel safety
/// A write that was begun is carried out and invalidates, also if its future is dropped.
///
/// # Consistency
/// Transactions belong into [`begin`](TransactionTrait::begin) or
/// [`transaction`](TransactionTrait::transaction). Opened in raw SQL (`BEGIN`), as is possible where
/// the pool has one connection, they are followed too, and until they end no read through this
/// connection uses the cache.
#[derive(Clone, Debug)]
pub struct CachedConnection {
    inner: DatabaseConnection,
    site: Site,
    manual: Arc<Manual>,
}

impl CachedConnection {
    pub(crate) fn new(inner: DatabaseConnection, site: Site) -> Self {
        Self {
            inner,
            site,
            manual: Arc::default(),
        }
    }

    /// The connection itself. Writes through it are not seen: they invalidate nothing.
    pub fn inner(&self) -> &DatabaseConnection {
        &self.inner
    }

    /// The connection itself. Writes through it are not seen: they invalidate nothing.
    pub fn into_inner(self) -> DatabaseConnection {
        self.inner
    }

    #[cfg(feature = "feed")]
    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    /// The cache that this connection is attached to.
    pub fn cache(&self) -> &Cache {
        &self.site.cache
    }

    /// The same connection with cache keys of its own for one tenant.
    ///
    /// For databases whose tables are another tenant's rows according to a session setting (row
    /// level security, `search_path`). A write through one tenant's connection invalidates that
    /// tenant's entries only.
    pub fn scoped(&self, tenant: &str) -> Self {
        Self {
            site: self.site.scoped(tenant),
            ..self.clone()
        }
    }

    /// The same connection whose cached reads are as fresh as this, whatever their entity says.
    ///
    /// # Examples
    /// ```no_run
    /// # use sea_orm_cache::{CachedConnection, CachedEntity, Consistency};
    /// # async fn run<E: CachedEntity>(db: CachedConnection, all: Vec<sea_orm_cache::PrimaryKeyOf<E>>) -> Result<(), sea_orm::DbErr> {
    /// let fresh = db.with_consistency(Consistency::Linearizable);
    /// let rows = E::cached_get_many(all, &fresh).await?;
    /// # Ok(()) }
    /// ```
    pub fn with_consistency(&self, consistency: Consistency) -> Self {
        Self {
            site: self.site.with_consistency(consistency),
            ..self.clone()
        }
    }

    /// Makes this connection's cache the default of the process: cached reads and hooks through plain
    /// SeaORM connections use it. It replaces the one that was installed before.
    ///
    /// # Consistency
    /// A process has one default, so all its plain connections must be to this database.
    pub fn install_default(&self) {
        super::site::install(self.site.clone());
    }

    /// The database's kind.
    pub fn get_database_backend(&self) -> DbBackend {
        probe::answer(|asked| self.held(asked), || self.handle());
        self.site.backend
    }

    /// A schema builder for the database's kind.
    pub fn get_schema_builder(&self) -> SchemaBuilder {
        Schema::new(self.site.backend).builder()
    }

    /// Checks that the database can be reached.
    ///
    /// # Errors
    /// If it cannot.
    pub async fn ping(&self) -> Result<(), DbErr> {
        self.inner.ping().await
    }

    /// Closes the database connection.
    ///
    /// # Errors
    /// Those of [`DatabaseConnection::close`].
    pub async fn close(self) -> Result<(), DbErr> {
        self.inner.close().await
    }

    /// Closes the database connection, for all its clones.
    ///
    /// # Errors
    /// Those of [`DatabaseConnection::close_by_ref`].
    pub async fn close_by_ref(&self) -> Result<(), DbErr> {
        self.inner.close_by_ref().await
    }

    /// Runs `callback` in a transaction: committed if it answers `Ok`, else rolled back.
    ///
    /// # Errors
    /// The callback's, or that of `BEGIN`, `COMMIT` or `ROLLBACK`.
    pub async fn transaction_async<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
    where
        F: for<'c> AsyncFnOnce(&'c CachedTransaction) -> Result<T, E> + Send,
        T: Send,
        E: fmt::Display + fmt::Debug + Send,
    {
        transaction::run_async(self.begin().await?, callback).await
    }

    /// [`transaction_async`](Self::transaction_async) with an isolation level and access mode.
    ///
    /// # Errors
    /// The callback's, or that of `BEGIN`, `COMMIT` or `ROLLBACK`.
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
        transaction::run_async(begun, callback).await
    }

    #[cfg(test)]
    pub(crate) fn open_manual_for_tests(&self) {
        let planned = super::site::Planned {
            invalidation: crate::invalidation::Invalidation::default(),
            control: super::effects::Control::Begin,
        };
        self.manual.note("BEGIN", planned);
    }

    #[inline]
    fn held(&self, asked: Asked) -> Option<Value> {
        let Asked { meta, entity, row } = asked;
        let open = self.manual.is_open();
        (!open).then(|| self.site.held(meta, entity, row))?
    }

    #[cold]
    fn handle(&self) -> Handle {
        let site = self.site.clone();
        match self.manual.is_open() {
            true => Handle::Transaction(site),
            false => Handle::Connection(site),
        }
    }

    /// What a statement writes; `None` if it may go straight to the database.
    fn write(&self, sql: &str, values: &[sea_query::Value]) -> Option<Write> {
        let write = self.manual.note(sql, self.site.plan(sql, values))?;
        self.manual
            .compact(MOST_KEYS, |collected| self.site.compact(collected));
        Some(write)
    }

    fn write_of(&self, stmt: &Statement) -> Option<Write> {
        self.write(&stmt.sql, values(stmt))
    }

    /// Runs `work` between fence and settling, in a task of its own.
    async fn guard<T, F>(&self, write: Write, work: F) -> Result<T, DbErr>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, DbErr>> + Send + 'static,
    {
        let manual = Arc::clone(&self.manual);
        let work = async move {
            let answer = work.await;
            if write.closes.after(&answer) {
                manual.close();
            }
            answer
        };
        if write.invalidation.is_empty() {
            return work.await;
        }
        let guarded = self.site.cache.guarded(write.invalidation, work);
        guarded.await?
    }
}

/// The values bound to a statement.
pub(crate) fn values(stmt: &Statement) -> &[sea_query::Value] {
    stmt.values.as_ref().map_or(&[], |values| &values.0)
}

#[async_trait::async_trait]
impl ConnectionTrait for CachedConnection {
    fn get_database_backend(&self) -> DbBackend {
        self.get_database_backend()
    }

    async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
        let Some(write) = self.write_of(&stmt) else {
            return self.inner.execute_raw(stmt).await;
        };
        let db = self.inner.clone();
        self.guard(write, async move { db.execute_raw(stmt).await })
            .await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let Some(write) = self.write(sql, &[]) else {
            return self.inner.execute_unprepared(sql).await;
        };
        let (db, sql) = (self.inner.clone(), sql.to_owned());
        self.guard(write, async move { db.execute_unprepared(&sql).await })
            .await
    }

    async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
        let Some(write) = self.write_of(&stmt) else {
            return self.inner.query_one_raw(stmt).await;
        };
        let db = self.inner.clone();
        self.guard(write, async move { db.query_one_raw(stmt).await })
            .await
    }

    async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let Some(write) = self.write_of(&stmt) else {
            return self.inner.query_all_raw(stmt).await;
        };
        let db = self.inner.clone();
        self.guard(write, async move { db.query_all_raw(stmt).await })
            .await
    }

    fn support_returning(&self) -> bool {
        self.inner.support_returning()
    }

    fn is_mock_connection(&self) -> bool {
        self.inner.is_mock_connection()
    }
}

impl StreamTrait for CachedConnection {
    type Stream<'a> = CachedStream<QueryStream>;

    fn get_database_backend(&self) -> DbBackend {
        self.get_database_backend()
    }

    fn stream_raw<'a>(
        &'a self,
        stmt: Statement,
    ) -> Pin<Box<dyn Future<Output = Result<Self::Stream<'a>, DbErr>> + 'a + Send>> {
        Box::pin(async move {
            let write = self.write_of(&stmt).filter(|w| !w.invalidation.is_empty());
            let fenced = match write {
                Some(write) => Some(Fenced::plant(&self.site.cache, write.invalidation).await?),
                None => None,
            };
            CachedStream::open(self.inner.stream_raw(stmt).await, fenced).await
        })
    }
}

#[async_trait::async_trait]
impl TransactionTrait for CachedConnection {
    type Transaction = CachedTransaction;

    async fn begin(&self) -> Result<CachedTransaction, DbErr> {
        let begun = self.inner.begin().await?;
        Ok(CachedTransaction::new(begun, self.site.clone()))
    }

    async fn begin_with_config(
        &self,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<CachedTransaction, DbErr> {
        let begun = self.inner.begin_with_config(isolation_level, access_mode);
        Ok(CachedTransaction::new(begun.await?, self.site.clone()))
    }

    async fn begin_with_options(
        &self,
        options: TransactionOptions,
    ) -> Result<CachedTransaction, DbErr> {
        let begun = self.inner.begin_with_options(options).await?;
        Ok(CachedTransaction::new(begun, self.site.clone()))
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
        transaction::run(self.begin().await?, callback).await
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
        transaction::run(begun, callback).await
    }
}
