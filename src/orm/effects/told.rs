//! What a log of changes tells: rows as they were before and after.

use sea_orm::prelude::{ChronoDate, Uuid};
use sea_orm::sea_query::Value;
use sea_orm::{DbBackend, JsonValue};

use super::found::Found;
use super::{Effects, Touched};
use crate::key::{ColumnKind, KeyPart};
use crate::orm::meta::{EntityMeta, IndexMeta, Registry};

/// A change that somebody else has made and committed, as a log of the database tells it.
///
/// Rows are JSON objects by the names of their columns. Only those of the primary key and of cached indexes are
/// looked at. What is missing there, or is not certain, costs more misses and no freshness: integers are numbers,
/// texts and UUIDs strings, dates `2026-11-28`, bytes `\x` and hexadecimal digits.
///
/// # Examples
/// See [`CachedConnection::apply`](crate::CachedConnection::apply).
#[derive(Clone, Debug, PartialEq)]
pub struct RowChange {
    table: String,
    touched: Images,
}

#[derive(Clone, Debug, PartialEq)]
enum Images {
    Whole,
    Row {
        old: Option<JsonValue>,
        new: Option<JsonValue>,
    },
}

impl RowChange {
    /// Any rows of the table changed: it is not known which.
    pub fn table(table: impl Into<String>) -> Self {
        Self {
            table: table.into(),
            touched: Images::Whole,
        }
    }

    /// One row changed, from `old` (none: it was inserted) to `new` (none: it was deleted). An update of which only
    /// the new row is known, because its primary key is the same, has no `old`.
    ///
    /// With neither, the whole [table](Self::table).
    pub fn row(table: impl Into<String>, old: Option<JsonValue>, new: Option<JsonValue>) -> Self {
        let touched = match (old, new) {
            (None, None) => Images::Whole,
            (old, new) => Images::Row { old, new },
        };
        Self {
            table: table.into(),
            touched,
        }
    }
}

/// What these changes make stale.
pub fn told(changes: &[RowChange], backend: DbBackend, registry: &Registry) -> Effects {
    let mut found = Found::new(registry);
    for change in changes {
        let table = change.table.to_lowercase();
        match &change.touched {
            Images::Whole => found.table(&table),
            Images::Row { old, new } => {
                let told = Told {
                    old: old.as_ref(),
                    new: new.as_ref(),
                    backend,
                };
                told.add(&table, registry, &mut found);
            }
        }
    }
    found.finish()
}

/// One row, before and after.
struct Told<'a> {
    old: Option<&'a JsonValue>,
    new: Option<&'a JsonValue>,
    backend: DbBackend,
}

/// The value of an index in a row.
enum Entry {
    /// Nobody can have looked it up.
    None,
    /// What it is called in keys.
    Known(KeyPart),
    Unknown,
}

