//! The cache handle: settings, the road of every invalidation, and what happens in an outage.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures_util::FutureExt;
use sea_orm::{DbBackend, DbErr};
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

use crate::builder::{CacheBuilder, Settings};
use crate::bulkhead::Bulkhead;
use crate::config::{PlainTransactions, WritePolicy};
use crate::error::CacheError;
use crate::flight::Flights;
use crate::gather::Gathers;
use crate::invalidation::Invalidation;
use crate::journal::Journal;
use crate::key::{Key, KeySpace, entity_of, tag_key};
use crate::observe::{Event, Stats, Witness};
use crate::rules::Rules;
use crate::store::{
    Breaker, Cursor, MemoryStore, Op, Replies, Reply, Store, StoreError, Token, Turned, Walked,
};
use crate::tier::Tier;

/// A cache: one cloneable handle, without type parameters.
///
/// # Examples
/// ```
/// # async fn connect(url: &str) -> Result<(), Box<dyn std::error::Error>> {
/// use sea_orm_cache::Cache;
///
/// let cache = Cache::builder().redis("redis://127.0.0.1/").build().await?;
/// let db = cache.attach(sea_orm::Database::connect(url).await?);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Cache(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Arc<dyn Store>,
    breaker: Breaker,
    journal: Journal,
    flights: Flights,
    gathers: Gathers,
    bulkhead: Bulkhead,
    tier: Option<Tier>,
    witness: Witness,
    settings: Settings,
    rules: Rules,
    /// By their labels.
    databases: RwLock<HashMap<String, (KeySpace, DbBackend)>>,
}

/// A load that is under way, until it is dropped.
pub(crate) struct Loading {
    cache: Cache,
    entity: String,
    began: Instant,
    /// Given back when the load is over.
    place: Option<OwnedSemaphorePermit>,
}

impl Drop for Loading {
    fn drop(&mut self) {
        let (entity, took) = (&*self.entity, self.began.elapsed());
        self.cache.emit(&Event::Loaded { entity, took });
        drop(self.place.take());
    }
}

/// What a writer has planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fence {
    pub(crate) writer: Token,
    /// Whether it stood before the write began; if not, its keys are in the journal.
    pub(crate) stood: bool,
}

/// The weight of an in-process cache made by [`Cache::in_memory`].
const DEFAULT_MEMORY: u64 = 64 << 20;

impl Cache {
    /// A cache with settings.
    pub fn builder() -> CacheBuilder {
        CacheBuilder::default()
    }

    /// A cache in this process's memory, of 64 MiB. Other processes do not see it, nor it their
    /// writes: for one process per database.
    pub fn in_memory() -> Self {
        Self::new(
            Arc::new(MemoryStore::new(DEFAULT_MEMORY)),
            Settings::default(),
            Witness::default(),
        )
    }

    pub(crate) fn new(store: Arc<dyn Store>, settings: Settings, witness: Witness) -> Self {
        let feed = settings.l1.and_then(|bytes| Some((store.feed()?, bytes)));
        Self(Arc::new(Shared {
            tier: feed.map(|(feed, bytes)| Tier::new(feed, bytes)),
            store,
            breaker: Breaker::default(),
            journal: Journal::default(),
            flights: Flights::default(),
            gathers: Gathers::default(),
            bulkhead: Bulkhead::new(settings.max_loads, settings.load_wait),
            witness,
            settings,
            rules: Rules::default(),
            databases: RwLock::default(),
        }))
    }

    /// All counters, as they stand.
    pub fn stats(&self) -> Stats {
        // Before the batches are counted: a batch that is merged later is counted already.
        let merged = self.0.store.merged();
        let stats = self.0.witness.stats();
        Stats {
            round_trips: stats.round_trips.saturating_sub(merged),
            undelivered: self.0.journal.len() as u64,
            degraded: !self.0.breaker.is_closed(),
            l1: self.tier().map(Tier::stats),
            ..stats
        }
    }

