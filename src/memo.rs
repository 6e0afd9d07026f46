//! Functions that remember what they have answered: what the code of `#[memoize]` calls.

mod answer;
mod call;
mod through;

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use answer::{Answer, Probe, kind};
pub use call::Call;
use quick_cache::sync::{self, EntryAction, EntryResult};
use quick_cache::{DefaultHashBuilder, UnitWeighter};
pub use through::{MemoHome, clear, load, name, owned, path, place, stats};

use crate::clock::{self, Ticks};

/// What one function remembers in this process.
pub struct Memo {
    capacity: usize,
    ttl: Option<Duration>,
    absent_ttl: Option<Duration>,
    results: OnceLock<Results>,
    hits: AtomicU64,
    misses: AtomicU64,
}

type Results = sync::Cache<Call, Held>;

type Guard<'m> = sync::PlaceholderGuard<
    'm,
    Call,
    Held,
    UnitWeighter,
    DefaultHashBuilder,
    sync::DefaultLifecycle<Call, Held>,
>;

/// Counters of a function that `#[memoize]` lets remember its answers in this process.
///
/// # Examples
/// ```
/// use sea_orm_cache::memoize;
///
/// #[memoize(capacity = 1000)]
/// fn square(n: u64) -> u64 {
///     n * n
/// }
///
/// assert_eq!(square(3) + square(3), 18);
/// let stats = square::stats();
/// assert_eq!((stats.hits, stats.misses, stats.entries), (1, 1, 1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoStats {
    /// Calls answered from memory, or by the work of another call that was under way.
    pub hits: u64,
    /// All other calls: the function's body ran, or began to.
    pub misses: u64,
    /// How many answers are remembered, those included that are past their ttl and not yet replaced.
    pub entries: u64,
    /// How many there may be.
    pub capacity: u64,
}

/// What came of a call.
#[derive(Clone)]
enum Held {
    /// An answer, which may be that there is nothing.
    Answer {
        value: Option<Arc<dyn Any + Send + Sync>>,
        until: Ticks,
    },
    /// Its work failed then. Those who waited for it work each by themselves, not one after the other.
    Failed(Ticks),
}

/// What is known of a call.
enum Known<'m> {
    Answered(Option<Arc<dyn Any + Send + Sync>>),
    /// It is this caller's to work; who asks for the same waits while the guard is there.
    Ours(Option<Guard<'m>>),
}

