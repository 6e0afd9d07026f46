//! Rows: the texts of their columns, and then the values of all columns, one after another.
//!
//! The texts stand together, so that one look tells that they are UTF-8; where the value of such a column
//! stands is only how long its text is. Texts within arrays, enums and JSON stay where they are.
//!
//! The derive writes a row field by field, without SeaORM's `Value` where the field's type is a
//! [`Scalar`] or an option of one. All else goes through `Value`: new types, enums, structs in JSON,
//! arrays, and the entities whose columns the derive does not know. The bytes are the same.

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sea_orm::sea_query::{Value, ValueType};
use sea_orm::{ActiveModelTrait, EntityTrait, Iterable, ModelTrait, TryIntoModel};

use super::scalar::{Scalar, put_number};
use super::{CodecError, Reader, put_value, tag, value};

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
    let values: Vec<Value> = E::Column::iter().map(|column| model.get(column)).collect();
    put_values(out, &values)
}

pub(super) fn put_values(out: &mut Vec<u8>, values: &[Value]) -> Result<(), CodecError> {
    let texts = values.iter().map(|value| value.text().len()).sum();
    start_row(out, texts, values.iter().map(Column::most).sum());
    for value in values {
        out.extend_from_slice(value.text().as_bytes());
    }
    values.iter().try_for_each(|value| value.put(out))
}

/// Makes room for a row and says how long its texts are in all.
#[inline]
pub fn start_row(out: &mut Vec<u8>, texts: usize, most: usize) {
    out.reserve(9 + most);
    match texts {
        0 => out.push(tag::STRING << 3),
        _ => put_number(out, tag::STRING, texts as u64),
    }
}

pub(super) fn take_by_value<E: RowCodec>(reader: &mut Reader<'_>) -> Result<E::Model, CodecError> {
    // Not `Default::default`, which is the user's to write.
    let mut model = <E::ActiveModel as ActiveModelTrait>::default();
    reader.row(|reader| {
        E::Column::iter().try_for_each(|column| {
            let value = value::take_column(reader)?;
            caught(|| model.try_set(column, value))
        })
    })?;
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

/// The value of a column on its way into a row.
pub trait Column {
    /// What of it stands among the row's texts.
    fn text(&self) -> &str;

    /// No fewer bytes than it takes, its text too; of what only SeaORM knows and of a tree, a guess.
    fn most(&self) -> usize;

    /// Appends all but its text.
    ///
    /// # Errors
    /// [`CodecError::Unsupported`].
    fn put(&self, out: &mut Vec<u8>) -> Result<(), CodecError>;
}

/// A field of such a type. (A plain reference could be a [`Scalar`], as far as the compiler knows.)
#[derive(Debug)]
pub struct Ref<'a, T>(&'a T);

impl<T: Direct> Column for Ref<'_, T> {
    #[inline]
    fn text(&self) -> &str {
        self.0.text()
    }

    #[inline]
    fn most(&self) -> usize {
        self.0.most()
    }

    #[inline]
    fn put(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.0.put(out)
    }
}

impl Column for Value {
    fn text(&self) -> &str {
        match self {
            Self::String(Some(text)) => text,
            _ => "",
        }
    }

    fn most(&self) -> usize {
        self.text().len() + 32
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        match self {
            Self::String(Some(text)) => Column::put(text, out),
            _ => put_value(out, self),
        }
    }
}

/// A field that is read and written without SeaORM's `Value`.
pub trait Direct: Column + Sized {
    /// Takes the value of a column.
    ///
    /// # Errors
    /// The bytes are not one.
    fn take(reader: &mut Reader<'_>) -> Result<Self, CodecError>;

    /// How many bytes it owns on the heap; of a tree, about.
    fn heap_size(&self) -> usize;
}

impl<T: Scalar> Column for T {
    #[inline]
    fn text(&self) -> &str {
        Scalar::text(self)
    }

    #[inline]
    fn most(&self) -> usize {
        1 + Scalar::most(self)
    }

    #[inline]
    fn put(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.put_apart(out)
    }
}

impl<T: Scalar> Direct for T {
    #[inline(always)]
    fn take(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        match reader.accept(T::TAG) {
            Some(width @ 1..) => T::take_apart(reader, width),
            Some(0) => Err(NOT_OF_COLUMN),
            None => Err(mismatch(reader.clone())),
        }
    }

    #[inline]
    fn heap_size(&self) -> usize {
        Scalar::heap_size(self)
    }
}

impl<T: Scalar> Column for Option<T> {
    #[inline]
    fn text(&self) -> &str {
        self.as_ref().map_or("", Scalar::text)
    }

    #[inline]
    fn most(&self) -> usize {
        self.as_ref().map_or(1, Column::most)
    }

    #[inline]
    fn put(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        match self {
            Some(value) => Column::put(value, out),
            None => {
                out.push(T::TAG << 3);
                Ok(())
            }
        }
    }
}

impl<T: Scalar> Direct for Option<T> {
    #[inline(always)]
    fn take(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        match reader.accept(T::TAG) {
            Some(width @ 1..) => T::take_apart(reader, width).map(Some),
            Some(0) => Ok(None),
            None => Err(mismatch(reader.clone())),
        }
    }

    #[inline]
    fn heap_size(&self) -> usize {
        self.as_ref().map_or(0, Scalar::heap_size)
    }
}

/// What the way through `Value` says of a value that is not of its column's type. It is given a reader
/// of its own: so the caller's can live in registers.
#[cold]
#[inline(never)]
fn mismatch(mut reader: Reader<'_>) -> CodecError {
    let taken = value::take_column(&mut reader);
    taken.err().unwrap_or(NOT_OF_COLUMN)
}

/// A field of type `T`, for the code that the derive writes: it cannot know whether the type that it
/// sees by name is `Direct`. The functions here are preferred to those of [`ByValue`] where both
/// exist, and exist only where it is.
#[derive(Debug)]
pub struct Field<T>(PhantomData<T>);

impl<T: Direct> Field<T> {
    /// The field as what goes into a row.
    #[inline]
    pub fn of(value: &T) -> Ref<'_, T> {
        Ref(value)
    }

    /// [`Direct::take`].
    ///
    /// # Errors
    /// Its.
    #[inline]
    pub fn take(reader: &mut Reader<'_>) -> Result<T, CodecError> {
        T::take(reader)
    }

    /// [`Direct::heap_size`].
    #[inline]
    pub fn heap_size(value: &T) -> usize {
        value.heap_size()
    }
}

/// The functions of a [`Field`] whose type only SeaORM knows.
pub trait ByValue<T> {
    /// The field as what goes into a row.
    fn of(value: &T) -> Value;

    /// Takes the value of a column.
    ///
    /// # Errors
    /// The bytes are not one.
    fn take(reader: &mut Reader<'_>) -> Result<T, CodecError>;

    /// About how many bytes it owns on the heap: those of its `Value`.
    fn heap_size(value: &T) -> usize;
}

impl<T: Clone + Into<Value> + ValueType> ByValue<T> for Field<T> {
    fn of(value: &T) -> Value {
        value.clone().into()
    }

    fn take(reader: &mut Reader<'_>) -> Result<T, CodecError> {
        let value = value::take_column(reader)?;
        caught(|| T::try_from(value))
    }

    fn heap_size(value: &T) -> usize {
        value::heap_size(&Self::of(value))
    }
}
