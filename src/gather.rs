//! Loads of different keys that are wanted at the same moment run as one query.
//!
//! A reader that finds fewer than [`AT_ONCE`] queries of its gather under way runs its own at once.
//! Any other one queues its keys; when a query has ended, the first in the queue leads: it runs one
//! query for its own keys and for all that are queued, and hands the rows out.
//!
//! A query answers only readers that had queued before it was sent, so for each of them it is as
//! fresh as one of its own, and each reader's lease and what it has noted are older than the query.
//! A leader that goes away leaves nobody behind: its place passes on when it is dropped, and its
//! followers try again.

use std::any::{Any, TypeId};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use sea_orm::DbErr;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::cache::Cache;
use crate::key::{KeySpace, Pk};
use crate::observe::Event;

/// This many queries of one gather run before readers queue. With two, both often end together, and
/// the second of the two that follow has nobody to take along.
const AT_ONCE: usize = 1;

/// How long a reader waits in the queue before it leads whatever is under way: where queries take
/// long, waiting for one must not double what a read takes, and one that hangs must hold nobody up.
/// How many queries may run is the bulkhead's matter.
const PATIENCE: Duration = Duration::from_millis(5);

/// Past this many gathers those that nobody uses are forgotten: every tenant has some of its own.
const MOST_GATHERS: usize = 1_024;

/// The keys that one reader wants.
pub(crate) type Wanted = Arc<Vec<Pk>>;

/// What a load is a load of.
pub(crate) struct Load<'a> {
    pub(crate) cache: &'a Cache,
    pub(crate) gathers: &'a Gathers,
    pub(crate) space: &'a KeySpace,
    pub(crate) entity: &'a str,
    /// The most keys of one query.
    pub(crate) most: usize,
}

/// All gathers of a cache: one for each entity of each database.
pub(crate) struct Gathers {
    patience: Duration,
    all: RwLock<HashMap<(KeySpace, TypeId), Arc<dyn Any + Send + Sync>>>,
}

/// The loads under way and wanted of one entity; `R` is what one key is answered with.
struct Gather<R>(Mutex<Queue<R>>);

struct Queue<R> {
    under_way: usize,
    queued: VecDeque<Follower<R>>,
}

struct Follower<R> {
    wanted: Wanted,
    turn: oneshot::Sender<Turn<R>>,
}

/// What becomes of a queued reader.
enum Turn<R> {
    /// It runs the next query.
    Lead(Place<R>),
    /// Somebody else's query has answered.
    Answered(Vec<R>),
    /// Somebody else's query has failed: it runs its own.
    Alone,
}

/// The right to run a query: handed on when it is dropped.
struct Place<R>(Option<Arc<Gather<R>>>);

impl Load<'_> {
    /// Answers `wanted` by `query`, which may be asked for the keys of others at the same time, and
    /// answers once for each key, in order.
    pub(crate) async fn run<R, Q, F>(&self, wanted: Vec<Pk>, query: Q) -> Result<Vec<R>, DbErr>
    where
        R: Send + 'static,
        Q: Fn(Vec<Wanted>) -> F,
        F: Future<Output = Result<Vec<R>, DbErr>>,
    {
        let wanted = Arc::new(wanted);
        // Of many keys there is little to be gained, and they would hold up those of others.
        if wanted.len() > self.most / 10 {
            return self.alone(wanted, query).await;
        }
        let gather = self.gathers.of::<R>(self.space);
        loop {
            match gather.turn(&wanted, self.gathers.patience).await {
                Some(Turn::Lead(place)) => return self.lead(wanted, &gather, place, query).await,
                Some(Turn::Answered(rows)) => {
                    let (entity, reads) = (self.entity, rows.len() as u64);
                    self.cache.emit(&Event::Coalesced { entity, reads });
                    return Ok(rows);
                }
                Some(Turn::Alone) => return self.alone(wanted, query).await,
                None => {}
            }
        }
    }

    /// Runs one query for all that want something.
    async fn lead<R, Q, F>(
        &self,
        wanted: Wanted,
        gather: &Gather<R>,
        place: Place<R>,
        query: Q,
    ) -> Result<Vec<R>, DbErr>
    where
        Q: Fn(Vec<Wanted>) -> F,
        F: Future<Output = Result<Vec<R>, DbErr>>,
    {
        let under_way = self.cache.begin_load(self.entity).await?;
        let followers = gather.take(self.most - wanted.len());
        let mut all = vec![Arc::clone(&wanted)];
        all.extend(followers.iter().map(|one| Arc::clone(&one.wanted)));
        let answer = query(all).await;
        drop((under_way, place));
        match answer {
            Ok(rows) => Ok(hand_out(rows, &wanted, followers)),
            Err(error) if followers.is_empty() => Err(error),
            // It may be one key's fault: then it is only that reader's error.
            Err(_) => {
                for follower in followers {
                    let _ = follower.turn.send(Turn::Alone);
                }
                self.alone(wanted, query).await
            }
        }
    }

    async fn alone<R, Q, F>(&self, wanted: Wanted, query: Q) -> Result<Vec<R>, DbErr>
    where
        Q: Fn(Vec<Wanted>) -> F,
        F: Future<Output = Result<Vec<R>, DbErr>>,
    {
        let _under_way = self.cache.begin_load(self.entity).await?;
        query(vec![wanted]).await
    }
}

