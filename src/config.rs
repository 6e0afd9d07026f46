//! How long, how fresh, and what to do when the cache is away.

use std::time::Duration;

/// Longer times are taken for this one (thirty years), which clocks can still count with.
pub(crate) const LONGEST: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// How fresh a cached read is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// As fresh as the database, for all writes that go through the library.
    Linearizable,
    /// Without an in-process tier ([`l1`](crate::CacheBuilder::l1)), the same as
    /// [`Linearizable`](Self::Linearizable). With one, at most
    /// [`max_silence`](crate::CacheBuilder::max_silence) old even under a network partition, and never
    /// older than this process's own writes.
    #[default]
    Bounded,
    /// Not cached.
    Database,
}

/// What a write does when its fence cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WritePolicy {
    /// The write goes on; the invalidation is kept in a journal and retried, and this process
    /// bypasses the cache for those keys until it is delivered.
    #[default]
    Available,
    /// The write fails before the database is touched.
    Strict,
}

/// How an entity is cached.
#[derive(Clone, Debug, PartialEq)]
pub struct EntityPolicy {
    /// How long a value lives. Defaults to 5 minutes.
    pub ttl: Duration,
    /// By which part of itself the life of a value is shortened at random. Defaults to 0.1.
    pub jitter: f64,
    /// How long "no such row" lives. Defaults to 30 seconds.
    pub absent_ttl: Duration,
    /// How fresh reads are. Defaults to [`Consistency::Bounded`].
    pub consistency: Consistency,
    /// What a write does when its fence cannot be written. Defaults to the cache's policy.
    pub write_policy: Option<WritePolicy>,
    /// How long after its `ttl` a value is still answered while one caller loads it anew. Never one that was
    /// invalidated. Defaults to zero.
    pub stale_while_revalidate: Duration,
    /// How long after its `ttl` a value is still answered where it cannot be loaded anew. Never one that was
    /// invalidated. Defaults to zero.
    pub stale_if_error: Duration,
    /// How early before the end of its `ttl` one caller loads a value anew, at random: sooner for one that takes
    /// long to load. 1 is usual, more is sooner. Defaults to 0: never.
    ///
    /// As in "Optimal Probabilistic Cache Stampede Prevention" (Vattani, Chierichetti, Lowenstein, 2015).
    pub early_refresh: f64,
    /// How long a caller waits for a load where there is a value that may still be answered instead. Defaults to
    /// none: as long as it takes.
    pub soft_timeout: Option<Duration>,
    /// How long a load may take; then it fails. Defaults to none: as long as it takes.
    pub load_timeout: Option<Duration>,
}

impl Default for EntityPolicy {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(300),
            jitter: 0.1,
            absent_ttl: Duration::from_secs(30),
            consistency: Consistency::default(),
            write_policy: None,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            early_refresh: 0.0,
            soft_timeout: None,
            load_timeout: None,
        }
    }
}

impl EntityPolicy {
    /// How long a value is kept past its `ttl`.
    pub(crate) fn grace(&self) -> Duration {
        self.stale_while_revalidate
            .max(self.stale_if_error)
            .min(LONGEST)
    }

    /// How early before its end a value that took so long to load is loaded anew, this time.
    pub(crate) fn earliness(&self, took: Duration) -> Duration {
        if self.early_refresh <= 0.0 {
            return Duration::ZERO;
        }
        // From 0 (not included) to 1.
        let random = 1.0 - fastrand::f64();
        let early = took.as_secs_f64() * self.early_refresh * -random.ln();
        Duration::try_from_secs_f64(early).unwrap_or(LONGEST)
    }

    /// Whether it matters how old a value is.
    pub(crate) fn minds_age(&self) -> bool {
        self.early_refresh > 0.0 || !self.grace().is_zero()
    }

    /// `ttl` shortened by a random part of the jitter.
    pub(crate) fn jittered(&self, ttl: Duration) -> Duration {
        // Also where it is no number there is none.
        let jitter = match self.jitter > 0.0 {
            true => self.jitter.min(1.0),
            false => 0.0,
        };
        ttl.min(LONGEST).mul_f64(1.0 - jitter * fastrand::f64())
    }
}

/// What a save does whose hooks run on a plain `DatabaseTransaction`, whose commit cannot be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainTransactions {
    /// The rows stay uncached for the fence's life (10 s by default), which must outlast the
    /// transaction.
    #[default]
    Expire,
    /// The save fails with an error that says how to use `CachedConnection`.
    Refuse,
}
