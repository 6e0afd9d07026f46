//! Readers and writers that meet.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::Expr;
use sea_orm::{ActiveModelTrait, ColumnTrait, EntityTrait, QueryFilter, TransactionTrait};
use sea_orm_cache::Cache;
use sea_orm_cache::QueryCache;
use sea_orm_cache::store::{Op, Store, Token};
use sea_orm_cache::testing::Pause;

use crate::entities::city;
use crate::on_all;
use crate::reads::seed;
use crate::world::World;
use crate::writes::name_of;

on_all!(
    a_slow_reader_cannot_put_the_old_row_back,
    a_slow_list_reader_cannot_put_the_old_list_back,
    a_reader_cannot_join_a_load_that_began_before_a_bulk_write,
    a_crash_between_fence_and_settle_costs_misses_only,
    a_reader_during_a_write_asks_the_database_and_fills_nothing,
    a_cancelled_reader_leaves_nothing_behind,
    a_cancelled_writer_still_invalidates,
    another_process_reads_fresh_and_waits_for_a_load,
);

fn rename(id: i64, name: &str) -> city::ActiveModel {
    city::ActiveModel {
        id: Set(id),
        name: Set(name.to_owned()),
        ..Default::default()
    }
}

/// Reads a row in a task that stops after its query, before its fill.
async fn stopped_reader(id: i64, world: &World) -> (Pause, tokio::task::JoinHandle<String>) {
    let pause = world.store.pause_before(Op::is_fill);
    let db = world.db.clone();
    let reader = tokio::spawn(async move {
        city::Entity::cached_get(id, &db)
            .await
            .unwrap()
            .unwrap()
            .name
            .clone()
    });
    pause.arrived().await;
    (pause, reader)
}

async fn a_slow_reader_cannot_put_the_old_row_back(world: World) {
    seed(&world).await;
    let (pause, reader) = stopped_reader(1, &world).await;
    rename(1, "new").update(&world.db).await.unwrap();
    pause.resume();
    assert_eq!(
        reader.await.unwrap(),
        "PARIS",
        "it was reading while the write happened"
    );
    assert_eq!(world.stats("city").superseded, 1);
    assert_eq!(name_of(1, &world).await, "new");
    // The same with a transaction.
    let (pause, reader) = stopped_reader(2, &world).await;
    let txn = world.db.begin().await.unwrap();
    rename(2, "newer").update(&txn).await.unwrap();
    txn.commit().await.unwrap();
    pause.resume();
    assert_eq!(reader.await.unwrap(), "LYON");
    assert_eq!(name_of(2, &world).await, "newer");
}

async fn a_slow_list_reader_cannot_put_the_old_list_back(world: World) {
    seed(&world).await;
    let pause = world.store.pause_before(Op::is_fill);
    let db = world.db.clone();
    let lists = tokio::spawn(async move {
        (
            city::Entity::cached_find_by_country_id(10, &db)
                .await
                .unwrap()
                .len(),
            city::Entity::find().cached().all(&db).await.unwrap().len(),
        )
    });
    pause.arrived().await;
    let row = city::ActiveModel {
        id: Set(6),
        ..crate::reads::city(6, Some(10), "bern")
    };
    row.insert(&world.db).await.unwrap();
    pause.resume();
    assert_eq!(lists.await.unwrap().0, 2);
    assert_eq!(
        city::Entity::cached_find_by_country_id(10, &world.db)
            .await
            .unwrap()
            .len(),
        3
    );
    assert_eq!(
        city::Entity::find()
            .cached()
            .all(&world.db)
            .await
            .unwrap()
            .len(),
        5
    );
}

async fn a_reader_cannot_join_a_load_that_began_before_a_bulk_write(world: World) {
    seed(&world).await;
    let (pause, reader) = stopped_reader(1, &world).await;
    // The bulk write kills the generation; the reader's lease on the row still stands.
    city::Entity::update_many()
        .col_expr(city::Column::Name, Expr::value("bulk"))
        .filter(city::Column::Rank.eq(1))
        .exec(&world.db)
        .await
        .unwrap();
    let db = world.db.clone();
    let late = tokio::spawn(async move {
        city::Entity::cached_get(1, &db)
            .await
            .unwrap()
            .unwrap()
            .name
            .clone()
    });
    // The late reader meets the lease and may not take the old answer; it waits for the lease to go.
    tokio::task::yield_now().await;
    pause.resume();
    assert_eq!(reader.await.unwrap(), "PARIS");
    assert_eq!(late.await.unwrap(), "bulk");
    assert_eq!(name_of(1, &world).await, "bulk");
}

