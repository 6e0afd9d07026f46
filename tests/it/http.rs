//! Responses: what is answered from the cache, and what is not.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::join_all;
use sea_orm::ActiveValue::Set;
use sea_orm::{ActiveModelTrait, EntityTrait};
use sea_orm_cache::testing::Fault;
use sea_orm_cache::{Cache, CachedBody, Policy, ResponseCache};
use tower::{Layer, ServiceExt};

use crate::entities::city;
use crate::on_all;
use crate::reads::{country as a_country, paris};
use crate::world::World;

on_all!(
    a_page_is_computed_once_and_goes_stale_with_its_row,
    an_edit_during_the_handlers_run_is_not_lost,
    of_very_many_who_ask_for_a_cold_page_one_runs_the_handler,
    users_tenants_and_prefixes_never_see_each_other,
);

/// An answer, read.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    body: String,
    headers: HeaderMap,
}

impl Answer {
    fn header(&self, name: impl AsRef<str>) -> Option<&str> {
        let value = self.headers.get(name.as_ref())?;
        Some(value.to_str().unwrap())
    }

    fn cache(&self) -> &str {
        self.header("x-cache").unwrap()
    }
}

/// A request by its lines: the method and the path, and headers.
fn request(line: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let (method, path) = line.split_once(' ').unwrap();
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri(path)
        .header(header::HOST, "example.org");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

async fn ask(app: &Router, line: &str, headers: &[(&str, &str)]) -> Answer {
    let Ok(response) = app.clone().oneshot(request(line, headers)).await;
    read(response).await
}

async fn read(response: Response) -> Answer {
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 10 << 20).await.unwrap();
    Answer {
        status: parts.status.as_u16(),
        body: String::from_utf8(body.to_vec()).unwrap(),
        headers: parts.headers,
    }
}

fn layer(cache: &Cache) -> ResponseCache {
    ResponseCache::new(cache).status_header()
}

/// An application whose one handler counts its runs, and answers their number with what `dress` adds.
struct Counted {
    app: Router,
    runs: Arc<AtomicU64>,
}

impl Counted {
    fn new<R: IntoResponse>(
        layer: ResponseCache,
        dress: impl Fn(&HeaderMap, String) -> R + Clone + Send + Sync + 'static,
    ) -> Self {
        let runs = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&runs);
        let handler = async move |headers: HeaderMap| {
            let run = count.fetch_add(1, Ordering::Relaxed) + 1;
            dress(&headers, run.to_string())
        };
        let app = Router::new().fallback(handler).layer(layer);
        Self { app, runs }
    }

    /// One that answers so, with these headers.
    fn with(
        layer: ResponseCache,
        status: u16,
        headers: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self::new(layer, move |_, body| dressed(status, headers, body))
    }

    async fn get(&self, headers: &[(&str, &str)]) -> Answer {
        ask(&self.app, "GET /", headers).await
    }

    /// Asks twice, and answers whether the second answer was kept from the first.
    async fn keeps(&self, headers: &[(&str, &str)]) -> bool {
        let first = self.get(headers).await;
        let second = self.get(headers).await;
        assert_eq!(first.body == second.body, second.cache() == "hit");
        second.cache() == "hit"
    }
}

fn dressed(status: u16, headers: &[(&'static str, &'static str)], body: String) -> Response {
    let mut response = body.into_response();
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        let (name, value) = (HeaderName::from_static(name), value.parse().unwrap());
        if name == header::CONTENT_TYPE {
            response.headers_mut().insert(name, value);
        } else {
            response.headers_mut().append(name, value);
        }
    }
    response
}

fn plain() -> Counted {
    Counted::with(layer(&Cache::in_memory()), 200, &[])
}

/// The page of a city, and how often it was made.
fn city_page(world: &World) -> (Router, Arc<AtomicU64>) {
    let runs = Arc::new(AtomicU64::new(0));
    let (count, db) = (Arc::clone(&runs), world.raw.clone());
    let page = async move || {
        count.fetch_add(1, Ordering::Relaxed);
        let city = city::Entity::find_by_id(1).one(&db).await.unwrap();
        city.unwrap().name
    };
    let pages = layer(&world.cache).policy_for(|_| Policy::new().depends_on_row::<city::Entity>(1));
    (Router::new().route("/city/1", get(page)).layer(pages), runs)
}

fn rename(name: &str) -> city::ActiveModel {
    city::ActiveModel {
        id: Set(1),
        name: Set(name.to_owned()),
        ..Default::default()
    }
}

async fn a_page_is_computed_once_and_goes_stale_with_its_row(world: World) {
    world.seed([a_country(10, "FR")]).await;
    world.seed([paris()]).await;
    let (app, runs) = city_page(&world);
    let page = async || ask(&app, "GET /city/1", &[]).await;
    let first = page().await;
    assert_eq!(
        (first.status, &*first.body, first.cache()),
        (200, "PARIS", "miss")
    );
    let second = page().await;
    assert_eq!((&*second.body, second.cache()), ("PARIS", "hit"));
    assert_eq!(second.header("etag"), first.header("etag"));
    let tag = first.header("etag").unwrap();
    let same = ask(&app, "GET /city/1", &[("if-none-match", tag)]).await;
    assert_eq!((same.status, &*same.body), (304, ""));
    rename("new").update(&world.db).await.unwrap();
    let edited = ask(&app, "GET /city/1", &[("if-none-match", tag)]).await;
    assert_eq!(
        (edited.status, &*edited.body, edited.cache()),
        (200, "new", "miss")
    );
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    // All pages at once.
    let pages = ResponseCache::new(&world.cache).namespace();
    pages.invalidate().await.unwrap();
    assert_eq!(page().await.cache(), "miss");
}

