//! What the headers say: pure functions, named after the sections of RFC 9110 and RFC 9111.

use std::time::{Duration, SystemTime};

use axum::extract::{NestedPath, OriginalUri};
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts as RequestParts;
use http::response::Parts as ResponseParts;
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri};

/// The directives of `Cache-Control` that count here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Directives {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) private: bool,
    pub(super) only_if_cached: bool,
    /// Never to be answered when it is stale: `must-revalidate`, `proxy-revalidate`, and `s-maxage`, which says the
    /// same (5.2.2).
    pub(super) revalidate: bool,
    pub(super) max_age: Option<Duration>,
    pub(super) s_maxage: Option<Duration>,
}

/// Headers that are of one connection alone (RFC 9110, 7.6.1, and RFC 9111, 3.1).
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a 304 repeats (RFC 9110, 15.4.5).
const NOT_MODIFIED: [HeaderName; 7] = [
    header::CACHE_CONTROL,
    header::CONTENT_LOCATION,
    header::DATE,
    header::ETAG,
    header::EXPIRES,
    header::LAST_MODIFIED,
    header::VARY,
];

impl Directives {
    /// A line that is no text may say anything: it counts as `no-store`.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(header::CACHE_CONTROL).into_iter();
        let mut directives = Self {
            no_store: lines.any(|line| line.to_str().is_err()),
            ..Self::default()
        };
        for directive in list(headers, header::CACHE_CONTROL) {
            let (name, value) = match directive.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
                None => (directive.trim(), None),
            };
            let seconds = || seconds(value.unwrap_or_default());
            match name.to_ascii_lowercase().as_str() {
                "no-store" => directives.no_store = true,
                "no-cache" => directives.no_cache = true,
                "private" => directives.private = true,
                "only-if-cached" => directives.only_if_cached = true,
                "must-revalidate" | "proxy-revalidate" => directives.revalidate = true,
                "max-age" => directives.max_age = Some(seconds()),
                "s-maxage" => {
                    directives.s_maxage = Some(seconds());
                    directives.revalidate = true;
                }
                _ => {}
            }
        }
        directives
    }
}

/// RFC 9111, 1.2.2: what is too large to hold is very long. What is no number is stale (4.2.1).
fn seconds(text: &str) -> Duration {
    const LONG: u64 = 1 << 31;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = if digits {
        text.parse().unwrap_or(LONG)
    } else {
        0
    };
    Duration::from_secs(seconds.min(LONG))
}

/// The members of a header that is a list.
pub(super) fn list(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter();
    let texts = lines.filter_map(|line| line.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim)
}

/// The names in `Vary`, in lower case and in order. `None` for `*`, or for what is no text.
pub(super) fn vary(headers: &HeaderMap) -> Option<Vec<String>> {
    let lines = headers.get_all(header::VARY).into_iter();
    let mut names = Vec::new();
    for line in lines {
        let line = line.to_str().ok()?;
        names.extend(line.split(',').map(|name| name.trim().to_ascii_lowercase()));
    }
    names.retain(|name| !name.is_empty());
    names.sort();
    names.dedup();
    (!names.iter().any(|name| name == "*")).then_some(names)
}

/// Whether a response of this status may be stored without being told so (RFC 9110, 15.1).
pub(super) fn may_be_stored(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// Whether this is an error of the server that is not stored, whatever it says.
pub(super) fn is_failure(status: StatusCode) -> bool {
    status.is_server_error() && !may_be_stored(status)
}

/// How long the response stays fresh, if it says so itself (RFC 9111, 4.2.1), less its age (4.2.3).
pub(super) fn lifetime(response: &ResponseParts, directives: &Directives) -> Option<Duration> {
    let headers = &response.headers;
    let explicit = directives.s_maxage.or(directives.max_age);
    let lifetime = explicit.or_else(|| expires(headers))?;
    Some(lifetime.saturating_sub(age(headers)))
}

/// `Expires` less `Date`. What is no date has expired (RFC 9111, 5.3).
fn expires(headers: &HeaderMap) -> Option<Duration> {
    let expires = date(headers.get(header::EXPIRES)?);
    let begins = headers.get(header::DATE).and_then(date);
    let begins = begins.unwrap_or_else(SystemTime::now);
    let left = expires.and_then(|expires| expires.duration_since(begins).ok());
    Some(left.unwrap_or_default())
}

pub(super) fn age(headers: &HeaderMap) -> Duration {
    let age = headers.get(header::AGE).and_then(|age| age.to_str().ok());
    age.map_or(Duration::ZERO, seconds)
}

fn date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

/// Takes away what is of one connection alone, and what is made anew for each answer.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named: Vec<String> = list(headers, header::CONNECTION)
        .map(str::to_ascii_lowercase)
        .collect();
    let names = HOP_BY_HOP.iter().copied();
    for name in names.chain(named.iter().map(String::as_str)) {
        headers.remove(name);
    }
    for name in [header::AGE, header::CONTENT_LENGTH] {
        headers.remove(name);
    }
}

