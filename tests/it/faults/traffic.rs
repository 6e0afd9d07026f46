//! Reads and writes of several processes, each read checked against what was acknowledged before it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sea_orm::ActiveValue::Set;
use sea_orm::{ActiveModelTrait, DatabaseConnection, EntityTrait};
use sea_orm_cache::{Cache, CacheBuilder, CachedConnection, Event, WritePolicy};
use tokio::task::JoinSet;

use crate::entities::{city, create_tables};
use crate::outages::until;
use crate::reads::city as a_city;
use crate::support::{self, Database};

/// So many that every node of a cluster holds some.
pub const ROWS: i64 = 48;
const WRITERS: i64 = 2;
const READERS: usize = 3;

/// What happened.
#[derive(Debug, Default)]
pub struct Counts {
    pub reads: AtomicU64,
    pub read_errors: AtomicU64,
    pub stale: AtomicU64,
    pub writes: AtomicU64,
    /// Writes that were refused because their fence could not be written; they are tried again.
    pub refused: AtomicU64,
}

struct Shared {
    counts: Counts,
    done: AtomicBool,
    /// By row, the version that was acknowledged last.
    acknowledged: Vec<AtomicU64>,
    processes: Vec<CachedConnection>,
    failures: Failures,
}

/// Why batches failed, and how many of them.
type Failures = Arc<Mutex<BTreeMap<String, u64>>>;

/// Two processes under load.
pub struct Traffic {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

pub async fn empty_database() -> (Database, DatabaseConnection) {
    let database = support::postgres().await;
    let raw = database.connect().await;
    create_tables(&raw).await;
    (database, raw)
}

impl Traffic {
    /// Seeds the rows and begins to read and write them. Writes are `strict`: an `available` one that
    /// reaches no cache makes no promise to other processes.
    pub async fn begin(raw: &DatabaseConnection, builder: impl Fn() -> CacheBuilder) -> Self {
        let rows = (1..=ROWS).map(|id| city::ActiveModel {
            name: Set(version_name(0)),
            ..a_city(id, None, &format!("slug-{id}"))
        });
        city::Entity::insert_many(rows).exec(raw).await.unwrap();
        let failures = Failures::default();
        let mut processes = Vec::new();
        for _ in 0..2 {
            let cache = builder()
                .write_policy(WritePolicy::Strict)
                .fence_ttl(Duration::from_secs(1))
                .observer(noting(failures.clone()))
                .build();
            // Boxed: the futures of tests nest deeply.
            processes.push(Box::pin(cache).await.unwrap().attach(raw.clone()));
        }
        let shared = Arc::new(Shared {
            counts: Counts::default(),
            done: AtomicBool::new(false),
            acknowledged: (0..=ROWS).map(|_| AtomicU64::new(0)).collect(),
            processes,
            failures,
        });
        let mut tasks = JoinSet::new();
        for writer in 0..WRITERS {
            tasks.spawn(write(shared.clone(), writer));
        }
        for reader in 0..READERS {
            tasks.spawn(read(shared.clone(), reader));
        }
        Self { shared, tasks }
    }

    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    pub fn caches(&self) -> impl Iterator<Item = &Cache> {
        self.shared.processes.iter().map(CachedConnection::cache)
    }

    pub fn failures(&self) -> BTreeMap<String, u64> {
        self.shared.failures.lock().unwrap().clone()
    }

    /// How many reads the cache has answered.
    pub fn hits(&self) -> u64 {
        self.caches()
            .map(|cache| cache.stats().entity("city").hits)
            .sum()
    }

    /// Waits until so many more reads and some more writes are done.
    pub async fn goes_on(&self, reads: u64) {
        let counts = self.counts();
        let reads = counts.reads.load(Ordering::SeqCst) + reads;
        let writes = counts.writes.load(Ordering::SeqCst) + 10;
        until(async || {
            counts.reads.load(Ordering::SeqCst) > reads
                && counts.writes.load(Ordering::SeqCst) > writes
        })
        .await;
    }

    /// Ends the load, and waits until every row is a hit in every process. Fails on a read that failed
    /// or was stale.
    pub async fn end(mut self, what: &str) {
        self.shared.done.store(true, Ordering::SeqCst);
        while let Some(task) = self.tasks.join_next().await {
            task.unwrap();
        }
        for db in &self.shared.processes {
            all_hit(db, &self.shared).await;
        }
        let counts = &self.shared.counts;
        println!(
            "{what}: {counts:?}, {} hits, failed: {:#?}",
            self.hits(),
            self.failures()
        );
        assert_eq!(counts.read_errors.load(Ordering::SeqCst), 0, "{counts:?}");
        assert_eq!(counts.stale.load(Ordering::SeqCst), 0, "{counts:?}");
    }
}

fn noting(failures: Failures) -> impl Fn(&Event<'_>) + Send + Sync + 'static {
    move |event| {
        if let Event::StoreFailed { error, .. } = event {
            *failures
                .lock()
                .unwrap()
                .entry(error.to_string())
                .or_default() += 1;
        }
    }
}

async fn all_hit(db: &CachedConnection, shared: &Shared) {
    until(async || {
        let hits = || db.cache().stats().entity("city").hits;
        let before = hits();
        for id in 1..=ROWS {
            check(db, shared, id).await;
        }
        hits() - before == ROWS as u64
    })
    .await;
}

fn version_name(version: u64) -> String {
    format!("v{version}")
}

async fn write(shared: Arc<Shared>, writer: i64) {
    let mut version = 0;
    while !shared.done.load(Ordering::SeqCst) {
        let row = fastrand::i64(0..ROWS / WRITERS) * WRITERS + writer + 1;
        version += 1;
        let model = city::ActiveModel {
            id: Set(row),
            name: Set(version_name(version)),
            ..Default::default()
        };
        let db = &shared.processes[fastrand::usize(..shared.processes.len())];
        if model.update(db).await.is_ok() {
            let acknowledged = &shared.acknowledged[row as usize];
            acknowledged.store(version, Ordering::SeqCst);
            shared.counts.writes.fetch_add(1, Ordering::SeqCst);
        } else {
            shared.counts.refused.fetch_add(1, Ordering::SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
}

async fn read(shared: Arc<Shared>, reader: usize) {
    let db = &shared.processes[reader % shared.processes.len()];
    while !shared.done.load(Ordering::SeqCst) {
        check(db, &shared, fastrand::i64(1..=ROWS)).await;
        shared.counts.reads.fetch_add(1, Ordering::SeqCst);
    }
}

/// Reads a row, and counts an error or an answer older than what was acknowledged before.
async fn check(db: &CachedConnection, shared: &Shared, id: i64) {
    let floor = shared.acknowledged[id as usize].load(Ordering::SeqCst);
    match city::Entity::cached_get(id, db).await {
        Ok(Some(city)) => {
            let version: u64 = city.name[1..].parse().unwrap();
            if version < floor {
                shared.counts.stale.fetch_add(1, Ordering::SeqCst);
                println!("row {id}: v{version} after v{floor} was acknowledged");
            }
        }
        other => {
            shared.counts.read_errors.fetch_add(1, Ordering::SeqCst);
            println!("row {id}: {other:?}");
        }
    }
}
