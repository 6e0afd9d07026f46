//! One database attached to a cache: from statements to keys.

use std::sync::{OnceLock, PoisonError, RwLock};

use sea_orm::sea_query;
use sea_orm::{DatabaseConnection, DbBackend};

use super::connection::CachedConnection;
use super::effects::{Control, Effects, EntityEffect, Touched, effects};
#[cfg(feature = "feed")]
use super::effects::{RowChange, told};
use super::meta::{EntityMeta, Registration, Registry};
use crate::cache::Cache;
use crate::config::Consistency;
use crate::invalidation::Invalidation;
use crate::key::{Generation, KeyPart, KeySpace};
use crate::tier::{RowId, Value};

/// Past this many keys of one entity in one transaction, its generations instead.
const MOST_KEYS: usize = 1_000;

/// One database (or one tenant of it) attached to a cache. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) cache: Cache,
    pub(crate) space: KeySpace,
    pub(crate) backend: DbBackend,
    /// How fresh reads are, if not as their entity says.
    pub(crate) consistency: Option<Consistency>,
}

/// What a statement makes stale.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) invalidation: Invalidation,
    pub(crate) control: Control,
}

impl Site {
    /// What `sql` makes stale in this database.
    pub(crate) fn plan(&self, sql: &str, values: &[sea_query::Value]) -> Planned {
        let effects = effects(sql, values, self.backend, registry());
        Planned {
            control: effects.control,
            invalidation: self.invalidation(effects),
        }
    }

    /// What these changes, which others have made, make stale in this database.
    #[cfg(feature = "feed")]
    pub(crate) fn told(&self, changes: &[RowChange]) -> Invalidation {
        self.invalidation(told(changes, self.backend, registry()))
    }

    fn invalidation(&self, effects: Effects) -> Invalidation {
        let mut invalidation = Invalidation::default();
        if effects.everything {
            for meta in registry().all() {
                self.add_whole(meta, &mut invalidation);
            }
        }
        for effect in &effects.entities {
            self.add_effect(effect, &mut invalidation);
        }
        if !self.cache.settings().only_linked_entities {
            for table in &effects.unknown_tables {
                invalidation.demand(self.cache.settings().write_policy);
                self.add_generations(table, &mut invalidation);
            }
        }
        invalidation
    }

    fn add_effect(&self, effect: &EntityEffect, invalidation: &mut Invalidation) {
        let meta = effect.meta;
        self.demand(meta, invalidation);
        invalidation.add(self.space.generation(&meta.name, Generation::List));
        match &effect.rows {
            Touched::All => invalidation.add(self.space.generation(&meta.name, Generation::Rows)),
            Touched::Only(rows) => rows
                .iter()
                .for_each(|pk| invalidation.add(self.space.row(&meta.name, pk))),
        }
        match &effect.index {
            Touched::All => invalidation.add(self.space.generation(&meta.name, Generation::Index)),
            Touched::Only(entries) => {
                for (index, value) in entries {
                    invalidation.add(self.space.index(
                        &meta.name,
                        &meta.indexes[*index].name,
                        value,
                    ));
                }
            }
        }
    }

    /// Adds everything cached of an entity.
    pub(crate) fn add_whole(&self, meta: &EntityMeta, invalidation: &mut Invalidation) {
        self.demand(meta, invalidation);
        self.add_generations(&meta.name, invalidation);
    }

    /// Adds one row of an entity and what depends on the table; without a key, all its rows.
    pub(crate) fn add_row(
        &self,
        meta: &EntityMeta,
        pk: Option<&KeyPart>,
        invalidation: &mut Invalidation,
    ) {
        self.demand(meta, invalidation);
        invalidation.add(self.space.generation(&meta.name, Generation::List));
        invalidation.add(match pk {
            Some(pk) => self.space.row(&meta.name, pk),
            None => self.space.generation(&meta.name, Generation::Rows),
        });
    }

