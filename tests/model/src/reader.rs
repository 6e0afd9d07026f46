//! A read: what `src/fill.rs` does for one key, one request to the store after another.

use crate::guard::Guard;
use crate::model::Protocol;
use crate::seen::Sight;
use crate::state::State;
use crate::store::{Acquired, Noted, Stale, Value};
use crate::token::{Token, Tokens, fresh};

/// One reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reader {
    /// How far its read has come.
    pub phase: Phase,
    /// What the read must return at least.
    pub floor: u8,
    /// How often it has asked again.
    pub polls: u8,
    /// How many reads it has finished.
    pub reads: u8,
}

/// How far a read has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Not begun.
    #[default]
    Idle,
    /// The first request: the value is read, the generation is not looked at yet.
    LookedUp(Option<Value>),
    /// To ask for a lease. What it knows of a value that does not answer.
    Missed(Stale),
    /// The second request: the generation is noted, the lease is not asked for yet.
    Noting(Stale, Noted),
    /// Somebody else is loading under this lease.
    Waiting(Token, Noted, Stale),
    /// Holds this lease: to load and fill. The version that it may answer if its load fails.
    Granted(Token, Noted, Option<u8>),
    /// Its load failed, or that of another: looked the value up once more, the generation is not looked at
    /// yet. Its own lease, if it has one.
    Failed(Token, Noted, Option<Value>),
    /// To load and not to fill.
    Direct,
    /// Has loaded this version under this lease: to fill, the third request.
    Loaded(Token, Noted, u8),
    /// Ended.
    Done,
}

impl Tokens for Reader {
    fn tokens(&mut self, visit: &mut impl FnMut(&mut Token)) {
        match &mut self.phase {
            Phase::Idle | Phase::Direct | Phase::Done => {}
            Phase::LookedUp(value) => value.tokens(visit),
            Phase::Missed(seen) => seen.tokens(visit),
            Phase::Noting(seen, noted) => {
                seen.tokens(visit);
                noted.tokens(visit);
            }
            Phase::Waiting(lease, noted, seen) => {
                lease.tokens(visit);
                noted.tokens(visit);
                seen.tokens(visit);
            }
            Phase::Granted(lease, noted, _) | Phase::Loaded(lease, noted, _) => {
                lease.tokens(visit);
                noted.tokens(visit);
            }
            Phase::Failed(lease, noted, value) => {
                lease.tokens(visit);
                noted.tokens(visit);
                value.tokens(visit);
            }
        }
    }
}

/// A step of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Begins, and looks the value up.
    Read,
    /// Looks the generation up.
    Peek,
    /// Answers with what has aged, and goes on for those who come later.
    Spawn,
    /// Notes the generation.
    Note,
    /// Asks for a lease.
    Acquire,
    /// Asks for a lease after the deadline of the one that stands.
    TakeOver,
    /// Asks again.
    Poll,
    /// Waits no longer.
    GiveUp,
    /// Answers with what has aged while another one loads.
    Revalidate,
    /// A load failed or takes long: looks up once more what has aged.
    Fail,
    /// Queries the database. Those who joined have their answer, too.
    Load,
    /// Fills, or gives the lease back.
    Fill,
    /// Gives its lease back and ends: cancelled, or the query failed.
    Cancel,
    /// Dies with its lease.
    Crash,
}

impl Reader {
    /// Grows with every step.
    pub fn progress(&self, most_polls: u8) -> u32 {
        let phase = match self.phase {
            Phase::Idle => 0,
            Phase::LookedUp(_) => 1,
            Phase::Missed(Stale::Aged(_, Some(_))) => 2,
            Phase::Missed(_) => 3,
            Phase::Noting(..) => 4,
            Phase::Waiting(..) => 5,
            Phase::Granted(_, _, Some(_)) => 6,
            Phase::Failed(..) => 7,
            Phase::Granted(..) => 8,
            Phase::Direct | Phase::Loaded(..) => 9,
            Phase::Done => 10,
        };
        let round = u32::from(most_polls) * 16 + 16;
        match self.phase {
            Phase::Done => u32::from(self.reads).max(1) * round,
            _ => u32::from(self.reads) * round + u32::from(self.polls) * 16 + phase,
        }
    }
}