async fn an_edit_during_the_handlers_run_is_not_lost(world: World) {
    world.seed([a_country(10, "FR")]).await;
    world.seed([paris()]).await;
    let (raw, db) = (world.raw.clone(), world.db.clone());
    let page = async move || {
        let city = city::Entity::find_by_id(1).one(&raw).await.unwrap();
        let name = city.unwrap().name;
        if name == "PARIS" {
            rename("new").update(&db).await.unwrap();
        }
        name
    };
    let pages = layer(&world.cache).policy(Policy::new().depends_on::<city::Entity>());
    let app = Router::new().route("/", get(page)).layer(pages);
    assert_eq!(ask(&app, "GET /", &[]).await.body, "PARIS");
    let after = ask(&app, "GET /", &[]).await;
    assert_eq!((&*after.body, after.cache()), ("new", "miss"));
    assert_eq!(ask(&app, "GET /", &[]).await.cache(), "hit");
}

async fn of_very_many_who_ask_for_a_cold_page_one_runs_the_handler(world: World) {
    let runs = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&runs);
    let slow = async move || {
        tokio::time::sleep(Duration::from_millis(50)).await;
        count.fetch_add(1, Ordering::Relaxed).to_string()
    };
    let (other, _) = world.another_process().await;
    let apps = [&world.cache, &other].map(|cache| {
        Router::new()
            .route("/", get(slow.clone()))
            .layer(layer(cache))
    });
    let asked = (0..500).map(|n| ask(&apps[n % 2], "GET /", &[]));
    let answers = join_all(asked).await;
    assert!(answers.iter().all(|answer| answer.body == "0"));
    // Two memory stores know nothing of each other.
    let processes = if world.redis.is_some() { 1 } else { 2 };
    let runs = runs.load(Ordering::Relaxed);
    assert!((1..=processes).contains(&runs), "{runs}");
}

async fn users_tenants_and_prefixes_never_see_each_other(world: World) {
    let whoami = |headers: &HeaderMap, run: String| {
        let names = ["authorization", "cookie", "x-tenant", "accept-language"];
        let said = names.map(|name| {
            let values = headers.get_all(name).into_iter();
            let values: Vec<_> = values.map(|value| value.to_str().unwrap()).collect();
            values.join("+")
        });
        format!("{run}: {}", said.join("|"))
    };
    let tenant = |request: &axum::http::request::Parts| {
        let tenant = request.headers.get("x-tenant")?;
        Some(tenant.to_str().ok()?.to_owned())
    };
    let personal = |cache: &Cache| {
        layer(cache)
            .vary_on_headers(["Authorization", "accept-language"])
            .vary_on_cookie("sid")
            .scope(tenant)
    };
    let app = Counted::new(personal(&world.cache), whoami);
    let prefixed = Counted::new(personal(&world.cache).key_prefix("b"), whoami);
    let users: [&[(&str, &str)]; 8] = [
        &[],
        &[("authorization", "Bearer a")],
        &[("authorization", "Bearer b")],
        &[("authorization", "")],
        &[("cookie", "sid=a; other=1")],
        &[("cookie", "sid=b")],
        &[("x-tenant", "acme")],
        &[("accept-language", "de"), ("accept-language", "en")],
    ];
    for app in [&app, &prefixed] {
        let mut bodies = Vec::new();
        for user in users {
            let first = app.get(user).await;
            assert_eq!(first.cache(), "miss", "{user:?}");
            bodies.push(first.body);
        }
        for (user, body) in users.iter().zip(&bodies) {
            let again = app.get(user).await;
            assert_eq!((again.cache(), &again.body), ("hit", body), "{user:?}");
        }
        assert_eq!(app.runs.load(Ordering::Relaxed), 8);
        let other_cookie = app.get(&[("cookie", "other=2; sid=a")]).await;
        assert_eq!(other_cookie.body, bodies[4]);
        let vary = other_cookie.headers.get_all("vary");
        assert_eq!(vary.iter().count(), 3, "{vary:?}");
        // A change by whoever it is, is one for all who share its tenant.
        ask(&app.app, "POST /", &[]).await;
        assert_eq!(app.get(users[2]).await.cache(), "miss");
        assert_eq!(app.get(users[6]).await.cache(), "hit");
    }
}

