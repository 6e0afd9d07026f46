//! The process: its tier, its readers, what it does with what it hears.

use super::state::{
    Answer, Held, Message, Outcome, Phase, Process, Request, State, Writing, Wrong,
};
use super::{Guard, Level, Tiered, TieredSight};
use crate::store::{Key, Value};
use crate::token::Token;

impl Tiered {
    /// A reader begins: it looks into the tier, and asks the server if that has no answer.
    pub(super) fn begin(&self, state: &mut State, reader: usize) {
        let level = self.config.readers[reader].level;
        state.readers[reader].floor = newest(state, |_| true);
        let looks = level == Level::Bounded || !self.has(Guard::LinearizableSkips);
        if let Some(version) = self.held(state).filter(|_| looks) {
            self.saw(TieredSight::TierHit);
            if version < state.database {
                self.saw(TieredSight::OldTierHit);
            }
            return self.finish_from_tier(state, reader, version);
        }
        if state.process.row.held.is_some() && !self.is_alive(state) {
            self.saw(TieredSight::Silent);
        }
        state.process.row.expect(reader);
        state.process.rows.expect(reader);
        state.readers[reader].phase = Phase::Asking(Request::Read);
    }

    /// What the tier answers.
    fn held(&self, state: &State) -> Option<u8> {
        let Process { row, rows, .. } = state.process;
        let held = row.held.filter(|_| self.is_alive(state))?;
        let stands = !self.config.generations || rows.held == Some(held.rows);
        stands.then_some(held.version)
    }

    /// Whether the last answered PING is young enough.
    fn is_alive(&self, state: &State) -> bool {
        state.now - state.process.heard < self.config.max_silence || !self.has(Guard::Ping)
    }

    /// The process handles the oldest message.
    pub(super) fn deliver(&self, state: &mut State) {
        match state.process.queue.pop() {
            Some(Message::ToReader(reader, answer)) => {
                let reader = usize::from(reader);
                state.readers[reader].phase = Phase::Told(answer);
                if !self.keeps(answer) {
                    self.go_on(state, reader);
                }
            }
            Some(Message::ToWriter(writer)) => {
                self.own_change(state, usize::from(writer));
                let phase = &mut state.writers[usize::from(writer)].phase;
                *phase = match *phase {
                    Writing::Fencing => Writing::Sent,
                    _ => Writing::Settled,
                };
            }
            Some(Message::Push(key)) => {
                self.saw(TieredSight::Pushed);
                self.forget(state, key);
            }
            Some(Message::Pong(sent)) => {
                state.process.heard = sent;
                state.process.ping = None;
            }
            None => {}
        }
    }

    fn forget(&self, state: &mut State, key: Key) {
        let row = state.process.row.placeholders;
        let rows = state.process.rows.placeholders;
        match key {
            Key::Row => state.process.row.clear(),
            Key::Rows => state.process.rows.clear(),
        }
        if !self.has(Guard::Placeholder) {
            state.process.row.placeholders = row;
            state.process.rows.placeholders = rows;
        }
    }

    /// A reader goes on with the answer that it has got.
    pub(super) fn go_on(&self, state: &mut State, reader: usize) {
        match state.readers[reader].phase {
            Phase::Told(Answer::LookedUp(value, rows)) => match value {
                Some(value) if self.is_valid(&value, rows) => self.keep(state, reader, &value),
                Some(value) => self.ask_for_a_lease(state, reader, value.seal),
                None => self.ask_for_a_lease(state, reader, Token::NONE),
            },
            Phase::Told(Answer::Acquired(noted, outcome)) => match outcome {
                Outcome::Granted(lease) => {
                    state.readers[reader].phase = Phase::Granted(lease, noted);
                }
                Outcome::Value(value) if self.is_valid(&value, noted.rows) => {
                    self.keep(state, reader, &value);
                }
                Outcome::Value(_) | Outcome::Refused => {
                    state.readers[reader].phase = Phase::Direct;
                }
            },
            Phase::Told(Answer::Filled(value, stored)) if stored => {
                self.keep(state, reader, &value);
            }
            Phase::Told(Answer::Filled(value, _)) => self.finish(state, reader, value.version),
            Phase::Granted(lease, noted) => {
                let value = Value::loaded(state.database, lease, noted);
                let stands = !self.config.generations || noted.rows.is_some();
                // Where it may not be stored, its lease is left to expire.
                if stands {
                    state.readers[reader].phase = Phase::Asking(Request::Fill(value));
                } else {
                    self.finish(state, reader, value.version);
                }
            }
            Phase::Direct => self.finish(state, reader, state.database),
            _ => {}
        }
    }

