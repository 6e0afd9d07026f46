//! Values, each under the tag of its variant.

use sea_orm::sea_query::value::prelude::{Decimal, Uuid};
use sea_orm::sea_query::{ArrayType, Enum, EnumTypeName, OptionEnum, Value};

use super::{CodecError, RESERVED, Reader, json, put_bytes, put_signed, put_varint, temporal};

/// One number per variant of [`Value`], whatever features are on. They are in stores: changing
/// one means another [`super::VERSION`].
mod tag {
    pub const BOOL: u8 = 0;
    pub const TINY_INT: u8 = 1;
    pub const SMALL_INT: u8 = 2;
    pub const INT: u8 = 3;
    pub const BIG_INT: u8 = 4;
    pub const TINY_UNSIGNED: u8 = 5;
    pub const SMALL_UNSIGNED: u8 = 6;
    pub const UNSIGNED: u8 = 7;
    pub const BIG_UNSIGNED: u8 = 8;
    pub const FLOAT: u8 = 9;
    pub const DOUBLE: u8 = 10;
    pub const STRING: u8 = 11;
    pub const ENUM: u8 = 12;
    pub const CHAR: u8 = 13;
    pub const BYTES: u8 = 14;
    pub const JSON: u8 = 15;
    pub const CHRONO_DATE: u8 = 16;
    pub const CHRONO_TIME: u8 = 17;
    pub const CHRONO_DATE_TIME: u8 = 18;
    pub const CHRONO_DATE_TIME_UTC: u8 = 19;
    pub const CHRONO_DATE_TIME_LOCAL: u8 = 20;
    pub const CHRONO_DATE_TIME_WITH_TIME_ZONE: u8 = 21;
    pub const TIME_DATE: u8 = 22;
    pub const TIME_TIME: u8 = 23;
    pub const TIME_DATE_TIME: u8 = 24;
    pub const TIME_DATE_TIME_WITH_TIME_ZONE: u8 = 25;
    pub const UUID: u8 = 26;
    pub const DECIMAL: u8 = 27;
    #[cfg(feature = "with-bigdecimal")]
    pub const BIG_DECIMAL: u8 = 28;
    pub const ARRAY: u8 = 29;
    #[cfg(feature = "with-ipnetwork")]
    pub const IP_NETWORK: u8 = 30;
    #[cfg(feature = "with-mac_address")]
    pub const MAC_ADDRESS: u8 = 31;
}

