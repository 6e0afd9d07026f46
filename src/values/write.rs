//! Writing values: without a database behind them.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;

use super::payload::{Anything, Valued};
use super::policy::Policy;
use super::{Cacheable, Namespace, Plan};
use crate::config::{Consistency, EntityPolicy};
use crate::envelope::Envelope;
use crate::error::CacheError;
use crate::fill::{Fetched, Found, Payload, note, note_ops};
use crate::glob::Glob;
use crate::invalidation::Invalidation;
use crate::key::{Key, unescape};
use crate::observe::Event;
use crate::store::{Cursor, Filled, Op, Over, Reply, StoreError, Token};

/// How often a change is tried that others come before.
const TRIES: usize = 100;

impl Namespace {
    /// Stores a value under `key`, in place of what was there.
    ///
    /// # Consistency
    /// What is set is what is read, until something of what it depends on becomes stale: from the moment on at
    /// which this is called. What changed before, while the value was computed, is not known here; see
    /// [`get_or_set`](Self::get_or_set).
    ///
    /// # Errors
    /// If serde cannot write the value, or the store could not be told: then what was there is stale, and this
    /// process reads nothing under `key` until the store knows.
    pub async fn set<T: Cacheable>(
        &self,
        key: &str,
        value: &T,
        policy: &Policy,
    ) -> Result<(), CacheError> {
        self.set_many([(key, value.clone())], policy).await
    }

    /// Stores values, all in two round trips.
    ///
    /// # Errors
    /// As those of [`set`](Self::set).
    pub async fn set_many<T: Cacheable>(
        &self,
        values: impl IntoIterator<Item = (impl AsRef<str>, T)>,
        policy: &Policy,
    ) -> Result<(), CacheError> {
        let values = values.into_iter().map(|(key, value)| {
            let value = Valued::<T>::of(Some(value), self.codec);
            (self.key(key.as_ref()), value)
        });
        let values: Vec<_> = values.collect();
        self.put(&values, policy, Put::over_all()).await?;
        Ok(())
    }

    /// As [`set`](Self::set), and answers whether it is stored: a value that is too large is not, nor one of what
    /// is being written.
    #[cfg(feature = "session")]
    pub(crate) async fn store<T: Cacheable>(
        &self,
        key: &str,
        value: &T,
        policy: &Policy,
    ) -> Result<bool, CacheError> {
        let value = Valued::<T>::of(Some(value.clone()), self.codec);
        let values = [(self.key(key), value)];
        let outcome = self.put(&values, policy, Put::over_all()).await?;
        Ok(outcome == Outcome::Stored)
    }

    /// What is under `key`, as fresh as can be.
    ///
    /// # Errors
    /// If that cannot be known.
    #[cfg(feature = "session")]
    pub(crate) async fn look_up<T: Cacheable>(&self, key: &str) -> Result<Option<T>, CacheError> {
        let (name, key) = (key, self.key(key));
        // What is there may come between the two questions, or go; not twice.
        for _ in 0..2 {
            if let Some(found) = self.find_one::<Valued<T>>(&key).await {
                return Ok(found.value.into_value());
            }
            if self.cache.bypasses([&key, &self.generation]) {
                let reason = "the cache has yet to be told what became of it".to_owned();
                let key = name.to_owned();
                return Err(CacheError::Value { key, reason });
            }
            if self.raw(&key).await?.is_none() {
                break;
            }
        }
        Ok(None)
    }

    /// Stores a value if there is none, and answers whether it did. While a write is under way of what it
    /// depends on, it does not.
    ///
    /// # Errors
    /// As those of [`set`](Self::set).
    pub async fn add<T: Cacheable>(
        &self,
        key: &str,
        value: &T,
        policy: &Policy,
    ) -> Result<bool, CacheError> {
        let key = self.key(key);
        let value = Valued::<T>::of(Some(value.clone()), self.codec);
        for _ in 0..TRIES {
            let there = self.raw(&key).await?;
            if self.seal_of(&key).await.is_some() {
                return Ok(false);
            }
            let values = [(key.clone(), value.clone())];
            let put = Put::over(there.as_ref());
            match self.put(&values, policy, put).await? {
                Outcome::Stored => return Ok(true),
                Outcome::Fenced => return Ok(false),
                Outcome::Superseded => {}
            }
        }
        Ok(false)
    }

