//! A store on the way to which things go wrong.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::pause::{Pause, Point, Side, Which};
use crate::store::{Cursor, Feed, Op, Replies, Store, StoreError, Walked};

/// Something that goes wrong with batches on their way: all of them, until it is narrowed down.
#[must_use = "a fault does nothing until it is injected"]
pub struct Fault {
    kind: Kind,
    /// `None` is every batch.
    on: Option<Which>,
    chance: f64,
    /// How many batches it has yet to hit; `None` is no end.
    left: Option<AtomicU64>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Delay(Duration),
    Refuse,
    LoseReply,
}

impl Fault {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            on: None,
            chance: 1.0,
            left: None,
        }
    }

    /// The batch fails and is not carried out.
    pub fn refuse() -> Self {
        Self::new(Kind::Refuse)
    }

    /// The batch is carried out, and fails all the same: its answer is lost.
    pub fn lose_reply() -> Self {
        Self::new(Kind::LoseReply)
    }

    /// The batch arrives this much later, in tokio's time.
    pub fn delay(by: Duration) -> Self {
        Self::new(Kind::Delay(by))
    }

    /// Only batches that contain such an op, for instance [`Op::is_fill`].
    pub fn on(self, which: impl Fn(&Op) -> bool + Send + Sync + 'static) -> Self {
        Self {
            on: Some(Box::new(which)),
            ..self
        }
    }

    /// Only the next so many of those batches.
    pub fn times(self, batches: u64) -> Self {
        Self {
            left: Some(AtomicU64::new(batches)),
            ..self
        }
    }

    /// Each of those batches with this probability, from 0 to 1. The dice of a store always fall the
    /// same.
    pub fn chance(self, probability: f64) -> Self {
        Self {
            chance: probability,
            ..self
        }
    }

    fn concerns(&self, batch: &[Op]) -> bool {
        self.on.as_ref().is_none_or(|on| batch.iter().any(on))
    }

    /// Whether there was one left.
    fn strikes(&self) -> bool {
        let fewer = |left: u64| left.checked_sub(1);
        let order = Ordering::SeqCst;
        self.left
            .as_ref()
            .is_none_or(|left| left.fetch_update(order, order, fewer).is_ok())
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault")
            .field("kind", &self.kind)
            .field("chance", &self.chance)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// One process's way to a store, on which batches are delayed, lost, held, and the process dies.
///
/// Give each process one of its own around one shared [`Server`](super::Server) or
/// [`RedisStore`](crate::store::RedisStore); what happens to the server itself goes around that once.
/// Without faults it changes nothing.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    state: Mutex<State>,
    /// Has no permits: closed when the process has crashed.
    life: Semaphore,
}

struct State {
    faults: Vec<Arc<Fault>>,
    points: Vec<Arc<Point>>,
    fenced: BTreeSet<String>,
    dice: fastrand::Rng,
}

/// What becomes of one batch.
#[derive(Default)]
struct Fate {
    delay: Duration,
    refused: bool,
    reply_lost: bool,
}

