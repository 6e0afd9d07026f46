//! The cache is away, slow, broken or full of other people's data.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sea_orm::ActiveValue::Set;
use sea_orm::{ActiveModelTrait, DatabaseConnection, EntityTrait};
use sea_orm_cache::store::Op;
use sea_orm_cache::testing::Fault;
use sea_orm_cache::{Cache, CacheError, CachedConnection, Event, WritePolicy};

use crate::entities::{city, create_tables, ledger};
use crate::reads::{city as a_city, seed};
use crate::support::proxy::Proxy;
use crate::support::{self, Database};
use crate::world::{Place, Sql, World};
use crate::writes::name_of;

pub async fn database() -> (Database, DatabaseConnection) {
    let database = support::sqlite().await;
    let raw = with_paris(&database).await;
    (database, raw)
}

/// The tables, and one city in them.
pub async fn with_paris(database: &Database) -> DatabaseConnection {
    let raw = database.connect().await;
    create_tables(&raw).await;
    city::Entity::insert(a_city(1, None, "paris"))
        .exec(&raw)
        .await
        .unwrap();
    raw
}

pub async fn name(db: &CachedConnection) -> String {
    city::Entity::cached_get(1, db)
        .await
        .unwrap()
        .unwrap()
        .name
        .clone()
}

pub fn rename(name: &str) -> city::ActiveModel {
    city::ActiveModel {
        id: Set(1),
        name: Set(name.to_owned()),
        ..Default::default()
    }
}

#[tokio::test]
async fn build_fails_clearly_when_redis_is_unreachable_and_lazy_starts_degraded() {
    let server = support::redis().await;
    let proxy = Proxy::to(server.addr()).await;
    proxy.refuse().await;
    let error = Cache::builder()
        .redis(proxy.redis_url())
        .build()
        .await
        .unwrap_err();
    assert!(matches!(error, CacheError::Store(_)), "{error}");
    assert!(error.to_string().contains("unreachable"), "{error}");
    let cache = Cache::builder()
        .redis(proxy.redis_url())
        .lazy()
        .build()
        .await
        .unwrap();
    let (_database, raw) = database().await;
    let db = cache.attach(raw);
    assert_eq!(name(&db).await, "PARIS");
    proxy.heal().await;
    until(async || {
        name(&db).await;
        cache.stats().entity("city").hits > 0
    })
    .await;
}

/// Waits until the cache answers the city's name, which is this one all the while.
pub async fn hits_again(db: &CachedConnection, expected: &str) {
    until(async || {
        let hits = db.cache().stats().entity("city").hits;
        assert_eq!(name(db).await, expected);
        db.cache().stats().entity("city").hits > hits
    })
    .await;
}

/// Waits for a condition, not for a time.
pub async fn until(condition: impl AsyncFn() -> bool) {
    let met = tokio::time::timeout(Duration::from_secs(20), async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    met.await.expect("within 20 s");
}

#[tokio::test]
async fn wrong_settings_are_named() {
    let error = Cache::builder()
        .fence_ttl(Duration::ZERO)
        .build()
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cache setting `fence_ttl`: must be at least 1 ms"
    );
    let error = Cache::builder()
        .redis("http://:hunter2@nowhere")
        .build()
        .await
        .unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_stalled_cache_costs_a_read_one_timeout_and_then_nothing() {
    let server = support::redis().await;
    let proxy = Proxy::to(server.addr()).await;
    let builder = Cache::builder()
        .redis(proxy.redis_url())
        .command_timeout(Duration::from_millis(200));
    let cache = builder.build().await.unwrap();
    let (_database, raw) = database().await;
    let db = cache.attach(raw);
    name(&db).await;
    proxy.stall();
    until(async || {
        assert_eq!(name(&db).await, "PARIS");
        cache.stats().degraded
    })
    .await;
    // The breaker is open: few of very many reads are probes, and only a probe pays the timeout.
    let round_trips = cache.stats().round_trips;
    for _ in 0..300 {
        assert_eq!(name(&db).await, "PARIS");
    }
    let probes = cache.stats().round_trips - round_trips;
    assert!(probes < 30, "{probes} of 300 reads were probes");
    proxy.heal().await;
    until(async || {
        name(&db).await;
        !cache.stats().degraded
    })
    .await;
}

#[tokio::test]
async fn an_available_write_goes_on_and_its_invalidation_is_delivered_later() {
    let server = support::redis().await;
    let proxy = Proxy::to(server.addr()).await;
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = seen.clone();
    let near = Cache::builder()
        .redis(proxy.redis_url())
        .observer(move |event: &Event<'_>| match event {
            Event::Undelivered { .. } => log.lock().unwrap().push("undelivered".to_owned()),
            Event::Delivered { .. } => log.lock().unwrap().push("delivered".to_owned()),
            _ => {}
        })
        .build()
        .await
        .unwrap();
    let far = Cache::builder().redis(server.url()).build().await.unwrap();
    let (_database, raw) = database().await;
    let (near_db, far_db) = (near.attach(raw.clone()), far.attach(raw));
    assert_eq!(
        (name(&near_db).await, name(&far_db).await),
        ("PARIS".to_owned(), "PARIS".to_owned())
    );
    proxy.refuse().await;
    proxy.cut();
    rename("written in the dark")
        .update(&near_db)
        .await
        .unwrap();
    assert!(near.stats().undelivered > 0);
    assert_eq!(
        name(&near_db).await,
        "written in the dark",
        "this process bypasses the cache"
    );
    // The documented price of `Available`: another process reads stale until the journal is delivered.
    assert_eq!(name(&far_db).await, "PARIS");
    proxy.heal().await;
    until(async || near.stats().undelivered == 0).await;
    assert_eq!(name(&far_db).await, "written in the dark");
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.first().map(String::as_str), Some("undelivered"));
    assert_eq!(
        seen.iter().filter(|event| *event == "delivered").count(),
        1,
        "{seen:?}"
    );
    until(async || {
        name(&near_db).await;
        near.stats().entity("city").hits > 0
    })
    .await;
}