    /// Whether an answer goes to the tier. Only then it matters when its reader goes on.
    fn keeps(&self, answer: Answer) -> bool {
        match answer {
            Answer::LookedUp(Some(value), rows) => self.is_valid(&value, rows),
            Answer::Acquired(noted, Outcome::Value(value)) => self.is_valid(&value, noted.rows),
            Answer::Filled(_, stored) => stored,
            _ => false,
        }
    }

    fn ask_for_a_lease(&self, state: &mut State, reader: usize, seen: Token) {
        state.readers[reader].phase = Phase::Asking(Request::Note(seen));
    }

    fn is_valid(&self, value: &Value, rows: Token) -> bool {
        !self.config.generations || rows.is_some() && value.noted.rows == rows
    }

    /// Puts a value into the tier, where the placeholders still stand, and returns it.
    fn keep(&self, state: &mut State, reader: usize, value: &Value) {
        let Process { row, rows, .. } = &mut state.process;
        let takes = row.takes(reader) && (rows.takes(reader) || !self.config.generations);
        self.saw(if takes {
            TieredSight::Kept
        } else {
            TieredSight::NotKept
        });
        if row.takes(reader) {
            row.held = Some(Held {
                version: value.version,
                rows: value.noted.rows,
            });
        }
        if rows.takes(reader) && self.config.generations {
            rows.held = Some(value.noted.rows);
        }
        self.finish(state, reader, value.version);
    }

    /// A read that asked the server or the database ends.
    fn finish(&self, state: &mut State, reader: usize, version: u8) {
        if version < state.readers[reader].floor {
            state.wrong = Some(Wrong::Stale);
        }
        self.end(state, reader);
    }

    /// A read ends that the tier has answered.
    fn finish_from_tier(&self, state: &mut State, reader: usize, version: u8) {
        let limit = state.now.checked_sub(self.config.max_silence);
        let bound = newest(state, |at| limit.is_some_and(|limit| at <= limit));
        if version < bound {
            state.wrong = Some(Wrong::TooOld);
        }
        match self.config.readers[reader].level {
            Level::Bounded => self.end(state, reader),
            Level::Linearizable => self.finish(state, reader, version),
        }
    }

    fn end(&self, state: &mut State, reader: usize) {
        state.process.row.placeholders &= !(1 << reader);
        state.process.rows.placeholders &= !(1 << reader);
        let this = &mut state.readers[reader];
        this.reads += 1;
        this.floor = 0;
        this.phase = if this.reads < self.config.readers[reader].reads {
            Phase::Idle
        } else {
            Phase::Done
        };
    }

    /// What a writer of this process had the server do was done, or will not be answered. Of such a
    /// change the server does not tell, and the key is tracked no more.
    fn own_change(&self, state: &mut State, writer: usize) {
        if self.has(Guard::OwnWrites) {
            self.forget(state, self.config.writers[writer].key);
        }
    }

    /// A write's call returns.
    pub(super) fn acknowledge(&self, state: &mut State, writer: usize) {
        let this = &mut state.writers[writer];
        this.phase = Writing::Done;
        let version = std::mem::take(&mut this.version);
        state.acknowledged[usize::from(version)] = Some(state.now);
    }

    /// The process finds out that its connection is gone: so is all that it kept. It connects anew.
    pub(super) fn lose_connection(&self, state: &mut State) {
        state.losses += 1;
        let heard = state.process.heard;
        let (row, rows) = (state.process.row, state.process.rows);
        state.process = Process {
            heard,
            ..Process::default()
        };
        if !self.has(Guard::LossEmpties) {
            (state.process.row, state.process.rows) = (row, rows);
        }
        state.server.tracked = [false; 2];
        state.server.closed = false;
        for reader in &mut state.readers {
            if matches!(reader.phase, Phase::Asking(_) | Phase::Answered) {
                reader.phase = Phase::Direct;
            }
        }
        for writer in 0..self.config.writers.len() {
            if matches!(
                state.writers[writer].phase,
                Writing::Fencing | Writing::Settling
            ) {
                self.own_change(state, writer);
            }
        }
        for writer in &mut state.writers {
            writer.phase = match writer.phase {
                // Its fence was planted, and it sends the statement nevertheless.
                Writing::Fencing => Writing::Sent,
                // It was settled, and will be once more, from the journal.
                Writing::Settling => Writing::Settled,
                other => other,
            };
        }
    }
}

/// The newest version that was acknowledged at a time such as that.
fn newest(state: &State, at: impl Fn(u8) -> bool) -> u8 {
    let versions = state.acknowledged.iter().enumerate();
    let counts =
        |(version, time): (usize, &Option<u8>)| time.is_some_and(&at).then_some(version as u8);
    versions.filter_map(counts).max().unwrap_or(0)
}
