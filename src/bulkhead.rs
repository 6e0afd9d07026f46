//! The bulkhead: when the cache is gone, the database gets no more of its load than it can carry.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::CacheError;

/// Bounds the loads of each entity that run at once in this process. Those beyond wait in line.
#[derive(Debug)]
pub(crate) struct Bulkhead {
    most: usize,
    wait: Duration,
    entities: RwLock<HashMap<String, Arc<Semaphore>>>,
}

impl Bulkhead {
    pub(crate) fn new(most: usize, wait: Duration) -> Self {
        Self {
            most: most.clamp(1, Semaphore::MAX_PERMITS),
            wait,
            entities: RwLock::default(),
        }
    }

    /// The right to run one load of an entity, until it is dropped.
    ///
    /// # Errors
    /// If no other load ends in time.
    pub(crate) async fn enter(&self, entity: &str) -> Result<OwnedSemaphorePermit, CacheError> {
        let places = self.places(entity);
        let overloaded = || CacheError::Overloaded {
            entity: entity.to_owned(),
            loads: self.most,
            waited: self.wait,
        };
        match timeout(self.wait, places.acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            // It is never closed.
            Ok(Err(_)) | Err(_) => Err(overloaded()),
        }
    }

    fn places(&self, entity: &str) -> Arc<Semaphore> {
        let entities = self.entities.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = entities.get(entity) {
            return Arc::clone(places);
        }
        drop(entities);
        let mut entities = self
            .entities
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let places = entities
            .entry(entity.to_owned())
            .or_insert_with(|| Arc::new(Semaphore::new(self.most)));
        Arc::clone(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_entity_has_places_of_its_own_and_a_place_that_is_left_is_free() {
        let bulkhead = Bulkhead::new(2, Duration::ZERO);
        let first = bulkhead.enter("city").await.unwrap();
        let _second = bulkhead.enter("city").await.unwrap();
        let error = bulkhead.enter("city").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "2 loads of `city` are under way already, and none ended within 0ns: \
             the database is overloaded, or `max_loads` is too low for it"
        );
        drop(bulkhead.enter("country").await.unwrap());
        drop(first);
        drop(bulkhead.enter("city").await.unwrap());
    }

    #[tokio::test]
    async fn who_waits_gets_the_place_of_the_first_that_ends() {
        let bulkhead = Arc::new(Bulkhead::new(1, Duration::from_secs(60)));
        let first = bulkhead.enter("city").await.unwrap();
        let waiting = bulkhead.clone();
        let second = tokio::spawn(async move { waiting.enter("city").await.is_ok() });
        drop(first);
        assert!(second.await.unwrap());
    }
}
