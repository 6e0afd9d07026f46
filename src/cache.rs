//! The cache handle.

use std::future::Future;

use crate::invalidation::Invalidation;

/// A cache: one cloneable handle.
#[derive(Clone, Debug)]
pub struct Cache {}

/// Why a cache operation failed.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {}

impl Cache {
    /// Fences, runs `work`, settles. In a task of its own, so that a caller that goes away does not
    /// leave an invalidation undone.
    ///
    /// # Errors
    /// Only under [`WritePolicy::Strict`](crate::WritePolicy::Strict), and then `work` was not run.
    pub(crate) async fn guarded<T, F>(
        &self,
        invalidation: Invalidation,
        work: F,
    ) -> Result<T, CacheError>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let _ = (invalidation, work);
        todo!()
    }

    /// Plants fences under `writer` and returns at once: for hooks and streams.
    pub(crate) async fn fence(
        &self,
        invalidation: &Invalidation,
        writer: crate::store::Token,
    ) -> Result<(), CacheError> {
        let _ = (invalidation, writer);
        todo!()
    }

    /// Settles what [`fence`](Self::fence) planted. A failure goes to the journal.
    pub(crate) async fn settle(&self, invalidation: &Invalidation, writer: crate::store::Token) {
        let _ = (invalidation, writer);
        todo!()
    }
}
