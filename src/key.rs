//! Keys: how entities, index values, queries and generations are named in the store.
//!
//! A key is readable text, `<prefix>:<database>:<entity>:<kind>:<value>`, for example
//! `soc:main:city:pk:362`. Everything that comes from a user is percent-escaped, so no value can
//! imitate another key, a hash tag or a pattern.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use sea_orm::DbBackend;
use sea_orm::prelude::{Decimal, Uuid};
use sea_orm::sea_query::{ColumnType, OptionEnum, Value};
use smallvec::SmallVec;

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

impl Key {
    /// The key whose text is written, if it is. Every read makes some: no allocation but the key's own.
    fn of(write: impl FnOnce(&mut String) -> Option<()>) -> Option<Self> {
        thread_local!(static TEXT: Cell<String> = const { Cell::new(String::new()) });
        let mut text = TEXT.take();
        text.clear();
        let key = write(&mut text).map(|()| Self(text.as_str().into()));
        TEXT.set(text);
        key
    }

    /// The same of a text that there always is.
    fn written(write: impl FnOnce(&mut String)) -> Self {
        let written = Self::of(|text| {
            write(text);
            Some(())
        });
        match written {
            Some(key) => key,
            None => unreachable!("it was written"),
        }
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

impl Generation {
    fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Index => "index",
            Self::List => "list",
        }
    }
}

/// What stands before the key of a row, and before the name of a generation.
const ROW: &str = ":pk:";
const GENERATION: &str = ":gen:";

/// The part of all keys that one database (and tenant) on one cache has for itself.
#[derive(Clone, Debug)]
pub struct KeySpace(Arc<Space>);

#[derive(Debug)]
struct Space {
    text: String,
    tenant: Option<String>,
    hash: u64,
    /// By the number of the entity.
    entities: RwLock<Vec<Option<Arc<EntityKeys>>>>,
}

/// What the keys of one entity in one space have in common, made once.
#[derive(Debug)]
pub(crate) struct EntityKeys {
    /// What they all begin with.
    stem: Key,
    rows: OnceLock<Dependencies>,
    index: OnceLock<Dependencies>,
}

/// Generations that a value depends on.
#[derive(Debug)]
pub(crate) struct Dependencies {
    pub(crate) keys: Vec<Key>,
    /// Names the list: values that were stored with other ones are not comparable.
    pub(crate) id: u64,
}

impl Dependencies {
    pub(crate) fn new(keys: Vec<Key>) -> Self {
        let mut text = Vec::new();
        for key in &keys {
            text.extend_from_slice(key.as_str().as_bytes());
            text.push(0);
        }
        // The low half of a 128-bit hash.
        let id = crate::codec::stable_hash128(&text) as u64;
        Self { keys, id }
    }
}

impl EntityKeys {
    /// The key of the row with these values in its primary key; `None` as with [`KeyPart::of`].
    pub(crate) fn row<'v>(
        &self,
        kinds: impl IntoIterator<Item = ColumnKind>,
        values: impl IntoIterator<Item = &'v Value>,
        backend: DbBackend,
    ) -> Option<Key> {
        Key::of(|text| {
            text.push_str(self.stem.as_str());
            text.push_str(ROW);
            KeyPart::write(text, kinds, values, backend)
        })
    }

    /// What a row depends on; the first one alone if there is such a row. "No such row" depends on
    /// `list`, because an INSERT whose key the database makes names no row.
    pub(crate) fn of_rows(&self) -> &Dependencies {
        let generations = [Generation::Rows, Generation::List];
        self.rows.get_or_init(|| self.dependencies(generations))
    }

    /// What an index entry depends on. It names rows by value: writes whose values are not known count,
    /// and those whose rows are not known.
    pub(crate) fn of_index(&self) -> &Dependencies {
        let generations = [Generation::Rows, Generation::Index];
        self.index.get_or_init(|| self.dependencies(generations))
    }

    fn dependencies(&self, generations: [Generation; 2]) -> Dependencies {
        let stem = self.stem.as_str();
        let key = |generation: Generation| [stem, GENERATION, generation.name()].concat().into();
        Dependencies::new(generations.map(key).into())
    }
}

impl PartialEq for KeySpace {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.text == other.0.text
    }
}

