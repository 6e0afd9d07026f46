//! What a statement writes and reads, found in its text: one pure function each.

use sea_orm::DbBackend;
use sea_orm::sea_query::Value;

use super::meta::{EntityMeta, Registry};
use crate::key::KeyPart;

/// What a statement may change.
#[derive(Debug, Default, PartialEq)]
pub struct Effects {
    /// Per entity, what of it.
    pub entities: Vec<EntityEffect>,
    /// Tables (last segment, lower case) that are written and that no linked entity maps.
    pub unknown_tables: Vec<String>,
    /// Set when the statement was not understood: every entity, whole.
    pub everything: bool,
    /// Whether the statement begins or ends a transaction by itself.
    pub control: Control,
}

/// What a statement may change of one entity. The `list` generation is always part of it.
#[derive(Debug)]
pub struct EntityEffect {
    /// The entity.
    pub meta: &'static EntityMeta,
    /// Which rows.
    pub rows: Touched<KeyPart>,
    /// Which index entries: position in `meta.indexes` and the new value.
    pub index: Touched<(usize, KeyPart)>,
}

impl PartialEq for EntityEffect {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.meta, other.meta) && self.rows == other.rows && self.index == other.index
    }
}

/// A set of keys, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched<T> {
    /// Only these; none if empty.
    Only(Vec<T>),
    /// Not known which.
    All,
}

/// What a statement does to the transaction it runs in.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Nothing.
    #[default]
    None,
    /// It opens one: `BEGIN`, `START TRANSACTION`.
    Begin,
    /// It ends one, or may (`COMMIT`, `END`, `ROLLBACK`; on MySQL every statement that commits
    /// implicitly).
    End,
}

/// What a select reads.
#[derive(Debug, Default)]
pub struct Reads {
    /// The entities that the text mentions.
    pub entities: Vec<&'static EntityMeta>,
    /// Tables, views and functions read that are no cached entity.
    pub unknown: Vec<String>,
    /// Whether it locks rows (`FOR UPDATE`, `FOR SHARE`, `LOCK IN SHARE MODE`), or is no select.
    pub uncacheable: bool,
}

/// What `sql` with the bound `values` may change.
pub fn effects(sql: &str, values: &[Value], backend: DbBackend, registry: &Registry) -> Effects {
    let _ = (sql, values, backend, registry);
    todo!("helper")
}

/// What the select `sql` reads.
pub fn reads(sql: &str, backend: DbBackend, registry: &Registry) -> Reads {
    let _ = (sql, backend, registry);
    todo!("helper")
}