#[tokio::test]
async fn names_that_nothing_can_have_are_refused() {
    let refused = |set: &dyn Fn(ResponseCache) -> ResponseCache| {
        let set = || set(layer(&Cache::in_memory()));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(set)).is_err()
    };
    for name in ["", " ", "x user", "x-user:", "x-\u{fc}ser", "a,b"] {
        assert!(refused(&|layer| layer.vary_on_headers([name])), "{name:?}");
    }
    for name in ["", "sid=", "s id", "sid;", "s\u{ef}d", "\"sid\""] {
        assert!(refused(&|layer| layer.vary_on_cookie(name)), "{name:?}");
    }
    let pages = layer(&Cache::in_memory())
        .vary_on_headers(["X-User "])
        .vary_on_cookie(" sid");
    let app = Counted::with(pages, 200, &[]);
    for user in [[("x-user", "a")], [("x-user", "b")], [("cookie", "sid=a")]] {
        assert_eq!(app.get(&user).await.cache(), "miss");
    }
}

#[tokio::test]
async fn without_a_word_on_authorization_such_requests_are_let_through() {
    // RFC 9111, 3.5.
    let app = plain();
    let user = [("authorization", "Bearer a")];
    assert_eq!(app.get(&user).await.cache(), "bypass");
    assert_eq!(app.get(&[]).await.cache(), "miss");
    assert_eq!(app.get(&user).await.body, "3");
}

#[tokio::test]
async fn only_get_is_kept_and_head_is_answered_from_it() {
    // RFC 9110, 9.2.3 and 9.3.2.
    let app = plain();
    let head = async || ask(&app.app, "HEAD /", &[]).await;
    assert_eq!(head().await.cache(), "bypass");
    assert_eq!(head().await.cache(), "bypass");
    assert_eq!(app.get(&[]).await.body, "3");
    let hit = head().await;
    assert_eq!((hit.cache(), &*hit.body), ("hit", ""));
    assert_eq!(hit.header("content-length"), Some("1"));
    for line in ["OPTIONS /", "TRACE /"] {
        assert_eq!(ask(&app.app, line, &[]).await.cache(), "bypass");
        assert_eq!(app.get(&[]).await.cache(), "hit");
    }
}

#[tokio::test]
async fn an_unsafe_method_that_went_well_makes_the_page_stale() {
    // RFC 9111, 4.4.
    for (method, status, kept) in [
        ("POST", 200, false),
        ("PUT", 204, false),
        ("DELETE", 303, false),
        ("PATCH", 200, false),
        ("POST", 400, true),
        ("POST", 500, true),
    ] {
        let app = {
            let answer = async move |request: Request<Body>| {
                let status = if *request.method() == Method::GET {
                    200
                } else {
                    status
                };
                StatusCode::from_u16(status).unwrap()
            };
            Router::new()
                .fallback(answer)
                .layer(layer(&Cache::in_memory()))
        };
        let get = async |path: &str| ask(&app, &format!("GET {path}"), &[]).await;
        for path in ["/a", "/a?b"] {
            assert_eq!(get(path).await.cache(), "miss");
        }
        ask(&app, &format!("{method} /a"), &[]).await;
        let expected = if kept { "hit" } else { "miss" };
        assert_eq!(get("/a").await.cache(), expected, "{method} {status}");
        assert_eq!(get("/a?b").await.cache(), "hit", "another address");
    }
}

#[tokio::test]
async fn what_a_response_says_decides_whether_it_is_kept() {
    // RFC 9111, 3, 4.1, 4.2 and 5.2.2.
    let yes: [&'static [(&'static str, &'static str)]; 8] = [
        &[],
        &[("cache-control", "public, max-age=60")],
        &[("cache-control", "max-age=0, s-maxage=60")],
        &[("cache-control", "s-maxage=\"60\"")],
        &[("cache-control", "max-age=99999999999999999999")],
        &[("expires", "Fri, 31 Dec 2100 00:00:00 GMT")],
        &[("vary", "")],
        &[("cache-control", "max-age=60"), ("age", "30")],
    ];
    for headers in yes {
        let app = Counted::with(layer(&Cache::in_memory()), 200, headers);
        assert!(app.keeps(&[]).await, "{headers:?}");
    }
    let no: [&'static [(&'static str, &'static str)]; 14] = [
        &[("content-type", "text/event-stream")],
        &[("cache-control", "no-store")],
        &[("cache-control", "private")],
        &[("cache-control", "Private=\"x\", max-age=60")],
        &[("cache-control", "no-cache")],
        &[
            ("cache-control", "max-age=60"),
            ("cache-control", "NO-STORE"),
        ],
        &[("cache-control", "max-age=0")],
        &[("cache-control", "max-age=60, s-maxage=0")],
        &[("cache-control", "max-age=soon")],
        &[("cache-control", "max-age=60"), ("age", "60")],
        &[("expires", "0")],
        &[("expires", "Sat, 01 Jan 2000 00:00:00 GMT")],
        &[("vary", "accept, *")],
        &[("set-cookie", "a=b")],
    ];
    for headers in no {
        let app = Counted::with(layer(&Cache::in_memory()), 200, headers);
        assert!(!app.keeps(&[]).await, "{headers:?}");
    }
    let allowed = layer(&Cache::in_memory()).allow_set_cookie();
    let app = Counted::with(allowed, 200, &[("set-cookie", "a=b")]);
    assert!(app.keeps(&[]).await);
}