    /// Adds `by` to the number under `key`, and answers the sum. One that is not there counts as 0 and lives as
    /// the policy says; another one goes on to live for as long as it did.
    ///
    /// # Consistency
    /// No addition is lost among those who add. The number itself may be, as all that is cached: it is no
    /// place for what must be kept. For numbers that very many add to at once, use a `INCR` of Redis itself:
    /// here each tries again whom another comes before.
    ///
    /// # Errors
    /// If the store could not be told, what is there is no number, or the sum is too large.
    pub async fn incr(&self, key: &str, by: i64, policy: &Policy) -> Result<i64, CacheError> {
        let name = key;
        let key = self.key(name);
        let refused = |reason: &str| CacheError::Value {
            key: name.to_owned(),
            reason: reason.to_owned(),
        };
        for _ in 0..TRIES {
            let there = self.raw(&key).await?;
            let seal = there.as_ref().map(|there| there.seal);
            let (before, ttl) = match self.find_one::<Valued<i64>>(&key).await {
                Some(found) => {
                    let life = there.as_ref().and_then(|there| there.life);
                    (found.value.into_value().unwrap_or(0), life)
                }
                None => match self.seal_of(&key).await {
                    None => (0, None),
                    valid if valid == seal => return Err(refused("it is not a number")),
                    Some(_) => continue,
                },
            };
            let after = before.checked_add(by);
            let after = after.ok_or_else(|| refused("the sum is too large"))?;
            let values = [(key.clone(), Valued::of(Some(after), self.codec))];
            let put = Put {
                ttl,
                ..Put::over(there.as_ref())
            };
            match self.put(&values, policy, put).await? {
                Outcome::Stored => return Ok(after),
                Outcome::Fenced | Outcome::Superseded => backoff().await,
            }
        }
        Err(refused("too many others change it"))
    }

    /// Makes what is under `key` stale.
    ///
    /// # Errors
    /// If the store could not be told; it will be, and this process reads nothing there until it is.
    pub async fn remove(&self, key: &str) -> Result<(), CacheError> {
        self.remove_many([key]).await
    }