/// Whether what the client has is what this is (RFC 9110, 13.2.2): `If-None-Match` first, by weak comparison
/// (13.1.2), and `If-Modified-Since` only without it (13.1.3).
pub(super) fn has_already(request: &HeaderMap, status: StatusCode, stored: &HeaderMap) -> bool {
    if status != StatusCode::OK {
        return false;
    }
    if request.contains_key(header::IF_NONE_MATCH) {
        let lines = request.get_all(header::IF_NONE_MATCH).into_iter();
        let mut texts = lines.filter_map(|line| line.to_str().ok());
        let tag = stored.get(header::ETAG).and_then(|tag| tag.to_str().ok());
        let tag = tag.and_then(|tag| tags(tag).next());
        return texts.any(|text| {
            text.trim() == "*" || tag.is_some_and(|tag| tags(text).any(|other| other == tag))
        });
    }
    let at = |headers: &HeaderMap, name| headers.get(name).and_then(date);
    match (
        at(request, header::IF_MODIFIED_SINCE),
        at(stored, header::LAST_MODIFIED),
    ) {
        (Some(since), Some(modified)) => modified <= since,
        _ => false,
    }
}

/// What is between the quotes of entity tags (RFC 9110, 8.8.3): there may be commas in it.
fn tags(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

/// The headers of a 304 in place of this.
pub(super) fn not_modified(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in NOT_MODIFIED {
        for value in headers.get_all(&name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

/// Whether a request asks for a part, or for something only if it is as it was: the handler knows.
pub(super) fn asks_for_a_part(request: &RequestParts) -> bool {
    let all = [
        header::RANGE,
        header::IF_RANGE,
        header::IF_MATCH,
        header::IF_UNMODIFIED_SINCE,
    ];
    all.iter().any(|name| request.headers.contains_key(name))
}

/// The target (RFC 9110, 7.1): host, path and query, as they are given; `None` if the host is none. A router that
/// is nested in another of axum's sees a part of the path alone: the whole is meant.
pub(super) fn target(request: &RequestParts) -> Option<String> {
    let original = request.extensions.get::<OriginalUri>();
    let uri = original.map_or(&request.uri, |OriginalUri(uri)| uri);
    let mut hosts = request.headers.get_all(header::HOST).into_iter();
    let host = match (uri.authority(), hosts.next(), hosts.next()) {
        (Some(authority), ..) => authority.clone(),
        (None, Some(host), None) => Authority::try_from(host.as_bytes()).ok()?,
        (None, None, _) => Authority::from_static("localhost"),
        (None, Some(_), Some(_)) => return None,
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    // A blank is in neither.
    Some(format!("{} {path}", host.as_str().to_ascii_lowercase()))
}

/// The request's own URI, if a rewrite made it another than that of the [`target`].
pub(super) fn rewritten(request: &RequestParts) -> Option<&Uri> {
    let OriginalUri(original) = request.extensions.get::<OriginalUri>()?;
    let nested = request.extensions.get::<NestedPath>();
    let nested = nested.map_or("/", NestedPath::as_str);
    let own = &request.uri;
    let same = own.authority() == original.authority()
        && own.query() == original.query()
        && own.path() == left_of(original.path(), nested);
    (!same).then_some(own)
}

/// What a router that is nested at this pattern sees of a path. A parameter of a pattern is one segment.
fn left_of<'p>(path: &'p str, nested: &str) -> &'p str {
    let depth = nested.trim_end_matches('/').matches('/').count();
    match path.match_indices('/').nth(depth) {
        Some((at, _)) => &path[at..],
        None => "/",
    }
}

/// Whether a header (RFC 9110, 5.1) or a cookie (RFC 6265, 4.1.1) may have this name.
pub(super) fn is_token(name: &str) -> bool {
    let marks = "!#$%&'*+-.^_`|~";
    let fits = |c: char| c.is_ascii_alphanumeric() || marks.contains(c);
    !name.is_empty() && name.chars().all(fits)
}

/// The values of cookies of this name: more than one, if a client says so. A handler may take either.
pub(super) fn cookies<'r>(headers: &'r HeaderMap, name: &str) -> impl Iterator<Item = &'r str> {
    let lines = headers.get_all(header::COOKIE).into_iter();
    let texts = lines.filter_map(|line| line.to_str().ok());
    let pairs = texts.flat_map(|text| text.split(';')).map(str::trim);
    pairs.filter_map(move |pair| match pair.split_once('=') {
        Some((found, value)) if found.trim() == name => Some(value.trim()),
        _ => None,
    })
}

/// Whether cookies are what is not read here, but perhaps by a handler.
pub(super) fn has_odd_cookies(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::COOKIE).into_iter();
    lines.any(|line| line.to_str().is_err())
}

#[cfg(test)]
mod tests {
    use super::left_of;

    #[test]
    fn a_nested_router_sees_the_rest_of_a_path() {
        for (path, nested, left) in [
            ("/a/list", "/a", "/list"),
            ("/a/list/", "/a/", "/list/"),
            ("/a", "/a", "/"),
            ("/a/", "/a", "/"),
            ("/tenants/1/list", "/tenants/{tenant}", "/list"),
            ("/list", "/", "/list"),
            ("/", "/", "/"),
        ] {
            assert_eq!(left_of(path, nested), left, "{path} at {nested}");
        }
    }
}