impl Told<'_> {
    fn add(&self, table: &str, registry: &Registry, found: &mut Found<'_>) {
        let metas = registry.of_table(table);
        if metas.is_empty() {
            found.unknown(table);
        }
        for meta in metas {
            found.add(meta, self.rows(meta), self.entries(meta));
        }
        if metas.is_empty() || metas.iter().any(|meta| self.is_referable(meta)) {
            found.cascade(table);
        }
    }

    fn rows(&self, meta: &EntityMeta) -> Touched<KeyPart> {
        let images = [self.old, self.new].into_iter().flatten();
        let keys = images.map(|row| self.part(meta, &meta.primary_key, row));
        keys.collect::<Option<Vec<_>>>()
            .map_or(Touched::All, Touched::Only)
    }

    /// Entries of new values. Those of old ones tell by themselves that they are outdated.
    fn entries(&self, meta: &EntityMeta) -> Touched<(usize, KeyPart)> {
        let mut entries = Vec::new();
        for (position, index) in meta.indexes.iter().enumerate() {
            match self
                .new
                .map_or(Entry::None, |row| self.entry(meta, index, row))
            {
                Entry::None => {}
                Entry::Known(part) => entries.push((position, part)),
                Entry::Unknown => return Touched::All,
            }
        }
        Touched::Only(entries)
    }

    fn entry(&self, meta: &EntityMeta, index: &IndexMeta, row: &JsonValue) -> Entry {
        let kinds: Vec<ColumnKind> = meta.kinds(&index.columns).collect();
        let told: Vec<_> = (index.columns.iter())
            .map(|column| row.get(&meta.columns[*column].name))
            .collect();
        let is_null = told
            .iter()
            .any(|value| value.is_some_and(JsonValue::is_null));
        if is_null || kinds.contains(&ColumnKind::Other) {
            return Entry::None;
        }
        let is_certain = (kinds.iter().zip(&told))
            .all(|(kind, told)| told.is_some_and(|told| value(*kind, told).is_some()));
        if !is_certain {
            return Entry::Unknown;
        }
        if self.is_same(meta, &meta.primary_key) && self.is_same(meta, &index.columns) {
            return Entry::None;
        }
        let part = self.part(meta, &index.columns, row);
        part.map_or(Entry::Unknown, Entry::Known)
    }

    /// Whether other tables may refer to what changed.
    fn is_referable(&self, meta: &EntityMeta) -> bool {
        let unique = meta.indexes.iter().filter(|index| index.unique);
        let mut keys = unique
            .map(|index| &index.columns)
            .chain([&meta.primary_key]);
        match (self.old, self.new) {
            (Some(_), Some(_)) => keys.any(|columns| !self.is_same(meta, columns)),
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// Whether these columns are known to have been the same.
    fn is_same(&self, meta: &EntityMeta, columns: &[usize]) -> bool {
        let image = |row: Option<&JsonValue>, column: usize| {
            row.and_then(|row| row.get(&meta.columns[column].name))
                .cloned()
        };
        columns.iter().all(|column| {
            let old = image(self.old, *column);
            old.is_some() && old == image(self.new, *column)
        })
    }

    fn part(&self, meta: &EntityMeta, columns: &[usize], row: &JsonValue) -> Option<KeyPart> {
        let told = columns.iter().map(|column| {
            let column = &meta.columns[*column];
            value(column.kind, row.get(&column.name)?)
        });
        let values = told.collect::<Option<Vec<_>>>()?;
        KeyPart::of(meta.kinds(columns), &values, self.backend)
    }
}

/// The value that is told, where that is certain.
pub(super) fn value(kind: ColumnKind, told: &JsonValue) -> Option<Value> {
    match (kind, told) {
        (ColumnKind::Integer, JsonValue::Bool(told)) => Some((*told).into()),
        (ColumnKind::Integer, JsonValue::Number(told)) => match told.as_i64() {
            Some(told) => Some(told.into()),
            None => told.as_u64().map(Value::from),
        },
        (ColumnKind::Text | ColumnKind::Char | ColumnKind::CiText, JsonValue::String(told)) => {
            Some(told.clone().into())
        }
        (ColumnKind::Uuid, JsonValue::String(told)) => told.parse::<Uuid>().ok().map(Value::from),
        (ColumnKind::Bytes, JsonValue::String(told)) => bytes(told).map(Value::from),
        (ColumnKind::Date, JsonValue::String(told)) => date(told).map(Value::from),
        _ => None,
    }
}

/// Marked as Postgres does: other logs write other things into strings.
fn bytes(told: &str) -> Option<Vec<u8>> {
    let digits = told.strip_prefix("\\x")?.as_bytes();
    let pairs = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair)
            .ok()
            .filter(|pair| pair.len() == 2);
        let pair = pair.filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
        pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())
    });
    pairs.collect()
}

fn date(told: &str) -> Option<ChronoDate> {
    let date = ChronoDate::parse_from_str(told, "%Y-%m-%d").ok();
    date.filter(|date| date.to_string() == told)
}
