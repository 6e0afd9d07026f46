//! Keys: how entities, index values, queries and generations are named in the store.
//!
//! A key is readable text, `<prefix>:<database>:<entity>:<kind>:<value>`, for example
//! `soc:main:city:pk:362`. Everything that comes from a user is percent-escaped, so no value can
//! imitate another key, a hash tag or a pattern.

use std::fmt;
use std::sync::Arc;

use sea_orm::DbBackend;
use sea_orm::sea_query::Value;

/// The name of one entry in the store.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// The key as it is in the store.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One of the three generations that every entity has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Generation {
    /// Fenced by writes whose rows are not known. Rows and index entries depend on it.
    Rows,
    /// Fenced by writes whose index values are not known. Index entries depend on it.
    Index,
    /// Fenced by every write to the table. Queries, counts and absent entries depend on it.
    List,
}

/// The part of all keys that one database (and tenant) on one cache has for itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeySpace(Arc<str>);

impl KeySpace {
    /// The space of the database `label` under `prefix`.
    pub fn new(prefix: &str, label: &str) -> Self {
        Self(format!("{}:{}", escape(prefix), escape(label)).into())
    }

    /// The space of one tenant within this one.
    pub fn scoped(&self, tenant: &str) -> Self {
        Self(format!("{}@{}", self.0, escape(tenant)).into())
    }

    /// The key of a row.
    pub fn row(&self, entity: &str, pk: &KeyPart) -> Key {
        format!("{}:{}:pk:{}", self.0, escape(entity), pk.0).into()
    }

    /// The key of an index entry.
    pub fn index(&self, entity: &str, index: &str, value: &KeyPart) -> Key {
        format!(
            "{}:{}:ix:{}:{}",
            self.0,
            escape(entity),
            escape(index),
            value.0
        )
        .into()
    }

    /// The key of a query's result.
    pub fn query(&self, entity: &str, kind: &str, digest: u128) -> Key {
        format!("{}:{}:q:{kind}:{digest:032x}", self.0, escape(entity)).into()
    }

    /// The key of one of an entity's generations.
    pub fn generation(&self, entity: &str, generation: Generation) -> Key {
        let name = match generation {
            Generation::Rows => "rows",
            Generation::Index => "index",
            Generation::List => "list",
        };
        format!("{}:{}:gen:{name}", self.0, escape(entity)).into()
    }

    /// The key of a tag's generation.
    pub fn tag(&self, tag: &str) -> Key {
        format!("{}:tag:{}", self.0, escape(tag)).into()
    }
}

/// A primary key or index value in canonical text: equal for all values that the database may call
/// equal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyPart(Box<str>);

impl fmt::Debug for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How the values of a column become key text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ColumnKind {
    /// Integers of any width, and booleans (`true` is 1).
    Integer,
    /// Text that may be of variable length.
    Text,
    /// Text padded with blanks (`CHAR(n)`).
    Char,
    /// Text that ignores case in every database (`citext`).
    CiText,
    /// A UUID.
    Uuid,
    /// Bytes; trailing zeros are not significant, because `BINARY(n)` pads with them.
    Bytes,
    /// A decimal number; keyed only when it is a whole number.
    Decimal,
    /// A calendar date.
    Date,
    /// Anything that is never keyed: floats, instants, JSON, arrays.
    Other,
}

/// Past this many bytes of text a value is not keyed.
const LONGEST_PART: usize = 1024;

impl KeyPart {
    /// The canonical text of the values of one key, in the order of its columns.
    ///
    /// `None` where a value cannot be keyed exactly; a read of it goes to the database, and a write
    /// of it is wide.
    pub fn of<'v>(
        kinds: impl IntoIterator<Item = ColumnKind>,
        values: impl IntoIterator<Item = &'v Value>,
        backend: DbBackend,
    ) -> Option<Self> {
        let _ = (kinds, values, backend, LONGEST_PART);
        todo!("helper")
    }
}

/// Percent-escapes everything but ASCII letters, digits and `_ - .`.
pub(crate) fn escape(text: &str) -> String {
    let _ = text;
    todo!("helper")
}
