//! What one would use or write instead.

use std::sync::Arc;
use std::time::Duration;

use cached::{AsyncRedisCache, ConcurrentCachedAsync};
use hitbox::DisabledOffload;
use hitbox::concurrency::NoopConcurrencyManager;
use hitbox::policy::PolicyConfig;
use hitbox_redis::{ConnectionMode, RedisBackend};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use sea_orm::{DatabaseConnection, DbErr, EntityTrait};

use crate::Outcome;
use crate::model::plain::city::{Entity, Model};

const TTL: Duration = Duration::from_secs(3_600);

type Hitbox = hitbox_fn::Cache<RedisBackend, NoopConcurrencyManager, DisabledOffload>;

pub struct Peers {
    pub by_hand: ByHand,
    pub quick: quick_cache::sync::Cache<i64, Arc<Model>>,
    pub foyer: foyer::Cache<i64, Arc<Model>>,
    moka: moka::future::Cache<i64, Arc<Model>>,
    cached: AsyncRedisCache<i64, Model>,
    hitbox: Hitbox,
}

impl Peers {
    pub async fn open(
        url: &str,
        redis: MultiplexedConnection,
        db: DatabaseConnection,
        rows: usize,
    ) -> Outcome<Self> {
        let cached = AsyncRedisCache::builder("cached")
            .connection_string(url)
            .ttl(TTL);
        let backend = RedisBackend::builder().connection(ConnectionMode::single(url));
        let hitbox = hitbox_fn::Cache::builder()
            .backend(backend.build()?)
            .policy(PolicyConfig::builder().ttl(TTL).build());
        Ok(Self {
            by_hand: ByHand { redis, db },
            quick: quick_cache::sync::Cache::new(2 * rows),
            foyer: foyer::Cache::builder(2 * rows).build(),
            moka: moka::future::Cache::builder()
                .max_capacity(2 * rows as u64)
                .time_to_live(TTL)
                .build(),
            cached: cached.build().await?,
            hitbox: hitbox.build(),
        })
    }

    /// Every peer's read of this row is a hit from here on.
    pub async fn warm(&self, row: &Model) -> Outcome<()> {
        self.cached.async_cache_set(row.id, row.clone()).await?;
        self.hitbox(row.id).await?;
        self.moka(row.id).await?;
        let row = Arc::new(row.clone());
        self.quick.insert(row.id, row.clone());
        self.foyer.insert(row.id, row);
        Ok(())
    }

    /// In memory, and cache-aside by hand behind it.
    pub async fn moka(&self, id: i64) -> Outcome<Arc<Model>> {
        let load = async { self.by_hand.get(id).await.map(Arc::new) };
        let found = self.moka.try_get_with(id, load).await;
        found.map_err(|error| error.to_string().into())
    }

    pub async fn cached(&self, id: i64) -> Outcome<Model> {
        Ok(self
            .cached
            .async_cache_get(&id)
            .await?
            .ok_or("no such city")?)
    }

    pub async fn hitbox(&self, id: i64) -> Outcome<Model> {
        Ok(load(id, self.by_hand.db.clone())
            .cache(&self.hitbox)
            .await?)
    }
}

#[hitbox_fn::cached(prefix = "city", skip(db))]
async fn load(id: i64, db: DatabaseConnection) -> Result<Model, DbErr> {
    let found = Entity::find_by_id(id).one(&db).await?;
    found.ok_or(DbErr::RecordNotFound(String::new()))
}

/// Cache-aside with JSON.
#[derive(Clone)]
pub struct ByHand {
    redis: MultiplexedConnection,
    db: DatabaseConnection,
}

impl ByHand {
    pub async fn get(&self, id: i64) -> Outcome<Model> {
        let (mut redis, key) = (self.redis.clone(), format!("json:{id}"));
        let cached: Option<Vec<u8>> = redis.get(&key).await?;
        if let Some(bytes) = cached {
            return Ok(serde_json::from_slice(&bytes)?);
        }
        let found = Entity::find_by_id(id).one(&self.db).await?;
        let row = found.ok_or("no such city")?;
        let bytes = serde_json::to_vec(&row)?;
        let _: () = redis.set_ex(key, bytes, TTL.as_secs()).await?;
        Ok(row)
    }
}
