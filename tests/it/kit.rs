//! The test kit: first a service tested with it as its users would, then the kit itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sea_orm::ActiveValue::Set;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, Database, DatabaseConnection, DbErr,
    EntityTrait, QueryFilter, Statement, TransactionTrait,
};
use sea_orm_cache::store::{Fingerprint, Op, Reply, Store, StoreError, Token};
use sea_orm_cache::testing::{Cost, Fault, FaultyStore, Meter, Server, Watch, assert_fresh};
use sea_orm_cache::{Cache, CachedConnection, Key, WritePolicy};

use crate::entities::{city, create_tables};
use crate::reads::city as a_city;
use crate::support;

/// The service under test.
mod service {
    use super::*;

    pub async fn city_name(id: i64, db: &CachedConnection) -> Result<Option<String>, DbErr> {
        let city = city::Entity::cached_get(id, db).await?;
        Ok(city.map(|city| city.name.clone()))
    }

    pub async fn rename_city(id: i64, name: &str, db: &CachedConnection) -> Result<(), DbErr> {
        let txn = db.begin().await?;
        let row = city::ActiveModel {
            id: Set(id),
            name: Set(name.to_owned()),
            slug: Set(name.to_lowercase()),
            ..Default::default()
        };
        row.update(&txn).await?;
        txn.commit().await
    }
}

/// A process of the service.
struct Process {
    store: Arc<FaultyStore>,
    cache: Cache,
    db: CachedConnection,
    meter: Meter,
}

impl Process {
    async fn new(server: Arc<dyn Store>, mut database: DatabaseConnection) -> Self {
        let store = FaultyStore::around(server);
        let cache = Cache::builder().store(store.clone()).build().await.unwrap();
        let meter = Meter::new(&cache, &mut database);
        let db = cache.attach(database);
        Self {
            store,
            cache,
            db,
            meter,
        }
    }

    async fn name(&self) -> String {
        let name = service::city_name(1, &self.db).await.unwrap();
        name.expect("city 1 is there")
    }

    async fn rename(&self, name: &str) {
        service::rename_city(1, name, &self.db).await.unwrap();
    }
}

/// A database with one city, a cache server, and one process.
async fn service() -> (support::Database, Arc<Server>, Process) {
    let database = support::sqlite().await;
    let raw = database.connect().await;
    create_tables(&raw).await;
    let paris = a_city(1, None, "paris");
    city::Entity::insert(paris).exec(&raw).await.unwrap();
    let server = Server::start();
    let process = Process::new(server.clone(), database.connect().await).await;
    (database, server, process)
}

#[tokio::test]
async fn a_renamed_city_is_fresh_and_cached_reads_cost_no_statement() {
    let (_database, _server, process) = service().await;
    let cities = Watch::<city::Entity>::over([1, 99], &process.db);
    cities.assert_fresh().await;
    process.rename("Lutetia").await;
    cities.assert_fresh().await;
    let (name, cost) = process.meter.cost(process.name()).await;
    assert_eq!((name.as_str(), cost.statements), ("Lutetia", 0));
}

#[tokio::test]
async fn a_rename_fences_the_row_its_new_slug_and_what_may_follow_it() {
    let (_database, _server, process) = service().await;
    process.store.take_fenced();
    process.rename("Lutetia").await;
    let fenced: Vec<String> = process.store.take_fenced().into_iter().collect();
    let expected = [
        "city:gen:list",
        "city:ix:slug:lutetia",
        "city:pk:1",
        // A foreign key may refer to the slug.
        "city_tag:gen:index",
        "city_tag:gen:list",
        "city_tag:gen:rows",
    ];
    assert_eq!(fenced, expected.map(|key| format!("soc:main:{key}")));
}

#[tokio::test]
async fn the_service_survives_an_outage_and_a_slow_cache() {
    let (_database, _server, process) = service().await;
    process.name().await;
    process.store.outage();
    process.rename("Lutetia").await;
    assert_eq!(process.name().await, "Lutetia");
    process.store.heal();
    until(async || process.cache.stats().undelivered == 0).await;
    let fault = Fault::delay(Duration::from_millis(5)).times(1);
    process.store.inject(fault);
    assert_fresh::<city::Entity>([1], &process.db).await;
}

