//! Requests that are in flight at the same moment go out as one.
//!
//! A batch that finds fewer than [`Line::at_once`] requests in flight is sent at once, by its caller:
//! one that is alone costs nothing more. Any other waits until one of them has ended, and is then sent
//! together with its share of the others that wait.
//!
//! # Shared look-ups
//! A look-up that stands in several batches of one request is sent once, and its answer is given to
//! all of them. Each caller may take it for its own: the request is put together and sent after all
//! of its callers have called, and answered before any of them returns, so what was looked up stood
//! at some moment within each call. Only the order of look-ups of different keys within a batch may
//! change, and no reader depends on that: a value is valid if it *and* its generations stood at any
//! moments after the call, since neither comes back under its name (see `CONSISTENCY.md`).
//! [`Op::Generation`] is shared as well: of several with one key all but the first would find what
//! that one has found or made; and if a fence kills it in between, it was noted too early, which is
//! a miss. All other ops change what is theirs alone, and are never shared; nor is a look-up behind
//! a change of the same key in its own batch.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use super::{Cursor, Feed, Fingerprint, Op, Replies, Reply, Store, StoreError, Walked};
use crate::key::Key;

/// To a store that answers within this time two requests are in flight at once: while it works on the
/// one, we do on the other's answers. More would only be smaller. Further away, where batches would wait
/// for long, there is one more for each such time.
const NEAR: Duration = Duration::from_micros(200);
const AT_ONCE: usize = 2;

/// The most requests in flight at once.
const MOST_AT_ONCE: usize = 4;

/// Batches of more ops than this are sent alone: they are large enough already.
const LONGEST_BATCH: usize = 32;

/// A request holds at most this many ops before shared ones are left out: 128 hits.
const LONGEST_REQUEST: usize = 384;

/// So many generations are looked for in one request; further ones are asked for again.
const MOST_GENERATIONS: usize = 16;

/// Values to store of more bytes than this are sent alone.
const HEAVIEST_BATCH: usize = 16 << 10;

/// A request asks for about as many values as weigh this many bytes together, so that small ones do
/// not wait for many large ones, and no answer takes longer than its time for being long.
const HEAVIEST_ANSWER: usize = 256 << 10;

/// A store whose requests are coalesced.
///
/// Batches that fence or settle never wait.
#[derive(Debug)]
pub struct Coalesced(Arc<Line>);

/// Those who wait for their turn.
#[derive(Debug)]
struct Line {
    store: Arc<dyn Store>,
    limit: Duration,
    state: Mutex<State>,
    /// How many batches needed no request of their own.
    merged: AtomicU64,
    /// About how many bytes one op is answered with.
    weight: AtomicUsize,
    /// In how many microseconds the fastest of the latest requests was answered.
    fastest: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    /// Requests.
    in_flight: usize,
    /// The batches in them.
    sent: usize,
    waiting: VecDeque<Waiting>,
}

type Answer = Result<Replies, StoreError>;

#[derive(Debug)]
struct Waiting {
    batch: Vec<Op>,
    since: Instant,
    answer: oneshot::Sender<Answer>,
}

/// The right to have one request in flight.
struct Slot {
    line: Arc<Line>,
    /// How many batches are in that request.
    sent: usize,
    /// Unless it is on its way to a task that does not run yet.
    held: bool,
}

/// Where a batch goes.
enum Way {
    /// Out, at once.
    Free(Slot, Vec<Op>),
    /// In line.
    Line(oneshot::Receiver<Answer>),
}

impl Coalesced {
    /// Coalesces the requests to `store`, which by itself answers or fails within `limit`. A batch
    /// that must wait is answered or fails within `limit`, too, the wait included.
    pub fn around(store: Arc<dyn Store>, limit: Duration) -> Self {
        Self(Arc::new(Line {
            store,
            limit,
            state: Mutex::default(),
            merged: AtomicU64::new(0),
            weight: AtomicUsize::new(0),
            fastest: AtomicUsize::new(0),
        }))
    }
}

