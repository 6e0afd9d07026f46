//! Where does a statement go that is sent through some `C: ConnectionTrait`?
//!
//! A type parameter without `'static` cannot be downcast. So we ask in band: the asker arms a
//! thread-local and calls `get_database_backend`, the one synchronous method that every wrapper
//! forwards; if one of our connections is at the end of the chain, it leaves its handle there.
//!
//! Who wants a row or a query's result leaves its name there as well. If the in-process tier has it, the
//! connection leaves that, and no handle has to be made: threads that read through the same connection would
//! otherwise wait for each other to count its users.

use std::any::TypeId;
use std::cell::Cell;
use std::mem::forget;

use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseExecutor, DatabaseTransaction};

use super::meta::EntityMeta;
use super::site::Site;
use crate::tier::{RowId, Value};

thread_local! {
    // This one needs no destructor, so the normal call costs one plain load.
    static ARMED: Armed = const { Armed::new() };
    static HELD: Cell<Option<Value>> = const { Cell::new(None) };
    static ANSWER: Cell<Option<Handle>> = const { Cell::new(None) };
}

/// What the asker wants to know, word by word: a processor that reads in one block what it has just
/// written in several words waits until they are in memory.
struct Armed {
    is: Cell<bool>,
    /// `None` if only the place is asked for.
    meta: Cell<Option<&'static EntityMeta>>,
    entity: Cell<u32>,
    row: [Cell<u64>; 2],
}

/// A row or a query's result that is asked for: under which number of its entity it is named, and how.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) meta: &'static EntityMeta,
    pub(crate) entity: u32,
    pub(crate) row: RowId,
}

impl Asked {
    pub(crate) fn row(meta: &'static EntityMeta, row: RowId) -> Self {
        let entity = meta.id;
        Self { meta, entity, row }
    }

    /// All rows if there is no digest.
    pub(crate) fn query(meta: &'static EntityMeta, digest: Option<u128>) -> Self {
        Self {
            meta,
            entity: meta.queries(),
            row: digest.map_or_else(RowId::default, RowId::wide),
        }
    }
}

impl Armed {
    const fn new() -> Self {
        Self {
            is: Cell::new(false),
            meta: Cell::new(None),
            entity: Cell::new(0),
            row: [Cell::new(0), Cell::new(0)],
        }
    }

    #[inline]
    fn arm(&self, asked: Option<Asked>) {
        if let Some(Asked { entity, row, .. }) = asked {
            self.entity.set(entity);
            self.row[0].set(row.0);
            self.row[1].set(row.1);
        }
        self.meta.set(asked.map(|asked| asked.meta));
        self.is.set(true);
    }

    #[inline]
    fn asked(&self) -> Option<Asked> {
        Some(Asked {
            meta: self.meta.get()?,
            entity: self.entity.get(),
            row: RowId(self.row[0].get(), self.row[1].get()),
        })
    }
}

/// What a connection of ours answers.
pub(crate) enum Handle {
    /// Statements run outside of a transaction.
    Connection(Site),
    /// Statements run in a transaction.
    Transaction(Site),
}

/// Where statements go.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// Through a [`CachedConnection`](crate::CachedConnection).
    Cached(Site),
    /// Into a [`CachedTransaction`](crate::CachedTransaction), or into a transaction that was opened
    /// in raw SQL on a [`CachedConnection`](crate::CachedConnection).
    InTransaction(Site),
    /// Through SeaORM's own connection, unseen.
    Plain,
    /// Into SeaORM's own transaction, unseen.
    PlainTransaction,
    /// Unseen, and perhaps into a transaction.
    Unknown,
}

/// Where statements through `db` go.
pub(crate) fn locate<C: ConnectionTrait>(db: &C) -> Place {
    match seaorms_own::<C>() {
        Some(place) => place,
        None => {
            ask(db, None);
            answered()
        }
    }
}

/// What is asked for, if the in-process tier of the connection that `db` is or forwards to has it.
#[inline]
pub(crate) fn held<C: ConnectionTrait>(db: &C, asked: Asked) -> Result<Value, Place> {
    if let Some(place) = seaorms_own::<C>() {
        return Err(place);
    }
    ask(db, Some(asked));
    HELD.take().ok_or_else(answered)
}

/// SeaORM's own types are told apart by name and not asked: a connection that is disconnected panics
/// when it is.
#[inline]
fn seaorms_own<C: ConnectionTrait>() -> Option<Place> {
    let id = typeid::of::<C>();
    if id == TypeId::of::<DatabaseConnection>() {
        Some(Place::Plain)
    } else if id == TypeId::of::<DatabaseTransaction>() {
        Some(Place::PlainTransaction)
    } else if id == TypeId::of::<DatabaseExecutor<'static>>() {
        Some(Place::Unknown)
    } else {
        None
    }
}

#[cold]
fn answered() -> Place {
    match ANSWER.take() {
        Some(Handle::Connection(site)) => Place::Cached(site),
        Some(Handle::Transaction(site)) => Place::InTransaction(site),
        None => Place::Unknown,
    }
}

/// Asks the connection of ours that `db` is or forwards to.
#[inline]
fn ask<C: ConnectionTrait>(db: &C, asked: Option<Asked>) {
    let panicked = Panicked;
    ARMED.with(|armed| armed.arm(asked));
    let _ = db.get_database_backend();
    ARMED.with(|armed| armed.is.set(false));
    forget(panicked);
}

