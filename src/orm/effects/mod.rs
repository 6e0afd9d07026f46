//! What a statement writes and reads, found in its text: one pure function each.

mod change;
mod cursor;
mod found;
mod given;
mod insert;
mod pinned;
mod reads;
mod scan;
mod statement;
#[cfg(test)]
mod tests;
#[cfg(feature = "feed")]
mod told;

use sea_orm::DbBackend;
use sea_orm::sea_query::Value;

use self::statement::Analyzer;
#[cfg(feature = "feed")]
pub use self::told::{RowChange, told};
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
    /// It opens one: `BEGIN`, `START TRANSACTION`; on MySQL it ends the one before.
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
///
/// Found are the tables that the text names. What a database does of itself (triggers, rules,
/// generated columns, functions called by a select, views that can be written) is not in the text.
/// A name counts by its last segment and without regard to case.
pub fn effects(sql: &str, values: &[Value], backend: DbBackend, registry: &Registry) -> Effects {
    if is_plain_select(sql) {
        return Effects::default();
    }
    Analyzer::new(values, backend, registry).run(sql)
}

/// Whether this is one select that cannot write: it cannot have CTEs that do, and writes no table
/// without the word `INTO`.
fn is_plain_select(sql: &str) -> bool {
    let sql = sql
        .trim_start_matches(|c: char| c.is_ascii_whitespace())
        .as_bytes();
    let [word @ .., next] = sql.get(..7).unwrap_or_default() else {
        return false;
    };
    let select = word.eq_ignore_ascii_case(b"SELECT");
    let ends = !next.is_ascii_alphanumeric() && *next != b'_' && *next != b'$' && next.is_ascii();
    select && ends && !has_into_or_semicolon(sql)
}

fn has_into_or_semicolon(sql: &[u8]) -> bool {
    let into = |at: usize| {
        at > 0
            && matches!(sql.get(at - 1..at + 3), Some(word) if word.eq_ignore_ascii_case(b"INTO"))
    };
    sql.iter().enumerate().any(|(at, byte)| match byte {
        b';' => true,
        b'n' | b'N' => into(at),
        _ => false,
    })
}

/// What the select `sql` reads.
///
/// Every identifier that is the name of a registered table counts as a mention of it, a column's
/// as well. Names after `FROM`, `JOIN` and the commas between them that are neither registered nor
/// a CTE in whose scope they are, and functions there, are unknown. Functions elsewhere (`now()`,
/// `f(x)`) are not looked at.
pub fn reads(sql: &str, backend: DbBackend, registry: &Registry) -> Reads {
    reads::of(sql, backend, registry)
}
