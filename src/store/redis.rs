//! Redis 7 or Valkey 8: one server, the primary that sentinels name, or a cluster.
//!
//! One connection to a server carries everything. Its root generation is looked up when it is made,
//! and belongs to it: a restarted server or another one is always another connection. For a cluster see
//! there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Cursor, Feed, Op, OwnChange, Replies, Store, StoreError, Walked};

mod address;
mod cluster;
mod connection;
mod link;
mod resp;
mod sentinel;
#[cfg(feature = "tls")]
mod tls;
mod wire;

use crate::key::{PREFIX, escape};
use address::Server;
use cluster::Cluster;
use link::{Link, Live, Target};
use sentinel::Sentinels;
#[cfg(feature = "tls")]
pub use tls::{TlsClient, TlsOptions};

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
    /// For `rediss://` URLs.
    #[cfg(feature = "tls")]
    pub tls: TlsOptions,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            command_timeout: Duration::from_millis(250),
            connect_timeout: Duration::from_secs(1),
            max_silence: None,
            prefix: PREFIX.to_owned(),
            #[cfg(feature = "tls")]
            tls: TlsOptions::default(),
        }
    }
}

impl RedisOptions {
    fn root_key(&self) -> String {
        format!("{}:root", escape(&self.prefix))
    }

    /// Where to tell of changes by others, if somebody wants to know.
    fn feed(&self) -> Option<Arc<Feed>> {
        let feed = |silence| Arc::new(Feed::new(silence));
        self.max_silence.map(feed)
    }
}

/// Entries in a Redis or Valkey server, or in a cluster of them.
///
/// Connects again by itself after a connection broke; the batches that were under way fail. A batch of
/// up to 2,000 ops is one round trip, to all nodes of a cluster at once, and one more after a server
/// lost its scripts or a slot of the cluster moved.
pub struct RedisStore {
    home: Home,
}

enum Home {
    Server(Arc<Link>),
    Cluster(Arc<Cluster>),
}

impl RedisStore {
    /// Connects to a server, and fails if that fails.
    ///
    /// # Errors
    /// If the URL cannot be parsed, or the server cannot be reached within the connect timeout.
    pub async fn connect(url: &str, options: RedisOptions) -> Result<Self, StoreError> {
        let store = Self::lazy(url, options)?;
        store.ready().await?;
        Ok(store)
    }

    /// A server, at `redis://`, `rediss://` (with the feature `tls`) or `redis+unix://`. Does not
    /// connect yet: the first batch does.
    ///
    /// # Errors
    /// If the URL cannot be parsed.
    pub fn lazy(url: &str, options: RedisOptions) -> Result<Self, StoreError> {
        let server = Server::new(url, &options)?;
        Ok(Self::of(Target::Server(server), options))
    }

    /// The server that sentinels at these URLs call the primary of this name, asked again at each
    /// connection. For a server that asks for credentials, `primary` is a URL with the name in the
    /// host's place. Does not connect yet.
    ///
    /// # Errors
    /// If a URL cannot be parsed.
    pub fn sentinel(
        sentinels: &[String],
        primary: &str,
        options: RedisOptions,
    ) -> Result<Self, StoreError> {
        let sentinels = Sentinels::new(sentinels, primary, &options)?;
        Ok(Self::of(Target::Primary(sentinels), options))
    }

    /// A cluster, some of whose nodes are at these URLs. All are signed in to as the first URL says.
    /// Does not connect yet.
    ///
    /// # Errors
    /// If a URL cannot be parsed.
    pub fn cluster(nodes: &[String], options: RedisOptions) -> Result<Self, StoreError> {
        let cluster = Arc::new(Cluster::new(nodes, options)?);
        let home = Home::Cluster(cluster);
        Ok(Self { home })
    }

    fn of(target: Target, options: RedisOptions) -> Self {
        let feed = options.feed();
        let link = Arc::new(Link::new(target, options, feed));
        let home = Home::Server(link);
        Self { home }
    }

    /// Connects, if it is not connected.
    ///
    /// # Errors
    /// If the server, or a primary of the cluster, cannot be reached within the connect timeout.
    pub async fn ready(&self) -> Result<(), StoreError> {
        match &self.home {
            Home::Server(link) => link.live().await.map(drop),
            Home::Cluster(cluster) => cluster.ready().await,
        }
    }

    async fn exchange(&self, part: &[Op]) -> Result<Replies, StoreError> {
        let link = match &self.home {
            Home::Server(link) => link,
            Home::Cluster(cluster) => return cluster.run(part).await,
        };
        let exchange = async |live: Live| {
            let items = live.exchange(part).await?;
            let root = live.root;
            Ok(Replies { root, items })
        };
        link.with_live(exchange).await
    }
}

/// What these ops invalidate has changed once they are answered, or will not be.
fn own_changes(feed: Option<&Arc<Feed>>, ops: &[Op]) -> Option<OwnChange> {
    let writes = ops.iter().filter(|op| op.invalidates());
    Some(feed?.own_change(writes.map(Op::key)))
}

impl fmt::Debug for RedisStore {
    /// Where it is; never the credentials of the URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut store = f.debug_struct("RedisStore");
        match &self.home {
            Home::Server(link) => match &link.target {
                Target::Server(server) | Target::Node(server) => {
                    store.field("address", &format_args!("{}", server.place()))
                }
                Target::Primary(sentinels) => store.field("primary", &sentinels.name()),
            },
            Home::Cluster(cluster) => store.field("nodes", &cluster.seeds()),
        };
        store.finish_non_exhaustive()
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
        let link = match &self.home {
            Home::Server(link) => link,
            Home::Cluster(cluster) => return cluster.refresh_root().await,
        };
        let refresh = async |live: Live| {
            let root = live.root_now(&link.options.root_key()).await?;
            link.adopt(live.id, root);
            Ok(())
        };
        link.with_live(refresh).await
    }

    /// About a thousand keys at a time, of one node after another.
    async fn walk(&self, prefix: &str, from: &Cursor) -> Result<Walked, StoreError> {
        let link = match &self.home {
            Home::Server(link) => link,
            Home::Cluster(cluster) => return cluster.walk(prefix, from).await,
        };
        let (keys, next) = link.scan(prefix, &from.0).await?;
        Ok(Walked {
            keys,
            next: next.map(Cursor),
        })
    }

    fn feed(&self) -> Option<Arc<Feed>> {
        match &self.home {
            Home::Server(link) => link.feed.clone(),
            Home::Cluster(cluster) => cluster.feed.clone(),
        }
    }
}