#[tokio::test]
async fn a_slow_reader_cannot_put_the_old_city_back() {
    let (_database, _server, process) = service().await;
    let pause = process.store.pause_before(Op::is_fill);
    let db = process.db.clone();
    let slow = tokio::spawn(async move { service::city_name(1, &db).await });
    pause.arrived().await;
    process.rename("Lutetia").await;
    pause.resume();
    let seen = slow.await.unwrap().unwrap();
    assert_eq!(seen.as_deref(), Some("PARIS"), "it began before the write");
    assert_eq!(process.name().await, "Lutetia");
}

#[tokio::test]
async fn the_others_read_fresh_when_a_writer_dies_after_its_commit() {
    let (database, server, process) = service().await;
    let other = Process::new(server.clone(), database.connect().await).await;
    assert_eq!(other.name().await, "PARIS");
    let pause = process.store.pause_before(Op::is_settle);
    let db = process.db.clone();
    let writer = tokio::spawn(async move { service::rename_city(1, "Lutetia", &db).await });
    pause.arrived().await;
    process.store.crash();
    writer.await.unwrap().unwrap_err();
    // Its fence stands: the database answers, and nothing is filled.
    for _ in 0..2 {
        let (name, cost) = other.meter.cost(other.name()).await;
        assert_eq!((name.as_str(), cost.statements), ("Lutetia", 1));
    }
    // When it is gone, the city is cached again.
    server.evict(|_| true);
    other.name().await;
    let (name, cost) = other.meter.cost(other.name()).await;
    assert_eq!((name.as_str(), cost.statements), ("Lutetia", 0));
}

#[tokio::test]
async fn a_writer_that_dies_before_its_commit_has_changed_nothing() {
    let (database, server, process) = service().await;
    let other = Process::new(server, database.connect().await).await;
    let pause = process.store.pause_after(Op::is_fence);
    let db = process.db.clone();
    let writer = tokio::spawn(async move { service::rename_city(1, "Lutetia", &db).await });
    pause.arrived().await;
    process.store.crash();
    writer.await.unwrap().unwrap_err();
    assert_eq!(other.name().await, "PARIS");
    other.rename("Lutetia").await;
    assert_fresh::<city::Entity>([1], &other.db).await;
}

#[tokio::test]
async fn a_server_that_restarts_empty_or_from_an_old_snapshot_serves_nothing_old() {
    let (_database, server, process) = service().await;
    let cities = Watch::<city::Entity>::over([1], &process.db);
    cities.assert_fresh().await;
    let snapshot = server.snapshot();
    process.rename("Lutetia").await;
    server.restart_from(&snapshot);
    cities.assert_fresh().await;
    server.restart();
    let (name, cost) = process.meter.cost(process.name()).await;
    assert_eq!((name.as_str(), cost.statements), ("Lutetia", 1));
    cities.assert_fresh().await;
}

/// Waits for a condition, not for a time.
async fn until(condition: impl AsyncFn() -> bool) {
    let met = tokio::time::timeout(Duration::from_secs(20), async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    met.await.expect("within 20 s");
}

fn read(key: &str) -> Op {
    Op::Read {
        key: Key::from(key.to_owned()),
        field: Fingerprint(1),
    }
}

fn fence(key: &str) -> Op {
    Op::Fence {
        key: Key::from(key.to_owned()),
        writer: Token::random(),
        ttl: Duration::from_secs(60),
    }
}

fn generation(key: &str) -> Op {
    Op::Generation {
        key: Key::from(key.to_owned()),
        fresh: Token::random(),
        ttl: None,
    }
}

/// The only answer to a batch of one, and the root.
async fn ask(store: &impl Store, op: Op) -> (Reply, Token) {
    let replies = store.run(vec![op]).await.unwrap();
    let [reply] = &replies.items[..] else {
        panic!("one reply: {replies:?}")
    };
    (reply.clone(), replies.root)
}

#[tokio::test]
async fn stale_rows_index_entries_and_lists_are_named() {
    let (database, _server, process) = service().await;
    let cities = Watch::<city::Entity>::over([1, 2], &process.db);
    assert_eq!(cities.stale().await.unwrap(), Vec::<String>::new());
    // A write that the cache does not see.
    let behind = database.connect().await;
    let row = city::ActiveModel {
        id: Set(1),
        name: Set("unseen".to_owned()),
        ..Default::default()
    };
    row.update(&behind).await.unwrap();
    let second = a_city(2, None, "second");
    city::Entity::insert(second).exec(&behind).await.unwrap();
    let stale = cities.stale().await.unwrap();
    let of = |what: &str| {
        let name = |line: &&String| line.starts_with(&format!("city, {what}: "));
        let found: Vec<_> = stale.iter().filter(name).collect();
        assert_eq!(found.len(), 1, "{what} in {stale:#?}");
        found[0].split_once(": ").unwrap().1.to_owned()
    };
    let line = of("key 1");
    for words in ["answers {id: 1,", "name: 'PARIS'", "name: 'unseen'"] {
        assert!(line.contains(words), "{line}");
    }
    assert!(of("key 2").starts_with("the cache answers no row; "));
    assert!(of("index slug 'paris'").contains("name: 'unseen'"));
    assert!(of("index rank 1").contains("slug: 'second'"));
    assert!(of("all rows").contains("slug: 'second'"));
    assert_eq!(stale.len(), 5, "{stale:#?}");
    let task = tokio::spawn(async move { cities.assert_fresh().await });
    let panic = task.await.unwrap_err().into_panic();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains(&stale.join("\n")), "{message}");
}

