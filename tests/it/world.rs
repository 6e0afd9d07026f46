//! What a behaviour test runs in: a database, a cache, and ways to look at and disturb both.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sea_orm::{DatabaseConnection, DbBackend, EntityTrait};
use sea_orm_cache::store::{MemoryStore, Op, RedisOptions, RedisStore, Replies, Store, StoreError};
use sea_orm_cache::{Cache, CachedConnection, EntityStats};
use tokio::sync::{Notify, Semaphore};

use crate::entities;
use crate::support::{self, Database, QueryCount, RedisServer};

/// Which database.
#[derive(Clone, Copy, Debug)]
pub enum Sql {
    Sqlite,
    Postgres,
    MariaDb,
}

/// Which store.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    Memory,
    Redis,
}

pub struct World {
    /// The database through the cache.
    pub db: CachedConnection,
    /// The same database, past the cache and uncounted.
    pub raw: DatabaseConnection,
    pub cache: Cache,
    pub queries: QueryCount,
    pub store: Arc<Gated>,
    pub database: Database,
    pub redis: Option<RedisServer>,
}

impl World {
    pub async fn new(sql: Sql, place: Place) -> Self {
        let database = match sql {
            Sql::Sqlite => support::sqlite().await,
            Sql::Postgres => support::postgres().await,
            Sql::MariaDb => support::mariadb().await,
        };
        let raw = database.connect().await;
        entities::create_tables(&raw).await;
        let (store, redis): (Arc<dyn Store>, _) = match place {
            Place::Memory => (Arc::new(MemoryStore::new(16 << 20)), None),
            Place::Redis => {
                let server = support::redis().await;
                let options = RedisOptions {
                    command_timeout: Duration::from_secs(5),
                    ..RedisOptions::default()
                };
                let store = RedisStore::connect(server.url(), options)
                    .await
                    .expect("connect to Redis");
                (Arc::new(store), Some(server))
            }
        };
        let store = Arc::new(Gated::new(store));
        let cache = Cache::builder()
            .store(store.clone())
            .build()
            .await
            .expect("build the cache");
        let mut counted = database.connect().await;
        let queries = support::counting(&mut counted);
        let db = cache.attach(counted);
        Self {
            db,
            raw,
            cache,
            queries,
            store,
            database,
            redis,
        }
    }

    pub fn backend(&self) -> DbBackend {
        self.db.get_database_backend()
    }

    /// A second process: another cache handle over the same store, with its own database pool.
    pub async fn another_process(&self) -> (Cache, CachedConnection) {
        let cache = Cache::builder()
            .store(self.store.clone())
            .build()
            .await
            .expect("build the cache");
        let db = cache.attach(self.database.connect().await);
        (cache, db)
    }

    pub fn stats(&self, entity: &str) -> EntityStats {
        self.cache.stats().entity(entity)
    }

    /// Inserts past the cache.
    pub async fn seed<A>(&self, rows: impl IntoIterator<Item = A>)
    where
        A: sea_orm::ActiveModelTrait,
    {
        A::Entity::insert_many(rows)
            .exec(&self.raw)
            .await
            .expect("seed");
    }

    /// Runs `work` and tells what it cost.
    pub async fn cost<T>(&self, work: impl Future<Output = T>) -> (T, Cost) {
        self.queries.take();
        let before = self.cache.stats().round_trips;
        let answer = work.await;
        let cost = Cost {
            statements: self.queries.take(),
            round_trips: self.cache.stats().round_trips - before,
        };
        (answer, cost)
    }
}

/// What something cost, counted exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub statements: u64,
    pub round_trips: u64,
}

pub const FREE: Cost = Cost {
    statements: 0,
    round_trips: 1,
};

/// Picks ops.
type Which = fn(&Op) -> bool;

/// A store whose batches can be held at a gate.
pub struct Gated {
    inner: Arc<dyn Store>,
    gate: Mutex<Option<Arc<Gate>>>,
    /// Every key that was fenced.
    pub fenced: Mutex<BTreeSet<String>>,
    /// Answers that fail instead.
    failing: Mutex<Option<Which>>,
}

struct Gate {
    stops: Which,
    arrived: Notify,
    open: Semaphore,
}

/// A closed gate. Opens when told, or dropped.
pub struct Closed(Arc<Gate>);

impl Closed {
    /// Waits until a batch stands before the gate.
    pub async fn arrived(&self) {
        self.0.arrived.notified().await;
    }

    pub fn open(self) {}
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.open.close();
    }
}

impl Gated {
    fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            gate: Mutex::default(),
            fenced: Mutex::default(),
            failing: Mutex::default(),
        }
    }

    /// From now on the first batch with such an op waits, and those after it as well.
    pub fn close_before(&self, stops: Which) -> Closed {
        let gate = Arc::new(Gate {
            stops,
            arrived: Notify::new(),
            open: Semaphore::new(0),
        });
        *self.gate.lock().unwrap() = Some(gate.clone());
        Closed(gate)
    }

    /// Batches with such an op fail from now on.
    pub fn fail(&self, which: Which) {
        *self.failing.lock().unwrap() = Some(which);
    }

    pub fn heal(&self) {
        *self.failing.lock().unwrap() = None;
    }

    /// The keys fenced since this was last asked.
    pub fn take_fenced(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.fenced.lock().unwrap())
    }
}

impl fmt::Debug for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait::async_trait]
impl Store for Gated {
    async fn run(&self, batch: Vec<Op>) -> Result<Replies, StoreError> {
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate.filter(|gate| batch.iter().any(gate.stops)) {
            gate.arrived.notify_one();
            // Closing the semaphore opens the gate.
            let _ = gate.open.acquire().await;
        }
        if self
            .failing
            .lock()
            .unwrap()
            .is_some_and(|fails| batch.iter().any(fails))
        {
            return Err(StoreError::Unreachable("made to fail".to_owned()));
        }
        for op in &batch {
            if let Op::Fence { key, .. } = op {
                self.fenced.lock().unwrap().insert(key.to_string());
            }
        }
        self.inner.run(batch).await
    }

    async fn refresh_root(&self) -> Result<(), StoreError> {
        self.inner.refresh_root().await
    }
}

/// Runs behaviours on {SQLite, Postgres, MariaDB} x {memory, Redis}.
#[macro_export]
macro_rules! on_all {
    ($($behaviour:ident),* $(,)?) => { $(
        mod $behaviour {
            use $crate::world::{Place, Sql, World};

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite_memory() { super::$behaviour(World::new(Sql::Sqlite, Place::Memory).await).await; }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite_redis() { super::$behaviour(World::new(Sql::Sqlite, Place::Redis).await).await; }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres_memory() { super::$behaviour(World::new(Sql::Postgres, Place::Memory).await).await; }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres_redis() { super::$behaviour(World::new(Sql::Postgres, Place::Redis).await).await; }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn mariadb_memory() { super::$behaviour(World::new(Sql::MariaDb, Place::Memory).await).await; }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn mariadb_redis() { super::$behaviour(World::new(Sql::MariaDb, Place::Redis).await).await; }
        }
    )* };
}
