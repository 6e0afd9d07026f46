//! What a server tells of the keys that this process has read: the ground under the in-process tier.
//!
//! Every key belongs to a stripe, and a stripe counts the changes of its keys. A value that was read
//! from the store is as good as ever while the stripes of its key and of the generations it depends on
//! have not moved since *before* it was asked for: a [`Mark`] is those counts, added up. Nobody has to
//! find and remove what a change makes stale, and a change that comes while the value is on its way
//! cannot be missed. Two keys that share a stripe cost each other a miss now and then.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

#[cfg(any(feature = "redis", test))]
use super::Token;
use crate::clock::{self, Ticks};
use crate::key::Key;

/// How many stripes there are. 128 KiB of counts.
const STRIPES: usize = 1 << 14;

/// Which stripe a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stripe(u16);

/// What a stripe counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count(u64);

impl Count {
    /// The mark of the stripes that counted this.
    pub(crate) fn and(self, others: impl Iterator<Item = Self>) -> Mark {
        Mark(others.fold(self.0, |sum, other| sum.wrapping_add(other.0)))
    }
}

/// What some stripes counted, added up. A stripe only ever grows, so equal marks of the same stripes
/// mean that none of them has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(u64);

/// What a store hears of changes to the keys that it has read, made by [`Store::feed`](super::Store::feed).
///
/// A feed that is silent for longer than `max_silence` counts as dead until it is heard again, so that
/// a connection which broke without a sign does not keep old values alive.
pub struct Feed {
    stripes: Box<[AtomicU64]>,
    /// Part of every mark: moves when a connection is lost, and everything read through it with it.
    all: AtomicU64,
    hasher: RandomState,
    alive_until: AtomicU64,
    max_silence: Option<Duration>,
    /// When each connection was last known to be heard.
    #[cfg(any(feature = "redis", test))]
    connections: Mutex<HashMap<Token, Ticks>>,
    /// How many wait for a change: while nobody does, a change takes no lock.
    waiting: AtomicUsize,
    waiters: Mutex<HashMap<u16, Arc<Notify>>>,
}

impl Feed {
    /// The feed of a store in this process that nobody else can change: it is never silent.
    pub(crate) fn of_own_store() -> Self {
        Self::with(None, u64::MAX)
    }

    fn with(max_silence: Option<Duration>, alive_until: u64) -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| AtomicU64::new(0)).collect(),
            all: AtomicU64::new(0),
            hasher: RandomState::new(),
            alive_until: AtomicU64::new(alive_until),
            max_silence,
            #[cfg(any(feature = "redis", test))]
            connections: Mutex::default(),
            waiting: AtomicUsize::new(0),
            waiters: Mutex::default(),
        }
    }

    /// Whether what stands may be answered at this moment.
    #[inline]
    pub(crate) fn is_alive(&self, now: Ticks) -> bool {
        now.0 < self.alive_until.load(Ordering::Acquire)
    }

    pub(crate) fn stripe(&self, key: &Key) -> Stripe {
        self.stripe_of(key.as_str().as_bytes())
    }

    fn stripe_of(&self, key: &[u8]) -> Stripe {
        // The remainder fits.
        Stripe((self.hasher.hash_one(key) % STRIPES as u64) as u16)
    }

    fn counter(&self, stripe: Stripe) -> &AtomicU64 {
        &self.stripes[usize::from(stripe.0)]
    }

    /// What the stripe counts. To be asked before the store is, for what is to be held.
    pub(crate) fn count(&self, stripe: Stripe) -> Count {
        Count(self.counter(stripe).load(Ordering::Acquire))
    }

    /// What counts for all stripes: a part of every mark.
    pub(crate) fn all(&self) -> Count {
        Count(self.all.load(Ordering::Acquire))
    }

    /// Whether none of the stripes has moved since their mark was taken.
    #[inline]
    pub(crate) fn stands<'s>(
        &self,
        stripes: impl IntoIterator<Item = &'s Stripe>,
        mark: Mark,
    ) -> bool {
        let counts = stripes.into_iter().map(|stripe| self.count(*stripe));
        self.all().and(counts) == mark
    }

    fn stripe_changed(&self, stripe: Stripe) {
        self.counter(stripe).fetch_add(1, Ordering::AcqRel);
        if self.has_waiters() {
            let waiter = self.waiters().get(&stripe.0).cloned();
            waiter.iter().for_each(|waiter| waiter.notify_waiters());
        }
    }

    /// Takes the keys for changed as soon as the answer is dropped: a request of this process that changes
    /// them is under way.
    ///
    /// The server does not tell a connection of its own changes, and such a change also ends its telling
    /// of the key. So nothing that was asked for before the request was answered may be held.
    pub(crate) fn own_change<'k>(
        self: &Arc<Self>,
        keys: impl IntoIterator<Item = &'k Key>,
    ) -> OwnChange {
        OwnChange {
            stripes: keys.into_iter().map(|key| self.stripe(key)).collect(),
            feed: Arc::clone(self),
        }
    }

    /// Returns when one of the stripes has moved since their mark was taken.
    pub(crate) async fn moved(&self, stripes: &[Stripe], mark: Mark) {
        let waiters: Vec<Waiter<'_>> = stripes.iter().map(|s| Waiter::new(self, *s)).collect();
        let mut changes: Vec<_> = waiters
            .iter()
            .map(|waiter| Box::pin(waiter.notify.notified()))
            .collect();
        for change in &mut changes {
            change.as_mut().enable();
        }
        // What moved before the waiters were in place woke nobody. With the barrier in `has_waiters`:
        // either it is seen here, or we are seen there.
        fence(Ordering::SeqCst);
        if self.stands(stripes, mark) {
            futures_util::future::select_all(changes).await;
        }
    }

    /// To be asked after the count has moved.
    fn has_waiters(&self) -> bool {
        fence(Ordering::SeqCst);
        self.waiting.load(Ordering::Relaxed) > 0
    }

    fn waiters(&self) -> MutexGuard<'_, HashMap<u16, Arc<Notify>>> {
        held(&self.waiters)
    }
}

