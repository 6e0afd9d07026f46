//! Connections and transactions on SQLite, over a store that takes notes. The tables are no
//! entities, so a write fences their generations.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use futures_util::{StreamExt, TryStreamExt, poll};
use sea_orm::{ConnectOptions, Database};
use tokio::sync::Semaphore;

use super::*;
use crate::CachedConnection;
use crate::config::WritePolicy;
use crate::key::entity_of;
use crate::store::{MemoryStore, Op, Replies, Store, StoreError};

/// Notes fences and settlings as `fence a b`, by table.
#[derive(Debug)]
struct Notes {
    store: MemoryStore,
    taken: Mutex<Vec<String>>,
    unreachable: AtomicBool,
    /// As many batches pass as there are permits.
    gate: Semaphore,
}

#[async_trait::async_trait]
impl Store for Notes {
    async fn run(&self, batch: Vec<Op>) -> Result<Replies, StoreError> {
        if self.unreachable.load(Ordering::Relaxed) {
            return Err(StoreError::Unreachable("unplugged".to_owned()));
        }
        self.gate.acquire().await.unwrap().forget();
        self.taken.lock().unwrap().push(note(&batch));
        self.store.run(batch).await
    }

    async fn refresh_root(&self) -> Result<(), StoreError> {
        self.store.refresh_root().await
    }
}

fn note(batch: &[Op]) -> String {
    let mut verbs = BTreeSet::new();
    let mut tables = BTreeSet::new();
    for op in batch {
        let (verb, key) = match op {
            Op::Fence { key, .. } => ("fence", key),
            Op::Settle { key, .. } => ("settle", key),
            other => panic!("no write does {other:?}"),
        };
        verbs.insert(verb);
        tables.insert(entity_of(key));
    }
    let words: Vec<_> = verbs.into_iter().chain(tables).collect();
    words.join(" ")
}

struct World {
    db: CachedConnection,
    notes: Arc<Notes>,
}

impl World {
    /// Tables `a` and `b` with one row each, `n = 0`.
    async fn new() -> Self {
        let mut options = ConnectOptions::new("sqlite::memory:");
        options.max_connections(1);
        let inner = Database::connect(options).await.unwrap();
        for table in ["a", "b"] {
            let sql =
                format!("CREATE TABLE {table} (n INT UNIQUE); INSERT INTO {table} VALUES (0)");
            inner.execute_unprepared(&sql).await.unwrap();
        }
        let notes = Arc::new(Notes {
            store: MemoryStore::new(1 << 20),
            taken: Mutex::default(),
            unreachable: AtomicBool::new(false),
            gate: Semaphore::new(1_000),
        });
        let store: Arc<dyn Store> = notes.clone();
        let cache = Cache::builder().store(store).build().await.unwrap();
        let site = Site {
            cache,
            ..Site::for_tests()
        };
        let db = CachedConnection::new(inner, site);
        Self { db, notes }
    }

    /// What was noted since the last time.
    fn notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.taken.lock().unwrap())
    }

    async fn n(&self, table: &str) -> i32 {
        let sql = format!("SELECT n FROM {table}");
        let stmt = Statement::from_string(DbBackend::Sqlite, sql);
        let row = self.db.inner().query_one_raw(stmt).await.unwrap().unwrap();
        row.try_get_by_index(0).unwrap()
    }
}

async fn run_on<C: ConnectionTrait>(db: &C, sql: &str) {
    db.execute_unprepared(sql).await.unwrap();
}

fn returning(table: &str) -> Statement {
    let sql = format!("UPDATE {table} SET n = n + 1 RETURNING n");
    Statement::from_string(DbBackend::Sqlite, sql)
}

fn strict(site: &Site) -> Invalidation {
    let mut invalidation = site.plan("UPDATE a SET n = 1", &[]).invalidation;
    invalidation.demand(WritePolicy::Strict);
    invalidation
}

