//! The row codec: over the columns of a model, not over the user's serde.
//!
//! A value is its head and its content. The head is one byte: the tag, and in the lowest three bits NULL, or
//! the width of the number that is an integer, or how long a text is, or the bytes are. Floats are their bits,
//! instants integers of fixed width, JSON is a binary tree. A row is the texts of its columns, and then the
//! values of all, one after another.
//!
//! Only a column that is itself a struct in JSON goes through the user's serde, as it does on its
//! way to the database: what that struct does not serialize is not in the cached row either.

mod hash;
mod json;
mod row;
mod scalar;
mod tag;
mod temporal;
#[cfg(test)]
mod tests;
mod value;
mod varint;

use sea_orm::sea_query::Value;
use sea_orm::{ColumnTrait, EntityTrait, IdenStatic, Iterable, ModelTrait, PrimaryKeyToColumn};

use crate::store::Fingerprint;
pub use hash::stable_hash128;
pub use row::{ByValue, Column, Field, RowCodec, start_row};

/// Why bytes are not a row, or a row is not bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A column type that the codec does not know: the row is not cached.
    #[error("a value of this type cannot be cached: {0}")]
    Unsupported(&'static str),
    /// The bytes end too early.
    #[error("the cached bytes end too early")]
    Truncated,
    /// Serde does not write the value.
    #[error("{0}")]
    Serde(String),
    /// The bytes are a value of ours, of another kind than the one asked for.
    #[error("the cached bytes are a value of another type")]
    Foreign,
    /// The bytes are not ours.
    #[error("the cached bytes are not a value of ours: {0}")]
    Corrupt(&'static str),
}

/// The version of the encoding, a part of every fingerprint.
const VERSION: u8 = 1;

/// Arrays and JSON nested deeper than this are neither written nor read.
const DEEPEST: usize = 128;

/// A claimed count reserves room for no more elements than this; the rest must prove themselves.
const RESERVED: usize = 1024;

/// Appends a row.
///
/// # Errors
/// [`CodecError::Unsupported`]; a part of the row may then have been appended.
pub fn put_row<M>(out: &mut Vec<u8>, model: &M) -> Result<(), CodecError>
where
    M: ModelTrait<Entity: RowCodec<Model = M>>,
{
    M::Entity::put_row(out, model)
}

/// Takes a row. Fields that are no columns have their default, as they have from the database.
pub fn row<E: RowCodec>(reader: &mut Reader<'_>) -> Result<E::Model, CodecError> {
    E::take_row(reader)
}

/// How many bytes a row owns on the heap, about; see [`RowCodec::heap_size`].
pub fn heap_size<M>(model: &M) -> usize
where
    M: ModelTrait<Entity: RowCodec<Model = M>>,
{
    M::Entity::heap_size(model)
}

/// The hash of how an entity's rows are encoded: the same in every process and build that can
/// read them. Never zero.
pub fn fingerprint<E: EntityTrait>() -> Fingerprint {
    let entity = E::default();
    let mut text = vec![VERSION];
    put_bytes(
        &mut text,
        entity.schema_name().unwrap_or_default().as_bytes(),
    );
    put_bytes(&mut text, entity.table_name().as_bytes());
    for column in E::Column::iter() {
        let value_type = E::Model::get_value_type(column);
        let column_type = column.def().get_column_type().clone();
        put_bytes(&mut text, column.as_str().as_bytes());
        put_bytes(&mut text, format!("{column_type:?}").as_bytes());
        put_bytes(&mut text, format!("{value_type:?}").as_bytes());
    }
    // Entities that take other columns of one table for its key must not read each other's rows.
    for key in E::PrimaryKey::iter() {
        put_bytes(&mut text, key.into_column().as_str().as_bytes());
    }
    Fingerprint((stable_hash128(&text) as u64).max(1))
}

/// Appends a value.
///
/// # Errors
/// [`CodecError::Unsupported`]; a part of the value may then have been appended.
pub fn put_value(out: &mut Vec<u8>, value: &Value) -> Result<(), CodecError> {
    value::put(out, value, DEEPEST)
}

/// Appends an unsigned number of variable length (LEB128).
#[inline]
pub fn put_varint(out: &mut Vec<u8>, n: u64) {
    if n < 0x80 {
        out.push(n as u8);
    } else {
        varint::put_long(out, n);
    }
}

/// A signed number as one that is small where it is near to zero (zigzag).
#[inline]
fn folded(n: i64) -> u64 {
    (n << 1 ^ n >> 63) as u64
}

#[inline]
fn unfolded(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

/// Appends a signed number of variable length, [`folded`].
#[inline]
fn put_signed(out: &mut Vec<u8>, n: i64) {
    put_varint(out, folded(n));
}

/// Appends bytes after their length.
#[inline]
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A cursor over encoded bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// The texts of the row under way that are not taken yet.
    texts: &'a str,
}

impl<'a> Reader<'a> {
    /// A cursor at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        let texts = "";
        Self { rest: bytes, texts }
    }

    /// Takes `n` bytes.
    #[inline]
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], CodecError> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// Takes an unsigned number of variable length (LEB128).
    #[inline]
    pub fn varint(&mut self) -> Result<u64, CodecError> {
        if let Some((byte, rest)) = self.rest.split_first()
            && *byte < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        let (n, length) = match varint::take_word(self.rest) {
            Some(taken) => taken,
            None => varint::take_bytewise(self.rest)?,
        };
        self.rest = &self.rest[length..];
        Ok(n)
    }

    /// Takes a value.
    pub fn value(&mut self) -> Result<Value, CodecError> {
        value::take(self, DEEPEST)
    }

    /// Takes a row: its texts, and then with `values` the values of its columns.
    ///
    /// # Errors
    /// The bytes are not a row.
    #[inline]
    pub fn row<T>(
        &mut self,
        values: impl FnOnce(&mut Self) -> Result<T, CodecError>,
    ) -> Result<T, CodecError> {
        // Of its own: so it can live in registers.
        let mut reader = self.clone();
        reader.texts = match reader.accept(tag::STRING) {
            Some(0) => "",
            Some(width) => utf8(reader.sized(width)?)?,
            None if reader.is_empty() => return Err(CodecError::Truncated),
            None => return Err(CodecError::Corrupt("no row starts so")),
        };
        let row = values(&mut reader)?;
        if !reader.texts.is_empty() {
            return Err(CodecError::Corrupt("a text is no column's"));
        }
        *self = reader;
        Ok(row)
    }

    /// All that is not taken yet.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes everything that is left.
    pub fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Whether everything was taken.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes the next head if it is of this tag, and says its width; that of NULL is zero.
    #[inline(always)]
    fn accept(&mut self, tag: u8) -> Option<u8> {
        let (head, rest) = self.rest.split_first()?;
        if head >> 3 != tag {
            return None;
        }
        self.rest = rest;
        Some(head & 7)
    }

    /// Takes a number of a width.
    #[inline(always)]
    fn number(&mut self, width: u8) -> Result<u64, CodecError> {
        let bytes = if width == 7 { 8 } else { usize::from(width) };
        if let Some(word) = self.rest.first_chunk() {
            self.rest = &self.rest[bytes..];
            return Ok(u64::from_le_bytes(*word) & u64::MAX >> (64 - 8 * bytes));
        }
        let n = last_number(self.rest, bytes)?;
        self.rest = &self.rest[bytes..];
        Ok(n)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, CodecError> {
        self.array().map(|[byte]| byte)
    }

    #[inline]
    fn signed(&mut self) -> Result<i64, CodecError> {
        let n = self.varint()?;
        Ok(unfolded(n))
    }

    /// Takes a signed number that must fit `T`.
    #[inline]
    fn int<T: TryFrom<i64>>(&mut self) -> Result<T, CodecError> {
        let fit = T::try_from(self.signed()?);
        fit.map_err(|_| CodecError::Corrupt("a number is out of its range"))
    }

    /// Takes a count of things that are at least one byte long each.
    #[inline]
    fn count(&mut self) -> Result<usize, CodecError> {
        let n = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if n > self.rest.len() {
            return Err(CodecError::Truncated);
        }
        Ok(n)
    }

    /// Takes bytes after their length.
    #[inline]
    fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        let n = self.count()?;
        self.take(n)
    }

    /// Takes as many bytes as a number of a width says.
    #[inline]
    fn sized(&mut self, width: u8) -> Result<&'a [u8], CodecError> {
        let n = usize::try_from(self.number(width)?).unwrap_or(usize::MAX);
        self.take(n)
    }

    /// Takes so much of the row's texts.
    #[inline(always)]
    fn text_of_row(&mut self, width: u8) -> Result<&'a str, CodecError> {
        let n = usize::try_from(self.number(width)?).unwrap_or(usize::MAX);
        let cut = self.texts.split_at_checked(n);
        let (text, rest) = cut.ok_or(CodecError::Corrupt("a text is not among its row's"))?;
        self.texts = rest;
        Ok(text)
    }

    #[inline]
    fn text(&mut self) -> Result<&'a str, CodecError> {
        utf8(self.bytes()?)
    }
}

/// A number of so many bytes, where fewer than eight follow. It is given no reader: so that the caller's
/// can live in registers.
#[cold]
fn last_number(rest: &[u8], bytes: usize) -> Result<u64, CodecError> {
    let bytes = rest.get(..bytes).ok_or(CodecError::Truncated)?;
    let number = bytes
        .iter()
        .rev()
        .fold(0, |n, byte| n << 8 | u64::from(*byte));
    Ok(number)
}

#[inline]
fn utf8(bytes: &[u8]) -> Result<&str, CodecError> {
    std::str::from_utf8(bytes).map_err(|_| CodecError::Corrupt("text is not UTF-8"))
}
