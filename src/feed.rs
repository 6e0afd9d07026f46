//! The change feed: writes that did not come through the library.

use std::any::Any;
use std::future::{Future, pending};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use sea_orm::DbErr;
use tokio::time::timeout;

use crate::cache::growing;
use crate::error::CacheError;
use crate::observe::Event;
use crate::orm::connection::CachedConnection;
use crate::orm::effects::RowChange;
use crate::orm::site::Site;

mod alarm;
mod outbox;

use alarm::Alarm;
use outbox::{Outbox, PATIENCE};

/// Why changes could not be applied. They are kept.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// The database failed, or there is no outbox in it.
    #[error("the outbox: {0}")]
    Database(#[from] DbErr),
    /// The cache could not be told.
    #[error("{0}")]
    Cache(#[from] CacheError),
    /// A [rule](crate::Cache::on_change) or an observer did, with this message.
    #[error("a rule or an observer panicked: {0}")]
    Panicked(String),
}

/// Applies what triggers have written down of the changes to watched tables, whoever made them: the outbox of the
/// crate `sea-orm-cache-migration`.
///
/// Any number of feeds, in any number of processes, share the work, if all tell the same cache: what one has applied to
/// its cache is gone from the outbox. For caches of different prefixes or stores on one database, one feed tells
/// [also](Self::also) the other. Settings are builder functions.
///
/// # Examples
/// ```no_run
/// # async fn run(db: sea_orm_cache::CachedConnection) {
/// use sea_orm_cache::Feed;
///
/// let feed = Feed::new(&db);
/// tokio::spawn(async move { feed.run().await });
/// # }
/// ```
///
/// # Consistency
/// A change is stale for as long as it waits: see `Event::FeedLag`. It is applied at least once, whoever dies when:
/// it is deleted from the outbox by the transaction in which it was taken, and that commits after the store has
/// confirmed. Whatever was loaded before is refused afterwards, as after a write through the library.
///
/// # Cancel safety
/// A future that is dropped leaves the changes that it has taken to the next one.
#[derive(Debug)]
pub struct Feed {
    outbox: Outbox,
    sites: Vec<Site>,
    batch: u64,
    idle: Duration,
    /// Whether changes were waiting when it last looked.
    behind: AtomicBool,
}

/// What one look at the outbox has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing, or nothing that another feed has not taken.
    Idle,
    /// So many changes, and more may wait.
    Applied(u64),
}

impl Feed {
    /// The outbox of this database, for its entries in its cache.
    pub fn new(db: &CachedConnection) -> Self {
        Self {
            outbox: Outbox::of(db.inner()),
            sites: vec![db.site().clone()],
            batch: 500,
            idle: Duration::from_millis(200),
            behind: AtomicBool::new(false),
        }
    }

    /// Also for what this connection has cached: the same database as [scoped](CachedConnection::scoped) to a
    /// tenant, under another label, or in another cache.
    #[must_use]
    pub fn also(mut self, db: &CachedConnection) -> Self {
        self.sites.push(db.site().clone());
        self
    }

    /// How many changes are taken at once. More are applied faster, and kept longer from other feeds. Defaults to
    /// 500; at most 10,000.
    #[must_use]
    pub fn batch(mut self, changes: u64) -> Self {
        self.batch = changes.clamp(1, 10_000);
        self
    }

    /// How long it waits before it looks again where it found nothing: about how stale a foreign change may be,
    /// unless Postgres wakes it; then it waits ten times as long. Defaults to 200 ms.
    #[must_use]
    pub fn idle(mut self, pause: Duration) -> Self {
        self.idle = pause;
        self
    }

    /// Applies changes for ever. What fails is an [`Event::FeedFailed`], and is tried again.
    pub async fn run(&self) {
        self.run_until(pending()).await;
    }

