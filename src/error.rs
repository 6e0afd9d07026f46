//! Errors of the cache itself. Reads return none of them but [`CacheError::Overloaded`]
//! and [`CacheError::LoadTimedOut`].

use std::time::Duration;

use sea_orm::DbErr;

use crate::store::StoreError;

/// Why a cache operation failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// A setting is wrong.
    #[error("cache setting `{setting}`: {reason}")]
    Setting {
        /// Which one.
        setting: &'static str,
        /// What is wrong with it and what is allowed.
        reason: String,
    },
    /// The cache cannot be reached.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A write was refused before the database was touched, because its fence could not be written
    /// and its policy is [`WritePolicy::Strict`](crate::WritePolicy::Strict).
    #[error(
        "the write was refused and the database not touched: its write policy is `strict` and {0}"
    )]
    Refused(StoreError),
    /// So many loads of an entity were under way that this one was not begun in time: the database
    /// does not keep up. See [`CacheBuilder::max_loads`](crate::CacheBuilder::max_loads).
    #[error(
        "{loads} loads of `{entity}` are under way already, and none ended within {waited:?}: \
         the database is overloaded, or `max_loads` is too low for it"
    )]
    Overloaded {
        /// The entity's name in keys.
        entity: String,
        /// How many loads may run at once.
        loads: usize,
        /// How long this one waited.
        waited: Duration,
    },
    /// A load took longer than its policy's `load_timeout`.
    #[error("the load of `{entity}` was given up after {after:?}, its `load_timeout`")]
    LoadTimedOut {
        /// The entity's name in keys, or the namespace's.
        entity: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// A value cannot be stored.
    #[error("the value of `{key}` is not stored: {reason}")]
    Value {
        /// Under which key.
        key: String,
        /// Why.
        reason: String,
    },
    /// A pattern cannot be read.
    #[error("the pattern `{pattern}`: {reason}")]
    Pattern {
        /// Which one.
        pattern: String,
        /// What is wrong with it and what is allowed.
        reason: String,
    },
    /// A key was asked for that cannot be keyed, such as a float.
    #[error("`{0}`: this key cannot be cached; invalidate the whole entity instead")]
    NotKeyable(String),
    /// The connection belongs to no cache.
    #[error("this connection has no cache: use the one that `Cache::attach` gives, or install one")]
    NoCache,
    /// The runtime ended before the work did.
    #[error("the async runtime is shutting down")]
    ShuttingDown,
}

impl From<CacheError> for DbErr {
    fn from(error: CacheError) -> Self {
        DbErr::Custom(error.to_string())
    }
}
