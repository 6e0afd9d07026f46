//! HTTP responses in a cache.

mod body;
mod headers;
mod page;
mod service;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts as RequestParts;
use http::response::Parts as ResponseParts;
use tower_layer::Layer;

pub use self::body::CachedBody;
use self::headers::is_token;
use self::page::Dress;
pub use self::service::CachedService;
use crate::cache::Cache;
use crate::values::{Codec, Namespace, Policy};

/// A tower layer that keeps responses: for axum's routes and routers, or any other tower service.
///
/// A page is kept for the [`ttl`](Self::ttl), or for as long as the handler says. It goes stale with what its
/// [`policy`](Self::policy) depends on, at once: entities, rows, tags. Of all who ask for a page that is not
/// there, one runs the handler, in all processes; a write that comes meanwhile is not lost.
///
/// # Examples
/// ```
/// # mod city {
/// #     use sea_orm::entity::prelude::*;
/// #     #[derive(Clone, Debug, PartialEq, DeriveEntityModel, sea_orm_cache::CachedEntity)]
/// #     #[sea_orm(table_name = "city")]
/// #     pub struct Model { #[sea_orm(primary_key)] pub id: i64, pub population: i64 }
/// #     #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
/// #     pub enum Relation {}
/// # }
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use sea_orm_cache::{Cache, Policy, ResponseCache};
///
/// # let cache = Cache::in_memory();
/// let pages = ResponseCache::new(&cache)
///     .policy(Policy::new().ttl(Duration::from_secs(900)).depends_on::<city::Entity>())
///     .vary_on_headers(["accept-language"]);
/// let app: Router = Router::new().route("/cities", get(async || "all cities")).layer(pages);
/// # let _ = app;
/// ```
///
/// # What is kept
/// This is a shared cache as RFC 9111 has it.
/// - `GET` alone; `HEAD` is answered from what `GET` has left. After `POST`, `PUT`, `PATCH`, `DELETE` that went
///   well, the page of the same address is stale (RFC 9111, 4.4).
/// - The address is host, path and query, as they are given (RFC 9111, 2): the whole path, also in a router that
///   is nested in another of axum 0.8. Where something in front of the layer, but behind axum's outer router, rewrites
///   the URI, there is one page for each that it made; all of them go stale with the address. A request whose `Host` is none is let through.
/// - Responses of status 200, 203, 204, 300, 301, 308, 404, 405, 410, 414 and 501 (RFC 9110, 15.1); 302 and 307
///   if they say for how long.
/// - For how long: `s-maxage`, else `max-age`, else `Expires`, less `Age`; else the policy's `ttl` (RFC 9111, 4.2).
/// - Not with `Cache-Control: no-store`, `private` or `no-cache` (5.2.2), nor with one that is no text; not with
///   `Vary: *` (4.1), not with `Set-Cookie` unless that is [allowed](Self::allow_set_cookie), not with trailers, not
///   longer than [`max_body`](Self::max_body). That a page cannot be kept for such a reason is remembered for 5 seconds,
///   so that those who ask for it do not wait for each other. That its status is none of these (400, 403, 429) is not
///   remembered: it may be that of one request alone.
/// - An error of the server (5xx) is answered to all who waited for it, and not kept. With
///   [`stale_if_error`](Policy::stale_if_error), the page past its time is answered instead of it, as a `hit`, for as
///   long as that lasts (RFC 5861, 4); if there is none, each who waited runs the handler.
/// - Not past its time, whatever the policy says, with `must-revalidate`, `proxy-revalidate` or `s-maxage` (5.2.2).
/// - A body is read to its end, or to `max_body`, but for no longer than 5 seconds, before it is answered; what has not
///   ended then is given on as it comes, and not kept. `text/event-stream` is given on as it comes in any case.
/// - By what the handler's `Vary` names (4.1): the handler is then run once more for the first page, as only its
///   answer tells; and again, up to four times in all, where it names more for some of these pages. What
///   [`vary_on_headers`](Self::vary_on_headers) and [`vary_on_cookie`](Self::vary_on_cookie) name costs nothing.
/// - A layer that compresses belongs behind this one: its pages are kept as they are sent, one for each
///   `Accept-Encoding` that clients send. In front of it, compressed and plain pages would have one `ETag`.
/// - A request with `Authorization` is not answered from here, nor is its answer kept, unless `authorization` is
///   among the headers that the layer varies on (3.5).
/// - Of a request's directives, `no-store` and `only-if-cached` count (5.2.1); `no-cache` and `max-age` do not:
///   what is answered here is fresh, and a client should not make the handler work.
/// - Requests for ranges, for another protocol (`Upgrade`: WebSockets), and with `If-Match` or `If-Unmodified-Since`,
///   are the handler's.
///
/// What is answered has `Age` (5.1), an `ETag` made of the body if the handler gave none, and, if the handler said
/// nothing, `Cache-Control: no-cache`: browsers then ask each time, and are answered 304 (RFC 9110, 13.1) as long
/// as the page is the same. [`browser_ttl`](Self::browser_ttl) tells them to keep it unasked, past edits.
///
/// # Security
/// A page that is not the same for all must say on what it varies. That a handler reads a cookie is not seen: name
/// it in [`vary_on_cookie`](Self::vary_on_cookie), or leave such requests out by [`when`](Self::when).
#[derive(Clone)]
#[must_use]
pub struct ResponseCache {
    pages: Namespace,
    policy: Policy,
    policy_for: Option<Of<Policy>>,
    scope: Option<Of<Option<String>>>,
    when: Option<Of<bool>>,
    store_when: Option<StoreWhen>,
    /// In lower case and in order.
    headers: Vec<String>,
    cookies: Vec<String>,
    max_body: usize,
    browser_ttl: Option<Duration>,
    set_cookie: bool,
    tell: bool,
}

