//! Errors of the cache itself. Reads never return them: only the database can fail a read.

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