    /// Makes everything stale that was cached with one of these tags, whatever it is and however much; of all
    /// tenants. Of one: [`Namespace::invalidate_tags`](crate::Namespace::invalidate_tags).
    ///
    /// # Errors
    /// If the store could not be told; it will be, from the journal.
    pub async fn invalidate_tags(
        &self,
        tags: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<(), CacheError> {
        let mut invalidation = Invalidation::default();
        for tag in tags {
            invalidation.add(tag_key(&self.0.settings.prefix, None, tag.as_ref()));
        }
        self.drop_now(invalidation).await
    }

    /// Takes note of a database that is attached, and answers where its keys are.
    pub(crate) fn attached(&self, label: &str, backend: DbBackend) -> KeySpace {
        let databases = self.0.databases.write();
        let mut databases = databases.unwrap_or_else(PoisonError::into_inner);
        let space = KeySpace::new(&self.0.settings.prefix, label);
        databases.insert(label.to_owned(), (space.clone(), backend));
        space
    }

    /// Where the keys of the database with this label are, and its kind, if one is attached.
    pub(crate) fn database(&self, label: &str) -> Option<(KeySpace, DbBackend)> {
        let databases = self.0.databases.read();
        let databases = databases.unwrap_or_else(PoisonError::into_inner);
        databases.get(label).cloned()
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.0.rules
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(crate) fn tier(&self) -> Option<&Tier> {
        self.0.tier.as_ref()
    }

    pub(crate) fn witness(&self) -> &Witness {
        &self.0.witness
    }

    pub(crate) fn flights(&self) -> &Flights {
        &self.0.flights
    }

    pub(crate) fn gathers(&self) -> &Gathers {
        &self.0.gathers
    }

    pub(crate) fn plain_transactions(&self) -> PlainTransactions {
        self.0.settings.plain_transactions
    }

    pub(crate) fn emit(&self, event: &Event<'_>) {
        self.0.witness.emit(event);
    }

    /// Whether this process must leave the cache alone for any of these keys.
    pub(crate) fn bypasses<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) -> bool {
        let held = self.0.journal.holds(keys);
        if held {
            // Who delivered may have ended with its runtime.
            self.deliver();
        }
        held
    }

    /// Begins a load: what it answers is held until the load has ended.
    ///
    /// # Errors
    /// If the entity's loads take all its places for too long.
    pub(crate) async fn begin_load(&self, entity: &str) -> Result<Loading, CacheError> {
        match self.0.bulkhead.enter(entity).await {
            Ok(place) => {
                let mut loading = self.loading(entity);
                loading.place = Some(place);
                Ok(loading)
            }
            Err(error) => {
                self.emit(&Event::Overloaded { entity });
                Err(error)
            }
        }
    }

    /// Begins a load that takes no place among the others.
    pub(crate) fn loading(&self, entity: &str) -> Loading {
        self.emit(&Event::Load { entity });
        Loading {
            cache: self.clone(),
            entity: entity.to_owned(),
            began: Instant::now(),
            place: None,
        }
    }

    /// Asks the store to look at the root generation again.
    pub(crate) async fn refresh_root(&self) {
        if let Err(error) = self.0.store.refresh_root().await {
            self.store_failed(None, &error);
        }
    }

    /// A step of a walk through the store's keys: counted, and whatever the breaker says.
    pub(crate) async fn walk(&self, prefix: &str, from: &Cursor) -> Result<Walked, StoreError> {
        self.0.witness.round_trip();
        let walked = self.0.store.walk(prefix, from).await;
        walked.inspect_err(|error| self.store_failed(None, error))
    }

    /// Runs a batch: through the breaker, counted, and with one reply for each op.
    pub(crate) async fn run(
        &self,
        entity: Option<&str>,
        batch: Vec<Op>,
    ) -> Result<Replies, StoreError> {
        let answer = self.0.run(batch).await;
        answer.inspect_err(|error| self.store_failed(entity, error))
    }

    fn store_failed(&self, entity: Option<&str>, error: &StoreError) {
        self.emit(&Event::StoreFailed { entity, error });
    }

    /// Fences, runs `work`, settles. In a task of its own, so that a caller that goes away does not
    /// leave an invalidation undone. Settles whatever the database answers: a failed COMMIT may have
    /// happened. If it did not answer, it may carry the work out later still: then the fences are
    /// left to stand for their whole life.
    ///
    /// # Errors
    /// Only under [`WritePolicy::Strict`], and then `work` was not run.
    ///
    /// # Panics
    /// When `work` does.
    pub(crate) async fn guarded<T, F>(
        &self,
        invalidation: Invalidation,
        work: F,
    ) -> Result<Result<T, DbErr>, CacheError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, DbErr>> + Send + 'static,
    {
        let cache = self.clone();
        let invalidation = self.ruled(invalidation);
        let keys = invalidation.len();
        let task = async move {
            let writer = Token::random();
            let fence = cache.fence(&invalidation, writer).await?;
            let outcome = cache
                .renewing(&invalidation, writer, AssertUnwindSafe(work).catch_unwind())
                .await;
            let over = outcome.as_ref().is_ok_and(is_over);
            cache.end(&invalidation, fence, over).await;
            Ok(outcome)
        };
        let span = tracing::debug_span!("cache.write", keys);
        match tokio::spawn(task.instrument(span)).await {
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(panic))) => std::panic::resume_unwind(panic),
            Ok(Err(refused)) => Err(refused),
            Err(_) => Err(CacheError::ShuttingDown),
        }
    }

    /// Runs `work` and renews the fences while it takes long. `work` does not wait for a renewal; one
    /// that is cut off may at worst leave a fence behind, which expires.
    async fn renewing<T>(
        &self,
        invalidation: &Invalidation,
        writer: Token,
        work: impl Future<Output = T>,
    ) -> T {
        let every = self.0.settings.fence_ttl / 3;
        let renewals = async {
            loop {
                tokio::time::sleep(every).await;
                // One that fails leaves the fence as it was: it is tried again in time.
                let _ = self.0.run(self.fence_ops(invalidation, writer)).await;
            }
        };
        tokio::select! {
            biased;
            done = work => done,
            never = renewals => never,
        }
    }

    /// Plants fences under `writer`, and answers what is to be [ended](Self::end).
    ///
    /// # Errors
    /// Only under [`WritePolicy::Strict`]. Otherwise the write goes on and the keys go to the journal:
    /// not everybody who fences comes to settle.
    pub(crate) async fn fence(
        &self,
        invalidation: &Invalidation,
        writer: Token,
    ) -> Result<Fence, CacheError> {
        let planted = self.run_all(self.fence_ops(invalidation, writer)).await;
        self.count_invalidated(invalidation);
        let stood = planted.is_ok();
        match planted {
            Err(error) if invalidation.policy() == WritePolicy::Strict => {
                return Err(CacheError::Refused(error));
            }
            Err(_) => self.journal(invalidation),
            Ok(()) => {}
        }
        Ok(Fence { writer, stood })
    }

    /// Ends what [`fence`](Self::fence) began. Unless the database has done with the write, nobody
    /// knows when it happens: then the fences are left to stand for their whole life. What is filled
    /// after they have expired was read after that.
    pub(crate) async fn end(&self, invalidation: &Invalidation, fence: Fence, over: bool) {
        if over {
            return self.settle(invalidation, fence).await;
        }
        let renewed = self
            .run_all(self.fence_ops(invalidation, fence.writer))
            .await;
        if renewed.is_err() {
            self.journal(invalidation);
        }
    }

    /// Settles what [`fence`](Self::fence) planted. A failure goes to the journal.
    ///
    /// A server that was restarted under the write has lost the fence and broken the connection at once,
    /// and another process may have stored the old data since. So where the fence stood, the store is
    /// asked again before the write is acknowledged, over a new connection, whatever the breaker says.
    pub(crate) async fn settle(&self, invalidation: &Invalidation, fence: Fence) {
        let batch = || settle_ops(invalidation.keys(), fence.writer);
        let Err(error) = self.run_all(batch()).await else {
            return;
        };
        // A connection that is merely slow is as it was, and the fence with it.
        let slow = matches!(error, StoreError::Timeout(_));
        let strict = invalidation.policy() == WritePolicy::Strict;
        let told = fence.stood && (strict || !slow) && self.insist(batch()).await.is_ok();
        if !told {
            self.journal(invalidation);
        }
    }

    /// Makes keys stale whose data has changed already.
    ///
    /// # Errors
    /// If the store could not be told; it will be, from the journal.
    pub(crate) async fn drop_now(&self, invalidation: Invalidation) -> Result<(), CacheError> {
        let invalidation = self.ruled(invalidation);
        let batch = settle_ops(invalidation.keys(), Token::random());
        self.count_invalidated(&invalidation);
        self.run_all(batch).await.map_err(|error| {
            self.journal(&invalidation);
            CacheError::Store(error)
        })
    }

    fn fence_ops(&self, invalidation: &Invalidation, writer: Token) -> Vec<Op> {
        let ttl = self.0.settings.fence_ttl;
        invalidation
            .keys()
            .map(|key| Op::Fence {
                key: key.clone(),
                writer,
                ttl,
            })
            .collect()
    }

    /// Runs a batch of which every op must succeed.
    async fn run_all(&self, batch: Vec<Op>) -> Result<(), StoreError> {
        self.all_done(self.run(None, batch).await?)
    }

    /// The same, whatever the breaker says.
    async fn insist(&self, batch: Vec<Op>) -> Result<(), StoreError> {
        let answer = self.0.ask(batch).await;
        self.all_done(answer.inspect_err(|error| self.store_failed(None, error))?)
    }

    fn all_done(&self, replies: Replies) -> Result<(), StoreError> {
        match replies
            .items
            .into_iter()
            .find(|reply| *reply != Reply::Done)
        {
            None => Ok(()),
            Some(other) => {
                let error = StoreError::Protocol(format!("{other:?} to an invalidation"));
                self.store_failed(None, &error);
                Err(error)
            }
        }
    }

    fn count_invalidated(&self, invalidation: &Invalidation) {
        let mut keys = invalidation.keys().map(entity_of).peekable();
        while let Some(entity) = keys.next() {
            let mut count = 1;
            while keys.next_if_eq(&entity).is_some() {
                count += 1;
            }
            self.emit(&Event::Invalidated {
                entity,
                keys: count,
            });
        }
    }

    /// Keeps keys until the store has been told that they are stale.
    pub(crate) fn journal(&self, invalidation: &Invalidation) {
        self.0.journal.add(invalidation.keys().cloned());
        if let Some(tier) = self.tier() {
            // What asks from here on finds the journal.
            drop(tier.feed().own_change(invalidation.keys()));
        }
        self.deliver();
        self.emit(&Event::Undelivered {
            keys: self.0.journal.len() as u64,
        });
    }

    /// Sees to it that somebody delivers the journal.
    fn deliver(&self) {
        if self.0.journal.claim() {
            tokio::spawn(deliver_journal(Delivering(Arc::downgrade(&self.0))));
        }
    }
}

