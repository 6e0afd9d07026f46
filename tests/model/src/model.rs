//! The model: its configuration, its steps, its properties.

use std::sync::Arc;

use stateright::{Model, Property};

use crate::environment::Event;
use crate::guard::Guard;
use crate::putter::{self, PutterKind};
use crate::reader;
use crate::seen::{Seen, Sight};
use crate::state::{History, PUTTERS, READERS, State, Used, WRITERS};
use crate::store::{BUILDS, Key, Noted, Root, Rules, Store};
use crate::token::Token;
use crate::writer;

/// Linearizable: a read returns what was acknowledged, or returned to another reader, before it
/// began, or something newer. Nothing else can be returned: versions come from the database.
pub const NO_STALE_READ: &str = "no read is older than its floor";
/// While no write is under way, every value that somebody would accept is the database's.
pub const FRESH_AT_REST: &str = "nothing is stale at rest";

/// Every reader that lives ends: it always can go on by itself, and no run is endless.
pub const NONE_IS_STUCK: &str = "no reader is stuck";

/// A number is what was counted since there was none, and of those who `add` one does. It is lost with an
/// eviction, a removal, what makes it stale, and with who loads under its key.
pub const NOTHING_LOST: &str = "no count is lost";
/// What has aged stays until it is replaced, invalidated or evicted. Only who has met a fence since may take it
/// for outdated, which costs a load.
pub const AGED_STAYS: &str = "no aged value is taken away by who loads it anew";

/// A reader: in which process, of which build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderKind {
    /// Its process.
    pub process: usize,
    /// Its build.
    pub build: usize,
}

/// A writer: what it fences, and how it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterKind {
    /// The keys, in the order in which they are fenced and settled.
    pub keys: &'static [Key],
    /// Whether it writes in a transaction.
    pub transaction: bool,
    /// Its process.
    pub process: usize,
}

/// Who takes part, and what may happen how often.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Its name.
    pub name: &'static str,
    /// The readers.
    pub readers: &'static [ReaderKind],
    /// The writers, one write each.
    pub writers: &'static [WriterKind],
    /// Those who put values.
    pub putters: &'static [PutterKind],
    /// Whether values depend on the generation `rows`.
    pub generations: bool,
    /// How many reads each reader makes.
    pub reads: u8,
    /// How often a reader asks again before it gives up.
    pub polls: u8,
    /// How many readers die or are cancelled.
    pub reader_crashes: u8,
    /// How many writers die.
    pub writer_crashes: u8,
    /// Whether statements fail, commits are reported as failed, and connections break.
    pub failures: bool,
    /// How many keys are evicted.
    pub evictions: u8,
    /// How often the row's key is removed.
    pub removals: u8,
    /// How often values come to the end of their ttl.
    pub ages: u8,
    /// How many requests of writers fail, carried out or not; they are to have the row only.
    pub outages: u8,
    /// How often the store is restarted.
    pub restarts: u8,
    /// How many snapshots are taken.
    pub snapshots: u8,
    /// Whether it is restarted from snapshots only.
    pub only_old_restarts: bool,
    /// What must be seen to happen.
    pub sights: &'static [Sight],
}

impl Config {
    /// How many processes read.
    pub fn processes(&self) -> usize {
        let last = self.readers.iter().map(|reader| reader.process).max();
        last.map_or(0, |process| process + 1)
    }

    /// Whether there ever is more than one root.
    pub fn has_roots(&self) -> bool {
        self.restarts > 0
    }
}

/// The protocol in one configuration, whole or without one guard.
#[derive(Clone, Debug)]
pub struct Protocol {
    /// The configuration.
    pub config: Config,
    /// The guard that is missing.
    pub missing: Option<Guard>,
    /// Whether participants that are alike may change places: fewer states, but steps of a
    /// counterexample then name others than one would think.
    pub symmetric: bool,
    /// What has been seen.
    pub seen: Arc<Seen>,
}

/// A step of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Of a reader.
    Reader(usize, reader::Step),
    /// Of a writer.
    Writer(usize, writer::Step),
    /// Of who puts a value.
    Putter(usize, putter::Step),
    /// Of nobody.
    Event(Event),
}

impl Protocol {
    /// The whole protocol.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            missing: None,
            symmetric: true,
            seen: Arc::default(),
        }
    }

    /// The protocol without one guard.
    pub fn without(config: Config, guard: Guard) -> Self {
        Self {
            missing: Some(guard),
            symmetric: false,
            ..Self::new(config)
        }
    }

    /// What should have been seen and was not.
    pub fn unseen(&self) -> Vec<String> {
        let missing = |sight: &&Sight| !self.seen.has(**sight as usize);
        let unseen = self.config.sights.iter().filter(missing);
        unseen.map(|sight| format!("{sight:?}")).collect()
    }

    pub(crate) fn saw(&self, sight: Sight) {
        self.seen.note(sight as usize);
    }

    pub(crate) fn rules(&self) -> Rules {
        Rules(self.missing)
    }

    pub(crate) fn process(&self, reader: usize) -> usize {
        self.config.readers[reader].process
    }

    pub(crate) fn build(&self, reader: usize) -> usize {
        self.config.readers[reader].build
    }

    fn canonical(&self, state: &mut State) {
        let Config {
            readers,
            writers,
            putters,
            ..
        } = self.config;
        let alike = self.symmetric;
        state.canonical(
            |one, other| alike && other < readers.len() && readers[one] == readers[other],
            |one, other| alike && other < writers.len() && writers[one] == writers[other],
            |one, other| alike && other < putters.len() && putters[one] == putters[other],
        );
        self.forget(state);
    }

    /// What nobody will ask for any more.
    fn forget(&self, state: &mut State) {
        let readers = &state.readers[..self.config.readers.len()];
        if readers
            .iter()
            .all(|reader| reader.phase == reader::Phase::Done)
        {
            state.history = History {
                acknowledged: 0,
                returned: 0,
                unfenced: 0,
                owed: Default::default(),
                ..state.history
            };
        }
    }

    /// Grows with every step, so that there is no endless run.
    fn progress(&self, state: &State) -> u32 {
        let readers: u32 = state
            .readers
            .iter()
            .map(|reader| reader.progress(self.config.polls))
            .sum();
        let writers: u32 = state.writers.iter().map(writer::Writer::progress).sum();
        let putters: u32 = state.putters.iter().map(putter::Putter::progress).sum();
        let fences =
            (state.store.row.fences.count_ones() + state.store.rows.fences.count_ones()).min(31);
        (readers + writers * 8 + putters + state.used.sum() * 32 + 32) - fences
    }
}

