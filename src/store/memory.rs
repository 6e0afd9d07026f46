//! The in-process store.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{Cursor, Feed, Op, Replies, Reply, Store, StoreError, Token, Walked};
use crate::key::Key;

mod entry;

use entry::{Entry, Request};

/// What an entry weighs beside its key and its values.
const OVERHEAD: usize = 192;

/// No shard is made smaller than this, so that large values find room.
const SMALLEST_SHARD: u64 = 4 << 20;

const MOST_SHARDS: u64 = 16;

/// Entries in this process's memory, bounded by weight.
///
/// Behaves as [`RedisStore`](super::RedisStore) does, for one process. The bound is split over up
/// to 16 shards; a value larger than its shard is not kept. Entries that carry a fence weigh
/// nothing and are never evicted: their number is that of the writes under way.
pub struct MemoryStore {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    root: Token,
    feed: Option<Arc<Feed>>,
}

impl MemoryStore {
    /// A store that holds about `max_bytes` of values. Fences are never evicted.
    pub fn new(max_bytes: u64) -> Self {
        let shards = (max_bytes / SMALLEST_SHARD).clamp(1, MOST_SHARDS);
        let shard = || Mutex::new(Shard::new(max_bytes / shards));
        Self {
            shards: (0..shards).map(|_| shard()).collect(),
            hasher: RandomState::new(),
            root: Token::random(),
            feed: None,
        }
    }

    /// The same for one cache alone, which may then hold decoded values as well.
    pub(crate) fn of_one_cache(max_bytes: u64) -> Self {
        Self {
            feed: Some(Arc::new(Feed::of_own_store())),
            ..Self::new(max_bytes)
        }
    }

    /// A store that holds what this one does, under another root generation.
    #[cfg(feature = "testing")]
    pub(crate) fn copy(&self) -> Self {
        let shards = self.shards.iter();
        Self {
            shards: shards
                .map(|shard| Mutex::new(held(shard).clone()))
                .collect(),
            hasher: self.hasher.clone(),
            root: Token::random(),
            feed: None,
        }
    }

    /// Removes the entries of other keys, whatever they hold.
    #[cfg(feature = "testing")]
    pub(crate) fn retain(&self, keep: impl Fn(&Key) -> bool) {
        for shard in &self.shards {
            held(shard).retain(|key, _| keep(key));
        }
    }

