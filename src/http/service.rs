//! The service: which requests are answered from the cache, and what is kept of the others.

use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::request::Parts as RequestParts;
use http::response::Parts as ResponseParts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tower_service::Service;

use super::ResponseCache;
use super::body::{CachedBody, Read, read};
use super::headers::{
    Directives, asks_for_a_part, cookies, has_odd_cookies, is_failure, lifetime, may_be_stored,
    rewritten, target, vary,
};
use super::page::{Page, Stored};
use crate::values::{Loaded, Namespace, Policy};

/// For how long it is remembered that a page cannot be kept.
const PASS: Duration = Duration::from_secs(5);

/// The page, and the variants that it may be one of: a handler may name more in its `Vary` for some of them.
const ROUNDS: usize = 4;

/// A service whose responses a [`ResponseCache`] keeps.
#[derive(Clone, Debug)]
pub struct CachedService<S> {
    inner: S,
    settings: Arc<ResponseCache>,
}

impl<S> CachedService<S> {
    pub(super) fn new(inner: S, settings: Arc<ResponseCache>) -> Self {
        Self { inner, settings }
    }
}

impl<S, A, B> Service<Request<A>> for CachedService<S>
where
    S: Service<Request<A>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    A: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Send,
{
    type Response = Response<CachedBody<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        // The one that is ready is used, and another put in its place.
        let other = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, other);
        let settings = Arc::clone(&self.settings);
        Box::pin(async move { settings.answer(inner, request).await })
    }
}

/// What becomes of a request.
enum Plan {
    Cached(Place),
    /// It is only to be answered from the cache.
    OnlyCached(Place),
    /// It may change the page.
    Changes,
    Bypass,
}

/// A request's place in the cache.
struct Place {
    pages: Namespace,
    /// The address.
    target: String,
    /// The address, what it was rewritten to, and the values of what the layer varies on.
    key: String,
    policy: Policy,
}

/// A request that may change its page. If its caller goes away, nobody knows whether it did.
struct Changing(Option<Place>);

impl Changing {
    fn new(place: Place) -> Self {
        Self(Some(place))
    }

    async fn over(mut self, changed: bool) {
        if let Some(place) = self.0.as_ref().filter(|_| changed) {
            // A failure is told of, and made up for from the journal.
            let _ = place.pages.remove(&place.target).await;
        }
        self.0 = None;
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        if let (Some(place), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move { place.pages.remove(&place.target).await });
        }
    }
}

/// The handler's answer, and what is to be stored of it.
struct Answer<B: Body> {
    response: Response<CachedBody<B>>,
    page: Loaded<Page>,
}

/// Why there is no page.
enum Failure<B: Body, E> {
    /// The service failed.
    Service(E),
    /// The handler answered an error of the server, and a page past its time would be better.
    Answered(Response<CachedBody<B>>),
}

/// What is remembered of a page that cannot be kept. Of what may be the fault of this one request (400, 429), nothing:
/// those who wait ask for themselves, and whoever comes later asks anew.
fn passed(status: StatusCode) -> Loaded<Page> {
    let of_one = status.is_client_error() && !may_be_stored(status);
    let ttl = if of_one { Duration::ZERO } else { PASS };
    Loaded::new(Page::Pass).ttl(ttl).unaged()
}

impl ResponseCache {
    async fn answer<S, A, B>(
        &self,
        inner: S,
        request: Request<A>,
    ) -> Result<Response<CachedBody<B>>, S::Error>
    where
        S: Service<Request<A>, Response = Response<B>> + Send,
        S::Future: Send,
        S::Error: Send,
        A: Send,
        B: Body + Send,
        B::Data: Send,
        B::Error: Send,
    {
        let (parts, body) = request.into_parts();
        match self.plan(&parts) {
            Plan::Bypass => self.pass(inner, Request::from_parts(parts, body)).await,
            Plan::Changes => {
                let changing = self.place(&parts).map(Changing::new);
                let response = self.pass(inner, Request::from_parts(parts, body)).await?;
                let status = response.status();
                if let Some(changing) = changing {
                    changing
                        .over(status.is_success() || status.is_redirection())
                        .await;
                }
                Ok(response)
            }
            Plan::OnlyCached(place) => {
                let hit = self.find(&place, &parts).await;
                Ok(hit.unwrap_or_else(|| {
                    let mut response = Response::new(CachedBody::default());
                    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
                    self.tell(response, "miss")
                }))
            }
            Plan::Cached(place) if parts.method == Method::HEAD => {
                match self.find(&place, &parts).await {
                    Some(hit) => Ok(hit),
                    None => self.pass(inner, Request::from_parts(parts, body)).await,
                }
            }
            Plan::Cached(place) => self.fetch(inner, place, parts, body).await,
        }
    }

