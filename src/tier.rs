//! The in-process tier in front of the store: decoded values, answered without asking anybody.
//!
//! It holds only what was read from the store, or filled into it, while the store's [`Feed`] watched,
//! and answers only while that feed is alive. What it holds is never removed because it is stale: it
//! stops answering as soon as its stripes move, and is replaced or evicted some time later.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use quick_cache::{Equivalent, UnitWeighter, Weighter, sync};

use crate::clock::{self, Ticks};
use crate::envelope::same;
use crate::key::{Key, KeySpace};
use crate::observe::L1Stats;
use crate::store::{Count, Feed, Fingerprint, Mark, Stripe, Token};

/// What an item takes beside the value, by measurement: its slot in the cache, half of one more (for the
/// names of items that were evicted lately), its place in the table, room that both keep to grow into, the
/// counts of the value's `Arc`.
const OVERHEAD: usize = (size_of::<Id>() + size_of::<Slot>() + 32) * 3 / 2 + 208;

/// How many items there is room for at first, by the weight of small rows.
const EXPECTED_WEIGHT: u64 = 512;

/// This many generations are known at most: three for each entity of each database and tenant.
const MOST_GENERATIONS: u64 = 16_384;

/// The values that are held, and the generations that are known.
pub(crate) struct Tier {
    feed: Arc<Feed>,
    held: sync::Cache<Id, Slot, Weigh>,
    generations: sync::Cache<Key, Known>,
}

/// Names a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Id {
    /// A row or a query of the entity with this number. No text has to be made to look it up.
    Row(KeySpace, u32, RowId),
    /// Anything else.
    Entry(Key, Fingerprint),
}

/// A primary key that is one number, or the digest of a query.
///
/// Two words, which go from hand to hand in registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowId(pub(crate) u64, pub(crate) u64);

impl RowId {
    #[inline]
    pub(crate) fn integer(n: i64) -> Self {
        Self(n.cast_unsigned(), 0)
    }

    /// Of a UUID or a digest.
    #[inline]
    pub(crate) fn wide(number: u128) -> Self {
        Self(number as u64, (number >> 64) as u64)
    }
}

/// Names a row, borrowed.
struct RowRef<'a>(&'a KeySpace, u32, RowId);

impl Hash for Id {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Row(space, entity, row) => RowRef(space, *entity, *row).hash(state),
            Self::Entry(key, field) => (key, field).hash(state),
        }
    }
}

impl Hash for RowRef<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self(space, entity, row) = self;
        space.hash(state);
        state.write_u64(row.0);
        state.write_u64(row.1);
        state.write_u64(u64::from(*entity));
    }
}

impl Equivalent<Id> for RowRef<'_> {
    #[inline]
    fn equivalent(&self, id: &Id) -> bool {
        let Self(space, entity, row) = self;
        matches!(id, Id::Row(s, e, r) if r == row && e == entity && s == *space)
    }
}

/// Any value.
pub(crate) type Value = Arc<dyn Any + Send + Sync>;

/// What the tier answers.
pub(crate) struct Held {
    pub(crate) value: Value,
    /// Whether there is such a row.
    pub(crate) present: bool,
    /// As in the envelope.
    pub(crate) seal: Option<NonZeroU64>,
}

/// A value that is held, and what it depends on. Small: a hit copies it.
#[derive(Clone)]
struct Slot {
    value: Value,
    mark: Mark,
    until: Ticks,
    more: Option<Arc<More>>,
    /// Of its key and of the first generation that it depends on.
    stripes: [Stripe; 2],
    weight: u32,
}

/// What a row does not have that is present and was asked for by number.
struct More {
    present: bool,
    seal: Option<NonZeroU64>,
    /// The exact values asked for, where several may share a key.
    asked: Vec<u8>,
    /// Of the other generations.
    stripes: Vec<Stripe>,
}

