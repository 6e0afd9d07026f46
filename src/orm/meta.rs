//! What is known of an entity: names, columns, keys, indexes, policy.

use std::collections::HashMap;

use crate::config::EntityPolicy;
use crate::key::ColumnKind;
use crate::store::Fingerprint;

/// What the library knows of a cached entity. Made once by the derive.
#[derive(Debug)]
pub struct EntityMeta {
    /// The entity's name in keys.
    pub name: String,
    /// The table's schema, if the entity names one.
    pub schema: Option<String>,
    /// The table.
    pub table: String,
    /// The table's columns, in the model's order.
    pub columns: Vec<ColumnMeta>,
    /// The primary key, as positions in `columns`.
    pub primary_key: Vec<usize>,
    /// The cached indexes.
    pub indexes: Vec<IndexMeta>,
    /// Tables whose rows take rows of this one with them (`ON DELETE/UPDATE CASCADE | SET NULL`).
    pub cascades_from: Vec<String>,
    /// Hash of the codec version and of the columns' names and types.
    pub fingerprint: Fingerprint,
    /// How long and how fresh.
    pub policy: EntityPolicy,
}

/// A column of a cached entity.
#[derive(Debug, Clone)]
pub struct ColumnMeta {
    /// The column's name in the database.
    pub name: String,
    /// How its values become key text.
    pub kind: ColumnKind,
}

/// A cached index.
#[derive(Debug, Clone)]
pub struct IndexMeta {
    /// The index's name in keys.
    pub name: String,
    /// Its columns, as positions in the entity's columns.
    pub columns: Vec<usize>,
    /// Whether at most one row carries a value.
    pub unique: bool,
}

/// All cached entities linked into this program, by table name.
#[derive(Debug, Default)]
pub struct Registry {
    by_table: HashMap<String, Vec<&'static EntityMeta>>,
    all: Vec<&'static EntityMeta>,
}

impl Registry {
    /// A registry of these entities.
    pub fn new(entities: impl IntoIterator<Item = &'static EntityMeta>) -> Self {
        let mut registry = Self::default();
        for meta in entities {
            registry.all.push(meta);
            registry
                .by_table
                .entry(meta.table.to_lowercase())
                .or_default()
                .push(meta);
        }
        registry
    }

    /// The entities of a table; names compare by their last segment and without regard to case.
    pub fn of_table(&self, lower_case_table: &str) -> &[&'static EntityMeta] {
        self.by_table
            .get(lower_case_table)
            .map_or(&[], Vec::as_slice)
    }

    /// Every entity.
    pub fn all(&self) -> &[&'static EntityMeta] {
        &self.all
    }
}