/// Whether a number may be lost in a step. A reader that asks for a lease on the same key takes one for outdated
/// if it noted the generation before the number was put, and the generation was fenced meanwhile.
fn may_lose_counts(action: Action) -> bool {
    use reader::Step::{Acquire, TakeOver};
    match action {
        Action::Writer(..) | Action::Event(_) => true,
        Action::Reader(_, step) => matches!(step, Acquire | TakeOver),
        Action::Putter(..) => false,
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let root = Token(1);
        let store = Store {
            root: Root { name: root, run: 0 },
            ..Store::default()
        };
        let mut state = State {
            store,
            run: 0,
            snapshot: None,
            roots: Default::default(),
            database: 0,
            readers: [Default::default(); READERS],
            writers: [Default::default(); WRITERS],
            putters: [Default::default(); PUTTERS],
            journals: Default::default(),
            used: Used::default(),
            history: History::default(),
        };
        state.roots[..self.config.processes()].fill(root);
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for reader in 0..self.config.readers.len() {
            self.reader_steps(state, reader, &mut |step| {
                actions.push(Action::Reader(reader, step));
            });
        }
        for writer in 0..self.config.writers.len() {
            self.writer_steps(state, writer, &mut |step| {
                actions.push(Action::Writer(writer, step));
            });
        }
        for putter in 0..self.config.putters.len() {
            self.putter_steps(state, putter, &mut |step| {
                actions.push(Action::Putter(putter, step));
            });
        }
        self.events(state, &mut |event| actions.push(Action::Event(event)));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::Reader(reader, step) => self.reader_step(&mut state, reader, step),
            Action::Writer(writer, step) => self.writer_step(&mut state, writer, step),
            Action::Putter(putter, step) => self.putter_step(&mut state, putter, step),
            Action::Event(event) => self.happen(&mut state, event),
        }
        if may_lose_counts(action) && self.number(&state) == 0 {
            state.history.tally = 0;
        }
        assert!(
            self.missing.is_some() || self.progress(&state) > self.progress(last),
            "{action:?} does not lead on from {last:?}"
        );
        self.canonical(&mut state);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NO_STALE_READ, |_, state: &State| !state.history.stale_read),
            Property::always(FRESH_AT_REST, Protocol::fresh_at_rest),
            Property::always(NONE_IS_STUCK, Protocol::none_is_stuck),
            Property::always(NOTHING_LOST, |protocol: &Self, state: &State| {
                protocol.number(state) == state.history.tally
            }),
            Property::always(AGED_STAYS, |_, state: &State| !state.history.wasted),
        ]
    }
}

impl Protocol {
    /// While no write is under way, every value that somebody would accept is the database's.
    fn fresh_at_rest(&self, state: &State) -> bool {
        let active = state.writers.iter().any(writer::Writer::is_active) || self.is_setting(state);
        if active || state.journals.contains(&true) {
            return true;
        }
        let rows = state.store.rows.generation;
        (0..BUILDS).all(|build| {
            let value = state.store.row.values[build];
            value.is_none_or(|value| {
                value.version == state.database
                    || !self
                        .roots(state)
                        .any(|root| self.is_valid(&value, Noted { root, rows }))
            })
        })
    }

    /// The number that stands, for who asks now; 0 if there is none.
    pub(crate) fn number(&self, state: &State) -> u8 {
        let now = Noted {
            root: state.store.root.name,
            rows: state.store.rows.generation,
        };
        let value = state.store.row.values[0].filter(|value| self.is_valid(value, now));
        value.map_or(0, |value| value.number)
    }

    /// The roots that processes have, or would have if they connected now.
    fn roots(&self, state: &State) -> impl Iterator<Item = Token> {
        let mut store = state.store;
        let fresh = Token(u8::MAX);
        let next = store.root(state.run, fresh, Token::NONE, self.rules());
        state.roots.into_iter().chain([next])
    }

    /// Whoever has not ended can go on by himself. As no run is endless, he ends.
    fn none_is_stuck(&self, state: &State) -> bool {
        (0..self.config.readers.len()).all(|reader| {
            let mut can = state.readers[reader].phase == reader::Phase::Done
                || !state.roots[self.process(reader)].is_some();
            self.reader_steps(state, reader, &mut |_| can = true);
            can
        })
    }
}