impl Memo {
    /// An empty one. Without `ttl`, answers live until they are evicted or cleared; without `absent_ttl`, that
    /// there is nothing lives as long as anything else.
    pub const fn new(capacity: usize, ttl: Option<Duration>, absent_ttl: Option<Duration>) -> Self {
        Self {
            capacity,
            ttl,
            absent_ttl,
            results: OnceLock::new(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// What was answered to this call, or else what `work` answers. Of all who make the same call at the same
    /// moment one works; if it fails, each of the others does, and if it panics, the next one. No lock is held
    /// meanwhile: `work` may make other calls.
    pub fn remember<A: Answer>(
        &self,
        _: PhantomData<A>,
        call: Call,
        work: impl FnOnce() -> A::Output,
    ) -> A::Output
    where
        A::Value: Clone + Send + Sync + 'static,
    {
        let known = self.fresh(&call).unwrap_or_else(|| {
            let began = clock::now();
            known(
                self.results()
                    .entry(&call, None, |_, held| judge(held, began)),
            )
        });
        match self.recall::<A>(known) {
            Ok(answer) => answer,
            Err(guard) => self.keep::<A>(guard, work()),
        }
    }

    /// The same for work that waits. When its caller goes away, the next one works.
    pub async fn remember_async<A: Answer>(
        &self,
        _: PhantomData<A>,
        call: Call,
        work: impl Future<Output = A::Output>,
    ) -> A::Output
    where
        A::Value: Clone + Send + Sync + 'static,
    {
        let known = match self.fresh(&call) {
            Some(known) => known,
            None => {
                let began = clock::now();
                let judge = |_: &Call, held: &mut Held| judge(held, began);
                known(self.results().entry_async(&call, judge).await)
            }
        };
        match self.recall::<A>(known) {
            Ok(answer) => answer,
            Err(guard) => self.keep::<A>(guard, work.await),
        }
    }

    /// Forgets everything. Work that is under way is answered and not remembered.
    pub fn clear(&self) {
        self.results().clear();
    }

    /// The counters, as they stand.
    pub fn stats(&self) -> MemoStats {
        let is_answer = |held: &Held| matches!(held, Held::Answer { .. });
        let answers = self.results().iter();
        let entries = answers.filter(|(_, held)| is_answer(held)).count();
        MemoStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            entries: entries as u64,
            capacity: self.capacity as u64,
        }
    }

    fn results(&self) -> &Results {
        self.results.get_or_init(|| Results::new(self.capacity))
    }

    /// The usual case, under a lock that readers share. What cannot be told from other calls is worked.
    fn fresh(&self, call: &Call) -> Option<Known<'_>> {
        if let Err(reason) = call.as_str() {
            tracing::warn!(reason, "a call is not remembered");
            return Some(Known::Ours(None));
        }
        match self.results().get(call)? {
            Held::Answer { value, until } if until > clock::now() => Some(Known::Answered(value)),
            _ => None,
        }
    }

    /// The answer, or what is needed to work it out.
    fn recall<'m, A: Answer>(&self, known: Known<'m>) -> Result<A::Output, Option<Guard<'m>>>
    where
        A::Value: Clone + 'static,
    {
        let guard = match known {
            Known::Answered(value) => match value {
                None => {
                    self.hits.fetch_add(1, Ordering::Relaxed);
                    return Ok(A::join(Ok(None)));
                }
                Some(value) => match value.downcast_ref::<A::Value>() {
                    Some(value) => {
                        self.hits.fetch_add(1, Ordering::Relaxed);
                        return Ok(A::join(Ok(Some(value.clone()))));
                    }
                    None => None,
                },
            },
            Known::Ours(guard) => guard,
        };
        self.misses.fetch_add(1, Ordering::Relaxed);
        Err(guard)
    }

    fn keep<A: Answer>(&self, guard: Option<Guard<'_>>, answer: A::Output) -> A::Output
    where
        A::Value: Clone + Send + Sync + 'static,
    {
        let answer = A::split(answer);
        if let Some(guard) = guard {
            // Refused if it was cleared meanwhile.
            let _ = guard.insert(match &answer {
                Ok(value) => Held::Answer {
                    until: self.end(value.is_some()),
                    value: value.clone().map(|value| Arc::new(value) as _),
                },
                Err(_) => Held::Failed(clock::now()),
            });
        }
        A::join(answer)
    }

    /// How long something, or nothing, that is answered now is remembered.
    fn end(&self, is_some: bool) -> Ticks {
        let life = match is_some {
            true => self.ttl,
            false => self.absent_ttl.or(self.ttl),
        };
        life.map_or(Ticks(u64::MAX), |life| clock::now().after(life))
    }
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memo")
            .field("ttl", &self.ttl)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// For a caller who began at `began`.
fn judge(held: &Held, began: Ticks) -> EntryAction<Held> {
    let answers = match held {
        Held::Answer { until, .. } => *until > began,
        Held::Failed(at) => *at >= began,
    };
    match answers {
        true => EntryAction::Retain(held.clone()),
        false => EntryAction::ReplaceWithGuard,
    }
}

fn known(
    entry: EntryResult<
        '_,
        Call,
        Held,
        UnitWeighter,
        DefaultHashBuilder,
        sync::DefaultLifecycle<Call, Held>,
        Held,
    >,
) -> Known<'_> {
    match entry {
        EntryResult::Retained(Held::Answer { value, .. }) => Known::Answered(value),
        EntryResult::Retained(Held::Failed(_)) => Known::Ours(None),
        EntryResult::Vacant(guard) | EntryResult::Replaced(guard, _) => Known::Ours(Some(guard)),
        EntryResult::Removed(..) | EntryResult::Timeout => Known::Ours(None),
    }
}
