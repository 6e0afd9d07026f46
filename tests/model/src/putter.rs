//! A value that is put without a load: what `src/values/write.rs` does, one request to the store after
//! another.
//!
//! `set` stands for a caller that changes what no writer knows of and then puts it: its change is one more
//! version, which is acknowledged when the call returns. What `add` puts is as old as the first request of its
//! call; what `incr` puts as the number that it counts on from. What the caller computed before is its own
//! affair: nothing can be known of it.
//!
//! The code asks for fewer answers one after the other: what is noted and whether what was read is valid come in
//! one request, and `add` notes with its first one.

use crate::environment::NOBODY;
use crate::guard::Guard;
use crate::model::Protocol;
use crate::seen::Sight;
use crate::state::State;
use crate::store::{Noted, Over, Value};
use crate::token::{Token, Tokens, fresh};

/// What a putter does under the row's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutterKind {
    /// `set`.
    Set,
    /// `set` of the key `rows`, on which the row's values depend (`depends_on_key`).
    SetOther,
    /// `add` of a 1.
    Add,
    /// `incr` by 1.
    Incr,
    /// `touch`.
    Touch,
}

/// One putter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Putter {
    /// Not begun.
    #[default]
    Idle,
    /// Under way.
    At(Stage, Work),
    /// Its call has returned.
    Done,
}

/// How far a put has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// To begin once more.
    Again,
    /// Has read what stands there, stale or not.
    Read,
    /// Has noted what its value depends on.
    Noted,
    /// Has looked the value up, the generation is not looked at yet.
    Looked,
    /// Knows what to put.
    Ready,
}

/// What a putter knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Work {
    /// How often it has tried in vain.
    tries: u8,
    /// How old its value is.
    version: u8,
    /// What stood there.
    read: Option<Value>,
    /// What its value depends on.
    noted: Noted,
    /// What it found to be valid.
    found: Option<Value>,
}

impl Tokens for Putter {
    fn tokens(&mut self, visit: &mut impl FnMut(&mut Token)) {
        if let Self::At(_, work) = self {
            work.read.tokens(visit);
            work.noted.tokens(visit);
            work.found.tokens(visit);
        }
    }
}

/// A step of a putter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reads what stands there.
    Read,
    /// Notes the generation.
    Note,
    /// Looks the value up.
    Look,
    /// Looks the generation up, and judges.
    Peek,
    /// Puts the value.
    Put,
}

/// All putters are of one build, in one process.
const BUILD: usize = 0;
const PROCESS: usize = 0;

/// How often a putter tries. It is a hundred times in the code.
const TRIES: u8 = 2;

impl Putter {
    /// Grows with every step.
    pub fn progress(&self) -> u32 {
        match self {
            Self::Idle => 0,
            Self::At(stage, work) => 1 + u32::from(work.tries) * 8 + *stage as u32,
            Self::Done => u32::from(TRIES) * 8 + 8,
        }
    }
}

impl Protocol {
    /// What a putter can do.
    pub(crate) fn putter_steps(&self, state: &State, putter: usize, add: &mut impl FnMut(Step)) {
        let kind = self.config.putters[putter];
        let counts = matches!(kind, PutterKind::Add | PutterKind::Incr);
        match state.putters[putter] {
            Putter::Done => {}
            Putter::Idle | Putter::At(Stage::Again, _) => match kind {
                PutterKind::Set if self.config.generations => add(Step::Note),
                PutterKind::Set | PutterKind::SetOther => add(Step::Put),
                PutterKind::Add | PutterKind::Incr | PutterKind::Touch => add(Step::Read),
            },
            Putter::At(Stage::Read, work) => {
                let notes = counts && !work.has_noted();
                if notes && self.rules().has(Guard::NoteBeforeLook) {
                    add(Step::Note);
                } else {
                    add(Step::Look);
                }
            }
            Putter::At(Stage::Noted, _) => add(Step::Look),
            Putter::At(Stage::Looked, _) => add(Step::Peek),
            Putter::At(Stage::Ready, work) if counts && !work.has_noted() => add(Step::Note),
            Putter::At(Stage::Ready, _) => add(Step::Put),
        }
    }

    /// Carries out a step of a putter.
    pub(crate) fn putter_step(&self, state: &mut State, putter: usize, step: Step) {
        let kind = self.config.putters[putter];
        let work = match state.putters[putter] {
            Putter::At(_, work) => work,
            Putter::Idle | Putter::Done => Work::default(),
        };
        state.putters[putter] = match step {
            Step::Read => self.read(state, kind, work),
            Step::Note => self.note_put(state, kind, work),
            Step::Look => {
                let found = state.store.row.values[BUILD];
                Putter::At(Stage::Looked, Work { found, ..work })
            }
            Step::Peek => self.judge_put(state, kind, work),
            Step::Put => match kind {
                PutterKind::Set => self.set(state, work),
                PutterKind::SetOther => self.set_other(state),
                PutterKind::Add | PutterKind::Incr | PutterKind::Touch => {
                    self.compare_and_put(state, kind, work)
                }
            },
        };
    }

    /// Whether a `set` is under way: nobody has been told yet of what it changed.
    pub(crate) fn is_setting(&self, state: &State) -> bool {
        let mut putters = self.config.putters.iter().zip(&state.putters);
        putters.any(|(kind, putter)| *kind == PutterKind::Set && matches!(putter, Putter::At(..)))
    }

    fn read(&self, state: &State, kind: PutterKind, mut work: Work) -> Putter {
        work.read = state.store.row.values[BUILD];
        if kind == PutterKind::Touch && work.read.is_none() {
            return Putter::Done;
        }
        let first = kind == PutterKind::Add && work.tries == 0;
        if first && !self.rules().has(Guard::NoteBeforeLook) {
            work.version = state.database;
        }
        Putter::At(Stage::Read, work)
    }