/// Leaves what is asked for, if something is and it is held, and else a handle. Every
/// `get_database_backend` of ours calls it.
#[inline]
pub(crate) fn answer(held: impl FnOnce(Asked) -> Option<Value>, handle: impl FnOnce() -> Handle) {
    ARMED.with(|armed| {
        if armed.is.replace(false) {
            match armed.asked().and_then(held) {
                Some(value) => HELD.set(Some(value)),
                None => ANSWER.set(Some(handle())),
            }
        }
    });
}

/// Disarms when the asked one panics.
struct Panicked;

impl Drop for Panicked {
    fn drop(&mut self) {
        ARMED.with(|armed| armed.is.set(false));
        // It may have been answered before it panicked.
        HELD.set(None);
        ANSWER.set(None);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use sea_orm::{
        Database, DbBackend, DbErr, ExecResult, QueryResult, Statement, StreamTrait,
        TransactionTrait,
    };

    use super::*;
    use crate::{CachedConnection, CachedTransaction};

    /// A wrapper as users write them.
    struct Wrapper<'a, C>(&'a C);

    #[async_trait::async_trait]
    impl<C: ConnectionTrait> ConnectionTrait for Wrapper<'_, C> {
        fn get_database_backend(&self) -> DbBackend {
            self.0.get_database_backend()
        }

        async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
            self.0.execute_raw(stmt).await
        }

        async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
            self.0.execute_unprepared(sql).await
        }

        async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
            self.0.query_one_raw(stmt).await
        }

        async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
            self.0.query_all_raw(stmt).await
        }
    }

    fn place<C: ConnectionTrait>(db: &C) -> &'static str {
        match locate(db) {
            Place::Cached(_) => "cached",
            Place::InTransaction(_) => "in transaction",
            Place::Plain => "plain",
            Place::PlainTransaction => "plain transaction",
            Place::Unknown => "unknown",
        }
    }

    /// The same through a function that is as generic as a hook.
    async fn places<C: ConnectionTrait>(db: &C) -> [&'static str; 3] {
        let once = Wrapper(db);
        [place(db), place(&once), place(&Wrapper(&once))]
    }

    async fn sqlite() -> DatabaseConnection {
        Database::connect("sqlite::memory:").await.unwrap()
    }

    async fn cached() -> CachedConnection {
        CachedConnection::new(sqlite().await, Site::for_tests())
    }

    #[tokio::test]
    async fn a_connection_of_ours_is_found_through_wrappers() {
        let db = cached().await;
        assert_eq!(places(&db).await, ["cached"; 3]);
    }

    #[tokio::test]
    async fn a_transaction_of_ours_is_found_through_wrappers_at_every_depth() {
        let db = cached().await;
        let outer = db.begin().await.unwrap();
        assert_eq!(places(&outer).await, ["in transaction"; 3]);
        let inner = outer.begin().await.unwrap();
        assert_eq!(places(&inner).await, ["in transaction"; 3]);
        inner.rollback().await.unwrap();
        outer.rollback().await.unwrap();
        assert_eq!(places(&db).await, ["cached"; 3]);
    }

    #[tokio::test]
    async fn types_of_seaorm_are_told_apart_and_unknown_in_a_wrapper() {
        let db = sqlite().await;
        assert_eq!(places(&db).await, ["plain", "unknown", "unknown"]);
        let executor = DatabaseExecutor::from(&db);
        assert_eq!(places(&executor).await, ["unknown"; 3]);
        let txn = db.begin().await.unwrap();
        assert_eq!(
            places(&txn).await,
            ["plain transaction", "unknown", "unknown"]
        );
        let executor = DatabaseExecutor::from(&txn);
        assert_eq!(places(&executor).await, ["unknown"; 3]);
    }

    #[tokio::test]
    async fn a_disconnected_connection_is_not_asked() {
        let db = DatabaseConnection::default();
        assert_eq!(place(&db), "plain");
        assert_eq!(place(&DatabaseExecutor::from(&db)), "unknown");
    }

    #[tokio::test]
    async fn a_connection_that_panics_when_asked_leaves_nothing_armed() {
        let disconnected = DatabaseConnection::default();
        let asked = catch_unwind(AssertUnwindSafe(|| place(&Wrapper(&disconnected))));
        assert!(asked.is_err());
        answer(|_| unreachable!("nobody asks"), || unreachable!());
        assert_eq!(place(&cached().await), "cached");
    }

    #[tokio::test]
    async fn an_answer_is_given_once_and_only_when_asked() {
        let db = cached().await;
        assert_eq!(db.get_database_backend(), DbBackend::Sqlite);
        assert!(ANSWER.take().is_none());
        ask(&db, None);
        assert!(ANSWER.take().is_some());
        ask(&sqlite().await, None);
        assert!(ANSWER.take().is_none());
    }

    #[tokio::test]
    async fn an_open_transaction_in_raw_sql_is_found() {
        let db = cached().await;
        db.open_manual_for_tests();
        assert_eq!(places(&db).await, ["in transaction"; 3]);
        assert_eq!(place(&db.clone()), "in transaction");
        assert_eq!(place(&db.scoped("a")), "in transaction");
    }

    #[test]
    fn ours_are_accepted_wherever_seaorm_asks_for_its_own() {
        fn connection<C>()
        where
            C: ConnectionTrait + TransactionTrait<Transaction = CachedTransaction> + StreamTrait,
            C: std::fmt::Debug + Send + Sync + 'static,
        {
        }
        connection::<CachedConnection>();
        connection::<CachedTransaction>();
    }
}
