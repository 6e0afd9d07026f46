//! Values, each under the tag of its variant.

use sea_orm::sea_query::value::prelude::Json;
use sea_orm::sea_query::{ArrayType, Enum, EnumTypeName, OptionEnum, Value};

use super::scalar::{Scalar, head, one_width};
use super::{CodecError, RESERVED, Reader, json, put_bytes, put_varint, tag};

/// Appends a head and, unless it is NULL, a content.
fn put_option<T: Scalar>(out: &mut Vec<u8>, value: Option<&T>) -> Result<(), CodecError> {
    match value {
        Some(value) => value.put(out),
        None => {
            out.push(T::TAG << 3);
            Ok(())
        }
    }
}

/// Appends a value that nests at most `depth` deep.
pub fn put(out: &mut Vec<u8>, value: &Value, depth: usize) -> Result<(), CodecError> {
    match value {
        Value::Bool(v) => put_option(out, v.as_ref()),
        Value::TinyInt(v) => put_option(out, v.as_ref()),
        Value::SmallInt(v) => put_option(out, v.as_ref()),
        Value::Int(v) => put_option(out, v.as_ref()),
        Value::BigInt(v) => put_option(out, v.as_ref()),
        Value::TinyUnsigned(v) => put_option(out, v.as_ref()),
        Value::SmallUnsigned(v) => put_option(out, v.as_ref()),
        Value::Unsigned(v) => put_option(out, v.as_ref()),
        Value::BigUnsigned(v) => put_option(out, v.as_ref()),
        Value::Float(v) => put_option(out, v.as_ref()),
        Value::Double(v) => put_option(out, v.as_ref()),
        Value::String(v) => put_option(out, v.as_ref()),
        Value::Enum(v) => {
            put_enum(out, v);
            Ok(())
        }
        Value::Char(v) => put_option(out, v.as_ref()),
        Value::Bytes(v) => put_option(out, v.as_ref()),
        Value::Json(None) => put_option::<Json>(out, None),
        Value::Json(Some(v)) => {
            out.push(head(tag::JSON));
            json::put(out, v, depth)
        }
        Value::Uuid(v) => put_option(out, v.as_ref()),
        Value::Decimal(v) => put_option(out, v.as_ref()),
        Value::Array(array_type, v) => {
            put_array(out, array_type, v.as_deref().map(Vec::as_slice), depth)
        }
        _ => put_temporal(out, value),
    }
}

fn put_temporal(out: &mut Vec<u8>, value: &Value) -> Result<(), CodecError> {
    match value {
        Value::ChronoDate(v) => put_option(out, v.as_ref()),
        Value::ChronoTime(v) => put_option(out, v.as_ref()),
        Value::ChronoDateTime(v) => put_option(out, v.as_ref()),
        Value::ChronoDateTimeUtc(v) => put_option(out, v.as_ref()),
        Value::ChronoDateTimeLocal(v) => put_option(out, v.as_ref()),
        Value::ChronoDateTimeWithTimeZone(v) => put_option(out, v.as_ref()),
        Value::TimeDate(v) => put_option(out, v.as_ref()),
        Value::TimeTime(v) => put_option(out, v.as_ref()),
        Value::TimeDateTime(v) => put_option(out, v.as_ref()),
        Value::TimeDateTimeWithTimeZone(v) => put_option(out, v.as_ref()),
        _ => put_extra(out, value),
    }
}

