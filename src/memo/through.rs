//! Answers that are remembered in a cache.

use std::any::type_name;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;

use super::answer::{Answer, sure};
use super::call::Call;
use crate::cache::Cache;
use crate::error::CacheError;
use crate::observe::{EntityStats, Event};
use crate::values::{Cacheable, Namespace, Policy};

/// Where the answers of memoized functions can be: a [`Cache`] or a [`Namespace`], also by reference.
///
/// In a cache, each function has a namespace of its own, `memo:` and its path. In a namespace, answers stand among
/// its other values: they are of its tenant, and go stale with it.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use sea_orm_cache::{Cache, memoize};
///
/// #[memoize(cache = cache)]
/// async fn greeting(name: &str, #[memo(skip)] cache: &Cache) -> String {
///     format!("hello {name}")
/// }
///
/// let cache = Cache::in_memory();
/// assert_eq!(greeting("you", &cache).await, "hello you");
/// assert_eq!(greeting("you", &cache).await, "hello you");
/// assert_eq!(greeting::stats(&cache).hits, 1);
/// greeting::clear(&cache).await?;
/// # Ok(()) }
/// ```
pub trait MemoHome: sealed::Sealed {
    #[doc(hidden)]
    fn place(&self, function: &str) -> Place;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::Cache {}
    impl Sealed for crate::Namespace {}
    impl<T: Sealed + ?Sized> Sealed for &T {}
}

impl MemoHome for Cache {
    fn place(&self, function: &str) -> Place {
        Place {
            namespace: self.namespace(function),
            among: None,
        }
    }
}

impl MemoHome for Namespace {
    fn place(&self, function: &str) -> Place {
        Place {
            namespace: self.clone(),
            among: Some(function.to_owned()),
        }
    }
}

impl<T: MemoHome + ?Sized> MemoHome for &T {
    fn place(&self, function: &str) -> Place {
        (**self).place(function)
    }
}

/// Where the answers of one function are.
#[derive(Debug)]
pub struct Place {
    namespace: Namespace,
    /// The function's name, if other values are there as well.
    among: Option<String>,
}

impl Place {
    /// The tag of the function's answers among others.
    fn tag(&self) -> Option<String> {
        let function = self.among.as_ref()?;
        Some(format!("{function}@{}", self.namespace.name()))
    }
}

/// The place of the answers of `function`.
pub fn place(home: &(impl MemoHome + ?Sized), function: &str) -> Place {
    home.place(function)
}

/// The name of a function of this type.
pub fn name<T: ?Sized>(function: &str) -> String {
    format!("memo:{}::{function}", type_name::<T>())
}

/// The name of the function whose module this type stands in.
pub fn path<T>() -> String {
    let path = type_name::<T>();
    let function = path
        .rsplit_once("::")
        .map_or(path, |(function, _)| function);
    format!("memo:{function}")
}

/// A key or tag of its own, of what may be used once more.
pub fn owned<T: Clone>(value: &T) -> T {
    value.clone()
}

/// What was answered to this call, or else what `work` answers, as
/// [`get_or_set`](Namespace::get_or_set) has it.
pub fn load<A: Answer>(
    _: PhantomData<A>,
    place: Place,
    call: Call,
    policy: Policy,
    work: impl Future<Output = A::Output> + Send,
) -> impl Future<Output = A::Output> + Send
where
    A::Output: Send,
    A::Value: Cacheable,
    A::Error: Send,
{
    // In a box of its own: a hit does not carry about what only a miss needs, once for each future that it is in.
    let work = Box::pin(work);
    async move {
        match call.as_str() {
            Ok(text) => remember::<A>(&place, text, policy, work).await,
            Err(reason) => {
                let entity = place.namespace.name();
                let cache = place.namespace.cache();
                cache.emit(&Event::NotCached { entity, reason });
                work.await
            }
        }
    }
}

async fn remember<A: Answer>(
    place: &Place,
    text: &str,
    policy: Policy,
    work: Pin<Box<impl Future<Output = A::Output> + Send>>,
) -> A::Output
where
    A::Value: Cacheable,
    A::Error: Send,
{
    let namespace = &place.namespace;
    let (key, policy) = match &place.among {
        Some(function) => (format!("{function}:{text}"), policy.tags(place.tag())),
        None => (text.to_owned(), policy),
    };
    A::join(if A::OPTIONAL {
        let work = async { A::split(work.await) };
        namespace.get_or_set_optional(&key, &policy, work).await
    } else {
        let work = async { A::split(work.await).map(sure) };
        namespace.get_or_set(&key, &policy, work).await.map(Some)
    })
}

/// Makes all answers of `function` stale.
///
/// # Errors
/// Those of [`Namespace::invalidate`].
pub async fn clear(place: Place) -> Result<(), CacheError> {
    match place.tag() {
        None => place.namespace.invalidate().await,
        Some(tag) => place.namespace.invalidate_tags([tag]).await,
    }
}

/// The counters of the namespace in which the answers are.
pub fn stats(place: &Place) -> EntityStats {
    let stats = place.namespace.cache().stats();
    stats.entity(place.namespace.name())
}
