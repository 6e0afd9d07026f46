//! The types of column values: for each its tag, and its content as bytes and back.

use sea_orm::sea_query::value::prelude as value;
use value::{Decimal, Json, Uuid, chrono, time};

use chrono::{DateTime, FixedOffset, Local, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use time::{Date, OffsetDateTime, PrimitiveDateTime, Time};

use super::temporal::*;
use super::{CodecError, DEEPEST, Reader, json, put_bytes, put_signed, put_varint, tag};

/// A type that is the content of one variant of SeaORM's `Value`.
pub trait Scalar: Sized {
    /// The variant's tag.
    const TAG: u8;

    /// Appends the content.
    fn put(&self, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Takes a content.
    fn take(reader: &mut Reader<'_>) -> Result<Self, CodecError>;

    /// No fewer bytes than the content takes, and those of the word that a number is made in; of a
    /// tree, a guess.
    #[inline]
    fn most(&self) -> usize {
        size_of::<Self>() + 8
    }

    /// How many bytes it owns on the heap; of a tree, about.
    fn heap_size(&self) -> usize {
        0
    }
}

/// Scalars without anything on the heap.
macro_rules! scalars {
    ($($(#[$cfg:meta])? $type:ty, $tag:ident, |$out:ident, $v:ident| $put:expr, |$r:ident| $take:expr;)*) => {$(
        $(#[$cfg])?
        impl Scalar for $type {
            const TAG: u8 = tag::$tag;

            #[inline]
            fn put(&self, $out: &mut Vec<u8>) -> Result<(), CodecError> {
                let $v = *self;
                $put;
                Ok(())
            }

            #[inline]
            fn take($r: &mut Reader<'_>) -> Result<Self, CodecError> {
                $take
            }
        }
    )*};
}

scalars! {
    bool, BOOL, |out, v| out.push(v.into()), |r| take_bool(r);
    i8, TINY_INT, |out, v| put_signed(out, v.into()), |r| r.int();
    i16, SMALL_INT, |out, v| put_signed(out, v.into()), |r| r.int();
    i32, INT, |out, v| put_signed(out, v.into()), |r| r.int();
    i64, BIG_INT, |out, v| put_signed(out, v), |r| r.signed();
    u8, TINY_UNSIGNED, |out, v| put_varint(out, v.into()), |r| r.uint();
    u16, SMALL_UNSIGNED, |out, v| put_varint(out, v.into()), |r| r.uint();
    u32, UNSIGNED, |out, v| put_varint(out, v.into()), |r| r.uint();
    u64, BIG_UNSIGNED, |out, v| put_varint(out, v), |r| r.varint();
    f32, FLOAT, |out, v| put_raw(out, v.to_le_bytes()), |r| r.array().map(Self::from_le_bytes);
    f64, DOUBLE, |out, v| put_raw(out, v.to_le_bytes()), |r| r.array().map(Self::from_le_bytes);
    char, CHAR, |out, v| put_varint(out, u32::from(v).into()), |r| take_char(r);
    Uuid, UUID, |out, v| put_raw(out, v.into_bytes()), |r| r.array().map(Self::from_bytes);
    Decimal, DECIMAL, |out, v| put_raw(out, v.serialize()), |r| take_decimal(r);
    NaiveDate, CHRONO_DATE, |out, v| put_date(out, v), |r| take_date(r);
    NaiveTime, CHRONO_TIME, |out, v| put_time(out, v), |r| take_time(r);
    NaiveDateTime, CHRONO_DATE_TIME, |out, v| put_date_time(out, v), |r| take_date_time(r);
    DateTime<Utc>, CHRONO_DATE_TIME_UTC, |out, v| put_date_time(out, v.naive_utc()), |r| take_utc(r);
    DateTime<Local>, CHRONO_DATE_TIME_LOCAL, |out, v| put_date_time(out, v.naive_utc()), |r| take_local(r);
    DateTime<FixedOffset>, CHRONO_DATE_TIME_WITH_TIME_ZONE, |out, v| put_zoned(out, v), |r| take_zoned(r);
    Date, TIME_DATE, |out, v| put_time_date(out, v), |r| take_time_date(r);
    Time, TIME_TIME, |out, v| put_time_time(out, v), |r| take_time_time(r);
    PrimitiveDateTime, TIME_DATE_TIME, |out, v| put_time_date_time(out, v), |r| take_time_date_time(r);
    OffsetDateTime, TIME_DATE_TIME_WITH_TIME_ZONE, |out, v| put_time_zoned(out, v), |r| take_time_zoned(r);
    #[cfg(feature = "with-ipnetwork")]
    value::IpNetwork, IP_NETWORK, |out, v| put_ip_network(out, v), |r| take_ip_network(r);
    #[cfg(feature = "with-mac_address")]
    value::MacAddress, MAC_ADDRESS, |out, v| put_raw(out, v.bytes()), |r| r.array::<6>().map(Into::into);
}

impl Scalar for String {
    const TAG: u8 = tag::STRING;

    #[inline]
    fn put(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        put_bytes(out, self.as_bytes());
        Ok(())
    }

    #[inline]
    fn take(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        reader.text().map(str::to_owned)
    }

    #[inline]
    fn most(&self) -> usize {
        self.len() + 10
    }

    fn heap_size(&self) -> usize {
        self.capacity()
    }
}

impl Scalar for Vec<u8> {
    const TAG: u8 = tag::BYTES;

    #[inline]
    fn put(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        put_bytes(out, self);
        Ok(())
    }

    #[inline]
    fn take(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        reader.bytes().map(<[u8]>::to_vec)
    }

    #[inline]
    fn most(&self) -> usize {
        self.len() + 10
    }

    fn heap_size(&self) -> usize {
        self.capacity()
    }
}

impl Scalar for Json {
    const TAG: u8 = tag::JSON;

    fn put(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        json::put(out, self, DEEPEST)
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        json::take(reader, DEEPEST)
    }

    fn most(&self) -> usize {
        64
    }

    fn heap_size(&self) -> usize {
        json::heap_size(self)
    }
}

#[cfg(feature = "with-bigdecimal")]
impl Scalar for value::BigDecimal {
    const TAG: u8 = tag::BIG_DECIMAL;

    fn put(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let (digits, scale) = self.as_bigint_and_scale();
        put_signed(out, scale);
        put_bytes(out, &digits.to_signed_bytes_le());
        Ok(())
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        use value::bigdecimal::num_bigint::BigInt;
        let scale = reader.signed()?;
        let digits = BigInt::from_signed_bytes_le(reader.bytes()?);
        Ok(Self::new(digits, scale))
    }

    fn most(&self) -> usize {
        self.heap_size() + 20
    }

    fn heap_size(&self) -> usize {
        let (digits, _) = self.as_bigint_and_scale();
        usize::try_from(digits.bits() / 8)
            .unwrap_or(usize::MAX)
            .saturating_add(8)
    }
}

fn put_raw<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) {
    out.extend_from_slice(&bytes);
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

#[cfg(feature = "with-ipnetwork")]
fn put_ip_network(out: &mut Vec<u8>, network: value::IpNetwork) {
    match network.ip() {
        std::net::IpAddr::V4(ip) => put_bytes(out, &ip.octets()),
        std::net::IpAddr::V6(ip) => put_bytes(out, &ip.octets()),
    }
    out.push(network.prefix());
}

#[cfg(feature = "with-ipnetwork")]
fn take_ip_network(reader: &mut Reader<'_>) -> Result<value::IpNetwork, CodecError> {
    let corrupt = CodecError::Corrupt("no such network");
    let ip = reader.bytes()?;
    let ip = match (<[u8; 4]>::try_from(ip), <[u8; 16]>::try_from(ip)) {
        (Ok(v4), _) => v4.into(),
        (_, Ok(v6)) => v6.into(),
        _ => return Err(corrupt),
    };
    value::IpNetwork::new(ip, reader.byte()?).map_err(|_| corrupt)
}