    /// Applies changes until `stop` is over, and ends with what is under way then.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn run(feed: sea_orm_cache::Feed) {
    /// feed.run_until(async { tokio::signal::ctrl_c().await.unwrap_or(()) }).await;
    /// # }
    /// ```
    pub async fn run_until(&self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut alarm = Alarm::of(self.outbox.database());
        let mut pauses = pauses();
        loop {
            let step = self.step().await;
            let next = async {
                match step {
                    Ok(Step::Applied(_)) => {}
                    Ok(Step::Idle) => alarm.rings(self.idle).await,
                    Err(_) => tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await,
                }
            };
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = next => {}
            }
            if step.is_ok() {
                pauses = self::pauses();
            }
        }
    }

    /// Applies what waits, until nothing does, and answers how many changes that was.
    ///
    /// # Errors
    /// The first failure.
    pub async fn drain(&self) -> Result<u64, FeedError> {
        let mut all = 0;
        while let Step::Applied(changes) = self.step().await? {
            all += changes;
        }
        Ok(all)
    }

    async fn step(&self) -> Result<Step, FeedError> {
        let step = self.look().await;
        if let Err(error) = &step {
            let error = &*error.to_string();
            self.emit(&Event::FeedFailed { error });
        }
        step
    }

    /// Takes a batch, applies it, and only then lets it be deleted.
    async fn look(&self) -> Result<Step, FeedError> {
        let began = Instant::now();
        let taken = in_time(self.outbox.take(self.batch)).await?;
        self.lags(taken.oldest);
        let (changes, age) = (taken.changes.len() as u64, taken.oldest.unwrap_or_default());
        for site in &self.sites {
            let applied = AssertUnwindSafe(apply(site, &taken.changes)).catch_unwind();
            let applied = applied.await.map_err(panicked);
            if let Err(error) = applied.and_then(|applied| Ok(applied?)) {
                // Should that fail too, the pool closes the connection.
                let _ = in_time(taken.give_back()).await;
                return Err(error);
            }
        }
        in_time(taken.delete()).await?;
        if changes == 0 {
            return Ok(Step::Idle);
        }
        let took = began.elapsed();
        self.emit(&Event::Fed { changes, age, took });
        Ok(Step::Applied(changes))
    }

    fn lags(&self, oldest: Option<Duration>) {
        let was_behind = self.behind.swap(oldest.is_some(), Ordering::Relaxed);
        if oldest.is_some() || was_behind {
            let oldest = oldest.unwrap_or_default();
            self.emit(&Event::FeedLag { oldest });
        }
    }

    fn emit(&self, event: &Event<'_>) {
        let site = self.sites.first();
        site.into_iter().for_each(|site| site.cache.emit(event));
    }
}

async fn apply(site: &Site, changes: &[RowChange]) -> Result<(), CacheError> {
    if changes.is_empty() {
        return Ok(());
    }
    site.cache.drop_now(site.told(changes)).await
}

/// A network that loses all there is would have us wait for ever.
async fn in_time<T>(answer: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
    let late = |_| DbErr::Custom(format!("the database has not answered for {PATIENCE:?}"));
    timeout(PATIENCE, answer).await.map_err(late)?
}

fn panicked(panic: Box<dyn Any + Send>) -> FeedError {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    FeedError::Panicked(text.unwrap_or("without a message").to_owned())
}

impl CachedConnection {
    /// Makes stale what these changes do, which others have made and committed: for a log of your own, where no
    /// [`Feed`] reads an outbox.
    ///
    /// To be told of a change once more is harmless, and so is any order: acknowledge to the log after this.
    ///
    /// # Errors
    /// If the store could not be told; it will be, from this process's journal. Where that is not enough, apply the
    /// changes again.
    ///
    /// # Examples
    /// What Debezium sends, without its schema. Rows that are not what it calls them cost misses only: Debezium
    /// writes bytes and dates in another way than is understood here.
    /// ```
    /// use sea_orm::JsonValue;
    /// use sea_orm_cache::RowChange;
    ///
    /// fn change(event: &JsonValue) -> Option<RowChange> {
    ///     let table = event["source"]["table"].as_str()?;
    ///     let row = |field: &str| Some(event[field].clone()).filter(|row| row.is_object());
    ///     match event["op"].as_str()? {
    ///         "c" | "r" | "u" | "d" => Some(RowChange::row(table, row("before"), row("after"))),
    ///         "t" => Some(RowChange::table(table)),
    ///         _ => None, // a message of another kind
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cache = sea_orm_cache::Cache::in_memory();
    /// # let db = cache.attach(sea_orm::Database::connect("sqlite::memory:").await?);
    /// let messages = [
    ///     r#"{"op": "u", "source": {"table": "city"}, "before": null, "after": {"id": 362, "slug": "paris"}}"#,
    ///     r#"{"op": "t", "source": {"table": "country"}}"#,
    /// ];
    /// let events: Vec<JsonValue> = messages.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    /// db.apply(events.iter().filter_map(change)).await?;
    /// // Now tell the log that these were consumed.
    /// # Ok(()) }
    /// ```
    pub async fn apply(
        &self,
        changes: impl IntoIterator<Item = RowChange>,
    ) -> Result<(), CacheError> {
        let changes: Vec<RowChange> = changes.into_iter().collect();
        apply(self.site(), &changes).await
    }
}

const LONGEST_PAUSE: Duration = Duration::from_secs(5);

fn pauses() -> impl Iterator<Item = Duration> {
    growing(Duration::from_millis(50), LONGEST_PAUSE)
}