#[tokio::test]
async fn a_strict_write_is_refused_before_the_database_is_touched() {
    let server = support::redis().await;
    let proxy = Proxy::to(server.addr()).await;
    let cache = Cache::builder()
        .redis(proxy.redis_url())
        .write_policy(WritePolicy::Strict)
        .build()
        .await
        .unwrap();
    let (_database, raw) = database().await;
    let db = cache.attach(raw.clone());
    name(&db).await;
    proxy.refuse().await;
    proxy.cut();
    let error = rename("never").update(&db).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("refused and the database not touched"),
        "{error}"
    );
    let txn = sea_orm::TransactionTrait::begin(&db).await.unwrap();
    rename("never").update(&txn).await.unwrap();
    txn.commit().await.unwrap_err();
    assert_eq!(
        city::Entity::find_by_id(1)
            .one(&raw)
            .await
            .unwrap()
            .unwrap()
            .name,
        "PARIS"
    );
    // One entity may be strict on an available cache.
    let available = Cache::builder()
        .redis(proxy.redis_url())
        .lazy()
        .build()
        .await
        .unwrap()
        .attach(raw);
    rename("available").update(&available).await.unwrap();
    let row = ledger::ActiveModel {
        id: Set(1),
        note: Set("x".to_owned()),
    };
    row.insert(&available).await.unwrap_err();
    proxy.heal().await;
    until(async || {
        let row = ledger::ActiveModel {
            id: Set(1),
            note: Set("x".to_owned()),
        };
        row.insert(&available).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_settle_that_fails_is_journaled() {
    let world = World::new(Sql::Sqlite, Place::Memory).await;
    seed(&world).await;
    name_of(1, &world).await;
    world.store.inject(Fault::refuse().on(Op::is_settle));
    rename("new").update(&world.db).await.unwrap();
    assert!(world.cache.stats().undelivered > 0);
    assert_eq!(name_of(1, &world).await, "new");
    world.store.heal();
    until(async || world.cache.stats().undelivered == 0).await;
    assert_eq!(name_of(1, &world).await, "new");
    until(async || world.cost(city::Entity::cached_get(1, &world.db)).await.1 == world.free())
        .await;
}

#[tokio::test]
async fn damaged_and_foreign_values_are_misses_and_events() {
    let world = World::new(Sql::Sqlite, Place::Redis).await;
    seed(&world).await;
    let redis = world.redis.as_ref().unwrap();
    let key = "soc:main:city:pk:1";
    let fields = async || -> Vec<String> {
        let redis::Value::Array(fields) = redis.cli(&["HKEYS", key]).await else {
            panic!("no hash at {key}")
        };
        fields
            .into_iter()
            .map(|field| redis::from_redis_value(field).unwrap())
            .collect()
    };
    name_of(1, &world).await;
    let [value] = &fields().await[..] else {
        panic!("one value")
    };
    assert!(value.starts_with("v:"), "{value}");
    for garbage in ["", "x", "0123456789", &"y".repeat(500)] {
        redis.cli(&["HSET", key, value, garbage]).await;
        let errors = world.stats("city").errors;
        assert_eq!(name_of(1, &world).await, "PARIS");
        assert!(world.stats("city").errors > errors, "{garbage:?}");
        assert_eq!(
            world.cost(city::Entity::cached_get(1, &world.db)).await.1,
            world.free(),
            "it has healed"
        );
    }
    redis.cli(&["DEL", key]).await;
    redis.cli(&["SET", key, "somebody else's"]).await;
    assert_eq!(name_of(1, &world).await, "PARIS");
    assert_eq!(
        world.cost(city::Entity::cached_get(1, &world.db)).await.1,
        world.free(),
        "it has healed"
    );
    // The same under a generation, and before a write.
    redis.cli(&["DEL", "soc:main:city:gen:rows"]).await;
    redis.cli(&["SET", "soc:main:city:gen:rows", "x"]).await;
    assert_eq!(name_of(1, &world).await, "PARIS");
    redis.cli(&["DEL", key]).await;
    redis.cli(&["LPUSH", key, "x"]).await;
    rename("written").update(&world.db).await.unwrap();
    assert_eq!(name_of(1, &world).await, "written");
}

#[tokio::test]
async fn a_flushed_or_restarted_redis_is_never_stale() {
    let world = World::new(Sql::Sqlite, Place::Redis).await;
    seed(&world).await;
    let redis = world.redis.as_ref().unwrap();
    name_of(1, &world).await;
    redis.cli(&["FLUSHALL"]).await;
    assert_eq!(name_of(1, &world).await, "PARIS");
    // Two processes that met the loss at different times agree again.
    let (other_cache, other) = world.another_process().await;
    for _ in 0..5 {
        name(&other).await;
        name_of(1, &world).await;
    }
    assert!(
        other_cache.stats().entity("city").hits >= 3,
        "{:?}",
        other_cache.stats()
    );

    // A snapshot is taken, a row changes, the server comes back with the snapshot.
    redis.cli(&["SAVE"]).await;
    rename("after the snapshot")
        .update(&world.db)
        .await
        .unwrap();
    redis.kill().await;
    assert_eq!(name_of(1, &world).await, "after the snapshot");
    redis.restart().await;
    until(async || {
        assert_eq!(name_of(1, &world).await, "after the snapshot");
        world.cost(city::Entity::cached_get(1, &world.db)).await.1 == world.free()
    })
    .await;
    assert_eq!(name_of(1, &world).await, "after the snapshot");
}