#[tokio::test]
async fn the_status_decides_whether_a_response_is_kept() {
    // RFC 9110, 15.1.
    for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
        let app = Counted::with(layer(&Cache::in_memory()), status, &[]);
        let keeps = match status {
            // It has no body to compare.
            204 => app.get(&[]).await.cache() == "miss" && app.get(&[]).await.cache() == "hit",
            _ => app.keeps(&[]).await,
        };
        assert!(keeps, "{status}");
        assert_eq!(app.get(&[]).await.status, status);
    }
    for status in [201, 202, 206, 302, 307, 400, 401, 403, 429, 500, 502, 503] {
        let app = Counted::with(layer(&Cache::in_memory()), status, &[]);
        app.get(&[]).await;
        let again = app.get(&[]).await;
        assert_ne!(again.cache(), "hit", "{status}");
    }
    let app = Counted::with(
        layer(&Cache::in_memory()),
        302,
        &[("cache-control", "max-age=60")],
    );
    assert!(app.keeps(&[]).await);
}

#[tokio::test]
async fn what_a_request_says_decides_whether_the_cache_is_asked() {
    // RFC 9111, 5.2.1; RFC 9110, 13 and 14.
    let app = plain();
    let only = [("cache-control", "only-if-cached")];
    assert_eq!(app.get(&only).await.status, 504);
    assert_eq!(app.get(&[]).await.body, "1");
    assert_eq!(app.get(&only).await.body, "1");
    for ignored in ["no-cache", "max-age=0"] {
        assert_eq!(app.get(&[("cache-control", ignored)]).await.body, "1");
    }
    for through in [
        ("cache-control", "no-store"),
        ("range", "bytes=0-1"),
        ("upgrade", "websocket"),
        ("if-match", "\"x\""),
        ("if-unmodified-since", "Sat, 01 Jan 2000 00:00:00 GMT"),
    ] {
        assert_eq!(app.get(&[through]).await.cache(), "bypass");
    }
    let when = layer(&Cache::in_memory()).when(|request| request.uri.path() != "/");
    assert_eq!(
        Counted::with(when, 200, &[]).get(&[]).await.cache(),
        "bypass"
    );
    let never = layer(&Cache::in_memory()).store_when(|_, response| response.status != 200);
    assert!(!Counted::with(never, 200, &[]).keeps(&[]).await);
}

/// `Cache-Control` with a byte that is no text.
fn no_text() -> HeaderValue {
    HeaderValue::from_bytes(b"private, x=\"\xe9\"").unwrap()
}

#[tokio::test]
async fn a_cache_control_that_is_no_text_keeps_the_page_from_all() {
    let says = |_: &HeaderMap, body: String| ([(header::CACHE_CONTROL, no_text())], body);
    let app = Counted::new(layer(&Cache::in_memory()), says);
    assert!(!app.keeps(&[]).await);
    let app = plain();
    let mut request = request("GET /", &[]);
    let headers = request.headers_mut();
    headers.insert(header::CACHE_CONTROL, no_text());
    let Ok(response) = app.app.clone().oneshot(request).await;
    assert_eq!(read(response).await.cache(), "bypass");
}

#[tokio::test]
async fn a_client_that_has_the_page_is_told_so() {
    // RFC 9110, 13.1.2, 13.1.3, 13.2.2 and 15.4.5.
    const DRESS: [(&str, &str); 4] = [
        ("etag", "\"a,b\""),
        ("last-modified", "Sat, 01 Jan 2000 00:00:00 GMT"),
        ("content-language", "en"),
        ("connection", "x-hop"),
    ];
    let app = Counted::with(layer(&Cache::in_memory()), 200, &DRESS);
    let old = ("if-modified-since", "Fri, 31 Dec 1999 00:00:00 GMT");
    let new = ("if-modified-since", "Sat, 01 Jan 2000 00:00:00 GMT");
    for (headers, status) in [
        (vec![("if-none-match", "\"a,b\"")], 304),
        (vec![("if-none-match", "\"x\", W/\"a,b\"")], 304),
        (vec![("if-none-match", "*")], 304),
        (vec![("if-none-match", "\"a\", \"b\"")], 200),
        (vec![("if-none-match", "\"x\""), new], 200),
        (vec![new], 304),
        (vec![old], 200),
        (vec![("if-modified-since", "yesterday")], 200),
    ] {
        let answer = app.get(&headers).await;
        assert_eq!(answer.status, status, "{headers:?}");
        assert_eq!(answer.header("etag"), Some("\"a,b\""));
        let whole = status == 200;
        assert_eq!(answer.header("content-language").is_some(), whole);
        assert_eq!(answer.body.is_empty(), !whole);
    }
    assert_eq!(
        app.runs.load(Ordering::Relaxed),
        1,
        "the handler was asked for the whole"
    );
}