async fn a_crash_between_fence_and_settle_costs_misses_only(world: World) {
    seed(&world).await;
    name_of(1, &world).await;
    // A writer fences, commits, and dies.
    let key = "soc:main:city:pk:1".to_owned();
    let fence = Op::Fence {
        key: key.into(),
        writer: Token::random(),
        ttl: Duration::from_millis(300),
    };
    world.store.run(vec![fence]).await.unwrap();
    // Without hooks, which would write to the cache that another test has installed.
    let unseen = city::Entity::update(rename(1, "after the crash"));
    unseen.exec(&world.raw).await.unwrap();
    let (row, cost) = world.cost(city::Entity::cached_get(1, &world.db)).await;
    assert_eq!(
        (row.unwrap().unwrap().name.as_str(), cost.statements),
        ("after the crash", 1)
    );
    assert!(world.stats("city").fenced > 0);
    // When the fence has expired, the row is cached again.
    let expired = tokio::time::timeout(Duration::from_secs(5), async {
        while world.cost(city::Entity::cached_get(1, &world.db)).await.1 != world.free() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    expired.await.expect("the fence expires");
    assert_eq!(name_of(1, &world).await, "after the crash");
}

async fn a_reader_during_a_write_asks_the_database_and_fills_nothing(world: World) {
    seed(&world).await;
    name_of(1, &world).await;
    let pause = world.store.pause_before(Op::is_settle);
    let db = world.db.clone();
    let writer = tokio::spawn(async move { rename(1, "written").update(&db).await.unwrap() });
    pause.arrived().await;
    // The statement is done, the fence stands.
    let (row, cost) = world.cost(city::Entity::cached_get(1, &world.db)).await;
    assert_eq!(
        (row.unwrap().unwrap().name.as_str(), cost.statements),
        ("written", 1)
    );
    let (_, cost) = world.cost(city::Entity::cached_get(1, &world.db)).await;
    assert_eq!(cost.statements, 1, "nothing was filled");
    pause.resume();
    writer.await.unwrap();
    name_of(1, &world).await;
    assert_eq!(
        world.cost(city::Entity::cached_get(1, &world.db)).await.1,
        world.free()
    );
}

async fn a_cancelled_reader_leaves_nothing_behind(world: World) {
    seed(&world).await;
    let (pause, reader) = stopped_reader(1, &world).await;
    reader.abort();
    assert!(reader.await.unwrap_err().is_cancelled());
    pause.resume();
    // Its lease is given back: the next reader need not wait for it to expire.
    let read = tokio::time::timeout(Duration::from_secs(2), name_of(1, &world));
    assert_eq!(read.await.expect("no wait for a lease of 3 s"), "PARIS");
}

async fn a_cancelled_writer_still_invalidates(world: World) {
    seed(&world).await;
    name_of(1, &world).await;
    let pause = world.store.pause_before(Op::is_settle);
    let db = world.db.clone();
    let writer = tokio::spawn(async move { rename(1, "written").update(&db).await.unwrap() });
    pause.arrived().await;
    writer.abort();
    assert!(writer.await.unwrap_err().is_cancelled());
    pause.resume();
    assert_eq!(name_of(1, &world).await, "written");
    let settled = tokio::time::timeout(Duration::from_secs(5), async {
        while world.cost(city::Entity::cached_get(1, &world.db)).await.1 != world.free() {
            tokio::task::yield_now().await;
        }
    });
    settled
        .await
        .expect("the write is settled long before its fence expires");
}

async fn another_process_reads_fresh_and_waits_for_a_load(world: World) {
    seed(&world).await;
    let (other_cache, other) = world.another_process().await;
    name_of(1, &world).await;
    let row = city::Entity::cached_get(1, &other).await.unwrap().unwrap();
    assert_eq!(
        (row.name.as_str(), other_cache.stats().entity("city").hits),
        ("PARIS", 1)
    );
    rename(1, "from here").update(&world.db).await.unwrap();
    assert_eq!(
        city::Entity::cached_get(1, &other)
            .await
            .unwrap()
            .unwrap()
            .name,
        "from here"
    );
    // A reader of the other process waits for our load instead of sending its own.
    let pause = world.store.pause_before(Op::is_fill);
    let db = world.db.clone();
    let leader =
        tokio::spawn(async move { city::Entity::cached_get(2, &db).await.unwrap().unwrap().id });
    pause.arrived().await;
    let other = Arc::new(other);
    let waiting = tokio::spawn(async move {
        city::Entity::cached_get(2, &*other)
            .await
            .unwrap()
            .unwrap()
            .id
    });
    tokio::task::yield_now().await;
    pause.resume();
    assert_eq!((leader.await.unwrap(), waiting.await.unwrap()), (2, 2));
    let stats = other_cache.stats().entity("city");
    assert_eq!(
        (stats.loads, stats.hits + stats.coalesced),
        (1, 2),
        "{stats:?}"
    );
    let _: Cache = other_cache;
}
