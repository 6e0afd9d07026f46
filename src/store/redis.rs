//! Redis 7 or Valkey 8, standalone.
//!
//! One connection carries everything. Its root generation is looked up when it is made, and belongs
//! to it: a restarted server or another one is always another connection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Feed, Op, Replies, Store, StoreError};

mod link;
mod wire;

use link::{Link, Live};

/// Longer batches are sent in parts of this many ops, one round trip each, so that neither side
/// holds all of a huge batch in its buffers, others need not wait for it, and its length is not taken
/// for a server that does not answer in time.
const LONGEST_PIPELINE: usize = 2_000;

/// How to talk to a Redis or Valkey server.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// How long a batch may take, waiting for a connection included; a longer one may take so long for
    /// every 2,000 ops. Defaults to 250 ms.
    pub command_timeout: Duration,
    /// How long connecting may take. A batch does not wait for all of it, but connecting goes on
    /// and later batches profit. Defaults to 1 s.
    pub connect_timeout: Duration,
    /// Has the server tell of changes to what was read (`CLIENT TRACKING`), for an in-process tier, and
    /// asks it three times in this time whether it still does. Without an answer for so long the tier
    /// is not used. Off by default; at least 100 ms.
    pub max_silence: Option<Duration>,
    /// The prefix of the root generation's key. Defaults to `soc`.
    pub prefix: String,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            command_timeout: Duration::from_millis(250),
            connect_timeout: Duration::from_secs(1),
            max_silence: None,
            prefix: "soc".to_owned(),
        }
    }
}

/// Entries in a Redis or Valkey server.
///
/// Connects again by itself after the connection broke; the batches that were under way fail. A
/// batch of up to 2,000 ops is one round trip, and one more after the server lost its scripts.
pub struct RedisStore {
    shared: Arc<Link>,
}

impl RedisStore {
    /// Connects, and fails if that fails.
    ///
    /// # Errors
    /// If the URL cannot be parsed, or the server cannot be reached within the connect timeout.
    pub async fn connect(url: &str, options: RedisOptions) -> Result<Self, StoreError> {
        let store = Self::lazy(url, options)?;
        store.shared.live().await?;
        Ok(store)
    }

    /// Does not connect yet: the first batch does.
    ///
    /// # Errors
    /// If the URL cannot be parsed.
    pub fn lazy(url: &str, options: RedisOptions) -> Result<Self, StoreError> {
        let link = Link::new(url, options);
        let shared = Arc::new(link.map_err(|error| StoreError::Unreachable(error.to_string()))?);
        Ok(Self { shared })
    }

    async fn exchange(&self, part: &[Op]) -> Result<Replies, StoreError> {
        let exchange = async |live: Live| {
            let items = live.exchange(part).await?;
            let root = live.root;
            Ok(Replies { root, items })
        };
        self.shared.with_live(exchange).await
    }
}

impl fmt::Debug for RedisStore {
    /// The address and the options; never the credentials of the URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.shared.client.get_connection_info().addr();
        f.debug_struct("RedisStore")
            .field("address", &format_args!("{address}"))
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl Store for RedisStore {
    async fn run(&self, batch: Vec<Op>) -> Result<Replies, StoreError> {
        let mut parts = batch.chunks(LONGEST_PIPELINE);
        let mut replies = self.exchange(parts.next().unwrap_or_default()).await?;
        for part in parts {
            let more = self.exchange(part).await?;
            if more.root != replies.root {
                let changed = "another root generation in the middle of a batch";
                return Err(StoreError::Protocol(changed.to_owned()));
            }
            replies.items.extend(more.items);
        }
        Ok(replies)
    }

    async fn refresh_root(&self) -> Result<(), StoreError> {
        let refresh = async |live: Live| {
            let root = live.root_now(&self.shared.root_key()).await?;
            self.shared.adopt(live.id, root);
            Ok(())
        };
        self.shared.with_live(refresh).await
    }

    fn feed(&self) -> Option<Arc<Feed>> {
        self.shared.feed.clone()
    }
}