#[tokio::test]
async fn what_is_answered_has_an_age_and_nothing_of_a_connection() {
    // RFC 9111, 3.1, 4.2.3 and 5.1; RFC 9110, 7.6.1.
    const DRESS: [(&str, &str); 6] = [
        ("connection", "x-hop, close"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "Basic"),
        ("age", "30"),
        ("x-own", "kept"),
    ];
    let app = Counted::with(layer(&Cache::in_memory()), 200, &DRESS);
    app.get(&[]).await;
    let hit = app.get(&[]).await;
    for name in ["connection", "x-hop", "keep-alive", "proxy-authenticate"] {
        assert_eq!(hit.header(name), None, "{name}");
    }
    assert_eq!(hit.header("x-own"), Some("kept"));
    assert!(hit.header("date").is_some());
    let age: u64 = hit.header("age").unwrap().parse().unwrap();
    assert!(age >= 30);
    // Unless it says something else, a client asks each time.
    assert_eq!(hit.header("cache-control"), Some("no-cache"));
    let minute = layer(&Cache::in_memory()).browser_ttl(Duration::from_secs(60));
    let app = Counted::with(minute, 200, &[]);
    assert_eq!(
        app.get(&[]).await.header("cache-control"),
        Some("max-age=60")
    );
}

#[tokio::test]
async fn a_handlers_own_vary_is_minded() {
    // RFC 9111, 4.1.
    let answer = |headers: &HeaderMap, run: String| {
        let language = headers
            .get("accept-language")
            .map(|l| l.to_str().unwrap().to_owned());
        ([("vary", "Accept-Language")], format!("{run} {language:?}"))
    };
    let app = Counted::new(layer(&Cache::in_memory()), answer);
    let get = async |language: &'static str| app.get(&[("accept-language", language)]).await;
    assert_eq!(get("de").await.body, "1 Some(\"de\")");
    assert_eq!(
        get("de").await.body,
        "2 Some(\"de\")",
        "only now it is known that it varies"
    );
    assert_eq!(get("en").await.body, "3 Some(\"en\")");
    assert_eq!(app.get(&[]).await.body, "4 None");
    assert_eq!(get("de").await.cache(), "hit");
    assert_eq!(get("de").await.body, "2 Some(\"de\")");
    assert_eq!(get("en").await.body, "3 Some(\"en\")");
    assert_eq!(app.get(&[]).await.body, "4 None");
    ask(&app.app, "POST /", &[]).await;
    assert_eq!(get("de").await.cache(), "miss");
}

#[tokio::test]
async fn a_vary_that_names_more_for_some_pages_is_minded() {
    let answer = |headers: &HeaderMap, run: String| {
        let said = |name| headers.get(name).map(|value| value.to_str().unwrap());
        let vary = match (said("x-lang"), said("x-beta")) {
            (Some("de"), Some("1")) => "x-more",
            (Some("de"), _) => "x-lang, x-beta",
            _ => "x-lang",
        };
        ([("vary", vary)], run)
    };
    let app = Counted::new(layer(&Cache::in_memory()), answer);
    let requests: [&[(&str, &str)]; 6] = [
        &[],
        &[("x-lang", "en")],
        &[("x-lang", "de")],
        &[("x-lang", "de"), ("x-beta", "0")],
        &[("x-lang", "de"), ("x-beta", "1")],
        &[("x-lang", "de"), ("x-beta", "1"), ("x-more", "1")],
    ];
    let mut bodies = Vec::new();
    for headers in requests {
        for _ in 0..4 {
            app.get(headers).await;
        }
        bodies.push(app.get(headers).await.body);
    }
    for (headers, body) in requests.iter().zip(&bodies) {
        let again = app.get(headers).await;
        assert_eq!((again.cache(), &again.body), ("hit", body), "{headers:?}");
        let head = ask(&app.app, "HEAD /", headers).await;
        assert_eq!(head.cache(), "hit");
    }
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), requests.len());
    ask(&app.app, "POST /", &[]).await;
    assert_eq!(app.get(requests[5]).await.cache(), "miss");
}

#[tokio::test]
async fn what_cannot_be_kept_is_nobody_elses_and_nobody_waits_for_it() {
    let private = |headers: &HeaderMap, run: String| {
        let user = headers.get("x-user").unwrap().to_str().unwrap().to_owned();
        ([("cache-control", "private")], format!("{run} {user}"))
    };
    let app = Counted::new(layer(&Cache::in_memory()), private);
    let users: Vec<String> = (0..50).map(|n| format!("user {n}")).collect();
    let asked = users
        .iter()
        .map(async |user| app.get(&[("x-user", user)]).await.body);
    for (body, user) in join_all(asked).await.iter().zip(&users) {
        assert!(body.ends_with(&format!(" {user}")), "{body}");
    }
    assert_eq!(app.runs.load(Ordering::Relaxed), 50);
    assert_eq!(app.get(&[("x-user", "last")]).await.cache(), "bypass");
}

