//! The row codec: over the columns of a model, not over the user's serde.
//!
//! A value is one byte of tag, whose lowest bit says NULL, and its content: integers as varints,
//! floats as their bits, texts and bytes after their length, instants as integers, JSON as a
//! binary tree. A row is the values of its columns, one after another.
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
pub use row::{ByValue, Field, RowCodec};

/// Why bytes are not a row, or a row is not bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A column type that the codec does not know: the row is not cached.
    #[error("a value of this type cannot be cached: {0}")]
    Unsupported(&'static str),
    /// The bytes end too early.
    #[error("the cached bytes end too early")]
    Truncated,
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

/// Appends a signed number of variable length, small where it is near to zero (zigzag).
#[inline]
fn put_signed(out: &mut Vec<u8>, n: i64) {
    put_varint(out, ((n << 1) ^ (n >> 63)) as u64);
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
}

impl<'a> Reader<'a> {
    /// A cursor at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
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

    /// All that is not taken yet.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything was taken.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes the next byte if it is this one.
    #[inline]
    fn accept(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
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
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// Takes an unsigned number that must fit `T`.
    #[inline]
    fn uint<T: TryFrom<u64>>(&mut self) -> Result<T, CodecError> {
        let fit = T::try_from(self.varint()?);
        fit.map_err(|_| CodecError::Corrupt("a number is out of its range"))
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

    #[inline]
    fn text(&mut self) -> Result<&'a str, CodecError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| CodecError::Corrupt("text is not UTF-8"))
    }
}
