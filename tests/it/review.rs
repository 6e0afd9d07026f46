//! What a review of the whole found: corners where a read went wrong, waited or failed.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectOptions, ConnectionTrait, EntityTrait, QueryFilter,
    Schema, TransactionTrait,
};
use sea_orm_cache::store::Op;
use sea_orm_cache::testing::Fault;
use sea_orm_cache::{Cache, CachedConnection, Event};

use crate::entities::{city, line, word};
use crate::reads::seed;
use crate::world::{Place, Sql, World};
use crate::writes::name_of;

/// A parent and a child whose foreign key is of another integer type.
mod parent {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "review_parent")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
}

mod child {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "review_child")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        pub parent_id: i32,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {
        #[sea_orm(
            belongs_to = "super::parent::Entity",
            from = "Column::ParentId",
            to = "super::parent::Column::Id"
        )]
        Parent,
    }

    impl Related<super::parent::Entity> for Entity {
        fn to() -> RelationDef {
            Relation::Parent.def()
        }
    }
}

async fn sqlite_memory() -> World {
    World::new(Sql::Sqlite, Place::Memory).await
}

async fn until(condition: impl AsyncFn() -> bool) {
    within(20_000, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn within<T>(millis: u64, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_millis(millis), work)
        .await
        .unwrap_or_else(|_| panic!("not within {millis} ms"))
}

fn rename(id: i64, name: &str) -> city::ActiveModel {
    city::ActiveModel {
        id: Set(id),
        name: Set(name.to_owned()),
        ..Default::default()
    }
}

async fn meaning(id: &'static str, db: CachedConnection) -> Option<String> {
    let row = word::Entity::cached_get(id, &db).await.unwrap();
    row.map(|row| row.meaning.clone())
}

/// Another cache handle over the world's store.
async fn cache(
    world: &World,
    set: impl FnOnce(sea_orm_cache::CacheBuilder) -> sea_orm_cache::CacheBuilder,
) -> Cache {
    let builder = Cache::builder().store(world.store.clone());
    set(builder).build().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_of_one_spelling_does_not_answer_a_read_of_another() {
    let world = sqlite_memory().await;
    let row = |id: &str| word::ActiveModel {
        id: Set(id.to_owned()),
        kind: Set(id.to_owned()),
        meaning: Set(format!("{id}!")),
    };
    world.seed([row("key"), row("KEY")]).await;
    let pause = world.store.pause_before(Op::is_fill);
    let lower = tokio::spawn(meaning("key", world.db.clone()));
    pause.arrived().await;
    let before = world.cache.stats().round_trips;
    let upper = tokio::spawn(meaning("KEY", world.db.clone()));
    let absent = tokio::spawn(meaning("Key", world.db.clone()));
    // They have met the lease of the first.
    until(async || world.cache.stats().round_trips >= before + 4).await;
    pause.resume();
    assert_eq!(lower.await.unwrap().as_deref(), Some("key!"));
    assert_eq!(upper.await.unwrap().as_deref(), Some("KEY!"));
    assert_eq!(absent.await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_load_of_one_spelling_does_not_answer_a_read_of_another() {
    let world = sqlite_memory().await;
    let row = word::ActiveModel {
        id: Set("1".to_owned()),
        kind: Set("kind".to_owned()),
        meaning: Set("x".to_owned()),
    };
    world.seed([row]).await;
    let of = |kind: &'static str| {
        let db = world.db.clone();
        async move {
            word::Entity::cached_find_by_kind(kind, &db)
                .await
                .unwrap()
                .len()
        }
    };
    let pause = world.store.pause_before(Op::is_fill);
    let none = tokio::spawn(of("KIND"));
    pause.arrived().await;
    let before = world.cache.stats().round_trips;
    let one = tokio::spawn(of("kind"));
    until(async || world.cache.stats().round_trips >= before + 2).await;
    pause.resume();
    assert_eq!((none.await.unwrap(), one.await.unwrap()), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_during_a_write_do_not_queue_up_behind_one_another() {
    let world = sqlite_memory().await;
    seed(&world).await;
    // The writer stands before its settling, the first reader before it gives its lease back.
    let pause = world
        .store
        .pause_before(|op| op.is_settle() || op.is_release());
    let db = world.db.clone();
    let writer = tokio::spawn(async move { rename(1, "new").update(&db).await.unwrap() });
    pause.arrived().await;
    let db = world.db.clone();
    let first = tokio::spawn(async move { city::Entity::cached_all(&db).await.unwrap().len() });
    pause.arrived().await;
    let (rows, cost) = world
        .cost(within(2_000, city::Entity::cached_all(&world.db)))
        .await;
    assert_eq!(rows.unwrap().len(), 4);
    assert!(cost.round_trips <= 3, "{cost:?}");
    // The same for rows that are not there, which depend on the whole table, too.
    let absent =
        |db: CachedConnection| async move { city::Entity::cached_get(99, &db).await.unwrap() };
    let leader = tokio::spawn(absent(world.db.clone()));
    pause.arrived().await;
    let (row, cost) = world.cost(within(2_000, absent(world.db.clone()))).await;
    assert_eq!(row, None);
    assert!(cost.round_trips <= 3, "{cost:?}");
    pause.resume();
    writer.await.unwrap();
    assert_eq!(first.await.unwrap(), 4);
    assert_eq!(leader.await.unwrap(), None);
}

/// On one thread: who waits without a pause keeps the one it waits for from going on.
#[tokio::test]
async fn a_reader_that_may_not_join_a_load_waits_without_asking_all_the_time() {
    let world = sqlite_memory().await;
    seed(&world).await;
    let pause = world.store.pause_before(Op::is_fill);
    let db = world.db.clone();
    let slow = tokio::spawn(async move { name_at(1, &db).await });
    pause.arrived().await;
    city::Entity::update_many()
        .col_expr(city::Column::Name, Expr::value("bulk"))
        .filter(city::Column::Rank.eq(1))
        .exec(&world.db)
        .await
        .unwrap();
    let before = world.cache.stats().round_trips;
    let db = world.db.clone();
    let late = tokio::spawn(async move { name_at(1, &db).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let asked = world.cache.stats().round_trips - before;
    pause.resume();
    assert_eq!(slow.await.unwrap(), "PARIS");
    assert_eq!(late.await.unwrap(), "bulk");
    assert!(asked < 50, "{asked} requests in 300 ms");
}

async fn name_at(id: i64, db: &CachedConnection) -> String {
    let row = city::Entity::cached_get(id, db).await.unwrap();
    row.unwrap().name.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_keys_that_others_fail_to_load_are_waited_for_together() {
    const KEYS: i64 = 12;
    let world = sqlite_memory().await;
    let cache = cache(&world, |builder| {
        builder.lease_ttl(Duration::from_millis(300))
    })
    .await;
    // A pool whose only connection is taken: loads through it hang.
    let mut options = ConnectOptions::new(world.database.url());
    options.max_connections(1);
    let stuck = cache.attach(sea_orm::Database::connect(options).await.unwrap());
    let taken = stuck.begin().await.unwrap();
    let before = cache.stats().round_trips;
    for id in 1..=KEYS {
        let db = stuck.clone();
        tokio::spawn(async move { city::Entity::cached_get(id, &db).await });
    }
    until(async || cache.stats().round_trips >= before + 2 * KEYS as u64).await;
    let db = cache.attach(world.database.connect().await);
    let rows = within(2_000, city::Entity::cached_get_many(1..=KEYS, &db)).await;
    assert!(rows.unwrap().iter().all(Option::is_none));
    taken.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_composite_keys_are_one_call() {
    let world = sqlite_memory().await;
    let row = |n: i64| line::ActiveModel {
        order_id: Set(n),
        position: Set("a".to_owned()),
        product: Set("p".to_owned()),
        amount: Set(1),
    };
    for chunk in (0..2_000).collect::<Vec<_>>().chunks(500) {
        world.seed(chunk.iter().copied().map(row)).await;
    }
    let keys = (0..2_000).map(|n| (n, "a".to_owned()));
    let rows = line::Entity::cached_get_many(keys, &world.db)
        .await
        .unwrap();
    assert!(
        rows.iter()
            .enumerate()
            .all(|(n, row)| { row.as_ref().is_some_and(|row| row.order_id == n as i64) })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_key_of_another_integer_type_finds_its_row() {
    let world = sqlite_memory().await;
    let schema = Schema::new(world.backend());
    for table in [
        schema.create_table_from_entity(parent::Entity),
        schema.create_table_from_entity(child::Entity),
    ] {
        world.raw.execute(&table).await.unwrap();
    }
    world.seed([parent::ActiveModel { id: Set(5) }]).await;
    for (parent_id, found) in [(5, Some(5)), (6, None)] {
        let child = child::Model { id: 1, parent_id };
        for _ in 0..2 {
            let one = child.cached_related_one(parent::Entity, &world.db);
            assert_eq!(one.await.unwrap().map(|row| row.id), found);
            let txn = world.db.begin().await.unwrap();
            let one = child.cached_related_one(parent::Entity, &txn);
            assert_eq!(one.await.unwrap().map(|row| row.id), found);
            txn.rollback().await.unwrap();
        }
    }
    assert!(world.stats("review_parent").hits > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_still_answers_what_it_holds() {
    let world = World::new(Sql::Sqlite, Place::Redis).await;
    seed(&world).await;
    name_of(1, &world).await;
    let redis = world.redis.as_ref().unwrap();
    redis
        .cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"])
        .await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_eq!(name_of(2, &world).await, "LYON");
    assert_eq!(city::Entity::cached_get(99, &world.db).await.unwrap(), None);
    let (_, cost) = world.cost(city::Entity::cached_get(1, &world.db)).await;
    assert_eq!(cost.statements, 0);
    // And it is told of writes.
    rename(1, "new").update(&world.db).await.unwrap();
    assert_eq!(name_of(1, &world).await, "new");
    assert_eq!(world.cache.stats().undelivered, 0);
}

#[test]
fn a_journal_outlives_the_runtime_that_it_began_in() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let first = runtime();
    let world = first.block_on(async {
        let world = sqlite_memory().await;
        seed(&world).await;
        world.store.inject(Fault::refuse().on(Op::is_settle));
        rename(1, "new").update(&world.db).await.unwrap();
        world
    });
    assert!(world.cache.stats().undelivered > 0);
    first.shutdown_background();
    world.store.heal();
    let second = runtime();
    second.block_on(async {
        let db = world.cache.attach(world.database.connect().await);
        until(async || {
            assert_eq!(name_at(1, &db).await, "new");
            world.cache.stats().undelivered == 0
        })
        .await;
    });
    // What is left of the database belongs to the first runtime.
    std::mem::forget(world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_does_not_wait_for_the_renewal_of_its_fence() {
    let world = sqlite_memory().await;
    seed(&world).await;
    let cache = cache(&world, |builder| {
        builder.fence_ttl(Duration::from_millis(60))
    })
    .await;
    let db = cache.attach(world.database.connect().await);
    // Another writer holds the database until the renewal is on its way.
    let other = world.raw.begin().await.unwrap();
    rename(2, "other").update(&other).await.unwrap();
    let before = cache.stats().round_trips;
    let writer = tokio::spawn(async move { rename(1, "new").update(&db).await.unwrap() });
    until(async || cache.stats().round_trips > before).await;
    let pause = world.store.pause_before(Op::is_fence);
    pause.arrived().await;
    other.commit().await.unwrap();
    within(3_000, writer).await.unwrap();
    pause.resume();
    assert_eq!(name_of(1, &world).await, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_times_are_times_like_others() {
    let world = sqlite_memory().await;
    seed(&world).await;
    let cache = cache(&world, |builder| {
        builder.lease_ttl(Duration::MAX).fence_ttl(Duration::MAX)
    })
    .await;
    let db = cache.attach(world.database.connect().await);
    for _ in 0..2 {
        assert_eq!(name_at(1, &db).await, "PARIS");
        let all = sea_orm_cache::QueryCache::cached(word::Entity::find()).ttl(Duration::MAX);
        assert_eq!(all.all(&db).await.unwrap().len(), 0);
    }
    rename(1, "new").update(&db).await.unwrap();
    assert_eq!(name_at(1, &db).await, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_that_panics_loses_no_invalidation() {
    let world = sqlite_memory().await;
    seed(&world).await;
    let armed = Arc::new(AtomicBool::new(false));
    let panics = armed.clone();
    let cache = cache(&world, |builder| {
        builder.observer(move |_: &Event<'_>| assert!(!panics.load(Ordering::SeqCst)))
    })
    .await;
    let db = cache.attach(world.database.connect().await);
    assert_eq!(name_at(1, &db).await, "PARIS");
    world.store.inject(Fault::refuse().on(Op::is_settle));
    armed.store(true, Ordering::SeqCst);
    rename(1, "new").update(&db).await.unwrap();
    assert!(cache.stats().undelivered > 0);
    assert_eq!(name_at(1, &db).await, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_text_keys_cost_no_query_each() {
    let world = sqlite_memory().await;
    let row = |id: &str| word::ActiveModel {
        id: Set(id.to_owned()),
        kind: Set("k".to_owned()),
        meaning: Set(id.to_owned()),
    };
    world.seed([row("a"), row("b"), row("C")]).await;
    let many = word::Entity::cached_get_many(["a", "x", "b", "y"], &world.db);
    let (rows, cost) = world.cost(many).await;
    let found: Vec<_> = rows.unwrap().iter().map(Option::is_some).collect();
    assert_eq!(found, [true, false, true, false]);
    assert_eq!(cost.statements, 1);
    // `c` may be `C`: the database tells.
    let many = word::Entity::cached_get_many(["C", "c"], &world.db).await;
    assert_eq!(many.unwrap().iter().flatten().count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hits_and_misses_are_all_lookups_on_every_road() {
    let world = sqlite_memory().await;
    seed(&world).await;
    let lookups = || {
        let stats = world.stats("city");
        stats.hits + stats.misses
    };
    let db = &world.db;
    // Cold, warm, twice the same key, an index and its row, a select.
    for _ in 0..2 {
        let before = lookups();
        city::Entity::cached_get(1, db).await.unwrap();
        assert_eq!(lookups() - before, 1);
        city::Entity::cached_get_many([1, 2, 2, 99], db)
            .await
            .unwrap();
        assert_eq!(lookups() - before, 4);
        city::Entity::cached_all(db).await.unwrap();
        assert_eq!(lookups() - before, 5);
    }
    // What cannot be keyed.
    let before = lookups();
    city::Entity::cached_find_by_slug("gr\u{fc}n", db)
        .await
        .unwrap();
    assert_eq!(lookups() - before, 1);
    // The store fails, and then is bypassed.
    for fault in [Fault::refuse(), Fault::refuse().on(Op::is_settle)] {
        world.store.inject(fault);
        rename(1, "new").update(db).await.unwrap();
        let before = lookups();
        city::Entity::cached_get_many([1, 2], db).await.unwrap();
        assert_eq!(lookups() - before, 2);
        world.store.heal();
        until(async || world.cache.stats().undelivered == 0).await;
    }
    // Those who join a load.
    let pause = world.store.pause_before(Op::is_fill);
    let before = lookups();
    let readers: Vec<_> = (0..20)
        .map(|_| {
            let db = world.db.clone();
            tokio::spawn(async move { name_at(3, &db).await })
        })
        .collect();
    pause.arrived().await;
    pause.resume();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), "ROME");
    }
    assert_eq!(lookups() - before, 20);
}

#[tokio::test]
async fn the_futures_are_of_moderate_size() {
    let world = sqlite_memory().await;
    let (db, all) = (
        &world.db,
        sea_orm_cache::QueryCache::cached(city::Entity::find()),
    );
    let sizes = [
        size_of_val(&city::Entity::cached_get(1, db)),
        size_of_val(&city::Entity::cached_get_many([1], db)),
        size_of_val(&city::Entity::cached_find_by_slug("a", db)),
        size_of_val(&all.all(db)),
        size_of_val(&all.page(0, 1, db)),
        size_of_val(&rename(1, "a").update(db)),
    ];
    assert!(sizes.iter().all(|size| *size < 8 << 10), "{sizes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn very_many_keys_are_not_taken_for_a_slow_cache() {
    let world = World::new(Sql::Sqlite, Place::Redis).await;
    let url = world.redis.as_ref().unwrap().url();
    let cache = Cache::builder().redis(url).build().await.unwrap();
    let db = cache.attach(world.database.connect().await);
    for misses in [40_000, 0] {
        let before = cache.stats().entity("city").misses;
        let rows = city::Entity::cached_get_many(0..40_000, &db).await;
        assert!(rows.unwrap().iter().all(Option::is_none));
        assert_eq!(cache.stats().entity("city").misses - before, misses);
    }
    assert_eq!(cache.stats().entity("city").errors, 0);
}
