//! Redis dies under load, and comes back.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sea_orm::{ConnectOptions, DatabaseConnection, EntityTrait};
use sea_orm_cache::{Cache, CacheError, CachedConnection};
use tokio::task::JoinSet;

use crate::entities::{city, create_tables};
use crate::outages::until;
use crate::reads::city as a_city;
use crate::support::{self, Database};

const READERS: usize = 64;
const ROWS: i64 = 2_000;
const PLACES: usize = 8;

/// When each statement ran.
type Spans = Arc<Mutex<Vec<(Instant, Instant)>>>;

/// A pool with a connection for every reader, so that only the bulkhead holds them back.
async fn connect(database: &Database) -> (DatabaseConnection, Spans) {
    let mut options = ConnectOptions::new(database.url());
    options.max_connections(READERS as u32).sqlx_logging(false);
    let mut db = sea_orm::Database::connect(options).await.unwrap();
    let spans = Spans::default();
    let log = spans.clone();
    db.set_metric_callback(move |info| {
        let end = Instant::now();
        log.lock().unwrap().push((end - info.elapsed, end));
    });
    (db, spans)
}

async fn seeded() -> Database {
    let database = support::postgres().await;
    let raw = database.connect().await;
    create_tables(&raw).await;
    let rows = (1..=ROWS).map(|id| a_city(id, None, &format!("c{id}")));
    city::Entity::insert_many(rows).exec(&raw).await.unwrap();
    database
}

/// The most statements that ran at once.
fn most_at_once(spans: &Spans) -> usize {
    let mut edges: Vec<(Instant, bool)> = Vec::new();
    for (start, end) in std::mem::take(&mut *spans.lock().unwrap()) {
        edges.extend([(start, true), (end, false)]);
    }
    // Where one ends as another begins, they do not overlap.
    edges.sort();
    let (mut now, mut most) = (0, 0);
    for (_, starts) in edges {
        now = if starts { now + 1 } else { now - 1 };
        most = most.max(now);
    }
    most
}

#[derive(Default)]
struct Load {
    reads: AtomicU64,
    errors: Mutex<Vec<String>>,
    done: AtomicBool,
}

fn start(db: &CachedConnection, load: &Arc<Load>) -> JoinSet<()> {
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (db, load) = (db.clone(), load.clone());
        readers.spawn(async move {
            while !load.done.load(Ordering::Relaxed) {
                let id = fastrand::i64(1..=ROWS);
                // Rows by key share their queries; by index each reader has its own.
                let row = match id % 2 {
                    0 => city::Entity::cached_get(id, &db).await,
                    _ => city::Entity::cached_find_by_slug(format!("c{id}"), &db).await,
                };
                match row {
                    Ok(Some(row)) if row.id == id => {}
                    Ok(other) => load.errors.lock().unwrap().push(format!("{other:?}")),
                    Err(error) => load.errors.lock().unwrap().push(error.to_string()),
                }
                load.reads.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    readers
}

/// Lets the load go on for this many reads, and answers reads per second.
async fn go_on(load: &Load, reads: u64) -> f64 {
    let (from, started) = (load.reads.load(Ordering::Relaxed), Instant::now());
    until(async || load.reads.load(Ordering::Relaxed) >= from + reads).await;
    reads as f64 / started.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_under_64_readers_costs_no_error_and_the_database_is_not_buried() {
    let (database, redis) = (seeded().await, support::redis().await);
    let (db, spans) = connect(&database).await;
    let builder = Cache::builder().redis(redis.url()).max_loads(PLACES);
    let cache = builder.build().await.unwrap();
    let db = cache.attach(db);
    let load = Arc::new(Load::default());
    let mut readers = start(&db, &load);

    let warm = go_on(&load, 6_000).await;
    let hits = cache.stats().entity("city").hits;
    assert!(hits > 1_000, "{hits}");
    redis.kill().await;
    let dark = go_on(&load, 6_000).await;
    assert!(cache.stats().degraded);
    redis.restart().await;
    let (back, hits) = (Instant::now(), cache.stats().entity("city").hits);
    until(async || cache.stats().entity("city").hits > hits).await;
    let recovered = back.elapsed();
    let after = go_on(&load, 6_000).await;
    load.done.store(true, Ordering::Relaxed);
    while let Some(ended) = readers.join_next().await {
        ended.unwrap();
    }

    let errors = load.errors.lock().unwrap();
    let most = most_at_once(&spans);
    let _ = writeln!(
        std::io::stderr(),
        "redis killed under {READERS} readers: {} reads, {} errors, at most {most} queries at once (bulkhead {PLACES}), \
         {warm:.0} reads/s before, {dark:.0} without Redis, {after:.0} after; first hit {recovered:?} after the restart",
        load.reads.load(Ordering::Relaxed),
        errors.len(),
    );
    assert!(errors.is_empty(), "{:?}", errors.first());
    assert!(most <= PLACES, "{most} queries at once");
    assert!(
        most > 1,
        "the readers got in each other's way: it was a load"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_waits_too_long_for_its_load_fails_and_says_why() {
    let database = seeded().await;
    let (db, _) = connect(&database).await;
    let builder = Cache::builder()
        .max_loads(1)
        .load_wait(Duration::from_millis(50));
    let cache = builder.build().await.unwrap();
    let db = cache.attach(db);
    // The one load hangs on a row lock, which a cached select is not: lock the table against reads.
    let raw = database.connect().await;
    let lock = sea_orm::TransactionTrait::begin(&raw).await.unwrap();
    let sql = "LOCK TABLE city IN ACCESS EXCLUSIVE MODE";
    sea_orm::ConnectionTrait::execute_unprepared(&lock, sql)
        .await
        .unwrap();
    let (first, cache_of_first) = (db.clone(), cache.clone());
    let hangs = tokio::spawn(async move { city::Entity::cached_get(1, &first).await });
    until(async || cache_of_first.stats().entity("city").loads == 1).await;

    let error = city::Entity::cached_get(2, &db)
        .await
        .unwrap_err()
        .to_string();
    let overloaded = CacheError::Overloaded {
        entity: "city".to_owned(),
        loads: 1,
        waited: Duration::from_millis(50),
    };
    assert!(error.contains(&overloaded.to_string()), "{error}");
    assert_eq!(cache.stats().entity("city").overloaded, 1);

    lock.commit().await.unwrap();
    assert!(hangs.await.unwrap().unwrap().is_some());
    assert!(city::Entity::cached_get(2, &db).await.unwrap().is_some());
}