/// A generation as it was read.
#[derive(Clone, Copy)]
struct Known {
    token: Token,
    spot: Spot,
    all: Count,
}

/// A stripe and what it counted.
#[derive(Clone, Copy)]
struct Spot {
    stripe: Stripe,
    count: Count,
}

/// What is to be held.
pub(crate) struct Fresh {
    pub(crate) value: Value,
    pub(crate) present: bool,
    pub(crate) seal: Option<u64>,
    /// How long it may live.
    pub(crate) life: Duration,
    /// What it owns, in bytes.
    pub(crate) size: usize,
}

#[derive(Clone)]
struct Weigh;

impl Weighter<Id, Slot> for Weigh {
    fn weight(&self, _: &Id, slot: &Slot) -> u64 {
        u64::from(slot.weight)
    }
}

impl Tier {
    /// A tier of about `max_bytes`, over a store with this feed.
    pub(crate) fn new(feed: Arc<Feed>, max_bytes: u64) -> Self {
        let items = usize::try_from(max_bytes / EXPECTED_WEIGHT).unwrap_or(usize::MAX);
        Self {
            feed,
            held: sync::Cache::with_weighter(items.clamp(64, 1 << 20), max_bytes, Weigh),
            generations: sync::Cache::with_weighter(64, MOST_GENERATIONS, UnitWeighter),
        }
    }

    pub(crate) fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    pub(crate) fn stats(&self) -> L1Stats {
        L1Stats {
            entries: self.held.len() as u64,
            bytes: self.held.weight(),
            alive: self.feed.is_alive(clock::now()),
        }
    }

    /// The row, if it is held and answers. Allocates nothing.
    #[inline]
    pub(crate) fn row(&self, space: &KeySpace, entity: u32, row: RowId) -> Option<Held> {
        let slot = self.held.get(&RowRef(space, entity, row))?;
        self.answer(slot, &[])
    }

    /// The value, if it is held and answers what was asked.
    pub(crate) fn value(&self, id: &Id, asked: &[u8]) -> Option<Held> {
        self.answer(self.held.get(id)?, asked)
    }

    #[inline]
    fn answer(&self, slot: Slot, asked: &[u8]) -> Option<Held> {
        if !self.answers(&slot, asked) {
            return None;
        }
        let (present, seal) = match &slot.more {
            None => (true, None),
            Some(more) => (more.present, more.seal),
        };
        Some(Held {
            value: slot.value,
            present,
            seal,
        })
    }

    #[inline]
    fn answers(&self, slot: &Slot, asked: &[u8]) -> bool {
        let now = clock::now();
        self.feed.is_alive(now)
            && now < slot.until
            && match &slot.more {
                None => asked.is_empty() && self.feed.stands(&slot.stripes, slot.mark),
                Some(more) => self.answers_with(slot, more, asked),
            }
    }

    fn answers_with(&self, slot: &Slot, more: &More, asked: &[u8]) -> bool {
        let stripes = slot.stripes.iter().chain(&more.stripes);
        same(&more.asked, asked) && self.feed.stands(stripes, slot.mark)
    }

    /// Begins to watch keys and generations. To be called before the store is asked for them.
    pub(crate) fn watch<'k>(
        &self,
        keys: impl Iterator<Item = &'k Key>,
        generations: &[Key],
    ) -> Watch<'_> {
        // Before the others: when it moves, all are void.
        let all = self.feed.all();
        let spot = |key: &Key| self.spot(key);
        let known = |key: &Key| {
            let known = self.generations.get(key)?;
            let stands = known.all == all && self.feed.count(known.spot.stripe) == known.spot.count;
            stands.then_some(known)
        };
        let known: Vec<Option<Known>> = generations.iter().map(known).collect();
        let watched = generations.iter().zip(&known);
        Watch {
            tier: self,
            began: clock::now(),
            all,
            keys: keys.map(spot).collect(),
            generations: watched
                .map(|(key, known)| known.map_or_else(|| spot(key), |known| known.spot))
                .collect(),
            known: known
                .iter()
                .map(|known| known.map(|known| known.token))
                .collect(),
        }
    }

    fn spot(&self, key: &Key) -> Spot {
        let stripe = self.feed.stripe(key);
        let count = self.feed.count(stripe);
        Spot { stripe, count }
    }
}