/// Appends a tag and, unless it is NULL, a content.
fn put_option<T>(out: &mut Vec<u8>, tag: u8, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(tag << 1 | u8::from(value.is_none()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn put_int(out: &mut Vec<u8>, tag: u8, value: Option<impl Into<i64>>) {
    put_option(out, tag, value, |out, v| put_signed(out, v.into()));
}

fn put_uint(out: &mut Vec<u8>, tag: u8, value: Option<impl Into<u64>>) {
    put_option(out, tag, value, |out, v| put_varint(out, v.into()));
}

fn put_raw<const N: usize>(out: &mut Vec<u8>, tag: u8, value: Option<[u8; N]>) {
    put_option(out, tag, value, |out, v| out.extend_from_slice(&v));
}

/// Appends a value that nests at most `depth` deep.
pub fn put(out: &mut Vec<u8>, value: &Value, depth: usize) -> Result<(), CodecError> {
    match value {
        Value::Bool(v) => put_uint(out, tag::BOOL, *v),
        Value::TinyInt(v) => put_int(out, tag::TINY_INT, *v),
        Value::SmallInt(v) => put_int(out, tag::SMALL_INT, *v),
        Value::Int(v) => put_int(out, tag::INT, *v),
        Value::BigInt(v) => put_int(out, tag::BIG_INT, *v),
        Value::TinyUnsigned(v) => put_uint(out, tag::TINY_UNSIGNED, *v),
        Value::SmallUnsigned(v) => put_uint(out, tag::SMALL_UNSIGNED, *v),
        Value::Unsigned(v) => put_uint(out, tag::UNSIGNED, *v),
        Value::BigUnsigned(v) => put_uint(out, tag::BIG_UNSIGNED, *v),
        Value::Float(v) => put_raw(out, tag::FLOAT, v.map(f32::to_le_bytes)),
        Value::Double(v) => put_raw(out, tag::DOUBLE, v.map(f64::to_le_bytes)),
        Value::String(v) => put_option(out, tag::STRING, v.as_deref(), put_text),
        Value::Enum(v) => put_enum(out, v),
        Value::Char(v) => put_uint(out, tag::CHAR, *v),
        Value::Bytes(v) => put_option(out, tag::BYTES, v.as_deref(), put_bytes),
        Value::Json(None) => out.push(tag::JSON << 1 | 1),
        Value::Json(Some(v)) => {
            out.push(tag::JSON << 1);
            json::put(out, v, depth)?;
        }
        Value::Uuid(v) => put_raw(out, tag::UUID, v.map(Uuid::into_bytes)),
        Value::Decimal(v) => put_raw(out, tag::DECIMAL, v.map(|v| v.serialize())),
        Value::Array(array_type, v) => {
            put_array(out, array_type, v.as_deref().map(Vec::as_slice), depth)?
        }
        _ => return put_temporal(out, value),
    }
    Ok(())
}

fn put_temporal(out: &mut Vec<u8>, value: &Value) -> Result<(), CodecError> {
    use temporal::*;
    match value {
        Value::ChronoDate(v) => put_option(out, tag::CHRONO_DATE, *v, put_date),
        Value::ChronoTime(v) => put_option(out, tag::CHRONO_TIME, *v, put_time),
        Value::ChronoDateTime(v) => put_option(out, tag::CHRONO_DATE_TIME, *v, put_date_time),
        Value::ChronoDateTimeUtc(v) => {
            let v = v.map(|v| v.naive_utc());
            put_option(out, tag::CHRONO_DATE_TIME_UTC, v, put_date_time);
        }
        Value::ChronoDateTimeLocal(v) => {
            let v = v.map(|v| v.naive_utc());
            put_option(out, tag::CHRONO_DATE_TIME_LOCAL, v, put_date_time);
        }
        Value::ChronoDateTimeWithTimeZone(v) => {
            put_option(out, tag::CHRONO_DATE_TIME_WITH_TIME_ZONE, *v, put_zoned);
        }
        Value::TimeDate(v) => put_option(out, tag::TIME_DATE, *v, put_time_date),
        Value::TimeTime(v) => put_option(out, tag::TIME_TIME, *v, put_time_time),
        Value::TimeDateTime(v) => put_option(out, tag::TIME_DATE_TIME, *v, put_time_date_time),
        Value::TimeDateTimeWithTimeZone(v) => {
            put_option(out, tag::TIME_DATE_TIME_WITH_TIME_ZONE, *v, put_time_zoned);
        }
        _ => return put_extra(out, value),
    }
    Ok(())
}

/// The variants of features that are off by default.
#[allow(unused_variables, clippy::ptr_arg, reason = "its users may all be off")]
fn put_extra(out: &mut Vec<u8>, value: &Value) -> Result<(), CodecError> {
    match value {
        #[cfg(feature = "with-bigdecimal")]
        Value::BigDecimal(v) => {
            put_option(out, tag::BIG_DECIMAL, v.as_deref(), |out, v| {
                let (digits, scale) = v.as_bigint_and_scale();
                put_signed(out, scale);
                put_bytes(out, &digits.to_signed_bytes_le());
            });
            Ok(())
        }
        #[cfg(feature = "with-ipnetwork")]
        Value::IpNetwork(v) => {
            put_option(out, tag::IP_NETWORK, *v, |out, v| {
                match v.ip() {
                    std::net::IpAddr::V4(ip) => put_bytes(out, &ip.octets()),
                    std::net::IpAddr::V6(ip) => put_bytes(out, &ip.octets()),
                }
                out.push(v.prefix());
            });
            Ok(())
        }
        #[cfg(feature = "with-mac_address")]
        Value::MacAddress(v) => {
            put_raw(out, tag::MAC_ADDRESS, v.map(|v| v.bytes()));
            Ok(())
        }
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
            out.push(tag::ENUM << 1 | 1);
            put_text(out, type_name);
        }
        OptionEnum::Some(value) => {
            out.push(tag::ENUM << 1);
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
    out.push(tag::ARRAY << 1 | u8::from(values.is_none()));
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

/// A content that is there unless the tag said NULL.
struct Content<'r, 'a> {
    reader: &'r mut Reader<'a>,
    null: bool,
}

impl<'a> Content<'_, 'a> {
    fn with<T>(
        self,
        take: impl FnOnce(&mut Reader<'a>) -> Result<T, CodecError>,
    ) -> Result<Option<T>, CodecError> {
        if self.null {
            return Ok(None);
        }
        take(self.reader).map(Some)
    }
}

/// Takes a value that nests at most `depth` deep.
pub fn take(reader: &mut Reader<'_>, depth: usize) -> Result<Value, CodecError> {
    let byte = reader.byte()?;
    let content = Content {
        reader,
        null: byte & 1 == 1,
    };
    Ok(match byte >> 1 {
        tag::BOOL => Value::Bool(content.with(take_bool)?),
        tag::TINY_INT => Value::TinyInt(content.with(Reader::int)?),
        tag::SMALL_INT => Value::SmallInt(content.with(Reader::int)?),
        tag::INT => Value::Int(content.with(Reader::int)?),
        tag::BIG_INT => Value::BigInt(content.with(Reader::signed)?),
        tag::TINY_UNSIGNED => Value::TinyUnsigned(content.with(Reader::uint)?),
        tag::SMALL_UNSIGNED => Value::SmallUnsigned(content.with(Reader::uint)?),
        tag::UNSIGNED => Value::Unsigned(content.with(Reader::uint)?),
        tag::BIG_UNSIGNED => Value::BigUnsigned(content.with(Reader::varint)?),
        tag::FLOAT => Value::Float(content.with(Reader::array)?.map(f32::from_le_bytes)),
        tag::DOUBLE => Value::Double(content.with(Reader::array)?.map(f64::from_le_bytes)),
        tag::STRING => Value::String(content.with(Reader::text)?.map(str::to_owned)),
        tag::ENUM => Value::Enum(take_enum(content)?),
        tag::CHAR => Value::Char(content.with(take_char)?),
        tag::BYTES => Value::Bytes(content.with(Reader::bytes)?.map(<[u8]>::to_vec)),
        tag::JSON => Value::Json(content.with(|r| json::take(r, depth))?.map(Box::new)),
        tag::UUID => Value::Uuid(content.with(Reader::array)?.map(Uuid::from_bytes)),
        tag::DECIMAL => Value::Decimal(content.with(take_decimal)?),
        tag::ARRAY => take_array(content, depth)?,
        tag => return take_temporal(tag, content),
    })
}

fn take_temporal(tag: u8, content: Content<'_, '_>) -> Result<Value, CodecError> {
    use temporal::*;
    Ok(match tag {
        tag::CHRONO_DATE => Value::ChronoDate(content.with(take_date)?),
        tag::CHRONO_TIME => Value::ChronoTime(content.with(take_time)?),
        tag::CHRONO_DATE_TIME => Value::ChronoDateTime(content.with(take_date_time)?),
        tag::CHRONO_DATE_TIME_UTC => Value::ChronoDateTimeUtc(content.with(take_utc)?),
        tag::CHRONO_DATE_TIME_LOCAL => Value::ChronoDateTimeLocal(content.with(take_local)?),
        tag::CHRONO_DATE_TIME_WITH_TIME_ZONE => {
            Value::ChronoDateTimeWithTimeZone(content.with(take_zoned)?)
        }
        tag::TIME_DATE => Value::TimeDate(content.with(take_time_date)?),
        tag::TIME_TIME => Value::TimeTime(content.with(take_time_time)?),
        tag::TIME_DATE_TIME => Value::TimeDateTime(content.with(take_time_date_time)?),
        tag::TIME_DATE_TIME_WITH_TIME_ZONE => {
            Value::TimeDateTimeWithTimeZone(content.with(take_time_zoned)?)
        }
        tag => return take_extra(tag, content),
    })
}

#[allow(unused_variables, reason = "its users may all be off")]
fn take_extra(tag: u8, content: Content<'_, '_>) -> Result<Value, CodecError> {
    match tag {
        #[cfg(feature = "with-bigdecimal")]
        tag::BIG_DECIMAL => Ok(Value::BigDecimal(
            content.with(take_big_decimal)?.map(Box::new),
        )),
        #[cfg(feature = "with-ipnetwork")]
        tag::IP_NETWORK => Ok(Value::IpNetwork(content.with(take_ip_network)?)),
        #[cfg(feature = "with-mac_address")]
        tag::MAC_ADDRESS => {
            let bytes: Option<[u8; 6]> = content.with(Reader::array)?;
            Ok(Value::MacAddress(bytes.map(Into::into)))
        }
        _ => Err(CodecError::Corrupt("an unknown type")),
    }
}

fn take_bool(reader: &mut Reader<'_>) -> Result<bool, CodecError> {
    match reader.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(CodecError::Corrupt("a boolean is neither")),
    }
}

fn take_char(reader: &mut Reader<'_>) -> Result<char, CodecError> {
    char::from_u32(reader.uint()?).ok_or(CodecError::Corrupt("no such character"))
}

fn take_decimal(reader: &mut Reader<'_>) -> Result<Decimal, CodecError> {
    let bytes = reader.array()?;
    let decimal = Decimal::deserialize(bytes);
    // Bits that mean nothing are dropped and a scale out of range is rounded; neither is ours.
    if decimal.serialize() != bytes {
        return Err(CodecError::Corrupt("a decimal is out of its range"));
    }
    Ok(decimal)
}

fn take_enum(content: Content<'_, '_>) -> Result<OptionEnum, CodecError> {
    let Content { reader, null } = content;
    let type_name: EnumTypeName = reader.text()?.into();
    if null {
        return Ok(OptionEnum::None(type_name));
    }
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

#[cfg(feature = "with-bigdecimal")]
fn take_big_decimal(reader: &mut Reader<'_>) -> Result<sea_orm::prelude::BigDecimal, CodecError> {
    use sea_orm::sea_query::value::prelude::bigdecimal::{BigDecimal, num_bigint::BigInt};
    let scale = reader.signed()?;
    let digits = BigInt::from_signed_bytes_le(reader.bytes()?);
    Ok(BigDecimal::new(digits, scale))
}

#[cfg(feature = "with-ipnetwork")]
fn take_ip_network(reader: &mut Reader<'_>) -> Result<sea_orm::prelude::IpNetwork, CodecError> {
    let corrupt = CodecError::Corrupt("no such network");
    let ip = reader.bytes()?;
    let ip = match (<[u8; 4]>::try_from(ip), <[u8; 16]>::try_from(ip)) {
        (Ok(v4), _) => v4.into(),
        (_, Ok(v6)) => v6.into(),
        _ => return Err(corrupt),
    };
    sea_orm::prelude::IpNetwork::new(ip, reader.byte()?).map_err(|_| corrupt)
}
