//! Settings, one at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::config::Raw;
use super::{ConfigError, DEFAULT, listed};
use crate::builder::CacheBuilder;
use crate::config::{PlainTransactions, WritePolicy};
use crate::key::PREFIX;
use crate::values::Codec;

/// A setting that there is: its name, what is allowed, and what it does; `None` if the value is not allowed.
struct Setting {
    name: &'static str,
    allowed: &'static str,
    set: fn(Builder, &Raw) -> Option<Builder>,
}

/// A builder, and what is known of the place where it caches.
#[derive(Default)]
pub(super) struct Builder {
    pub(super) builder: CacheBuilder,
    place: Vec<(&'static str, Vec<String>)>,
    prefix: Option<String>,
}

const DURATION: &str = "allowed is a duration, as in `250ms`, `5m`, `1h30m`";
const SIZE: &str = "allowed is a number of bytes, or a size as in `64 MiB`, `10 MB`";
const FLAG: &str = "allowed is `true` or `false`";
const URL: &str = "allowed is a URL as in `redis://[user:password@]host[:port][/db]`, with special characters of a \
    password as `%23`, and with `rediss://` where the feature `tls` is enabled";
const URLS: &str = "allowed is a list of URLs as in `redis://[user:password@]host:port`, with special characters of a \
    password as `%23`, and with `rediss://` where the feature `tls` is enabled";

macro_rules! settings {
    ($($name:literal, $allowed:expr, $set:expr;)*) => {
        [$(Setting { name: $name, allowed: $allowed, set: $set },)*]
    };
}

const SETTINGS: &[Setting] = &settings! {
    "url", URL, |b, raw| b.at("url", servers(vec![text(raw)?.to_owned()])?);
    "cluster", URLS, |b, raw| b.at("cluster", servers(list(raw)?)?);
    "sentinels", URLS, |b, raw| b.at("sentinels", servers(list(raw)?)?);
    "primary", "allowed is the name of a primary, or a URL with it in the host's place",
        |b, raw| b.at("primary", vec![text(raw)?.to_owned()]);
    "memory", SIZE, |b, raw| b.at("memory", vec![size(raw)?.to_string()]);
    "prefix", "allowed is text", |mut b, raw| { b.prefix = Some(text(raw)?.to_owned()); Some(b) };
    "ttl", DURATION, |b, raw| b.map(|c| Some(c.ttl(duration(raw)?)));
    "codec", "allowed is `messagepack` or `json`", |b, raw| {
        let codec = one_of(raw, [("messagepack", Codec::MessagePack), ("json", Codec::Json)])?;
        b.map(|c| Some(c.codec(codec)))
    };
    "l1", SIZE, |b, raw| b.map(|c| Some(c.l1(size(raw)?)));
    "max_silence", DURATION, |b, raw| b.map(|c| Some(c.max_silence(duration(raw)?)));
    "lazy", FLAG, |b, raw| { let lazy = flag(raw)?; b.map(|c| Some(if lazy { c.lazy() } else { c })) };
    "command_timeout", DURATION, |b, raw| b.map(|c| Some(c.command_timeout(duration(raw)?)));
    "connect_timeout", DURATION, |b, raw| b.map(|c| Some(c.connect_timeout(duration(raw)?)));
    "lease_ttl", DURATION, |b, raw| b.map(|c| Some(c.lease_ttl(duration(raw)?)));
    "fence_ttl", DURATION, |b, raw| b.map(|c| Some(c.fence_ttl(duration(raw)?)));
    "max_loads", "allowed is a number from 1", |b, raw| b.map(|c| Some(c.max_loads(number(raw)?)));
    "load_wait", DURATION, |b, raw| b.map(|c| Some(c.load_wait(duration(raw)?)));
    "max_value_bytes", SIZE,
        |b, raw| b.map(|c| Some(c.max_value_bytes(usize::try_from(size(raw)?).ok()?)));
    "compress_over", COMPRESS, compress_over;
    "write_policy", "allowed is `available` or `strict`", |b, raw| {
        let policies = [("available", WritePolicy::Available), ("strict", WritePolicy::Strict)];
        let policy = one_of(raw, policies)?;
        b.map(|c| Some(c.write_policy(policy)))
    };
    "plain_transactions", "allowed is `expire` or `refuse`", |b, raw| {
        let expire = ("expire", PlainTransactions::Expire);
        let policy = one_of(raw, [expire, ("refuse", PlainTransactions::Refuse)])?;
        b.map(|c| Some(c.plain_transactions(policy)))
    };
    "only_linked_entities", FLAG, |b, raw| {
        let only = flag(raw)?;
        b.map(|c| Some(if only { c.only_linked_entities() } else { c }))
    };
};

#[cfg(feature = "lz4")]
const COMPRESS: &str = SIZE;
#[cfg(not(feature = "lz4"))]
const COMPRESS: &str =
    "allowed is nothing in this program, which is built without the feature `lz4`";

#[cfg(feature = "lz4")]
fn compress_over(builder: Builder, raw: &Raw) -> Option<Builder> {
    builder.map(|c| Some(c.compress_over(usize::try_from(size(raw)?).ok()?)))
}

#[cfg(not(feature = "lz4"))]
fn compress_over(_: Builder, _: &Raw) -> Option<Builder> {
    None
}

/// What other libraries call it, or have that is not needed here.
const ELSEWHERE: [(&str, &str); 8] = [
    ("location", "it is called `url` here"),
    ("timeout", "it is called `ttl` here"),
    ("key_prefix", "it is called `prefix` here"),
    ("socket_timeout", "it is called `command_timeout` here"),
    (
        "socket_connect_timeout",
        "it is called `connect_timeout` here",
    ),
    (
        "retry_on_timeout",
        "leave it out: reads go on to the database, and invalidations are tried until they arrive",
    ),
    (
        "max_connections",
        "leave it out: one connection carries all requests",
    ),
    (
        "backend",
        "leave it out: the kind of place is said by `url`, `cluster`, `sentinels` or `memory`",
    ),
];

/// Those whose values may hold a password.
const SECRET: [&str; 4] = ["url", "cluster", "sentinels", "primary"];

impl Builder {
    /// What the settings of the cache of this name say.
    pub(super) fn read(
        cache: &str,
        settings: &BTreeMap<String, Raw>,
        environment: &impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut builder = Self::default();
        for (name, raw) in settings {
            let error = |found: String, allowed: &str| ConfigError::Setting {
                cache: cache.to_owned(),
                setting: name.clone(),
                found,
                allowed: allowed.to_owned(),
            };
            let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
                return Err(error(
                    "there is no such setting".to_owned(),
                    &instead_of(name),
                ));
            };
            let raw = raw.expanded(environment);
            let raw = raw.map_err(|found| error(found, setting.allowed))?;
            builder = (setting.set)(builder, &raw)
                .ok_or_else(|| error(shown(name, &raw), setting.allowed))?;
        }
        if builder.prefix.is_none() && cache != DEFAULT {
            builder.prefix = Some(cache.to_owned());
        }
        builder.placed(cache)
    }

