//! The in-process tier: what it answers, and when it stops.

mod processes;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sea_orm::ActiveValue::Set;
use sea_orm::{ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter};
use sea_orm_cache::store::{MemoryStore, Op};
use sea_orm_cache::testing::{Cost, Fault};
use sea_orm_cache::{
    Cache, CacheBuilder, CacheError, CachedConnection, Consistency, EntityStats, Event, QueryCache,
};

use crate::entities::{city, document, line};
use crate::outages::{database, name, rename, until};
use crate::reads::seed;
use crate::support::{self, Database, Proxy, RedisServer};
use crate::world::{Place, Sql, World};

/// Two processes over one Redis; the first has an in-process tier, and its way to Redis can be broken.
struct Two {
    tiered: CachedConnection,
    other: CachedConnection,
    proxy: Proxy,
    redis: RedisServer,
    _database: Database,
}

/// The server is asked every 100 ms whether it is still there.
const MAX_SILENCE: Duration = Duration::from_millis(300);

async fn two() -> Two {
    let redis = support::redis().await;
    let proxy = Proxy::to(redis.addr()).await;
    let (database, raw) = database().await;
    let tiered = tiered(proxy.redis_url()).build().await.unwrap();
    let other = Cache::builder().redis(redis.url()).build().await.unwrap();
    Two {
        tiered: tiered.attach(raw.clone()),
        other: other.attach(raw),
        proxy,
        redis,
        _database: database,
    }
}

fn tiered(url: String) -> CacheBuilder {
    let builder = Cache::builder().redis(url).l1(1 << 20);
    builder
        .max_silence(MAX_SILENCE)
        .command_timeout(Duration::from_millis(200))
}

fn stats(db: &CachedConnection) -> EntityStats {
    db.cache().stats().entity("city")
}

/// Reads until the tier answers, and the right thing all the while.
async fn held(db: &CachedConnection, expected: &str) {
    until(async || {
        let before = stats(db).l1_hits;
        assert_eq!(name(db).await, expected);
        stats(db).l1_hits > before
    })
    .await;
}

/// Reads until the tier answers what was written just now, which every read does that begins once
/// `max_silence` has passed.
async fn seen_in_time(db: &CachedConnection, expected: &str) {
    let written = Instant::now();
    loop {
        let age = written.elapsed();
        if name(db).await == expected {
            return;
        }
        assert!(age < MAX_SILENCE, "still stale after {age:?}");
        // What the tier answers leaves no time to hear of a change.
        tokio::task::yield_now().await;
    }
}

const NOTHING: Cost = Cost {
    statements: 0,
    round_trips: 0,
};

#[tokio::test]
async fn what_it_answers_costs_nothing_in_every_way_to_read() {
    let world = World::new(Sql::Sqlite, Place::Tiered).await;
    seed(&world).await;
    let id = uuid(7);
    let db = &world.db;
    line(1, "a").insert(db).await.unwrap();
    document::ActiveModel {
        id: Set(id),
        title: Set("of a UUID".to_owned()),
    }
    .insert(db)
    .await
    .unwrap();
    let read = async || {
        let paris = city::Entity::cached_get(1, db).await.unwrap().unwrap();
        assert_eq!(paris.slug, "paris");
        assert_eq!(city::Entity::cached_get(99, db).await.unwrap(), None);
        let some = city::Entity::cached_get_many([2, 1, 99], db).await.unwrap();
        assert!(some[0].is_some() && some[1].is_some() && some[2].is_none());
        assert_eq!(city::Entity::cached_all(db).await.unwrap().len(), 4);
        let lyon = city::Entity::cached_find_by_slug("lyon", db).await.unwrap();
        assert_eq!(lyon.unwrap().id, 2);
        let french = city::Entity::cached_find_by_country_id(10, db).await;
        assert_eq!(french.unwrap().len(), 2);
        let select = city::Entity::find().filter(city::Column::Id.lt(3)).cached();
        assert_eq!(select.all(db).await.unwrap().len(), 2);
        assert_eq!(select.count(db).await.unwrap(), 2);
        let document = document::Entity::cached_get(id, db).await.unwrap();
        assert_eq!(document.unwrap().title, "of a UUID");
        let line = line::Entity::cached_get((1, "a".to_owned()), db).await;
        assert_eq!(line.unwrap().unwrap().amount, 5);
    };
    read().await;
    read().await;
    let before = world.stats("city");
    let ((), cost) = world.cost(read()).await;
    assert_eq!(cost, NOTHING);
    let after = world.stats("city");
    assert_eq!(after.hits - before.hits, after.l1_hits - before.l1_hits);
    // A row, none, three, all rows, an index and its row, an index and its two rows, a select, a count.
    assert_eq!(
        after.l1_hits - before.l1_hits,
        1 + 1 + 3 + 1 + 2 + 3 + 1 + 1
    );
    assert_eq!(after.absent_hits - before.absent_hits, 2);
    let tier = world.cache.stats().l1.unwrap();
    assert!(
        tier.alive && tier.entries > 8 && tier.bytes > 1_000,
        "{tier:?}"
    );
}