#[tokio::test]
async fn the_entry_of_an_old_value_and_of_one_to_come_are_compared() {
    let (database, _server, process) = service().await;
    let to_come = city::Model {
        id: 2,
        country_id: None,
        slug: "second".to_owned(),
        name: String::new(),
        rank: 7,
    };
    let cities = Watch::<city::Entity>::over([1], &process.db).also([to_come]);
    cities.assert_fresh().await;
    let behind = database.connect().await;
    let renamed = city::ActiveModel {
        id: Set(1),
        slug: Set("lutetia".to_owned()),
        ..Default::default()
    };
    renamed.update(&behind).await.unwrap();
    let second = a_city(2, None, "second");
    city::Entity::insert(second).exec(&behind).await.unwrap();
    let stale = cities.stale().await.unwrap().join("\n");
    for words in ["index slug 'paris'", "index slug 'second'", "key 2"] {
        assert!(stale.contains(words), "{words} in {stale}");
    }
}

#[tokio::test]
async fn statements_are_counted_also_inside_a_transaction() {
    let mut database = Database::connect("sqlite::memory:").await.unwrap();
    let meter = Meter::new(&Cache::in_memory(), &mut database);
    let select =
        |number: u8| Statement::from_string(sea_orm::DbBackend::Sqlite, format!("SELECT {number}"));
    database.query_one_raw(select(1)).await.unwrap();
    let (answer, cost) = meter
        .cost(async {
            let txn = database.begin().await?;
            txn.query_one_raw(select(1)).await?;
            txn.query_one_raw(select(2)).await?;
            txn.commit().await
        })
        .await;
    answer.unwrap();
    let mut expected = Cost {
        statements: 2,
        round_trips: 0,
    };
    assert_eq!(cost, expected);
    expected.statements = 3;
    assert_eq!(meter.total(), expected);
}

#[tokio::test]
async fn a_refused_batch_is_not_carried_out_and_a_lost_reply_is() {
    let server = Server::start();
    let store = FaultyStore::around(server.clone());
    for (fault, carried_out) in [(Fault::refuse(), false), (Fault::lose_reply(), true)] {
        let key = format!("{fault:?}");
        store.inject(fault);
        let error = store.run(vec![generation(&key)]).await.unwrap_err();
        assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
        store.refresh_root().await.unwrap_err();
        store.heal();
        store.refresh_root().await.unwrap();
        let peek = Op::Peek {
            key: Key::from(key.clone()),
        };
        let (reply, _) = ask(&*server, peek).await;
        assert_eq!(reply != Reply::Generation(None), carried_out, "{key}");
    }
}

