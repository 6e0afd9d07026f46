//! What a behaviour test runs in: a database, a cache, and ways to look at and disturb both.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::{DatabaseConnection, DbBackend, EntityTrait};
use sea_orm_cache::store::{Coalesced, MemoryStore, RedisOptions, RedisStore, Store};
use sea_orm_cache::testing::{Cost, FaultyStore, Meter, Watch};
use sea_orm_cache::{Cache, CachedConnection, EntityStats};

use crate::entities::{self, city};
use crate::support::{self, Cluster, Database, RedisServer, Turn, Watched};

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
    /// Redis with an in-process tier in front.
    Tiered,
    Cluster,
    /// A cluster with an in-process tier in front.
    TieredCluster,
    /// A server that a sentinel names.
    Sentinel,
}

pub struct World {
    /// The database through the cache.
    pub db: CachedConnection,
    /// The same database, past the cache and uncounted.
    pub raw: DatabaseConnection,
    pub cache: Cache,
    pub meter: Meter,
    pub store: Arc<FaultyStore>,
    pub cities: Watch<city::Entity>,
    pub database: Database,
    pub redis: Option<RedisServer>,
    _servers: Servers,
}

/// What the store is kept in, beside [`World::redis`].
enum Servers {
    None,
    Cluster { _turn: Turn<Cluster> },
    Sentinel { _turn: Turn<Watched> },
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
        let (store, redis, _servers) = open(place).await;
        let store = FaultyStore::around(store);
        let builder = Cache::builder().store(store.clone());
        let builder = match place {
            Place::Tiered | Place::TieredCluster => builder.l1(16 << 20),
            _ => builder,
        };
        let cache = builder.build().await.expect("build the cache");
        let mut counted = database.connect().await;
        let meter = Meter::new(&cache, &mut counted);
        let db = cache.attach(counted);
        let cities = Watch::over([11, 12], &db).also(imagined());
        Self {
            db,
            raw,
            cache,
            meter,
            store,
            cities,
            database,
            redis,
            _servers,
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

    /// What a cached read costs.
    pub fn free(&self) -> Cost {
        self.hits(1)
    }

    /// What cached reads cost that ask the store so often, where no in-process tier answers.
    pub fn hits(&self, round_trips: u64) -> Cost {
        let asked = u64::from(self.cache.stats().l1.is_none());
        Cost {
            statements: 0,
            round_trips: round_trips * asked,
        }
    }

    /// Runs `work` and tells what it cost.
    pub async fn cost<T>(&self, work: impl Future<Output = T>) -> (T, Cost) {
        self.meter.cost(work).await
    }

    /// Reads the cities in every way that is watched, so that they are cached.
    pub async fn warm(&self) {
        self.assert_fresh("before").await;
    }

    /// The same, whatever is answered.
    pub async fn warm_anyhow(&self) {
        self.cities.stale().await.unwrap();
    }

    /// Every cached read of the cities answers what the database holds.
    pub async fn assert_fresh(&self, after: &str) {
        let stale = self.cities.stale().await.unwrap();
        assert!(stale.is_empty(), "{after}:\n{}", stale.join("\n"));
    }
}

async fn open(place: Place) -> (Arc<dyn Store>, Option<RedisServer>, Servers) {
    let tiered = matches!(place, Place::Tiered | Place::TieredCluster);
    let limit = Duration::from_secs(5);
    let options = RedisOptions {
        command_timeout: limit,
        max_silence: tiered.then_some(Duration::from_secs(1)),
        ..RedisOptions::default()
    };
    let (store, server, servers) = match place {
        Place::Memory => return (Arc::new(MemoryStore::new(16 << 20)), None, Servers::None),
        Place::Redis | Place::Tiered => {
            let server = support::redis().await;
            let store = RedisStore::lazy(server.url(), options);
            (store, Some(server), Servers::None)
        }
        Place::Cluster | Place::TieredCluster => {
            let _turn = support::cluster().await;
            let store = RedisStore::cluster(&_turn.urls(), options);
            (store, None, Servers::Cluster { _turn })
        }
        Place::Sentinel => {
            let _turn = support::sentinel().await;
            let store = RedisStore::sentinel(&[_turn.sentinel.url()], "main", options);
            (store, None, Servers::Sentinel { _turn })
        }
    };
    let store = store.expect("an address");
    store.ready().await.expect("connect to Redis");
    let store = Coalesced::around(Arc::new(store), limit);
    (Arc::new(store), server, servers)
}

/// Rows that need not be there, but whose keys and index values are looked up.
fn imagined() -> impl Iterator<Item = city::Model> {
    let slugs = ["paris", "lyon", "rome", "atlantis", "oslo", "bern"];
    (0..=9).map(move |number: u8| city::Model {
        id: i64::from(number) + 1,
        country_id: Some(10 * i64::from(number % 2 + 1)),
        slug: slugs[usize::from(number) % slugs.len()].to_owned(),
        name: String::new(),
        rank: i32::from(number),
    })
}

/// Runs behaviours on {SQLite, Postgres, MariaDB} x {memory, Redis}, and on SQLite with every other place.
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
            async fn sqlite_cluster() { super::$behaviour(World::new(Sql::Sqlite, Place::Cluster).await).await; }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite_sentinel() { super::$behaviour(World::new(Sql::Sqlite, Place::Sentinel).await).await; }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite_tiered_cluster() { super::$behaviour(World::new(Sql::Sqlite, Place::TieredCluster).await).await; }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite_tiered() { super::$behaviour(World::new(Sql::Sqlite, Place::Tiered).await).await; }
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
