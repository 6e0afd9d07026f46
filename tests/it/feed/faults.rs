//! What is applied although something fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, Database};
use sea_orm_cache::store::Op;
use sea_orm_cache::testing::Fault;
use sea_orm_cache::{Feed, FeedError};

use super::{foreign, waiting, watched};
use crate::entities::city;
use crate::outages::{name, until};
use crate::support::{self, Proxy, Shutdown};
use crate::world::{Place, Sql, World};

const ALL: [Sql; 3] = [Sql::Sqlite, Sql::Postgres, Sql::MariaDb];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_is_away_changes_wait_and_none_is_lost() {
    for sql in ALL {
        let world = World::new(sql, Place::Redis).await;
        let feed = watched(&world).await;
        world.warm().await;
        world.store.outage();
        foreign(&world, "UPDATE city SET name = 'new'").await;
        let failed = feed.drain().await.unwrap_err();
        assert!(matches!(failed, FeedError::Cache(_)), "{failed}");
        assert_eq!(waiting(&world).await, 4, "{sql:?}");
        let running = tokio::spawn(async move { feed.run().await });
        world.store.heal();
        until(async || waiting(&world).await == 0).await;
        until(async || world.cache.stats().undelivered == 0).await;
        world.assert_fresh("an outage").await;
        running.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_redis_keeps_changes_waiting() {
    let world = World::new(Sql::Postgres, Place::Redis).await;
    let feed = watched(&world).await.idle(Duration::from_millis(20));
    world.warm().await;
    let redis = world.redis.as_ref().unwrap();
    redis.cli(&["SAVE"]).await;
    redis.kill().await;
    let running = tokio::spawn(async move { feed.run().await });
    foreign(&world, "UPDATE city SET name = 'new' WHERE id < 3").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(waiting(&world).await, 2);
    redis.restart().await;
    until(async || waiting(&world).await == 0).await;
    world.assert_fresh("a restart").await;
    running.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_ends_between_applying_and_deleting_leaves_changes_to_the_next() {
    for sql in ALL {
        let world = World::new(sql, Place::Redis).await;
        let feed = watched(&world).await;
        world.warm().await;
        foreign(&world, "UPDATE city SET name = 'new'").await;
        let pause = world.store.pause_after(Op::is_settle);
        let applying = tokio::spawn(async move { feed.drain().await });
        pause.arrived().await;
        applying.abort();
        assert!(applying.await.unwrap_err().is_cancelled());
        pause.resume();
        // Another has read meanwhile.
        world.warm_anyhow().await;
        until(async || waiting(&world).await == 4).await;
        assert_eq!(Feed::new(&world.db).drain().await.unwrap(), 4, "{sql:?}");
        world.assert_fresh("the end of a feed").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_write_while_a_feed_applies() {
    for sql in ALL {
        let world = World::new(sql, Place::Redis).await;
        let feed = watched(&world).await;
        world.warm().await;
        foreign(&world, "UPDATE city SET name = 'new'").await;
        let pause = world.store.pause_before(Op::is_settle);
        let applying = tokio::spawn(async move { feed.drain().await });
        pause.arrived().await;
        // Neither rows nor gaps of the outbox are locked for them.
        let write = foreign(&world, "UPDATE city SET name = 'newer'");
        tokio::time::timeout(Duration::from_secs(5), write)
            .await
            .expect("not kept waiting");
        pause.resume();
        assert_eq!(applying.await.unwrap().unwrap(), 8, "{sql:?}");
        world.assert_fresh("both").await;
    }
}

/// The host of a feed is gone without a word, with changes in its hands: after 30 s they are another's. And should
/// only the network have gone, the first one tells of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_vanished_feed_had_taken_is_anothers_in_time() {
    let (postgres, mariadb) = (vanishes(Sql::Postgres), vanishes(Sql::MariaDb));
    tokio::join!(postgres, mariadb);
}

async fn vanishes(sql: Sql) {
    let world = World::new(sql, Place::Memory).await;
    watched(&world).await;
    world.warm().await;
    let url = world.database.url();
    let address = url.split(['@', '/']).nth(3).expect("an address");
    let proxy = Proxy::to(address).await;
    let far = Database::connect(url.replace(address, &proxy.addr())).await;
    let far = Feed::new(&world.cache.attach(far.unwrap()));
    foreign(&world, "UPDATE city SET name = 'new'").await;

    let pause = world.store.pause_before(Op::is_settle);
    let taken = Instant::now();
    let applying = tokio::spawn(async move { far.drain().await });
    pause.arrived().await;
    proxy.stall();
    pause.resume();
    let near = Feed::new(&world.db);
    assert_eq!(near.drain().await.unwrap(), 0, "{sql:?}");
    assert_eq!(waiting(&world).await, 4);
    let running = tokio::spawn(async move { near.run().await });
    let limit = Duration::from_secs(50);
    let over = async {
        while waiting(&world).await > 0 {
            tokio::time::sleep(Duration::from_millis(200)).await
        }
    };
    tokio::time::timeout(limit, over).await.expect("freed");
    assert!(taken.elapsed() > Duration::from_secs(20), "{sql:?}");
    world.assert_fresh("the other's batch").await;
    let failed = applying.await.unwrap().unwrap_err();
    assert!(failed.to_string().contains("30s"), "{failed}");
    running.abort();
}

#[tokio::test]
async fn a_rule_that_panics_keeps_the_change_waiting() {
    let world = World::new(Sql::Sqlite, Place::Memory).await;
    let feed = watched(&world).await;
    let calm = Arc::new(AtomicBool::new(false));
    let is_calm = Arc::clone(&calm);
    world.cache.on_change::<city::Entity>(move |_, _| {
        assert!(is_calm.load(Ordering::Relaxed), "a rule with a fault");
    });
    foreign(&world, "UPDATE city SET name = 'new' WHERE id = 2").await;
    let failed = feed.drain().await.unwrap_err();
    assert!(
        matches!(&failed, FeedError::Panicked(text) if text == "a rule with a fault"),
        "{failed}"
    );
    assert_eq!(waiting(&world).await, 1);
    let running = tokio::spawn(async move { feed.run().await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!running.is_finished());
    calm.store(true, Ordering::Relaxed);
    until(async || waiting(&world).await == 0).await;
    world.assert_fresh("a rule that is calm").await;
    running.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_database_costs_the_feed_nothing_but_time() {
    let server = support::postgres_server().await;
    let database = server.database().await;
    let raw = database.connect().await;
    crate::entities::create_tables(&raw).await;
    super::install(&raw).await.unwrap();
    let cache = sea_orm_cache::Cache::in_memory();
    let db = cache.attach(database.connect().await);
    let feed = Feed::new(&db).idle(Duration::from_millis(100));
    let running = tokio::spawn(async move { feed.run().await });
    raw.execute_unprepared("INSERT INTO city (id, slug, name) VALUES (1, 'a', '0')")
        .await
        .unwrap();
    for (n, how) in [(1, Shutdown::Fast), (2, Shutdown::Immediate)] {
        until(async || name(&db).await == (n - 1).to_string()).await;
        server.stop(how).await;
        server.restart().await;
        let write = format!("UPDATE city SET name = '{n}' WHERE id = 1");
        until(async || raw.execute_unprepared(&write).await.is_ok()).await;
        until(async || name(&db).await == n.to_string()).await;
    }
    running.abort();
}

#[tokio::test]
async fn a_store_that_refuses_once_is_asked_again_and_it_is_counted() {
    static FAILED: AtomicU64 = AtomicU64::new(0);
    let world = World::new(Sql::Sqlite, Place::Memory).await;
    watched(&world).await;
    let watch = |event: &sea_orm_cache::Event<'_>| {
        if matches!(event, sea_orm_cache::Event::FeedFailed { .. }) {
            FAILED.fetch_add(1, Ordering::Relaxed);
        }
    };
    let builder = sea_orm_cache::Cache::builder()
        .store(world.store.clone())
        .observer(watch);
    let cache = builder.build().await.unwrap();
    let feed = Feed::new(&cache.attach(world.raw.clone()));
    foreign(&world, "UPDATE city SET name = 'new'").await;
    world.store.inject(Fault::refuse().times(1));
    assert!(feed.drain().await.is_err());
    assert_eq!(FAILED.load(Ordering::Relaxed), 1);
    world.store.heal();
    assert_eq!(feed.drain().await.unwrap(), 4);
}

#[tokio::test]
async fn without_an_outbox_the_feed_says_so() {
    let world = World::new(Sql::Sqlite, Place::Memory).await;
    let failed = Feed::new(&world.db).drain().await.unwrap_err();
    assert!(matches!(failed, FeedError::Database(_)));
    assert!(
        failed.to_string().contains("sea_orm_cache_outbox"),
        "{failed}"
    );
}

/// MySQL's sessions end after 30 s for as long as a feed has changes in its hands, and not afterwards.
#[tokio::test]
async fn a_batch_that_fails_leaves_the_connection_as_it_was() {
    let world = World::new(Sql::MariaDb, Place::Memory).await;
    watched(&world).await;
    let mut options = sea_orm::ConnectOptions::new(world.database.url());
    options.max_connections(1);
    let one = Database::connect(options).await.unwrap();
    let session = async || {
        let sql = "SELECT CAST(@@wait_timeout AS SIGNED) AS n";
        let asked = sea_orm::Statement::from_string(one.get_database_backend(), sql);
        let row = one.query_one_raw(asked).await.unwrap().unwrap();
        row.try_get::<i64>("", "n").unwrap()
    };
    let usual = session().await;
    assert_ne!(usual, 30);
    let feed = Feed::new(&world.cache.attach(one.clone()));
    foreign(&world, "UPDATE city SET name = 'new'").await;
    world.store.inject(Fault::refuse().times(1));
    assert!(feed.drain().await.is_err());
    assert_eq!(session().await, usual);
    world.store.heal();
    assert_eq!(feed.drain().await.unwrap(), 4);
    assert_eq!(session().await, usual);
}
