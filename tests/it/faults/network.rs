//! The way to Redis fails, or one process of several is cut off.

use std::time::Duration;

use sea_orm::{ActiveModelTrait, ConnectionTrait, TransactionTrait};
use sea_orm_cache::store::Op;
use sea_orm_cache::{Cache, CachedConnection, WritePolicy};

use crate::entities::city;
use crate::outages::{database, hits_again, name, rename, until, with_paris};
use crate::reads::seed;
use crate::support::{self, Proxy, RedisServer};
use crate::world::{Place, Sql, World};
use crate::writes::name_of;

/// A process whose way to Redis can be broken, and one whose cannot.
struct Two {
    proxy: Proxy,
    near: CachedConnection,
    far: CachedConnection,
    redis: RedisServer,
    _database: support::Database,
}

async fn two(policy: WritePolicy) -> Two {
    let redis = support::redis().await;
    let proxy = Proxy::to(redis.addr()).await;
    let (database, raw) = database().await;
    let builder = || {
        Cache::builder()
            .write_policy(policy)
            .command_timeout(Duration::from_millis(200))
    };
    let near = builder().redis(proxy.redis_url()).build().await.unwrap();
    let far = builder().redis(redis.url()).build().await.unwrap();
    Two {
        near: near.attach(raw.clone()),
        far: far.attach(raw),
        proxy,
        redis,
        _database: database,
    }
}

#[tokio::test]
async fn cut_connections_cost_a_batch_and_no_freshness() {
    let two = two(WritePolicy::Strict).await;
    for round in 0..20 {
        name(&two.near).await;
        two.redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        assert!(!name(&two.near).await.is_empty());
        let new = format!("round {round}");
        // A strict write may meet the broken connection itself, and is told so.
        until(async || rename(&new).update(&two.near).await.is_ok()).await;
        assert_eq!(
            (name(&two.near).await, name(&two.far).await),
            (new.clone(), new)
        );
    }
    hits_again(&two.near, "round 19").await;
}

#[tokio::test]
async fn a_half_open_connection_is_given_up_and_a_new_one_made() {
    let two = two(WritePolicy::Available).await;
    name(&two.near).await;
    two.proxy.stall();
    // Nothing is answered, and nothing is closed.
    until(async || {
        name(&two.near).await;
        two.near.cache().stats().degraded
    })
    .await;
    rename("in the dark").update(&two.near).await.unwrap();
    assert_eq!(name(&two.near).await, "in the dark");
    two.proxy.heal().await;
    until(async || two.near.cache().stats().undelivered == 0).await;
    assert_eq!(name(&two.far).await, "in the dark");
    hits_again(&two.near, "in the dark").await;
}

#[tokio::test]
async fn a_strict_write_through_a_stalled_connection_is_refused() {
    let two = two(WritePolicy::Strict).await;
    name(&two.near).await;
    two.proxy.stall();
    rename("never").update(&two.near).await.unwrap_err();
    assert_eq!(
        (name(&two.near).await, name(&two.far).await),
        ("PARIS".into(), "PARIS".into())
    );
    two.proxy.heal().await;
    until(async || rename("new").update(&two.near).await.is_ok()).await;
    assert_eq!(
        (name(&two.near).await, name(&two.far).await),
        ("new".into(), "new".into())
    );
    hits_again(&two.near, "new").await;
}

#[tokio::test]
async fn a_slow_way_to_redis_is_slow_and_fresh() {
    let two = two(WritePolicy::Strict).await;
    two.proxy.delay(Duration::from_millis(20));
    for round in 0..3 {
        let new = format!("round {round}");
        rename(&new).update(&two.far).await.unwrap();
        assert_eq!(name(&two.near).await, new);
        rename("by the slow one").update(&two.near).await.unwrap();
        assert_eq!(name(&two.far).await, "by the slow one");
    }
    hits_again(&two.near, "by the slow one").await;
}

#[tokio::test]
async fn a_redis_that_comes_back_with_an_old_snapshot_serves_nothing_of_it() {
    let two = two(WritePolicy::Strict).await;
    name(&two.far).await;
    two.redis.cli(&["SAVE"]).await;
    rename("new").update(&two.near).await.unwrap();
    // The snapshot holds the old row; what was written since is lost.
    two.redis.kill().await;
    two.redis.restart().await;
    for db in [&two.near, &two.far] {
        until(async || {
            assert_eq!(name(db).await, "new");
            !db.cache().stats().degraded
        })
        .await;
        hits_again(db, "new").await;
    }
}

#[tokio::test]
async fn eviction_at_any_moment_costs_misses_only() {
    let two = two(WritePolicy::Strict).await;
    for round in 0..50 {
        name(&two.far).await;
        let keys = two.redis.cli(&["KEYS", "soc:*"]).await;
        let keys: Vec<String> = redis::from_redis_value(keys).unwrap();
        let key = &keys[fastrand::usize(..keys.len())];
        two.redis.cli(&["UNLINK", key]).await;
        let new = format!("round {round}");
        rename(&new).update(&two.near).await.unwrap();
        let key = &keys[fastrand::usize(..keys.len())];
        two.redis.cli(&["UNLINK", key]).await;
        assert_eq!(
            (name(&two.near).await, name(&two.far).await),
            (new.clone(), new)
        );
    }
    hits_again(&two.near, "round 49").await;
}