/// What a server that tells of changes tells.
#[cfg(any(feature = "redis", test))]
impl Feed {
    /// The feed of a server that tells of changes. It is dead until it has a connection.
    pub(crate) fn new(max_silence: Duration) -> Self {
        Self::with(Some(max_silence), 0)
    }

    /// After how long without an answer it counts as dead; `None` if it cannot die.
    #[cfg(feature = "redis")]
    pub(crate) fn max_silence(&self) -> Option<Duration> {
        self.max_silence
    }

    /// A key was changed by somebody else.
    pub(crate) fn changed(&self, key: &[u8]) {
        self.stripe_changed(self.stripe_of(key));
    }

    /// All keys may have been changed.
    pub(crate) fn all_changed(&self) {
        self.all.fetch_add(1, Ordering::AcqRel);
        if self.has_waiters() {
            let all: Vec<_> = self.waiters().values().cloned().collect();
            all.iter().for_each(|waiter| waiter.notify_waiters());
        }
    }

    /// A connection tells of what is read through it from now on; `sent` is when it was last asked.
    pub(crate) fn connected(&self, connection: Token, sent: Ticks) {
        let mut connections = held(&self.connections);
        connections.insert(connection, sent);
        self.measure(&connections);
    }

    /// A connection has answered what was sent at `sent`, and so has delivered all that it had to tell
    /// before that.
    pub(crate) fn heard(&self, connection: Token, sent: Ticks) {
        let mut connections = held(&self.connections);
        if let Some(last) = connections.get_mut(&connection) {
            *last = sent;
            self.measure(&connections);
        }
    }

    /// A connection is gone: nobody tells of what was read through it.
    pub(crate) fn lost(&self, connection: Token) {
        let mut connections = held(&self.connections);
        let known = connections.remove(&connection).is_some();
        self.measure(&connections);
        drop(connections);
        if known {
            self.all_changed();
        }
    }

    /// The feed is as alive as its most silent connection.
    fn measure(&self, connections: &HashMap<Token, Ticks>) {
        let Some(max_silence) = self.max_silence else {
            return;
        };
        let oldest = connections.values().min();
        let until = oldest.map_or(0, |oldest| oldest.after(max_silence).0);
        self.alive_until.store(until, Ordering::Release);
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("alive", &self.is_alive(clock::now()))
            .field("max_silence", &self.max_silence)
            .finish_non_exhaustive()
    }
}

/// A request of this process that is under way.
#[derive(Debug)]
pub(crate) struct OwnChange {
    feed: Arc<Feed>,
    stripes: Vec<Stripe>,
}

impl Drop for OwnChange {
    fn drop(&mut self) {
        for stripe in &self.stripes {
            self.feed.stripe_changed(*stripe);
        }
    }
}

