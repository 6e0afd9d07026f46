//! Settings of a cache.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::Cache;
use crate::config::{LONGEST, PlainTransactions, WritePolicy};
use crate::envelope::Packing;
use crate::error::CacheError;
use crate::key::PREFIX;
use crate::observe::{Observer, Witness};
#[cfg(feature = "tls")]
use crate::store::TlsOptions;
#[cfg(feature = "redis")]
use crate::store::{Coalesced, RedisOptions, RedisStore};
use crate::store::{MemoryStore, Store};
use crate::values::Codec;

/// Settings that live as long as the cache.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) prefix: String,
    /// Of values that do not say.
    pub(crate) ttl: Duration,
    pub(crate) codec: Codec,
    pub(crate) lease_ttl: Duration,
    pub(crate) fence_ttl: Duration,
    pub(crate) write_policy: WritePolicy,
    pub(crate) plain_transactions: PlainTransactions,
    pub(crate) only_linked_entities: bool,
    pub(crate) max_loads: usize,
    pub(crate) load_wait: Duration,
    pub(crate) max_value_bytes: usize,
    pub(crate) compress_over: Option<usize>,
    /// How many bytes the in-process tier takes, if there is one.
    pub(crate) l1: Option<u64>,
    pub(crate) max_silence: Duration,
}

impl Settings {
    pub(crate) fn packing(&self) -> Packing {
        Packing {
            over: self.compress_over,
            most: self.max_value_bytes,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefix: PREFIX.to_owned(),
            ttl: Duration::from_secs(300),
            codec: Codec::default(),
            lease_ttl: Duration::from_secs(3),
            fence_ttl: Duration::from_secs(10),
            write_policy: WritePolicy::default(),
            plain_transactions: PlainTransactions::default(),
            only_linked_entities: false,
            max_loads: 64,
            load_wait: Duration::from_secs(5),
            max_value_bytes: 1 << 20,
            compress_over: None,
            l1: None,
            max_silence: Duration::from_secs(1),
        }
    }
}

/// Builds a [`Cache`]. Without [`redis`](Self::redis) or [`store`](Self::store) it is in memory.
#[derive(Default)]
#[must_use]
pub struct CacheBuilder {
    settings: Settings,
    place: Place,
    lazy: bool,
    command_timeout: Option<Duration>,
    connect_timeout: Option<Duration>,
    observers: Vec<Arc<dyn Observer>>,
    #[cfg(feature = "tls")]
    tls: TlsOptions,
}

/// Where a Redis is.
#[cfg(feature = "redis")]
enum Redis {
    Server(String),
    Cluster(Vec<String>),
    Sentinel(Vec<String>, String),
}

enum Place {
    Memory(u64),
    #[cfg(feature = "redis")]
    Redis(Redis),
    Custom(Arc<dyn Store>),
}

impl Default for Place {
    fn default() -> Self {
        Self::Memory(64 << 20)
    }
}

