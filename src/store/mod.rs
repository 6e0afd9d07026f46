//! The store: where entries, fences and generations live.
//!
//! An entry is one key with fields: a value per fingerprint, a lease per fingerprint, a fence per
//! writer. A store runs a batch of [`Op`]s in one round trip; each op is atomic on its one key.
//! [`Coalesced`] sends batches that are in flight at the same moment as one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::key::Key;

mod breaker;
mod coalesce;
mod feed;
mod memory;
#[cfg(feature = "redis")]
mod redis;

pub(crate) use breaker::{Breaker, Turned};
pub use coalesce::Coalesced;
pub use feed::Feed;
#[cfg(feature = "redis")]
pub(crate) use feed::OwnChange;
pub(crate) use feed::{Count, Mark, Stripe};
pub use memory::MemoryStore;
#[cfg(feature = "redis")]
pub use redis::{RedisOptions, RedisStore};
#[cfg(feature = "tls")]
pub use redis::{TlsClient, TlsOptions};

/// How long a lease is kept after others may take it over, so that a late fill still finds it.
const LEASE_KEPT: Duration = Duration::from_secs(60);

/// A random number that names a lease, a writer, a value or a generation. Never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(u64);

impl Token {
    /// A fresh random token.
    pub fn random() -> Self {
        Self(fastrand::u64(1..))
    }

    /// The token as a number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The token of a number; `None` for zero, which no token is.
    pub fn new(number: u64) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Which value of an entry: one per build of the service that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

/// One operation on one key.
#[derive(Clone, Debug)]
pub enum Op {
    /// Looks a value up. Answers [`Reply::Value`].
    Read {
        /// The entry.
        key: Key,
        /// Which value of it.
        field: Fingerprint,
    },
    /// Looks a generation up without creating it. Answers [`Reply::Generation`].
    Peek {
        /// The generation.
        key: Key,
    },
    /// Asks how long what stands under the key will live. Answers [`Reply::Life`].
    Life {
        /// The entry.
        key: Key,
    },
    /// Looks a generation up and creates it as `fresh` if there is none and no fence stands.
    /// Answers [`Reply::Generation`], `None` while a fence stands.
    Generation {
        /// The generation. May be an entry with values: whatever makes them stale drops it.
        key: Key,
        /// Its name if it must be created.
        fresh: Token,
        /// When the key expires, if it does not expire already: for entries. One of `None` stands until
        /// it is fenced, and so does all that stands under its key.
        ttl: Option<Duration>,
    },
    /// Asks for the right to fill. Answers [`Reply::Acquired`].
    Acquire {
        /// The entry.
        key: Key,
        /// Which value of it.
        field: Fingerprint,
        /// The lease to plant.
        lease: Token,
        /// What the entry was seen to hold.
        seen: Seen,
        /// How long others wait for this lease before they may take it over.
        ttl: Duration,
    },
    /// Stores a value if the lease still stands and no fence does, and gives the lease back.
    /// Answers [`Reply::Filled`].
    Fill {
        /// The entry.
        key: Key,
        /// Which value of it.
        field: Fingerprint,
        /// The lease under which the value was loaded.
        lease: Token,
        /// The value.
        value: Bytes,
        /// When the value expires. Never prolongs the life of another build's value.
        ttl: Duration,
    },
    /// Stores a value that was not loaded: it takes the place of the entry's values, leases and
    /// generation, unless a fence stands. Answers [`Reply::Filled`].
    Put {
        /// The entry.
        key: Key,
        /// Which value of it.
        field: Fingerprint,
        /// The value.
        value: Bytes,
        /// When the value expires.
        ttl: Duration,
        /// What it may take the place of.
        over: Over,
    },
    /// Gives a lease back without a fill, if it still stands. Answers [`Reply::Done`].
    Release {
        /// The entry.
        key: Key,
        /// Which value of it.
        field: Fingerprint,
        /// The lease.
        lease: Token,
    },
    /// Deletes the entry's values, leases and generation and plants the writer's fence, which
    /// expires after `ttl`. Repeating it renews the fence. Answers [`Reply::Done`].
    Fence {
        /// The entry.
        key: Key,
        /// Who is writing.
        writer: Token,
        /// When the fence expires.
        ttl: Duration,
    },
    /// Deletes the entry's values, leases and generation and the writer's own fence, also when that
    /// fence had expired. Answers [`Reply::Done`].
    Settle {
        /// The entry.
        key: Key,
        /// Who has written.
        writer: Token,
    },
}

impl Op {
    /// The key that it is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Read { key, .. }
            | Self::Peek { key }
            | Self::Life { key }
            | Self::Generation { key, .. }
            | Self::Acquire { key, .. }
            | Self::Fill { key, .. }
            | Self::Put { key, .. }
            | Self::Release { key, .. }
            | Self::Fence { key, .. }
            | Self::Settle { key, .. } => key,
        }
    }

    /// Whether it looks up a value or a generation and changes nothing.
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Self::Read { .. } | Self::Peek { .. } | Self::Life { .. }
        )
    }

    /// Whether it stores a value.
    pub fn is_fill(&self) -> bool {
        matches!(self, Self::Fill { .. })
    }

    /// Whether it gives a lease back without a fill.
    pub fn is_release(&self) -> bool {
        matches!(self, Self::Release { .. })
    }

    /// Whether it plants a writer's fence.
    pub fn is_fence(&self) -> bool {
        matches!(self, Self::Fence { .. })
    }

    /// Whether it stores a value that was not loaded.
    pub fn is_put(&self) -> bool {
        matches!(self, Self::Put { .. })
    }

    /// Whether it makes what stands under its key stale, on behalf of a writer.
    pub(crate) fn invalidates(&self) -> bool {
        self.is_fence() || self.is_settle() || self.is_put()
    }

    /// Whether it ends a write.
    pub fn is_settle(&self) -> bool {
        matches!(self, Self::Settle { .. })
    }
}