impl Protocol {
    /// What a reader can do.
    pub(crate) fn reader_steps(&self, state: &State, reader: usize, add: &mut impl FnMut(Step)) {
        let Reader { phase, polls, .. } = state.readers[reader];
        let connected = state.roots[self.process(reader)].is_some();
        match phase {
            Phase::Idle if connected => add(Step::Read),
            Phase::LookedUp(_) | Phase::Failed(..) if connected => add(Step::Peek),
            Phase::Missed(seen) if connected && self.config.generations => {
                add(Step::Note);
                if seen.spare().is_some() {
                    add(Step::Spawn);
                }
            }
            Phase::Missed(seen) | Phase::Noting(seen, _) if connected => {
                add(Step::Acquire);
                if state.store.row.has_lease(self.build(reader), seen) {
                    add(Step::TakeOver);
                }
            }
            Phase::Waiting(_, _, seen) => {
                if seen.spare().is_some() {
                    add(Step::Revalidate);
                    add(Step::Fail);
                }
                if polls < self.config.polls {
                    add(Step::Poll);
                }
                if self.rules().has(Guard::WaitIsBounded) {
                    add(Step::GiveUp);
                }
            }
            Phase::Granted(_, _, spare) => {
                add(Step::Load);
                if spare.is_some() {
                    add(Step::Fail);
                }
                self.lease_losses(state, add);
            }
            Phase::Direct => add(Step::Load),
            Phase::Loaded(..) if connected => {
                add(Step::Fill);
                self.lease_losses(state, add);
            }
            _ => {}
        }
    }

    fn lease_losses(&self, state: &State, add: &mut impl FnMut(Step)) {
        if state.used.reader_crashes < self.config.reader_crashes {
            add(Step::Cancel);
            add(Step::Crash);
        }
    }

    /// Carries out a step of a reader.
    pub(crate) fn reader_step(&self, state: &mut State, reader: usize, step: Step) {
        match step {
            Step::Read => self.look_up(state, reader),
            Step::Peek => self.peek(state, reader),
            Step::Note => self.note(state, reader),
            Step::Acquire => self.acquire(state, reader, false),
            Step::TakeOver => self.acquire(state, reader, true),
            Step::Spawn => self.spawn(state, reader),
            Step::Poll => self.poll(state, reader),
            Step::Revalidate => self.revalidate(state, reader),
            Step::Fail => self.fail(state, reader),
            Step::GiveUp => {
                self.saw(Sight::GaveUp);
                state.readers[reader].phase = Phase::Direct;
            }
            Step::Load => self.load(state, reader),
            Step::Fill => self.fill(state, reader),
            Step::Cancel => self.cancel(state, reader),
            Step::Crash => {
                state.used.reader_crashes += 1;
                self.end(state, reader);
            }
        }
    }

    fn look_up(&self, state: &mut State, reader: usize) {
        let process = self.process(reader);
        let value = state.store.row.values[self.build(reader)];
        state.readers[reader].floor = state.history.floor(process);
        if state.journals[process] && self.rules().has(Guard::Bypass) {
            self.saw(Sight::Bypassed);
            state.readers[reader].phase = Phase::Direct;
            return;
        }
        if state.store.row.values.iter().all(Option::is_some) {
            self.saw(Sight::TwoBuilds);
        }
        if self.config.generations {
            state.readers[reader].phase = Phase::LookedUp(value);
        } else {
            self.judge(state, reader, value, Token::NONE);
        }
    }

    fn peek(&self, state: &mut State, reader: usize) {
        let rows = state.store.rows.generation;
        match state.readers[reader].phase {
            Phase::LookedUp(value) => self.judge(state, reader, value, rows),
            Phase::Failed(lease, noted, value) => {
                self.rescue(state, reader, (lease, noted), value, rows);
            }
            _ => {}
        }
    }

    /// A value that was looked up, with the generation that stands.
    fn judge(&self, state: &mut State, reader: usize, value: Option<Value>, rows: Token) {
        let root = state.roots[self.process(reader)];
        match value {
            Some(value) if value.aged && self.is_spare(&value, Noted { root, rows }) => {
                self.saw(Sight::Aged);
                let stale = Stale::Aged(value.seal, Some(value.version));
                state.readers[reader].phase = Phase::Missed(stale);
            }
            Some(value) if self.is_valid(&value, Noted { root, rows }) => {
                self.saw(Sight::Hit);
                self.finish(state, reader, value.version);
            }
            Some(value) => {
                self.note_refusal(state, &value, root);
                state.readers[reader].phase = Phase::Missed(Stale::Outdated(value.seal));
            }
            None => state.readers[reader].phase = Phase::Missed(Stale::NOTHING),
        }
    }

    fn note_refusal(&self, state: &State, value: &Value, root: Token) {
        if value.noted.root == root {
            return self.saw(Sight::Outdated);
        }
        self.saw(Sight::ForeignRoot);
        if value.version < state.history.acknowledged {
            self.saw(Sight::OldSnapshotRefused);
        }
    }

    /// Whether a value may be used by who finds this root and generation.
    pub(crate) fn is_valid(&self, value: &Value, now: Noted) -> bool {
        value.noted.root == now.root && self.stands(now) && value.noted.rows == now.rows
    }