    fn note_put(&self, state: &mut State, kind: PutterKind, mut work: Work) -> Putter {
        if kind == PutterKind::Set {
            work.version = change(state);
            state.history.unfenced |= 1 << work.version;
            if self.rules().has(Guard::NoteBeforePut) {
                work.noted = self.noted_now(state, PROCESS);
            }
            return Putter::At(Stage::Ready, work);
        }
        work.noted = self.noted_now(state, PROCESS);
        let first = self.rules().has(Guard::NoteBeforeLook);
        if first || kind == PutterKind::Incr {
            work.version = state.database;
        }
        let stage = if first { Stage::Noted } else { Stage::Ready };
        Putter::At(stage, work)
    }

    /// What was looked up, with the generation that stands.
    fn judge_put(&self, state: &State, kind: PutterKind, mut work: Work) -> Putter {
        let now = Noted {
            root: state.roots[PROCESS],
            rows: state.store.rows.generation,
        };
        let valid = |value: &Value| self.is_valid(value, now) && !value.aged;
        work.found = work.found.filter(valid);
        let seal = |value: Value| value.seal;
        let same = work.found.map(seal) == work.read.map(seal);
        match (kind, work.found) {
            (PutterKind::Add, Some(_)) => {
                self.saw(Sight::NotAdded);
                Putter::Done
            }
            (PutterKind::Touch, None) => Putter::Done,
            (PutterKind::Touch, Some(_)) if !same => self.try_again(kind, work),
            (PutterKind::Incr, Some(_)) if !same && self.rules().has(Guard::LookFindsTheSame) => {
                self.try_again(kind, work)
            }
            _ => Putter::At(Stage::Ready, work),
        }
    }

    fn set(&self, state: &mut State, mut work: Work) -> Putter {
        if work.version == 0 {
            work.version = change(state);
        }
        if !work.has_noted() {
            work.noted = self.noted_now(state, PROCESS);
        }
        if self.stands(work.noted) {
            let value = Value::loaded(work.version, fresh(state), work.noted);
            self.put(state, value, Over::Anything);
        } else {
            // What was there is not what is read any more, whatever becomes of the new.
            self.saw(Sight::PutFenced);
            state.store.row.settle(NOBODY, self.rules());
        }
        state.history.acknowledge(work.version);
        Putter::Done
    }

    fn set_other(&self, state: &mut State) -> Putter {
        let version = change(state);
        let value = Value::loaded(version, fresh(state), Noted::default());
        (state.store.rows).put(BUILD, value, Over::Anything, self.rules());
        state.history.acknowledge(version);
        Putter::Done
    }

    /// `add`, `incr` and `touch`: puts over what was read.
    fn compare_and_put(&self, state: &mut State, kind: PutterKind, work: Work) -> Putter {
        let conditional = match kind {
            PutterKind::Add => Guard::AddIsConditional,
            PutterKind::Incr => Guard::IncrIsConditional,
            _ => Guard::TouchIsConditional,
        };
        let over = match work.read {
            _ if !self.rules().has(conditional) => Over::Anything,
            Some(value) => Over::Seal(value.seal),
            None => Over::Nothing,
        };
        let value = match (kind, work.read) {
            (PutterKind::Touch, Some(value)) => {
                self.saw(Sight::Touched);
                value
            }
            _ if self.stands(work.noted) => work.sum(),
            _ => return self.fenced(state, kind, work),
        };
        let seal = fresh(state);
        if !self.put(state, Value { seal, ..value }, over) {
            return self.try_again(kind, work);
        }
        if kind != PutterKind::Touch && self.number(state) > 0 {
            state.history.tally += 1;
        }
        if work.found.is_some_and(|found| found.number > 0) && kind == PutterKind::Incr {
            self.saw(Sight::CountedOn);
        }
        Putter::Done
    }

    fn fenced(&self, state: &mut State, kind: PutterKind, work: Work) -> Putter {
        self.saw(Sight::PutFenced);
        if !self.rules().has(Guard::FencedTakesNothing) {
            state.store.row.settle(NOBODY, self.rules());
        }
        match kind {
            PutterKind::Incr => self.try_again(kind, work),
            _ => Putter::Done,
        }
    }

    fn put(&self, state: &mut State, value: Value, over: Over) -> bool {
        let row = &mut state.store.row;
        let stored = row.put(BUILD, value, over, self.rules());
        let now = Noted {
            root: state.roots[PROCESS],
            rows: state.store.rows.generation,
        };
        self.saw(match stored {
            true if self.is_valid(&value, now) => Sight::Put,
            true => Sight::PutStale,
            false => Sight::PutSuperseded,
        });
        stored
    }

    fn try_again(&self, kind: PutterKind, work: Work) -> Putter {
        let tries = work.tries + 1;
        if tries == TRIES {
            return Putter::Done;
        }
        let kept = match kind {
            // It is the same value as before.
            PutterKind::Add if self.rules().has(Guard::NoteBeforeLook) => work.noted,
            _ => Noted::default(),
        };
        let work = Work {
            tries,
            version: work.version,
            noted: kept,
            ..Work::default()
        };
        Putter::At(Stage::Again, work)
    }
}

impl Work {
    fn has_noted(&self) -> bool {
        self.noted.root.is_some()
    }

    /// What `add` and `incr` put; it has no seal yet.
    fn sum(&self) -> Value {
        let before = self.found.map_or(0, |found| found.number);
        let version = self.found.map_or(self.version, |found| found.version);
        Value {
            number: before + 1,
            ..Value::loaded(version, Token::NONE, self.noted)
        }
    }
}

/// Something changes of which no writer knows.
fn change(state: &mut State) -> u8 {
    state.database += 1;
    state.database
}