impl Shared {
    async fn run(&self, batch: Vec<Op>) -> Result<Replies, StoreError> {
        if !self.breaker.admits() {
            return Err(StoreError::Degraded);
        }
        self.ask(batch).await
    }

    /// Past the breaker, which learns what came of it.
    async fn ask(&self, batch: Vec<Op>) -> Result<Replies, StoreError> {
        let asked = batch.len();
        self.witness.round_trip();
        let (sent, abandoned) = (self.breaker.sent(), Abandoned(Some(&self.breaker)));
        let began = self.witness.is_observed().then(Instant::now);
        let span = tracing::debug_span!("cache.request", ops = asked);
        let answer = self.store.run(batch).instrument(span).await;
        abandoned.answered();
        if let Some(began) = began {
            let took = began.elapsed();
            self.witness.emit(&Event::RoundTrip { took });
        }
        let answer = match answer {
            Ok(replies) if replies.items.len() != asked => Err(StoreError::Protocol(format!(
                "{} replies to {asked} ops",
                replies.items.len()
            ))),
            answer => answer,
        };
        let turned = if answer.is_ok() {
            self.breaker.succeeded()
        } else {
            self.breaker.failed(sent)
        };
        match turned {
            Some(Turned::Opened) => self.witness.emit(&Event::BreakerOpened),
            Some(Turned::Closed) => self.witness.emit(&Event::BreakerClosed),
            None => {}
        }
        answer
    }
}

