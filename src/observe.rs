//! Seeing it: events, counters, and the contract of when each moves.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::key::Key;
use crate::store::StoreError;

mod hits;
#[cfg(feature = "metrics")]
mod metrics;

use hits::Hits;
#[cfg(feature = "metrics")]
pub use metrics::CacheMetrics;

/// Something worth knowing. Everything that happens is one of these; counters, logs and observers
/// all see the same.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Keys were looked up.
    Lookup {
        /// The entity.
        entity: &'a str,
        /// How many the cache answered, "no such row" included.
        hits: u64,
        /// How many of the hits were answered in this process, without asking the store.
        l1_hits: u64,
        /// How many of the hits were "no such row".
        absent_hits: u64,
        /// How many it could not answer.
        misses: u64,
    },
    /// A query was sent to the database on behalf of missed keys.
    Load {
        /// The entity.
        entity: &'a str,
    },
    /// A query on behalf of missed keys was answered, failed, or was given up.
    Loaded {
        /// The entity.
        entity: &'a str,
        /// How long it took.
        took: Duration,
    },
    /// A request to the store was answered, or failed.
    RoundTrip {
        /// How long it took.
        took: Duration,
    },
    /// A read failed because too many loads of its entity were under way for too long.
    Overloaded {
        /// The entity.
        entity: &'a str,
    },
    /// Loaded values were offered to the store.
    Fill {
        /// The entity.
        entity: &'a str,
        /// How many were stored.
        stored: u64,
        /// How many were refused, because a write or another load came between.
        superseded: u64,
    },
    /// Missed keys were answered by somebody else's load.
    Coalesced {
        /// The entity.
        entity: &'a str,
        /// How many.
        reads: u64,
    },
    /// Missed keys met a fence: a write is under way, and the database answers.
    Fenced {
        /// The entity.
        entity: &'a str,
        /// How many.
        reads: u64,
    },
    /// Reads were answered with values that are to be replaced because of their age: somebody loads them, or
    /// cannot.
    Stale {
        /// The entity.
        entity: &'a str,
        /// How many.
        reads: u64,
    },
    /// A load in the background failed. What it was to replace is answered for as long as its policy allows.
    RefreshFailed {
        /// The entity.
        entity: &'a str,
    },
    /// A write made keys of an entity stale.
    Invalidated {
        /// The entity.
        entity: &'a str,
        /// How many keys, generations included.
        keys: u64,
    },
    /// A step of a [walk](crate::Namespace::remove_matching) through the keys of a namespace was taken.
    Walked {
        /// The namespace.
        entity: &'a str,
        /// How many keys the store told of.
        keys: u64,
        /// How many of them matched. They are made stale next.
        matched: u64,
    },
    /// The store failed. A read goes on to the database; for a write see [`Event::Undelivered`].
    StoreFailed {
        /// On whose behalf, if one entity's.
        entity: Option<&'a str>,
        /// Why.
        error: &'a StoreError,
    },
    /// A cached value was not one of ours, or damaged. It counts as a miss.
    Corrupt {
        /// The entity.
        entity: &'a str,
        /// Where.
        key: &'a Key,
        /// What is wrong with it.
        reason: &'a str,
    },
    /// Something was read or loaded that cannot be cached.
    NotCached {
        /// The entity.
        entity: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// The store failed so often that it is not asked for a while.
    BreakerOpened,
    /// The store answers again.
    BreakerClosed,
    /// Invalidations could not be delivered. They are retried; this process does not use the cache
    /// for these keys meanwhile.
    Undelivered {
        /// How many keys wait in all.
        keys: u64,
    },
    /// The change feed has applied changes that did not come through the library.
    Fed {
        /// How many.
        changes: u64,
        /// How long ago the oldest was written down that waited then.
        age: Duration,
        /// How long it took to take and to apply them.
        took: Duration,
    },
    /// The change feed has looked for changes.
    FeedLag {
        /// How long ago the oldest that waits was written down; zero if none does. Sent while some wait, and once
        /// when none does any more.
        oldest: Duration,
    },
    /// The change feed could not take or apply changes. They are kept, and tried again.
    FeedFailed {
        /// Why.
        error: &'a str,
    },
    /// All undelivered invalidations were delivered.
    Delivered {
        /// How many keys.
        keys: u64,
    },
}