impl fmt::Debug for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tier")
            .field("feed", &self.feed)
            .field("held", &self.held.len())
            .field("weight", &self.held.weight())
            .finish_non_exhaustive()
    }
}

/// The stripes of some keys and generations, as they were before the store was asked.
pub(crate) struct Watch<'t> {
    tier: &'t Tier,
    began: Ticks,
    all: Count,
    keys: Vec<Spot>,
    generations: Vec<Spot>,
    known: Vec<Option<Token>>,
}

impl Watch<'_> {
    /// The name of a generation, if it is known and stands.
    pub(crate) fn known(&self, generation: usize) -> Option<Token> {
        self.known.get(generation).copied().flatten()
    }

    /// Takes note of a generation's name that the store has answered.
    pub(crate) fn learn(&self, generation: usize, key: &Key, token: Token) {
        if let Some(spot) = self.generations.get(generation).copied() {
            let all = self.all;
            let known = Known { token, spot, all };
            self.tier.generations.insert(key.clone(), known);
        }
    }

    /// Returns when one of the keys at these positions has changed since the watch began.
    pub(crate) async fn moved(&self, positions: &[usize]) {
        let spots = || positions.iter().map(|position| self.keys[*position]);
        let stripes: Vec<Stripe> = spots().map(|spot| spot.stripe).collect();
        let mark = self.all.and(spots().map(|spot| spot.count));
        self.tier.feed.moved(&stripes, mark).await;
    }

    /// Holds the value of the key at `position`, which depends on the first `needs` generations, unless
    /// something has changed since the watch began.
    pub(crate) fn hold(&self, position: usize, needs: usize, id: Id, asked: &[u8], fresh: Fresh) {
        let Fresh {
            value,
            present,
            seal,
            life,
            size,
        } = fresh;
        let generations = self.generations.iter().take(needs);
        let spots = || std::iter::once(&self.keys[position]).chain(generations.clone());
        let mark = self.all.and(spots().map(|spot| spot.count));
        let mut stripes = spots().map(|spot| spot.stripe);
        let (Some(first), Some(second)) = (stripes.next(), stripes.next()) else {
            return;
        };
        let more = More {
            present,
            // Who has found a value outdated asks for an entry.
            seal: match id {
                Id::Row(..) => None,
                Id::Entry(..) => seal.and_then(NonZeroU64::new),
            },
            asked: asked.to_vec(),
            stripes: stripes.collect(),
        };
        let more = more.says_something().then(|| Arc::new(more));
        let extra = more.as_ref().map_or(0, |more| more.size());
        let slot = Slot {
            value,
            mark,
            until: self.began.after(life),
            more,
            stripes: [first, second],
            weight: u32::try_from(OVERHEAD + size + extra).unwrap_or(u32::MAX),
        };
        if self.tier.answers(&slot, asked) {
            self.tier.held.insert(id, slot);
        }
    }
}

impl More {
    fn says_something(&self) -> bool {
        !self.present || self.seal.is_some() || !self.asked.is_empty() || !self.stripes.is_empty()
    }