    fn map(self, change: impl FnOnce(CacheBuilder) -> Option<CacheBuilder>) -> Option<Self> {
        let builder = change(self.builder)?;
        Some(Self { builder, ..self })
    }

    fn at(mut self, name: &'static str, place: Vec<String>) -> Option<Self> {
        let is_any = place.iter().any(|part| !part.is_empty());
        self.place.push((name, place));
        is_any.then_some(self)
    }

    /// With the place where it caches.
    fn placed(mut self, cache: &str) -> Result<Self, ConfigError> {
        let error = |setting: &str, found: &str, allowed: &str| {
            Err(ConfigError::Setting {
                cache: cache.to_owned(),
                setting: setting.to_owned(),
                found: found.to_owned(),
                allowed: allowed.to_owned(),
            })
        };
        let mut builder = self.builder;
        if let Some(prefix) = &self.prefix {
            builder = builder.prefix(prefix);
        }
        // In the order of their names.
        self.builder = match &self.place[..] {
            [] => builder,
            [("memory", size)] => builder.memory(size[0].parse().unwrap_or(u64::MAX)),
            [("primary", _)] => return error("primary", "alone", "it stands with `sentinels`"),
            [("sentinels", _)] => return error("sentinels", "alone", "they stand with `primary`"),
            [(name, _)] | [(name @ "primary", _), ("sentinels", _)] => {
                let allowed =
                    "allowed is `memory`: this program is built without the feature `redis`";
                match on_server(builder, &self.place) {
                    Some(builder) => builder,
                    None => return error(name, "a server", allowed),
                }
            }
            [(one, _), (two, _), ..] => {
                let found = format!("beside `{one}`");
                return error(two, &found, "a cache has one place");
            }
        };
        Ok(self)
    }

