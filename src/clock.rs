//! A clock that is cheap to read: monotonic, and a few milliseconds coarse.

use std::time::Duration;

/// How far the clock may be behind.
const COARSE: Duration = Duration::from_millis(10);

/// A time: nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticks(pub(crate) u64);

impl Ticks {
    /// The time at which `duration` has passed for certain, whatever the clock's coarseness. Up to
    /// thirty years.
    pub(crate) fn after(self, duration: Duration) -> Self {
        let duration = duration.min(crate::config::LONGEST).saturating_sub(COARSE);
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

/// The time now, or up to 10 ms ago.
#[cfg(target_os = "linux")]
#[inline]
pub(crate) fn now() -> Ticks {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    // Neither is ever negative.
    Ticks(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// The time now.
#[cfg(not(target_os = "linux"))]
pub(crate) fn now() -> Ticks {
    use std::sync::LazyLock;
    use std::time::Instant;

    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    Ticks(START.elapsed().as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_clock_is_never_more_behind_than_it_says() {
        for _ in 0..200 {
            let (ticks, start) = (now(), Instant::now());
            std::thread::sleep(Duration::from_millis(1));
            let slept = start.elapsed();
            assert!(now() >= ticks);
            assert!(now() >= ticks.after(slept), "{slept:?}");
        }
    }
}
