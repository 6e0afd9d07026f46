//! The in-process tier in front of the store: one process that has one, over a
//! connection that tracks what it reads, and writers in this process and in others.
//!
//! Every operation of the store, every message from its server, and every time that a task goes on
//! is a step of its own. Time is counted in ticks; how long anything takes is open.

mod process;
mod server;
mod state;

use std::sync::Arc;

use stateright::{Model, Property};

use state::{Message, Phase, Writing};
pub use state::{State, Wrong};

use crate::seen::Seen;
use crate::store::Key;
use crate::token::Numbering;

/// What the tier answers is not older than what was acknowledged `max_silence` ago.
pub const BOUNDED: &str = "no bounded read is older than its bound";
/// What the server or the database answers is not older than what was acknowledged before.
pub const LINEARIZABLE: &str = "no linearizable read is stale";
/// When all writes have returned and everything was heard, the tier has what the database has.
pub const TIER_FRESH_AT_REST: &str = "nothing in the tier is stale at rest";

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As fresh as what was acknowledged `max_silence` ago.
    Bounded,
    /// As fresh as what was acknowledged when it began.
    Linearizable,
}

/// A reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TieredReader {
    /// How fresh its reads must be.
    pub level: Level,
    /// How many reads it makes.
    pub reads: u8,
}

/// A writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TieredWriter {
    /// What it fences.
    pub key: Key,
    /// Whether it writes in the process that has the tier, over the same connection.
    pub own: bool,
}

/// A guard of the tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The tier answers only while the last answered PING is younger than `max_silence`.
    Ping,
    /// A message that a key was changed also ends the fetches of that key that are under way.
    Placeholder,
    /// What a write of the process itself fences or settles is cleared, and fetches of it that are under
    /// way are ended, when that was answered.
    OwnWrites,
    /// When the connection is lost, the tier is emptied.
    LossEmpties,
    /// Linearizable reads do not look into the tier.
    LinearizableSkips,
}

/// Something that must be possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TieredSight {
    /// The tier answered.
    TierHit,
    /// The tier answered, and the database had something newer, within the bound.
    OldTierHit,
    /// The tier did not answer, because it had not heard from the server for too long.
    Silent,
    /// The process heard of a change.
    Pushed,
    /// A value was kept.
    Kept,
    /// A value was not kept, because the key was changed while it was on its way.
    NotKept,
}

const SIGHTS: usize = TieredSight::NotKept as usize + 1;

/// Who takes part, and what may happen how often.
#[derive(Clone, Copy, Debug)]
pub struct TieredConfig {
    /// Its name.
    pub name: &'static str,
    /// The readers.
    pub readers: &'static [TieredReader],
    /// The writers, one write each.
    pub writers: &'static [TieredWriter],
    /// Whether the row depends on the generation.
    pub generations: bool,
    /// How long the tier answers after a PING was sent.
    pub max_silence: u8,
    /// The last tick.
    pub ticks: u8,
    /// How many keys are evicted.
    pub evictions: u8,
    /// How often the connection is lost.
    pub losses: u8,
    /// What must be seen to happen.
    pub sights: &'static [TieredSight],
}

/// The tiered store in one configuration, whole or without one guard.
#[derive(Clone, Debug)]
pub struct Tiered {
    /// The configuration.
    pub config: TieredConfig,
    /// The guard that is missing.
    pub missing: Option<Guard>,
    seen: Arc<Seen<SIGHTS>>,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A reader begins.
    Begin(usize),
    /// The server carries out an operation of a reader.
    Serve(usize),
    /// A reader goes on.
    GoOn(usize),
    /// The server carries out an operation of a writer.
    ServeWriter(usize),
    /// The database commits.
    Commit(usize),
    /// A writer's call returns.
    Acknowledge(usize),
    /// The process handles the oldest message.
    Deliver,
    /// The process sends a PING, and the server answers.
    Ping,
    /// The server answers the PING.
    Pong,
    /// A tick of the clock.
    Tick,
    /// A key is evicted.
    Evict(Key),
    /// The server's end of the connection closes. The process need not notice.
    Close,
    /// The process notices that its connection is gone, and connects anew.
    Lose,
}

impl Tiered {
    /// The whole of it.
    pub fn new(config: TieredConfig) -> Self {
        Self {
            config,
            missing: None,
            seen: Arc::default(),
        }
    }

    /// Without one guard.
    pub fn without(config: TieredConfig, guard: Guard) -> Self {
        Self {
            missing: Some(guard),
            ..Self::new(config)
        }
    }

