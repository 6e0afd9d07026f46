//! A model of a cache server.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::key::Key;
use crate::store::{Cursor, MemoryStore, Op, Replies, Store, StoreError, Walked};

/// How much a model of a server holds, in bytes.
const MEMORY: u64 = 64 << 20;

/// A model of a cache server in this process's memory, that loses what it holds when told.
///
/// Every [`Cache`](crate::Cache) built over the same server is a process of its own. It does what a
/// Redis server does to the keys, and holds about 64 MiB.
pub struct Server {
    running: RwLock<Arc<MemoryStore>>,
}

impl Server {
    /// An empty server. Shared, as [`CacheBuilder::store`](crate::CacheBuilder::store) wants it.
    pub fn start() -> Arc<Self> {
        Self::holding(MemoryStore::new(MEMORY))
    }

    fn holding(store: MemoryStore) -> Arc<Self> {
        Arc::new(Self {
            running: RwLock::new(Arc::new(store)),
        })
    }

    /// Evicts the entries of these keys, with their leases and fences.
    pub fn evict(&self, which: impl Fn(&Key) -> bool) {
        self.running().retain(|key| !which(key));
    }

    /// What it holds now, as a server of its own: for [`restart_from`](Self::restart_from).
    pub fn snapshot(&self) -> Arc<Self> {
        Self::holding(self.running().copy())
    }

    /// Restarts empty.
    pub fn restart(&self) {
        self.run_on(MemoryStore::new(MEMORY));
    }

    /// Restarts with what a snapshot holds, as a Redis server that loads an old dump.
    pub fn restart_from(&self, snapshot: &Self) {
        self.run_on(snapshot.running().copy());
    }

    /// A restarted server has another root generation: its store is another one.
    fn run_on(&self, store: MemoryStore) {
        *self.running.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(store);
    }

    fn running(&self) -> Arc<MemoryStore> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&running)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl Store for Server {
    async fn run(&self, batch: Vec<Op>) -> Result<Replies, StoreError> {
        self.running().run(batch).await
    }

    async fn refresh_root(&self) -> Result<(), StoreError> {
        self.running().refresh_root().await
    }

    async fn walk(&self, prefix: &str, from: &Cursor) -> Result<Walked, StoreError> {
        self.running().walk(prefix, from).await
    }
}