    /// Whether a value that has aged may be used.
    fn is_spare(&self, value: &Value, now: Noted) -> bool {
        self.is_valid(value, now) || !self.rules().has(Guard::AgedIsJudged)
    }

    /// Whether everything that a value needs stands.
    pub(crate) fn stands(&self, noted: Noted) -> bool {
        noted.rows.is_some() || !self.config.generations
    }

    /// What is noted in a process, now.
    pub(crate) fn noted_now(&self, state: &mut State, process: usize) -> Noted {
        let root = state.roots[process];
        let rows = if self.config.generations {
            let fresh = fresh(state);
            state.store.rows.generation(fresh)
        } else {
            Token::NONE
        };
        Noted { root, rows }
    }

    fn note(&self, state: &mut State, reader: usize) {
        let Phase::Missed(seen) = state.readers[reader].phase else {
            return;
        };
        let noted = self.noted_now(state, self.process(reader));
        state.readers[reader].phase = Phase::Noting(seen, noted);
    }

    fn acquire(&self, state: &mut State, reader: usize, late: bool) {
        let (seen, noted) = match state.readers[reader].phase {
            Phase::Noting(seen, noted) => (seen, noted),
            Phase::Missed(seen) => (seen, self.noted_now(state, self.process(reader))),
            _ => return,
        };
        let lease = fresh(state);
        let stood = matches!(seen, Stale::Aged(..)) && self.has_valid(state, reader);
        let build = self.build(reader);
        let acquired = (state.store.row).acquire(build, lease, seen, late, self.rules());
        state.history.wasted |= stood && !self.has_valid(state, reader);
        let phase = match acquired {
            Acquired::Value(value) if value.aged && self.is_spare(&value, noted) => {
                let stale = Stale::Aged(value.seal, Some(value.version));
                return self.ask_again(state, reader, stale);
            }
            Acquired::Value(value) if self.is_valid(&value, noted) => {
                self.saw(Sight::Coalesced);
                return self.finish(state, reader, value.version);
            }
            Acquired::Value(value) => {
                return self.ask_again(state, reader, Stale::Outdated(value.seal));
            }
            Acquired::Busy(other) if self.stands(noted) => {
                let known = Some(seen).filter(|seen| seen.spare().is_some());
                let known = known.unwrap_or(Stale::NOTHING);
                state.readers[reader].phase = Phase::Waiting(other, noted, known);
                return self.find_flight(state, reader);
            }
            Acquired::Busy(_) | Acquired::Fenced => {
                self.saw(Sight::Fenced);
                Phase::Direct
            }
            Acquired::Granted => Phase::Granted(lease, noted, seen.spare()),
        };
        if late {
            self.saw(Sight::TakenOver);
        }
        state.readers[reader].phase = phase;
    }

    /// Whether there is a value that a reader accepts.
    fn has_valid(&self, state: &State, reader: usize) -> bool {
        let now = Noted {
            root: state.roots[self.process(reader)],
            rows: state.store.rows.generation,
        };
        let value = state.store.row.values[self.build(reader)];
        value.is_some_and(|value| self.is_valid(&value, now))
    }

    fn poll(&self, state: &mut State, reader: usize) {
        if let Phase::Waiting(_, _, seen) = state.readers[reader].phase {
            self.ask_again(state, reader, seen);
        }
    }

    /// Asks for a lease once more, or gives up.
    fn ask_again(&self, state: &mut State, reader: usize, seen: Stale) {
        let this = &mut state.readers[reader];
        if this.polls < self.config.polls {
            this.polls += 1;
            this.phase = Phase::Missed(seen);
        } else {
            this.phase = Phase::Direct;
        }
    }

    /// If the flight has landed already, its answer is there.
    fn find_flight(&self, state: &mut State, reader: usize) {
        for leader in 0..self.config.readers.len() {
            if let Phase::Loaded(lease, noted, version) = state.readers[leader].phase {
                self.land(state, reader, leader, (lease, noted, version));
            }
        }
    }

    /// A flight has landed: its answer goes to a reader of the same process that waits for it.
    fn land(
        &self,
        state: &mut State,
        reader: usize,
        leader: usize,
        (lease, noted, version): (Token, Noted, u8),
    ) {
        let Phase::Waiting(awaited, own, seen) = state.readers[reader].phase else {
            return;
        };
        if awaited != lease || self.process(reader) != self.process(leader) {
            return;
        }
        if noted == own || !self.rules().has(Guard::FlightComparesGenerations) {
            self.saw(Sight::Joined);
            self.finish(state, reader, version);
        } else {
            self.saw(Sight::NotJoined);
            self.ask_again(state, reader, seen);
        }
    }

