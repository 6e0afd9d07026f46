//! Cached, always-fresh reads for SeaORM 2 over Redis or Valkey.

#![allow(dead_code)]

mod cache;
mod codec;
mod config;
mod invalidation;
mod key;
mod orm;
pub mod store;

pub use cache::{Cache, CacheError};
pub use config::{Consistency, EntityPolicy, WritePolicy};
pub use key::Key;

mod stub;
pub use orm::meta::EntityMeta;
pub use sea_orm_cache_macros::{CachedEntity, cache_hooks};
pub use stub::{__private, CachedEntity, Rows, hooks};
