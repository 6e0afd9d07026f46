//! Values straight on the cache: those of its namespace `default`.

use std::future::Future;
use std::time::Duration;

use super::{Cacheable, Loaded, Namespace, Policy};
use crate::cache::Cache;
use crate::error::CacheError;

/// The namespace of values that are under no other.
const DEFAULT: &str = "default";

/// Values under keys of one's own: those of the [namespace](Cache::namespace) `default`, where all that is
/// possible with them is.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::convert::Infallible;
/// use std::time::Duration;
/// use sea_orm_cache::{Cache, Policy};
///
/// let cache = Cache::in_memory();
/// let minutes = Policy::new().ttl(Duration::from_secs(600));
/// cache.set("greeting", &"hello".to_owned(), &minutes).await?;
/// assert_eq!(cache.get::<String>("greeting").await.as_deref(), Some("hello"));
/// cache.remove("greeting").await?;
///
/// let popular = async { Ok::<_, Infallible>(vec![3, 1, 2]) };
/// let popular: Vec<i64> = cache.get_or_set("popular", &minutes, popular).await?;
/// # assert_eq!(popular, [3, 1, 2]);
/// # Ok(()) }
/// ```
impl Cache {
    /// The values of one tenant: [`Namespace::scoped`] of the namespace `default`.
    pub fn scoped(&self, tenant: &str) -> Namespace {
        self.direct().scoped(tenant)
    }

    fn direct(&self) -> Namespace {
        self.namespace(DEFAULT)
    }

    /// As [`Namespace::get`].
    pub async fn get<T: Cacheable>(&self, key: &str) -> Option<T> {
        self.direct().get(key).await
    }

    /// As [`Namespace::get_many`].
    pub async fn get_many<T: Cacheable>(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Vec<Option<T>> {
        self.direct().get_many(keys).await
    }

    /// As [`Namespace::get_or_set`].
    ///
    /// # Errors
    /// Those of `load`.
    pub async fn get_or_set<T: Cacheable, E: Send>(
        &self,
        key: &str,
        policy: &Policy,
        load: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E> {
        self.direct().get_or_set(key, policy, load).await
    }

    /// As [`Namespace::get_or_set_optional`].
    ///
    /// # Errors
    /// Those of `load`.
    pub async fn get_or_set_optional<T: Cacheable, E: Send>(
        &self,
        key: &str,
        policy: &Policy,
        load: impl Future<Output = Result<Option<T>, E>> + Send,
    ) -> Result<Option<T>, E> {
        self.direct().get_or_set_optional(key, policy, load).await
    }

    /// As [`Namespace::get_or_load`].
    ///
    /// # Errors
    /// Those of `load`.
    pub async fn get_or_load<T: Cacheable, E: Send>(
        &self,
        key: &str,
        policy: &Policy,
        load: impl Future<Output = Result<Loaded<T>, E>> + Send,
    ) -> Result<T, E> {
        self.direct().get_or_load(key, policy, load).await
    }

    /// As [`Namespace::set`].
    ///
    /// # Errors
    /// Those of it.
    pub async fn set<T: Cacheable>(
        &self,
        key: &str,
        value: &T,
        policy: &Policy,
    ) -> Result<(), CacheError> {
        self.direct().set(key, value, policy).await
    }

    /// As [`Namespace::set_many`].
    ///
    /// # Errors
    /// Those of it.
    pub async fn set_many<T: Cacheable>(
        &self,
        values: impl IntoIterator<Item = (impl AsRef<str>, T)>,
        policy: &Policy,
    ) -> Result<(), CacheError> {
        self.direct().set_many(values, policy).await
    }

    /// As [`Namespace::add`].
    ///
    /// # Errors
    /// Those of it.
    pub async fn add<T: Cacheable>(
        &self,
        key: &str,
        value: &T,
        policy: &Policy,
    ) -> Result<bool, CacheError> {
        self.direct().add(key, value, policy).await
    }

    /// As [`Namespace::incr`].
    ///
    /// # Errors
    /// Those of it.
    pub async fn incr(&self, key: &str, by: i64, policy: &Policy) -> Result<i64, CacheError> {
        self.direct().incr(key, by, policy).await
    }

    /// As [`Namespace::remove`].
    ///
    /// # Errors
    /// Those of it.
    pub async fn remove(&self, key: &str) -> Result<(), CacheError> {
        self.direct().remove(key).await
    }

    /// As [`Namespace::remove_many`].
    ///
    /// # Errors
    /// Those of it.
    pub async fn remove_many(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<(), CacheError> {
        self.direct().remove_many(keys).await
    }

    /// As [`Namespace::remove_matching`].
    ///
    /// # Errors
    /// Those of it.
    pub async fn remove_matching(&self, pattern: &str) -> Result<u64, CacheError> {
        self.direct().remove_matching(pattern).await
    }

    /// As [`Namespace::ttl`].
    pub async fn ttl(&self, key: &str) -> Option<Duration> {
        self.direct().ttl(key).await
    }

    /// As [`Namespace::touch`].
    ///
    /// # Errors
    /// Those of it.
    pub async fn touch(&self, key: &str, ttl: Duration) -> Result<bool, CacheError> {
        self.direct().touch(key, ttl).await
    }
}