    /// Never held across an await.
    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        // The modulus is below 16, so the cast loses nothing that matters.
        let index = self.hasher.hash_one(key) as usize % self.shards.len();
        held(&self.shards[index])
    }

    fn answer(&self, op: Op, now: Instant) -> Reply {
        match op {
            Op::Read { key, field } => {
                let value = self.shard(&key).look(&key, now, |entry| entry.read(field));
                Reply::Value(value)
            }
            Op::Peek { key } => Reply::Generation(self.shard(&key).look(&key, now, Entry::peek)),
            Op::Life { key } => {
                let life = self.shard(&key).look(&key, now, |entry| entry.life(now));
                Reply::Life(life)
            }
            Op::Generation { key, fresh, ttl } => self.change(key, now, |entry| {
                Reply::Generation(entry.generation(fresh, ttl, now))
            }),
            Op::Acquire {
                key,
                field,
                lease,
                seen,
                ttl,
            } => {
                let request = Request {
                    field,
                    lease,
                    seen,
                    ttl,
                };
                self.change(key, now, |entry| {
                    Reply::Acquired(entry.acquire(request, now))
                })
            }
            Op::Fill {
                key,
                field,
                lease,
                value,
                ttl,
            } => self.change(key, now, |entry| {
                Reply::Filled(entry.fill((field, lease), value, ttl, now))
            }),
            Op::Put {
                key,
                field,
                value,
                ttl,
                over,
            } => self.change(key, now, |entry| {
                Reply::Filled(entry.put(field, value, ttl, over, now))
            }),
            Op::Release { key, field, lease } => self.change(key, now, |entry| {
                entry.release(field, lease);
                Reply::Done
            }),
            Op::Fence { key, writer, ttl } => self.change(key, now, |entry| {
                entry.fence(writer, ttl, now);
                Reply::Done
            }),
            Op::Settle { key, writer } => self.change(key, now, |entry| {
                entry.settle(writer, now);
                Reply::Done
            }),
        }
    }

    fn change(&self, key: Key, now: Instant, change: impl FnOnce(&mut Entry) -> Reply) -> Reply {
        self.shard(&key).change(key, now, change)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl Store for MemoryStore {
    async fn run(&self, batch: Vec<Op>) -> Result<Replies, StoreError> {
        let writes = || batch.iter().filter(|op| op.invalidates()).map(Op::key);
        let _own = self.feed.as_ref().map(|feed| feed.own_change(writes()));
        let answer = |op| self.answer(op, Instant::now());
        Ok(Replies {
            root: self.root,
            items: batch.into_iter().map(answer).collect(),
        })
    }

    /// Does nothing: nobody else can have changed it.
    async fn refresh_root(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// A shard at a time.
    async fn walk(&self, prefix: &str, from: &Cursor) -> Result<Walked, StoreError> {
        let at: usize = from.0.parse().unwrap_or(0);
        let next = |next: usize| Cursor(next.to_string());
        let keys = match self.shards.get(at) {
            Some(shard) => held(shard).keys(prefix, Instant::now()),
            None => Vec::new(),
        };
        Ok(Walked {
            keys,
            next: (at + 1 < self.shards.len()).then(|| next(at + 1)),
        })
    }

    fn feed(&self) -> Option<Arc<Feed>> {
        self.feed.clone()
    }
}

fn held(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Some of the entries, evicted by CLOCK: first in, first out, with a second chance for those that
/// were read.
#[derive(Clone)]
struct Shard {
    slots: HashMap<Key, Slot>,
    /// The evictable slots in the order of eviction, and items of slots that are gone.
    ring: VecDeque<(Key, u64)>,
    weight: u64,
    max_weight: u64,
    changes: usize,
    turns: u64,
}

#[derive(Clone, Default)]
struct Slot {
    entry: Entry,
    weight: u64,
    /// Names the slot's item in the ring; zero if it has none.
    turn: u64,
    visited: bool,
}

impl Shard {
    fn new(max_weight: u64) -> Self {
        Self {
            slots: HashMap::new(),
            ring: VecDeque::new(),
            weight: 0,
            max_weight,
            changes: 0,
            turns: 0,
        }
    }

    fn look<T>(
        &mut self,
        key: &Key,
        now: Instant,
        look: impl FnOnce(&Entry) -> Option<T>,
    ) -> Option<T> {
        let slot = self.slots.get_mut(key)?;
        if slot.entry.has_expired(now) {
            return None;
        }
        slot.visited = true;
        look(&slot.entry)
    }

    /// The keys that begin so, of what has not expired.
    fn keys(&self, prefix: &str, now: Instant) -> Vec<Key> {
        let lives = |slot: &Slot| !slot.entry.has_expired(now);
        let slots = self.slots.iter();
        let found = slots.filter(|(key, slot)| key.as_str().starts_with(prefix) && lives(slot));
        found.map(|(key, _)| key.clone()).collect()
    }

    fn change(
        &mut self,
        key: Key,
        now: Instant,
        change: impl FnOnce(&mut Entry) -> Reply,
    ) -> Reply {
        let slot = self.slots.entry(key.clone()).or_default();
        if slot.entry.has_expired(now) {
            slot.entry = Entry::default();
        }
        let reply = change(&mut slot.entry);
        self.weigh(key);
        self.evict();
        self.sweep(now);
        reply
    }

    /// Puts the books right after the entry of `key` was changed.
    fn weigh(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(&key) else {
            return;
        };
        self.weight -= slot.weight;
        if slot.entry.is_empty() {
            self.slots.remove(&key);
            return;
        }
        slot.weight = match slot.entry.is_evictable() {
            true => (OVERHEAD + key.as_str().len() + slot.entry.value_bytes()) as u64,
            false => 0,
        };
        self.weight += slot.weight;
        if slot.weight > 0 && slot.turn == 0 {
            self.turns += 1;
            slot.turn = self.turns;
            self.ring.push_back((key, slot.turn));
        }
    }

    fn evict(&mut self) {
        while self.weight > self.max_weight
            && let Some((key, turn)) = self.ring.pop_front()
        {
            let Some(slot) = self.slots.get_mut(&key).filter(|slot| slot.turn == turn) else {
                continue;
            };
            if slot.weight == 0 {
                slot.turn = 0;
            } else if std::mem::take(&mut slot.visited) {
                self.ring.push_back((key, turn));
            } else {
                self.weight -= slot.weight;
                self.slots.remove(&key);
            }
        }
    }

    /// Removes what has expired, once in as many changes as there are entries: a constant cost for
    /// each change, and at most about half of the memory is taken by the dead.
    fn sweep(&mut self, now: Instant) {
        const SELDOM: usize = 1024;
        self.changes += 1;
        if self.changes < self.slots.len().max(SELDOM) {
            return;
        }
        self.changes = 0;
        self.retain(|_, slot| !slot.entry.has_expired(now));
    }

    fn retain(&mut self, keep: impl Fn(&Key, &Slot) -> bool) {
        let weight = &mut self.weight;
        self.slots.retain(|key, slot| {
            let kept = keep(key, slot);
            if !kept {
                *weight -= slot.weight;
            }
            kept
        });
        let slots = &self.slots;
        self.ring
            .retain(|(key, turn)| slots.get(key).is_some_and(|slot| slot.turn == *turn));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::{Acquired, Filled, Fingerprint, Seen};

    const FIELD: Fingerprint = Fingerprint(1);
    const LONG: Duration = Duration::from_secs(60);

    fn key(number: u64) -> Key {
        Key::from(format!("k:{number}"))
    }

    fn fill(store: &MemoryStore, number: u64, bytes: usize, ttl: Duration) {
        let lease = Token::random();
        let now = Instant::now();
        let acquire = Op::Acquire {
            key: key(number),
            field: FIELD,
            lease,
            seen: Seen::Nothing,
            ttl: LONG,
        };
        let fill = Op::Fill {
            key: key(number),
            field: FIELD,
            lease,
            value: vec![0; bytes].into(),
            ttl,
        };
        assert_eq!(
            store.answer(acquire, now),
            Reply::Acquired(Acquired::Granted)
        );
        store.answer(fill, now);
    }

    fn is_held(store: &MemoryStore, number: u64) -> bool {
        let read = Op::Read {
            key: key(number),
            field: FIELD,
        };
        store.answer(read, Instant::now()) != Reply::Value(None)
    }

    /// The weights add up, every evictable slot is in the ring once, and no other is.
    fn check(store: &MemoryStore) {
        for shard in &store.shards {
            let shard = shard.lock().unwrap();
            let sum: u64 = shard.slots.values().map(|slot| slot.weight).sum();
            assert_eq!(shard.weight, sum);
            assert!(shard.weight <= shard.max_weight);
            for (key, slot) in &shard.slots {
                let items = shard
                    .ring
                    .iter()
                    .filter(|item| **item == (key.clone(), slot.turn));
                assert_eq!(items.count(), usize::from(slot.turn != 0), "{key}");
                assert!(slot.weight == 0 || slot.turn != 0, "{key}");
                assert_eq!(slot.weight == 0, !slot.entry.is_evictable(), "{key}");
            }
        }
    }

    #[test]
    fn the_weight_stays_within_the_bound() {
        let store = MemoryStore::new(100_000);
        for number in 0..1_000 {
            fill(&store, number, 1_000, LONG);
        }
        check(&store);
        let held = (0..1_000).filter(|number| is_held(&store, *number)).count();
        assert!((70..=100).contains(&held), "{held}");
    }

    #[test]
    fn an_entry_that_was_read_outlives_its_contemporaries() {
        let store = MemoryStore::new(100_000);
        for number in 0..500 {
            fill(&store, number, 1_000, LONG);
            assert!(is_held(&store, 0), "evicted after {number}");
        }
        assert!(!is_held(&store, 1));
    }

    #[test]
    fn a_fence_is_not_evicted() {
        let store = MemoryStore::new(10_000);
        let writer = Token::random();
        fill(&store, 0, 100, LONG);
        let fence = Op::Fence {
            key: key(0),
            writer,
            ttl: LONG,
        };
        store.answer(fence, Instant::now());
        for number in 1..2_000 {
            fill(&store, number, 1_000, LONG);
        }
        check(&store);
        let acquire = Op::Acquire {
            key: key(0),
            field: FIELD,
            lease: Token::random(),
            seen: Seen::Nothing,
            ttl: LONG,
        };
        let outcome = store.answer(acquire, Instant::now());
        assert_eq!(outcome, Reply::Acquired(Acquired::Fenced));
    }

    #[test]
    fn a_value_larger_than_the_store_is_not_kept() {
        let store = MemoryStore::new(10_000);
        fill(&store, 0, 20_000, LONG);
        assert!(!is_held(&store, 0));
        check(&store);
    }

    #[test]
    fn what_has_expired_is_swept_away() {
        let store = MemoryStore::new(1 << 20);
        let start = Instant::now();
        for number in 0..500 {
            fill(&store, number, 100, Duration::from_millis(1));
        }
        let later = start + LONG;
        for _ in 0..2_000 {
            let (key, writer) = (key(1_000), Token::random());
            store.answer(Op::Settle { key, writer }, later);
        }
        let shard = store.shards[0].lock().unwrap();
        assert_eq!(
            (shard.slots.len(), shard.ring.len(), shard.weight),
            (0, 0, 0)
        );
    }

    #[test]
    fn fences_come_and_go_without_a_trace() {
        let store = MemoryStore::new(1 << 20);
        for round in 0..5_000 {
            let now = Instant::now();
            let (key, writer) = (key(round % 3), Token::random());
            fill(&store, round % 3, 10, LONG);
            let ttl = LONG;
            let fence = Op::Fence {
                key: key.clone(),
                writer,
                ttl,
            };
            store.answer(fence, now);
            store.answer(Op::Settle { key, writer }, now);
        }
        check(&store);
        let shard = store.shards[0].lock().unwrap();
        assert!(shard.slots.is_empty());
        assert!(shard.ring.len() <= 2 * 1024, "{}", shard.ring.len());
    }

    #[cfg(feature = "testing")]
    #[test]
    fn the_books_are_right_after_an_eviction_on_demand_and_in_a_copy() {
        let store = MemoryStore::new(100_000);
        for number in 0..50 {
            fill(&store, number, 1_000, LONG);
        }
        let copy = store.copy();
        let odd = |number: u64| number % 2 == 1;
        let kept: Vec<Key> = (0..50).filter(|number| odd(*number)).map(key).collect();
        store.retain(|key| kept.contains(key));
        for number in 0..50 {
            assert_eq!(is_held(&store, number), odd(number), "{number}");
            assert!(is_held(&copy, number), "{number}");
        }
        for number in 0..1_000 {
            fill(&store, 50 + number, 1_000, LONG);
        }
        check(&store);
        check(&copy);
    }

    #[test]
    fn a_lease_may_be_evicted_and_then_the_fill_is_superseded() {
        let store = MemoryStore::new(10_000);
        let lease = Token::random();
        let acquire = Op::Acquire {
            key: key(0),
            field: FIELD,
            lease,
            seen: Seen::Nothing,
            ttl: LONG,
        };
        store.answer(acquire, Instant::now());
        for number in 1..100 {
            fill(&store, number, 1_000, LONG);
        }
        let late = Op::Fill {
            key: key(0),
            field: FIELD,
            lease,
            value: "v".into(),
            ttl: LONG,
        };
        let outcome = store.answer(late, Instant::now());
        assert_eq!(outcome, Reply::Filled(Filled::Superseded));
    }
}
