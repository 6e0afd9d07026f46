//! Cached reads for SeaORM 2 over Redis or Valkey, that are never stale after a write was acknowledged.
//!
//! Derive [`CachedEntity`](derive@CachedEntity) on a model, [attach](Cache::attach) a database connection to a
//! [`Cache`], and read through the functions that the derive adds to the entity. Writes through the
//! [`CachedConnection`] invalidate by themselves: single saves, bulk statements, raw SQL, and transactions, exactly at
//! their commit.
//!
//! ```no_run
//! use sea_orm::{ActiveModelTrait, Database, EntityTrait, IntoActiveModel, QueryOrder, QuerySelect, Set, TransactionTrait};
//! use sea_orm_cache::{Cache, QueryCache};
//!
//! mod city {
//!     use sea_orm::entity::prelude::*;
//!     use sea_orm_cache::CachedEntity;
//!
//!     #[sea_orm::model]
//!     #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
//!     #[sea_orm(table_name = "city")]
//!     #[cached(ttl = "10m")]
//!     pub struct Model {
//!         #[sea_orm(primary_key)]
//!         pub id: i64,
//!         #[cached(index)]
//!         pub country_id: i64,
//!         #[sea_orm(unique)]
//!         pub slug: String,
//!         pub population: i64,
//!     }
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = Cache::builder().redis("redis://127.0.0.1/").build().await?; // or Cache::in_memory()
//! let db = cache.attach(Database::connect("postgres://localhost/app").await?);
//!
//! let city = city::Entity::cached_get(362, &db).await?;
//! let paris = city::Entity::cached_find_by_slug("paris", &db).await?;
//! let french = city::Entity::cached_find_by_country_id(75, &db).await?;
//! let largest = city::Entity::find().order_by_desc(city::Column::Population).limit(20).cached().all(&db).await?;
//!
//! // To change a row, read it afresh: a cached one is shared, and another writer may be ahead of it.
//! let txn = db.begin().await?;
//! let mut city = city::Entity::find_by_id(362).one(&txn).await?.ok_or("no such city")?.into_active_model();
//! city.population = Set(2_200_000);
//! city.update(&txn).await?;
//! txn.commit().await?; // from here on nobody reads the old row
//! # Ok(()) }
//! ```
//!
//! # Consistency
//! A cached read that begins after a write was acknowledged returns that write or a later one, in every process that
//! shares the cache, for all writes that go through the library. Reads inside a transaction never use the cache. What
//! is evicted, expired or lost is a miss and never an old value. `CONSISTENCY.md` in the repository says why this
//! holds, and lists every known way in which an invalidation can be lost, with its bound.
//!
//! # Errors
//! Cached reads return SeaORM's [`DbErr`](sea_orm::DbErr): the database can fail them, and only it; or it is so far
//! behind that their turn did not come ([`CacheError::Overloaded`]). When the cache is away the database answers, and
//! writes do as their [`WritePolicy`] says.
//!
//! # Tracing
//! Through `tracing`: what an operator should see as events (see [`Event`]), and at the level `debug` the spans
//! `cache.request` (`ops`), one request to the store; `cache.fill` (`entity`), what is done about keys that missed,
//! the query included; `cache.write` (`keys`), a write with its fences.
//!
//! # Features
//! - `redis` (default): the Redis and Valkey store.
//! - `config`: named caches from a configuration: [`Caches`].
//! - `feed`: a change feed, for writes that do not come through the library: [`Feed`].
//! - `feed-postgres`: the same, woken by Postgres as soon as there is something.
//! - `http`: a tower layer that caches responses.
//! - `session`: a store for tower-sessions.
//! - `metrics`: counters and histograms for the `metrics` crate.
//! - `lz4`: compresses large values in the cache: `CacheBuilder::compress_over`.
//! - `testing`: the module `testing`, a kit for the tests of a service: faults, races, crashes, costs, freshness.
//! - `with-bigdecimal`, `with-ipnetwork`, `with-mac_address`: the column types of SeaORM's features of the same names.

// So that the derive's code compiles in the tests of this crate, too.
#[cfg(test)]
extern crate self as sea_orm_cache;

mod builder;
mod bulkhead;
mod cache;
#[cfg(feature = "config")]
mod caches;
mod clock;
mod codec;
mod config;
mod envelope;
mod error;
#[cfg(feature = "feed")]
mod feed;
mod fill;
mod flight;
mod gather;
mod glob;
#[cfg(feature = "http")]
mod http;
mod invalidation;
mod journal;
mod key;
mod memo;
mod observe;
mod orm;
mod rules;
#[cfg(feature = "session")]
mod session;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod tier;
mod values;

pub use builder::CacheBuilder;
pub use cache::Cache;
#[cfg(feature = "config")]
pub use caches::{Caches, CachesConfig, ConfigError};
pub use config::{Consistency, EntityPolicy, PlainTransactions, WritePolicy};
pub use error::CacheError;
#[cfg(feature = "feed")]
pub use feed::{Feed, FeedError};
#[cfg(feature = "http")]
pub use http::{CachedBody, CachedService, ResponseCache};
pub use key::{ColumnKind, Key};
pub use memo::{MemoHome, MemoStats};
#[cfg(feature = "metrics")]
pub use observe::CacheMetrics;
pub use observe::{EntityStats, Event, L1Stats, Observer, Stats};
pub use orm::connection::CachedConnection;
#[cfg(feature = "feed")]
pub use orm::effects::RowChange;
pub use orm::entity::{CachedEntity, PrimaryKeyOf, Rows};
pub use orm::hooks;
pub use orm::meta::{ColumnMeta, EntityMeta, IndexMeta};
pub use orm::query::{CachedSelect, Page, QueryCache};
pub use orm::stream::CachedStream;
pub use orm::transaction::CachedTransaction;
pub use rules::{AlsoStale, Change};
pub use sea_orm_cache_macros::{CachedEntity, cache_hooks, memoize};
#[cfg(feature = "session")]
pub use session::CacheSessions;
pub use values::{Cacheable, Codec, Loaded, Namespace, Policy};

/// What the derive's code calls. Not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use async_trait;
    pub use inventory::submit;
    pub use sea_orm;

    pub use crate::codec::{ByValue, CodecError, Column, Field, Reader, RowCodec, start_row};
    // For benchmarks.
    pub use crate::codec::{put_row, row as take_row};
    /// What the code of `#[memoize]` calls.
    pub mod memo {
        pub use crate::memo::{
            Call, Memo, Probe, clear, kind, load, name, owned, path, place, stats,
        };
    }
    pub use crate::orm::entity::{all, invalidate, invalidate_all, invalidate_many};
    pub use crate::orm::index::{find_index, find_unique};
    pub use crate::orm::meta::{Registration, entity_meta};
    pub use crate::orm::query::{related, related_one};
    pub use crate::orm::rows::{get, get_many};
    pub use crate::orm::site::linked;
}

// The README's examples, compiled as tests.
#[cfg(all(doctest, feature = "testing"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(all(doctest, feature = "feed"))]
#[doc = include_str!("../docs/CHANGE_FEED.md")]
struct ChangeFeed;

#[cfg(all(doctest, feature = "config", feature = "http", feature = "session"))]
#[doc = include_str!("../docs/FROM_DJANGO.md")]
struct FromDjango;