    /// Where its keys are, if others might put theirs there.
    pub(super) fn home(&self) -> Option<String> {
        let shared = self.place.iter().filter(|(name, _)| *name != "memory");
        let shared: Vec<_> = shared.collect();
        let place = |url: &String| {
            let url = url.trim_end_matches('/');
            url.strip_suffix("/0").unwrap_or(url).to_owned()
        };
        let shared = shared
            .iter()
            .map(|(name, urls)| (name, urls.iter().map(place).collect::<Vec<_>>()));
        let shared: Vec<_> = shared.collect();
        let prefix = self.prefix.as_deref().unwrap_or(PREFIX);
        (!shared.is_empty()).then(|| format!("{shared:?} {prefix:?}"))
    }
}

/// The same, if they are URLs of servers.
#[cfg(feature = "redis")]
fn servers(urls: Vec<String>) -> Option<Vec<String>> {
    use crate::store::{RedisOptions, RedisStore};
    let is_url = |url: &String| RedisStore::lazy(url, RedisOptions::default()).is_ok();
    urls.iter().all(is_url).then_some(urls)
}

#[cfg(not(feature = "redis"))]
fn servers(urls: Vec<String>) -> Option<Vec<String>> {
    Some(urls)
}

/// With this server as its place; `None` where that cannot be.
#[cfg(feature = "redis")]
fn on_server(builder: CacheBuilder, place: &[(&str, Vec<String>)]) -> Option<CacheBuilder> {
    Some(match place {
        [("url", url)] => builder.redis(&url[0]),
        [("cluster", nodes)] => builder.cluster(nodes),
        [("primary", primary), ("sentinels", sentinels)] => {
            builder.sentinel(sentinels, &primary[0])
        }
        _ => return None,
    })
}

#[cfg(not(feature = "redis"))]
fn on_server(_: CacheBuilder, _: &[(&str, Vec<String>)]) -> Option<CacheBuilder> {
    None
}

/// What is allowed in place of a setting that there is not.
fn instead_of(name: &str) -> String {
    match ELSEWHERE.iter().find(|(other, _)| *other == name) {
        Some((_, instead)) => (*instead).to_owned(),
        None => {
            let all = SETTINGS.iter().map(|setting| setting.name);
            format!("allowed are {}", listed(all))
        }
    }
}

fn shown(name: &str, raw: &Raw) -> String {
    match raw {
        _ if SECRET.contains(&name) => {
            "its value (not shown here: it may hold a password)".to_owned()
        }
        Raw::Text(text) => format!("`{text}`"),
        Raw::Number(number) => format!("`{number}`"),
        Raw::Flag(flag) => format!("`{flag}`"),
        Raw::List(_) => "a list".to_owned(),
    }
}

fn text(raw: &Raw) -> Option<&str> {
    match raw {
        Raw::Text(text) => Some(text),
        _ => None,
    }
}

fn list(raw: &Raw) -> Option<Vec<String>> {
    match raw {
        Raw::List(list) => Some(list.clone()),
        Raw::Text(text) => Some(text.split(',').map(|part| part.trim().to_owned()).collect()),
        _ => None,
    }
}

fn flag(raw: &Raw) -> Option<bool> {
    match raw {
        Raw::Flag(flag) => Some(*flag),
        Raw::Text(text) => text.parse().ok(),
        _ => None,
    }
}

fn number(raw: &Raw) -> Option<usize> {
    match raw {
        Raw::Number(number) => usize::try_from(*number).ok(),
        Raw::Text(text) => text.parse().ok(),
        _ => None,
    }
}

fn one_of<T, const N: usize>(raw: &Raw, all: [(&str, T); N]) -> Option<T> {
    let text = text(raw)?;
    all.into_iter()
        .find(|(name, _)| *name == text)
        .map(|(_, one)| one)
}

fn duration(raw: &Raw) -> Option<Duration> {
    humantime::parse_duration(text(raw)?).ok()
}

/// How many bytes.
fn size(raw: &Raw) -> Option<u64> {
    let text = match raw {
        Raw::Number(number) => return Some(*number),
        raw => text(raw)?.trim(),
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// The text with what the environment says in place of `${..}`.
pub(super) fn expand(
    text: &str,
    environment: &impl Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            after
        } else if let Some(inside) = after.strip_prefix('{') {
            let open = || "a `${` without its `}`".to_owned();
            let (inside, after) = inside.split_once('}').ok_or_else(open)?;
            let (name, fallback) = match inside.split_once(":-") {
                Some((name, fallback)) => (name, Some(fallback)),
                None => (inside, None),
            };
            // As in a shell: one that is empty counts as not set.
            let value = environment(name).filter(|value| !value.is_empty());
            let value = value.or_else(|| fallback.map(str::to_owned));
            out.push_str(&value.ok_or_else(|| format!("the variable `{name}` is not set"))?);
            after
        } else {
            out.push('$');
            after
        };
    }
    out.push_str(rest);
    Ok(out)
}
