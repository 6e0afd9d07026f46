//! Times that fit into an atomic number.
//!
//! The kernel's coarse clock would cost a quarter of this one, but was seen to be 50 ms behind where a
//! host had no time for its guest: what may be answered for a second must not be measured with it.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// A time: nanoseconds since this process first asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticks(pub(crate) u64);

impl Ticks {
    /// The time that much later.
    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

/// The time now.
#[inline]
pub(crate) fn now() -> Ticks {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    Ticks(nanos(START.elapsed()))
}

fn nanos(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(u64::from(duration.subsec_nanos()))
}
