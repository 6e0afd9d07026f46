//! Events as metrics, for the crate `metrics`.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::{Event, Observer};

/// Tells what a cache does to the recorder of the crate `metrics`: for Prometheus, and others.
///
/// To be made after the recorder was installed: what is counted goes to the one that is there then.
///
/// With an observer every hit of the in-process tier is an event, which costs it about 100 ns.
///
/// # Metrics
/// All have the label `cache`, the name that is given here; those of an entity (or namespace) also `entity`.
///
/// | name | kind | labels | what |
/// |---|---|---|---|
/// | `sea_orm_cache_lookups_total` | counter | `entity`, `tier`: `l1`, `l2`; `outcome`: `hit`, `miss` | distinct keys asked for; a miss is of `l2` |
/// | `sea_orm_cache_absent_hits_total` | counter | `entity` | hits, of both tiers, that were "no such row" |
/// | `sea_orm_cache_loads_total` | counter | `entity` | queries sent because of misses |
/// | `sea_orm_cache_load_seconds` | histogram | `entity` | how long they took, those included that failed or were given up |
/// | `sea_orm_cache_fills_total` | counter | `entity`, `outcome`: `stored`, `superseded` | loaded values offered to the store |
/// | `sea_orm_cache_coalesced_total` | counter | `entity` | misses answered by another's load |
/// | `sea_orm_cache_fenced_total` | counter | `entity` | misses that met a write under way |
/// | `sea_orm_cache_stale_total` | counter | `entity` | misses answered with a value past its ttl |
/// | `sea_orm_cache_refresh_failures_total` | counter | `entity` | loads in the background that failed |
/// | `sea_orm_cache_overloaded_total` | counter | `entity` | reads that failed because too many loads were under way |
/// | `sea_orm_cache_invalidations_total` | counter | `entity` | keys and generations made stale by this process |
/// | `sea_orm_cache_corrupt_total` | counter | `entity` | cached values that were damaged |
/// | `sea_orm_cache_not_cached_total` | counter | `entity` | reads and loads that cannot be cached |
/// | `sea_orm_cache_round_trip_seconds` | histogram | | requests to the store, with their number |
/// | `sea_orm_cache_store_errors_total` | counter | | requests to the store that failed, or were not sent |
/// | `sea_orm_cache_undelivered_keys` | gauge | | invalidated keys that the store has not been told yet |
/// | `sea_orm_cache_degraded` | gauge | | 1 while the store is not asked, else 0 |
/// | `sea_orm_cache_feed_changes_total` | counter | | changes that the change feed has applied |
/// | `sea_orm_cache_feed_lag_seconds` | gauge | | the age of the oldest change that the feed has not applied, 0 if there is none |
/// | `sea_orm_cache_feed_failures_total` | counter | | attempts of the change feed that failed |
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use sea_orm_cache::{Cache, CacheMetrics};
///
/// let cache = Cache::builder().observer(CacheMetrics::new("default")).build().await?;
/// # drop(cache);
/// # Ok(()) }
/// ```
pub struct CacheMetrics {
    cache: String,
    entities: RwLock<HashMap<String, Arc<Handles>>>,
    round_trips: Histogram,
    store_errors: Counter,
    undelivered: Gauge,
    degraded: Gauge,
    fed: Counter,
    feed_lag: Gauge,
    feed_failures: Counter,
}

/// The metrics of one entity.
struct Handles {
    l1_hits: Counter,
    l2_hits: Counter,
    misses: Counter,
    absent_hits: Counter,
    loads: Counter,
    load_seconds: Histogram,
    stored: Counter,
    superseded: Counter,
    coalesced: Counter,
    fenced: Counter,
    stale: Counter,
    refresh_failures: Counter,
    overloaded: Counter,
    invalidations: Counter,
    corrupt: Counter,
    not_cached: Counter,
}

impl CacheMetrics {
    /// Metrics with this name in the label `cache`.
    pub fn new(cache: &str) -> Self {
        describe();
        let cache = cache.to_owned();
        Self {
            entities: RwLock::default(),
            round_trips: histogram!("sea_orm_cache_round_trip_seconds", "cache" => cache.clone()),
            store_errors: counter!("sea_orm_cache_store_errors_total", "cache" => cache.clone()),
            undelivered: gauge!("sea_orm_cache_undelivered_keys", "cache" => cache.clone()),
            degraded: gauge!("sea_orm_cache_degraded", "cache" => cache.clone()),
            fed: counter!("sea_orm_cache_feed_changes_total", "cache" => cache.clone()),
            feed_lag: gauge!("sea_orm_cache_feed_lag_seconds", "cache" => cache.clone()),
            feed_failures: counter!("sea_orm_cache_feed_failures_total", "cache" => cache.clone()),
            cache,
        }
    }

    fn of(&self, entity: &str) -> Arc<Handles> {
        let entities = self.entities.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(handles) = entities.get(entity) {
            return Arc::clone(handles);
        }
        drop(entities);
        let entities = self.entities.write();
        let mut entities = entities.unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Handles::new(&self.cache, entity));
        Arc::clone(entities.entry(entity.to_owned()).or_insert_with(new))
    }
}