#[tokio::test]
async fn a_full_redis_takes_invalidations_and_caches_nothing() {
    let two = two(WritePolicy::Strict).await;
    name(&two.far).await;
    two.redis
        .cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"])
        .await;
    two.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    rename("while it was full").update(&two.near).await.unwrap();
    for db in [&two.near, &two.far] {
        assert_eq!(name(db).await, "while it was full");
    }
    two.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    hits_again(&two.near, "while it was full").await;
    assert_eq!(name(&two.far).await, "while it was full");
}

#[tokio::test]
async fn scripts_that_were_flushed_cost_nothing_but_time() {
    let two = two(WritePolicy::Strict).await;
    for round in 0..5 {
        name(&two.far).await;
        two.redis.cli(&["SCRIPT", "FLUSH"]).await;
        let new = format!("round {round}");
        rename(&new).update(&two.near).await.unwrap();
        assert_eq!(
            (name(&two.near).await, name(&two.far).await),
            (new.clone(), new)
        );
    }
    assert!(
        city::Entity::cached_get(1, &two.far)
            .await
            .unwrap()
            .is_some()
    );
    hits_again(&two.near, "round 4").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_between_commit_and_settle_comes_back_fresh() {
    let world = World::new(Sql::Sqlite, Place::Redis).await;
    seed(&world).await;
    let redis = world.redis.as_ref().unwrap();
    assert_eq!(name_of(1, &world).await, "PARIS");
    redis.cli(&["SAVE"]).await;
    let pause = world.store.pause_before(Op::is_settle);
    let db = world.db.clone();
    let write = tokio::spawn(async move { rename("new").update(&db).await });
    pause.arrived().await;
    redis.kill().await;
    pause.resume();
    write.await.unwrap().unwrap();
    assert!(world.cache.stats().undelivered > 0, "it is in the journal");
    assert_eq!(name_of(1, &world).await, "new");
    redis.restart().await;
    let (_, other) = world.another_process().await;
    assert_eq!(
        name(&other).await,
        "new",
        "the snapshot's row is not believed"
    );
    until(async || world.cache.stats().undelivered == 0).await;
    assert_eq!(
        (name_of(1, &world).await, name(&other).await),
        ("new".into(), "new".into())
    );
    hits_again(&world.db, "new").await;
}

/// One fault takes the fence and the connection over which to settle.
async fn restarted_under_a_write(policy: WritePolicy, noticed: bool) {
    let (database, redis) = (support::postgres().await, support::redis().await);
    let raw = with_paris(&database).await;
    let process = async || {
        let builder = Cache::builder().write_policy(policy);
        let cache = builder.redis(redis.url()).build().await.unwrap();
        cache.attach(database.connect().await)
    };
    let (writer, reader) = (process().await, process().await);
    let lock = raw.begin().await.unwrap();
    let lock_row = "SELECT 1 FROM city WHERE id = 1 FOR UPDATE";
    lock.execute_unprepared(lock_row).await.unwrap();
    let db = writer.clone();
    let write = tokio::spawn(async move { rename("new").update(&db).await });
    until(async || redis.cli(&["EXISTS", "soc:main:city:pk:1"]).await == redis::Value::Int(1))
        .await;
    redis.kill().await;
    if noticed {
        // The breaker opens at the third failure, and stays open for 800 ms after the sixth.
        let failed = writer.cache().stats().round_trips + 6;
        until(async || {
            name(&writer).await;
            writer.cache().stats().round_trips >= failed
        })
        .await;
    }
    redis.restart().await;
    hits_again(&reader, "PARIS").await;
    lock.rollback().await.unwrap();
    write.await.unwrap().unwrap();
    assert_eq!(name(&reader).await, "new");
    assert_eq!(writer.cache().stats().undelivered, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_restarts_under_a_write_is_told_before_the_write_returns() {
    restarted_under_a_write(WritePolicy::Available, false).await;
    restarted_under_a_write(WritePolicy::Strict, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_restarts_under_a_write_is_told_although_the_breaker_is_open() {
    restarted_under_a_write(WritePolicy::Available, true).await;
    restarted_under_a_write(WritePolicy::Strict, true).await;
}

#[tokio::test]
async fn a_lease_whose_holder_died_is_taken_over() {
    let redis = support::redis().await;
    let (_database, raw) = database().await;
    let builder = Cache::builder().lease_ttl(Duration::from_millis(300));
    let cache = builder.redis(redis.url()).build().await.unwrap();
    let db = cache.attach(raw);
    name(&db).await;
    // What a process leaves that ends between its query and its fill: its lease, and no value.
    let key = "soc:main:city:pk:1";
    let fields: Vec<String> = redis::from_redis_value(redis.cli(&["HKEYS", key]).await).unwrap();
    let [value] = &fields[..] else {
        panic!("{fields:?}")
    };
    let time: Vec<u64> = redis::from_redis_value(redis.cli(&["TIME"]).await).unwrap();
    let deadline = time[0] * 1_000 + time[1] / 1_000 + 300;
    redis.cli(&["DEL", key]).await;
    let lease = format!("00000000000000ab:{deadline}");
    redis
        .cli(&["HSET", key, &value.replace("v:", "l:"), &lease])
        .await;
    assert_eq!(name(&db).await, "PARIS");
    hits_again(&db, "PARIS").await;
}
