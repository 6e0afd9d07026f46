//! Writing values: without a database behind them.

use std::time::Duration;

use futures_util::future::join;

use super::payload::Valued;
use super::policy::Policy;
use super::there::{There, unexpected};
use super::{Cacheable, Namespace, Plan};
use crate::config::{Consistency, EntityPolicy};
use crate::envelope::Noted;
use crate::error::CacheError;
use crate::fill::{Payload, note, note_ops};
use crate::glob::Glob;
use crate::invalidation::Invalidation;
use crate::key::{Key, unescape};
use crate::observe::Event;
use crate::store::{Cursor, Filled, Op, Over, Reply, Token};

/// How often a change is tried that others come before.
const TRIES: usize = 100;

impl Namespace {
    /// Stores a value under `key`, in place of what was there.
    ///
    /// # Consistency
    /// What is set is what is read, until something of what it depends on becomes stale: from the moment on at
    /// which the first of the two requests of this is answered. What changed before, while the value was computed,
    /// is not known here; see [`get_or_set`](Self::get_or_set).
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
        self.put(&values, policy).await?;
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
        let outcome = self.put(&values, policy).await?;
        Ok(outcome == Outcome::Stored)
    }

    /// What is under `key`, as fresh as can be.
    ///
    /// # Errors
    /// If that cannot be known.
    #[cfg(feature = "session")]
    pub(crate) async fn look_up<T: Cacheable>(&self, key: &str) -> Result<Option<T>, CacheError> {
        let there = self.there(&self.key(key)).await?;
        let found = there.and_then(|there| self.read::<Valued<T>>(&there));
        let hits = u64::from(found.is_some());
        self.cache.emit(&Event::Lookup {
            entity: &self.name,
            hits,
            l1_hits: 0,
            absent_hits: 0,
            misses: 1 - hits,
        });
        Ok(found.and_then(Valued::into_value))
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
        let payloads = [(&key, encoded(&key, &value)?)];
        let terms = self.terms(policy)?;
        // Once, and first: what becomes stale from here on may not be what is found to be missing.
        let noted = self.noted(&terms).await?;
        for _ in 0..TRIES {
            let there = self.there(&key).await?;
            if there.as_ref().is_some_and(There::is_present) {
                return Ok(false);
            }
            let put = Put::over(there.as_ref());
            match self.put_noted(&payloads, &terms, &noted, put).await? {
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
        let terms = self.terms(policy)?;
        for _ in 0..TRIES {
            let (there, noted) = self.there_and_noted(&key, &terms).await?;
            let answers = there.as_ref().filter(|there| there.is_present());
            let (before, ttl) = match answers {
                Some(there) => match self.read::<Valued<i64>>(there).and_then(Valued::into_value) {
                    Some(number) => (number, there.life),
                    None => return Err(refused("it is not an `i64`")),
                },
                None => (0, None),
            };
            let after = before.checked_add(by);
            let after = after.ok_or_else(|| refused("the sum is too large"))?;
            let value = Valued::of(Some(after), self.codec);
            let payloads = [(&key, encoded(&key, &value)?)];
            let put = Put {
                ttl,
                ..Put::over(there.as_ref())
            };
            match self.put_noted(&payloads, &terms, &noted, put).await? {
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
        let there = self.there(&self.key(key)).await.ok()??;
        there.life.filter(|_| there.is_present())
    }

    /// Lets the value under `key` live for this long from now on, and answers whether there is one. What it
    /// depends on stays as it is.
    ///
    /// # Errors
    /// If the store could not be told.
    pub async fn touch(&self, key: &str, ttl: Duration) -> Result<bool, CacheError> {
        let key = self.key(key);
        for _ in 0..TRIES {
            let there = self.there(&key).await?;
            let Some(there) = there.filter(There::is_present) else {
                return Ok(false);
            };
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

    /// Stores values in place of what is there.
    async fn put<T: Cacheable>(
        &self,
        values: &[(Key, Valued<T>)],
        policy: &Policy,
    ) -> Result<Outcome, CacheError> {
        let payloads = values
            .iter()
            .map(|(key, value)| Ok((key, encoded(key, value)?)));
        let payloads = payloads.collect::<Result<Vec<_>, CacheError>>()?;
        let terms = self.terms(policy)?;
        let written = async {
            let noted = self.noted(&terms).await?;
            let all = Put::over_all();
            self.put_noted(&payloads, &terms, &noted, all).await
        };
        let written = written.await;
        if written.is_err() {
            // What stands there was to be replaced.
            let mut invalidation = Invalidation::default();
            for (key, _) in values {
                invalidation.add(key.clone());
            }
            self.cache.journal(&invalidation);
        }
        written
    }

    fn terms(&self, policy: &Policy) -> Result<Terms, CacheError> {
        let plan = self.plan(policy).map_err(|reason| CacheError::Value {
            key: self.name.to_string(),
            reason,
        })?;
        let policy = self.timed(policy);
        Ok(Terms { plan, policy })
    }

    /// Notes what values depend on.
    async fn noted(&self, terms: &Terms) -> Result<Noted, CacheError> {
        let noting = note_ops(terms.needs(), &terms.policy);
        let replies = self.cache.run(Some(&self.name), noting).await?;
        Ok(note(replies.root, &replies.items))
    }

    async fn put_noted(
        &self,
        payloads: &[(&Key, Vec<u8>)],
        Terms { plan, policy }: &Terms,
        noted: &Noted,
        put: Put,
    ) -> Result<Outcome, CacheError> {
        let shape = self.shape(plan, policy, Consistency::Linearizable);
        let mut outcome = Outcome::Stored;
        let ops = payloads.iter().filter_map(|(key, payload)| {
            let request = self.request((*key).clone());
            let (seal, payload) = (Token::random(), (true, &**payload));
            let took = Some(Duration::ZERO);
            let sealed = (self.cache).sealed(&shape, &request, noted, seal, payload, took);
            if let Some(value) = sealed {
                return Some(Op::Put {
                    key: (*key).clone(),
                    field: self.field(),
                    value,
                    ttl: put.ttl.unwrap_or_else(|| policy.jittered(policy.ttl)) + policy.grace(),
                    over: put.over,
                });
            }
            outcome = Outcome::Fenced;
            // What was to be replaced is not what is read any more, whatever becomes of the new.
            (put.over == Over::Anything).then(|| Op::Settle {
                key: (*key).clone(),
                writer: Token::random(),
            })
        });
        let ops: Vec<Op> = ops.collect();
        let replies = self.cache.run(Some(&self.name), ops).await?;
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

/// On what terms values are put: what they depend on, and how they live.
pub(super) struct Terms {
    plan: Plan,
    pub(super) policy: EntityPolicy,
}

impl Terms {
    /// The generations that they need.
    pub(super) fn needs(&self) -> &[Key] {
        &self.plan.dependencies.keys[..self.plan.needs]
    }
}

fn encoded<T: Cacheable>(key: &Key, value: &Valued<T>) -> Result<Vec<u8>, CacheError> {
    let mut payload = Vec::new();
    let written = value.encode(&mut payload);
    written.map_err(|error| CacheError::Value {
        key: key.to_string(),
        reason: error.to_string(),
    })?;
    Ok(payload)
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

    fn over(there: Option<&There>) -> Self {
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

/// Lets others go first whom one has met.
async fn backoff() {
    tokio::time::sleep(Duration::from_micros(fastrand::u64(..2_000))).await;
}
