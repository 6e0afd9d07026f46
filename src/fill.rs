//! Looking up, loading and filling.
//!
//! A read is at most three requests: look up; note the generations and ask for leases; fill. What is
//! noted is noted *before* the database is read, and a value is valid only while all of it stands.

mod aged;
mod judge;
mod lookup;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::time::Instant;
use tracing::Instrument;

pub(crate) use self::aged::{Found, Spare};
use crate::cache::Cache;
use crate::codec::{CodecError, Reader};
use crate::config::EntityPolicy;
use crate::envelope::{Aging, Cover, Noted, listed, place_id, seal};
use crate::error::CacheError;
use crate::flight::{Landed, Landing, Lease};
use crate::key::{Dependencies, Key, is_entry};
use crate::observe::Event;
use crate::store::{Acquired, Filled, Fingerprint, Op, Reply, Seen, Token};
use crate::tier::{self, Held, Id, Watch};

/// What can be cached; a clone costs next to nothing.
pub(crate) trait Payload: Clone + Send + Sync + 'static {
    /// Whether there is anything; "no such row" is cached for a shorter time and depends on more.
    fn is_present(&self) -> bool;
    /// About how many bytes it takes in memory; `encoded` is how many it takes in the store.
    fn size(&self, encoded: usize) -> usize;
    /// The value as the in-process tier holds it.
    fn hold(&self) -> tier::Value {
        Arc::new(self.clone())
    }
    /// The value that it holds.
    fn held(held: &Held) -> Option<Self> {
        held.value.downcast_ref().cloned()
    }
    /// Whether it may be stored at all.
    fn is_storable(&self) -> bool {
        true
    }
    /// How long it lives, if it knows better than the policy.
    fn ttl(&self) -> Option<Duration> {
        None
    }
    /// Whether it may be answered past its ttl, if the policy says so.
    fn ages(&self) -> bool {
        true
    }
    /// Appends the encoded value.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError>;
    /// Reads an encoded value.
    fn decode(present: bool, reader: &mut Reader<'_>) -> Result<Self, CodecError>;
}

/// What the keys of one fetch have in common.
#[derive(Debug)]
pub(crate) struct Shape<'a> {
    pub(crate) entity: &'a str,
    pub(crate) field: Fingerprint,
    /// The generations to depend on; a present value needs only the first `present_needs`.
    pub(crate) dependencies: &'a Dependencies,
    pub(crate) present_needs: usize,
    pub(crate) policy: &'a EntityPolicy,
    /// Whether the in-process tier may answer.
    pub(crate) bounded: bool,
    /// Whether values say themselves what they depend on: on these dependencies at least.
    pub(crate) own: bool,
}

impl Shape<'_> {
    /// What is done about keys that missed.
    fn span(&self) -> tracing::Span {
        tracing::debug_span!("cache.fill", entity = self.entity)
    }

    /// How many of the dependencies a value needs.
    fn needs(&self, present: bool) -> usize {
        match present {
            true => self.present_needs,
            false => self.dependencies.keys.len(),
        }
    }

    /// Names the place of a value under `key`. One that lists its dependencies is compared with the list.
    fn place_id(&self, key: &Key) -> u64 {
        let list = if self.own { 0 } else { self.dependencies.id };
        place_id(list, key)
    }
}

/// One key to fetch.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) key: Key,
    /// The exact values asked for, where the key may stand for several.
    pub(crate) asked: Vec<u8>,
    /// The seal of a value that the caller found to be outdated.
    pub(crate) outdated: Option<u64>,
    /// Its name in the in-process tier.
    pub(crate) id: Id,
}

/// What came of one request.
#[derive(Debug)]
pub(crate) struct Fetched<P> {
    pub(crate) value: P,
    /// The seal of a value that came from the store.
    pub(crate) seal: Option<u64>,
    /// How long it may be held in this process.
    pub(crate) life: Option<Duration>,
}

impl<P> Fetched<P> {
    /// What was not read from the store.
    fn loaded(value: P) -> Self {
        Self {
            value,
            seal: None,
            life: None,
        }
    }
}