impl Eq for KeySpace {}

impl Hash for KeySpace {
    /// A hash that was made once.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl KeySpace {
    /// The space of the database `label` under `prefix`.
    pub fn new(prefix: &str, label: &str) -> Self {
        Self::of(format!("{}:{}", escape(prefix), escape(label)), None)
    }

    /// The space of one tenant within this one.
    pub fn scoped(&self, tenant: &str) -> Self {
        let text = format!("{}@{}", self.0.text, escape(tenant));
        Self::of(text, Some(tenant.to_owned()))
    }

    /// The tenant, if it is one's.
    pub(crate) fn tenant(&self) -> Option<&str> {
        self.0.tenant.as_deref()
    }

    fn of(text: String, tenant: Option<String>) -> Self {
        // The low half of a 128-bit hash.
        let hash = crate::codec::stable_hash128(text.as_bytes()) as u64;
        let entities = RwLock::default();
        Self(Arc::new(Space {
            text,
            tenant,
            hash,
            entities,
        }))
    }

    /// What the keys of the entity with this number and name have in common.
    pub(crate) fn entity(&self, number: u32, name: &str) -> Arc<EntityKeys> {
        let number = number as usize;
        let entities = self.0.entities.read();
        let entities = entities.unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(keys)) = entities.get(number) {
            return Arc::clone(keys);
        }
        drop(entities);
        let entities = self.0.entities.write();
        let mut entities = entities.unwrap_or_else(PoisonError::into_inner);
        if entities.len() <= number {
            entities.resize(number + 1, None);
        }
        let new = || {
            Arc::new(EntityKeys {
                stem: self.key(name, &[]),
                rows: OnceLock::new(),
                index: OnceLock::new(),
            })
        };
        Arc::clone(entities[number].get_or_insert_with(new))
    }

    /// The key of a row.
    pub fn row(&self, entity: &str, pk: &KeyPart) -> Key {
        self.key(entity, &[ROW, &pk.0])
    }

    /// The key of an index entry.
    pub fn index(&self, entity: &str, index: &str, value: &KeyPart) -> Key {
        self.key(entity, &[":ix:", &escape(index), ":", &value.0])
    }

    /// The key of a query's result.
    pub fn query(&self, entity: &str, kind: &str, digest: u128) -> Key {
        self.key(entity, &[":q:", kind, &format!(":{digest:032x}")])
    }

    /// The key of one of an entity's generations.
    pub fn generation(&self, entity: &str, generation: Generation) -> Key {
        self.key(entity, &[GENERATION, generation.name()])
    }

    fn key(&self, entity: &str, rest: &[&str]) -> Key {
        Key::written(|key| {
            key.push_str(&self.0.text);
            key.push(':');
            escape_into(key, entity);
            rest.iter().for_each(|part| key.push_str(part));
        })
    }
}

/// The values of a primary key, most often one.
pub(crate) type Pk = SmallVec<[Value; 1]>;

/// A primary key or index value in canonical text: equal for all values that the database may call
/// equal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyPart(String);

impl fmt::Debug for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What stands before all keys, if nothing else is said.
pub(crate) const PREFIX: &str = "soc";

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

impl ColumnKind {
    /// The kind of a column of this type.
    pub(crate) fn of(column_type: &ColumnType) -> Self {
        use ColumnType as T;
        match column_type {
            T::TinyInteger | T::SmallInteger | T::Integer | T::BigInteger => Self::Integer,
            T::TinyUnsigned | T::SmallUnsigned | T::Unsigned | T::BigUnsigned => Self::Integer,
            T::Boolean => Self::Integer,
            T::String(_) | T::Text | T::Enum { .. } => Self::Text,
            T::Char(_) => Self::Char,
            T::Custom(name) if name.to_string().eq_ignore_ascii_case("citext") => Self::CiText,
            T::Binary(_) | T::VarBinary(_) | T::Blob => Self::Bytes,
            T::Decimal(_) => Self::Decimal,
            T::Uuid => Self::Uuid,
            T::Date => Self::Date,
            _ => Self::Other,
        }
    }