/// Makes room for another probe when the caller of this one goes away.
struct Abandoned<'b>(Option<&'b Breaker>);

impl Abandoned<'_> {
    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let Some(breaker) = self.0 {
            breaker.abandoned();
        }
    }
}

/// Whether the database has done with a statement, because it answered it or was never asked.
///
/// A broken connection is no answer: the server may not have noticed, and commit later.
pub(crate) fn is_over<T>(answer: &Result<T, DbErr>) -> bool {
    answer.as_ref().err().is_none_or(is_answer)
}

/// Whether the database said so itself, or was never asked.
///
/// Only the text tells, for every driver that SeaORM may be built with. What speaks of a connection may
/// be a pooler's word, for a server that is still at work. Not to recognise an answer is safe.
pub(crate) fn is_answer(error: &DbErr) -> bool {
    if matches!(error, DbErr::ConnectionAcquire(_)) {
        return true;
    }
    let text = error.to_string().to_lowercase();
    let hearsay = ["connection", "server conn", "gone away"];
    text.contains("error returned from database") && !hearsay.iter().any(|word| text.contains(word))
}

fn settle_ops<'k>(keys: impl Iterator<Item = &'k Key>, writer: Token) -> Vec<Op> {
    keys.map(|key| Op::Settle {
        key: key.clone(),
        writer,
    })
    .collect()
}

