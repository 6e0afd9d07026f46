//! What is known of an entity: names, columns, keys, indexes, policy.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use sea_orm::sea_query::{ForeignKeyAction, TableRef, Value};
use sea_orm::{
    ColumnTrait, DbBackend, EntityTrait, IdenStatic, Iterable, PrimaryKeyToColumn, RelationTrait,
};

use crate::config::EntityPolicy;
use crate::key::{ColumnKind, KeyPart};
use crate::store::Fingerprint;
use crate::tier::RowId;

/// What the library knows of a cached entity. Made once by the derive.
#[derive(Debug)]
pub struct EntityMeta {
    /// Its number in this process.
    pub(crate) id: u32,
    /// The entity's name in keys.
    pub name: String,
    /// The schema that the model names.
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
    pub(crate) fingerprint: Fingerprint,
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

/// An index as the derive names it: its name in keys, whether it is unique, its columns.
pub type IndexSpec<'a, E> = (&'a str, bool, &'a [<E as EntityTrait>::Column]);

/// What is known of `E`. Called by the derive.
#[doc(hidden)]
pub fn entity_meta<E: EntityTrait>(
    name: Option<&str>,
    policy: EntityPolicy,
    indexes: &[IndexSpec<'_, E>],
    cascades_from: &[&str],
) -> EntityMeta {
    let entity = E::default();
    let table = entity.table_name().to_owned();
    let name = name.unwrap_or(&table).to_owned();
    let columns: Vec<ColumnMeta> = E::Column::iter()
        .map(|column| ColumnMeta {
            name: column.as_str().to_owned(),
            kind: ColumnKind::of(column.def().get_column_type()),
        })
        .collect();
    let position =
        |column: &E::Column| E::Column::iter().position(|other| other.as_str() == column.as_str());
    EntityMeta {
        id: next_id(),
        name,
        schema: entity.schema_name().map(str::to_owned),
        table,
        columns,
        primary_key: E::PrimaryKey::iter()
            .filter_map(|key| position(&key.into_column()))
            .collect(),
        indexes: indexes
            .iter()
            .map(|(name, unique, columns)| IndexMeta {
                name: (*name).to_owned(),
                columns: columns.iter().filter_map(position).collect(),
                unique: *unique,
            })
            .collect(),
        cascades_from: cascades_from
            .iter()
            .map(|table| (*table).to_owned())
            .chain(cascading::<E>())
            .collect(),
        fingerprint: crate::codec::fingerprint::<E>(),
        policy,
    }
}

/// A number that no other entity of this process has.
pub(crate) fn next_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl EntityMeta {
    /// Its number where its queries are named, which no entity has.
    #[inline]
    pub(crate) fn queries(&self) -> u32 {
        self.id | 1 << 31
    }

    /// The name of a row in the in-process tier, if its primary key is one number.
    #[inline]
    pub(crate) fn row_id(&self, value: &Value) -> Option<RowId> {
        let [column] = self.primary_key[..] else {
            return None;
        };
        match (self.columns[column].kind, value) {
            (ColumnKind::Integer, value) => integer(value).map(RowId::integer),
            (ColumnKind::Uuid, Value::Uuid(Some(uuid))) => Some(RowId::wide(uuid.as_u128())),
            _ => None,
        }
    }

    /// The kinds of the columns at these positions.
    pub(crate) fn kinds(&self, positions: &[usize]) -> impl Iterator<Item = ColumnKind> {
        positions
            .iter()
            .map(|position| self.columns[*position].kind)
    }

    /// The key text of a primary key; `None` if it cannot be keyed.
    pub(crate) fn key_part(&self, pk: &[Value], backend: DbBackend) -> Option<KeyPart> {
        KeyPart::of(self.kinds(&self.primary_key), pk, backend)
    }
}

/// The tables that `E` belongs to by a foreign key that changes its rows with theirs.
fn cascading<E: EntityTrait>() -> Vec<String> {
    let acts = |action: &Option<ForeignKeyAction>| {
        matches!(
            action,
            Some(
                ForeignKeyAction::Cascade
                    | ForeignKeyAction::SetNull
                    | ForeignKeyAction::SetDefault
            )
        )
    };
    E::Relation::iter()
        .map(|relation| relation.def())
        .filter(|def| acts(&def.on_delete) || acts(&def.on_update))
        .filter_map(|def| table_of(&def.to_tbl))
        .collect()
}

fn table_of(table: &TableRef) -> Option<String> {
    match table {
        TableRef::Table(name, _) => Some(name.1.to_string()),
        _ => None,
    }
}

/// A cached entity that is linked into the program. Submitted by the derive.
#[doc(hidden)]
#[derive(Debug)]
pub struct Registration(pub fn() -> &'static EntityMeta);

inventory::collect!(Registration);

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

    /// The entities whose rows go or change with rows of `table`, which is in lower case, directly or
    /// through others.
    pub(crate) fn cascaded_from(&self, table: &str) -> Vec<&'static EntityMeta> {
        let mut tables = vec![table.to_owned()];
        let mut found: Vec<&'static EntityMeta> = Vec::new();
        while let Some(table) = tables.pop() {
            let follows = |meta: &&EntityMeta| meta.cascades_from.iter().any(|p| names(p, &table));
            for child in self.all.iter().filter(|meta| follows(meta)) {
                if !found.iter().any(|known| std::ptr::eq(*known, *child)) {
                    let table = child.table.to_lowercase();
                    found.extend(self.of_table(&table));
                    tables.push(table);
                }
            }
        }
        found
    }

    /// Every entity.
    pub fn all(&self) -> &[&'static EntityMeta] {
        &self.all
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::BigInt(v) => *v,
        Value::Int(v) => v.map(i64::from),
        Value::SmallInt(v) => v.map(i64::from),
        Value::TinyInt(v) => v.map(i64::from),
        Value::Unsigned(v) => v.map(i64::from),
        Value::SmallUnsigned(v) => v.map(i64::from),
        Value::TinyUnsigned(v) => v.map(i64::from),
        Value::BigUnsigned(v) => v.and_then(|v| i64::try_from(v).ok()),
        _ => None,
    }
}

/// Whether `parent`, which may name its schema, is `table`, which is in lower case.
fn names(parent: &str, table: &str) -> bool {
    let last = parent.rsplit('.').next().unwrap_or(parent);
    same_name(parent, table) || same_name(last, table)
}

/// Whether `name` in lower case is `lower_case`.
pub(crate) fn same_name(name: &str, lower_case: &str) -> bool {
    name.eq_ignore_ascii_case(lower_case) || (!name.is_ascii() && name.to_lowercase() == lower_case)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(name: &str, table: &str, parents: &[&str]) -> &'static EntityMeta {
        Box::leak(Box::new(EntityMeta {
            id: next_id(),
            name: name.to_owned(),
            schema: None,
            table: table.to_owned(),
            columns: vec![],
            primary_key: vec![],
            indexes: vec![],
            cascades_from: parents.iter().map(|parent| (*parent).to_owned()).collect(),
            fingerprint: Fingerprint(1),
            policy: EntityPolicy::default(),
        }))
    }

    #[test]
    fn cascades_reach_every_entity_of_every_table_on_their_way() {
        let registry = Registry::new([
            meta("parent", "Parent", &[]),
            meta("child", "Child", &["public.PARENT"]),
            meta("child's other", "child", &[]),
            meta("grandchild", "grandchild", &["child", "grandchild"]),
            meta("stranger", "stranger", &["parents"]),
        ]);
        let names: Vec<_> = registry
            .cascaded_from("parent")
            .into_iter()
            .map(|meta| meta.name.as_str())
            .collect();
        assert_eq!(names, ["child", "child's other", "grandchild"]);
        assert_eq!(registry.cascaded_from("grandchild").len(), 1);
    }
}
