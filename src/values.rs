//! Values of any type, under names of one's own.

mod direct;
mod payload;
mod policy;
mod there;
mod write;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

pub use payload::{Cacheable, Loaded};
use payload::{Sure, Valued};
use policy::Resolved;
pub use policy::{Codec, Policy};
use tracing::Instrument;

use crate::cache::Cache;
use crate::config::{Consistency, EntityPolicy};
use crate::error::CacheError;
use crate::fill::{Few, Found, Payload, Request, Shape, within};
use crate::key::{Dependencies, Key, namespace_key, tag_key, tag_keys, value_key};
use crate::observe::Event;
use crate::store::Fingerprint;
use crate::tier::Id;

/// A part of a cache with names of its own, of which everything can be made stale at once.
///
/// Cheap to clone. Values are those of any type that serde knows. What a value was computed from may be told
/// in its [`Policy`]: tags, entities, rows; then it goes stale with them.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use sea_orm_cache::{Cache, Policy};
///
/// let cache = Cache::in_memory();
/// let products = cache.namespace("products");
/// let policy = Policy::new().ttl(Duration::from_secs(60));
/// products.set("7", &"a teapot".to_owned(), &policy).await?;
/// assert_eq!(products.get::<String>("7").await.as_deref(), Some("a teapot"));
/// products.invalidate().await?; // however many there are
/// assert_eq!(products.get::<String>("7").await, None);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Namespace {
    cache: Cache,
    tenant: Option<Arc<str>>,
    name: Arc<str>,
    generation: Key,
    codec: Codec,
}

impl Cache {
    /// The namespace of this name. Those of the same name are the same; what is set by [`Cache::set`] itself is in the
    /// one called `default`.
    pub fn namespace(&self, name: &str) -> Namespace {
        Namespace::of(self.clone(), None, name)
    }
}

impl Namespace {
    fn of(cache: Cache, tenant: Option<Arc<str>>, name: &str) -> Self {
        let prefix = &cache.settings().prefix;
        let codec = cache.settings().codec;
        Self {
            generation: namespace_key(prefix, tenant.as_deref(), name),
            cache,
            tenant,
            name: name.into(),
            codec,
        }
    }

    /// The same namespace of one tenant: keys, tags and a generation of its own. What is invalidated of one tenant
    /// is not of another; what is invalidated without naming one is of all.
    pub fn scoped(&self, tenant: &str) -> Self {
        let codec = self.codec;
        Self {
            codec,
            ..Self::of(self.cache.clone(), Some(tenant.into()), &self.name)
        }
    }

    /// The same namespace, whose values are written and read like this. Defaults to the cache's
    /// [`codec`](crate::CacheBuilder::codec). What stands there in another codec is a
    /// miss.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The value under `key`, if there is one of this type. When the cache is away there is none.
    ///
    /// # Consistency
    /// None that was [set](Self::set) or loaded before something of what it depends on became stale. With an
    /// in-process tier, at most [`max_silence`](crate::CacheBuilder::max_silence) old.
    pub async fn get<T: Cacheable>(&self, key: &str) -> Option<T> {
        self.get_many([key]).await.pop().flatten()
    }

