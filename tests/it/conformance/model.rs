//! What a store does, without time: the oracle of the random tests.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sea_orm_cache::Key;
use sea_orm_cache::store::{Acquired, Filled, Fingerprint, Op, Over, Reply, Seen, Token};

#[derive(Default)]
pub struct Model {
    values: BTreeMap<(Key, Fingerprint), Bytes>,
    leases: BTreeMap<(Key, Fingerprint), Token>,
    fences: BTreeSet<(Key, Token)>,
    generations: BTreeMap<Key, Token>,
}

impl Model {
    pub fn run(&mut self, op: Op) -> Reply {
        match op {
            Op::Read { key, field } => Reply::Value(self.values.get(&(key, field)).cloned()),
            Op::Peek { key } => Reply::Generation(self.generations.get(&key).copied()),
            // It knows no time.
            Op::Life { .. } => Reply::Life(None),
            Op::Generation { key, fresh, .. } => Reply::Generation(
                (!self.fenced(&key)).then(|| *self.generations.entry(key).or_insert(fresh)),
            ),
            Op::Acquire {
                key,
                field,
                lease,
                seen,
                ..
            } => Reply::Acquired(self.acquire((key, field), lease, seen)),
            Op::Fill {
                key,
                field,
                lease,
                value,
                ..
            } => Reply::Filled(self.fill((key, field), lease, value)),
            Op::Put {
                key,
                field,
                value,
                over,
                ..
            } => Reply::Filled(self.put((key, field), value, over)),
            Op::Release { key, field, lease } => {
                self.release(&(key, field), lease);
                Reply::Done
            }
            Op::Fence { key, writer, .. } => {
                self.clear(&key);
                self.fences.insert((key, writer));
                Reply::Done
            }
            Op::Settle { key, writer } => {
                self.clear(&key);
                self.fences.remove(&(key, writer));
                Reply::Done
            }
        }
    }

    fn acquire(&mut self, at: (Key, Fingerprint), lease: Token, seen: Seen) -> Acquired {
        if self.fenced(&at.0) {
            return Acquired::Fenced;
        }
        if let Some(value) = self.values.get(&at) {
            let other = |seal: u64| !value.starts_with(&seal.to_be_bytes());
            if seen.seal().is_none_or(other) {
                return Acquired::Value(value.clone());
            }
            if let Seen::Outdated(_) = seen {
                self.values.remove(&at);
            }
        }
        match *self.leases.entry(at).or_insert(lease) {
            holder if holder == lease => Acquired::Granted,
            holder => Acquired::Busy(holder),
        }
    }

    fn fill(&mut self, at: (Key, Fingerprint), lease: Token, value: Bytes) -> Filled {
        if !self.release(&at, lease) {
            return Filled::Superseded;
        }
        self.values.insert(at, value);
        Filled::Stored
    }

    fn put(&mut self, at: (Key, Fingerprint), value: Bytes, over: Over) -> Filled {
        let held = self.values.get(&at);
        let fits = match over {
            Over::Anything => true,
            Over::Nothing => held.is_none(),
            Over::Seal(seal) => held.is_some_and(|held| held.starts_with(&seal.to_be_bytes())),
        };
        if self.fenced(&at.0) || !fits {
            return Filled::Superseded;
        }
        self.clear(&at.0);
        self.values.insert(at, value);
        Filled::Stored
    }

    fn release(&mut self, at: &(Key, Fingerprint), lease: Token) -> bool {
        let held = self.leases.get(at) == Some(&lease);
        if held {
            self.leases.remove(at);
        }
        held
    }

    fn clear(&mut self, key: &Key) {
        self.values.retain(|(other, _), _| other != key);
        self.leases.retain(|(other, _), _| other != key);
        self.generations.remove(key);
    }

    fn fenced(&self, key: &Key) -> bool {
        self.fences.iter().any(|(other, _)| other == key)
    }
}
