//! What the tiered model remembers between two steps.

use crate::store::{Acquired, Entry, Key, Noted, Value};
use crate::token::{Token, Tokens};

/// How many readers there are at most.
pub const READERS: usize = 3;
/// How many writers there are at most.
pub const WRITERS: usize = 2;
/// How many versions there are at most, the first included.
const VERSIONS: usize = WRITERS + 1;
/// How many messages are under way at most.
const MESSAGES: usize = 10;

/// A state of the whole system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The server's side.
    pub server: Server,
    /// The process that has an in-process tier.
    pub process: Process,
    /// The newest version of the row in the database.
    pub database: u8,
    /// The readers, all of that process.
    pub readers: [Reader; READERS],
    /// The writers.
    pub writers: [Writer; WRITERS],
    /// The time.
    pub now: u8,
    /// When the write of each version was acknowledged; `None` if it was not.
    pub acknowledged: [Option<u8>; VERSIONS],
    /// Evictions so far.
    pub evictions: u8,
    /// Connections that were lost.
    pub losses: u8,
    /// What a read found that it should not have.
    pub wrong: Option<Wrong>,
}

/// What must not happen to a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// A bounded read was older than its bound.
    TooOld,
    /// A linearizable read was older than what was acknowledged when it began.
    Stale,
}

/// The store's server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Server {
    /// The row.
    pub row: Entry,
    /// The generation on which all rows depend.
    pub rows: Entry,
    /// Whether it tracks the keys for the process's connection.
    pub tracked: [bool; 2],
    /// Whether it has closed the connection, which the process may not know yet.
    pub closed: bool,
}

impl Server {
    /// The entry under a key.
    pub fn entry(&mut self, key: Key) -> &mut Entry {
        match key {
            Key::Row => &mut self.row,
            Key::Rows => &mut self.rows,
        }
    }
}

/// The process: its tier, and what is on its way to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Process {
    /// The row, and the generation that it needs.
    pub row: Slot<Held>,
    /// The generation that stands.
    pub rows: Slot<Token>,
    /// When the last PING was sent that was answered.
    pub heard: u8,
    /// When the PING was sent that is under way.
    pub ping: Option<u8>,
    /// What the server has sent, oldest first.
    pub queue: Queue,
}

/// A row in the tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Held {
    /// Which version it is.
    pub version: u8,
    /// The generation that it needs.
    pub rows: Token,
}

/// A place of the tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slot<T> {
    /// What is there.
    pub held: Option<T>,
    /// A bit for each reader whose placeholder stands: it may fill.
    pub placeholders: u8,
}

impl<T> Slot<T> {
    /// Something has changed: what is here goes, and what is being fetched must not come.
    pub fn clear(&mut self) {
        self.held = None;
        self.placeholders = 0;
    }

    /// A reader is going to fetch it.
    pub fn expect(&mut self, reader: usize) {
        self.placeholders |= 1 << reader;
    }

    /// Whether a reader may put here what it has fetched.
    pub fn takes(&self, reader: usize) -> bool {
        self.placeholders & 1 << reader != 0
    }
}

/// What is on its way from the server to the process, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Queue([Option<Message>; MESSAGES]);

/// Something that the server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// The answer to a reader's request.
    ToReader(u8, Answer),
    /// The answer to a writer's request.
    ToWriter(u8),
    /// A tracked key was changed.
    Push(Key),
    /// The answer to the PING that was sent then.
    Pong(u8),
}

impl Queue {
    /// Appends a message.
    ///
    /// # Panics
    /// When more messages are under way than the model has room for.
    pub fn push(&mut self, message: Message) {
        let free = self.0.iter_mut().find(|place| place.is_none());
        *free.expect("room for another message") = Some(message);
    }

    /// Takes the oldest.
    pub fn pop(&mut self) -> Option<Message> {
        let first = self.0[0].take();
        self.0.rotate_left(1);
        first
    }

    /// Whether the answer to the PING is under way.
    pub fn has_pong(&self) -> bool {
        let is_pong = |message: &Message| matches!(message, Message::Pong(_));
        self.0.iter().flatten().any(is_pong)
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.0[0].is_none()
    }
}

