//! The circuit breaker: stops asking a store that does not answer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// This many failures in a row open the breaker.
const FAILURES_TO_OPEN: u32 = 3;
/// How long the breaker stays open at first; doubled at each failed probe.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest it stays open before the next probe.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Closed: all pass. Open: none pass. Half-open: one probe passes.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    /// Set while not closed: the closed path takes no lock.
    tripped: AtomicBool,
    /// Set by a failure and cleared by a success: one success after another takes no lock.
    failing: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    pause: Duration,
    retry_at: Option<Instant>,
    probing: bool,
}

/// A change of the breaker that somebody may want to know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    Opened,
    Closed,
}

impl Breaker {
    /// Whether a request may go to the store. In the half-open state only one may at a time.
    pub(crate) fn admits(&self) -> bool {
        if !self.tripped.load(Ordering::Acquire) {
            return true;
        }
        let mut state = self.lock();
        let due = state.retry_at.is_none_or(|at| Instant::now() >= at);
        let admitted = due && !state.probing;
        if admitted {
            state.probing = true;
        }
        admitted
    }

    /// Whether requests pass freely.
    pub(crate) fn is_closed(&self) -> bool {
        !self.tripped.load(Ordering::Acquire)
    }

    /// Notes an answer.
    pub(crate) fn succeeded(&self) -> Option<Turned> {
        if !self.failing.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.lock();
        *state = State::default();
        self.failing.store(false, Ordering::Release);
        self.tripped
            .swap(false, Ordering::AcqRel)
            .then_some(Turned::Closed)
    }

    /// Notes a failure.
    pub(crate) fn failed(&self) -> Option<Turned> {
        let mut state = self.lock();
        self.failing.store(true, Ordering::Release);
        state.failures = state.failures.saturating_add(1);
        state.probing = false;
        if state.failures < FAILURES_TO_OPEN {
            return None;
        }
        state.pause = (state.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        state.retry_at = Some(Instant::now() + state.pause);
        (!self.tripped.swap(true, Ordering::AcqRel)).then_some(Turned::Opened)
    }

    /// Notes that a probe was given up before it was answered.
    pub(crate) fn abandoned(&self) {
        self.lock().probing = false;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_three_failures_in_a_row_and_lets_one_probe_through() {
        let breaker = Breaker::default();
        assert_eq!(breaker.failed(), None);
        assert_eq!(breaker.failed(), None);
        assert!(breaker.admits());
        assert_eq!(breaker.failed(), Some(Turned::Opened));
        assert!(!breaker.admits());
        breaker.lock().retry_at = Some(Instant::now());
        assert!(breaker.admits(), "the probe");
        assert!(!breaker.admits(), "only one probe");
        assert_eq!(breaker.failed(), None, "still open");
        assert!(!breaker.admits());
        breaker.lock().retry_at = Some(Instant::now());
        assert!(breaker.admits());
        assert_eq!(breaker.succeeded(), Some(Turned::Closed));
        assert!(breaker.admits() && breaker.admits());
    }

    #[test]
    fn a_success_between_failures_keeps_it_closed() {
        let breaker = Breaker::default();
        for _ in 0..10 {
            assert_eq!(breaker.failed(), None);
            assert_eq!(breaker.failed(), None);
            assert_eq!(breaker.succeeded(), None);
        }
        assert!(breaker.is_closed());
    }

    #[test]
    fn the_pause_is_bounded() {
        let breaker = Breaker::default();
        for _ in 0..40 {
            breaker.failed();
        }
        assert_eq!(breaker.lock().pause, LONGEST_PAUSE);
    }

    #[test]
    fn an_abandoned_probe_makes_room_for_the_next() {
        let breaker = Breaker::default();
        for _ in 0..FAILURES_TO_OPEN {
            breaker.failed();
        }
        breaker.lock().retry_at = Some(Instant::now());
        assert!(breaker.admits());
        breaker.abandoned();
        assert!(breaker.admits());
    }
}
