//! The in-process store.

use super::{Op, Replies, Store, StoreError};

/// Entries in this process's memory, bounded by weight.
#[derive(Debug)]
pub struct MemoryStore {}

impl MemoryStore {
    /// A store that holds about `max_bytes` of values. Fences are never evicted.
    pub fn new(max_bytes: u64) -> Self {
        let _ = max_bytes;
        todo!("helper")
    }
}

#[async_trait::async_trait]
impl Store for MemoryStore {
    async fn run(&self, batch: Vec<Op>) -> Result<Replies, StoreError> {
        let _ = batch;
        todo!("helper")
    }
}