/// A reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reader {
    /// How far its read has come.
    pub phase: Phase,
    /// What was acknowledged when it began.
    pub floor: u8,
    /// How many reads it has finished.
    pub reads: u8,
}

/// How far a read has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not begun.
    #[default]
    Idle,
    /// Waits for the server.
    Asking(Request),
    /// The server's answer is on its way.
    Answered,
    /// The answer is here.
    Told(Answer),
    /// Holds this lease: to load and fill.
    Granted(Token, Noted),
    /// To load and not to fill.
    Direct,
    /// Ended.
    Done,
}

/// What a reader asks of the server. Each operation is a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Read the value.
    Read,
    /// Peek at the generation, with the value that was read.
    Peek(Option<Value>),
    /// Note the generation, with the seal of the value seen.
    Note(Token),
    /// Acquire a lease, with what was noted.
    Acquire(Token, Noted),
    /// Fill.
    Fill(Value),
}

/// What the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// To the first request: the value, and the generation.
    LookedUp(Option<Value>, Token),
    /// To the second: what was noted; the lease, if it was granted.
    Acquired(Noted, Outcome),
    /// To the third: what was offered, and whether it was stored.
    Filled(Value, bool),
}

/// What came of asking for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The lease.
    Granted(Token),
    /// There is a value.
    Value(Value),
    /// Neither.
    Refused,
}

impl Outcome {
    /// From what the store says; waiting is left out.
    pub fn from(acquired: Acquired, lease: Token) -> Self {
        match acquired {
            Acquired::Granted => Self::Granted(lease),
            Acquired::Value(value) => Self::Value(value),
            Acquired::Busy(_) | Acquired::Fenced => Self::Refused,
        }
    }
}

/// A writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Writer {
    /// How far its write has come.
    pub phase: Writing,
    /// The version that it committed; 0 if none yet.
    pub version: u8,
}

/// How far a write has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Writing {
    /// Not begun.
    #[default]
    Idle,
    /// The fence was planted, the answer is on its way.
    Fencing,
    /// The statement is under way.
    Sent,
    /// Committed.
    Committed,
    /// Settled, the answer is on its way.
    Settling,
    /// The answer is here.
    Settled,
    /// The call has returned.
    Done,
}

impl Tokens for State {
    fn tokens(&mut self, visit: &mut impl FnMut(&mut Token)) {
        self.server.rows.tokens(visit);
        self.server.row.tokens(visit);
        self.process.rows.held.tokens(visit);
        if let Some(held) = &mut self.process.row.held {
            held.rows.tokens(visit);
        }
        for message in self.process.queue.0.iter_mut().flatten() {
            if let Message::ToReader(_, answer) = message {
                answer.tokens(visit);
            }
        }
        for reader in &mut self.readers {
            reader.phase.tokens(visit);
        }
    }
}

impl Tokens for Phase {
    fn tokens(&mut self, visit: &mut impl FnMut(&mut Token)) {
        match self {
            Self::Asking(request) => request.tokens(visit),
            Self::Told(answer) => answer.tokens(visit),
            Self::Granted(lease, noted) => {
                lease.tokens(visit);
                noted.tokens(visit);
            }
            Self::Idle | Self::Answered | Self::Direct | Self::Done => {}
        }
    }
}

impl Tokens for Request {
    fn tokens(&mut self, visit: &mut impl FnMut(&mut Token)) {
        match self {
            Self::Read => {}
            Self::Peek(value) => value.tokens(visit),
            Self::Note(seen) => seen.tokens(visit),
            Self::Acquire(seen, noted) => {
                seen.tokens(visit);
                noted.tokens(visit);
            }
            Self::Fill(value) => value.tokens(visit),
        }
    }
}

impl Tokens for Answer {
    fn tokens(&mut self, visit: &mut impl FnMut(&mut Token)) {
        match self {
            Self::LookedUp(value, rows) => {
                value.tokens(visit);
                rows.tokens(visit);
            }
            Self::Acquired(noted, outcome) => {
                noted.tokens(visit);
                match outcome {
                    Outcome::Granted(lease) => lease.tokens(visit),
                    Outcome::Value(value) => value.tokens(visit),
                    Outcome::Refused => {}
                }
            }
            Self::Filled(value, _) => value.tokens(visit),
        }
    }
}