    /// Makes what is under these keys stale, in one round trip.
    ///
    /// # Errors
    /// As those of [`remove`](Self::remove).
    pub async fn remove_many(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<(), CacheError> {
        let mut invalidation = Invalidation::default();
        for key in keys {
            invalidation.add(self.key(key.as_ref()));
        }
        self.cache.drop_now(invalidation).await
    }

    /// Makes stale what is under the keys that match a pattern, and answers how many they were. `*` is any text, `?`
    /// any character, `[abc]`, `[a-z]`, `[^a-z]` one of a set, and `\` has the next character stand for itself.
    ///
    /// This walks through *all* keys of the store, about a thousand for a round trip, on each node of a cluster, and
    /// tells [observers](crate::Event::Walked) of each step; a server answers others in between. What can be known
    /// beforehand is better a namespace of its own, or a tag: [`invalidate`](Self::invalidate) is one round trip
    /// however much there is, and misses nothing.
    ///
    /// # Consistency
    /// What stands under a matching key when this is called is stale when it returns. What is stored meanwhile may
    /// be or not, and what moves between nodes of a cluster meanwhile.
    ///
    /// # Errors
    /// If the pattern cannot be read, or the store does not answer; then some keys may be stale already and others
    /// not. An ACL user needs `+scan`.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), sea_orm_cache::CacheError> {
    /// # use sea_orm_cache::{Cache, Policy};
    /// let cache = Cache::in_memory();
    /// cache.set("search:tea", &1, &Policy::new()).await?;
    /// cache.set("search:cups", &2, &Policy::new()).await?;
    /// assert_eq!(cache.remove_matching("search:t*").await?, 1);
    /// # Ok(()) }
    /// ```
    pub async fn remove_matching(&self, pattern: &str) -> Result<u64, CacheError> {
        let glob = Glob::parse(pattern).map_err(|reason| CacheError::Pattern {
            pattern: pattern.to_owned(),
            reason,
        })?;
        let stem = self.key("");
        let prefix = self.key(&glob.literal());
        let matches = |key: &Key| {
            let name = key.as_str().strip_prefix(stem.as_str()).map(unescape);
            name.is_some_and(|name| glob.matches(&name))
        };
        let (mut removed, mut next) = (0, Some(Cursor::default()));
        let mut found = Invalidation::default();
        // The next step is taken while what the last one found is made stale.
        while next.is_some() || !found.is_empty() {
            let step = async {
                match next.take() {
                    Some(from) => self.cache.walk(prefix.as_str(), &from).await.map(Some),
                    None => Ok(None),
                }
            };
            let (walked, dropped) = join(step, self.drop_found(std::mem::take(&mut found))).await;
            removed += dropped?;
            let Some(walked) = walked? else { continue };
            let keys = walked.keys.len() as u64;
            walked
                .keys
                .into_iter()
                .filter(matches)
                .for_each(|key| found.add(key));
            self.cache.emit(&Event::Walked {
                entity: &self.name,
                keys,
                matched: found.len() as u64,
            });
            next = walked.next;
        }
        Ok(removed)
    }

    async fn drop_found(&self, found: Invalidation) -> Result<u64, CacheError> {
        let count = found.len() as u64;
        if count > 0 {
            self.cache.drop_now(found).await?;
        }
        Ok(count)
    }

    /// Makes everything in the namespace stale, in one round trip, however much it is: of this tenant, if it is
    /// [one's](Self::scoped), else of all.
    ///
    /// # Errors
    /// If the store could not be told; it will be, and this process reads nothing of it until it is.
    pub async fn invalidate(&self) -> Result<(), CacheError> {
        let mut invalidation = Invalidation::default();
        invalidation.add(self.generation.clone());
        self.cache.drop_now(invalidation).await
    }

    /// Makes everything stale that has one of these tags, in every namespace: of this tenant, if it is
    /// [one's](Self::scoped), else of all.
    ///
    /// # Errors
    /// As those of [`invalidate`](Self::invalidate).
    pub async fn invalidate_tags(
        &self,
        tags: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<(), CacheError> {
        let mut invalidation = Invalidation::default();
        for tag in tags {
            invalidation.add(self.tag(tag.as_ref()));
        }
        self.cache.drop_now(invalidation).await
    }

    /// How long what is under `key` will live, if there is something.
    pub async fn ttl(&self, key: &str) -> Option<Duration> {
        let key = self.key(key);
        self.seal_of(&key).await?;
        self.raw(&key).await.ok()??.life
    }

    /// Lets the value under `key` live for this long from now on, and answers whether there is one. What it
    /// depends on stays as it is.
    ///
    /// # Errors
    /// If the store could not be told.
    pub async fn touch(&self, key: &str, ttl: Duration) -> Result<bool, CacheError> {
        let key = self.key(key);
        for _ in 0..TRIES {
            let Some(there) = self.raw(&key).await? else {
                return Ok(false);
            };
            match self.seal_of(&key).await {
                None => return Ok(false),
                Some(seal) if seal != there.seal => continue,
                Some(_) => {}
            }
            // The same in all but the seal.
            let mut value = Token::random().get().to_be_bytes().to_vec();
            value.extend_from_slice(&there.bytes[8..]);
            let op = Op::Put {
                key: key.clone(),
                field: self.field(),
                value: value.into(),
                ttl: ttl.saturating_add(there.grace),
                over: Over::Seal(there.seal),
            };
            let replies = self.cache.run(Some(&self.name), vec![op]).await?;
            match replies.items[..] {
                [Reply::Filled(Filled::Stored)] => return Ok(true),
                [Reply::Filled(Filled::Superseded)] => {}
                _ => return Err(unexpected(&replies.items)),
            }
        }
        Ok(false)
    }

    /// What stands under a key, whether it is stale or not.
    async fn raw(&self, key: &Key) -> Result<Option<Raw>, CacheError> {
        let batch = vec![
            Op::Read {
                key: key.clone(),
                field: self.field(),
            },
            Op::Life { key: key.clone() },
        ];
        let replies = self.cache.run(Some(&self.name), batch).await?;
        match &replies.items[..] {
            [Reply::Value(None), Reply::Life(_)] => Ok(None),
            [Reply::Value(Some(bytes)), Reply::Life(life)] => {
                let seal = bytes.first_chunk().copied().map(u64::from_be_bytes);
                let aging = Envelope::open(bytes)
                    .ok()
                    .and_then(|envelope| envelope.aging);
                let grace = aging.map_or(Duration::ZERO, |aging| aging.grace);
                Ok(seal.map(|seal| Raw {
                    seal,
                    bytes: bytes.clone(),
                    life: life.map(|life| life.saturating_sub(grace)),
                    grace,
                }))
            }
            // A foreign type, which a put replaces.
            [Reply::Failed(_), _] => Ok(None),
            other => Err(unexpected(other)),
        }
    }

    /// The seal of what is under a key, if that is not stale.
    async fn seal_of(&self, key: &Key) -> Option<u64> {
        let found = self.find_one::<Anything>(key).await?;
        found.value.is_present().then_some(found.seal)?
    }

    async fn find_one<P: Payload>(&self, key: &Key) -> Option<Fetched<P>> {
        let request = self.request(key.clone());
        let found = self.find([request].into(), Consistency::Linearizable).await;
        found.into_iter().next().and_then(Found::fresh)
    }

    /// Notes what the values depend on, and stores them.
    async fn put<T: Cacheable>(
        &self,
        values: &[(Key, Valued<T>)],
        policy: &Policy,
        put: Put,
    ) -> Result<Outcome, CacheError> {
        let mut payloads = Vec::with_capacity(values.len());
        for (key, value) in values {
            let mut payload = Vec::new();
            value
                .encode(&mut payload)
                .map_err(|error| CacheError::Value {
                    key: key.to_string(),
                    reason: error.to_string(),
                })?;
            payloads.push((key, payload));
        }
        let plan = match self.plan(policy) {
            Ok(plan) => plan,
            Err(reason) => {
                return Err(CacheError::Value {
                    key: self.name.to_string(),
                    reason,
                });
            }
        };
        let policy = &self.timed(policy);
        let written = self.put_noted(&payloads, &plan, policy, put).await;
        if written.is_err() && put.over == Over::Anything {
            // What stands there was to be replaced.
            let mut invalidation = Invalidation::default();
            for (key, _) in values {
                invalidation.add(key.clone());
            }
            self.cache.journal(&invalidation);
        }
        written
    }

    async fn put_noted(
        &self,
        payloads: &[(&Key, Vec<u8>)],
        plan: &Plan,
        policy: &EntityPolicy,
        put: Put,
    ) -> Result<Outcome, CacheError> {
        let entity = Some(&*self.name);
        let noting = note_ops(&plan.dependencies.keys[..plan.needs], policy);
        let replies = self.cache.run(entity, noting).await?;
        let noted = note(replies.root, &replies.items);
        let shape = self.shape(plan, policy, Consistency::Linearizable);
        let mut fenced = false;
        let ops = payloads.iter().map(|(key, payload)| {
            let request = self.request((*key).clone());
            let (seal, payload) = (Token::random(), (true, &**payload));
            let took = Some(Duration::ZERO);
            let sealed = (self.cache).sealed(&shape, &request, &noted, seal, payload, took);
            match sealed {
                Some(value) => Op::Put {
                    key: (*key).clone(),
                    field: self.field(),
                    value,
                    ttl: put.ttl.unwrap_or_else(|| policy.jittered(policy.ttl)) + policy.grace(),
                    over: put.over,
                },
                // What was there is not what is read any more, whatever becomes of the new.
                None => {
                    fenced = true;
                    Op::Settle {
                        key: (*key).clone(),
                        writer: Token::random(),
                    }
                }
            }
        });
        let ops: Vec<Op> = ops.collect();
        let replies = self.cache.run(entity, ops).await?;
        let mut outcome = if fenced {
            Outcome::Fenced
        } else {
            Outcome::Stored
        };
        let mut counts = [0, 0];
        for reply in &replies.items {
            match reply {
                Reply::Done => {}
                Reply::Filled(Filled::Stored) => counts[0] += 1,
                Reply::Filled(Filled::Superseded) => {
                    counts[1] += 1;
                    outcome = Outcome::Superseded;
                }
                _ => return Err(unexpected(&replies.items)),
            }
        }
        self.cache.emit(&Event::Fill {
            entity: &self.name,
            stored: counts[0],
            superseded: counts[1],
        });
        Ok(outcome)
    }
}

/// What stands under a key.
struct Raw {
    seal: u64,
    bytes: Bytes,
    /// How long its ttl is still.
    life: Option<Duration>,
    /// How long it is kept after that.
    grace: Duration,
}

/// How a value is put.
#[derive(Clone, Copy)]
struct Put {
    over: Over,
    /// Instead of the policy's.
    ttl: Option<Duration>,
}

impl Put {
    fn over_all() -> Self {
        Self {
            over: Over::Anything,
            ttl: None,
        }
    }

    fn over(there: Option<&Raw>) -> Self {
        let over = there.map_or(Over::Nothing, |there| Over::Seal(there.seal));
        Self { over, ttl: None }
    }
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Stored,
    /// Something else came before, or a write is under way of the key itself.
    Superseded,
    /// A write is under way of what the value depends on.
    Fenced,
}

fn unexpected(replies: &[Reply]) -> CacheError {
    CacheError::Store(StoreError::Protocol(format!("{replies:?} to a value")))
}

/// Lets others go first whom one has met.
async fn backoff() {
    tokio::time::sleep(Duration::from_micros(fastrand::u64(..2_000))).await;
}
