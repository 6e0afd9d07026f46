//! What a configuration says, and from where.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::setting::{self, Builder};
use super::{ConfigError, DEFAULT, listed};
use crate::builder::CacheBuilder;

/// What named caches are to be: by name, settings and their values.
///
/// It can be a part of any configuration that serde reads, or is read from [TOML](Self::from_toml). Texts may name
/// variables of the environment: `${REDIS_URL}`, or `${REDIS_URL:-redis://localhost:6379/0}` with what stands for
/// one that is not set; `$$` is a dollar sign.
///
/// | setting | value | default |
/// |---|---|---|
/// | `url` | `redis://`, `rediss://` or `redis+unix://` | |
/// | `cluster` | a list of URLs, or one text with commas | |
/// | `sentinels`, `primary` | a list of URLs; the primary's name or URL | |
/// | `memory` | a size | `"64 MiB"`, where no other place is named |
/// | `prefix` | text | `soc` for `default`, else the cache's name |
/// | `ttl` | a duration | `"5m"` |
/// | `codec` | `messagepack` or `json` | `messagepack` |
/// | `l1` | a size | none |
/// | `max_silence` | a duration | `"1s"` |
/// | `lazy` | `true` or `false` | `false` |
/// | `command_timeout`, `connect_timeout` | a duration | `"250ms"`, `"1s"` |
/// | `lease_ttl`, `fence_ttl` | a duration | `"3s"`, `"10s"` |
/// | `max_loads`, `load_wait` | a number, a duration | 64, `"5s"` |
/// | `max_value_bytes`, `compress_over` | a size | `"1 MiB"`, none |
/// | `write_policy` | `available` or `strict` | `available` |
/// | `plain_transactions` | `expire` or `refuse` | `expire` |
/// | `only_linked_entities` | `true` or `false` | `false` |
///
/// A duration is whole numbers with units, `"1h30m"`, `"250ms"`; a size is a number of bytes, or text with a unit,
/// `"64 MiB"`, `"10 MB"`. What each setting means is said at the method of the same name of
/// [`CacheBuilder`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CachesConfig(BTreeMap<String, BTreeMap<String, Raw>>);

/// A value as it is written.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Raw {
    Text(String),
    Number(u64),
    Flag(bool),
    List(Vec<String>),
}

/// The first part of the names of variables.
const VARIABLES: &str = "CACHES__";