    /// What should have been seen and was not.
    pub fn unseen(&self) -> Vec<String> {
        let missing = |sight: &&TieredSight| !self.seen.has(**sight as usize);
        let unseen = self.config.sights.iter().filter(missing);
        unseen.map(|sight| format!("{sight:?}")).collect()
    }

    fn saw(&self, sight: TieredSight) {
        self.seen.note(sight as usize);
    }

    fn has(&self, guard: Guard) -> bool {
        self.missing != Some(guard)
    }

    fn participants(&self, state: &State, add: &mut impl FnMut(Step)) {
        for reader in 0..self.config.readers.len() {
            match state.readers[reader].phase {
                Phase::Idle => add(Step::Begin(reader)),
                Phase::Asking(_) if !state.server.closed => add(Step::Serve(reader)),
                Phase::Told(_) | Phase::Granted(..) | Phase::Direct => add(Step::GoOn(reader)),
                _ => {}
            }
        }
        for writer in 0..self.config.writers.len() {
            let reaches = !(self.config.writers[writer].own && state.server.closed);
            match state.writers[writer].phase {
                Writing::Idle | Writing::Committed if reaches => add(Step::ServeWriter(writer)),
                Writing::Sent => add(Step::Commit(writer)),
                Writing::Settled => add(Step::Acknowledge(writer)),
                _ => {}
            }
        }
    }

    fn environment(&self, state: &State, add: &mut impl FnMut(Step)) {
        if !state.process.queue.is_empty() {
            add(Step::Deliver);
        }
        if state.now < self.config.ticks {
            add(Step::Tick);
        }
        match state.process.ping {
            None if state.process.heard < state.now => add(Step::Ping),
            Some(_) if !state.server.closed && !state.process.queue.has_pong() => add(Step::Pong),
            _ => {}
        }
        if state.evictions < self.config.evictions {
            for key in [Key::Row, Key::Rows] {
                let mut server = state.server;
                let entry = server.entry(key);
                if entry.fences == 0 && *entry != Default::default() {
                    add(Step::Evict(key));
                }
            }
        }
        if state.server.closed {
            add(Step::Lose);
        } else if state.losses < self.config.losses {
            add(Step::Close);
        }
    }
}

impl Model for Tiered {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            server: Default::default(),
            process: Default::default(),
            database: 0,
            readers: Default::default(),
            writers: Default::default(),
            now: 0,
            acknowledged: Default::default(),
            evictions: 0,
            losses: 0,
            wrong: None,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.participants(state, &mut |step| steps.push(step));
        self.environment(state, &mut |step| steps.push(step));
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = *last;
        match step {
            Step::Begin(reader) => self.begin(&mut state, reader),
            Step::Serve(reader) => self.serve(&mut state, reader),
            Step::GoOn(reader) => self.go_on(&mut state, reader),
            Step::ServeWriter(writer) => self.serve_writer(&mut state, writer),
            Step::Commit(writer) => {
                state.database += 1;
                state.writers[writer].version = state.database;
                state.writers[writer].phase = Writing::Committed;
            }
            Step::Acknowledge(writer) => self.acknowledge(&mut state, writer),
            Step::Deliver => self.deliver(&mut state),
            Step::Ping => state.process.ping = Some(state.now),
            Step::Pong => {
                let sent = state.process.ping?;
                state.process.queue.push(Message::Pong(sent));
            }
            Step::Tick => state.now += 1,
            Step::Evict(key) => self.evict(&mut state, key),
            Step::Close => state.server.closed = true,
            Step::Lose => self.lose_connection(&mut state),
        }
        Numbering::default().number(&mut state);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "no bounded read is older than its bound",
                |_, state: &State| state.wrong != Some(Wrong::TooOld),
            ),
            Property::always(LINEARIZABLE, |_, state: &State| {
                state.wrong != Some(Wrong::Stale)
            }),
            Property::always(TIER_FRESH_AT_REST, Self::fresh_at_rest),
        ]
    }
}

impl Tiered {
    /// When all writes have returned and everything was heard, the tier has what the database has.
    fn fresh_at_rest(&self, state: &State) -> bool {
        let rests = |writer: &state::Writer| matches!(writer.phase, Writing::Idle | Writing::Done);
        let quiet = state.process.queue.is_empty() && !state.server.closed;
        let heard = quiet && state.writers.iter().all(rests);
        let kept =
            state.process.row.held.filter(|held| {
                !self.config.generations || state.process.rows.held == Some(held.rows)
            });
        !heard || kept.is_none_or(|held| held.version == state.database)
    }
}