#[tokio::test]
async fn faults_hit_the_batches_that_they_are_narrowed_down_to() {
    let store = FaultyStore::around(Server::start());
    store.inject(Fault::refuse().on(Op::is_fence).times(2));
    let outcome = async |batch| store.run(batch).await.is_ok();
    assert!(outcome(vec![read("a")]).await);
    assert!(!outcome(vec![read("a"), fence("a")]).await);
    assert!(outcome(vec![read("a")]).await);
    assert!(!outcome(vec![fence("a")]).await);
    assert!(outcome(vec![fence("a")]).await);

    store.inject(Fault::refuse().chance(0.25));
    let mut refused = 0;
    for _ in 0..1_000 {
        refused += u32::from(!outcome(vec![read("a")]).await);
    }
    assert!((200..300).contains(&refused), "{refused}");
    store.heal();
    assert!(outcome(vec![read("a")]).await);
}

#[tokio::test]
async fn a_delayed_batch_comes_so_much_later_and_others_do_not_wait() {
    const DELAY: Duration = Duration::from_millis(200);
    let store = FaultyStore::around(Server::start());
    store.inject(Fault::delay(DELAY).on(Op::is_read));
    let asked = Instant::now();
    let delayed = async {
        ask(&*store, read("a")).await;
        asked.elapsed()
    };
    let other = async {
        ask(&*store, fence("a")).await;
        asked.elapsed()
    };
    let (delayed, other) = tokio::join!(delayed, other);
    assert!(other < DELAY && delayed >= DELAY, "{other:?}, {delayed:?}");
}

#[tokio::test]
async fn what_is_evicted_is_gone_with_its_fences_and_the_rest_stays() {
    let server = Server::start();
    let (kept, root) = ask(&*server, generation("kept")).await;
    ask(&*server, generation("lost")).await;
    ask(&*server, fence("fenced")).await;
    server.evict(|key| key.as_str() != "kept");
    let (_, fresh) = (generation("lost"), generation("fenced"));
    assert_ne!(ask(&*server, fresh).await.0, Reply::Generation(None));
    let peek = |key: &str| Op::Peek {
        key: Key::from(key.to_owned()),
    };
    assert_eq!(ask(&*server, peek("lost")).await.0, Reply::Generation(None));
    assert_eq!(ask(&*server, peek("kept")).await, (kept, root));
}

#[tokio::test]
async fn a_restarted_server_has_another_root_and_a_snapshot_keeps_what_was() {
    let server = Server::start();
    let (old, first) = ask(&*server, generation("a")).await;
    let snapshot = server.snapshot();
    server.restart();
    let peek = || Op::Peek {
        key: Key::from("a".to_owned()),
    };
    let (reply, second) = ask(&*server, peek()).await;
    assert_eq!(reply, Reply::Generation(None));
    ask(&*server, fence("a")).await;
    for _ in 0..2 {
        server.restart_from(&snapshot);
        let (reply, third) = ask(&*server, peek()).await;
        assert_eq!(reply, old);
        assert!(third != first && third != second);
        ask(&*server, fence("a")).await;
    }
}

#[tokio::test]
async fn a_dropped_pause_lets_go_and_each_arrival_is_told_once() {
    let store = FaultyStore::around(Server::start());
    let pause = store.pause_before(Op::is_read);
    let batches: Vec<_> = (0..2)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { ask(&*store, read("a")).await })
        })
        .collect();
    pause.arrived().await;
    pause.arrived().await;
    let none = tokio::time::timeout(Duration::from_millis(20), pause.arrived());
    none.await.unwrap_err();
    ask(&*store, fence("a")).await;
    assert!(batches.iter().all(|batch| !batch.is_finished()));
    drop(pause);
    for batch in batches {
        batch.await.unwrap();
    }
    ask(&*store, read("a")).await;
}

#[tokio::test]
#[should_panic(expected = "this process has crashed: use another cache")]
async fn a_crashed_process_must_not_be_used() {
    let store = FaultyStore::around(Server::start());
    store.crash();
    ask(&*store, read("a")).await;
}

#[tokio::test]
async fn a_strict_write_is_refused_while_fences_are() {
    let (database, _server, _process) = service().await;
    let store = FaultyStore::around(Server::start());
    let cache = Cache::builder()
        .store(store.clone())
        .write_policy(WritePolicy::Strict);
    let db = cache
        .build()
        .await
        .unwrap()
        .attach(database.connect().await);
    store.inject(Fault::refuse().on(Op::is_fence));
    let delete = city::Entity::delete_many().filter(city::Column::Id.eq(1));
    let error = delete.exec(&db).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    assert_fresh::<city::Entity>([1], &db).await;
}
