//! A response as it is stored, and as it is answered.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts as RequestParts;
use http::response::Parts as ResponseParts;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Body;
use serde::{Deserialize, Serialize};

use super::body::CachedBody;
use super::headers::{age, has_already, not_modified, strip};
use crate::codec::stable_hash128;

/// What stands under the key of a page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Page {
    /// The response.
    Stored(Stored),
    /// There is one for each combination of these headers' values.
    Varies(Vec<String>),
    /// It cannot be stored: every request is the handler's.
    Pass,
}

/// A response.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    status: u16,
    headers: Vec<(String, Octets)>,
    body: Octets,
    /// When it was stored, in seconds since 1970; how old it was then.
    at: u64,
    age: u64,
}

/// Written as bytes, and not as a list of numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Octets(#[serde(with = "octets")] Bytes);

mod octets {
    use bytes::Bytes;
    use serde::de::{SeqAccess, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Bytes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes::copy_from_slice(bytes))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(bytes.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Bytes, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = all.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes.into())
            }
        }
        from.deserialize_byte_buf(Read)
    }
}

impl Stored {
    /// Takes what can be stored of a response, and adds what it must have to be answered again.
    pub(super) fn of(response: &ResponseParts, body: Bytes, dress: &Dress) -> Self {
        let mut headers = response.headers.clone();
        let older = age(&headers).as_secs();
        strip(&mut headers);
        dress.on(&mut headers);
        if response.status == StatusCode::OK && !headers.contains_key(header::ETAG) {
            let tag = format!("\"{:032x}\"", stable_hash128(&body));
            // Digits are a header's text.
            headers.extend(
                HeaderValue::try_from(tag)
                    .ok()
                    .map(|tag| (header::ETAG, tag)),
            );
        }
        let now = SystemTime::now();
        if !headers.contains_key(header::DATE) {
            let date = HeaderValue::try_from(httpdate::fmt_http_date(now));
            headers.extend(date.ok().map(|date| (header::DATE, date)));
        }
        let headers = headers.iter();
        Self {
            status: response.status.as_u16(),
            headers: headers
                .map(|(name, value)| {
                    let value = Bytes::copy_from_slice(value.as_bytes());
                    (name.as_str().to_owned(), Octets(value))
                })
                .collect(),
            body: Octets(body),
            at: since_1970(now),
            age: older,
        }
    }

    /// The answer to a request.
    pub(super) fn answer<B: Body>(self, request: &RequestParts) -> Response<CachedBody<B>> {
        // And one for the age.
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 1);
        for (name, Octets(value)) in self.headers {
            let name = HeaderName::try_from(name);
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_maybe_shared(value)) {
                headers.append(name, value);
            }
        }
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let stood = since_1970(SystemTime::now()).saturating_sub(self.at);
        let age = HeaderValue::from(self.age.saturating_add(stood));
        let Octets(body) = self.body;
        let mut response = Response::new(CachedBody::default());
        if has_already(&request.headers, status, &headers) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.headers_mut() = not_modified(&headers);
        } else {
            if request.method == Method::HEAD && !body.is_empty() {
                headers.insert(header::CONTENT_LENGTH, body.len().into());
            } else {
                *response.body_mut() = CachedBody::whole(body);
            }
            *response.status_mut() = status;
            *response.headers_mut() = headers;
        }
        response.headers_mut().insert(header::AGE, age);
        response
    }
}

/// What every response that is stored is given.
#[derive(Clone, Debug)]
pub(super) struct Dress {
    /// The headers that the layer itself varies on.
    pub(super) vary: Vec<String>,
    pub(super) browser_ttl: Option<Duration>,
}

impl Dress {
    fn on(&self, headers: &mut HeaderMap) {
        let told =
            headers.contains_key(header::CACHE_CONTROL) || headers.contains_key(header::EXPIRES);
        if !told {
            let text = match self.browser_ttl {
                Some(ttl) => format!("max-age={}", ttl.as_secs()),
                None => "no-cache".to_owned(),
            };
            let text = HeaderValue::try_from(text).ok();
            headers.extend(text.map(|text| (header::CACHE_CONTROL, text)));
        }
        let known = super::headers::vary(headers).unwrap_or_default();
        let missing = self.vary.iter().filter(|name| !known.contains(name));
        for name in missing {
            let name = HeaderValue::try_from(name.as_str());
            if let Ok(name) = name {
                headers.append(header::VARY, name);
            }
        }
    }
}

fn since_1970(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
