//! How a value is stored, and what it depends on.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::DbBackend;

use crate::config::{Consistency, EntityPolicy};
use crate::key::{Generation, Key, KeySpace, Pk};
use crate::orm::entity::{CachedEntity, PrimaryKeyOf};
use crate::orm::meta::EntityMeta;
use crate::orm::rows::values;

/// How the values of a namespace are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// MessagePack, with the names of fields: small and quick. A value is of one Rust type, known by its name.
    #[default]
    MessagePack,
    /// JSON, for readers in other languages.
    Json,
}

/// How long a value lives, how fresh it must be, and what it was computed from.
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
/// use sea_orm_cache::Policy;
///
/// let policy = Policy::new()
///     .ttl(Duration::from_secs(900))
///     .tags(["front-page"])
///     .depends_on_row::<city::Entity>(362);
/// # let _ = policy;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Policy {
    entity: EntityPolicy,
    /// The cache's, if there is none.
    ttl: Option<Duration>,
    tags: Vec<String>,
    database: Arc<str>,
    sources: Vec<Source>,
    keys: Vec<String>,
}

/// What a value was computed from.
#[derive(Clone, Debug)]
struct Source {
    database: Arc<str>,
    meta: &'static EntityMeta,
    /// The whole table if there is none.
    row: Option<Pk>,
}

/// What a value depends on.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// If there is something.
    pub(super) present: Vec<Key>,
    /// If there is nothing, these as well.
    pub(super) absent: Vec<Key>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            entity: EntityPolicy::default(),
            ttl: None,
            tags: Vec::new(),
            database: "main".into(),
            sources: Vec::new(),
            keys: Vec::new(),
        }
    }
}

impl Policy {
    /// The defaults: for as long as the cache's [`ttl`](crate::CacheBuilder::ttl), depending on nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a value lives. Defaults to the cache's [`ttl`](crate::CacheBuilder::ttl), which defaults to 5
    /// minutes.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// By which part of itself the life of a value is shortened at random, from 0 to 1. Defaults to 0.1.
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.entity.jitter = jitter;
        self
    }

    /// How long it is known that there is nothing. Defaults to 30 seconds.
    pub fn absent_ttl(mut self, ttl: Duration) -> Self {
        self.entity.absent_ttl = ttl;
        self
    }

    /// How fresh a read is. Defaults to [`Consistency::Bounded`]; [`Consistency::Database`] always loads.
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.entity.consistency = consistency;
        self
    }

    /// For how long after its ttl a value is still answered while one caller loads it anew. That one waits, unless
    /// it [spawns](crate::Namespace::get_or_spawn) the load. Never a value that something made stale. Defaults to
    /// zero.
    pub fn stale_while_revalidate(mut self, time: Duration) -> Self {
        self.entity.stale_while_revalidate = time;
        self
    }

    /// For how long after its ttl a value is still answered where its load fails. Never one that something made
    /// stale. Defaults to zero.
    pub fn stale_if_error(mut self, time: Duration) -> Self {
        self.entity.stale_if_error = time;
        self
    }

    /// How eagerly a value is loaded anew before the end of its ttl, by one caller, at random: the sooner the
    /// longer it takes to load. 1 is usual. Defaults to 0: never.
    ///
    /// As in "Optimal Probabilistic Cache Stampede Prevention" (Vattani, Chierichetti, Lowenstein, 2015).
    pub fn early_refresh(mut self, eagerness: f64) -> Self {
        self.entity.early_refresh = eagerness;
        self
    }

    /// How long a caller waits for a load where there is a value past its ttl that may still be answered instead.
    /// The load is then given up, unless it was [spawned](crate::Namespace::get_or_spawn). Defaults to none: as
    /// long as it takes.
    pub fn soft_timeout(mut self, time: Duration) -> Self {
        self.entity.soft_timeout = Some(time);
        self
    }

    /// How long a load that is [spawned](crate::Namespace::get_or_spawn) may take, before it fails with
    /// [`CacheError::LoadTimedOut`](crate::CacheError::LoadTimedOut). Any other load can be wrapped in a timeout
    /// of its own. Defaults to none: as long as it takes.
    pub fn load_timeout(mut self, time: Duration) -> Self {
        self.entity.load_timeout = Some(time);
        self
    }

    /// Tags: [`invalidate_tags`](crate::Cache::invalidate_tags) makes the value stale.
    pub fn tags(mut self, tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// The database of the entities that are named after this, by its
    /// [label](crate::Cache::attach_as). Defaults to `main`.
    pub fn database(mut self, label: &str) -> Self {
        self.database = label.into();
        self
    }

    /// Goes stale with every write to the entity's table.
    pub fn depends_on<E: CachedEntity>(self) -> Self {
        self.source::<E>(None)
    }

    /// Goes stale with every write that may change this row, and is a miss once the row's own entry in the store has
    /// expired: an entity with a longer `ttl` keeps what depends on its rows for longer. A row that is not there may come with any write
    /// to the table: what was computed from its absence belongs to
    /// [`get_or_set_optional`](crate::Namespace::get_or_set_optional).
    pub fn depends_on_row<E: CachedEntity>(self, key: impl Into<PrimaryKeyOf<E>>) -> Self {
        self.source::<E>(Some(values(key.into())))
    }

    /// Goes stale with the value under this key of the same namespace, whether there is one or not.
    pub fn depends_on_key(mut self, key: &str) -> Self {
        self.keys.push(key.to_owned());
        self
    }

    fn source<E: CachedEntity>(mut self, row: Option<Pk>) -> Self {
        self.sources.push(Source {
            database: Arc::clone(&self.database),
            meta: E::cached_meta(),
            row,
        });
        self
    }

    /// In a cache where values live for so long if their policy does not say.
    pub(super) fn entity(&self, ttl: Duration) -> EntityPolicy {
        EntityPolicy {
            ttl: self.ttl.unwrap_or(ttl),
            ..self.entity.clone()
        }
    }

    /// Whether a value past its ttl may be answered where its load fails.
    #[cfg(feature = "http")]
    pub(crate) fn outlasts_errors(&self) -> bool {
        !self.entity.stale_if_error.is_zero()
    }

    pub(super) fn tag_names(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().map(String::as_str)
    }

    pub(super) fn key_names(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(String::as_str)
    }

    /// The keys of what it depends on, beside its tags. `spaces` knows the databases by their labels.
    ///
    /// # Errors
    /// The label of a database that is not attached.
    pub(super) fn resolve(
        &self,
        spaces: impl Fn(&str) -> Option<(Vec<KeySpace>, DbBackend)>,
    ) -> Result<Resolved, String> {
        let mut resolved = Resolved::default();
        for source in &self.sources {
            let label = &source.database;
            let (spaces, backend) = spaces(label)
                .ok_or_else(|| format!("no database `{label}` is attached to the cache yet"))?;
            for space in &spaces {
                source.resolve(space, backend, &mut resolved);
            }
        }
        Ok(resolved)
    }
}

impl Source {
    fn resolve(&self, space: &KeySpace, backend: DbBackend, resolved: &mut Resolved) {
        let name = &self.meta.name;
        let generation = |generation| space.generation(name, generation);
        let row = self.row.as_ref();
        match row.and_then(|pk| self.meta.key_part(pk, backend)) {
            Some(pk) => {
                resolved.present.push(space.row(name, &pk));
                resolved.present.push(generation(Generation::Rows));
                resolved.absent.push(generation(Generation::List));
            }
            None => resolved.present.push(generation(Generation::List)),
        }
    }
}
