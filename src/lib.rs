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