    fn size(&self) -> usize {
        size_of::<Self>() + 16 + self.asked.len() + size_of_val(&self.stripes[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        format!("soc:main:city:{text}").into()
    }

    fn space() -> KeySpace {
        KeySpace::new("soc", "main")
    }

    fn row(n: i64) -> Id {
        Id::Row(space(), 1, RowId::integer(n))
    }

    fn fresh(value: i32) -> Fresh {
        Fresh {
            value: Arc::new(value),
            present: true,
            seal: None,
            life: Duration::from_secs(60),
            size: 100,
        }
    }

    fn tier() -> Tier {
        Tier::new(Arc::new(Feed::of_own_store()), 1 << 20)
    }

    fn number(held: Option<Held>) -> Option<i32> {
        held?.value.downcast_ref().copied()
    }

    fn found(tier: &Tier, n: i64) -> Option<i32> {
        number(tier.row(&space(), 1, RowId::integer(n)))
    }

    #[test]
    fn what_is_held_answers_until_its_key_or_a_generation_changes() {
        let tier = tier();
        let (pk, generations) = (key("pk:1"), [key("gen:rows"), key("gen:list")]);
        let hold = || {
            let watch = tier.watch([&pk].into_iter(), &generations);
            watch.hold(0, 1, row(1), &[], fresh(7));
        };
        for (changed, answers) in [("pk:1", None), ("gen:rows", None), ("gen:list", Some(7))] {
            hold();
            assert_eq!(found(&tier, 1), Some(7));
            drop(tier.feed.own_change([&key(changed)]));
            assert_eq!(found(&tier, 1), answers, "{changed}");
        }
        assert_eq!(found(&tier, 2), None);
        tier.feed.all_changed();
        assert_eq!(found(&tier, 1), None);
    }

    #[test]
    fn what_changed_while_it_was_on_its_way_is_not_held() {
        let tier = tier();
        let generations = [key("gen:rows")];
        let watch = tier.watch([&key("pk:1")].into_iter(), &generations);
        let request = tier.feed.own_change([&key("pk:1")]);
        let during = tier.watch([&key("pk:1")].into_iter(), &generations);
        drop(request);
        watch.hold(0, 1, row(1), &[], fresh(1));
        during.hold(0, 1, row(1), &[], fresh(2));
        assert_eq!((found(&tier, 1), tier.held.len()), (None, 0));
        let after = tier.watch([&key("pk:1")].into_iter(), &generations);
        after.hold(0, 1, row(1), &[], fresh(4));
        assert_eq!(found(&tier, 1), Some(4));
    }

    #[test]
    fn a_known_generation_is_known_until_it_changes() {
        let tier = tier();
        let generations = [key("gen:rows"), key("gen:list")];
        let known = || tier.watch([].into_iter(), &generations).known(1);
        let token = Token::random();
        tier.watch([].into_iter(), &generations)
            .learn(1, &generations[1], token);
        assert_eq!(known(), Some(token));
        drop(tier.feed.own_change([&generations[0]]));
        assert_eq!(known(), Some(token));
        drop(tier.feed.own_change([&generations[1]]));
        assert_eq!(known(), None);
    }

    #[test]
    fn other_values_that_share_a_key_and_values_past_their_life_do_not_answer() {
        let tier = tier();
        let id = Id::Entry(key("pk:abc"), Fingerprint(1));
        let watch = tier.watch([&key("pk:abc")].into_iter(), &[key("gen:rows")]);
        watch.hold(0, 1, id.clone(), b"ABC", fresh(1));
        assert_eq!(number(tier.value(&id, b"ABC")), Some(1));
        assert_eq!(number(tier.value(&id, b"abc")), None);
        let life = Duration::ZERO;
        watch.hold(0, 1, row(1), &[], Fresh { life, ..fresh(1) });
        assert_eq!((found(&tier, 1), tier.held.len()), (None, 1));
    }

    #[test]
    fn it_stays_within_its_bytes() {
        let tier = Tier::new(Arc::new(Feed::of_own_store()), 100_000);
        for n in 0..10_000 {
            let watch = tier.watch([&key(&n.to_string())].into_iter(), &[key("gen:rows")]);
            watch.hold(0, 1, row(n), &[], fresh(1));
        }
        assert!(tier.held.weight() <= 100_000, "{}", tier.held.weight());
        assert!(tier.held.weight() >= 80_000, "{}", tier.held.weight());
    }
}