/// How far one request has come.
enum State<P> {
    /// Answered.
    Done(Fetched<P>),
    /// Missed; to be asked for with what is known of the value that stands there.
    Missed(Stale),
    /// Its lease is ours: to be loaded and filled.
    Granted,
    /// To be loaded and not filled.
    Direct,
}

/// A loaded value that is offered to the store, or only its lease given back.
struct Offer<'a> {
    position: usize,
    lease: Lease<'a>,
    /// How long it will live.
    life: Duration,
    /// How many bytes it takes in the store.
    size: usize,
}

/// What is known of a cached value that cannot be used.
#[derive(Clone, Copy)]
enum Stale {
    /// There is none.
    Nothing,
    /// Its seal.
    Sealed(u64),
    /// Its seal; it may be answered until it is replaced.
    Aged(u64),
    /// It is not one of ours: to be wiped.
    Corrupt,
}

impl Cache {
    /// Answers requests for distinct keys from the store, and what it does not have from `load`,
    /// which is given positions in `requests` and answers in the same order.
    ///
    /// Only `load` can fail it. It sees to its [place](Self::begin_load) itself.
    pub(crate) async fn fetch<P, E, L, F>(
        &self,
        shape: &Shape<'_>,
        requests: Few<Request>,
        load: L,
    ) -> Result<Few<Fetched<P>>, E>
    where
        P: Payload,
        L: Fn(Vec<usize>) -> F + Sync,
        F: Future<Output = Result<Vec<P>, E>> + Send,
    {
        let mut fetch = Fetch::new(self, shape, requests);
        fetch.look_up().await;
        if fetch.is_open() {
            // In a box of its own: a hit does not carry about what only a miss needs.
            Box::pin(fetch.fill_up(load).instrument(shape.span())).await?;
        }
        Ok(fetch.finish())
    }

    /// An encoded value, or an absence, as it is stored under what was noted; `None` where it may not be.
    pub(crate) fn sealed(
        &self,
        shape: &Shape<'_>,
        request: &Request,
        noted: &Noted,
        token: Token,
        (present, payload): (bool, &[u8]),
        took: Option<Duration>,
    ) -> Option<Bytes> {
        let entity = shape.entity;
        let needs = shape.needs(present);
        let Some(stamp) = noted.stamp(shape.place_id(&request.key), needs) else {
            self.emit(&Event::Fenced { entity, reads: 1 });
            return None;
        };
        let own = shape.own.then(|| listed(&shape.dependencies.keys[..needs]));
        let cover = Cover {
            seal: token,
            root: noted.root,
            stamp,
            asked: &request.asked,
            own: own.as_deref(),
            present,
            aging: took.filter(|_| shape.policy.minds_age()).map(|took| Aging {
                grace: shape.policy.grace(),
                took,
            }),
        };
        let packing = self.settings().packing();
        let bytes = seal(cover, payload, packing);
        let most = packing.most;
        if bytes.len() > most {
            let reason = format!(
                "{} bytes are more than max_value_bytes, {most}",
                bytes.len()
            );
            let reason = &*reason;
            self.emit(&Event::NotCached { entity, reason });
            return None;
        }
        Some(bytes)
    }
}

/// Most often one.
pub(crate) type Few<T> = SmallVec<[T; 1]>;

/// How long a reader that met another process's lease waits before it asks again.
const FIRST_POLL: Duration = Duration::from_millis(2);
const LONGEST_POLL: Duration = Duration::from_millis(50);

/// One fetch under way.
struct Fetch<'a, P> {
    cache: &'a Cache,
    shape: &'a Shape<'a>,
    requests: Few<Request>,
    states: Few<State<P>>,
    /// What the in-process tier needs to know to hold what comes of it.
    watch: Option<Watch<'a>>,
    /// The same, as it was when leases were last asked for.
    asked_at: Option<Watch<'a>>,
    /// By position, the leases asked for or held.
    leases: HashMap<usize, (Lease<'a>, Option<Arc<Noted>>)>,
    /// Positions whose values are to be looked up again, and on what they depend: something else than was
    /// thought, or it was not asked how old they are.
    elsewhere: Vec<(usize, Vec<Key>)>,
    /// Whether it is asked how old values are, whatever the shape.
    again: bool,
    /// Values that are to be replaced.
    spares: Vec<Spare<P>>,
    /// How long the last load took.
    took: Duration,
}