/// What an entry was seen to hold. A value with another seal (its first eight bytes, big endian) is answered in
/// place of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing.
    Nothing,
    /// A value that is outdated: it is deleted.
    Outdated(u64),
    /// A value that has aged: it stays until it is replaced, and lives no longer for the lease's sake.
    Aged(u64),
}

impl Seen {
    /// The value's seal.
    pub fn seal(self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Outdated(seal) | Self::Aged(seal) => Some(seal),
        }
    }
}

/// What the field of an entry must hold for [`Op::Put`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Anything, or nothing.
    Anything,
    /// Nothing.
    Nothing,
    /// A value with this seal (its first eight bytes, big endian).
    Seal(u64),
}

/// What a store answers to an [`Op`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The value, if there is one.
    Value(Option<Bytes>),
    /// The generation's name, if it stands.
    Generation(Option<Token>),
    /// How long what stands under the key will live at most; `None` if nothing does, or for ever.
    Life(Option<Duration>),
    /// What came of asking for a lease.
    Acquired(Acquired),
    /// Whether the value was stored.
    Filled(Filled),
    /// The op was carried out.
    Done,
    /// This op failed alone and was not carried out (a foreign type under our key, a full server, a
    /// key that is not permitted); the others of the batch were answered.
    Failed(String),
}

/// What came of [`Op::Acquire`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// The lease is planted: load and fill.
    Granted,
    /// There is a value (not the one that was seen to be outdated).
    Value(Bytes),
    /// Another lease stands, and has not expired.
    Busy(Token),
    /// A write is under way: neither read nor fill.
    Fenced,
}

/// What came of [`Op::Fill`] or [`Op::Put`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// The value is stored.
    Stored,
    /// The lease was gone, a fence stood, or there was something else than the value may take the place
    /// of: it is not stored.
    Superseded,
}

/// The answers to a batch.
#[derive(Clone, Debug)]
pub struct Replies {
    /// The root generation under which the batch ran: everything cached under another one is
    /// outdated. It changes when the server was restarted, or is another server.
    pub root: Token,
    /// One answer for each op, in order.
    pub items: Vec<Reply>,
}

/// Where a walk goes on. What stands in it is the store's own affair; the default is the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub String);

/// A step of a [walk](Store::walk).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Some of the keys.
    pub keys: Vec<Key>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// Why a store could not answer a batch.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No answer within the command timeout.
    #[error("the cache did not answer within {0:?}")]
    Timeout(Duration),
    /// The server cannot be reached, or the connection broke.
    #[error("the cache is unreachable: {0}")]
    Unreachable(String),
    /// The store failed so often that it was not asked.
    #[error("the cache is degraded and was not asked")]
    Degraded,
    /// The server answered what no server of ours would.
    #[error("the cache answered something unexpected: {0}")]
    Protocol(String),
}

/// A place for entries.
///
/// One batch is one round trip. The ops of a batch run in order, each atomic by itself, the batch
/// as a whole not. An error means that each op may or may not have been carried out.
#[async_trait::async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Runs a batch.
    async fn run(&self, batch: Vec<Op>) -> Result<Replies, StoreError>;

    /// Looks the root generation up again; later batches answer with what it found.
    ///
    /// To be called when values name another root than the batch that read them: after an eviction
    /// or FLUSHALL another process may have created a new one. If it is missing, ours is planted
    /// again.
    async fn refresh_root(&self) -> Result<(), StoreError>;

    /// A step of a walk through the keys that begin with `prefix`: some of them, and where to go on. A key that
    /// stands from the first step to the last is told of once, or more often; one that comes or goes meanwhile may
    /// be, and one that moves from one node of a cluster to another. Defaults to an error.
    async fn walk(&self, prefix: &str, from: &Cursor) -> Result<Walked, StoreError> {
        let _ = (prefix, from);
        let cannot = "this store cannot tell which keys it holds";
        Err(StoreError::Protocol(cannot.to_owned()))
    }

    /// How many batches so far needed no request of their own, because they went out with another
    /// one's. Defaults to none.
    fn merged(&self) -> u64 {
        0
    }

    /// What the store hears of changes by others to what was read from it, if it does. Without it there
    /// can be no in-process tier before this store.
    fn feed(&self) -> Option<Arc<Feed>> {
        None
    }
}