impl std::fmt::Debug for CacheBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither the URL, which may hold a password, nor the observer.
        f.debug_struct("CacheBuilder")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl CacheBuilder {
    /// Caches in a Redis or Valkey server: `redis://[user:password@]host[:port][/db]`, the same with
    /// `rediss://` for TLS (feature `tls`), or `redis+unix:///path[?db=..&user=..&pass=..]`.
    #[cfg(feature = "redis")]
    pub fn redis(mut self, url: impl Into<String>) -> Self {
        self.place = Place::Redis(Redis::Server(url.into()));
        self
    }

    /// Caches in a Redis or Valkey cluster. Some of its nodes are at these URLs; the others are asked
    /// for. All are signed in to as the first URL says.
    #[cfg(feature = "redis")]
    pub fn cluster<U: Into<String>>(mut self, nodes: impl IntoIterator<Item = U>) -> Self {
        let nodes = nodes.into_iter().map(Into::into).collect();
        self.place = Place::Redis(Redis::Cluster(nodes));
        self
    }

    /// Caches in the Redis or Valkey server that sentinels at these URLs call the primary of this
    /// name. They are asked again whenever a connection is made, and once a second.
    ///
    /// For a server that asks for credentials or TLS, or another database than 0, `primary` is a URL
    /// with the name in the host's place: `rediss://user:password@mymaster/1`. The sentinels' URLs say
    /// how to sign in to them.
    #[cfg(feature = "redis")]
    pub fn sentinel<U: Into<String>>(
        mut self,
        sentinels: impl IntoIterator<Item = U>,
        primary: impl Into<String>,
    ) -> Self {
        let sentinels = sentinels.into_iter().map(Into::into).collect();
        self.place = Place::Redis(Redis::Sentinel(sentinels, primary.into()));
        self
    }

    /// Whom `rediss://` URLs trust. Defaults to the public authorities that Mozilla trusts.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: TlsOptions) -> Self {
        self.tls = tls;
        self
    }

    /// Caches in this process's memory, holding about `max_bytes`. Defaults to 64 MiB.
    pub fn memory(mut self, max_bytes: u64) -> Self {
        self.place = Place::Memory(max_bytes);
        self
    }

    /// Caches in a store of your own.
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.place = Place::Custom(store);
        self
    }

    /// The first part of every key. Defaults to `soc`. Programs that share data share the prefix.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings.prefix = prefix.into();
        self
    }

    /// How long values live whose [`Policy`](crate::Policy) does not say. Entities say it by
    /// `#[cached(ttl = "..")]`. Defaults to 5 minutes.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = ttl;
        self
    }

    /// How values of [namespaces](crate::Namespace) are written that do not say. Defaults to
    /// [`Codec::MessagePack`].
    pub fn codec(mut self, codec: Codec) -> Self {
        self.settings.codec = codec;
        self
    }

    /// Also keeps decoded values in this process, about `max_bytes` of them, in front of the store.
    /// Defaults to none.
    ///
    /// Reads that it answers take a few hundred nanoseconds and ask nobody. The server tells this
    /// process of every change to what it holds; own writes leave it before their call returns.
    ///
    /// # Consistency
    /// Reads of entities whose consistency is [`Bounded`](crate::Consistency::Bounded), which is the
    /// default, may then be as old as such a message takes, as a rule less than a millisecond, and at
    /// most [`max_silence`](Self::max_silence). [`Linearizable`](crate::Consistency::Linearizable)
    /// reads skip the tier; see
    /// [`with_consistency`](crate::CachedConnection::with_consistency).
    pub fn l1(mut self, max_bytes: u64) -> Self {
        self.settings.l1 = Some(max_bytes);
        self
    }

    /// How old what [`l1`](Self::l1) answers may be at most, also when the connection to the server
    /// breaks without a sign. Defaults to 1 s; the server is asked three times in this time whether it
    /// is still there. At least 100 ms. Lower it where a second is too old, at the price of a request
    /// each time; raise it where the server is far away or often slow.
    pub fn max_silence(mut self, silence: Duration) -> Self {
        self.settings.max_silence = silence;
        self
    }

    /// Starts without a connection to the server: until it answers, the database answers.
    /// Without this, [`build`](Self::build) fails when the server cannot be reached.
    pub fn lazy(mut self) -> Self {
        self.lazy = true;
        self
    }

    /// How long a request to the cache, of up to 2,000 keys, may take before the database answers
    /// instead. Defaults to 250 ms.
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.command_timeout = Some(timeout);
        self
    }

    /// How long connecting to the cache may take. Defaults to 1 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// How long others wait for a load before they load themselves. Defaults to 3 s; raise it above
    /// the duration of your slowest cached query.
    pub fn lease_ttl(mut self, ttl: Duration) -> Self {
        self.settings.lease_ttl = ttl;
        self
    }

    /// How long after a writer's death its keys stay uncached, and how long an abandoned write is
    /// guarded. Defaults to 10 s; renewed while a statement runs.
    pub fn fence_ttl(mut self, ttl: Duration) -> Self {
        self.settings.fence_ttl = ttl;
        self
    }

    /// How many loads of one entity may run at once in this process; a load is a query on behalf of
    /// missed keys. Further ones wait in line, so that the database is not buried under all readers
    /// when the cache is gone or empty. Defaults to 64; below the size of your connection pool it
    /// leaves connections for writes and for other entities.
    pub fn max_loads(mut self, loads: usize) -> Self {
        self.settings.max_loads = loads;
        self
    }

    /// How long a load waits in line before its read fails with [`CacheError::Overloaded`].
    /// Defaults to 5 s; lower it where a caller is better off with a quick error.
    pub fn load_wait(mut self, wait: Duration) -> Self {
        self.settings.load_wait = wait;
        self
    }

    /// What writes do when the cache cannot be reached, where the entity does not say. Defaults to
    /// [`WritePolicy::Available`].
    pub fn write_policy(mut self, policy: WritePolicy) -> Self {
        self.settings.write_policy = policy;
        self
    }

    /// What a save through a plain `DatabaseTransaction` does. Defaults to
    /// [`PlainTransactions::Expire`].
    pub fn plain_transactions(mut self, policy: PlainTransactions) -> Self {
        self.settings.plain_transactions = policy;
        self
    }

    /// Promises that every program that caches an entity of these databases links it the same as
    /// this one. Then writes to tables of no entity linked here cost no round trip; otherwise they
    /// invalidate the table's generations, in case another program caches it.
    pub fn only_linked_entities(mut self) -> Self {
        self.settings.only_linked_entities = true;
        self
    }

    /// Does not cache a value (a row, a list of keys, a result) that takes more than this many bytes
    /// as it is stored, or before it is compressed. Defaults to 1 MiB. Lower it where huge values delay
    /// other requests on the connection to the cache or push small ones out of it; raise it for larger
    /// results. Programs that share data had better share it: compressed values that are larger than
    /// this program's limit are misses to it.
    pub fn max_value_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_value_bytes = bytes;
        self
    }

    /// Compresses a value (LZ4) whose encoding is longer than this many bytes, if it is shorter for
    /// it. Off by default. It pays above about 2 KB, where it saves memory and network for some
    /// microseconds of this program's time. A program without the feature `lz4` takes a compressed
    /// value for outdated, and fills it anew.
    #[cfg(feature = "lz4")]
    pub fn compress_over(mut self, bytes: usize) -> Self {
        self.settings.compress_over = Some(bytes);
        self
    }

    /// Watches events, beside those that do already. A closure `Fn(&Event)` will do.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Builds the cache.
    ///
    /// # Errors
    /// A wrong setting, or a server that cannot be reached (unless [`lazy`](Self::lazy)).
    pub async fn build(self) -> Result<Cache, CacheError> {
        let positive = |setting, duration: Duration| {
            if duration < Duration::from_millis(1) {
                return Err(CacheError::Setting {
                    setting,
                    reason: "must be at least 1 ms".to_owned(),
                });
            }
            Ok(())
        };
        positive("lease_ttl", self.settings.lease_ttl)?;
        positive("fence_ttl", self.settings.fence_ttl)?;
        positive(
            "command_timeout",
            self.command_timeout.unwrap_or(Duration::MAX),
        )?;
        positive(
            "connect_timeout",
            self.connect_timeout.unwrap_or(Duration::MAX),
        )?;
        if self.settings.max_loads == 0 {
            return Err(CacheError::Setting {
                setting: "max_loads",
                reason: "must be at least 1".to_owned(),
            });
        }
        if self.settings.max_silence < Duration::from_millis(100) {
            return Err(CacheError::Setting {
                setting: "max_silence",
                reason: "must be at least 100 ms".to_owned(),
            });
        }
        let store = self.open().await?;
        if self.settings.l1.is_some() && store.feed().is_none() {
            return Err(CacheError::Setting {
                setting: "l1",
                reason: "this store does not tell of changes: its `Store::feed` is `None`"
                    .to_owned(),
            });
        }
        let settings = Settings {
            lease_ttl: self.settings.lease_ttl.min(LONGEST),
            fence_ttl: self.settings.fence_ttl.min(LONGEST),
            ..self.settings
        };
        Ok(Cache::new(store, settings, Witness::new(self.observers)))
    }

    async fn open(&self) -> Result<Arc<dyn Store>, CacheError> {
        match &self.place {
            Place::Memory(max_bytes) => Ok(Arc::new(MemoryStore::of_one_cache(*max_bytes))),
            Place::Custom(store) => Ok(store.clone()),
            #[cfg(feature = "redis")]
            Place::Redis(place) => self.open_redis(place).await,
        }
    }

    #[cfg(feature = "redis")]
    async fn open_redis(&self, place: &Redis) -> Result<Arc<dyn Store>, CacheError> {
        let mut options = RedisOptions {
            prefix: self.settings.prefix.clone(),
            max_silence: self.settings.l1.map(|_| self.settings.max_silence),
            #[cfg(feature = "tls")]
            tls: self.tls.clone(),
            ..RedisOptions::default()
        };
        options.command_timeout = self.command_timeout.unwrap_or(options.command_timeout);
        options.connect_timeout = self.connect_timeout.unwrap_or(options.connect_timeout);
        let limit = options.command_timeout;
        let store = match place {
            Redis::Server(url) => RedisStore::lazy(url, options),
            Redis::Cluster(nodes) => RedisStore::cluster(nodes, options),
            Redis::Sentinel(sentinels, primary) => {
                RedisStore::sentinel(sentinels, primary, options)
            }
        }?;
        if !self.lazy {
            store.ready().await?;
        }
        Ok(Arc::new(Coalesced::around(Arc::new(store), limit)))
    }
}