/// A position whose lease somebody else holds, and what was noted when that was seen.
type Busy = (usize, Token, Arc<Noted>);

impl<'a, P: Payload> Fetch<'a, P> {
    fn new(cache: &'a Cache, shape: &'a Shape<'a>, requests: Few<Request>) -> Self {
        Self {
            cache,
            shape,
            requests,
            states: SmallVec::new(),
            watch: None,
            asked_at: None,
            leases: HashMap::new(),
            elsewhere: Vec::new(),
            again: false,
            spares: Vec::new(),
            took: Duration::ZERO,
        }
    }

    /// Whether anything is left to be asked for.
    fn is_open(&self) -> bool {
        let done = |state: &State<P>| matches!(state, State::Done(_));
        !self.states.iter().all(done)
    }

    /// Loads what the look-up has not answered, and fills it.
    async fn fill_up<L, F, E>(&mut self, load: L) -> Result<(), E>
    where
        L: Fn(Vec<usize>) -> F + Sync,
        F: Future<Output = Result<Vec<P>, E>> + Send,
    {
        let give_up = Instant::now() + self.cache.settings().lease_ttl * 2;
        let mut pause = FIRST_POLL;
        loop {
            let busy = self.acquire().await;
            self.load_and_fill(&load).await?;
            if busy.is_empty() {
                return Ok(());
            }
            if Instant::now() >= give_up {
                self.give_up_missed();
                continue;
            }
            self.join(busy, pause).await;
            pause = (pause * 2).min(LONGEST_POLL);
        }
    }

    /// Second request: notes the generations and asks for a lease on every missed key. Answers
    /// those that somebody else is loading.
    async fn acquire(&mut self) -> Vec<Busy> {
        let missed: Vec<(usize, Stale)> = self.missed().collect();
        if missed.is_empty() {
            return Vec::new();
        }
        let keys = self.requests.iter().map(|request| &request.key);
        self.asked_at = self.tier().map(|tier| tier.watch(keys, &[]));
        let batch = self.acquire_ops(&missed);
        let replies = match self.cache.run(Some(self.shape.entity), batch).await {
            Ok(replies) => replies,
            Err(_) => {
                self.give_up_missed();
                return Vec::new();
            }
        };
        let (generations, answers) = replies.items.split_at(self.shape.dependencies.keys.len());
        self.heal(generations).await;
        let noted = Arc::new(note(replies.root, generations));
        let mut answers = answers.iter();
        let mut busy = Vec::new();
        for (position, stale) in missed {
            if matches!(stale, Stale::Corrupt) {
                answers.next();
            }
            self.acquired(position, answers.next(), &noted, &mut busy);
        }
        self.look_elsewhere().await;
        busy.retain(|(position, ..)| {
            let found = matches!(self.states[*position], State::Done(_));
            if found {
                self.coalesced();
            }
            !found
        });
        busy
    }

    /// Wipes what stands under a generation's key and is none. Until then nothing can be cached.
    async fn heal(&self, generations: &[Reply]) {
        let mut batch = Vec::new();
        for (key, reply) in self.shape.dependencies.keys.iter().zip(generations) {
            if let Reply::Failed(reason) = reply {
                let entity = self.shape.entity;
                self.cache.emit(&Event::Corrupt {
                    entity,
                    key,
                    reason,
                });
                batch.push(Op::Settle {
                    key: key.clone(),
                    writer: Token::random(),
                });
            }
        }
        if !batch.is_empty() {
            // A failure leaves it for the next reader.
            let _ = self.cache.run(Some(self.shape.entity), batch).await;
        }
    }

