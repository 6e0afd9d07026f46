//! Where and how a function can be memoized.

#![deny(warnings, missing_docs)]

use std::sync::Arc;

use sea_orm_cache::{Cache, CacheError, Namespace, memoize};

/// Doc comments and attributes stay.
#[must_use]
#[memoize(capacity = 10, ttl = "1m", key = "{first}:{second}")]
#[inline(never)]
pub fn join(first: &str, second: &str) -> String {
    [first, second].concat()
}

#[memoize]
#[cfg(any())]
fn never() -> Unknown {
    nowhere()
}

#[memoize]
pub(crate) fn r#loop<'a>(
    mut n: u64,
    _: &'a [u8],
    (a, ref b): (u8, String),
    unused: (),
) -> Arc<str> {
    n += u64::from(a);
    format!("{n} {b}").into()
}

/// In a module.
pub mod inner {
    use sea_orm_cache::memoize;

    #[memoize]
    pub(super) async fn early(
        n: Result<u64, String>,
    ) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
        if n == Ok(0) {
            return Ok(1);
        }
        let n: u64 = n?.to_string().parse()?;
        Ok(n)
    }

    #[memoize]
    pub(in crate::inner) fn deep() -> &'static str {
        "deep"
    }

    /// Uses it.
    pub fn shallow() -> &'static str {
        deep()
    }
}

struct Service<C> {
    cache: Cache,
    tenant: Namespace,
    _connection: C,
}

impl<C: Sync> Service<C> {
    #[memoize(cache = self.tenant, consistency = "linearizable", stale_if_error = "1h", early_refresh = 1)]
    async fn of_tenant(#[memo(skip)] &self, id: i64) -> Result<Option<i64>, CacheError> {
        Ok(Some(id))
    }

    #[memoize(cache = self.cache.namespace("x").scoped(tenant), tags("a", format!("b:{tenant}")))]
    async fn plain(#[memo(skip)] self: &Arc<Self>, tenant: &str) -> String
    where
        C: Send,
    {
        tenant.to_owned()
    }

    #[memoize(cache = cache, associated)]
    async fn alone(n: u8, #[memo(skip)] cache: &Cache) -> Option<u8> {
        n.checked_add(1)
    }
}

fn is_send<T: Send>(value: T) -> T {
    value
}

#[test]
fn works() {
    let cache = Cache::in_memory();
    let tenant = cache.scoped("acme");
    let _ = (join("a", "b"), join::stats(), inner::shallow());
    join::clear();
    let _ = r#loop(1, b"", (2, "3".to_owned()), ());
    r#loop::clear();
    let service = Arc::new(Service {
        cache: cache.clone(),
        tenant: tenant.clone(),
        _connection: (),
    });
    drop(is_send(service.of_tenant(1)));
    drop(is_send(service.plain("acme")));
    drop(is_send(Service::<()>::alone(1, &cache)));
    drop(is_send(Service::<()>::of_tenant_clear(&tenant)));
    let _ = Service::<()>::of_tenant_stats(&&tenant);
    drop(is_send(Service::<()>::plain_clear(&cache)));
    drop(is_send(Service::<()>::alone_clear(&cache)));
    drop(is_send(inner::early(Ok(1))));
    inner::early::clear();
}