/// Watches events. Called on the path of the caller: be quick, and never block. A panic is logged
/// and goes no further.
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn event(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for F {
    fn event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// Counters of one entity since the cache was built.
///
/// A *lookup* is one distinct key asked for by one call: `hits + misses` is their number. Reads
/// that never look (inside a transaction, `Consistency::Database`, a connection without a cache)
/// move nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntityStats {
    /// Lookups answered in this process or by the first round trip to the cache.
    pub hits: u64,
    /// Hits answered in this process, by the in-process tier.
    pub l1_hits: u64,
    /// Hits whose answer was "no such row".
    pub absent_hits: u64,
    /// All other lookups: nothing cached, outdated, damaged, not keyable, the store failing or bypassed.
    pub misses: u64,
    /// Queries sent to the database because of misses; one query may load many keys.
    pub loads: u64,
    /// How long all of them took together.
    pub load_time: Duration,
    /// How long the longest took.
    pub slowest_load: Duration,
    /// Reads that failed because too many loads were under way for too long.
    pub overloaded: u64,
    /// Loaded values that were stored.
    pub fills: u64,
    /// Loaded values that the store refused, because a write or another load came between.
    pub superseded: u64,
    /// Misses answered by another caller's load, in this process or another.
    pub coalesced: u64,
    /// Misses that met a fence, so that the database answered and nothing was stored.
    pub fenced: u64,
    /// Misses that were answered with a value past its ttl, or near it, while it was loaded or because it could
    /// not be.
    pub stale: u64,
    /// Keys and generations of this entity made stale by writes of this process.
    pub invalidations: u64,
    /// Batches on behalf of this entity that the store failed to answer, refusals of the breaker
    /// and damaged values included.
    pub errors: u64,
}

/// A snapshot of all counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Per entity, by its name in keys.
    pub entities: BTreeMap<String, EntityStats>,
    /// Requests sent to the store; each is one round trip, whatever the number of keys.
    pub round_trips: u64,
    /// Invalidated keys that the store has not been told yet.
    pub undelivered: u64,
    /// Whether the breaker is open: the store is not asked.
    pub degraded: bool,
    /// The in-process tier, if there is one.
    pub l1: Option<L1Stats>,
}

/// The in-process tier as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct L1Stats {
    /// How many values it holds, those included that have become stale and will be replaced or evicted.
    pub entries: u64,
    /// About how many bytes they take.
    pub bytes: u64,
    /// Whether it answers: its store has been heard within `max_silence`.
    pub alive: bool,
}

impl Stats {
    /// The counters of one entity; zeros if nothing happened to it.
    pub fn entity(&self, name: &str) -> EntityStats {
        self.entities.get(name).copied().unwrap_or_default()
    }

    /// Hits of all entities by lookups of all entities; `None` before the first lookup.
    pub fn hit_rate(&self) -> Option<f64> {
        let (hits, lookups) = self
            .entities
            .values()
            .fold((0, 0), |(hits, lookups), entity| {
                (hits + entity.hits, lookups + entity.hits + entity.misses)
            });
        (lookups > 0).then(|| hits as f64 / lookups as f64)
    }
}

#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    l1_hits: AtomicU64,
    absent_hits: AtomicU64,
    misses: AtomicU64,
    loads: AtomicU64,
    /// In nanoseconds.
    load_time: AtomicU64,
    slowest_load: AtomicU64,
    overloaded: AtomicU64,
    fills: AtomicU64,
    superseded: AtomicU64,
    coalesced: AtomicU64,
    fenced: AtomicU64,
    stale: AtomicU64,
    invalidations: AtomicU64,
    errors: AtomicU64,
}

impl Counters {
    fn snapshot(&self) -> EntityStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EntityStats {
            hits: get(&self.hits),
            l1_hits: get(&self.l1_hits),
            absent_hits: get(&self.absent_hits),
            misses: get(&self.misses),
            loads: get(&self.loads),
            load_time: Duration::from_nanos(get(&self.load_time)),
            slowest_load: Duration::from_nanos(get(&self.slowest_load)),
            overloaded: get(&self.overloaded),
            fills: get(&self.fills),
            superseded: get(&self.superseded),
            coalesced: get(&self.coalesced),
            fenced: get(&self.fenced),
            stale: get(&self.stale),
            invalidations: get(&self.invalidations),
            errors: get(&self.errors),
        }
    }

    fn count(&self, event: &Event<'_>) {
        let add = |counter: &AtomicU64, n: u64| {
            counter.fetch_add(n, Ordering::Relaxed);
        };
        match *event {
            Event::Lookup {
                hits,
                l1_hits,
                absent_hits,
                misses,
                ..
            } => {
                add(&self.hits, hits);
                add(&self.l1_hits, l1_hits);
                add(&self.absent_hits, absent_hits);
                add(&self.misses, misses);
            }
            Event::Load { .. } => add(&self.loads, 1),
            Event::Loaded { took, .. } => {
                let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                add(&self.load_time, nanos);
                self.slowest_load.fetch_max(nanos, Ordering::Relaxed);
            }
            Event::Overloaded { .. } => add(&self.overloaded, 1),
            Event::Fill {
                stored, superseded, ..
            } => {
                add(&self.fills, stored);
                add(&self.superseded, superseded);
            }
            Event::Coalesced { reads, .. } => add(&self.coalesced, reads),
            Event::Fenced { reads, .. } => add(&self.fenced, reads),
            Event::Stale { reads, .. } => add(&self.stale, reads),
            Event::Invalidated { keys, .. } => add(&self.invalidations, keys),
            Event::StoreFailed { .. } | Event::Corrupt { .. } => add(&self.errors, 1),
            Event::NotCached { .. }
            | Event::RoundTrip { .. }
            | Event::RefreshFailed { .. }
            | Event::Walked { .. }
            | Event::BreakerOpened
            | Event::BreakerClosed
            | Event::Undelivered { .. }
            | Event::Fed { .. }
            | Event::FeedLag { .. }
            | Event::FeedFailed { .. }
            | Event::Delivered { .. } => {}
        }
    }
}

