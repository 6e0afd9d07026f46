//! Fences for work that cannot be moved into a task of its own.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::cache::{Cache, Fence};
use crate::error::CacheError;
use crate::invalidation::Invalidation;
use crate::store::Token;

/// Fences that stand, and are renewed, until they are settled.
///
/// Dropped unsettled, they are renewed no more and expire by themselves: the write that they were
/// planted for may still be under way.
#[derive(Debug)]
pub(crate) struct Fenced {
    cache: Cache,
    invalidation: Arc<Invalidation>,
    fence: Fence,
    renewal: JoinSet<()>,
}

impl Fenced {
    /// Plants fences.
    ///
    /// # Errors
    /// Under [`WritePolicy::Strict`](crate::WritePolicy::Strict), if they cannot be written.
    pub(crate) async fn plant(
        cache: &Cache,
        invalidation: Invalidation,
    ) -> Result<Self, CacheError> {
        let writer = Token::random();
        let invalidation = Arc::new(cache.ruled(invalidation));
        let fence = cache.fence(&invalidation, writer).await?;
        let mut renewal = JoinSet::new();
        renewal.spawn(renew(cache.clone(), Arc::clone(&invalidation), writer));
        Ok(Self {
            cache: cache.clone(),
            invalidation,
            fence,
            renewal,
        })
    }

    /// Settles if the database has done with the write, else leaves the fences for their whole life.
    pub(crate) async fn end(mut self, over: bool) {
        // A renewal that overtakes the settling would leave a fence behind.
        self.renewal.shutdown().await;
        self.cache.end(&self.invalidation, self.fence, over).await;
    }
}

async fn renew(cache: Cache, invalidation: Arc<Invalidation>, writer: Token) {
    loop {
        tokio::time::sleep(cache.settings().fence_ttl / 3).await;
        // A failure leaves what a fence that was never renewed leaves; the next turn tries again.
        let _ = cache.fence(&invalidation, writer).await;
    }
}