impl FaultyStore {
    /// A way to `inner`. Shared, as [`CacheBuilder::store`](crate::CacheBuilder::store) wants it.
    pub fn around(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            state: Mutex::new(State {
                faults: Vec::new(),
                points: Vec::new(),
                fenced: BTreeSet::new(),
                dice: fastrand::Rng::with_seed(0),
            }),
            life: Semaphore::new(0),
        })
    }

    /// Adds a fault to those that there are, until [`heal`](Self::heal).
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(Arc::new(fault));
    }

    /// Nothing arrives until [`heal`](Self::heal): [`Fault::refuse`] for every batch.
    pub fn outage(&self) {
        self.inject(Fault::refuse());
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// From now on batches that contain such an op wait before they are carried out.
    ///
    /// A reader that waits before [`Op::is_fill`] has done its query; a writer that waits before
    /// [`Op::is_settle`] has planted its fence and written.
    pub fn pause_before(&self, stops: impl Fn(&Op) -> bool + Send + Sync + 'static) -> Pause {
        self.pause(Side::Before, Box::new(stops))
    }

    /// From now on batches that contain such an op wait when they were carried out, before their
    /// answer comes.
    ///
    /// A writer that waits after [`Op::is_fence`] has planted its fence and not yet written.
    pub fn pause_after(&self, stops: impl Fn(&Op) -> bool + Send + Sync + 'static) -> Pause {
        self.pause(Side::After, Box::new(stops))
    }

    fn pause(&self, side: Side, stops: Which) -> Pause {
        let pause = Pause::new(side, stops);
        let mut state = self.state();
        state.points.retain(|point| !point.is_over());
        state.points.push(pause.point());
        pause
    }

    /// The process dies: nothing of it arrives any more, and its tasks unwind where they wait for an
    /// answer, paused ones included, so that their transactions are rolled back.
    ///
    /// A write that was under way answers an error; whether the database has carried it out depends
    /// on where it was. Let tasks of their own run what is to die, as `tokio::spawn` does. Who goes
    /// on to use a cache over this store panics.
    pub fn crash(&self) {
        self.life.close();
    }

    /// The keys fenced since this was last asked: what the writes made stale.
    pub fn take_fenced(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.state().fenced)
    }

    /// Never held across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self, batch: &[Op]) -> Fate {
        let faults = self.state().faults.clone();
        let mut fate = Fate::default();
        for fault in faults.iter().filter(|fault| fault.concerns(batch)) {
            if self.state().dice.f64() >= fault.chance || !fault.strikes() {
                continue;
            }
            match fault.kind {
                Kind::Delay(by) => fate.delay += by,
                Kind::Refuse => fate.refused = true,
                Kind::LoseReply => fate.reply_lost = true,
            }
        }
        fate
    }

    /// Waits at every pause point that stops this batch, also at those that are set meanwhile.
    async fn pass(&self, side: Side, batch: &[Op]) {
        loop {
            let points = self.state().points.clone();
            match points.iter().find(|point| point.stops(side, batch)) {
                Some(point) => point.wait().await,
                None => return,
            }
        }
    }

    async fn carry_out(&self, batch: Vec<Op>) -> Result<Replies, StoreError> {
        self.pass(Side::Before, &batch).await;
        let fate = self.fate(&batch);
        fate.arrive().await?;
        let fences = batch.iter().filter(|op| op.is_fence());
        let fenced = fences.map(|op| op.key().to_string());
        self.state().fenced.extend(fenced);
        let answer = self.inner.run(batch.clone()).await;
        self.pass(Side::After, &batch).await;
        fate.reply()?;
        answer
    }

    /// Runs `work`, or ends the task if the process crashes or has crashed.
    async fn living<T>(&self, quietly: bool, work: impl Future<Output = T>) -> T {
        if self.life.is_closed() && !quietly {
            panic!("this process has crashed: use another cache");
        }
        tokio::select! {
            biased;
            // Only ever answers that it was closed. No message: it is what the test asked for.
            _ = self.life.acquire() => resume_unwind(Box::new("this process has crashed")),
            answer = work => answer,
        }
    }
}

impl Fate {
    async fn arrive(&self) -> Result<(), StoreError> {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        match self.refused {
            true => Err(StoreError::Unreachable("the test refuses it".to_owned())),
            false => Ok(()),
        }
    }

    fn reply(&self) -> Result<(), StoreError> {
        match self.reply_lost {
            true => Err(StoreError::Unreachable(
                "the test lost the reply".to_owned(),
            )),
            false => Ok(()),
        }
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore")
            .field("inner", &self.inner)
            .field("faults", &self.state().faults)
            .field("crashed", &self.life.is_closed())
            .finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl Store for FaultyStore {
    async fn run(&self, batch: Vec<Op>) -> Result<Replies, StoreError> {
        // What guards give back when they are dropped.
        let quietly = batch.iter().all(|op| op.is_settle() || op.is_release());
        self.living(quietly, self.carry_out(batch)).await
    }

    async fn refresh_root(&self) -> Result<(), StoreError> {
        let refresh = async {
            let fate = self.fate(&[]);
            fate.arrive().await?;
            self.inner.refresh_root().await?;
            fate.reply()
        };
        self.living(false, refresh).await
    }

    async fn walk(&self, prefix: &str, from: &Cursor) -> Result<Walked, StoreError> {
        let walk = async {
            let fate = self.fate(&[]);
            fate.arrive().await?;
            let walked = self.inner.walk(prefix, from).await?;
            fate.reply()?;
            Ok(walked)
        };
        self.living(false, walk).await
    }

    fn merged(&self) -> u64 {
        self.inner.merged()
    }

    fn feed(&self) -> Option<Arc<Feed>> {
        self.inner.feed()
    }
}
