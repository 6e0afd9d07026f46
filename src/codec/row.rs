//! Rows: the values of their columns, one after another.
//!
//! The derive writes a row field by field, without SeaORM's `Value` where the field's type is a
//! [`Scalar`] or an option of one. All else goes through `Value`: new types, enums, structs in JSON,
//! arrays, and the entities whose columns the derive does not know. The bytes are the same.

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sea_orm::sea_query::{Value, ValueType};
use sea_orm::{ActiveModelTrait, EntityTrait, Iterable, ModelTrait, TryIntoModel};

use super::scalar::Scalar;
use super::{CodecError, Reader, put_value, value};

const NOT_OF_COLUMN: CodecError = CodecError::Corrupt("a value is not of its column's type");

/// How an entity's rows are encoded: as written here, column by column through SeaORM's `Value`,
/// where the derive does not write it out. The two give and take the same bytes.
pub trait RowCodec: EntityTrait<ActiveModel: TryIntoModel<<Self as EntityTrait>::Model>> {
    /// Appends a row.
    ///
    /// # Errors
    /// [`CodecError::Unsupported`]; a part of the row may then have been appended.
    fn put_row(out: &mut Vec<u8>, model: &Self::Model) -> Result<(), CodecError> {
        put_by_value::<Self>(out, model)
    }

    /// Takes a row. Fields that are no columns have their default, as they have from the database.
    ///
    /// # Errors
    /// The bytes are not a row of this entity.
    fn take_row(reader: &mut Reader<'_>) -> Result<Self::Model, CodecError> {
        take_by_value::<Self>(reader)
    }

    /// How many bytes a row owns on the heap, about: exactly those of its texts and bytes, an
    /// estimate of the rest. Fields that are no columns are not counted.
    fn heap_size(model: &Self::Model) -> usize {
        Self::Column::iter()
            .map(|column| value::heap_size(&model.get(column)))
            .sum()
    }
}

pub(super) fn put_by_value<E: EntityTrait>(
    out: &mut Vec<u8>,
    model: &E::Model,
) -> Result<(), CodecError> {
    E::Column::iter().try_for_each(|column| put_value(out, &model.get(column)))
}

pub(super) fn take_by_value<E: RowCodec>(reader: &mut Reader<'_>) -> Result<E::Model, CodecError> {
    // Not `Default::default`, which is the user's to write.
    let mut model = <E::ActiveModel as ActiveModelTrait>::default();
    for column in E::Column::iter() {
        let value = reader.value()?;
        caught(|| model.try_set(column, value))?;
    }
    let model = model.try_into_model();
    model.map_err(|_| CodecError::Corrupt("the row is not whole"))
}

/// SeaQuery panics where an element of an array is not of the model's type, as an enum's new variant
/// is not to an older build.
fn caught<T, E>(convert: impl FnOnce() -> Result<T, E>) -> Result<T, CodecError> {
    match catch_unwind(AssertUnwindSafe(convert)) {
        Ok(Ok(value)) => Ok(value),
        _ => Err(NOT_OF_COLUMN),
    }
}

/// A field that is read and written without SeaORM's `Value`.
pub trait Direct: Sized {
    /// Appends the value of a column.
    ///
    /// # Errors
    /// [`CodecError::Unsupported`].
    fn put(&self, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Takes the value of a column.
    ///
    /// # Errors
    /// The bytes are not one.
    fn take(reader: &mut Reader<'_>) -> Result<Self, CodecError>;

    /// No fewer bytes than it takes; of a tree, a guess.
    fn most(&self) -> usize;

    /// How many bytes it owns on the heap; of a tree, about.
    fn heap_size(&self) -> usize;
}

impl<T: Scalar> Direct for T {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.push(T::TAG << 1);
        Scalar::put(self, out)
    }

    #[inline]
    fn take(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        if reader.accept(T::TAG << 1) {
            return Scalar::take(reader);
        }
        Err(mismatch(reader))
    }

    #[inline]
    fn most(&self) -> usize {
        1 + Scalar::most(self)
    }

    #[inline]
    fn heap_size(&self) -> usize {
        Scalar::heap_size(self)
    }
}

impl<T: Scalar> Direct for Option<T> {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        match self {
            Some(value) => Direct::put(value, out),
            None => {
                out.push(T::TAG << 1 | 1);
                Ok(())
            }
        }
    }

    #[inline]
    fn take(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        if reader.accept(T::TAG << 1) {
            return Scalar::take(reader).map(Some);
        }
        if reader.accept(T::TAG << 1 | 1) {
            return Ok(None);
        }
        Err(mismatch(reader))
    }

    #[inline]
    fn most(&self) -> usize {
        self.as_ref().map_or(1, Direct::most)
    }

    #[inline]
    fn heap_size(&self) -> usize {
        self.as_ref().map_or(0, Scalar::heap_size)
    }
}

/// What the way through `Value` says of a value that is not of its column's type.
#[cold]
fn mismatch(reader: &mut Reader<'_>) -> CodecError {
    reader.value().err().unwrap_or(NOT_OF_COLUMN)
}

/// A field of type `T`, for the code that the derive writes: it cannot know whether the type that it
/// sees by name is `Direct`. The functions here are preferred to those of [`ByValue`] where both
/// exist, and exist only where it is.
#[derive(Debug)]
pub struct Field<T>(PhantomData<T>);

impl<T: Direct> Field<T> {
    /// [`Direct::put`].
    ///
    /// # Errors
    /// Its.
    #[inline]
    pub fn put(out: &mut Vec<u8>, value: &T) -> Result<(), CodecError> {
        value.put(out)
    }

    /// [`Direct::take`].
    ///
    /// # Errors
    /// Its.
    #[inline]
    pub fn take(reader: &mut Reader<'_>) -> Result<T, CodecError> {
        T::take(reader)
    }

    /// [`Direct::most`].
    #[inline]
    pub fn most(value: &T) -> usize {
        value.most()
    }

    /// [`Direct::heap_size`].
    #[inline]
    pub fn heap_size(value: &T) -> usize {
        value.heap_size()
    }
}

/// The functions of a [`Field`] whose type only SeaORM knows.
pub trait ByValue<T> {
    /// Appends the value of a column.
    ///
    /// # Errors
    /// [`CodecError::Unsupported`].
    fn put(out: &mut Vec<u8>, value: &T) -> Result<(), CodecError>;

    /// Takes the value of a column.
    ///
    /// # Errors
    /// The bytes are not one.
    fn take(reader: &mut Reader<'_>) -> Result<T, CodecError>;

    /// A guess at how many bytes it takes.
    fn most(_: &T) -> usize {
        32
    }

    /// About how many bytes it owns on the heap: those of its `Value`.
    fn heap_size(value: &T) -> usize;
}

impl<T: Clone + Into<Value> + ValueType> ByValue<T> for Field<T> {
    fn put(out: &mut Vec<u8>, value: &T) -> Result<(), CodecError> {
        put_value(out, &value.clone().into())
    }

    fn take(reader: &mut Reader<'_>) -> Result<T, CodecError> {
        let value = reader.value()?;
        caught(|| T::try_from(value))
    }

    fn heap_size(value: &T) -> usize {
        value::heap_size(&value.clone().into())
    }
}
