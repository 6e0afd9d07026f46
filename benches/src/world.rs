//! What all contestants work on.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use sea_orm::{ConnectOptions, Database, DatabaseConnection};
use sea_orm_cache::{Cache, CachedConnection};

use crate::Outcome;
use crate::contest::Plan;
use crate::model::{self, city, town};
use crate::peers::Peers;
use crate::servers::Server;

/// The cities that hits are measured with.
const HOT: usize = 10_000;
/// Enough for all of them.
const L1_BYTES: u64 = 64 << 20;

/// The servers, with the tables in the databases.
pub struct Servers {
    pub redis: Server,
    pub postgres: Server,
}

impl Servers {
    pub async fn start(cities: &[city::Model]) -> Outcome<Self> {
        let servers = Self {
            redis: Server::redis()?,
            postgres: Server::postgres()?,
        };
        servers.redis.answers().await?;
        servers.postgres.answers().await?;
        model::store(&servers.connect().await?, cities).await?;
        model::store(&servers.connect_sqlite().await?, cities).await?;
        Ok(servers)
    }

    pub async fn connect(&self) -> Outcome<DatabaseConnection> {
        connect(&self.postgres.url).await
    }

    async fn connect_sqlite(&self) -> Outcome<DatabaseConnection> {
        let file = self.redis.folder.join("cities.sqlite");
        connect(&format!("sqlite://{}?mode=rwc", file.display())).await
    }
}

pub async fn connect(url: &str) -> Outcome<DatabaseConnection> {
    let mut options = ConnectOptions::new(url);
    options.max_connections(16).sqlx_logging(false);
    Ok(Database::connect(options).await?)
}

pub struct World {
    pub servers: Arc<Servers>,
    pub cities: Arc<[city::Model]>,
    pub postgres: DatabaseConnection,
    pub sqlite: DatabaseConnection,
    pub redis: MultiplexedConnection,
    pub peers: Peers,
    /// Redis only.
    pub cache: Cache,
    pub l2: CachedConnection,
    /// Redis, and a tier in this process before it.
    pub l1: CachedConnection,
    /// The keys of the hot cities.
    row_keys: Vec<String>,
    /// Where the bytes of their cached values are once more as plain strings.
    raw_keys: Vec<String>,
    /// Places of hot cities, the first ones much more often than the last ones.
    zipf: Vec<usize>,
}

impl World {
    /// Its connections belong to the runtime that this runs on.
    pub async fn open(
        servers: Arc<Servers>,
        cities: Arc<[city::Model]>,
        plan: &Plan,
    ) -> Outcome<Self> {
        let url = &servers.redis.url;
        let client = redis::Client::open(url.as_str())?;
        let redis = client.get_multiplexed_async_connection().await?;
        let postgres = servers.connect().await?;
        let cache = Cache::builder().redis(url).build().await?;
        let tiered = Cache::builder().redis(url).l1(L1_BYTES).build().await?;
        let hot = plan.size(HOT, 300);
        let world = Self {
            peers: Peers::open(url, redis.clone(), postgres.clone(), hot).await?,
            sqlite: servers.connect_sqlite().await?,
            l2: cache.attach(postgres.clone()),
            l1: tiered.attach(postgres.clone()),
            row_keys: keys("soc:main:city:pk", &cities[..hot]),
            raw_keys: keys("raw", &cities[..hot]),
            zipf: zipf(hot),
            servers,
            cities,
            postgres,
            redis,
            cache,
        };
        world.warm().await?;
        Ok(world)
    }

    /// Every read of a hot city is a hit from here on.
    async fn warm(&self) -> Outcome<()> {
        let hot = &self.cities[..self.raw_keys.len()];
        for db in [&self.l2, &self.l1] {
            for chunk in hot.chunks(1_000) {
                city::Entity::cached_get_many(chunk.iter().map(|city| city.id), db).await?;
            }
            town::Entity::cached_all(db).await?;
        }
        self.plant_raw().await?;
        let rows: Vec<_> = hot.iter().map(model::without_cache).collect();
        let warm = stream::iter(&rows).map(|row| self.peers.warm(row));
        warm.buffer_unordered(64).try_collect().await
    }

    async fn plant_raw(&self) -> Outcome<()> {
        let field = self.field().await?;
        for (rows, raws) in self.row_keys.chunks(1_000).zip(self.raw_keys.chunks(1_000)) {
            let mut gets = redis::pipe();
            for key in rows {
                gets.hget(key, &field);
            }
            let values: Vec<Vec<u8>> = gets.query_async(&mut self.redis.clone()).await?;
            let mut sets = redis::pipe();
            for (key, value) in raws.iter().zip(values) {
                sets.set(key, value);
            }
            sets.exec_async(&mut self.redis.clone()).await?;
        }
        Ok(())
    }

    /// Where the rows of cities are in their entries.
    pub async fn field(&self) -> Outcome<String> {
        let fields: Vec<String> = self.redis.clone().hkeys(self.row_key(0)).await?;
        let value = fields.into_iter().find(|field| field.starts_with("v:"));
        Ok(value.ok_or("the first city is not cached")?)
    }

    pub fn id(&self, n: usize) -> i64 {
        self.cities[n % self.cities.len()].id
    }

    /// A hot city: each as often as the others.
    pub fn hot(&self, n: usize) -> i64 {
        self.cities[n % self.raw_keys.len()].id
    }

    /// The key of [`hot`](Self::hot).
    pub fn row_key(&self, n: usize) -> &str {
        &self.row_keys[n % self.row_keys.len()]
    }

    /// Where the bytes of [`hot`](Self::hot) are as a plain string.
    pub fn raw_key(&self, n: usize) -> &str {
        &self.raw_keys[n % self.raw_keys.len()]
    }

    /// A hot city, some far more often than others.
    pub fn popular(&self, n: usize) -> i64 {
        self.cities[self.zipf[n % self.zipf.len()]].id
    }

    pub fn hot_count(&self) -> usize {
        self.raw_keys.len()
    }

    /// A cache without a tier in this process, of its own keys.
    pub async fn cache(&self, prefix: &str) -> Outcome<Cache> {
        let builder = Cache::builder().redis(&self.servers.redis.url);
        Ok(builder.prefix(prefix).build().await?)
    }
}

fn keys(prefix: &str, cities: &[city::Model]) -> Vec<String> {
    let key = |city: &city::Model| format!("{prefix}:{}", city.id);
    cities.iter().map(key).collect()
}

/// The n-th of `count` comes with a frequency of 1/n.
fn zipf(count: usize) -> Vec<usize> {
    let mut random = fastrand::Rng::with_seed(2);
    let place = |_| (count as f64).powf(random.f64()) as usize - 1;
    (0..1 << 16).map(place).collect()
}
