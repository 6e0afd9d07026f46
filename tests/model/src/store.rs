//! The store: what the operations of `src/store/memory/entry.rs` and of the Redis scripts do.

use crate::guard::Guard;
use crate::token::{Token, Tokens};

/// How many builds of the service there are at most.
pub const BUILDS: usize = 2;

/// The generations on which a value depends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Noted {
    /// The root under which the batch ran.
    pub root: Token,
    /// The generation `rows`; none while it is fenced.
    pub rows: Token,
}

impl Tokens for Noted {
    fn tokens(&mut self, visit: &mut impl FnMut(&mut Token)) {
        self.root.tokens(visit);
        self.rows.tokens(visit);
    }
}

/// A cached value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// Which version of the row it is.
    pub version: u8,
    /// How often it was counted up; 0 if it is no number.
    pub number: u8,
    /// Whether it is past its ttl, and kept until it is replaced.
    pub aged: bool,
    /// The lease under which it was filled.
    pub seal: Token,
    /// What it depends on.
    pub noted: Noted,
}

impl Value {
    /// A value that was loaded just now.
    pub fn loaded(version: u8, seal: Token, noted: Noted) -> Self {
        Self {
            version,
            number: 0,
            aged: false,
            seal,
            noted,
        }
    }
}

impl Tokens for Value {
    fn tokens(&mut self, visit: &mut impl FnMut(&mut Token)) {
        self.seal.tokens(visit);
        self.noted.tokens(visit);
    }
}

/// Which fences stand on a key: a bit for each writer. Without [`Guard::FenceHasOwner`] the first
/// bit is everybody's, without [`Guard::FenceIsNotCounted`] it is a count.
pub type Fences = u8;

/// One key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entry {
    /// A value for each build.
    pub values: [Option<Value>; BUILDS],
    /// A lease for each build.
    pub leases: [Token; BUILDS],
    /// The generation's name.
    pub generation: Token,
    /// The fences.
    pub fences: Fences,
}

impl Tokens for Entry {
    fn tokens(&mut self, visit: &mut impl FnMut(&mut Token)) {
        self.values.tokens(visit);
        self.leases.tokens(visit);
        self.generation.tokens(visit);
    }
}

/// What was seen of a value that does not answer, or not for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stale {
    /// It is outdated: its seal; none if there is no value.
    Outdated(Token),
    /// It has aged: its seal, and its version where it may still be answered.
    Aged(Token, Option<u8>),
}

impl Stale {
    /// There is no value.
    pub const NOTHING: Self = Self::Outdated(Token::NONE);

    fn seal(self) -> Token {
        let (Self::Outdated(seal) | Self::Aged(seal, _)) = self;
        seal
    }

    /// The version that may be answered.
    pub fn spare(self) -> Option<u8> {
        match self {
            Self::Outdated(_) => None,
            Self::Aged(_, spare) => spare,
        }
    }
}

impl Tokens for Stale {
    fn tokens(&mut self, visit: &mut impl FnMut(&mut Token)) {
        let (Self::Outdated(seal) | Self::Aged(seal, _)) = self;
        seal.tokens(visit);
    }
}

/// What a put may take the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Anything, or nothing.
    Anything,
    /// Nothing.
    Nothing,
    /// The value with this seal.
    Seal(Token),
}

/// What came of asking for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// The lease is planted.
    Granted,
    /// There is a value, and not the one that was seen.
    Value(Value),
    /// Another lease stands.
    Busy(Token),
    /// A write is under way.
    Fenced,
}

/// How the store treats fences: as it does, or as a mutant.
#[derive(Clone, Copy, Debug)]
pub struct Rules(pub Option<Guard>);

impl Rules {
    /// Whether a guard is in place.
    pub fn has(self, guard: Guard) -> bool {
        self.0 != Some(guard)
    }

    /// Whether each writer's fence is a bit of its own.
    pub fn owned(self) -> bool {
        self.has(Guard::FenceHasOwner) && self.has(Guard::FenceIsNotCounted)
    }

    fn plant(self, fences: Fences, writer: usize) -> Fences {
        match self.0 {
            Some(Guard::FenceIsNotCounted) => fences + 1,
            Some(Guard::FenceHasOwner) => 1,
            _ => fences | 1 << writer,
        }
    }

    fn lift(self, fences: Fences, writer: usize) -> Fences {
        match self.0 {
            Some(Guard::FenceIsNotCounted) => fences.saturating_sub(1),
            Some(Guard::FenceHasOwner) => 0,
            _ => fences & !(1 << writer),
        }
    }
}

impl Entry {
    /// Looks a generation up, and creates it if there is none and no fence stands.
    pub fn generation(&mut self, fresh: Token) -> Token {
        if self.fences != 0 {
            return Token::NONE;
        }
        if !self.generation.is_some() {
            self.generation = fresh;
        }
        self.generation
    }

    /// Whether a lease stands for this build, and no fence and no value but the one seen.
    pub fn has_lease(&self, build: usize, seen: Stale) -> bool {
        self.fences == 0
            && self.values[build].is_none_or(|value| value.seal == seen.seal())
            && self.leases[build].is_some()
    }