/// The variants of features that are off by default.
#[allow(unused_variables, clippy::ptr_arg, reason = "its users may all be off")]
fn put_extra(out: &mut Vec<u8>, value: &Value) -> Result<(), CodecError> {
    match value {
        #[cfg(feature = "with-bigdecimal")]
        Value::BigDecimal(v) => put_option(out, v.as_deref()),
        #[cfg(feature = "with-ipnetwork")]
        Value::IpNetwork(v) => put_option(out, v.as_ref()),
        #[cfg(feature = "with-mac_address")]
        Value::MacAddress(v) => put_option(out, v.as_ref()),
        // Features of sea-query that SeaORM's user turned on and this crate does not know.
        _ => Err(CodecError::Unsupported("a type of another feature")),
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

fn put_enum(out: &mut Vec<u8>, value: &OptionEnum) {
    match value {
        OptionEnum::None(type_name) => {
            out.push(tag::ENUM << 3);
            put_text(out, type_name);
        }
        OptionEnum::Some(value) => {
            out.push(head(tag::ENUM));
            put_text(out, &value.type_name);
            put_text(out, &value.value);
        }
    }
}

fn put_array(
    out: &mut Vec<u8>,
    array_type: &ArrayType,
    values: Option<&[Value]>,
    depth: usize,
) -> Result<(), CodecError> {
    let too_deep = CodecError::Unsupported("an array nested too deep");
    let depth = depth.checked_sub(1).ok_or(too_deep)?;
    out.push(tag::ARRAY << 3 | u8::from(values.is_some()));
    put_array_type(out, array_type)?;
    let Some(values) = values else { return Ok(()) };
    put_varint(out, values.len() as u64);
    values.iter().try_for_each(|value| put(out, value, depth))
}

fn put_array_type(out: &mut Vec<u8>, array_type: &ArrayType) -> Result<(), CodecError> {
    if let ArrayType::Enum(type_name) = array_type {
        out.push(tag::ENUM);
        put_text(out, type_name);
        return Ok(());
    }
    let known = ARRAY_TYPES.iter().find(|(known, _)| known == array_type);
    let (_, tag) = known.ok_or(CodecError::Unsupported(
        "an array of another feature's type",
    ))?;
    out.push(*tag);
    Ok(())
}

/// The element types of arrays, save enums, and their tags.
pub const ARRAY_TYPES: &[(ArrayType, u8)] = &[
    (ArrayType::Bool, tag::BOOL),
    (ArrayType::TinyInt, tag::TINY_INT),
    (ArrayType::SmallInt, tag::SMALL_INT),
    (ArrayType::Int, tag::INT),
    (ArrayType::BigInt, tag::BIG_INT),
    (ArrayType::TinyUnsigned, tag::TINY_UNSIGNED),
    (ArrayType::SmallUnsigned, tag::SMALL_UNSIGNED),
    (ArrayType::Unsigned, tag::UNSIGNED),
    (ArrayType::BigUnsigned, tag::BIG_UNSIGNED),
    (ArrayType::Float, tag::FLOAT),
    (ArrayType::Double, tag::DOUBLE),
    (ArrayType::String, tag::STRING),
    (ArrayType::Char, tag::CHAR),
    (ArrayType::Bytes, tag::BYTES),
    (ArrayType::Json, tag::JSON),
    (ArrayType::ChronoDate, tag::CHRONO_DATE),
    (ArrayType::ChronoTime, tag::CHRONO_TIME),
    (ArrayType::ChronoDateTime, tag::CHRONO_DATE_TIME),
    (ArrayType::ChronoDateTimeUtc, tag::CHRONO_DATE_TIME_UTC),
    (ArrayType::ChronoDateTimeLocal, tag::CHRONO_DATE_TIME_LOCAL),
    (
        ArrayType::ChronoDateTimeWithTimeZone,
        tag::CHRONO_DATE_TIME_WITH_TIME_ZONE,
    ),
    (ArrayType::TimeDate, tag::TIME_DATE),
    (ArrayType::TimeTime, tag::TIME_TIME),
    (ArrayType::TimeDateTime, tag::TIME_DATE_TIME),
    (
        ArrayType::TimeDateTimeWithTimeZone,
        tag::TIME_DATE_TIME_WITH_TIME_ZONE,
    ),
    (ArrayType::Uuid, tag::UUID),
    (ArrayType::Decimal, tag::DECIMAL),
    #[cfg(feature = "with-bigdecimal")]
    (ArrayType::BigDecimal, tag::BIG_DECIMAL),
    #[cfg(feature = "with-ipnetwork")]
    (ArrayType::IpNetwork, tag::IP_NETWORK),
    #[cfg(feature = "with-mac_address")]
    (ArrayType::MacAddress, tag::MAC_ADDRESS),
];

/// A content that is there unless the head said NULL.
struct Content<'r, 'a> {
    reader: &'r mut Reader<'a>,
    width: u8,
}

impl<'a> Content<'_, 'a> {
    fn scalar<T: Scalar>(self) -> Result<Option<T>, CodecError> {
        match self.width {
            0 => Ok(None),
            width => T::take(self.reader, width).map(Some),
        }
    }

    /// What has one width only.
    fn with<T>(
        self,
        take: impl FnOnce(&mut Reader<'a>) -> Result<T, CodecError>,
    ) -> Result<Option<T>, CodecError> {
        if self.width == 0 {
            return Ok(None);
        }
        one_width(self.width)?;
        take(self.reader).map(Some)
    }
}

/// Takes the value of a row's column.
pub fn take_column(reader: &mut Reader<'_>) -> Result<Value, CodecError> {
    match reader.accept(tag::STRING) {
        Some(0) => Ok(Value::String(None)),
        Some(width) => String::take_apart(reader, width).map(|text| Value::String(Some(text))),
        None => reader.value(),
    }
}

/// Takes a value that nests at most `depth` deep.
pub fn take(reader: &mut Reader<'_>, depth: usize) -> Result<Value, CodecError> {
    let byte = reader.byte()?;
    let content = Content {
        reader,
        width: byte & 7,
    };
    Ok(match byte >> 3 {
        tag::BOOL => Value::Bool(content.scalar()?),
        tag::TINY_INT => Value::TinyInt(content.scalar()?),
        tag::SMALL_INT => Value::SmallInt(content.scalar()?),
        tag::INT => Value::Int(content.scalar()?),
        tag::BIG_INT => Value::BigInt(content.scalar()?),
        tag::TINY_UNSIGNED => Value::TinyUnsigned(content.scalar()?),
        tag::SMALL_UNSIGNED => Value::SmallUnsigned(content.scalar()?),
        tag::UNSIGNED => Value::Unsigned(content.scalar()?),
        tag::BIG_UNSIGNED => Value::BigUnsigned(content.scalar()?),
        tag::FLOAT => Value::Float(content.scalar()?),
        tag::DOUBLE => Value::Double(content.scalar()?),
        tag::STRING => Value::String(content.scalar()?),
        tag::ENUM => Value::Enum(take_enum(content)?),
        tag::CHAR => Value::Char(content.scalar()?),
        tag::BYTES => Value::Bytes(content.scalar()?),
        tag::JSON => Value::Json(content.with(|r| json::take(r, depth))?.map(Box::new)),
        tag::UUID => Value::Uuid(content.scalar()?),
        tag::DECIMAL => Value::Decimal(content.scalar()?),
        tag::ARRAY => take_array(content, depth)?,
        tag => return take_temporal(tag, content),
    })
}

fn take_temporal(tag: u8, content: Content<'_, '_>) -> Result<Value, CodecError> {
    Ok(match tag {
        tag::CHRONO_DATE => Value::ChronoDate(content.scalar()?),
        tag::CHRONO_TIME => Value::ChronoTime(content.scalar()?),
        tag::CHRONO_DATE_TIME => Value::ChronoDateTime(content.scalar()?),
        tag::CHRONO_DATE_TIME_UTC => Value::ChronoDateTimeUtc(content.scalar()?),
        tag::CHRONO_DATE_TIME_LOCAL => Value::ChronoDateTimeLocal(content.scalar()?),
        tag::CHRONO_DATE_TIME_WITH_TIME_ZONE => {
            Value::ChronoDateTimeWithTimeZone(content.scalar()?)
        }
        tag::TIME_DATE => Value::TimeDate(content.scalar()?),
        tag::TIME_TIME => Value::TimeTime(content.scalar()?),
        tag::TIME_DATE_TIME => Value::TimeDateTime(content.scalar()?),
        tag::TIME_DATE_TIME_WITH_TIME_ZONE => Value::TimeDateTimeWithTimeZone(content.scalar()?),
        tag => return take_extra(tag, content),
    })
}

#[allow(unused_variables, reason = "its users may all be off")]
fn take_extra(tag: u8, content: Content<'_, '_>) -> Result<Value, CodecError> {
    match tag {
        #[cfg(feature = "with-bigdecimal")]
        tag::BIG_DECIMAL => Ok(Value::BigDecimal(content.scalar()?.map(Box::new))),
        #[cfg(feature = "with-ipnetwork")]
        tag::IP_NETWORK => Ok(Value::IpNetwork(content.scalar()?)),
        #[cfg(feature = "with-mac_address")]
        tag::MAC_ADDRESS => Ok(Value::MacAddress(content.scalar()?)),
        _ => Err(CodecError::Corrupt("an unknown type")),
    }
}

fn take_enum(content: Content<'_, '_>) -> Result<OptionEnum, CodecError> {
    let Content { reader, width } = content;
    let type_name: EnumTypeName = reader.text()?.into();
    if width == 0 {
        return Ok(OptionEnum::None(type_name));
    }
    one_width(width)?;
    let value = reader.text()?.to_owned().into();
    Ok(OptionEnum::Some(Box::new(Enum { type_name, value })))
}

fn take_array(content: Content<'_, '_>, depth: usize) -> Result<Value, CodecError> {
    let too_deep = CodecError::Corrupt("an array nested too deep");
    let depth = depth.checked_sub(1).ok_or(too_deep)?;
    let array_type = take_array_type(content.reader)?;
    let values = content.with(|reader| {
        let count = reader.count()?;
        let mut values = Vec::with_capacity(count.min(RESERVED));
        for _ in 0..count {
            values.push(take(reader, depth)?);
        }
        Ok(values)
    })?;
    Ok(Value::Array(array_type, values.map(Box::new)))
}

fn take_array_type(reader: &mut Reader<'_>) -> Result<ArrayType, CodecError> {
    let tag = reader.byte()?;
    if tag == tag::ENUM {
        return Ok(ArrayType::Enum(Box::new(reader.text()?.into())));
    }
    let known = ARRAY_TYPES.iter().find(|(_, known)| *known == tag);
    let (array_type, _) = known.ok_or(CodecError::Corrupt("an array of an unknown type"))?;
    Ok(array_type.clone())
}

/// How many bytes a model owns on the heap for a value, about: an array has room for one element of
/// its type for each of its own.
pub fn heap_size(value: &Value) -> usize {
    match value {
        Value::String(Some(v)) => v.len(),
        Value::Bytes(Some(v)) => v.len(),
        Value::Json(Some(v)) => json::heap_size(v),
        Value::Array(array_type, Some(values)) => {
            let inner: usize = values.iter().map(heap_size).sum();
            values.len() * element_size(array_type) + inner
        }
        #[cfg(feature = "with-bigdecimal")]
        Value::BigDecimal(Some(v)) => v.heap_size(),
        _ => 0,
    }
}

/// The size of an array's element; of an enum, that of a small one.
fn element_size(array_type: &ArrayType) -> usize {
    match array_type {
        ArrayType::Bool | ArrayType::TinyInt | ArrayType::TinyUnsigned | ArrayType::Enum(_) => 1,
        ArrayType::SmallInt | ArrayType::SmallUnsigned => 2,
        ArrayType::Int | ArrayType::Unsigned | ArrayType::Float | ArrayType::Char => 4,
        ArrayType::BigInt | ArrayType::BigUnsigned | ArrayType::Double => 8,
        ArrayType::ChronoDate | ArrayType::TimeDate => 4,
        ArrayType::Json => size_of::<Json>(),
        // Texts, bytes, and the largest of the instants and numbers.
        _ => size_of::<String>(),
    }
}