#[tokio::test]
async fn a_write_is_fenced_and_settled_whatever_method_it_takes() {
    let world = World::new().await;
    let db = &world.db;
    run_on(db, "UPDATE a SET n = 1").await;
    assert_eq!(world.notes(), ["fence a", "settle a"]);
    db.execute_raw(returning("a")).await.unwrap();
    assert_eq!(world.notes(), ["fence a", "settle a"]);
    db.query_one_raw(returning("a")).await.unwrap();
    assert_eq!(world.notes(), ["fence a", "settle a"]);
    db.query_all_raw(returning("a")).await.unwrap();
    assert_eq!(world.notes(), ["fence a", "settle a"]);
    assert_eq!(world.n("a").await, 4);
}

#[tokio::test]
async fn a_read_is_not_noticed() {
    let world = World::new().await;
    let select = Statement::from_string(DbBackend::Sqlite, "SELECT n FROM a");
    assert_eq!(
        world.db.query_all_raw(select.clone()).await.unwrap().len(),
        1
    );
    let rows: Vec<_> = world
        .db
        .stream_raw(select)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(world.notes(), [""; 0]);
}

#[tokio::test]
async fn a_write_that_fails_is_settled_too() {
    let world = World::new().await;
    let failed = world
        .db
        .execute_unprepared("INSERT INTO a VALUES (0)")
        .await;
    assert!(failed.is_err());
    assert_eq!(world.notes(), ["fence a", "settle a"]);
}

#[tokio::test]
async fn a_write_whose_caller_goes_away_is_carried_out_and_settled() {
    let world = World::new().await;
    world.notes.gate.forget_permits(1_000);
    let mut write = Box::pin(world.db.execute_unprepared("UPDATE a SET n = 1"));
    assert!(matches!(poll!(&mut write), Poll::Pending));
    drop(write);
    world.notes.gate.add_permits(2);
    while world.notes.taken.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.notes(), ["fence a", "settle a"]);
    assert_eq!(world.n("a").await, 1);
}

#[tokio::test]
async fn a_strict_write_is_refused_before_the_database_is_touched() {
    let world = World::new().await;
    let site = Site {
        cache: world.db.cache().clone(),
        ..Site::for_tests()
    };
    world.notes.unreachable.store(true, Ordering::Relaxed);
    let txn = world.db.begin().await.unwrap();
    run_on(&txn, "UPDATE a SET n = 1").await;
    txn.add(strict(&site));
    let refused = txn.commit().await.unwrap_err().to_string();
    assert!(refused.contains("refused"), "{refused}");
    assert_eq!(world.n("a").await, 0);
}

#[tokio::test]
async fn a_commit_invalidates_everything_and_nothing_was_before() {
    let world = World::new().await;
    let txn = world.db.begin().await.unwrap();
    run_on(&txn, "UPDATE a SET n = 1").await;
    txn.query_all_raw(returning("b")).await.unwrap();
    assert_eq!(world.notes(), [""; 0]);
    txn.commit().await.unwrap();
    assert_eq!(world.notes(), ["fence a b", "settle a b"]);
    assert_eq!(world.n("b").await, 1);
}

#[tokio::test]
async fn a_rollback_or_a_drop_invalidates_nothing() {
    let world = World::new().await;
    let txn = world.db.begin().await.unwrap();
    run_on(&txn, "UPDATE a SET n = 1").await;
    txn.rollback().await.unwrap();
    let txn = world.db.begin().await.unwrap();
    run_on(&txn, "UPDATE a SET n = 1").await;
    drop(txn);
    assert_eq!(world.n("a").await, 0);
    assert_eq!(world.notes(), [""; 0]);
}

#[tokio::test]
async fn a_savepoint_that_is_rolled_back_or_dropped_invalidates_nothing() {
    let world = World::new().await;
    let txn = world.db.begin().await.unwrap();
    let savepoint = txn.begin().await.unwrap();
    run_on(&savepoint, "UPDATE a SET n = 1").await;
    savepoint.rollback().await.unwrap();
    let savepoint = txn.begin().await.unwrap();
    run_on(&savepoint, "UPDATE a SET n = 1").await;
    drop(savepoint);
    let savepoint = txn.begin().await.unwrap();
    run_on(&savepoint, "UPDATE b SET n = 1").await;
    savepoint.commit().await.unwrap();
    assert_eq!(world.notes(), [""; 0]);
    txn.commit().await.unwrap();
    assert_eq!(world.notes(), ["fence b", "settle b"]);
    assert_eq!((world.n("a").await, world.n("b").await), (0, 1));
}