    fn acquire_ops(&mut self, missed: &[(usize, Stale)]) -> Vec<Op> {
        let mut batch = note_ops(&self.shape.dependencies.keys, self.shape.policy);
        for (position, stale) in missed {
            let key = self.requests[*position].key.clone();
            if matches!(stale, Stale::Corrupt) {
                batch.push(Op::Settle {
                    key: key.clone(),
                    writer: Token::random(),
                });
            }
            let (lease, _) = self
                .leases
                .entry(*position)
                .or_insert_with(|| (Lease::new(self.cache), None));
            let seen = match stale {
                Stale::Sealed(seal) => Seen::Outdated(*seal),
                Stale::Aged(seal) => Seen::Aged(*seal),
                Stale::Nothing | Stale::Corrupt => Seen::Nothing,
            };
            let ttl = self.cache.settings().lease_ttl;
            // From here on the lease may be ours, whatever becomes of the answer.
            lease.held = Some((key.clone(), self.shape.field));
            batch.push(Op::Acquire {
                key,
                field: self.shape.field,
                lease: lease.token,
                seen,
                ttl,
            });
        }
        batch
    }

    fn acquired(
        &mut self,
        position: usize,
        answer: Option<&Reply>,
        noted: &Arc<Noted>,
        busy: &mut Vec<Busy>,
    ) {
        let Some(Reply::Acquired(acquired)) = answer else {
            self.states[position] = State::Direct;
            return;
        };
        if let (Some((lease, at)), Acquired::Granted) = (self.leases.get_mut(&position), acquired) {
            debug_assert!(lease.held.is_some());
            *at = Some(noted.clone());
            self.states[position] = State::Granted;
            return;
        }
        if let Some((lease, _)) = self.leases.get_mut(&position) {
            lease.held = None;
        }
        match acquired {
            Acquired::Value(bytes) => {
                self.drop_spare(position);
                self.states[position] = self.judge(position, bytes, None, noted, &mut false);
                match &self.states[position] {
                    State::Done(_) => self.coalesced(),
                    // Outdated already: asked for again, at once, with what is known of it.
                    _ => busy.push((position, Token::random(), noted.clone())),
                }
            }
            // While a generation is fenced, the load under way can be neither joined nor stored: to
            // wait for it would put all readers in a queue.
            Acquired::Busy(other) if noted.stand(self.shape.present_needs) => {
                if self.revalidating(position) {
                    return;
                }
                self.states[position] = State::Missed(self.stale(position));
                busy.push((position, *other, noted.clone()));
            }
            Acquired::Busy(_) | Acquired::Fenced | Acquired::Granted => self.fenced(position),
        }
    }

    /// Somebody else's load has answered.
    fn coalesced(&self) {
        self.cache.emit(&Event::Coalesced {
            entity: self.shape.entity,
            reads: 1,
        });
    }

    fn fenced(&mut self, position: usize) {
        self.cache.emit(&Event::Fenced {
            entity: self.shape.entity,
            reads: 1,
        });
        // A write is under way: it is old from now on.
        self.drop_spare(position);
        self.states[position] = State::Direct;
    }

    /// What is missed is to be loaded and not filled.
    fn give_up_missed(&mut self) {
        for state in &mut self.states {
            if matches!(state, State::Missed(_)) {
                *state = State::Direct;
            }
        }
    }

    /// The query, and the third request: fills what may be filled, gives the other leases back.
    async fn load_and_fill<L, F, E>(&mut self, load: &L) -> Result<(), E>
    where
        L: Fn(Vec<usize>) -> F + Sync,
        F: Future<Output = Result<Vec<P>, E>> + Send,
    {
        let positions: Vec<usize> = (0..self.states.len())
            .filter(|position| matches!(self.states[*position], State::Granted | State::Direct))
            .collect();
        if positions.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let loaded = self.load_or_spare(&positions, load).await;
        if loaded.is_err() {
            let leases = self.leases.values();
            leases.for_each(|(lease, _)| drop(lease.flight.send_replace(Some(Landing::Failed))));
        }
        let Some(loaded) = loaded? else {
            return Ok(());
        };
        self.took = begun.elapsed();
        debug_assert_eq!(loaded.len(), positions.len());
        let (mut offers, mut batch) = (Vec::new(), Vec::new());
        for (position, value) in positions.into_iter().zip(loaded) {
            if let Some((lease, op)) = self.landed(position, &value) {
                let (life, size) = match &op {
                    Op::Fill {
                        ttl, value: bytes, ..
                    } => (self.fresh_for(*ttl, &value), bytes.len()),
                    _ => (Duration::ZERO, 0),
                };
                offers.push(Offer {
                    position,
                    lease,
                    life,
                    size,
                });
                batch.push(op);
            }
            self.states[position] = State::Done(Fetched::loaded(value));
        }
        self.fill(offers, batch).await;
        Ok(())
    }