#[tokio::test]
async fn selects_that_differ_in_no_more_than_their_tags_are_not_each_others() {
    let world = World::new(Sql::Sqlite, Place::Tiered).await;
    seed(&world).await;
    let tagged = |tag: &str| city::Entity::find().cached().tags([tag]);
    let read = async |tag: &str| world.cost(tagged(tag).all(&world.db)).await.1;
    for tag in ["a", "b", "a", "b"] {
        read(tag).await;
    }
    assert_eq!(read("b").await, NOTHING);
    world.cache.invalidate_tags(["b"]).await.unwrap();
    assert_eq!(read("a").await, NOTHING);
    assert_eq!(read("b").await.statements, 1);
}

#[tokio::test]
async fn all_rows_and_a_select_of_some_are_not_each_others() {
    let world = World::new(Sql::Sqlite, Place::Tiered).await;
    seed(&world).await;
    let db = &world.db;
    for _ in 0..3 {
        assert_eq!(city::Entity::cached_all(db).await.unwrap().len(), 4);
        let none = city::Entity::find()
            .filter(city::Column::Id.gt(99))
            .cached();
        assert_eq!(none.all(db).await.unwrap().len(), 0);
        assert_eq!(none.one(db).await.unwrap(), None);
        assert_eq!(none.count(db).await.unwrap(), 0);
    }
    city::Entity::delete_by_id(1).exec(db).await.unwrap();
    assert_eq!(city::Entity::cached_all(db).await.unwrap().len(), 3);
}

fn uuid(n: u128) -> sea_orm::prelude::Uuid {
    sea_orm::prelude::Uuid::from_u128(n)
}

fn line(order_id: i64, position: &str) -> line::ActiveModel {
    line::ActiveModel {
        order_id: Set(order_id),
        position: Set(position.to_owned()),
        product: Set("p".to_owned()),
        amount: Set(5),
    }
}

#[tokio::test]
async fn generations_that_it_knows_are_not_asked_for_again() {
    let world = World::new(Sql::Sqlite, Place::Tiered).await;
    seed(&world).await;
    let others = Cache::builder().redis(world.redis.as_ref().unwrap().url());
    let others = others.build().await.unwrap().attach(world.raw.clone());
    city::Entity::cached_get_many([1, 2, 3], &others)
        .await
        .unwrap();
    city::Entity::cached_get(1, &world.db).await.unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    // Stops nothing.
    let _watch = world.store.pause_before(move |op| {
        log.lock().unwrap().push(op.key().to_string());
        false
    });
    city::Entity::cached_get(2, &world.db).await.unwrap();
    let mut asked = std::mem::take(&mut *asked.lock().unwrap());
    asked.dedup();
    assert_eq!(asked, ["soc:main:city:pk:2"], "the value and its life");
}

#[tokio::test]
async fn own_writes_leave_it_before_their_call_returns() {
    let world = World::new(Sql::Postgres, Place::Tiered).await;
    seed(&world).await;
    for round in 0..200 {
        let new = format!("round {round}");
        rename(&new).update(&world.db).await.unwrap();
        assert_eq!(name(&world.db).await, new);
        assert_eq!(name(&world.db).await, new);
    }
    assert!(world.stats("city").l1_hits >= 200);
}