/// Somebody who waits for a stripe to move.
struct Waiter<'f> {
    feed: &'f Feed,
    stripe: Stripe,
    notify: Arc<Notify>,
}

impl<'f> Waiter<'f> {
    fn new(feed: &'f Feed, stripe: Stripe) -> Self {
        let notify = feed.waiters().entry(stripe.0).or_default().clone();
        feed.waiting.fetch_add(1, Ordering::SeqCst);
        Self {
            feed,
            stripe,
            notify,
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.feed.waiting.fetch_sub(1, Ordering::SeqCst);
        let mut waiters = self.feed.waiters();
        // The map's own and this one: nobody else waits.
        if Arc::strong_count(&self.notify) <= 2 {
            waiters.remove(&self.stripe.0);
        }
    }
}

/// Never held across an await.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Key {
        format!("soc:main:city:pk:{n}").into()
    }

    fn feed() -> Arc<Feed> {
        Arc::new(Feed::new(Duration::from_secs(1)))
    }

    fn marked(feed: &Feed, keys: &[Key]) -> (Vec<Stripe>, Mark) {
        let stripes: Vec<Stripe> = keys.iter().map(|key| feed.stripe(key)).collect();
        let counts = stripes.iter().map(|stripe| feed.count(*stripe));
        let mark = feed.all().and(counts);
        (stripes, mark)
    }

    #[test]
    fn a_mark_stands_until_one_of_its_keys_is_changed() {
        let feed = feed();
        let (stripes, mark) = marked(&feed, &[key(1), key(2)]);
        assert!(feed.stands(&stripes, mark));
        let other = (3..)
            .map(key)
            .find(|key| !stripes.contains(&feed.stripe(key)));
        feed.changed(other.unwrap().as_str().as_bytes());
        assert!(feed.stands(&stripes, mark), "of a key in another stripe");
        feed.changed(key(2).as_str().as_bytes());
        assert!(!feed.stands(&stripes, mark));
        let (_, mark) = marked(&feed, &[key(1), key(2)]);
        assert!(feed.stands(&stripes, mark));
        feed.all_changed();
        assert!(!feed.stands(&stripes, mark));
    }

    #[test]
    fn no_mark_outlives_a_request_of_its_own() {
        let feed = feed();
        let (stripes, before) = marked(&feed, &[key(1)]);
        let request = feed.own_change([&key(1)]);
        let (_, meanwhile) = marked(&feed, &[key(1)]);
        drop(request);
        let (_, after) = marked(&feed, &[key(1)]);
        assert!(feed.stands(&stripes, after));
        assert!(!feed.stands(&stripes, before) && !feed.stands(&stripes, meanwhile));
    }

    #[test]
    fn it_is_as_alive_as_its_most_silent_connection() {
        let feed = feed();
        let (a, b) = (Token::random(), Token::random());
        let at = |millis| Ticks::default().after(Duration::from_millis(millis));
        let alive = |millis| feed.is_alive(at(millis));
        assert!(!alive(0), "without a connection");
        feed.connected(a, at(10_000));
        assert!(alive(10_900) && !alive(11_001));
        feed.connected(b, at(10_500));
        assert!(alive(10_900) && !alive(11_001));
        feed.heard(a, at(11_000));
        assert!(alive(11_400) && !alive(11_501));
        let (stripes, mark) = marked(&feed, &[key(1)]);
        feed.lost(b);
        assert!(alive(11_900) && !alive(12_001));
        assert!(!feed.stands(&stripes, mark));
        feed.heard(b, at(20_000));
        assert!(!alive(12_001), "a connection that was lost is not heard");
        feed.lost(a);
        assert!(!alive(11_100));
    }

    #[tokio::test]
    async fn who_waits_for_a_change_is_woken_by_it_also_if_it_came_before() {
        let feed = feed();
        let (stripes, mark) = marked(&feed, &[key(1), key(2)]);
        let waiting = {
            let (feed, stripes) = (feed.clone(), stripes.clone());
            tokio::spawn(async move { feed.moved(&stripes, mark).await })
        };
        while feed.waiting.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        feed.changed(key(2).as_str().as_bytes());
        waiting.await.unwrap();
        feed.moved(&stripes, mark).await;
        assert_eq!(feed.waiting.load(Ordering::SeqCst), 0);
        assert!(feed.waiters().is_empty());
    }
}