/// The claim of the one who delivers the journal, given back if its runtime ends first.
struct Delivering(Weak<Shared>);

impl Drop for Delivering {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.journal.disclaim();
        }
    }
}

/// Delivers the journal, retrying with backoff until it is empty. Ends with the cache.
async fn deliver_journal(mut claim: Delivering) {
    let mut pauses = pauses();
    loop {
        let Some(shared) = claim.0.upgrade() else {
            return;
        };
        let delivery = shared.journal.take_stock();
        let batch = settle_ops(delivery.keys.iter(), Token::random());
        match shared.run(batch).await {
            Ok(replies) if replies.items.iter().all(|reply| *reply == Reply::Done) => {
                if shared.journal.delivered(&delivery) {
                    // The claim is another's from here on.
                    claim.0 = Weak::new();
                    shared.witness.emit(&Event::Delivered {
                        keys: delivery.keys.len() as u64,
                    });
                    return;
                }
                pauses = self::pauses();
                continue;
            }
            Ok(_) => {}
            Err(error) => shared.witness.emit(&Event::StoreFailed {
                entity: None,
                error: &error,
            }),
        }
        drop(shared);
        tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
    }
}

const LONGEST_PAUSE: Duration = Duration::from_secs(1);

fn pauses() -> impl Iterator<Item = Duration> {
    growing(Duration::from_millis(20), LONGEST_PAUSE)
}

/// Pauses without end, each about twice as long as the one before.
pub(crate) fn growing(shortest: Duration, longest: Duration) -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(shortest)
        .with_max_delay(longest)
        .without_max_times()
        .with_jitter()
        .build()
}

impl Drop for Shared {
    fn drop(&mut self) {
        let keys = self.journal.len();
        if keys > 0 {
            tracing::error!(
                keys,
                "the cache ends with undelivered invalidations: other processes may read these keys stale until they expire"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::RuntimeErr;

    use super::*;

    #[test]
    fn only_the_databases_own_word_is_an_answer() {
        let error = |text: &str| DbErr::Exec(RuntimeErr::Internal(text.to_owned()));
        let answers = [
            "error returned from database: duplicate key value violates unique constraint",
            "error returned from database: 1062 (23000): Duplicate entry",
        ];
        let silence = [
            "error communicating with database: Connection reset by peer",
            "error returned from database: server conn crashed?",
            "error returned from database: terminating connection due to administrator command",
            "error returned from database: 2013 (HY000): Lost connection to MySQL server",
            "attempted to communicate with a crashed background worker",
        ];
        assert!(answers.iter().all(|text| is_answer(&error(text))));
        assert!(!silence.iter().any(|text| is_answer(&error(text))));
        assert!(is_over(&Ok(())));
    }
}