    /// The values under these keys, in their order, in one round trip; two where values depend on more than
    /// their namespace.
    pub async fn get_many<T: Cacheable>(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Vec<Option<T>> {
        let keys: Vec<Key> = keys.into_iter().map(|key| self.key(key.as_ref())).collect();
        let mut distinct = keys.clone();
        distinct.sort();
        distinct.dedup();
        let requests = distinct
            .iter()
            .map(|key| self.request(key.clone()))
            .collect();
        let found = self.find::<Valued<T>>(requests, Consistency::Bounded).await;
        let found: Vec<_> = found.into_iter().map(Found::fresh).collect();
        let value = |key: &Key| {
            let place = distinct.binary_search(key).ok()?;
            found[place].as_ref()?.value.clone().into_value()
        };
        keys.iter().map(value).collect()
    }

    /// The value under `key`; if there is none, that of `load`, which is then stored. Of all who ask for it at the
    /// same moment, in this process and in others, one loads. What it depends on is noted before: if any of it
    /// becomes stale while `load` runs, the value is answered and not stored.
    ///
    /// `load` must not read through an open transaction: what is not committed would be stored.
    ///
    /// # Errors
    /// Those of `load`, which are not stored.
    ///
    /// # Cancel safety
    /// When the caller goes away, so does its load, and the next one loads.
    pub async fn get_or_set<T: Cacheable, E: Send>(
        &self,
        key: &str,
        policy: &Policy,
        load: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E> {
        // In a box: a load may be large, and would stand in the future of each function on its way.
        let load = Box::pin(load);
        let load = async { Ok(Sure(Valued::of(Some(load.await?), self.codec))) };
        Ok(sure(self.fetch(key, policy, load).await?))
    }

    /// The same for a load that finds out how long its value may live, or whether it may be stored at all. Who
    /// waits for a load is answered with its value in either case.
    ///
    /// # Errors
    /// Those of `load`, which are not stored.
    ///
    /// # Cancel safety
    /// As that of [`get_or_set`](Self::get_or_set).
    pub async fn get_or_load<T: Cacheable, E: Send>(
        &self,
        key: &str,
        policy: &Policy,
        load: impl Future<Output = Result<Loaded<T>, E>> + Send,
    ) -> Result<T, E> {
        let load = Box::pin(load);
        let load = async { Ok(Sure(Valued::loaded(load.await?, self.codec))) };
        Ok(sure(self.fetch(key, policy, load).await?))
    }

    /// The same where there may be nothing: that there is nothing is stored, too, for the policy's
    /// [`absent_ttl`](Policy::absent_ttl), and goes stale with any write to the tables of the rows that it
    /// depends on.
    ///
    /// # Errors
    /// Those of `load`, which are not stored.
    ///
    /// # Cancel safety
    /// As that of [`get_or_set`](Self::get_or_set).
    pub async fn get_or_set_optional<T: Cacheable, E: Send>(
        &self,
        key: &str,
        policy: &Policy,
        load: impl Future<Output = Result<Option<T>, E>> + Send,
    ) -> Result<Option<T>, E> {
        let load = Box::pin(load);
        let load = async { Ok(Valued::of(load.await?, self.codec)) };
        Ok(self.fetch(key, policy, load).await?.into_value())
    }

    /// As [`get_or_set`](Self::get_or_set), with the load in a task of its own: it goes on when the caller goes
    /// away, and nobody waits for one that replaces a value which may be answered
    /// [meanwhile](Policy::stale_while_revalidate).
    ///
    /// # Errors
    /// Those of `load`, and [`CacheError::LoadTimedOut`]. Of a load that nobody waits for, an
    /// [event](crate::Event::RefreshFailed) tells.
    ///
    /// # Panics
    /// If `load` does, and is waited for.
    pub async fn get_or_spawn<T, E, F>(&self, key: &str, policy: &Policy, load: F) -> Result<T, E>
    where
        T: Cacheable,
        E: From<CacheError> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let request = [self.request(self.key(key))].into();
        let (entity, plan) = (&self.timed(policy), self.plan(policy));
        let found = match (entity.consistency, plan) {
            (Consistency::Database, _) | (_, Err(_)) => None,
            (level, Ok(plan)) => {
                let shape = self.shape(&plan, entity, level);
                let found = self.cache.find::<Sure<Valued<T>>>(&shape, request).await;
                found.into_iter().next()
            }
        };
        let (spare, seal) = match found {
            Some(Found::Fresh(fetched)) => return Ok(sure(fetched.value)),
            Some(Found::Aged(spare)) => {
                let seal = spare.seal();
                (spare.while_revalidating(entity), seal)
            }
            Some(Found::Nothing) | None => (None, None),
        };
        let (namespace, name, policy) = (self.clone(), key.to_owned(), policy.clone());
        let load = Box::pin(load);
        let work = async move {
            let timed = namespace.timed(&policy);
            let load = within(&timed, &namespace.name, load);
            let load = async { Ok(Sure(Valued::of(Some(load.await?), namespace.codec))) };
            namespace
                .load(&name, &policy, Known::Missed(seal), load)
                .await
        };
        let Some(spare) = spare else {
            return match tokio::spawn(work.in_current_span()).await {
                Ok(loaded) => loaded.map(sure),
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => Err(CacheError::ShuttingDown.into()),
                },
            };
        };
        self.cache.served_stale(&self.name, 1);
        let namespace = self.clone();
        let refresh = async move {
            if work.await.is_err() {
                let entity = &namespace.name;
                namespace.cache.emit(&Event::RefreshFailed { entity });
            }
        };
        tokio::spawn(refresh.in_current_span());
        Ok(sure(spare))
    }

    /// What is stored, or else loaded and then stored.
    async fn fetch<P: Payload, E: Send>(
        &self,
        key: &str,
        policy: &Policy,
        load: impl Future<Output = Result<P, E>> + Send,
    ) -> Result<P, E> {
        self.load(key, policy, Known::Nothing, load).await
    }