    /// Tells those who joined, and makes the op that fills the entry or gives its lease back.
    fn landed(&mut self, position: usize, value: &P) -> Option<(Lease<'a>, Op)> {
        let (lease, noted) = self.leases.remove(&position)?;
        let noted = noted?;
        let landed = Landed {
            key: self.requests[position].key.clone(),
            noted: noted.clone(),
            asked: self.requests[position].asked.clone(),
            value: Arc::new(value.clone()),
        };
        lease.flight.send_replace(Some(Landing::Loaded(landed)));
        let (key, field) = lease.held.clone()?;
        let token = lease.token;
        let op = match self.enveloped(position, value, &noted, token) {
            Some(bytes) => {
                let policy = self.shape.policy;
                let of_policy = || match value.is_present() {
                    true => policy.jittered(policy.ttl),
                    false => policy.jittered(policy.absent_ttl),
                };
                let ttl = value.ttl().unwrap_or_else(of_policy) + self.grace(value);
                Op::Fill {
                    key,
                    field,
                    lease: token,
                    value: bytes,
                    ttl,
                }
            }
            None => Op::Release {
                key,
                field,
                lease: token,
            },
        };
        Some((lease, op))
    }

    /// The value as it is stored; `None` where it may not be.
    fn enveloped(&self, position: usize, value: &P, noted: &Noted, token: Token) -> Option<Bytes> {
        let present = value.is_present();
        if noted.stand(self.shape.needs(present)) && !value.is_storable() {
            return None;
        }
        let mut payload = Vec::new();
        if let Err(error) = value.encode(&mut payload) {
            self.cache.emit(&Event::NotCached {
                entity: self.shape.entity,
                reason: &error.to_string(),
            });
            return None;
        }
        let request = &self.requests[position];
        let payload = (present, &*payload);
        let took = value.ages().then_some(self.took);
        self.cache
            .sealed(self.shape, request, noted, token, payload, took)
    }

    /// How long the value is kept past its ttl.
    fn grace(&self, value: &P) -> Duration {
        match value.ages() {
            true => self.shape.policy.grace(),
            false => Duration::ZERO,
        }
    }

    /// How much of a life in the store may be spent in this process.
    fn fresh_for(&self, life: Duration, value: &P) -> Duration {
        let early = match value.ages() {
            true => self.shape.policy.earliness(self.took),
            false => Duration::ZERO,
        };
        life.saturating_sub(self.grace(value) + early)
    }

    /// Sends the fills. The leases stay guarded until they are answered.
    async fn fill(&self, mut offers: Vec<Offer<'a>>, batch: Vec<Op>) {
        if batch.is_empty() {
            return;
        }
        let run = self.cache.run(Some(self.shape.entity), batch).await;
        let Ok(replies) = run else { return };
        for (offer, reply) in offers.iter_mut().zip(&replies.items) {
            // A fill that failed has not given its lease back.
            if !matches!(reply, Reply::Failed(_)) {
                offer.lease.held = None;
            }
            if *reply == Reply::Filled(Filled::Stored) {
                let seal = Some(offer.lease.token.get());
                self.hold(offer.position, seal, offer.life, offer.size);
            }
        }
        let count = |outcome| {
            replies
                .items
                .iter()
                .filter(|reply| **reply == Reply::Filled(outcome))
                .count() as u64
        };
        let (stored, superseded) = (count(Filled::Stored), count(Filled::Superseded));
        if stored + superseded > 0 {
            self.cache.emit(&Event::Fill {
                entity: self.shape.entity,
                stored,
                superseded,
            });
        }
    }

    /// Waits for the loads of others, together no longer than a lease lasts.
    async fn join(&mut self, busy: Vec<Busy>, pause: Duration) {
        let deadline = Instant::now() + self.cache.settings().lease_ttl;
        let mut waiting = Vec::new();
        for busy in busy {
            let position = busy.0;
            if !self.join_one(busy, deadline).await {
                waiting.push(position);
            }
        }
        if !waiting.is_empty() {
            self.wait(&waiting, pause).await;
        }
    }