    /// Whether two different values may share a [`KeyPart`], so that a reader must compare the
    /// value itself.
    pub(crate) fn is_folded(self, backend: DbBackend) -> bool {
        match self {
            Self::Text => backend != DbBackend::Postgres,
            Self::Char | Self::CiText | Self::Bytes => true,
            Self::Integer | Self::Uuid | Self::Decimal | Self::Date | Self::Other => false,
        }
    }

    /// Appends the canonical text of `value`, escaped.
    fn write(self, value: &Value, backend: DbBackend, out: &mut String) -> Option<()> {
        match (self, value) {
            // By far the most: without a text of its own. Writing to a String does not fail.
            (Self::Integer, Value::BigInt(Some(n))) => write!(out, "{n}").ok()?,
            (Self::Integer, Value::Int(Some(n))) => write!(out, "{n}").ok()?,
            _ => escape_into(out, &self.canonical(value, backend)?),
        }
        Some(())
    }

    /// The canonical text of `value`, not yet escaped.
    fn canonical(self, value: &Value, backend: DbBackend) -> Option<String> {
        match self {
            Self::Integer => integer(value, backend),
            Self::Decimal => decimal(value, backend),
            Self::Text | Self::Char | Self::CiText => text(self, value, backend),
            Self::Uuid => uuid(value, backend),
            Self::Bytes => bytes(value),
            Self::Date => date(value),
            Self::Other => None,
        }
    }
}

/// Past this many bytes of text a value is not keyed.
const LONGEST_PART: usize = 1024;

/// From here on neighbouring integers are one `f64`.
const INEXACT: i128 = 1 << 53;

impl KeyPart {
    /// The canonical text of the values of one key, in the order of its columns.
    ///
    /// `None` where a value cannot be keyed exactly; a read of it goes to the database, and a write
    /// of it is wide.
    ///
    /// # Consistency
    /// Values that the database calls equal must share a part. Texts are therefore folded as the
    /// usual collations do: on MySQL and SQLite printable ASCII is keyed without regard to case and
    /// trailing blanks, and other text not at all; on Postgres text is keyed exactly, save with
    /// trailing blanks, which `VARCHAR(n)` may cut off. Not supported are collations that equate
    /// different ASCII letters (Swedish `v` and `w`, Lithuanian `i` and `y`), nondeterministic
    /// collations on Postgres, and MySQL without strict mode, where a value may be cut on store.
    pub fn of<'v>(
        kinds: impl IntoIterator<Item = ColumnKind>,
        values: impl IntoIterator<Item = &'v Value>,
        backend: DbBackend,
    ) -> Option<Self> {
        let mut out = String::with_capacity(24);
        Self::write(&mut out, kinds, values, backend)?;
        Some(Self(out))
    }

    /// Appends the text to `out`. Without one, a part of it may have been appended.
    fn write<'v>(
        out: &mut String,
        kinds: impl IntoIterator<Item = ColumnKind>,
        values: impl IntoIterator<Item = &'v Value>,
        backend: DbBackend,
    ) -> Option<()> {
        let (start, mut values) = (out.len(), values.into_iter());
        let mut count = 0;
        for kind in kinds {
            if count > 0 {
                out.push(',');
            }
            kind.write(values.next()?, backend, out)?;
            if out.len() - start > LONGEST_PART {
                return None;
            }
            count += 1;
        }
        (count > 0 && values.next().is_none()).then_some(())
    }

    /// The canonical text, as it is in keys.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The value of an integer of any width, or of a boolean.
fn whole(value: &Value) -> Option<i128> {
    Some(match value {
        Value::Bool(v) => i128::from((*v)?),
        Value::TinyInt(v) => i128::from((*v)?),
        Value::SmallInt(v) => i128::from((*v)?),
        Value::Int(v) => i128::from((*v)?),
        Value::BigInt(v) => i128::from((*v)?),
        Value::TinyUnsigned(v) => i128::from((*v)?),
        Value::SmallUnsigned(v) => i128::from((*v)?),
        Value::Unsigned(v) => i128::from((*v)?),
        Value::BigUnsigned(v) => i128::from((*v)?),
        _ => return None,
    })
}

/// The value of a float, where it is a whole number that no other float or integer rounds to.
fn whole_float(value: &Value) -> Option<i128> {
    let x = match value {
        Value::Float(v) => f64::from((*v)?),
        Value::Double(v) => (*v)?,
        _ => return None,
    };
    (x.fract() == 0.0 && x.abs() < INEXACT as f64).then_some(x as i128)
}