/// Gives the followers their rows and answers the leader's.
fn hand_out<R>(rows: Vec<R>, own: &Wanted, followers: Vec<Follower<R>>) -> Vec<R> {
    let mut rows = rows.into_iter();
    let own = rows.by_ref().take(own.len()).collect();
    for Follower { wanted, turn } in followers {
        let answered = rows.by_ref().take(wanted.len()).collect();
        // Who has gone away does not want it any more.
        let _ = turn.send(Turn::Answered(answered));
    }
    own
}

impl Default for Gathers {
    fn default() -> Self {
        Self {
            patience: PATIENCE,
            all: RwLock::default(),
        }
    }
}

impl Gathers {
    fn of<R: Send + 'static>(&self, space: &KeySpace) -> Arc<Gather<R>> {
        let name = (space.clone(), TypeId::of::<R>());
        let gathers = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let known = gathers.get(&name).cloned();
        drop(gathers);
        let gather = known.unwrap_or_else(|| {
            let mut gathers = self.all.write().unwrap_or_else(PoisonError::into_inner);
            if gathers.len() >= MOST_GATHERS {
                gathers.retain(|_, gather| Arc::strong_count(gather) > 1);
            }
            let new = || Arc::new(Gather::<R>::new()) as Arc<dyn Any + Send + Sync>;
            Arc::clone(gathers.entry(name).or_insert_with(new))
        });
        // The type is a part of the name. Another one would only not be shared.
        gather
            .downcast()
            .unwrap_or_else(|_| Arc::new(Gather::new()))
    }
}

impl fmt::Debug for Gathers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gathers").finish_non_exhaustive()
    }
}

impl<R> Gather<R> {
    fn new() -> Self {
        Self(Mutex::new(Queue {
            under_way: 0,
            queued: VecDeque::new(),
        }))
    }

    /// Waits for a reader's turn. `None` if the query that took its keys along was given up.
    async fn turn(self: &Arc<Self>, wanted: &Wanted, patience: Duration) -> Option<Turn<R>> {
        let mut turn = match self.enter(wanted) {
            Ok(place) => return Some(Turn::Lead(place)),
            Err(turn) => turn,
        };
        match timeout(patience, &mut turn).await {
            Ok(turn) => turn.ok(),
            Err(_) if self.leave(wanted) => Some(Turn::Lead(Place(None))),
            // Its query is under way.
            Err(_) => turn.await.ok(),
        }
    }

    /// A place, or what is told to one in the queue.
    fn enter(self: &Arc<Self>, wanted: &Wanted) -> Result<Place<R>, oneshot::Receiver<Turn<R>>> {
        let mut queue = self.lock();
        if queue.under_way < AT_ONCE {
            queue.under_way += 1;
            return Ok(Place(Some(Arc::clone(self))));
        }
        let (sender, turn) = oneshot::channel();
        queue.queued.push_back(Follower {
            wanted: Arc::clone(wanted),
            turn: sender,
        });
        Err(turn)
    }

    /// Whether the reader was still in the queue.
    fn leave(&self, wanted: &Wanted) -> bool {
        let mut queue = self.lock();
        let own = |follower: &Follower<R>| Arc::ptr_eq(&follower.wanted, wanted);
        let place = queue.queued.iter().position(own);
        place.is_some_and(|place| queue.queued.remove(place).is_some())
    }

    /// Takes the first in the queue along, up to this many keys.
    fn take(&self, mut room: usize) -> Vec<Follower<R>> {
        let mut taken = Vec::new();
        let mut queue = self.lock();
        while let Some(first) = queue.queued.front() {
            let wants = match first.turn.is_closed() {
                true => 0,
                false => first.wanted.len(),
            };
            let Some(left) = room.checked_sub(wants) else {
                break;
            };
            room = left;
            taken.extend(queue.queued.pop_front());
        }
        drop(queue);
        taken.retain(|follower| !follower.turn.is_closed());
        taken
    }

    /// The first in the queue; without one, the place is free.
    fn next(&self) -> Option<Follower<R>> {
        let mut queue = self.lock();
        let next = queue.queued.pop_front();
        if next.is_none() {
            queue.under_way -= 1;
        }
        next
    }

    /// Never held across an await.
    fn lock(&self) -> MutexGuard<'_, Queue<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R> Drop for Place<R> {
    fn drop(&mut self) {
        let Some(gather) = self.0.take() else { return };
        let mut turn = Turn::Lead(Self(Some(Arc::clone(&gather))));
        while let Some(next) = gather.next() {
            match next.turn.send(turn) {
                Ok(()) => return,
                // It has gone away: the next one's turn.
                Err(back) => turn = back,
            }
        }
        // The place is free: nobody is to hand it on.
        if let Turn::Lead(place) = &mut turn {
            place.0 = None;
        }
    }
}

#[cfg(test)]
mod tests;
