//! Everything at once: two processes read and write the same rows in every way while the cache loses
//! its connections and its contents, and every answer is checked against what was acknowledged.
//!
//! Writes are `strict`, because an `available` one that cannot reach Redis makes no promise to other
//! processes. And no write lives through two faults: one that loses its fence and cannot settle may
//! leave an old row until the journal is delivered, as CONSISTENCY.md says.
//!
//! `STRESS_SCALE=20` makes it twenty times as long. `STRESS_SEED` repeats the choices of a run, though not how its
//! tasks meet.

mod ledger;
mod reader;
mod writer;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use sea_orm::ActiveValue::Set;
use sea_orm::{DatabaseConnection, DbErr, EntityTrait};
use sea_orm_cache::store::MemoryStore;
use sea_orm_cache::{Cache, CacheBuilder, CachedConnection, WritePolicy};
use tokio::sync::{MutexGuard, RwLock};
use tokio::task::JoinSet;

use crate::entities::{self, city, country};
use crate::support::{self, Database, RedisServer};
use ledger::{Fields, Ledger, State};
use reader::Reader;
use writer::Writer;

const ROWS: usize = 12;
/// Writers hold at most three free ones each.
const SLUGS: usize = ROWS + 3 * WRITERS + 4;
const COUNTRIES: i64 = 3;
const RANKS: i32 = 3;

