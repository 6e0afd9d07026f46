//! The types of column values: for each its tag, and its content as bytes and back.

use sea_orm::sea_query::value::prelude as value;
use value::{Decimal, Json, Uuid, chrono, time};

use chrono::{DateTime, FixedOffset, Local, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use time::{Date, OffsetDateTime, PrimitiveDateTime, Time};

#[cfg(any(feature = "with-bigdecimal", feature = "with-ipnetwork"))]
use super::put_bytes;
#[cfg(feature = "with-bigdecimal")]
use super::put_signed;
use super::temporal::*;
use super::{CodecError, DEEPEST, Reader, folded, json, tag, unfolded, utf8};

/// A type that is the content of one variant of SeaORM's `Value`.
pub trait Scalar: Sized {
    /// The variant's tag.
    const TAG: u8;

    /// Appends the head and the content.
    fn put(&self, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Takes the content under a head that says `width`, which is not zero.
    fn take(reader: &mut Reader<'_>, width: u8) -> Result<Self, CodecError>;

    /// What of it stands among the texts of a row.
    #[inline]
    fn text(&self) -> &str {
        ""
    }

    /// Appends the head and the content without what stands among the texts of a row.
    #[inline]
    fn put_apart(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.put(out)
    }

    /// Takes such a content, and its text from among the row's.
    #[inline(always)]
    fn take_apart(reader: &mut Reader<'_>, width: u8) -> Result<Self, CodecError> {
        Self::take(reader, width)
    }

    /// No fewer bytes than it takes, and those of the word that a number is made in; of a tree, a guess.
    #[inline]
    fn most(&self) -> usize {
        size_of::<Self>() + 9
    }

    /// How many bytes it owns on the heap; of a tree, about.
    fn heap_size(&self) -> usize {
        0
    }
}

/// The head of what is not NULL and has one width only.
pub const fn head(tag: u8) -> u8 {
    tag << 3 | 1
}

/// Appends a head and a number of the width that it says.
#[inline]
pub fn put_number(out: &mut Vec<u8>, tag: u8, n: u64) {
    let (width, bytes) = width_of(n);
    put_word(out, tag << 3 | width, n, bytes);
}

/// Appends a head and the lowest bytes of a word.
#[inline]
fn put_word(out: &mut Vec<u8>, head: u8, word: u64, bytes: usize) {
    let start = out.len();
    let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
    out.extend_from_slice(&[head, a, b, c, d, e, f, g, h]);
    out.truncate(start + 1 + bytes);
}

/// The width of a number, as a head says it, and in bytes: that of seven is eight.
#[inline]
fn width_of(n: u64) -> (u8, usize) {
    let bytes = (71 - (n | 1).leading_zeros()) / 8;
    match bytes {
        7.. => (7, 8),
        _ => (bytes as u8, bytes as usize),
    }
}

#[inline]
fn fit<N, T: TryFrom<N>>(n: N) -> Result<T, CodecError> {
    T::try_from(n).map_err(|_| CodecError::Corrupt("a number is out of its range"))
}

/// Whole numbers, of as many bytes as each needs.
macro_rules! numbers {
    ($($type:ty, $tag:ident, |$v:ident| $put:expr, |$n:ident| $take:expr;)*) => {$(
        impl Scalar for $type {
            const TAG: u8 = tag::$tag;

            #[inline]
            fn put(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
                let $v = *self;
                put_number(out, Self::TAG, $put);
                Ok(())
            }

            #[inline(always)]
            fn take(reader: &mut Reader<'_>, width: u8) -> Result<Self, CodecError> {
                let $n = reader.number(width)?;
                $take
            }
        }
    )*};
}

numbers! {
    i8, TINY_INT, |v| folded(v.into()), |n| fit(unfolded(n));
    i16, SMALL_INT, |v| folded(v.into()), |n| fit(unfolded(n));
    i32, INT, |v| folded(v.into()), |n| fit(unfolded(n));
    i64, BIG_INT, |v| folded(v), |n| Ok(unfolded(n));
    u8, TINY_UNSIGNED, |v| v.into(), |n| fit(n);
    u16, SMALL_UNSIGNED, |v| v.into(), |n| fit(n);
    u32, UNSIGNED, |v| v.into(), |n| fit(n);
    u64, BIG_UNSIGNED, |v| v, |n| Ok(n);
    char, CHAR, |v| u32::from(v).into(), |n| take_char(n);
}

/// Scalars of one width, without anything on the heap.
macro_rules! scalars {
    ($($(#[$cfg:meta])? $type:ty, $tag:ident, |$out:ident, $v:ident| $put:expr, |$r:ident| $take:expr;)*) => {$(
        $(#[$cfg])?
        impl Scalar for $type {
            const TAG: u8 = tag::$tag;

            #[inline]
            fn put(&self, $out: &mut Vec<u8>) -> Result<(), CodecError> {
                let $v = *self;
                $out.push(head(Self::TAG));
                $put;
                Ok(())
            }

            #[inline(always)]
            fn take($r: &mut Reader<'_>, width: u8) -> Result<Self, CodecError> {
                one_width(width)?;
                $take
            }
        }
    )*};
}

scalars! {
    f32, FLOAT, |out, v| put_raw(out, v.to_le_bytes()), |r| r.array().map(Self::from_le_bytes);
    f64, DOUBLE, |out, v| put_raw(out, v.to_le_bytes()), |r| r.array().map(Self::from_le_bytes);
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

/// A boolean is all in its head.
impl Scalar for bool {
    const TAG: u8 = tag::BOOL;

    #[inline]
    fn put(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.push(head(Self::TAG) + u8::from(*self));
        Ok(())
    }

    #[inline]
    fn take(_: &mut Reader<'_>, width: u8) -> Result<Self, CodecError> {
        match width {
            1 => Ok(false),
            2 => Ok(true),
            _ => Err(CodecError::Corrupt("a boolean is neither")),
        }
    }
}

impl Scalar for String {
    const TAG: u8 = tag::STRING;

    #[inline]
    fn put(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        put_number(out, Self::TAG, self.len() as u64);
        out.extend_from_slice(self.as_bytes());
        Ok(())
    }

    fn take(reader: &mut Reader<'_>, width: u8) -> Result<Self, CodecError> {
        utf8(reader.sized(width)?).map(str::to_owned)
    }

    #[inline]
    fn text(&self) -> &str {
        self
    }

    #[inline]
    fn put_apart(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        put_number(out, Self::TAG, self.len() as u64);
        Ok(())
    }

    #[inline(always)]
    fn take_apart(reader: &mut Reader<'_>, width: u8) -> Result<Self, CodecError> {
        reader.text_of_row(width).map(str::to_owned)
    }

    #[inline]
    fn most(&self) -> usize {
        self.len() + 9
    }

    fn heap_size(&self) -> usize {
        self.capacity()
    }
}

impl Scalar for Vec<u8> {
    const TAG: u8 = tag::BYTES;

    #[inline]
    fn put(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        put_number(out, Self::TAG, self.len() as u64);
        out.extend_from_slice(self);
        Ok(())
    }

    #[inline]
    fn take(reader: &mut Reader<'_>, width: u8) -> Result<Self, CodecError> {
        reader.sized(width).map(<[u8]>::to_vec)
    }

    #[inline]
    fn most(&self) -> usize {
        self.len() + 9
    }

    fn heap_size(&self) -> usize {
        self.capacity()
    }
}

impl Scalar for Json {
    const TAG: u8 = tag::JSON;

    fn put(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.push(head(Self::TAG));
        json::put(out, self, DEEPEST)
    }

    fn take(reader: &mut Reader<'_>, width: u8) -> Result<Self, CodecError> {
        one_width(width)?;
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
        out.push(head(Self::TAG));
        put_signed(out, scale);
        put_bytes(out, &digits.to_signed_bytes_le());
        Ok(())
    }

    fn take(reader: &mut Reader<'_>, width: u8) -> Result<Self, CodecError> {
        use value::bigdecimal::num_bigint::BigInt;
        one_width(width)?;
        let scale = reader.signed()?;
        let digits = BigInt::from_signed_bytes_le(reader.bytes()?);
        Ok(Self::new(digits, scale))
    }

    fn most(&self) -> usize {
        self.heap_size() + 21
    }

    fn heap_size(&self) -> usize {
        let (digits, _) = self.as_bigint_and_scale();
        usize::try_from(digits.bits() / 8)
            .unwrap_or(usize::MAX)
            .saturating_add(8)
    }
}

#[inline]
fn put_raw<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) {
    out.extend_from_slice(&bytes);
}

/// Of what has one width only, the head says it.
#[inline]
pub fn one_width(width: u8) -> Result<(), CodecError> {
    match width {
        1 => Ok(()),
        _ => Err(CodecError::Corrupt("an unknown width")),
    }
}

fn take_char(n: u64) -> Result<char, CodecError> {
    char::from_u32(fit(n)?).ok_or(CodecError::Corrupt("no such character"))
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