    /// Asks for the right to fill. `late`: the deadline of the lease that stands has passed.
    pub fn acquire(
        &mut self,
        build: usize,
        lease: Token,
        seen: Stale,
        late: bool,
        rules: Rules,
    ) -> Acquired {
        if self.fences != 0 {
            return Acquired::Fenced;
        }
        if let Some(value) = self.values[build] {
            if value.seal != seen.seal() {
                return Acquired::Value(value);
            }
            if matches!(seen, Stale::Outdated(_)) || !rules.has(Guard::AgedStays) {
                self.values[build] = None;
            }
        }
        let holder = self.leases[build];
        if holder.is_some() && !late {
            return Acquired::Busy(holder);
        }
        self.leases[build] = lease;
        Acquired::Granted
    }

    /// Stores a value if its lease stands and no fence does. Answers whether it was stored.
    pub fn fill(&mut self, build: usize, value: Value, rules: Rules) -> bool {
        let stood = self.release(build, value.seal);
        if !stood && rules.has(Guard::Lease) || self.fences != 0 {
            return false;
        }
        self.values[build] = Some(value);
        true
    }

    /// Stores a value in place of values, leases and the generation, unless a fence stands. Answers whether
    /// it was stored.
    pub fn put(&mut self, build: usize, value: Value, over: Over, rules: Rules) -> bool {
        let held = self.values[build];
        let fits = match over {
            Over::Anything => true,
            Over::Nothing => held.is_none(),
            Over::Seal(seal) => held.is_some_and(|held| held.seal == seal),
        };
        if self.fences != 0 && rules.has(Guard::PutMindsFences) || !fits {
            return false;
        }
        let kept = *self;
        *self = Self {
            fences: self.fences,
            ..Self::default()
        };
        if !rules.has(Guard::PutTakesLeases) {
            self.leases = kept.leases;
        }
        if !rules.has(Guard::PutTakesAllBuilds) {
            self.values = kept.values;
        }
        if !rules.has(Guard::PutTakesGeneration) {
            self.generation = kept.generation;
        }
        self.values[build] = Some(value);
        true
    }

    /// Gives a lease back. Answers whether it stood.
    pub fn release(&mut self, build: usize, lease: Token) -> bool {
        let stands = self.leases[build] == lease;
        if stands {
            self.leases[build] = Token::NONE;
        }
        stands
    }

    /// Deletes values, leases and the generation, and plants the writer's fence.
    pub fn fence(&mut self, writer: usize, rules: Rules) {
        let kept = *self;
        *self = Self {
            fences: rules.plant(self.fences, writer),
            ..Self::default()
        };
        if !rules.has(Guard::FenceTakesAged) {
            self.values = kept.values.map(|value| value.filter(|value| value.aged));
        }
        if !rules.has(Guard::FenceTakesLeases) {
            self.leases = kept.leases;
        }
        if !rules.has(Guard::FenceTakesAllBuilds) {
            (self.values[1], self.leases[1]) = (kept.values[1], kept.leases[1]);
        }
    }

    /// Deletes values, leases and the generation, and the writer's own fence.
    pub fn settle(&mut self, writer: usize, rules: Rules) {
        let gone = rules.owned() && self.fences & 1 << writer == 0;
        if gone && !rules.has(Guard::SettleWithoutFence) {
            return;
        }
        let kept = *self;
        *self = Self {
            fences: rules.lift(self.fences, writer),
            ..Self::default()
        };
        if !rules.has(Guard::FenceTakesAllBuilds) {
            (self.values[1], self.leases[1]) = (kept.values[1], kept.leases[1]);
        }
    }

    /// A fence expires.
    pub fn expire(&mut self, writer: usize, rules: Rules) {
        self.fences = if rules.owned() {
            rules.lift(self.fences, writer)
        } else {
            0
        };
    }

    /// Whether a writer's fence stands.
    pub fn is_fenced_by(&self, writer: usize, rules: Rules) -> bool {
        if rules.owned() {
            self.fences & 1 << writer != 0
        } else {
            self.fences != 0
        }
    }
}

/// A key that a writer may fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// The row.
    Row,
    /// The generation on which all rows depend.
    Rows,
}

/// The root generation, and the server on which it was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Root {
    /// Its name; none if there is none.
    pub name: Token,
    /// The server's `run_id`.
    pub run: u8,
}

/// All keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Store {
    /// One row.
    pub row: Entry,
    /// The generation on which all rows depend.
    pub rows: Entry,
    /// The generation on which everything depends.
    pub root: Root,
}

impl Tokens for Store {
    fn tokens(&mut self, visit: &mut impl FnMut(&mut Token)) {
        self.root.name.tokens(visit);
        self.rows.tokens(visit);
        self.row.tokens(visit);
    }
}

impl Store {
    /// The entry under a key.
    pub fn entry(&mut self, key: Key) -> &mut Entry {
        match key {
            Key::Row => &mut self.row,
            Key::Rows => &mut self.rows,
        }
    }

    /// The entry under a key.
    pub fn look(&self, key: Key) -> &Entry {
        match key {
            Key::Row => &self.row,
            Key::Rows => &self.rows,
        }
    }

    /// Looks the root up on the server that runs as `run`, and replaces it where it was recorded on
    /// another one, or by `kept` where it is merely missing.
    pub fn root(&mut self, run: u8, fresh: Token, kept: Token, rules: Rules) -> Token {
        let known = self.root.name.is_some();
        if known && (self.root.run == run || !rules.has(Guard::RootComparesRun)) {
            return self.root.name;
        }
        let name = if !known && kept.is_some() {
            kept
        } else {
            fresh
        };
        self.root = Root { name, run };
        name
    }
}