    fn plan(&self, request: &RequestParts) -> Plan {
        let directives = Directives::of(&request.headers);
        let reads = matches!(request.method, Method::GET | Method::HEAD);
        let authorized = request.headers.contains_key(header::AUTHORIZATION);
        let varies = self.headers.iter().any(|name| name == "authorization");
        if !request.method.is_safe() {
            return Plan::Changes;
        }
        if !reads || self.when.as_ref().is_some_and(|when| !when(request)) {
            return Plan::Bypass;
        }
        let odd = !self.cookies.is_empty() && has_odd_cookies(&request.headers);
        let upgrades = request.headers.contains_key(header::UPGRADE);
        let special = upgrades || asks_for_a_part(request);
        if directives.no_store || special || (authorized && !varies) || odd {
            return Plan::Bypass;
        }
        match (self.place(request), directives.only_if_cached) {
            (None, _) => Plan::Bypass,
            (Some(place), true) => Plan::OnlyCached(place),
            (Some(place), false) => Plan::Cached(place),
        }
    }

    fn place(&self, request: &RequestParts) -> Option<Place> {
        let tenant = self.scope.as_ref().and_then(|scope| scope(request));
        let pages = &self.pages;
        let target = short(target(request)?);
        let mut key = target.clone();
        if let Some(uri) = rewritten(request) {
            // No header has this name.
            add(&mut key, ":uri", Some(uri.to_string().as_bytes()));
        }
        for name in &self.headers {
            add_values(&mut key, name, &request.headers);
        }
        for name in &self.cookies {
            let name = format!("cookie {name}");
            add(&mut key, &name, None);
            for value in cookies(&request.headers, name.trim_start_matches("cookie ")) {
                add(&mut key, &name, Some(value.as_bytes()));
            }
        }
        let policy = self.policy_of(request);
        Some(Place {
            pages: tenant.map_or_else(|| pages.clone(), |tenant| pages.scoped(&tenant)),
            policy: match key == target {
                true => policy,
                // So that a change of the page is one of all its variants.
                false => policy.depends_on_key(&target),
            },
            target,
            key,
        })
    }

    /// The response to what is kept, without the handler.
    async fn find<B: Body>(
        &self,
        place: &Place,
        request: &RequestParts,
    ) -> Option<Response<CachedBody<B>>> {
        let mut key = place.key.clone();
        for _ in 0..ROUNDS {
            match place.pages.get::<Page>(&key).await? {
                Page::Stored(stored) => return Some(self.tell(stored.answer(request), "hit")),
                Page::Pass => return None,
                Page::Varies(names) => key = variant(&key, &names, &request.headers),
            }
        }
        None
    }

    /// The response to what is kept, or else the handler's.
    async fn fetch<S, A, B>(
        &self,
        inner: S,
        place: Place,
        parts: RequestParts,
        body: A,
    ) -> Result<Response<CachedBody<B>>, S::Error>
    where
        S: Service<Request<A>, Response = Response<B>> + Send,
        S::Future: Send,
        S::Error: Send,
        A: Send,
        B: Body + Send,
        B::Data: Send,
        B::Error: Send,
    {
        let Place {
            pages,
            mut key,
            target,
            mut policy,
        } = place;
        let mut handler = Some((inner, body));
        let mut known: Vec<String> = Vec::new();
        for _ in 0..ROUNDS {
            let mut answered = None;
            let load = async {
                let Some((inner, body)) = handler.take() else {
                    return Ok(Loaded::new(Page::Pass).ttl(Duration::ZERO));
                };
                let answer = self.run(inner, &parts, body, &known).await;
                let Answer { response, page } = answer.map_err(Failure::Service)?;
                if policy.outlasts_errors() && is_failure(response.status()) {
                    return Err(Failure::Answered(response));
                }
                answered = Some(response);
                Ok(page)
            };
            let page = match pages.get_or_load(&key, &policy, load).await {
                Ok(page) => page,
                Err(Failure::Service(error)) => return Err(error),
                Err(Failure::Answered(response)) => return Ok(self.tell(response, "miss")),
            };
            if let Some(response) = answered {
                return Ok(self.tell(response, "miss"));
            }
            match page {
                Page::Stored(stored) => return Ok(self.tell(stored.answer(&parts), "hit")),
                Page::Pass => break,
                Page::Varies(names) => {
                    policy = policy.depends_on_key(&target).depends_on_key(&key);
                    key = variant(&key, &names, &parts.headers);
                    known.extend(names);
                }
            }
        }
        match handler {
            Some((inner, body)) => self.pass(inner, Request::from_parts(parts, body)).await,
            // Markers are not answered past their time, so that nobody who ran the handler comes here.
            None => {
                let mut response = Response::new(CachedBody::default());
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                Ok(self.tell(response, "miss"))
            }
        }
    }