    async fn load<P: Payload, E: Send>(
        &self,
        key: &str,
        policy: &Policy,
        known: Known,
        load: impl Future<Output = Result<P, E>> + Send,
    ) -> Result<P, E> {
        let entity = &self.timed(policy);
        if entity.consistency == Consistency::Database {
            return load.await;
        }
        let plan = match self.plan(policy) {
            Ok(plan) => plan,
            Err(reason) => {
                let (entity, reason) = (&*self.name, &*reason);
                self.cache.emit(&Event::NotCached { entity, reason });
                return load.await;
            }
        };
        let shape = self.shape(&plan, entity, entity.consistency);
        let load = Mutex::new(Some(load));
        let once = |_| {
            let load = load.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move {
                let _loading = self.cache.loading(&self.name);
                match load {
                    Some(load) => Ok(vec![load.await?]),
                    None => Ok(Vec::new()),
                }
            }
        };
        let request = self.request(self.key(key));
        let fetched = match known {
            Known::Nothing => self.cache.fetch(&shape, [request].into(), once).await?,
            Known::Missed(seal) => self.cache.load_missed(&shape, request, seal, once).await?,
        };
        match fetched.into_iter().next() {
            Some(fetched) => Ok(fetched.value),
            None => unreachable!("one request is loaded once"),
        }
    }

    async fn find<P: Payload>(
        &self,
        requests: Few<Request>,
        consistency: Consistency,
    ) -> Few<Found<P>> {
        let policy = EntityPolicy::default();
        let plan = Plan::new(self.generations().collect(), Vec::new());
        let shape = self.shape(&plan, &policy, consistency);
        self.cache.find(&shape, requests).await
    }

    fn shape<'a>(
        &'a self,
        plan: &'a Plan,
        policy: &'a EntityPolicy,
        consistency: Consistency,
    ) -> Shape<'a> {
        Shape {
            entity: &self.name,
            field: self.field(),
            dependencies: &plan.dependencies,
            present_needs: plan.needs,
            policy,
            bounded: consistency == Consistency::Bounded,
            own: true,
        }
    }

    fn request(&self, key: Key) -> Request {
        Request {
            id: Id::Entry(key.clone(), self.field()),
            key,
            asked: Vec::new(),
            outdated: None,
        }
    }

    /// How long a value of this policy lives, and how fresh it is.
    fn timed(&self, policy: &Policy) -> EntityPolicy {
        policy.entity(self.cache.settings().ttl)
    }

    /// What a value of this policy depends on.
    fn plan(&self, policy: &Policy) -> Result<Plan, String> {
        let prefix = &self.cache.settings().prefix;
        let spaces = |label: &str| {
            let (space, backend) = self.cache.database(label)?;
            // Whether a tenant's rows are written through a tenant's connection is not known here.
            let scoped = self.tenant.as_deref().map(|tenant| space.scoped(tenant));
            Some(([space].into_iter().chain(scoped).collect(), backend))
        };
        let Resolved {
            mut present,
            absent,
        } = policy.resolve(spaces)?;
        let tags = |tag| tag_keys(prefix, self.tenant.as_deref(), tag);
        present.extend(policy.tag_names().flat_map(tags));
        present.extend(policy.key_names().map(|key| self.key(key)));
        present.extend(self.generations());
        Ok(Plan::new(present, absent))
    }

    /// Names its generation.
    pub(crate) fn generation(&self) -> &Key {
        &self.generation
    }

    pub(crate) fn key(&self, key: &str) -> Key {
        value_key(&self.generation, key)
    }

    /// What every value depends on: a tenant's on the generation of all and on its own.
    fn generations(&self) -> impl Iterator<Item = Key> {
        let all = || namespace_key(&self.cache.settings().prefix, None, &self.name);
        let all = self.tenant.is_some().then(all);
        [self.generation.clone()].into_iter().chain(all)
    }

    fn tag(&self, tag: &str) -> Key {
        tag_key(&self.cache.settings().prefix, self.tenant.as_deref(), tag)
    }

    fn field(&self) -> Fingerprint {
        match self.codec {
            Codec::MessagePack => Fingerprint(1),
            Codec::Json => Fingerprint(2),
        }
    }
}

/// What was found before a load.
#[derive(Clone, Copy)]
enum Known {
    /// It is to be looked up.
    Nothing,
    /// No value that answers, but perhaps one with this seal that is to be replaced.
    Missed(Option<u64>),
}

fn sure<T: Cacheable>(Sure(value): Sure<Valued<T>>) -> T {
    match value.into_value() {
        Some(value) => value,
        None => unreachable!("an absence is not decoded as a value that is sure"),
    }
}

/// What values of one policy depend on.
struct Plan {
    dependencies: Dependencies,
    /// The first so many if there is a value.
    needs: usize,
}

impl Plan {
    fn new(mut present: Vec<Key>, mut absent: Vec<Key>) -> Self {
        present.sort();
        present.dedup();
        absent.sort();
        absent.dedup();
        absent.retain(|key| !present.contains(key));
        let needs = present.len();
        present.extend(absent);
        Self {
            dependencies: Dependencies::new(present),
            needs,
        }
    }
}
