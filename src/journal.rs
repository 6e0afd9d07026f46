//! Invalidations that could not be delivered.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::invalidation::collapse;
use crate::key::Key;

/// Past this many keys the journal keeps their entities' generations instead.
const MOST_KEYS: usize = 10_000;

/// The keys that are stale in the store, because a write could not tell it.
///
/// While a key is here, this process does not use the cache for it.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Set while there is anything: the ordinary path takes no lock.
    pending: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: HashSet<Key>,
    /// Counts the additions, so that a delivery knows whether more has come since.
    additions: u64,
    delivering: bool,
}

/// What one delivery attempt is to deliver.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) keys: Vec<Key>,
    additions: u64,
}

impl Journal {
    /// Adds keys, for whoever [claims](Self::claim) to deliver them.
    pub(crate) fn add(&self, keys: impl IntoIterator<Item = Key>) {
        let mut state = self.lock();
        state.keys.extend(keys);
        state.additions += 1;
        if state.keys.len() > MOST_KEYS {
            state.keys = collapse(std::mem::take(&mut state.keys)).collect();
        }
        self.pending.store(true, Ordering::Release);
    }

    /// `true` if there is something and nobody is delivering it yet: the caller then does.
    pub(crate) fn claim(&self) -> bool {
        let mut state = self.lock();
        !state.keys.is_empty() && !std::mem::replace(&mut state.delivering, true)
    }

    /// Who has claimed ends before it has delivered.
    pub(crate) fn disclaim(&self) {
        self.lock().delivering = false;
    }

    /// Whether this process must not use the cache for any of these keys.
    pub(crate) fn holds<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) -> bool {
        self.pending.load(Ordering::Acquire) && {
            let state = self.lock();
            keys.into_iter().any(|key| state.keys.contains(key))
        }
    }

    /// How many keys are not delivered.
    pub(crate) fn len(&self) -> usize {
        self.lock().keys.len()
    }

    /// What is to be delivered now.
    pub(crate) fn take_stock(&self) -> Delivery {
        let state = self.lock();
        Delivery {
            keys: state.keys.iter().cloned().collect(),
            additions: state.additions,
        }
    }

    /// Notes that a delivery succeeded. `true` if the journal is empty and the claim has ended;
    /// a key added since the delivery began stays, because its write may have come after.
    pub(crate) fn delivered(&self, delivery: &Delivery) -> bool {
        let mut state = self.lock();
        if state.additions != delivery.additions {
            return false;
        }
        *state = State {
            additions: state.additions,
            ..State::default()
        };
        self.pending.store(false, Ordering::Release);
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Key {
        format!("soc:main:city:pk:{n}").into()
    }

    #[test]
    fn there_is_one_deliverer_while_there_is_anything_to_deliver() {
        let journal = Journal::default();
        assert!(!journal.holds([&key(1)]) && !journal.claim());
        journal.add([key(1)]);
        assert!(journal.claim());
        journal.add([key(2)]);
        assert!(!journal.claim());
        journal.disclaim();
        assert!(journal.claim());
        assert!(journal.holds([&key(1)]) && journal.holds([&key(2)]) && !journal.holds([&key(3)]));
    }

    #[test]
    fn a_key_added_during_a_delivery_stays() {
        let journal = Journal::default();
        journal.add([key(1)]);
        let delivery = journal.take_stock();
        journal.add([key(1)]);
        assert!(!journal.delivered(&delivery));
        assert!(journal.holds([&key(1)]));
        let delivery = journal.take_stock();
        assert!(journal.delivered(&delivery));
        assert!(!journal.holds([&key(1)]));
        assert!(!journal.claim());
        journal.add([key(4)]);
        assert!(journal.claim());
    }

    #[test]
    fn past_its_bound_it_keeps_generations() {
        let journal = Journal::default();
        journal.add((0..=MOST_KEYS).map(key));
        assert_eq!(journal.len(), 3);
        assert!(journal.holds([&Key::from("soc:main:city:gen:rows".to_owned())]));
    }
}