    /// Whoever asked is answered. What goes on without him is a read of its own, which has nothing to answer
    /// until it has loaded.
    fn spawn(&self, state: &mut State, reader: usize) {
        let this = state.readers[reader];
        if let Phase::Missed(Stale::Aged(seal, Some(spare))) = this.phase {
            self.saw(Sight::Spawned);
            state.history.finished(this.floor, spare);
            state.readers[reader].phase = Phase::Missed(Stale::Aged(seal, None));
            state.readers[reader].floor = state.history.floor(self.process(reader));
        }
    }

    fn revalidate(&self, state: &mut State, reader: usize) {
        if let Phase::Waiting(_, _, Stale::Aged(_, Some(spare))) = state.readers[reader].phase {
            self.saw(Sight::Revalidated);
            self.finish(state, reader, spare);
        }
    }

    /// What it answers now must be as fresh as that of a read that begins now: its load may have taken long.
    fn fail(&self, state: &mut State, reader: usize) {
        let (lease, noted, spare) = match state.readers[reader].phase {
            Phase::Granted(lease, noted, spare) => (lease, noted, spare),
            Phase::Waiting(_, noted, seen) => (Token::NONE, noted, seen.spare()),
            _ => return,
        };
        let value = state.store.row.values[self.build(reader)];
        state.readers[reader].floor = state.history.floor(self.process(reader));
        match spare {
            Some(spare) if !self.rules().has(Guard::RescueLooksAgain) => {
                self.finish(state, reader, spare);
            }
            _ => state.readers[reader].phase = Phase::Failed(lease, noted, value),
        }
    }

    /// Answers with what was looked up once more, if it is valid. Else it goes on.
    fn rescue(
        &self,
        state: &mut State,
        reader: usize,
        (lease, noted): (Token, Noted),
        value: Option<Value>,
        rows: Token,
    ) {
        let root = state.roots[self.process(reader)];
        let value = value.filter(|value| self.is_valid(value, Noted { root, rows }));
        match value {
            Some(value) => {
                self.saw(Sight::Rescued);
                state.store.row.release(self.build(reader), lease);
                self.finish(state, reader, value.version);
            }
            None if lease.is_some() => {
                self.saw(Sight::NotRescued);
                state.readers[reader].phase = Phase::Granted(lease, noted, None);
            }
            None => self.ask_again(state, reader, Stale::NOTHING),
        }
    }

    fn load(&self, state: &mut State, reader: usize) {
        let version = state.database;
        let Phase::Granted(lease, noted, _) = state.readers[reader].phase else {
            return self.finish(state, reader, version);
        };
        state.readers[reader].phase = Phase::Loaded(lease, noted, version);
        for other in 0..self.config.readers.len() {
            self.land(state, other, reader, (lease, noted, version));
        }
    }

    fn fill(&self, state: &mut State, reader: usize) {
        let Phase::Loaded(lease, mut noted, version) = state.readers[reader].phase else {
            return;
        };
        if !self.rules().has(Guard::NoteBeforeLoad) {
            noted = self.noted_now(state, self.process(reader));
        }
        let build = self.build(reader);
        if self.stands(noted) {
            let aged = state.store.row.values[build].is_some_and(|value| value.aged);
            let value = Value::loaded(version, lease, noted);
            let stored = state.store.row.fill(build, value, self.rules());
            if stored && aged {
                self.saw(Sight::Refreshed);
            }
            self.saw(if stored {
                Sight::Stored
            } else {
                Sight::Superseded
            });
        } else {
            self.saw(Sight::Unstorable);
            state.store.row.release(build, lease);
        }
        self.finish(state, reader, version);
    }

    fn cancel(&self, state: &mut State, reader: usize) {
        if let Phase::Granted(lease, ..) | Phase::Loaded(lease, ..) = state.readers[reader].phase {
            state.store.row.release(self.build(reader), lease);
        }
        state.used.reader_crashes += 1;
        self.end(state, reader);
    }

    /// The server of the store went away in the middle of a request: load, and do not fill.
    pub(crate) fn cut_off(&self, state: &mut State, reader: usize) {
        if let Phase::LookedUp(_) | Phase::Noting(..) = state.readers[reader].phase {
            state.readers[reader].phase = Phase::Direct;
        }
    }

    fn finish(&self, state: &mut State, reader: usize, version: u8) {
        state.history.finished(state.readers[reader].floor, version);
        self.end(state, reader);
    }

    fn end(&self, state: &mut State, reader: usize) {
        let reads = state.readers[reader].reads + 1;
        let phase = if reads < self.config.reads {
            Phase::Idle
        } else {
            Phase::Done
        };
        state.readers[reader] = Reader {
            phase,
            reads,
            ..Reader::default()
        };
    }
}
