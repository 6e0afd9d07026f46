//! Named caches, from configuration.

mod config;
mod setting;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

pub use config::CachesConfig;

use crate::builder::CacheBuilder;
use crate::cache::Cache;
use crate::error::CacheError;

/// The name of the cache that is meant where none is named.
const DEFAULT: &str = "default";

/// The caches of a program, by name. Cheap to clone.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use sea_orm_cache::{Caches, CachesConfig};
///
/// let config = CachesConfig::from_toml(r#"
///     [caches.default]
///     memory = "64 MiB" # or: url = "${REDIS_URL:-redis://localhost:6379/0}"
///     prefix = "myapp"
///     ttl = "5m"
///
///     [caches.sessions]
///     prefix = "session"
///     ttl = "24h"
/// "#)?.with_env()?;
/// let caches = Caches::from_config(&config).await?;
/// let sessions = caches.named("sessions")?;
/// # let _ = (sessions, caches.main());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Caches(Arc<BTreeMap<String, Cache>>);

/// Why there are no caches as configured.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The configuration cannot be read.
    #[error("the configuration of caches: {0}")]
    Text(String),
    /// A setting is wrong.
    #[error("`{setting}` of the cache `{cache}`: {found}; {allowed}")]
    Setting {
        /// The cache's name.
        cache: String,
        /// Which setting.
        setting: String,
        /// What it is. Not what may hold a password.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// A cache cannot be built.
    #[error("the cache `{cache}`: {error}")]
    Cache {
        /// Its name.
        cache: String,
        /// Why.
        error: CacheError,
    },
    /// No cache has this name.
    #[error("there is no cache `{name}`; configured are {known}")]
    Unknown {
        /// Which name.
        name: String,
        /// Those that there are.
        known: String,
    },
}

static INSTALLED: RwLock<Option<Caches>> = RwLock::new(None);

impl Caches {
    /// Builds the configured caches. One is named `default`.
    ///
    /// # Errors
    /// The first setting that is wrong, or the first server that cannot be reached and is not `lazy`.
    pub async fn from_config(config: &CachesConfig) -> Result<Self, ConfigError> {
        Self::from_config_with(config, |_, builder| builder).await
    }

    /// The same, with what is not in a configuration: observers, a store of one's own. `change` is called with the
    /// name of each cache.
    ///
    /// # Errors
    /// As those of [`from_config`](Self::from_config).
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), sea_orm_cache::ConfigError> {
    /// # use sea_orm_cache::{Caches, CachesConfig, Event};
    /// let config = CachesConfig::from_toml("[caches.default]")?;
    /// let caches = Caches::from_config_with(&config, |name, builder| {
    ///     let name = name.to_owned();
    ///     builder.observer(move |event: &Event<'_>| println!("{name}: {event:?}"))
    /// }).await?;
    /// # let _ = caches;
    /// # Ok(()) }
    /// ```
    pub async fn from_config_with(
        config: &CachesConfig,
        mut change: impl FnMut(&str, CacheBuilder) -> CacheBuilder,
    ) -> Result<Self, ConfigError> {
        let builders = config.builders()?.into_iter();
        let builders: Vec<_> = builders
            .map(|(name, builder)| (name, change(name, builder)))
            .collect();
        let mut caches = BTreeMap::new();
        for (name, builder) in builders {
            let cache = builder.build().await.map_err(|error| ConfigError::Cache {
                cache: name.to_owned(),
                error,
            })?;
            caches.insert(name.to_owned(), cache);
        }
        Ok(Self(Arc::new(caches)))
    }

    /// The cache of this name.
    ///
    /// # Errors
    /// If there is none; the error names those that there are.
    pub fn named(&self, name: &str) -> Result<&Cache, ConfigError> {
        let unknown = || ConfigError::Unknown {
            name: name.to_owned(),
            known: listed(self.names()),
        };
        self.0.get(name).ok_or_else(unknown)
    }

    /// The cache named `default`.
    pub fn main(&self) -> &Cache {
        &self.0[DEFAULT]
    }

    /// The names of all.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Makes these the caches of the process, in place of those that were installed before.
    pub fn install(&self) {
        let mut installed = INSTALLED.write().unwrap_or_else(PoisonError::into_inner);
        *installed = Some(self.clone());
    }

    /// The caches of the process, if some are [installed](Self::install).
    pub fn installed() -> Option<Self> {
        let installed = INSTALLED.read().unwrap_or_else(PoisonError::into_inner);
        installed.clone()
    }
}

/// As text: `a`, `b`.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests;