    fn add_generations(&self, name: &str, invalidation: &mut Invalidation) {
        for generation in [Generation::Rows, Generation::Index, Generation::List] {
            invalidation.add(self.space.generation(name, generation));
        }
    }

    /// Asks for the entity's write policy.
    pub(crate) fn demand(&self, meta: &EntityMeta, invalidation: &mut Invalidation) {
        invalidation.demand(
            meta.policy
                .write_policy
                .unwrap_or(self.cache.settings().write_policy),
        );
    }

    /// Everything cached of the entities whose rows a delete from this one's table takes along.
    pub(crate) fn cascaded(&self, meta: &EntityMeta) -> Invalidation {
        let mut invalidation = Invalidation::default();
        for child in registry().cascaded_from(&meta.table.to_lowercase()) {
            self.add_whole(child, &mut invalidation);
        }
        invalidation
    }

    /// The same with generations in place of very many keys.
    pub(crate) fn compact(&self, invalidation: Invalidation) -> Invalidation {
        invalidation.compacted(MOST_KEYS)
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        let space = KeySpace::new("soc", "test");
        Self {
            cache: Cache::in_memory(),
            space,
            backend: DbBackend::Sqlite,
            consistency: None,
        }
    }

    /// How fresh reads of the entity are.
    pub(crate) fn consistency(&self, meta: &EntityMeta) -> Consistency {
        self.consistency.unwrap_or(meta.policy.consistency)
    }

    /// Whether the in-process tier may answer reads of the entity.
    pub(crate) fn is_bounded(&self, meta: &EntityMeta) -> bool {
        self.consistency(meta) == Consistency::Bounded
    }

    /// The row, or the query's result, if the in-process tier has it.
    #[inline]
    pub(crate) fn held(&self, meta: &EntityMeta, entity: u32, row: RowId) -> Option<Value> {
        let tier = self.cache.tier().filter(|_| self.is_bounded(meta))?;
        let held = tier.row(&self.space, entity, row)?;
        let witness = self.cache.witness();
        witness.l1_hit(meta.id, &meta.name, held.present);
        Some(held.value)
    }

    /// The same site, read with this consistency.
    pub(crate) fn with_consistency(&self, consistency: Consistency) -> Self {
        Self {
            consistency: Some(consistency),
            ..self.clone()
        }
    }

    /// The same site with the keys of one tenant.
    pub(crate) fn scoped(&self, tenant: &str) -> Self {
        Self {
            space: self.space.scoped(tenant),
            ..self.clone()
        }
    }
}

impl Cache {
    /// The main database, through this cache.
    pub fn attach(&self, db: DatabaseConnection) -> CachedConnection {
        self.attach_as("main", db)
    }

    /// A database under a label of its own: two databases on one cache never share keys.
    pub fn attach_as(&self, label: &str, db: DatabaseConnection) -> CachedConnection {
        let backend = db.get_database_backend();
        let space = self.attached(label, backend);
        CachedConnection::new(
            db,
            Site {
                cache: self.clone(),
                space,
                backend,
                consistency: None,
            },
        )
    }
}

/// All cached entities linked into this program.
pub fn linked() -> &'static [&'static EntityMeta] {
    registry().all()
}

/// All cached entities linked into this program.
pub(crate) fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY
        .get_or_init(|| Registry::new(inventory::iter::<Registration>().map(|entity| (entity.0)())))
}

/// The site that hooks and cached reads use on plain connections.
static INSTALLED: RwLock<Option<Site>> = RwLock::new(None);

/// Makes `site` the one that hooks and cached reads use on plain connections.
pub(crate) fn install(site: Site) {
    *INSTALLED.write().unwrap_or_else(PoisonError::into_inner) = Some(site);
}

/// The site that hooks and cached reads use on plain connections.
pub(crate) fn installed() -> Option<Site> {
    INSTALLED
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}