impl Handles {
    fn new(cache: &str, entity: &str) -> Self {
        let (cache, entity) = (cache.to_owned(), entity.to_owned());
        macro_rules! count {
            ($name:literal $(, $label:literal => $value:literal)*) => {
                counter!(
                    $name, "cache" => cache.clone(), "entity" => entity.clone() $(, $label => $value)*
                )
            };
        }
        Self {
            l1_hits: count!("sea_orm_cache_lookups_total", "tier" => "l1", "outcome" => "hit"),
            l2_hits: count!("sea_orm_cache_lookups_total", "tier" => "l2", "outcome" => "hit"),
            misses: count!("sea_orm_cache_lookups_total", "tier" => "l2", "outcome" => "miss"),
            absent_hits: count!("sea_orm_cache_absent_hits_total"),
            loads: count!("sea_orm_cache_loads_total"),
            load_seconds: histogram!(
                "sea_orm_cache_load_seconds", "cache" => cache.clone(), "entity" => entity.clone()
            ),
            stored: count!("sea_orm_cache_fills_total", "outcome" => "stored"),
            superseded: count!("sea_orm_cache_fills_total", "outcome" => "superseded"),
            coalesced: count!("sea_orm_cache_coalesced_total"),
            fenced: count!("sea_orm_cache_fenced_total"),
            stale: count!("sea_orm_cache_stale_total"),
            refresh_failures: count!("sea_orm_cache_refresh_failures_total"),
            overloaded: count!("sea_orm_cache_overloaded_total"),
            invalidations: count!("sea_orm_cache_invalidations_total"),
            corrupt: count!("sea_orm_cache_corrupt_total"),
            not_cached: count!("sea_orm_cache_not_cached_total"),
        }
    }

    fn count(&self, event: &Event<'_>) {
        match *event {
            Event::Lookup {
                hits,
                l1_hits,
                absent_hits,
                misses,
                ..
            } => {
                self.l1_hits.increment(l1_hits);
                self.l2_hits.increment(hits - l1_hits);
                self.absent_hits.increment(absent_hits);
                self.misses.increment(misses);
            }
            Event::Load { .. } => self.loads.increment(1),
            Event::Loaded { took, .. } => self.load_seconds.record(took),
            Event::Fill {
                stored, superseded, ..
            } => {
                self.stored.increment(stored);
                self.superseded.increment(superseded);
            }
            Event::Coalesced { reads, .. } => self.coalesced.increment(reads),
            Event::Fenced { reads, .. } => self.fenced.increment(reads),
            Event::Stale { reads, .. } => self.stale.increment(reads),
            Event::RefreshFailed { .. } => self.refresh_failures.increment(1),
            Event::Overloaded { .. } => self.overloaded.increment(1),
            Event::Invalidated { keys, .. } => self.invalidations.increment(keys),
            Event::Corrupt { .. } => self.corrupt.increment(1),
            Event::NotCached { .. } => self.not_cached.increment(1),
            _ => {}
        }
    }
}

impl Observer for CacheMetrics {
    fn event(&self, event: &Event<'_>) {
        match *event {
            Event::RoundTrip { took } => self.round_trips.record(took),
            Event::StoreFailed { .. } => self.store_errors.increment(1),
            Event::BreakerOpened => self.degraded.set(1.0),
            Event::BreakerClosed => self.degraded.set(0.0),
            Event::Undelivered { keys } => self.undelivered.set(keys as f64),
            Event::Delivered { .. } => self.undelivered.set(0.0),
            Event::Fed { changes, .. } => self.fed.increment(changes),
            Event::FeedLag { oldest } => self.feed_lag.set(oldest.as_secs_f64()),
            Event::FeedFailed { .. } => self.feed_failures.increment(1),
            _ => {
                if let Some(entity) = event.entity() {
                    self.of(entity).count(event);
                }
            }
        }
    }
}

impl fmt::Debug for CacheMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheMetrics")
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

    for (name, what) in [
        ("sea_orm_cache_lookups_total", "distinct keys asked for"),
        (
            "sea_orm_cache_absent_hits_total",
            "hits that were \"no such row\"",
        ),
        (
            "sea_orm_cache_loads_total",
            "queries sent because of misses",
        ),
        (
            "sea_orm_cache_fills_total",
            "loaded values offered to the store",
        ),
        (
            "sea_orm_cache_coalesced_total",
            "misses answered by another's load",
        ),
        (
            "sea_orm_cache_fenced_total",
            "misses that met a write under way",
        ),
        (
            "sea_orm_cache_stale_total",
            "misses answered with a value past its ttl",
        ),
        (
            "sea_orm_cache_refresh_failures_total",
            "loads in the background that failed",
        ),
        (
            "sea_orm_cache_overloaded_total",
            "reads that failed because of too many loads",
        ),
        (
            "sea_orm_cache_invalidations_total",
            "keys and generations made stale",
        ),
        (
            "sea_orm_cache_corrupt_total",
            "cached values that were damaged",
        ),
        (
            "sea_orm_cache_not_cached_total",
            "reads and loads that cannot be cached",
        ),
        (
            "sea_orm_cache_feed_changes_total",
            "changes that the change feed has applied",
        ),
        (
            "sea_orm_cache_feed_failures_total",
            "attempts of the change feed that failed",
        ),
        (
            "sea_orm_cache_store_errors_total",
            "requests to the store that failed",
        ),
    ] {
        describe_counter!(name, what);
    }
    describe_histogram!(
        "sea_orm_cache_load_seconds",
        Unit::Seconds,
        "how long loads took"
    );
    describe_histogram!(
        "sea_orm_cache_round_trip_seconds",
        Unit::Seconds,
        "how long requests to the store took"
    );
    describe_gauge!(
        "sea_orm_cache_undelivered_keys",
        "invalidated keys that the store has not been told yet"
    );
    describe_gauge!(
        "sea_orm_cache_feed_lag_seconds",
        Unit::Seconds,
        "the age of the oldest change that the feed has not applied"
    );
    describe_gauge!("sea_orm_cache_degraded", "1 while the store is not asked");
}