#[tokio::test]
async fn a_write_of_another_process_empties_it_of_that() {
    let two = two().await;
    for round in 0..50 {
        let new = format!("round {round}");
        rename(&new).update(&two.other).await.unwrap();
        seen_in_time(&two.tiered, &new).await;
        held(&two.tiered, &new).await;
    }
    two.other
        .execute_unprepared("UPDATE city SET name = 'bulk'")
        .await
        .unwrap();
    seen_in_time(&two.tiered, "bulk").await;
    held(&two.tiered, "bulk").await;
}

#[tokio::test]
async fn linearizable_reads_skip_it_by_entity_and_by_call() {
    let two = two().await;
    let fresh = two.tiered.with_consistency(Consistency::Linearizable);
    let uncached = two.tiered.with_consistency(Consistency::Database);
    held(&two.tiered, "PARIS").await;
    for round in 0..50 {
        let new = format!("round {round}");
        rename(&new).update(&two.other).await.unwrap();
        assert_eq!(name(&fresh).await, new);
        assert_eq!(name(&uncached).await, new);
    }
    let before = stats(&two.tiered);
    name(&fresh).await;
    name(&uncached).await;
    let after = stats(&two.tiered);
    assert_eq!(
        (after.hits, after.l1_hits),
        (before.hits + 1, before.l1_hits)
    );
}

#[tokio::test]
async fn when_the_connection_is_lost_it_is_empty() {
    let two = two().await;
    held(&two.tiered, "PARIS").await;
    two.redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    // The close reaches this process some time later, and no later than the answer that fails.
    until(async || {
        let before = stats(&two.tiered);
        assert_eq!(name(&two.tiered).await, "PARIS");
        stats(&two.tiered).l1_hits == before.l1_hits
    })
    .await;
    held(&two.tiered, "PARIS").await;
}

#[tokio::test]
async fn a_connection_that_is_half_open_keeps_it_for_max_silence_at_most() {
    let two = two().await;
    held(&two.tiered, "PARIS").await;
    two.proxy.stall();
    let stalled = tokio::time::Instant::now();
    rename("in the dark").update(&two.other).await.unwrap();
    let written = tokio::time::Instant::now();
    let mut last_hit = stalled;
    while stalled.elapsed() < MAX_SILENCE * 3 {
        let (asked, before) = (tokio::time::Instant::now(), stats(&two.tiered).l1_hits);
        let answer = name(&two.tiered).await;
        if stats(&two.tiered).l1_hits > before {
            last_hit = asked;
        }
        assert!(
            answer == "in the dark" || asked - written < MAX_SILENCE,
            "{answer} {:?} after the write",
            asked - written
        );
    }
    assert!(last_hit - stalled < MAX_SILENCE, "{:?}", last_hit - stalled);
    assert!(!two.tiered.cache().stats().l1.unwrap().alive);
    two.proxy.heal().await;
    held(&two.tiered, "in the dark").await;
}

#[tokio::test]
async fn a_flush_empties_it() {
    let two = two().await;
    held(&two.tiered, "PARIS").await;
    two.redis.cli(&["FLUSHALL"]).await;
    until(async || {
        let before = stats(&two.tiered).l1_hits;
        name(&two.tiered).await;
        stats(&two.tiered).l1_hits == before
    })
    .await;
    held(&two.tiered, "PARIS").await;
}

#[tokio::test]
async fn a_value_that_was_changed_on_its_way_is_not_held() {
    let world = World::new(Sql::Sqlite, Place::Tiered).await;
    seed(&world).await;
    let other = Cache::builder().redis(world.redis.as_ref().unwrap().url());
    let other = other.build().await.unwrap().attach(world.raw.clone());
    let fresh = world.db.with_consistency(Consistency::Linearizable);
    for _ in 0..20 {
        rename("old").update(&other).await.unwrap();
        assert_eq!(name(&fresh).await, "old");
        // The old row has come from Redis, and nothing was done with it yet.
        let pause = world.store.pause_after(Op::is_read);
        let db = world.db.clone();
        let reader = tokio::spawn(async move { name(&db).await });
        pause.arrived().await;
        rename("new").update(&other).await.unwrap();
        pause.resume();
        assert_eq!(reader.await.unwrap(), "old", "it began before the write");
        // What Redis had to tell of the write was told before it answers this.
        assert_eq!(name(&fresh).await, "new");
        assert_eq!(name(&world.db).await, "new");
    }
}

