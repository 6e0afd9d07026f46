//! Cached, always-fresh reads for SeaORM 2 over Redis or Valkey.

mod builder;
mod cache;
mod codec;
mod config;
mod envelope;
mod error;
mod fill;
mod invalidation;
mod journal;
mod key;
mod observe;
mod orm;
pub mod store;

pub use builder::CacheBuilder;
pub use cache::Cache;
pub use config::{Consistency, EntityPolicy, PlainTransactions, WritePolicy};
pub use error::CacheError;
pub use key::Key;
pub use observe::{EntityStats, Event, Observer, Stats};
pub use orm::connection::CachedConnection;
pub use orm::entity::{CachedEntity, PrimaryKeyOf, Rows};
pub use orm::hooks;
pub use orm::meta::EntityMeta;
pub use orm::query::{CachedSelect, Page, QueryCache};
pub use orm::stream::CachedStream;
pub use orm::transaction::CachedTransaction;
pub use sea_orm_cache_macros::{CachedEntity, cache_hooks};

/// What the derive's code calls. Not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use async_trait;
    pub use inventory::submit;
    pub use sea_orm;

    pub use crate::orm::entity::{
        all, find_index, find_unique, get, get_many, invalidate, invalidate_all, invalidate_many,
    };
    pub use crate::orm::meta::{Registration, entity_meta};
    pub use crate::orm::query::{related, related_one};
}