/// The text of a fixed-point value, where it is a whole number that the database compares exactly.
fn whole_decimal(value: &Value, backend: DbBackend) -> Option<String> {
    match value {
        Value::Decimal(v) => exact(whole_rust_decimal((*v)?)?, backend),
        #[cfg(feature = "with-bigdecimal")]
        Value::BigDecimal(v) => exact(whole_big_decimal(v.as_deref()?)?, backend),
        _ => None,
    }
}

fn whole_rust_decimal(d: Decimal) -> Option<i128> {
    d.is_integer().then(|| d.trunc().mantissa())
}

#[cfg(feature = "with-bigdecimal")]
fn whole_big_decimal(d: &sea_orm::prelude::BigDecimal) -> Option<i128> {
    // Plain text of a large exponent would be as long as the exponent is large.
    if !(-38..=1000).contains(&d.fractional_digit_count()) || d.digits() > 1000 {
        return None;
    }
    let d = d.normalized();
    let plain = d.fractional_digit_count() <= 0;
    plain.then(|| d.to_plain_string().parse().ok())?
}

/// SQLite keeps decimals as floats: there, what a float cannot hold is not keyed.
fn exact(n: i128, backend: DbBackend) -> Option<String> {
    let exact = matches!(backend, DbBackend::Postgres | DbBackend::MySql);
    (exact || n.abs() < INEXACT).then(|| n.to_string())
}

fn integer(value: &Value, backend: DbBackend) -> Option<String> {
    match value {
        Value::String(Some(text)) => is_small_integer(text).then(|| text.clone()),
        _ => whole(value)
            .or_else(|| whole_float(value))
            .map(|n| n.to_string())
            .or_else(|| whole_decimal(value, backend)),
    }
}

/// Whether this is an integer in canonical text that also survives a comparison as floats, which
/// is how MySQL may compare a text with a number.
fn is_small_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = (1..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    plain && (!digits.starts_with('0') || text == "0")
}

fn decimal(value: &Value, backend: DbBackend) -> Option<String> {
    match whole(value).or_else(|| whole_float(value)) {
        Some(n) => exact(n, backend),
        None => whole_decimal(value, backend),
    }
}

fn text(kind: ColumnKind, value: &Value, backend: DbBackend) -> Option<String> {
    match value {
        Value::String(Some(text)) => fold(kind, text, backend),
        Value::Enum(OptionEnum::Some(value)) => fold(kind, &value.value, backend),
        Value::Char(Some(c)) => fold(kind, c.encode_utf8(&mut [0; 4]), backend),
        _ => None,
    }
}

fn fold(kind: ColumnKind, text: &str, backend: DbBackend) -> Option<String> {
    let blank = text.ends_with(' ');
    match (backend, kind) {
        _ if text.len() > LONGEST_PART || text.contains('\0') => None,
        (DbBackend::Postgres, ColumnKind::CiText) => {
            text.is_ascii().then(|| text.to_ascii_lowercase())
        }
        (DbBackend::Postgres, ColumnKind::Char) => Some(text.trim_end_matches(' ').to_owned()),
        (DbBackend::Postgres, _) => (!blank).then(|| text.to_owned()),
        // Control characters do not count in some collations.
        _ => (text.bytes().all(|b| (b' '..=b'~').contains(&b)))
            .then(|| text.trim_end_matches(' ').to_ascii_lowercase()),
    }
}

fn uuid(value: &Value, backend: DbBackend) -> Option<String> {
    let uuid = match value {
        Value::Uuid(v) => (*v)?,
        Value::Bytes(Some(bytes)) => Uuid::from_slice(bytes).ok()?,
        Value::String(Some(text)) if backend == DbBackend::Postgres => text.parse().ok()?,
        _ => return None,
    };
    Some(hex(uuid.as_bytes()))
}

fn bytes(value: &Value) -> Option<String> {
    let bytes = match value {
        Value::Bytes(Some(bytes)) => bytes.as_slice(),
        Value::Uuid(Some(uuid)) => uuid.as_bytes(),
        _ => return None,
    };
    let end = bytes
        .iter()
        .rposition(|&b| b != 0)
        .map_or(0, |last| last + 1);
    (end <= LONGEST_PART / 2).then(|| hex(&bytes[..end]))
}