#[tokio::test]
async fn what_waits_in_the_journal_is_not_held() {
    let world = World::new(Sql::Sqlite, Place::Tiered).await;
    seed(&world).await;
    held(&world.db, "PARIS").await;
    let invalidations = Fault::refuse().on(|op| op.is_fence() || op.is_settle());
    world.store.inject(invalidations);
    rename("new").update(&world.db).await.unwrap();
    let before = world.stats("city").l1_hits;
    for _ in 0..3 {
        assert_eq!(name(&world.db).await, "new");
    }
    assert_eq!(world.stats("city").l1_hits, before);
    world.store.heal();
    until(async || world.cache.stats().undelivered == 0).await;
    held(&world.db, "new").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_another_process_is_woken_by_its_fill() {
    let world = World::new(Sql::Sqlite, Place::Tiered).await;
    seed(&world).await;
    let other = tiered(world.redis.as_ref().unwrap().url().to_owned());
    let other = other.build().await.unwrap();
    let other_db = other.attach(world.raw.clone());
    let pause = world.store.pause_before(Op::is_fill);
    let db = world.db.clone();
    let leader = tokio::spawn(async move { name(&db).await });
    pause.arrived().await;
    let follower = tokio::spawn(async move { name(&other_db).await });
    until(async || other.stats().round_trips >= 2).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let asked = other.stats().round_trips;
    assert!(asked <= 8, "{asked} round trips in 200 ms");
    pause.resume();
    assert_eq!(leader.await.unwrap(), follower.await.unwrap());
    let city = other.stats().entity("city");
    assert_eq!((city.loads, city.coalesced), (0, 1));
}

#[tokio::test]
async fn it_lives_before_a_store_in_memory_too_and_not_before_a_store_that_tells_nothing() {
    let (_database, raw) = database().await;
    let cache = Cache::builder()
        .memory(1 << 20)
        .l1(1 << 20)
        .build()
        .await
        .unwrap();
    let db = cache.attach(raw);
    for round in 0..20 {
        let new = format!("round {round}");
        rename(&new).update(&db).await.unwrap();
        name(&db).await;
        assert_eq!(name(&db).await, new);
    }
    assert!(stats(&db).l1_hits >= 20);
    let silent = Cache::builder()
        .store(Arc::new(MemoryStore::new(1 << 20)))
        .l1(1);
    let error = silent.build().await.unwrap_err();
    assert!(
        matches!(error, CacheError::Setting { setting: "l1", .. }),
        "{error}"
    );
    let hasty = tiered("redis://127.0.0.1/".to_owned()).max_silence(Duration::from_millis(99));
    let error = hasty.build().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cache setting `max_silence`: must be at least 100 ms"
    );
}

#[tokio::test]
async fn an_observer_sees_its_hits() {
    let (_database, raw) = database().await;
    let hits = Arc::new(Mutex::new((0, 0)));
    let seen = hits.clone();
    let observer = move |event: &Event<'_>| {
        if let Event::Lookup { hits, l1_hits, .. } = event {
            let mut seen = seen.lock().unwrap();
            *seen = (seen.0 + hits, seen.1 + l1_hits);
        }
    };
    let builder = Cache::builder()
        .memory(1 << 20)
        .l1(1 << 20)
        .observer(observer);
    let db = builder.build().await.unwrap().attach(raw);
    for _ in 0..5 {
        name(&db).await;
    }
    assert_eq!(*hits.lock().unwrap(), (4, 4));
    assert_eq!((stats(&db).hits, stats(&db).l1_hits), (4, 4));
}
