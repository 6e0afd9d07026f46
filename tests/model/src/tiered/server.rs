//! The store's server: operations, tracking, and what it sends.

use super::Tiered;
use super::state::{Answer, Message, Outcome, Phase, Request, Server, State, Writing};
use crate::store::{Acquired, Entry, Key, Noted, Rules, Stale, Value};
use crate::token::{Token, fresh};

/// No guard of the store is missing here.
const RULES: Rules = Rules(None);

/// The root never changes here.
const ROOT: Token = Token::NONE;

/// Who runs an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// The connection that has its keys tracked, without a message for its own changes.
    Process,
    /// Somebody else.
    Other,
}

impl Tiered {
    /// The server carries out the next operation of a reader's request.
    pub(super) fn serve(&self, state: &mut State, reader: usize) {
        let Phase::Asking(request) = state.readers[reader].phase else {
            return;
        };
        match request {
            Request::Read => {
                let value = state.server.row.values[0];
                state.server.track(Key::Row);
                if self.config.generations {
                    state.readers[reader].phase = Phase::Asking(Request::Peek(value));
                } else {
                    answer(state, reader, Answer::LookedUp(value, Token::NONE));
                }
            }
            Request::Peek(value) => {
                state.server.track(Key::Rows);
                let rows = state.server.rows.generation;
                answer(state, reader, Answer::LookedUp(value, rows));
            }
            Request::Note(seen) => self.note(state, reader, seen),
            Request::Acquire(seen, noted) => acquire(state, reader, seen, noted),
            Request::Fill(value) => fill(state, reader, value),
        }
    }

    fn note(&self, state: &mut State, reader: usize, seen: Token) {
        let mut rows = Token::NONE;
        if self.config.generations {
            let name = fresh(state);
            change(state, Key::Rows, By::Process, |entry| {
                rows = entry.generation(name);
            });
            state.server.track(Key::Rows);
        }
        let noted = Noted { root: ROOT, rows };
        state.readers[reader].phase = Phase::Asking(Request::Acquire(seen, noted));
    }

    /// The server carries out a writer's request.
    pub(super) fn serve_writer(&self, state: &mut State, writer: usize) {
        let kind = self.config.writers[writer];
        let by = if kind.own { By::Process } else { By::Other };
        let phase = state.writers[writer].phase;
        change(state, kind.key, by, |entry| match phase {
            Writing::Idle => entry.fence(writer, RULES),
            _ => entry.settle(writer, RULES),
        });
        if kind.own {
            state.process.queue.push(Message::ToWriter(writer as u8));
        }
        state.writers[writer].phase = match (phase, kind.own) {
            (Writing::Idle, true) => Writing::Fencing,
            (Writing::Idle, false) => Writing::Sent,
            (_, true) => Writing::Settling,
            (_, false) => Writing::Settled,
        };
    }

    /// A key that carries no fence is evicted, or expires.
    pub(super) fn evict(&self, state: &mut State, key: Key) {
        state.evictions += 1;
        change(state, key, By::Other, |entry| *entry = Entry::default());
    }
}

impl Server {
    fn track(&mut self, key: Key) {
        self.tracked[key as usize] = true;
    }
}

fn answer(state: &mut State, reader: usize, answer: Answer) {
    let message = Message::ToReader(reader as u8, answer);
    state.process.queue.push(message);
    state.readers[reader].phase = Phase::Answered;
}

/// Changes an entry. Who has it tracked hears of it once, unless the change is his own.
fn change(state: &mut State, key: Key, by: By, operation: impl FnOnce(&mut Entry)) {
    let before = *state.server.entry(key);
    operation(state.server.entry(key));
    if *state.server.entry(key) == before {
        return;
    }
    let tracked = std::mem::take(&mut state.server.tracked[key as usize]);
    if tracked && by == By::Other && !state.server.closed {
        state.process.queue.push(Message::Push(key));
    }
}

fn acquire(state: &mut State, reader: usize, seen: Token, noted: Noted) {
    let lease = fresh(state);
    let mut acquired = Acquired::Fenced;
    change(state, Key::Row, By::Process, |entry| {
        acquired = entry.acquire(0, lease, Stale::Outdated(seen), false, RULES);
    });
    if acquired != Acquired::Granted {
        state.server.track(Key::Row);
    }
    let outcome = Outcome::from(acquired, lease);
    answer(state, reader, Answer::Acquired(noted, outcome));
}

fn fill(state: &mut State, reader: usize, value: Value) {
    let mut stored = false;
    change(state, Key::Row, By::Process, |entry| {
        stored = entry.fill(0, value, RULES);
    });
    if stored {
        state.server.track(Key::Row);
    }
    answer(state, reader, Answer::Filled(value, stored));
}
