//! Where does a statement go that is sent through some `C: ConnectionTrait`?
//!
//! A type parameter without `'static` cannot be downcast. So we ask in band: the asker arms a
//! thread-local and calls `get_database_backend`, the one synchronous method that every wrapper
//! forwards; if one of our connections is at the end of the chain, it leaves its handle there.
//!
//! Who wants a row leaves the row's name there as well. If the in-process tier has it, the connection
//! leaves that, and no handle has to be made: threads that read through the same connection would
//! otherwise wait for each other to count its users.

use std::any::TypeId;
use std::cell::{Cell, RefCell};

use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseExecutor, DatabaseTransaction};

use super::meta::EntityMeta;
use super::site::Site;
use crate::tier::{Held, RowId};

thread_local! {
    // Two cells: this one needs no destructor, so the normal call costs one plain load.
    static ARMED: Cell<Option<Question>> = const { Cell::new(None) };
    static ANSWER: RefCell<Option<Handle>> = const { RefCell::new(None) };
}

/// What a connection of ours is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Question {
    /// Where statements go.
    Place,
    /// Whether this row is in the in-process tier, and where statements go if it is not.
    Row(&'static EntityMeta, RowId),
}

/// What a connection of ours answers.
pub(crate) enum Handle {
    /// Statements run outside of a transaction.
    Connection(Site),
    /// Statements run in a transaction.
    Transaction(Site),
    /// The row that was asked for.
    Held(Held),
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
    // Nothing is held for such a question.
    find(db, Question::Place).unwrap_or(Place::Unknown)
}

/// The row, if the in-process tier of the connection that `db` is or forwards to has it.
pub(crate) fn held<C: ConnectionTrait>(
    db: &C,
    meta: &'static EntityMeta,
    row: RowId,
) -> Result<Held, Place> {
    match find(db, Question::Row(meta, row)) {
        Ok(place) => Err(place),
        Err(held) => Ok(held),
    }
}

fn find<C: ConnectionTrait>(db: &C, question: Question) -> Result<Place, Held> {
    let id = typeid::of::<C>();
    // SeaORM's own types are told apart by name and not asked: a connection that is disconnected
    // panics when it is.
    Ok(if id == TypeId::of::<DatabaseConnection>() {
        Place::Plain
    } else if id == TypeId::of::<DatabaseTransaction>() {
        Place::PlainTransaction
    } else if id == TypeId::of::<DatabaseExecutor<'static>>() {
        Place::Unknown
    } else {
        match ask(db, question) {
            Some(Handle::Connection(site)) => Place::Cached(site),
            Some(Handle::Transaction(site)) => Place::InTransaction(site),
            Some(Handle::Held(held)) => return Err(held),
            None => Place::Unknown,
        }
    })
}

/// The handle of the connection of ours that `db` is or forwards to.
fn ask<C: ConnectionTrait>(db: &C, question: Question) -> Option<Handle> {
    let _disarm = Disarm;
    ARMED.set(Some(question));
    let _ = db.get_database_backend();
    ANSWER.take()
}

/// Leaves a handle, if one is asked for. Every `get_database_backend` of ours calls it.
#[inline]
pub(crate) fn answer(handle: impl FnOnce(Question) -> Handle) {
    if let Some(question) = ARMED.take() {
        ANSWER.set(Some(handle(question)));
    }
}

/// Disarms, also when the asked one panics.
struct Disarm;

impl Drop for Disarm {
    fn drop(&mut self) {
        ARMED.set(None);
        if std::thread::panicking() {
            // It may have been answered before it panicked.
            ANSWER.set(None);
        }
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
        answer(|_| unreachable!("nobody asks"));
        assert_eq!(place(&cached().await), "cached");
    }

    #[tokio::test]
    async fn an_answer_is_given_once_and_only_when_asked() {
        let db = cached().await;
        assert_eq!(db.get_database_backend(), DbBackend::Sqlite);
        assert!(ANSWER.take().is_none());
        assert!(ask(&db, Question::Place).is_some());
        assert!(ask(&sqlite().await, Question::Place).is_none());
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