/// What is so of a request.
type Of<T> = Arc<dyn Fn(&RequestParts) -> T + Send + Sync>;

type StoreWhen = Arc<dyn Fn(&RequestParts, &ResponseParts) -> bool + Send + Sync>;

/// Whatever the cache's other values are written in: a body is bytes.
fn pages(cache: &Cache, name: &str) -> Namespace {
    cache.namespace(name).codec(Codec::MessagePack)
}

impl ResponseCache {
    /// Responses in this cache, for as long as its [`ttl`](crate::CacheBuilder::ttl).
    pub fn new(cache: &Cache) -> Self {
        Self {
            pages: pages(cache, "http"),
            policy: Policy::new(),
            policy_for: None,
            scope: None,
            when: None,
            store_when: None,
            headers: Vec::new(),
            cookies: Vec::new(),
            max_body: 1 << 20,
            browser_ttl: None,
            set_cookie: false,
            tell: false,
        }
    }

    /// How long a response is kept whose handler does not say. Defaults to the cache's [`ttl`](crate::CacheBuilder::ttl).
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.policy = self.policy.ttl(ttl);
        self
    }

    /// How long responses are kept whose handler does not say, and with what they go stale.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// The same by request, instead: for pages that depend on a row, for instance.
    pub fn policy_for(
        mut self,
        policy: impl Fn(&RequestParts) -> Policy + Send + Sync + 'static,
    ) -> Self {
        self.policy_for = Some(Arc::new(policy));
        self
    }

    /// Keeps them apart from those of other layers on the same cache.
    pub fn key_prefix(mut self, prefix: &str) -> Self {
        self.pages = pages(self.pages.cache(), &format!("http.{prefix}"));
        self
    }

    /// By the request's tenant, if it has one: pages of one are not another's.
    pub fn scope(
        mut self,
        tenant: impl Fn(&RequestParts) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.scope = Some(Arc::new(tenant));
        self
    }

    /// Keeps one page for each combination of these headers' values. Blanks around a name do not count.
    ///
    /// # Panics
    /// If no header can have such a name: all would share one page.
    #[track_caller]
    pub fn vary_on_headers(mut self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        for name in names {
            let name = name.as_ref().trim();
            assert!(is_token(name), "`{name}` is no name of a header");
            self.headers.push(name.to_ascii_lowercase());
        }
        self.headers.sort();
        self.headers.dedup();
        self
    }

    /// Keeps one page for each value of the cookie of this name; other cookies do not count. Blanks around the name
    /// do not count either.
    ///
    /// # Panics
    /// If no cookie can have such a name: all would share one page.
    #[track_caller]
    pub fn vary_on_cookie(mut self, name: &str) -> Self {
        let name = name.trim();
        assert!(is_token(name), "`{name}` is no name of a cookie");
        self.cookies.push(name.to_owned());
        self
    }

    /// Leaves requests alone of which this is not so.
    pub fn when(mut self, when: impl Fn(&RequestParts) -> bool + Send + Sync + 'static) -> Self {
        self.when = Some(Arc::new(when));
        self
    }

    /// Keeps only responses of which this is so, of those that may be kept at all.
    pub fn store_when(
        mut self,
        when: impl Fn(&RequestParts, &ResponseParts) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.store_when = Some(Arc::new(when));
        self
    }

    /// How long a body may be, in bytes. A longer one is given on as it comes. Defaults to 1 MiB.
    ///
    /// No page is larger than the cache's [`max_value_bytes`](crate::CacheBuilder::max_value_bytes), its headers and
    /// 2 KiB beside them included: raise that as well for longer bodies.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Tells clients to keep pages for so long without asking, where the handler does not say. They do not hear
    /// of edits meanwhile. Defaults to none: they ask each time.
    pub fn browser_ttl(mut self, ttl: Duration) -> Self {
        self.browser_ttl = Some(ttl);
        self
    }

    /// Also keeps responses with `Set-Cookie`, and sets the same cookie for everybody.
    pub fn allow_set_cookie(mut self) -> Self {
        self.set_cookie = true;
        self
    }

    /// Tells in `X-Cache` whether a response was a `hit`, a `miss`, or let through (`bypass`).
    pub fn status_header(mut self) -> Self {
        self.tell = true;
        self
    }

    /// Where the pages are: `http`, or `http.` and the [prefix](Self::key_prefix). To make all of them stale:
    /// [`invalidate`](Namespace::invalidate).
    pub fn namespace(&self) -> Namespace {
        self.pages.clone()
    }

    fn policy_of(&self, request: &RequestParts) -> Policy {
        match &self.policy_for {
            Some(policy) => policy(request),
            None => self.policy.clone(),
        }
    }

    fn dress(&self) -> Dress {
        let mut vary = self.headers.clone();
        if !self.cookies.is_empty() {
            vary.push("cookie".to_owned());
        }
        Dress {
            vary,
            browser_ttl: self.browser_ttl,
        }
    }
}

impl<S> Layer<S> for ResponseCache {
    type Service = CachedService<S>;

    fn layer(&self, inner: S) -> CachedService<S> {
        CachedService::new(inner, Arc::new(self.clone()))
    }
}

impl fmt::Debug for ResponseCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseCache")
            .field("namespace", &self.namespace().name())
            .field("policy", &self.policy)
            .field("headers", &self.headers)
            .field("cookies", &self.cookies)
            .finish_non_exhaustive()
    }
}