#[tokio::test]
async fn a_request_that_is_refused_keeps_nobody_from_the_cache() {
    let silent: &[_] = &[];
    let told: &[_] = &[("cache-control", "no-store"), ("set-cookie", "a=b")];
    for (status, said) in [(400, silent), (401, told), (403, told), (429, silent)] {
        let answer = move |headers: &HeaderMap, run: String| match headers.contains_key("x-bad") {
            true => dressed(status, said, run),
            false => dressed(200, &[], run),
        };
        let app = Counted::new(layer(&Cache::in_memory()), answer);
        let bad = [("x-bad", "1")];
        for _ in 0..2 {
            assert_eq!(app.get(&bad).await.status, status);
        }
        assert_eq!(app.get(&[]).await.cache(), "miss");
        assert_eq!(app.get(&[]).await.cache(), "hit");
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_is_given_on_whole() {
    let cache = Cache::in_memory();
    let chunks = |most: usize| {
        let stream = async move || {
            let chunks =
                (0..100).map(|n: u32| Ok::<_, Infallible>(Bytes::from(format!("{n:09} "))));
            Body::from_stream(futures_util::stream::iter(chunks))
        };
        let pages = layer(&cache).max_body(most).key_prefix(&most.to_string());
        Router::new().route("/", get(stream)).layer(pages)
    };
    let whole: String = (0..100).map(|n| format!("{n:09} ")).collect();
    for (most, kept) in [(1_000, "hit"), (999, "bypass"), (0, "bypass")] {
        let app = chunks(most);
        assert_eq!(ask(&app, "GET /", &[]).await.body, whole, "{most}");
        let again = ask(&app, "GET /", &[]).await;
        assert_eq!((&*again.body, again.cache()), (&*whole, kept), "{most}");
    }
    // One that breaks off does so for its own reader, and is not kept.
    let broken = async || {
        let chunks = [Ok(Bytes::from("begun")), Err("broken")];
        Body::from_stream(futures_util::stream::iter(chunks))
    };
    let app = Router::new()
        .route("/", get(broken))
        .layer(layer(&cache).key_prefix("x"));
    for _ in 0..2 {
        let Ok(response) = app.clone().oneshot(request("GET /", &[])).await;
        assert!(
            axum::body::to_bytes(response.into_body(), 100)
                .await
                .is_err()
        );
    }
}

#[tokio::test]
async fn a_page_that_the_cache_does_not_take_is_remembered_as_such() {
    let page = |layer: ResponseCache, length: usize| {
        let header = [("x-long", "y".repeat(1_000))];
        Counted::new(layer, move |_, _| (header.clone(), "x".repeat(length)))
    };
    let store = async |bytes: usize| {
        let cache = Cache::builder().max_value_bytes(bytes).build().await;
        layer(&cache.unwrap()).max_body(1 << 30)
    };
    for (length, second) in [(6_000, "hit"), (8_000, "bypass"), (20_000, "bypass")] {
        let app = page(store(10_000).await, length);
        for cache in ["miss", second] {
            let answer = app.get(&[]).await;
            assert_eq!((answer.body.len(), answer.cache()), (length, cache));
        }
    }
}

#[tokio::test]
async fn a_body_without_end_is_given_on_as_it_comes() {
    use futures_util::stream::{StreamExt, iter, once, pending};
    let endless = async || {
        // After longer than any body is waited for.
        let late = once(async {
            tokio::time::sleep(Duration::from_secs(6)).await;
            "c"
        });
        let stream = iter(["a", "b"]).chain(late).chain(pending());
        Body::from_stream(stream.map(Ok::<_, Infallible>))
    };
    let app = Router::new()
        .route("/", get(endless))
        .layer(layer(&Cache::in_memory()));
    for (cache, read) in [("miss", "abc"), ("bypass", "ab")] {
        let Ok(response) = app.clone().oneshot(request("GET /", &[])).await;
        assert_eq!(response.headers()["x-cache"], cache);
        let mut chunks = response.into_body().into_data_stream();
        for expected in read.chars() {
            let chunk = chunks.next().await.unwrap().unwrap();
            assert_eq!(chunk, expected.to_string());
        }
    }
}

#[tokio::test]
async fn an_error_of_the_service_is_its_callers() {
    let failing = tower::service_fn(async |_: Request<Body>| Err::<Response, _>("down"));
    let service = layer(&Cache::in_memory()).layer(failing);
    for _ in 0..2 {
        let answer = service.clone().oneshot(request("GET /", &[])).await;
        assert_eq!(answer.unwrap_err(), "down");
    }
    let empty: CachedBody<Body> = CachedBody::default();
    assert_eq!(format!("{empty:?}"), "CachedBody(\"0 bytes\")");
}

#[tokio::test]
async fn without_the_store_the_handler_answers() {
    let world = World::new(crate::world::Sql::Sqlite, crate::world::Place::Redis).await;
    let app = Counted::with(layer(&world.cache), 200, &[]);
    assert!(app.keeps(&[]).await);
    world.store.inject(Fault::refuse());
    assert_eq!(app.get(&[]).await.body, "2");
    assert_eq!(app.get(&[]).await.body, "3");
    assert_eq!(ask(&app.app, "POST /", &[]).await.status, 200);
}

#[tokio::test]
async fn the_whole_address_tells_pages_apart() {
    let cache = Cache::in_memory();
    let path = async |uri: axum::extract::OriginalUri| uri.0.path().to_owned();
    let inner = Router::new()
        .route("/", get(path))
        .route("/list", get(path))
        .layer(layer(&cache));
    let app = Router::new()
        .nest("/a", inner.clone())
        .nest("/tenants/{tenant}", inner);
    for path in ["/a", "/a/list", "/tenants/1/list", "/tenants/2/list"] {
        assert_eq!(ask(&app, &format!("GET {path}"), &[]).await.cache(), "miss");
        let hit = ask(&app, &format!("GET {path}"), &[]).await;
        assert_eq!((&*hit.body, hit.cache()), (path, "hit"));
    }
    // No host is a part of a path, nor the other way round.
    let app = plain();
    let with_host = async |host: &str, path: &str| {
        let request = Request::get(path)
            .header(header::HOST, host)
            .body(Body::empty());
        let Ok(response) = app.app.clone().oneshot(request.unwrap()).await;
        read(response).await
    };
    assert_eq!(with_host("example.org", "/cities/1").await.cache(), "miss");
    assert_eq!(with_host("EXAMPLE.org", "/cities/1").await.cache(), "hit");
    assert_eq!(
        with_host("example.org:80", "/cities/1").await.cache(),
        "miss"
    );
    for host in ["example.org/cities", "a b", "", "exa\u{6d}ple.org/"] {
        assert_eq!(with_host(host, "/1").await.cache(), "bypass", "{host:?}");
    }
    let two = [("host", "other.org")];
    assert_eq!(ask(&app.app, "GET /cities/1", &two).await.cache(), "bypass");
}

#[tokio::test]
async fn what_a_rewrite_made_of_the_address_tells_pages_apart() {
    let inner = Router::new()
        .route("/a", get(async || "A"))
        .route("/b", get(async || "B"))
        .route("/b/a", get(async || "B/A"))
        .route("/", get(async || "home").post(async || ()))
        .layer(layer(&Cache::in_memory()));
    let rewrite = |mut request: Request<Body>| {
        if let Some(to) = request.headers().get("x-to") {
            *request.uri_mut() = to.to_str().unwrap().parse().unwrap();
        }
        request
    };
    let rewriting = tower::util::MapRequestLayer::new(rewrite).layer(inner);
    let app = Router::new().fallback_service(rewriting);
    let pages: [(&[(&str, &str)], &str); 4] = [
        (&[("x-to", "/a")], "A"),
        (&[("x-to", "/b")], "B"),
        (&[("x-to", "/b?c")], "B"),
        (&[], "home"),
    ];
    for expected in ["miss", "hit"] {
        for (headers, body) in pages {
            let answer = ask(&app, "GET /", headers).await;
            assert_eq!((&*answer.body, answer.cache()), (body, expected));
        }
    }
    // Nor is the end of a path the whole.
    for (headers, body) in [(&[][..], "B/A"), (&[("x-to", "/a")], "A")] {
        assert_eq!(ask(&app, "GET /b/a", headers).await.body, body);
    }
    // A change is one of all that was made of the address.
    ask(&app, "POST /", &[]).await;
    for (headers, _) in pages {
        assert_eq!(ask(&app, "GET /", headers).await.cache(), "miss");
    }
}

#[tokio::test]
async fn cookies_that_can_be_read_in_two_ways_are_not_mixed_up() {
    let app = Counted::with(layer(&Cache::in_memory()).vary_on_cookie("sid"), 200, &[]);
    for cookies in [
        "sid=a",
        "sid=b",
        "sid=a; sid=b",
        "sid=b; sid=a",
        "sid=",
        "other=a",
    ] {
        assert_eq!(
            app.get(&[("cookie", cookies)]).await.cache(),
            "miss",
            "{cookies}"
        );
        assert_eq!(
            app.get(&[("cookie", cookies)]).await.cache(),
            "hit",
            "{cookies}"
        );
    }
    let mut odd = request("GET /", &[]);
    let value = axum::http::HeaderValue::from_bytes(b"sid=a\xff").unwrap();
    odd.headers_mut().insert(header::COOKIE, value);
    let Ok(response) = app.app.clone().oneshot(odd).await;
    assert_eq!(read(response).await.cache(), "bypass");
}

#[tokio::test]
async fn past_its_time_a_page_is_answered_only_if_it_may_be() {
    // RFC 9111, 4.2.4.
    let hour = Duration::from_secs(3_600);
    for (says, old) in [
        ("max-age=1", true),
        ("max-age=1, must-revalidate", false),
        ("s-maxage=1", false),
    ] {
        let runs = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&runs);
        let service = tower::service_fn(move |_: Request<Body>| {
            let run = count.fetch_add(1, Ordering::Relaxed);
            async move {
                let answer = dressed(200, &[("cache-control", says)], "page".to_owned());
                if run == 0 { Ok(answer) } else { Err("down") }
            }
        });
        let cache = Cache::in_memory();
        let pages = layer(&cache).policy(Policy::new().stale_if_error(hour));
        let service = pages.layer(service);
        let ask = async || service.clone().oneshot(request("GET /", &[])).await;
        assert!(ask().await.is_ok());
        // Its second is over when the handler is asked again.
        crate::outages::until(async || {
            let _ = ask().await;
            runs.load(Ordering::Relaxed) > 1
        })
        .await;
        assert_eq!(ask().await.is_ok(), old, "{says}");
    }
}

/// One whose handler fails after its first run.
fn failing_later(policy: Policy, says: &'static [(&'static str, &'static str)]) -> Counted {
    let pages = layer(&Cache::in_memory()).policy(policy);
    Counted::new(pages, move |_, run| match &*run {
        "1" => dressed(200, &[], run),
        _ => dressed(500, says, run),
    })
}

#[tokio::test]
async fn in_place_of_an_error_the_page_past_its_time_is_answered_for_a_while() {
    // RFC 5861, 4.
    let ttl = Duration::from_millis(300);
    let hour = Duration::from_secs(3_600);
    let policy = |error| Policy::new().ttl(ttl).jitter(0.0).stale_if_error(error);
    for says in [&[][..], &[("cache-control", "no-store")]] {
        let apps = [hour, ttl, Duration::ZERO].map(|error| failing_later(policy(error), says));
        for app in &apps {
            assert_eq!(app.get(&[]).await.status, 200);
        }
        let [long, short, never] = apps;
        // Its time is over when the handler is asked again.
        crate::outages::until(async || {
            let answer = long.get(&[]).await;
            assert_eq!((answer.status, &*answer.body), (200, "1"));
            long.runs.load(Ordering::Relaxed) > 1
        })
        .await;
        for answer in join_all((0..20).map(|_| long.get(&[]))).await {
            assert_eq!((&*answer.body, answer.cache()), ("1", "hit"));
        }
        assert_eq!(never.get(&[]).await.status, 500);
        crate::outages::until(async || short.get(&[]).await.status == 500).await;
        // Each has an answer, of its own.
        let together = join_all((0..20).map(|_| short.get(&[]))).await;
        let mut runs: Vec<_> = together.iter().map(|answer| &answer.body).collect();
        runs.sort();
        runs.dedup();
        assert_eq!(runs.len(), 20);
    }
}

#[tokio::test]
async fn a_change_whose_caller_has_gone_away_makes_the_page_stale() {
    let (begun, gate) = (
        Arc::new(tokio::sync::Notify::new()),
        Arc::new(tokio::sync::Notify::new()),
    );
    let (tell, wait) = (Arc::clone(&begun), Arc::clone(&gate));
    let change = async move || {
        tell.notify_one();
        wait.notified().await;
    };
    let app = Router::new()
        .route("/", get(async || "page").post(change))
        .layer(layer(&Cache::in_memory()));
    ask(&app, "GET /", &[]).await;
    assert_eq!(ask(&app, "GET /", &[]).await.cache(), "hit");
    let posting = app.clone();
    let post = tokio::spawn(async move { ask(&posting, "POST /", &[]).await });
    begun.notified().await;
    post.abort();
    crate::outages::until(async || ask(&app, "GET /", &[]).await.cache() == "miss").await;
}

#[tokio::test]
async fn a_handler_that_panics_or_loses_its_client_leaves_nothing_behind() {
    let (panics, begun) = (
        Arc::new(AtomicU64::new(1)),
        Arc::new(tokio::sync::Notify::new()),
    );
    let tell = Arc::clone(&begun);
    let handler = async move || {
        match panics.fetch_add(1, Ordering::Relaxed) {
            1 => panic!("the handler"),
            2 => {
                tell.notify_one();
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        "page"
    };
    let pages = layer(&Cache::in_memory());
    let app = Router::new().route("/", get(handler)).layer(pages);
    let asking = || {
        let app = app.clone();
        tokio::spawn(async move { ask(&app, "GET /", &[]).await })
    };
    assert!(asking().await.unwrap_err().is_panic());
    let gone = asking();
    begun.notified().await;
    // The next one waits for it, and runs the handler itself once it is gone.
    let next = asking();
    tokio::task::yield_now().await;
    gone.abort();
    assert_eq!(next.await.unwrap().body, "page");
    assert_eq!(asking().await.unwrap().cache(), "hit");
}

/// What a client reads that writes this and waits for the server to close.
async fn over_tcp(address: std::net::SocketAddr, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn over_a_socket_pages_are_whole_and_counted() {
    let cache = Cache::in_memory();
    let app = Counted::with(layer(&cache), 200, &[("content-encoding", "identity")]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app.app).await });
    let get = |method: &str| {
        format!("{method} /a?b=c HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n")
    };
    let first = over_tcp(address, &get("GET")).await;
    let second = over_tcp(address, &get("GET")).await;
    let head = over_tcp(address, &get("HEAD")).await;
    for (answer, status) in [(&first, "miss"), (&second, "hit"), (&head, "hit")] {
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains(&format!("\r\nx-cache: {status}\r\n")),
            "{answer}"
        );
        assert!(answer.contains("\r\ncontent-length: 1\r\n"), "{answer}");
        assert!(
            answer.contains("\r\ncontent-encoding: identity\r\n"),
            "{answer}"
        );
    }
    assert!(
        second.ends_with("\r\n\r\n1") && head.ends_with("\r\n\r\n"),
        "{second}{head}"
    );
    let stats = cache.stats().entity("http");
    assert_eq!((stats.hits, stats.misses, stats.loads), (2, 1, 1));
    server.abort();
}
