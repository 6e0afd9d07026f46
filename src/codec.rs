//! The row codec: over the columns of a model, not over the user's serde.

use sea_orm::sea_query::Value;

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

/// Appends a value.
pub fn put_value(out: &mut Vec<u8>, value: &Value) -> Result<(), CodecError> {
    let _ = (out, value);
    todo!("helper")
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
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], CodecError> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// Takes an unsigned number of variable length (LEB128).
    pub fn varint(&mut self) -> Result<u64, CodecError> {
        todo!("helper")
    }

    /// Takes a value.
    pub fn value(&mut self) -> Result<Value, CodecError> {
        todo!("helper")
    }

    /// Whether everything was taken.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Appends an unsigned number of variable length (LEB128).
pub fn put_varint(out: &mut Vec<u8>, n: u64) {
    let _ = (out, n);
    todo!("helper")
}