#[async_trait::async_trait]
impl Store for Coalesced {
    async fn run(&self, batch: Vec<Op>) -> Answer {
        if goes_alone(&batch) {
            return self.0.store.run(batch).await;
        }
        match self.0.enter(batch) {
            Way::Free(slot, batch) => slot.line.run(batch).await,
            Way::Line(answer) => {
                let cut_off = || StoreError::Unreachable("the request was cut off".to_owned());
                answer.await.unwrap_or_else(|_| Err(cut_off()))
            }
        }
    }

    async fn refresh_root(&self) -> Result<(), StoreError> {
        self.0.store.refresh_root().await
    }

    async fn walk(&self, prefix: &str, from: &Cursor) -> Result<Walked, StoreError> {
        self.0.store.walk(prefix, from).await
    }

    fn feed(&self) -> Option<Arc<Feed>> {
        self.0.store.feed()
    }

    fn merged(&self) -> u64 {
        self.0.merged.load(Ordering::Relaxed) + self.0.store.merged()
    }
}

/// Whether a batch does not wait for others. A write has fences and settles in batches of their own:
/// a database is waiting for the one and all readers of its keys for the other, and there are few.
fn goes_alone(batch: &[Op]) -> bool {
    let bytes = |op: &Op| match op {
        Op::Fill { value, .. } => value.len(),
        _ => 0,
    };
    batch.len() > LONGEST_BATCH
        || batch.iter().any(Op::invalidates)
        || batch.iter().map(bytes).sum::<usize>() > HEAVIEST_BATCH
}

impl Line {
    fn enter(self: &Arc<Self>, batch: Vec<Op>) -> Way {
        if let Some(slot) = self.free(&mut self.state()) {
            return Way::Free(slot, batch);
        }
        // Made while nobody waits for the lock.
        let (answer, receiver) = oneshot::channel();
        let waiting = Waiting {
            batch,
            since: Instant::now(),
            answer,
        };
        let mut state = self.state();
        match self.free(&mut state) {
            Some(slot) => Way::Free(slot, waiting.batch),
            None => {
                state.waiting.push_back(waiting);
                Way::Line(receiver)
            }
        }
    }

    /// A slot, if there is one: then nobody waits.
    fn free(self: &Arc<Self>, state: &mut State) -> Option<Slot> {
        let free = state.in_flight < self.at_once();
        free.then(|| {
            state.in_flight += 1;
            state.sent += 1;
            Slot {
                line: Arc::clone(self),
                sent: 1,
                held: true,
            }
        })
    }

    async fn run(&self, batch: Vec<Op>) -> Answer {
        let sent = Instant::now();
        let answer = self.store.run(batch).await;
        if let Ok(replies) = &answer {
            self.weigh(&replies.items);
            self.time(sent.elapsed());
        }
        answer
    }

    /// How many requests may be in flight before batches wait.
    fn at_once(&self) -> usize {
        let fastest = self.fastest.load(Ordering::Relaxed);
        (AT_ONCE + fastest / NEAR.as_micros() as usize).min(MOST_AT_ONCE)
    }

    /// Takes note of how long a request has taken. The fastest ones tell how far away the store is,
    /// and the others how busy it or this process is.
    fn time(&self, took: Duration) {
        let now = usize::try_from(took.as_micros()).unwrap_or(usize::MAX);
        let before = self.fastest.load(Ordering::Relaxed);
        let slower = before.saturating_add(before / 32 + 1);
        self.fastest.store(now.min(slower), Ordering::Relaxed);
    }

    fn weigh(&self, items: &[Reply]) {
        let bytes = |item: &Reply| match item {
            Reply::Value(Some(value)) => value.len(),
            _ => 0,
        };
        let now = items.iter().map(bytes).sum::<usize>() / items.len().max(1);
        let before = self.weight.load(Ordering::Relaxed);
        // Few large values among many small ones are remembered for a while.
        let weight = now.max(before - before.div_ceil(4));
        self.weight.store(weight, Ordering::Relaxed);
    }