    /// Waits for the fills of other processes: until the store tells of one, where it does.
    async fn wait(&self, positions: &[usize], pause: Duration) {
        let Some(watch) = &self.asked_at else {
            return tokio::time::sleep(pause).await;
        };
        // Whoever holds the lease may have died, of which nobody tells.
        let pause = LONGEST_POLL.max(pause);
        let _ = tokio::time::timeout(pause, watch.moved(positions)).await;
    }

    /// Whether there is no more to wait for. A flight of this process is joined only if its lease
    /// stood when we asked (it did: its token was the answer), it was asked for the same, and it had
    /// noted the same generations, all of them standing.
    async fn join_one(&mut self, (position, lease, noted): Busy, deadline: Instant) -> bool {
        let Some(mut flight) = self.cache.flights().find(lease) else {
            return matches!(
                self.states[position],
                State::Missed(Stale::Sealed(_) | Stale::Corrupt)
            );
        };
        let lands = flight.wait_for(Option::is_some);
        // One that hangs is outwaited.
        let landing = match tokio::time::timeout_at(deadline, lands).await {
            Ok(landing) => landing.map(|landing| landing.clone()).ok(),
            Err(_) => return false,
        };
        let landed = match landing.flatten() {
            Some(Landing::Loaded(landed)) => landed,
            failed => return self.not_landed(position, failed.is_some()).await,
        };
        let Request { key, asked, .. } = &self.requests[position];
        let same =
            |landed: &Landed| landed.key == *key && landed.noted == noted && landed.asked == *asked;
        let value = Some(landed).filter(same);
        let Some(value) = value.and_then(|landed| landed.value.downcast_ref::<P>().cloned()) else {
            return false;
        };
        if noted.stand(self.shape.needs(value.is_present())) {
            self.coalesced();
            self.states[position] = State::Done(Fetched::loaded(value));
        } else {
            self.fenced(position);
        }
        true
    }

    /// A leader that failed or went away: what has aged is answered. Else, after a failure, each of those who waited
    /// loads by itself, so that not each waits for the failures of all before it; and one whose leader went away asks
    /// again.
    async fn not_landed(&mut self, position: usize, failed: bool) -> bool {
        if self
            .rescue(&[position], self.shape.policy.stale_if_error)
            .await
        {
            return true;
        }
        if failed {
            self.states[position] = State::Direct;
        }
        failed
    }

    fn finish(self) -> Few<Fetched<P>> {
        let done = self.states.into_iter().filter_map(|state| match state {
            State::Done(fetched) => Some(fetched),
            // `fill_up` leaves no other state.
            _ => None,
        });
        done.collect()
    }
}

/// Runs a load for no longer than the policy allows.
///
/// # Errors
/// Its own, or that it took too long.
pub(crate) async fn within<T, E: From<CacheError>>(
    policy: &EntityPolicy,
    entity: &str,
    load: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let Some(after) = policy.load_timeout else {
        return load.await;
    };
    let late = |_| CacheError::LoadTimedOut {
        entity: entity.to_owned(),
        after,
    };
    let answer = tokio::time::timeout(after, load).await;
    answer.unwrap_or_else(|elapsed| Err(late(elapsed).into()))
}

/// Notes what a value depends on, before it is loaded. That of a row stands beside it, and lives as long as
/// what depends on it.
pub(crate) fn note_ops(keys: &[Key], policy: &EntityPolicy) -> Vec<Op> {
    let ttl = policy.ttl.saturating_add(policy.grace());
    let generation = |key: &Key| Op::Generation {
        key: key.clone(),
        fresh: Token::random(),
        ttl: is_entry(key).then_some(ttl),
    };
    keys.iter().map(generation).collect()
}

/// What was noted by these answers to [`note_ops`].
pub(crate) fn note(root: Token, generations: &[Reply]) -> Noted {
    let generations = generations.iter().map(|reply| match reply {
        Reply::Generation(generation) => *generation,
        _ => None,
    });
    Noted {
        root,
        generations: generations.collect(),
    }
}
