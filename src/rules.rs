//! Rules: what else a change of an entity makes stale.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use sea_orm::DbBackend;

use crate::cache::Cache;
use crate::invalidation::Invalidation;
use crate::key::{ColumnKind, Key, Parts, parts, tag_key, unescape};
use crate::orm::entity::CachedEntity;
use crate::values::Namespace;

/// What changed of one entity: with a statement, or with all those of a transaction.
///
/// # Examples
/// See [`Cache::on_change`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    database: String,
    tenant: Option<String>,
    rows: Option<Vec<String>>,
}

impl Change {
    /// The label of the database: `main`, if it was attached by [`attach`](Cache::attach).
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The tenant whose connection it came through, if it is [scoped](crate::CachedConnection::scoped).
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// The primary keys of the rows that may have changed, as text: `362`; the parts of a composite one are
    /// separated by commas. None are named by an insert whose keys the database makes: what is cached of a row that
    /// was not there is not told.
    ///
    /// `None` if it is not known which rows changed, as with `UPDATE .. WHERE population > 10`, or with very many; and
    /// where different texts may be the same key, as texts are on MySQL and SQLite and as `CHAR(n)` and bytes are.
    pub fn rows(&self) -> Option<&[String]> {
        self.rows.as_deref()
    }
}

/// Takes what a rule makes stale, beside the change itself.
#[derive(Debug)]
pub struct AlsoStale<'a> {
    prefix: &'a str,
    tenant: Option<&'a str>,
    invalidation: &'a mut Invalidation,
}

impl AlsoStale<'_> {
    /// What is under `key` in the namespace.
    pub fn key(&mut self, namespace: &Namespace, key: impl fmt::Display) -> &mut Self {
        self.invalidation.add(namespace.key(&key.to_string()));
        self
    }

    /// Everything in the namespace.
    pub fn namespace(&mut self, namespace: &Namespace) -> &mut Self {
        self.invalidation.add(namespace.generation().clone());
        self
    }

    /// Everything with this tag; after a write through a tenant's connection, everything of the tenant.
    pub fn tag(&mut self, tag: impl fmt::Display) -> &mut Self {
        let tag = tag_key(self.prefix, self.tenant, &tag.to_string());
        self.invalidation.add(tag);
        self
    }
}

/// The rules of a cache, by the names of their entities.
#[derive(Default)]
pub(crate) struct Rules(RwLock<BTreeMap<String, OfEntity>>);

/// The rules of one entity, and the kinds of its primary key.
#[derive(Clone, Default)]
struct OfEntity {
    rules: Vec<Rule>,
    key: Vec<ColumnKind>,
}

type Rule = Arc<dyn Fn(&Change, &mut AlsoStale<'_>) + Send + Sync>;

impl Cache {
    /// Has every change of the entity, however it is written through this process, make more stale: keys,
    /// namespaces, tags. That belongs to the change: it happens at its commit, never if it is rolled back, and
    /// between the two nobody stores anything under these keys that may be old.
    ///
    /// A value that is computed from rows is better told so by
    /// [`Policy::depends_on`](crate::Policy::depends_on) or `depends_on_row`: then it goes stale whoever writes. A
    /// rule is of this process: all processes that write need it.
    ///
    /// The rule is asked once for each statement, or transaction, and may be asked more than once for the same.
    /// It must not block.
    ///
    /// # Panics
    /// If a rule does, the write that it was asked for fails with that panic, before it is sent to the database. In a
    /// feed it is an `Event::FeedFailed`, and the change waits.
    ///
    /// # Examples
    /// ```
    /// # mod product {
    /// #     use sea_orm::entity::prelude::*;
    /// #     #[derive(Clone, Debug, PartialEq, DeriveEntityModel, sea_orm_cache::CachedEntity)]
    /// #     #[sea_orm(table_name = "product")]
    /// #     pub struct Model { #[sea_orm(primary_key)] pub id: i64, pub price: i64 }
    /// #     #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    /// #     pub enum Relation {}
    /// # }
    /// # let cache = sea_orm_cache::Cache::in_memory();
    /// let products = cache.namespace("product");
    /// let searches = cache.namespace("search");
    /// cache.on_change::<product::Entity>(move |change, stale| {
    ///     match change.rows() {
    ///         Some(rows) => rows.iter().for_each(|id| { stale.key(&products, id); }),
    ///         None => { stale.namespace(&products); }
    ///     }
    ///     stale.namespace(&searches).tag("popular");
    /// });
    /// ```
    pub fn on_change<E: CachedEntity>(
        &self,
        rule: impl Fn(&Change, &mut AlsoStale<'_>) + Send + Sync + 'static,
    ) {
        let meta = E::cached_meta();
        let name = crate::key::escape(&meta.name);
        let rules = self.rules().0.write();
        let mut rules = rules.unwrap_or_else(PoisonError::into_inner);
        let of_entity = rules.entry(name).or_default();
        of_entity.key = meta.kinds(&meta.primary_key).collect();
        of_entity.rules.push(Arc::new(rule));
    }

    /// The same with what the rules add.
    pub(crate) fn ruled(&self, mut invalidation: Invalidation) -> Invalidation {
        let asked = self.rules().asked(&invalidation);
        for (mut change, OfEntity { rules, key }) in asked {
            let backend = self.database(&change.database).map(|(_, backend)| backend);
            let backend = backend.unwrap_or(DbBackend::Sqlite);
            let folded = |kind: &ColumnKind| kind.is_folded(backend);
            if key.iter().any(folded) {
                change.rows = None;
            }
            let mut stale = AlsoStale {
                prefix: &self.settings().prefix,
                tenant: change.tenant(),
                invalidation: &mut invalidation,
            };
            rules.iter().for_each(|rule| rule(&change, &mut stale));
        }
        invalidation
    }
}

impl Rules {
    /// The changes that there are rules for. These are asked when no lock is held.
    fn asked(&self, invalidation: &Invalidation) -> Vec<(Change, OfEntity)> {
        let rules = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if rules.is_empty() {
            return Vec::new();
        }
        let mut changes: BTreeMap<(&str, &str), Vec<&Key>> = BTreeMap::new();
        for key in invalidation.keys() {
            if let Some(Parts { space, entity, .. }) = parts(key)
                && rules.contains_key(entity)
            {
                changes.entry((space, entity)).or_default().push(key);
            }
        }
        let asked = changes.into_iter().map(|((space, entity), keys)| {
            let rules = rules.get(entity).cloned().unwrap_or_default();
            (change(space, &keys), rules)
        });
        asked.collect()
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.0.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(rules.keys()).finish()
    }
}

/// What these keys of one entity say.
fn change(space: &str, keys: &[&Key]) -> Change {
    let (database, tenant) = match space.split_once('@') {
        Some((database, tenant)) => (database, Some(unescape(tenant))),
        None => (space, None),
    };
    let mut rows = Some(Vec::new());
    for parts in keys.iter().filter_map(|key| parts(key)) {
        match (parts.kind, parts.rest) {
            ("pk", row) => {
                let all = rows.as_mut();
                let row = row.split(',').map(unescape).collect::<Vec<_>>().join(",");
                all.into_iter().for_each(|all| all.push(row.clone()));
            }
            ("gen", "rows") => rows = None,
            _ => {}
        }
    }
    Change {
        database: unescape(database),
        tenant,
        rows,
    }
}
