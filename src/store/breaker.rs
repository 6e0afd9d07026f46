//! The circuit breaker: stops asking a store that does not answer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    /// How many failures were counted so far.
    counted: AtomicU64,
    state: Mutex<State>,
}

/// When a request was sent, in failures counted before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent(u64);

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

    /// To be noted before a request is sent.
    pub(crate) fn sent(&self) -> Sent {
        Sent(self.counted.load(Ordering::Acquire))
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

    /// Notes a failure. Of the requests that were under way at the same moment only the first failure
    /// counts: a connection that breaks, or one answer for many callers that does not come, fails them
    /// all at once, and is one failure and no three in a row.
    pub(crate) fn failed(&self, sent: Sent) -> Option<Turned> {
        let mut state = self.lock();
        self.failing.store(true, Ordering::Release);
        state.probing = false;
        let counted = self.counted.load(Ordering::Acquire);
        if sent.0 != counted {
            return None;
        }
        self.counted.store(counted + 1, Ordering::Release);
        state.failures = state.failures.saturating_add(1);
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

    /// A request that is sent and fails while no other one is under way.
    fn fail(breaker: &Breaker) -> Option<Turned> {
        breaker.failed(breaker.sent())
    }

    #[test]
    fn opens_after_three_failures_in_a_row_and_lets_one_probe_through() {
        let breaker = Breaker::default();
        assert_eq!(fail(&breaker), None);
        assert_eq!(fail(&breaker), None);
        assert!(breaker.admits());
        assert_eq!(fail(&breaker), Some(Turned::Opened));
        assert!(!breaker.admits());
        breaker.lock().retry_at = Some(Instant::now());
        assert!(breaker.admits(), "the probe");
        assert!(!breaker.admits(), "only one probe");
        assert_eq!(fail(&breaker), None, "still open");
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
            assert_eq!(fail(&breaker), None);
            assert_eq!(fail(&breaker), None);
            assert_eq!(breaker.succeeded(), None);
        }
        assert!(breaker.is_closed());
    }

    #[test]
    fn requests_that_fail_together_are_one_failure() {
        let breaker = Breaker::default();
        for turned in [None, None, Some(Turned::Opened)] {
            assert!(breaker.is_closed());
            let together = [(); 64].map(|()| breaker.sent());
            let turns = together.map(|sent| breaker.failed(sent));
            assert_eq!((turns[0], &turns[1..]), (turned, &[None; 63][..]));
        }
        assert!(!breaker.is_closed());
    }

    #[test]
    fn a_late_failure_of_before_a_success_does_not_count_after_it() {
        let breaker = Breaker::default();
        let late = breaker.sent();
        fail(&breaker);
        assert_eq!(breaker.succeeded(), None);
        assert_eq!(breaker.failed(late), None);
        assert_eq!((fail(&breaker), fail(&breaker)), (None, None));
        assert!(breaker.is_closed());
        assert_eq!(fail(&breaker), Some(Turned::Opened));
    }

    #[test]
    fn the_pause_is_bounded() {
        let breaker = Breaker::default();
        for _ in 0..40 {
            fail(&breaker);
        }
        assert_eq!(breaker.lock().pause, LONGEST_PAUSE);
    }

    #[test]
    fn an_abandoned_probe_makes_room_for_the_next() {
        let breaker = Breaker::default();
        for _ in 0..FAILURES_TO_OPEN {
            fail(&breaker);
        }
        breaker.lock().retry_at = Some(Instant::now());
        assert!(breaker.admits());
        breaker.abandoned();
        assert!(breaker.admits());
    }
}