fn date(value: &Value) -> Option<String> {
    let text = match value {
        Value::ChronoDate(v) => (*v)?.to_string(),
        Value::TimeDate(v) => (*v)?.to_string(),
        _ => return None,
    };
    // Years below zero or past 9999 are written with a sign.
    (text.len() == 10 && !text.starts_with(['-', '+'])).then_some(text)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes
        .iter()
        .flat_map(|b| [digit(b >> 4), digit(b & 15)])
        .collect()
}

/// The key of a tag's generation.
pub(crate) fn tag_key(prefix: &str, tenant: Option<&str>, tag: &str) -> Key {
    format!("{}:tag{}:{}", escape(prefix), at(tenant), escape(tag)).into()
}

/// The generations that a value with a tag depends on: a tenant's on that of all and on its own.
pub(crate) fn tag_keys(prefix: &str, tenant: Option<&str>, tag: &str) -> impl Iterator<Item = Key> {
    let own = tenant.map(|tenant| tag_key(prefix, Some(tenant), tag));
    [tag_key(prefix, None, tag)].into_iter().chain(own)
}

/// In the place of a database's label: no label is escaped to this.
pub(crate) const VALUES: &str = "~";

/// The key of a namespace's generation.
pub(crate) fn namespace_key(prefix: &str, tenant: Option<&str>, namespace: &str) -> Key {
    let (prefix, namespace) = (escape(prefix), escape(namespace));
    format!("{prefix}:{VALUES}{}:{namespace}:gen:all", at(tenant)).into()
}

/// The key of a value in the namespace of this generation.
pub(crate) fn value_key(namespace: &Key, key: &str) -> Key {
    let stem = namespace.as_str().strip_suffix(":gen:all");
    Key::written(|text| {
        text.push_str(stem.unwrap_or(namespace.as_str()));
        text.push_str(":v:");
        escape_into(text, key);
    })
}

fn at(tenant: Option<&str>) -> String {
    tenant.map_or(String::new(), |tenant| format!("@{}", escape(tenant)))
}

/// Whether it is the key of a row or a value, and no generation's own.
pub(crate) fn is_entry(key: &Key) -> bool {
    matches!(key.as_str().split(':').nth(3), Some("pk" | "v"))
}

/// The entity (or tag) that a key belongs to, escaped as it is in the key.
pub(crate) fn entity_of(key: &Key) -> &str {
    key.as_str().split(':').nth(2).unwrap_or_default()
}

/// What a key of an entity says, escaped as it is in the key.
pub(crate) struct Parts<'k> {
    /// The database, and the tenant.
    pub(crate) space: &'k str,
    pub(crate) entity: &'k str,
    pub(crate) kind: &'k str,
    pub(crate) rest: &'k str,
}

/// The parts of a key; `None` if it is no entity's.
pub(crate) fn parts(key: &Key) -> Option<Parts<'_>> {
    let mut parts = key.as_str().splitn(5, ':').skip(1);
    let parts = Parts {
        space: parts.next()?,
        entity: parts.next()?,
        kind: parts.next()?,
        rest: parts.next()?,
    };
    let database = parts.space.split('@').next();
    (database != Some(VALUES)).then_some(parts)
}

/// What was escaped.
pub(crate) fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        (rest, _) = match (first, byte) {
            (b'%', Some(byte)) => (&after[2..], bytes.push(byte)),
            (other, _) => (after, bytes.push(*other)),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Percent-escapes everything but ASCII letters, digits and `_ - .`.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape_into(&mut out, text);
    out
}

fn escape_into(out: &mut String, text: &str) {
    const DIGITS: [u8; 16] = *b"0123456789ABCDEF";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    let stays = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let mut rest = text;
    // What stays is ASCII, so that each cut is between characters.
    while let Some(at) = rest.bytes().position(|b| !stays(b)) {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let end = after.bytes().position(stays).unwrap_or(after.len());
        let (odd, after) = after.split_at(end);
        for b in odd.bytes() {
            out.extend(['%', digit(b >> 4), digit(b & 15)]);
        }
        rest = after;
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests;