const WRITERS: usize = 4;
const READERS: usize = 6;
/// Of each writer and of each reader, times the scale.
const WRITES: usize = 250;
const READS: usize = 2_000;
const WRITES_PER_FAULT: usize = 80;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_with_memory_is_always_fresh() {
    stress(support::sqlite().await, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_with_redis_is_always_fresh() {
    stress(support::postgres().await, Some(support::redis().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_with_redis_is_always_fresh() {
    stress(support::mariadb().await, Some(support::redis().await)).await;
}

/// What all tasks share.
struct Run {
    ledger: Ledger,
    /// Held by whoever writes a row.
    turns: Vec<tokio::sync::Mutex<()>>,
    /// Held for writing to wait for the writes under way.
    gate: RwLock<()>,
    processes: Vec<(Cache, CachedConnection)>,
    /// Past the cache.
    raw: DatabaseConnection,
    /// Those that no row has.
    slugs: Mutex<BTreeSet<String>>,
    reads: AtomicU64,
    writes: AtomicU64,
    /// Whether all writes are.
    done: AtomicBool,
    faults: AtomicU64,
    failures: Mutex<Vec<String>>,
    violations: Mutex<Vec<String>>,
}

async fn stress(database: Database, redis: Option<RedisServer>) {
    let seed = setting("STRESS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let scale = setting("STRESS_SCALE").unwrap_or(1) as usize;
    println!("STRESS_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let redis = redis.map(Arc::new);
    let processes = processes(&database, redis.as_deref()).await;
    let run = Arc::new(Run::new(&database, processes, &mut rng).await);
    let mut writers = JoinSet::new();
    let mut others = JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(Writer::new(run.clone(), rng.fork()).write(WRITES * scale));
    }
    for _ in 0..READERS {
        others.spawn(Reader::new(run.clone(), rng.fork()).read(READS * scale));
    }
    if let Some(redis) = &redis {
        others.spawn(faults(run.clone(), rng.fork(), redis.clone()));
    }
    writers.join_all().await;
    run.done.store(true, Ordering::SeqCst);
    others.join_all().await;
    run.delivered().await;
    Reader::new(run.clone(), rng.fork()).sweep(20).await;
    run.conclude(seed);
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

/// Two processes: two handles, each with its own connections.
async fn processes(
    database: &Database,
    redis: Option<&RedisServer>,
) -> Vec<(Cache, CachedConnection)> {
    let memory = Arc::new(MemoryStore::new(16 << 20));
    let builder = || -> CacheBuilder {
        let builder = Cache::builder()
            .write_policy(WritePolicy::Strict)
            .fence_ttl(Duration::from_secs(2))
            .command_timeout(Duration::from_secs(5));
        match redis {
            Some(redis) => builder.redis(redis.url()),
            None => builder.store(memory.clone()),
        }
    };
    let mut processes = Vec::new();
    for _ in 0..2 {
        let cache = builder().build().await.expect("build the cache");
        let db = cache.attach(database.connect().await);
        processes.push((cache, db));
    }
    processes
}

/// Disturbs the cache until all writes are done.
async fn faults(run: Arc<Run>, mut rng: Rng, redis: Arc<RedisServer>) {
    for fault in 1.. {
        while run.writes.load(Ordering::SeqCst) < (fault * WRITES_PER_FAULT) as u64 {
            if run.done.load(Ordering::SeqCst) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(run.gate.write().await);
        tokio::time::sleep(Duration::from_micros(rng.u64(..5_000))).await;
        match rng.u32(..6) {
            0 | 1 => redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]).await,
            2 => redis.cli(&["SCRIPT", "FLUSH"]).await,
            3 => {
                run.ledger.emptying();
                evict(&redis).await
            }
            _ => {
                run.ledger.emptying();
                redis.cli(&["FLUSHALL"]).await
            }
        };
        run.faults.fetch_add(1, Ordering::Relaxed);
    }
}

/// Some of the keys.
async fn evict(redis: &RedisServer) -> redis::Value {
    let script =
        "for _ = 1, redis.call('DBSIZE') / 2 do redis.call('UNLINK', redis.call('RANDOMKEY')) end";
    redis.cli(&["EVAL", script, "0"]).await
}

impl Run {
    async fn new(
        database: &Database,
        processes: Vec<(Cache, CachedConnection)>,
        rng: &mut Rng,
    ) -> Self {
        let raw = database.connect().await;
        entities::create_tables(&raw).await;
        let fields = |row: usize| Fields {
            country: Some(rng.i64(1..=COUNTRIES)),
            rank: rng.i32(0..RANKS),
            slug: format!("s{row}"),
        };
        let rows: Vec<Fields> = (0..ROWS).map(fields).collect();
        let countries = (1..=COUNTRIES).map(country);
        let seeded = country::Entity::insert_many(countries).exec(&raw).await;
        seeded.expect("seed");
        let cities = rows.iter().zip(1..).map(|(fields, id)| city(id, fields, 1));
        let seeded = city::Entity::insert_many(cities).exec(&raw).await;
        seeded.expect("seed");
        Self {
            ledger: Ledger::new(rows.into_iter().map(Some)),
            turns: (0..ROWS).map(|_| tokio::sync::Mutex::default()).collect(),
            gate: RwLock::default(),
            processes,
            raw,
            slugs: Mutex::new((ROWS..SLUGS).map(|n| format!("s{n}")).collect()),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            done: AtomicBool::new(false),
            faults: AtomicU64::new(0),
            failures: Mutex::default(),
            violations: Mutex::default(),
        }
    }

    fn ids(&self) -> std::ops::RangeInclusive<i64> {
        1..=ROWS as i64
    }

    /// The lower, the more often.
    fn any_id(&self, rng: &mut Rng) -> i64 {
        let bound = rng.i64(1..=ROWS as i64);
        rng.i64(1..=bound)
    }

    /// The right to write these rows, which are in order.
    async fn turn(&self, ids: impl IntoIterator<Item = i64>) -> Vec<MutexGuard<'_, ()>> {
        let mut turns = Vec::new();
        for id in ids {
            turns.push(self.turns[usize::try_from(id - 1).unwrap()].lock().await);
        }
        turns
    }

    fn take_slug(&self, rng: &mut Rng) -> String {
        let mut slugs = self.slugs.lock().unwrap();
        let place = rng.usize(..slugs.len());
        let slug = slugs.iter().nth(place).unwrap().clone();
        slugs.remove(&slug);
        slug
    }

    /// Gives back what a row had or was to have, and has not.
    fn free_slugs(&self, from: &State, to: &State, now: &State) {
        let slug = |state: &State| state.fields.as_ref().map(|fields| fields.slug.clone());
        let free = [slug(from), slug(to)].into_iter().flatten();
        let mut slugs = self.slugs.lock().unwrap();
        slugs.extend(free.filter(|free| Some(free) != slug(now).as_ref()));
    }

    fn violated(&self, what: String) {
        self.violations.lock().unwrap().push(what);
    }

    fn failed(&self, error: &DbErr) {
        self.failures.lock().unwrap().push(error.to_string());
    }

    /// Waits until the cache knows of all writes.
    async fn delivered(&self) {
        let delivered = async {
            while self
                .processes
                .iter()
                .any(|(cache, _)| cache.stats().undelivered > 0)
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let limit = Duration::from_secs(20);
        let delivered = tokio::time::timeout(limit, delivered).await;
        delivered.expect("the journal is delivered");
    }

    fn conclude(&self, seed: u64) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (mut hits, mut lookups, mut fenced, mut superseded) = (0, 0, 0, 0);
        for (cache, _) in &self.processes {
            let stats = cache.stats().entity("city");
            hits += stats.hits;
            lookups += stats.hits + stats.misses;
            fenced += stats.fenced;
            superseded += stats.superseded;
        }
        let failures = self.failures.lock().unwrap();
        let violations = self.violations.lock().unwrap();
        println!(
            "reads checked {}, writes {} ({} failed), faults {}, hit rate {:.0} % of {lookups}, fenced {fenced}, \
             superseded {superseded}, violations {}",
            get(&self.reads),
            get(&self.writes),
            failures.len(),
            get(&self.faults),
            hits as f64 / lookups as f64 * 100.0,
            violations.len(),
        );
        failures
            .iter()
            .take(5)
            .for_each(|error| println!("failed: {error}"));
        let first: Vec<_> = violations.iter().take(3).cloned().collect();
        assert!(
            violations.is_empty(),
            "{} violations with STRESS_SEED={seed}:\n{}",
            violations.len(),
            first.join("\n")
        );
        assert!(hits > 1_000, "{hits} hits: the cache was hardly used");
        assert!(
            failures.len() as u64 * 4 < get(&self.writes),
            "{failures:?}"
        );
    }
}

fn country(id: i64) -> country::ActiveModel {
    country::ActiveModel {
        id: Set(id),
        iso2: Set(format!("C{id}")),
        name: Set(format!("country {id}")),
    }
}

fn city(id: i64, fields: &Fields, version: u64) -> city::ActiveModel {
    city::ActiveModel {
        id: Set(id),
        country_id: Set(fields.country),
        slug: Set(fields.slug.clone()),
        name: Set(version.to_string()),
        rank: Set(fields.rank),
    }
}