impl CachesConfig {
    /// Reads the tables `[caches.<name>]` of a text in TOML, and leaves all else in it alone.
    ///
    /// # Errors
    /// If it is no TOML, has no such table, or a value of a wrong kind.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        #[derive(Deserialize)]
        struct Whole {
            caches: CachesConfig,
        }
        let whole: Whole = toml::from_str(text).map_err(|error| {
            // Not all of the error's text, which shows the line with what may be a password.
            let before = &text[..error.span().map_or(0, |span| span.start.min(text.len()))];
            let line = before.matches('\n').count() + 1;
            ConfigError::Text(format!("line {line}: {}", error.message()))
        })?;
        Ok(whole.caches)
    }

    /// Reads it from the environment alone: see [`with_env`](Self::with_env).
    ///
    /// # Errors
    /// As those of [`with_env`](Self::with_env).
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::default().with_env()
    }

    /// The same with what the environment says in variables `CACHES__<NAME>__<SETTING>`, such as
    /// `CACHES__SESSIONS__URL`, which goes before what is said here.
    ///
    /// # Errors
    /// If a variable begins so and goes on otherwise.
    pub fn with_env(self) -> Result<Self, ConfigError> {
        let text = |text: std::ffi::OsString| text.into_string().ok();
        let variables = std::env::vars_os();
        self.with_variables(variables.filter_map(|(name, value)| Some((text(name)?, text(value)?))))
    }

    pub(super) fn with_variables(
        mut self,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        for (variable, value) in variables {
            let Some(rest) = variable.strip_prefix(VARIABLES) else {
                continue;
            };
            let (name, setting) = rest.split_once("__").ok_or_else(|| {
                let names = "is not `CACHES__<NAME>__<SETTING>`";
                ConfigError::Text(format!("the variable `{variable}` {names}"))
            })?;
            let settings = self.0.entry(name.to_ascii_lowercase()).or_default();
            settings.insert(setting.to_ascii_lowercase(), Raw::Text(value));
        }
        Ok(self)
    }

    /// What builds each cache.
    pub(super) fn builders(&self) -> Result<Vec<(&str, CacheBuilder)>, ConfigError> {
        self.builders_in(|variable| std::env::var(variable).ok())
    }

    pub(super) fn builders_in(
        &self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<(&str, CacheBuilder)>, ConfigError> {
        if !self.0.contains_key(DEFAULT) {
            let found = match self.0.is_empty() {
                true => "none is named".to_owned(),
                false => format!("named are {}", listed(self.0.keys().map(String::as_str))),
            };
            let text = format!("{found}; one must be named `{DEFAULT}`");
            return Err(ConfigError::Text(text));
        }
        let mut builders = Vec::new();
        let mut homes: BTreeMap<String, &str> = BTreeMap::new();
        for (name, settings) in &self.0 {
            let builder = Builder::read(name, settings, &environment)?;
            if let Some(home) = builder.home()
                && let Some(other) = homes.insert(home, name)
            {
                return Err(ConfigError::Setting {
                    cache: name.clone(),
                    setting: "prefix".to_owned(),
                    found: format!("the same as that of `{other}`, in the same place"),
                    allowed: "caches that share a place have prefixes of their own".to_owned(),
                });
            }
            builders.push((name.as_str(), builder.builder));
        }
        Ok(builders)
    }
}

impl fmt::Debug for CachesConfig {
    /// Which settings there are; not their values, which may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, settings) in &self.0 {
            map.entry(name, &settings.keys().collect::<Vec<_>>());
        }
        map.finish()
    }
}

impl<'de> Deserialize<'de> for CachesConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Table(caches) = Table::<Table<Raw>>::deserialize(deserializer)?;
        let caches = caches.into_iter();
        Ok(Self(caches.map(|(name, Table(all))| (name, all)).collect()))
    }
}

/// A table, with an error of its own where there is a text in its place: that may be a URL with a password.
struct Table<V>(BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Table<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor(PhantomData))
    }
}

struct TableVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for TableVisitor<V> {
    type Value = Table<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tables of caches, `[caches.<name>]`, with their settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Table<V>, A::Error> {
        let mut all = BTreeMap::new();
        while let Some((name, value)) = entries.next_entry()? {
            all.insert(name, value);
        }
        Ok(Table(all))
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Table<V>, E> {
        Err(E::custom(
            "a text where a table of settings is expected, as in `[caches.default]` with `url = \"..\"`",
        ))
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a whole number, true or false, or a list of texts")
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Raw, E> {
        Ok(Raw::Flag(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Raw, E> {
        Ok(Raw::Number(number))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Raw, E> {
        let number = u64::try_from(number);
        number
            .map(Raw::Number)
            .map_err(|_| E::custom("a number below zero, of which no setting may be"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Raw>()? {
            match item {
                Raw::Text(text) => list.push(text),
                _ => return Err(A::Error::custom("a list of something else than texts")),
            }
        }
        Ok(Raw::List(list))
    }
}

impl Raw {
    /// With what the environment says in place of `${..}`.
    pub(super) fn expanded(
        &self,
        environment: &impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        Ok(match self {
            Self::Text(text) => Self::Text(setting::expand(text, environment)?),
            Self::List(list) => {
                let list = list.iter().map(|text| setting::expand(text, environment));
                Self::List(list.collect::<Result<_, _>>()?)
            }
            other => other.clone(),
        })
    }
}