#[tokio::test]
async fn whichever_handle_is_committed_last_commits() {
    let world = World::new().await;
    let txn = world.db.begin().await.unwrap();
    run_on(&txn, "UPDATE a SET n = 1").await;
    let savepoint = txn.begin().await.unwrap();
    txn.commit().await.unwrap();
    assert_eq!(world.notes(), [""; 0]);
    savepoint.commit().await.unwrap();
    assert_eq!(world.notes(), ["fence a", "settle a"]);
    assert_eq!(world.n("a").await, 1);
}

#[tokio::test]
async fn closures_commit_by_their_answer() {
    let world = World::new().await;
    let done = world.db.transaction::<_, _, DbErr>(|txn| {
        Box::pin(async move {
            txn.transaction_async::<_, (), DbErr>(async |savepoint| {
                run_on(savepoint, "UPDATE a SET n = 1").await;
                Err(DbErr::Custom("no".to_owned()))
            })
            .await
            .unwrap_err();
            txn.execute_unprepared("UPDATE b SET n = 1").await
        })
    });
    done.await.unwrap();
    assert_eq!(world.notes(), ["fence b", "settle b"]);
    let undone = world.db.transaction_async(async |txn| {
        run_on(txn, "UPDATE a SET n = 1").await;
        Err::<(), _>(DbErr::Custom("no".to_owned()))
    });
    assert!(matches!(
        undone.await,
        Err(TransactionError::Transaction(_))
    ));
    assert_eq!(world.notes(), [""; 0]);
    assert_eq!((world.n("a").await, world.n("b").await), (0, 1));
}

#[tokio::test]
async fn a_statement_that_fails_in_a_transaction_is_invalidated_at_its_commit() {
    let world = World::new().await;
    let txn = world.db.begin().await.unwrap();
    let failed = txn.execute_unprepared("INSERT INTO a VALUES (0)").await;
    assert!(failed.is_err());
    txn.commit().await.unwrap();
    assert_eq!(world.notes(), ["fence a", "settle a"]);
}

#[tokio::test]
async fn after_a_raw_commit_every_write_invalidates_at_once() {
    let world = World::new().await;
    let txn = world.db.begin().await.unwrap();
    run_on(&txn, "UPDATE a SET n = 1").await;
    run_on(&txn, "COMMIT").await;
    assert_eq!(world.notes(), ["fence a", "settle a"]);
    run_on(&txn, "UPDATE b SET n = 1").await;
    assert_eq!(world.notes(), ["fence b", "settle b"]);
    drop(txn);
    assert_eq!((world.n("a").await, world.n("b").await), (1, 1));
}

#[tokio::test]
async fn a_transaction_in_raw_sql_is_invalidated_at_its_commit() {
    let world = World::new().await;
    let db = &world.db;
    run_on(db, "BEGIN").await;
    run_on(db, "UPDATE a SET n = 1").await;
    run_on(db, "UPDATE b SET n = 1").await;
    world.notes();
    run_on(db, "COMMIT").await;
    assert_eq!(world.notes(), ["fence a b", "settle a b"]);
    run_on(db, "UPDATE b SET n = 2").await;
    assert!(db.execute_unprepared("ROLLBACK").await.is_err());
    assert_eq!(world.notes(), ["fence b", "settle b"]);
}

#[tokio::test]
async fn a_stream_that_writes_is_fenced_until_its_end() {
    let world = World::new().await;
    let mut rows = world.db.stream_raw(returning("a")).await.unwrap();
    assert!(rows.next().await.unwrap().is_ok());
    assert_eq!(world.notes(), ["fence a"]);
    assert!(rows.next().await.is_none());
    while world.notes.taken.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.notes(), ["settle a"]);
}

#[tokio::test]
async fn a_stream_that_writes_in_a_transaction_is_invalidated_at_its_commit() {
    let world = World::new().await;
    let txn = world.db.begin().await.unwrap();
    let rows: Vec<_> = txn
        .stream_raw(returning("a"))
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(world.notes(), [""; 0]);
    txn.commit().await.unwrap();
    assert_eq!(world.notes(), ["fence a", "settle a"]);
}
