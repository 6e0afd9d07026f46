//! Redis or Valkey, standalone.

use std::time::Duration;

use super::{Op, Replies, Store, StoreError};

/// How to talk to a Redis or Valkey server.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// How long a batch may take. Defaults to 250 ms.
    pub command_timeout: Duration,
    /// How long connecting may take. Defaults to 1 s.
    pub connect_timeout: Duration,
    /// The prefix of the root generation's key. Defaults to `soc`.
    pub prefix: String,
}

/// Entries in a Redis or Valkey server.
#[derive(Debug)]
pub struct RedisStore {}

impl RedisStore {
    /// Connects, and fails if that fails.
    pub async fn connect(url: &str, options: RedisOptions) -> Result<Self, StoreError> {
        let _ = (url, options);
        todo!("helper")
    }

    /// Does not connect yet: the first batch does.
    ///
    /// # Errors
    /// If the URL cannot be parsed.
    pub fn lazy(url: &str, options: RedisOptions) -> Result<Self, StoreError> {
        let _ = (url, options);
        todo!("helper")
    }
}

#[async_trait::async_trait]
impl Store for RedisStore {
    async fn run(&self, batch: Vec<Op>) -> Result<Replies, StoreError> {
        let _ = batch;
        todo!("helper")
    }
}
