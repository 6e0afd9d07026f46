//! What happens by itself: evictions, expiry, restarts, connections.

use crate::guard::Guard;
use crate::model::Protocol;
use crate::seen::Sight;
use crate::state::{PROCESSES, State};
use crate::store::{Key, Store, Value};
use crate::token::{Token, fresh};
use crate::writer;

/// Something that happens by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key is evicted, with all that it holds, or a value expires.
    Evict(Key),
    /// What is under the row's key is removed, by itself.
    Remove,
    /// The values under the row's key come to the end of their ttl.
    Age,
    /// The root is evicted.
    EvictRoot,
    /// A writer's fence on a key expires.
    Expire(usize, Key),
    /// The store's server writes a snapshot.
    Save,
    /// The store's server is restarted, empty.
    RestartEmpty,
    /// The store's server is restarted from its snapshot, or a replica that has stopped at it takes
    /// over.
    RestartOld,
    /// A process delivers an invalidation that had failed.
    Deliver(usize),
    /// A process connects to the store.
    Connect(usize),
    /// A process looks at the root again.
    RefreshRoot(usize),
}

const KEYS: [Key; 2] = [Key::Row, Key::Rows];

/// A writer that has planted no fence.
pub(crate) const NOBODY: usize = 7;

impl Protocol {
    /// What can happen.
    pub(crate) fn events(&self, state: &State, add: &mut impl FnMut(Event)) {
        self.evictions(state, add);
        for key in KEYS {
            self.expiries(state, key, add);
        }
        let config = &self.config;
        if state.used.removals < config.removals {
            add(Event::Remove);
        }
        let young = |value: &Value| !value.aged;
        if state.used.ages < config.ages && state.store.row.values.iter().flatten().any(young) {
            add(Event::Age);
        }
        if state.used.snapshots < config.snapshots {
            add(Event::Save);
        }
        if state.used.restarts < config.restarts {
            if self.may_lose(state, &Store::default()) && !config.only_old_restarts {
                add(Event::RestartEmpty);
            }
            if state.snapshot.is_some_and(|old| self.may_lose(state, &old)) {
                add(Event::RestartOld);
            }
        }
        for process in 0..config.processes() {
            if state.journals[process] {
                add(Event::Deliver(process));
            }
            let root = state.roots[process];
            if !root.is_some() {
                add(Event::Connect(process));
            } else if root != state.store.root.name && config.has_roots() {
                add(Event::RefreshRoot(process));
            }
        }
    }

    fn evictions(&self, state: &State, add: &mut impl FnMut(Event)) {
        if state.used.evictions >= self.config.evictions {
            return;
        }
        for key in KEYS {
            let mut left = state.store;
            *left.entry(key) = Default::default();
            if left != state.store && self.may_lose(state, &left) {
                add(Event::Evict(key));
            }
        }
        if state.store.root.name.is_some() && self.config.has_roots() {
            add(Event::EvictRoot);
        }
    }

    fn expiries(&self, state: &State, key: Key, add: &mut impl FnMut(Event)) {
        let rules = self.rules();
        let fenced = |writer: &usize| state.store.look(key).is_fenced_by(*writer, rules);
        let mut fenced = (0..self.config.writers.len()).filter(fenced);
        if rules.owned() {
            for writer in fenced {
                if self.may_expire(state, writer) {
                    add(Event::Expire(writer, key));
                }
            }
        } else if let Some(first) = fenced.next() {
            // One deadline for all: it passes when nobody renews it.
            let expired =
                |writer: &writer::Writer| !writer.is_active() || !rules.has(Guard::FenceIsRenewed);
            if state.writers.iter().all(expired) {
                add(Event::Expire(first, key));
            }
        }
    }

    /// Whether the store may lose what is not in `left`.
    fn may_lose(&self, state: &State, left: &Store) -> bool {
        let outlived =
            |writer: usize| state.writers[writer].pending && self.loses(state, left, writer);
        !self.rules().has(Guard::LostFenceWriterLives)
            || !(0..self.config.writers.len()).any(outlived)
    }

    /// Whether a writer loses a fence before its commit if only `left` is left.
    fn loses(&self, state: &State, left: &Store, writer: usize) -> bool {
        let this = state.writers[writer];
        let rules = self.rules();
        let before = matches!(this.phase, writer::Phase::Fencing(_) | writer::Phase::Sent);
        let lost = |key: &Key| {
            state.store.look(*key).is_fenced_by(writer, rules)
                && !left.look(*key).is_fenced_by(writer, rules)
        };
        (before || this.pending) && KEYS.iter().any(lost)
    }

    /// Lets something happen.
    pub(crate) fn happen(&self, state: &mut State, event: Event) {
        match event {
            Event::Evict(key) => {
                let mut left = state.store;
                *left.entry(key) = Default::default();
                state.used.evictions += 1;
                self.lose(state, left);
            }
            Event::Remove => {
                self.saw(Sight::Removed);
                state.used.removals += 1;
                state.store.row.settle(NOBODY, self.rules());
            }
            Event::Age => {
                state.used.ages += 1;
                let values = state.store.row.values.iter_mut().flatten();
                values.for_each(|value| value.aged = true);
            }
            Event::EvictRoot => {
                state.used.evictions += 1;
                state.store.root = Default::default();
            }
            Event::Expire(writer, key) => {
                self.saw(Sight::FenceExpired);
                state.store.entry(key).expire(writer, self.rules());
            }
            Event::Save => {
                state.used.snapshots += 1;
                state.snapshot = Some(state.store);
            }
            Event::RestartEmpty => {
                self.saw(Sight::RestartedEmpty);
                self.restart(state, Store::default());
            }
            Event::RestartOld => {
                if let Some(old) = state.snapshot {
                    if old != state.store {
                        self.saw(Sight::RestartedOld);
                    }
                    self.restart(state, old);
                }
            }
            Event::Deliver(process) => self.deliver(state, process),
            Event::Connect(process) => self.connect(state, process, Token::NONE),
            Event::RefreshRoot(process) => {
                let kept = state.roots[process];
                self.connect(state, process, kept);
            }
        }
    }

    fn lose(&self, state: &mut State, left: Store) {
        for writer in 0..self.config.writers.len() {
            if self.loses(state, &left, writer) {
                self.saw(Sight::FenceLost);
                state.writers[writer].lost = true;
            }
        }
        state.store = left;
    }

    fn restart(&self, state: &mut State, left: Store) {
        self.lose(state, left);
        state.used.restarts += 1;
        state.run += 1;
        if state.used.restarts == self.config.restarts {
            state.snapshot = None;
        }
        state.roots = [Token::NONE; PROCESSES];
        for reader in 0..self.config.readers.len() {
            self.cut_off(state, reader);
        }
    }

    /// Settles for nobody: no fence is taken away.
    fn deliver(&self, state: &mut State, process: usize) {
        self.saw(Sight::Delivered);
        state.used.deliveries += 1;
        state.store.row.settle(NOBODY, self.rules());
        state.journals[process] = false;
        state.history.pay(process);
    }

    fn connect(&self, state: &mut State, process: usize, kept: Token) {
        let fresh = fresh(state);
        state.used.connects += 1;
        state.roots[process] = state.store.root(state.run, fresh, kept, self.rules());
    }
}