impl<'a> Event<'a> {
    fn entity(&self) -> Option<&'a str> {
        match *self {
            Event::Lookup { entity, .. }
            | Event::Load { entity }
            | Event::Loaded { entity, .. }
            | Event::Overloaded { entity }
            | Event::Fill { entity, .. }
            | Event::Coalesced { entity, .. }
            | Event::Fenced { entity, .. }
            | Event::RefreshFailed { entity }
            | Event::Walked { entity, .. }
            | Event::Stale { entity, .. }
            | Event::Invalidated { entity, .. }
            | Event::Corrupt { entity, .. }
            | Event::NotCached { entity, .. } => Some(entity),
            Event::StoreFailed { entity, .. } => entity,
            Event::RoundTrip { .. }
            | Event::BreakerOpened
            | Event::BreakerClosed
            | Event::Undelivered { .. }
            | Event::Fed { .. }
            | Event::FeedLag { .. }
            | Event::FeedFailed { .. }
            | Event::Delivered { .. } => None,
        }
    }

    /// Logs what an operator should see. Ordinary traffic is not logged.
    fn trace(&self) {
        match *self {
            Event::StoreFailed { entity, error } => {
                tracing::debug!(entity, %error, "the cache failed; the database answers");
            }
            Event::Corrupt {
                entity,
                key,
                reason,
            } => {
                tracing::warn!(entity, %key, reason, "a cached value is damaged or not ours");
            }
            Event::RefreshFailed { entity } => tracing::warn!(entity, "a refresh failed"),
            Event::NotCached { entity, reason } => tracing::warn!(entity, reason, "not cached"),
            Event::Overloaded { entity } => tracing::warn!(entity, "too many loads are under way"),
            Event::BreakerOpened => {
                tracing::warn!("the cache does not answer; going on without it")
            }
            Event::BreakerClosed => tracing::info!("the cache answers again"),
            Event::FeedFailed { error } => tracing::warn!(error, "the change feed waits"),
            Event::Undelivered { keys } => {
                tracing::error!(keys, "invalidations could not be delivered; retrying");
            }
            Event::Delivered { keys } => {
                tracing::info!(keys, "undelivered invalidations were delivered")
            }
            _ => {}
        }
    }
}

/// Counts, logs, and tells the user's observer.
#[derive(Default)]
pub(crate) struct Witness {
    entities: RwLock<HashMap<String, Counters>>,
    l1: Hits,
    round_trips: AtomicU64,
    observers: Vec<Arc<dyn Observer>>,
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness")
            .field("observers", &self.observers.len())
            .finish_non_exhaustive()
    }
}

impl Witness {
    pub(crate) fn new(observers: Vec<Arc<dyn Observer>>) -> Self {
        Self {
            observers,
            ..Self::default()
        }
    }

    /// The one road of every event.
    pub(crate) fn emit(&self, event: &Event<'_>) {
        if let Some(entity) = event.entity() {
            self.count(entity, event);
        }
        event.trace();
        for observer in &self.observers {
            let observed = catch_unwind(AssertUnwindSafe(|| observer.event(event)));
            if observed.is_err() {
                tracing::error!("the cache's observer panicked");
            }
        }
    }

    /// The in-process tier has answered for one row.
    #[inline]
    pub(crate) fn l1_hit(&self, entity: u32, name: &str, present: bool) {
        if self.is_observed() || !self.l1.count(entity, name, present) {
            self.emit(&Event::Lookup {
                entity: name,
                hits: 1,
                l1_hits: 1,
                absent_hits: u64::from(!present),
                misses: 0,
            });
        }
    }

    /// Whether anybody is told of events.
    pub(crate) fn is_observed(&self) -> bool {
        !self.observers.is_empty()
    }

    /// Counts a request to the store.
    pub(crate) fn round_trip(&self) {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> Stats {
        let entities = self.entities.read().unwrap_or_else(PoisonError::into_inner);
        let counted = entities.iter();
        let mut entities: BTreeMap<String, EntityStats> = counted
            .map(|(name, counters)| (name.clone(), counters.snapshot()))
            .collect();
        for (name, hits, absent) in self.l1.counted() {
            let entity = entities.entry(name.to_owned()).or_default();
            entity.hits += hits;
            entity.l1_hits += hits;
            entity.absent_hits += absent;
        }
        Stats {
            entities,
            round_trips: self.round_trips.load(Ordering::Relaxed),
            ..Stats::default()
        }
    }

    fn count(&self, entity: &str, event: &Event<'_>) {
        let entities = self.entities.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counters) = entities.get(entity) {
            return counters.count(event);
        }
        drop(entities);
        let mut entities = self
            .entities
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        entities.entry(entity.to_owned()).or_default().count(event);
    }
}