    /// Runs the handler, and reads its answer if that may be kept.
    async fn run<S, A, B>(
        &self,
        mut inner: S,
        request: &RequestParts,
        body: A,
        known: &[String],
    ) -> Result<Answer<B>, S::Error>
    where
        S: Service<Request<A>, Response = Response<B>>,
        B: Body,
    {
        let mut asked = request.clone();
        // Its answer is for all.
        for name in [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE] {
            asked.headers.remove(name);
        }
        let response = inner.call(Request::from_parts(asked, body)).await?;
        let (parts, body) = response.into_parts();
        let pass = |body| Answer {
            response: Response::from_parts(parts.clone(), body),
            page: passed(parts.status),
        };
        let Some(varies) = self.may_keep(request, &parts) else {
            return Ok(pass(CachedBody::given(body)));
        };
        let body = match read(body, self.longest_body(&parts.headers)).await {
            Read::Whole(body) => body,
            Read::Other(body) => return Ok(pass(body)),
        };
        let stored = Stored::of(&parts, body, &self.dress());
        let new = |name: &String| !self.headers.contains(name) && !known.contains(name);
        let names: Vec<String> = varies.into_iter().filter(new).collect();
        let page = if names.is_empty() {
            self.kept(&parts, stored.clone())
        } else {
            // Only now it is known which page this is.
            Loaded::new(Page::Varies(names)).unaged()
        };
        let mut response = stored.answer(request);
        // As old as the handler says, and no more.
        if !parts.headers.contains_key(header::AGE) {
            response.headers_mut().remove(header::AGE);
        }
        *response.extensions_mut() = parts.extensions;
        Ok(Answer { response, page })
    }

    /// How long a body may be beside these headers: a page that the cache does not take is not to be read in vain.
    fn longest_body(&self, headers: &HeaderMap) -> usize {
        // For each header, what frames it; beside them, those that the layer adds, and what the cache notes.
        const FRAME: usize = 16;
        const BESIDE: usize = 2_048;
        let sizes = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + FRAME);
        let most = self.pages.cache().settings().max_value_bytes;
        let beside = sizes.sum::<usize>() + BESIDE.min(most / 2);
        self.max_body.min(most.saturating_sub(beside))
    }

    /// What is stored of a response that others may have.
    fn kept(&self, response: &ResponseParts, page: Stored) -> Loaded<Page> {
        let directives = Directives::of(&response.headers);
        let lifetime = lifetime(response, &directives);
        let stored = |stored| match directives.revalidate {
            true => Loaded::new(Page::Stored(stored)).unaged(),
            false => Loaded::new(Page::Stored(stored)),
        };
        let page = stored(page);
        let told = matches!(
            response.status,
            StatusCode::FOUND | StatusCode::TEMPORARY_REDIRECT
        );
        match lifetime {
            // For those who wait, and nobody else.
            _ if is_failure(response.status) => page.ttl(Duration::ZERO),
            Some(Duration::ZERO) => passed(response.status),
            Some(ttl) if told || may_be_stored(response.status) => page.ttl(ttl),
            None if may_be_stored(response.status) => page,
            _ => Loaded::new(Page::Pass).ttl(Duration::ZERO),
        }
    }

    /// Whether a response may be given to others, and on what it varies.
    fn may_keep(&self, request: &RequestParts, response: &ResponseParts) -> Option<Vec<String>> {
        let headers = &response.headers;
        let directives = Directives::of(headers);
        let forbidden = directives.no_store || directives.private || directives.no_cache;
        let cookie = headers.contains_key(header::SET_COOKIE) && !self.set_cookie;
        let part = response.status == StatusCode::PARTIAL_CONTENT;
        let informs = response.status.is_informational();
        let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        let events = kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"));
        let wanted = |when: &super::StoreWhen| when(request, response);
        if forbidden
            || cookie
            || part
            || informs
            || events
            || !self.store_when.as_ref().is_none_or(wanted)
        {
            return None;
        }
        vary(headers)
    }

    /// The handler's answer, untouched.
    async fn pass<S, A, B>(
        &self,
        mut inner: S,
        request: Request<A>,
    ) -> Result<Response<CachedBody<B>>, S::Error>
    where
        S: Service<Request<A>, Response = Response<B>>,
        B: Body,
    {
        let response = inner.call(request).await?.map(CachedBody::given);
        Ok(self.tell(response, "bypass"))
    }

    fn tell<B: Body>(
        &self,
        mut response: Response<CachedBody<B>>,
        what: &'static str,
    ) -> Response<CachedBody<B>> {
        if self.tell {
            let what = HeaderValue::from_static(what);
            response.headers_mut().insert("x-cache", what);
        }
        response
    }
}

/// The key of the page for these headers' values.
fn variant(key: &str, names: &[String], headers: &HeaderMap) -> String {
    let mut key = key.to_owned();
    for name in names {
        add_values(&mut key, name, headers);
    }
    key
}

fn add_values(key: &mut String, name: &str, headers: &HeaderMap) {
    let mut any = false;
    for value in headers.get_all(name) {
        add(key, name, Some(value.as_bytes()));
        any = true;
    }
    if !any {
        add(key, name, None);
    }
}

/// Adds the value of a header, or that there is none. A blank is in no target. It may be a secret, and keys are
/// in logs: what is added is its SHA-256.
fn add(key: &mut String, name: &str, value: Option<&[u8]>) {
    let written = match value {
        None => write!(key, " {name}"),
        Some(value) => write!(key, " {name}={}", digest(value)),
    };
    // Writing to a String does not fail.
    let _ = written;
}

/// A longer target is a key by its digest.
const LONGEST_TARGET: usize = 1_024;

fn short(target: String) -> String {
    match target.len() > LONGEST_TARGET {
        true => digest(target.as_bytes()),
        false => target,
    }
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
