//! Rows: the values of a model's columns, one after another.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sea_orm::sea_query::Value;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, EntityTrait, IdenStatic, Iterable, ModelTrait, TryIntoModel,
};

use super::{CodecError, Reader, put_bytes, put_value, stable_hash128};
use crate::store::Fingerprint;

/// The version of the encoding, a part of every fingerprint.
const VERSION: u8 = 1;

/// Appends a row.
///
/// # Errors
/// [`CodecError::Unsupported`]; a part of the row may then have been appended.
pub fn put_row<M: ModelTrait>(out: &mut Vec<u8>, model: &M) -> Result<(), CodecError> {
    <M::Entity as EntityTrait>::Column::iter().try_for_each(|c| put_value(out, &model.get(c)))
}

/// Takes a row. Fields that are no columns have their default, as they have from the database.
pub fn row<E: EntityTrait>(reader: &mut Reader<'_>) -> Result<E::Model, CodecError>
where
    E::ActiveModel: TryIntoModel<E::Model>,
{
    // Not `Default::default`, which is the user's to write.
    let mut model = <E::ActiveModel as ActiveModelTrait>::default();
    for column in E::Column::iter() {
        let value = reader.value()?;
        set::<E>(&mut model, column, value)?;
    }
    let model = model.try_into_model();
    model.map_err(|_| CodecError::Corrupt("the row is not whole"))
}

/// Sets a column. SeaQuery panics where an element of an array is not of the model's type, as an
/// enum's new variant is not to an older build.
fn set<E: EntityTrait>(
    model: &mut E::ActiveModel,
    column: E::Column,
    value: Value,
) -> Result<(), CodecError> {
    let set = catch_unwind(AssertUnwindSafe(|| model.try_set(column, value)));
    match set {
        Ok(Ok(())) => Ok(()),
        _ => Err(CodecError::Corrupt("a value is not of its column's type")),
    }
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
    Fingerprint((stable_hash128(&text) as u64).max(1))
}