    /// Never held across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The first of those who wait, as many as one request holds, and no more than the others in
    /// flight: requests of a like size keep both sides at work. Who has gone away is left out.
    fn next(&mut self) -> Vec<Waiting> {
        let line = &self.line;
        let weight = line.weight.load(Ordering::Relaxed).max(1);
        let mut room = LONGEST_REQUEST.min(HEAVIEST_ANSWER / weight);
        let (mut next, mut gone) = (Vec::new(), Vec::new());
        let at_once = line.at_once();
        let mut state = line.state();
        state.sent -= std::mem::take(&mut self.sent);
        let share = (state.waiting.len() + state.sent).div_ceil(at_once);
        while let Some(first) = state.waiting.front() {
            let ops = first.batch.len();
            if !next.is_empty() && (ops > room || next.len() >= share) {
                break;
            }
            let Some(first) = state.waiting.pop_front() else {
                break;
            };
            if first.answer.is_closed() {
                gone.push(first);
                continue;
            }
            room = room.saturating_sub(ops);
            next.push(first);
        }
        self.sent = next.len();
        state.sent += self.sent;
        drop(state);
        let unsent = gone.len() + next.len().saturating_sub(1);
        line.merged.fetch_add(unsent as u64, Ordering::Relaxed);
        next
    }
}

impl Drop for Slot {
    /// Hands the slot on to those who wait, also when its holder went away. They are sent by a task
    /// of their own, which none of them can take along when it goes.
    fn drop(&mut self) {
        let mut state = self.line.state();
        state.sent -= std::mem::take(&mut self.sent);
        if state.waiting.is_empty() {
            state.in_flight -= 1;
            return;
        }
        match Handle::try_current() {
            Ok(runtime) if self.held => {
                drop(state);
                let line = Arc::clone(&self.line);
                let slot = Slot {
                    line,
                    sent: 0,
                    held: false,
                };
                runtime.spawn(send_all(slot));
            }
            // The runtime has ended, or ends while this is dropped, and with it what could answer.
            _ => {
                state.in_flight -= 1;
                let cut_off = std::mem::take(&mut state.waiting);
                drop(state);
                drop(cut_off);
            }
        }
    }
}

/// Sends what waits until nothing does.
async fn send_all(mut slot: Slot) {
    slot.held = true;
    loop {
        let next = slot.next();
        if next.is_empty() {
            return;
        }
        Request::of(next).send(&slot.line).await;
        // Those who were answered run first: what they ask for now goes out together.
        yield_now().await;
    }
}

/// Several batches in one.
struct Request {
    ops: Vec<Op>,
    /// How many ops of the callers each of `ops` stands for.
    uses: Vec<usize>,
    /// For each op of each caller, one after the other, which of `ops` it is.
    places: Vec<usize>,
    /// The callers, and how many ops each has.
    callers: Vec<(usize, oneshot::Sender<Answer>)>,
    /// Since when the first of them has waited.
    since: Instant,
    /// Where values are looked up that later callers may want as well, each with a hint.
    reads: Vec<(u64, usize)>,
    /// The same of generations.
    generations: Vec<usize>,
}

impl Request {
    fn of(waiting: Vec<Waiting>) -> Self {
        let all = waiting.iter().map(|waiting| waiting.batch.len()).sum();
        // Of a hit's ops one is its own.
        let own = waiting.len() + LONGEST_BATCH;
        let mut request = Self {
            ops: Vec::with_capacity(own),
            uses: Vec::with_capacity(own),
            places: Vec::with_capacity(all),
            callers: Vec::with_capacity(waiting.len()),
            since: waiting
                .first()
                .map_or_else(Instant::now, |first| first.since),
            reads: Vec::with_capacity(own),
            generations: Vec::new(),
        };
        for Waiting { batch, answer, .. } in waiting {
            request.callers.push((batch.len(), answer));
            let first = request.places.len();
            for op in batch {
                request.add(op, first);
            }
        }
        request
    }

    /// Adds an op of the caller whose first one is at `first` in `places`.
    fn add(&mut self, op: Op, first: usize) {
        let changed = |place: &usize| changes(&self.ops[*place], op.key());
        let shared = match self.places[first..].iter().any(changed) {
            true => None,
            false => self.shared(&op),
        };
        let place = shared.unwrap_or(self.ops.len());
        self.places.push(place);
        if let Some(uses) = self.uses.get_mut(place) {
            *uses += 1;
            return;
        }
        self.ops.push(op);
        self.uses.push(1);
    }

    /// Where the same is looked up already. If it is not, but later callers may want it, its place
    /// is remembered.
    fn shared(&mut self, op: &Op) -> Option<usize> {
        let place = self.ops.len();
        match op {
            Op::Read { key, field } => {
                let hint = hint(key, *field);
                let same = |(other, place): &&(u64, usize)| {
                    *other == hint
                        && matches!(&self.ops[*place], Op::Read { key: k, field: f } if k == key && f == field)
                };
                let found = self.reads.iter().find(same).map(|(_, place)| *place);
                if found.is_none() {
                    self.reads.push((hint, place));
                }
                found
            }
            // Few, but most batches have some: quicker compared than hashed.
            Op::Peek { .. } | Op::Generation { .. } => {
                let kind = std::mem::discriminant(op);
                let same = |place: &&usize| {
                    let other = &self.ops[**place];
                    std::mem::discriminant(other) == kind && other.key() == op.key()
                };
                let found = self.generations.iter().find(same).copied();
                if found.is_none() && self.generations.len() < MOST_GENERATIONS {
                    self.generations.push(place);
                }
                found
            }
            _ => None,
        }
    }

    /// Sends it and hands the answers out. One timer bounds the wait of all: those who came later
    /// have waited for less than the first, and each request before ended within its first one's
    /// time, so none that waits is late before it is sent.
    async fn send(self, line: &Line) {
        let left = line.limit.saturating_sub(self.since.elapsed());
        let (expected, late) = (self.ops.len(), StoreError::Timeout(line.limit));
        let answer = timeout(left, line.run(self.ops)).await;
        let mut answer = answer.unwrap_or(Err(late)).and_then(|replies| {
            if replies.items.len() == expected {
                return Ok(replies);
            }
            let text = format!("{} replies to {expected} ops", replies.items.len());
            Err(StoreError::Protocol(text))
        });
        let (mut places, mut uses) = (self.places.into_iter(), self.uses);
        for (ops, caller) in self.callers {
            let own = places.by_ref().take(ops);
            let answer = match &mut answer {
                Err(error) => Err(error.clone()),
                Ok(Replies { root, items }) => Ok(Replies {
                    root: *root,
                    items: own.map(|place| hand_out(place, items, &mut uses)).collect(),
                }),
            };
            // Who has gone away does not want it any more.
            let _ = caller.send(answer);
        }
    }
}

/// Some of a value's name, to tell most values apart at a glance: there are too few to be hashed.
fn hint(key: &Key, field: Fingerprint) -> u64 {
    let end = key.as_str().as_bytes().last_chunk();
    end.map_or(0, |end| u64::from_le_bytes(*end)) ^ field.0
}

/// The last who wants a reply gets it itself.
fn hand_out(place: usize, items: &mut [Reply], uses: &mut [usize]) -> Reply {
    uses[place] -= 1;
    match uses[place] {
        0 => std::mem::replace(&mut items[place], Reply::Done),
        _ => items[place].clone(),
    }
}

/// Whether an op changes something of `key`, other than to make a generation that is missing.
fn changes(op: &Op, key: &Key) -> bool {
    !op.is_read() && !matches!(op, Op::Generation { .. }) && op.key() == key
}

#[cfg(test)]
mod tests;
