//! Round trips of every type and of whole rows, and what bytes that are not ours do.

use std::fmt::Debug;

use chrono::{DateTime, FixedOffset, Local, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc};
use proptest::collection::vec;
use proptest::prelude::*;
use sea_orm::sea_query::value::prelude::{Decimal, Json, Uuid, chrono, serde_json, time};
use sea_orm::sea_query::{ArrayType, Enum, OptionEnum, Value};
use serde_json::json;
use time::{Date, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

use super::*;

mod generated;
mod rows;

fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_value(&mut out, value).unwrap();
    out
}

fn decode(bytes: &[u8]) -> Result<Value, CodecError> {
    let mut reader = Reader::new(bytes);
    let value = reader.value()?;
    assert!(reader.is_empty());
    Ok(value)
}

/// Compares by `Debug` too: it tells variants, offsets, scales and signs of zero apart.
fn assert_same<T: PartialEq + Debug>(a: &T, b: &T) {
    assert_eq!(a, b);
    assert_eq!(format!("{a:?}"), format!("{b:?}"));
}

fn assert_round_trip(value: Value) {
    assert_same(&decode(&encode(&value)).unwrap(), &value);
}

fn optional<T: Debug + 'static>(
    some: impl Strategy<Value = T> + 'static,
    value: impl Fn(Option<T>) -> Value + 'static,
) -> BoxedStrategy<Value> {
    proptest::option::of(some).prop_map(value).boxed()
}

fn date() -> impl Strategy<Value = NaiveDate> {
    (-95_000_000..95_000_000).prop_map(|n| NaiveDate::from_num_days_from_ce_opt(n).unwrap())
}

fn time_of_day() -> impl Strategy<Value = NaiveTime> {
    (0u32..86_400, 0u32..2_000_000_000).prop_map(|(second, nano)| {
        let time = NaiveTime::from_num_seconds_from_midnight_opt(second, 0).unwrap();
        chrono::Timelike::with_nanosecond(&time, nano).unwrap()
    })
}

fn date_time() -> impl Strategy<Value = NaiveDateTime> {
    (date(), time_of_day()).prop_map(|(date, time)| date.and_time(time))
}

fn zoned() -> impl Strategy<Value = DateTime<FixedOffset>> {
    (date_time(), -86_399..86_400).prop_map(|(utc, offset)| {
        FixedOffset::east_opt(offset)
            .unwrap()
            .from_utc_datetime(&utc)
    })
}

fn time_date() -> impl Strategy<Value = Date> {
    (Date::MIN.to_julian_day()..=Date::MAX.to_julian_day())
        .prop_map(|n| Date::from_julian_day(n).unwrap())
}

fn time_time() -> impl Strategy<Value = Time> {
    (0u8..24, 0u8..60, 0u8..60, 0u32..1_000_000_000)
        .prop_map(|(h, m, s, n)| Time::from_hms_nano(h, m, s, n).unwrap())
}

fn time_date_time() -> impl Strategy<Value = PrimitiveDateTime> {
    (time_date(), time_time()).prop_map(|(date, time)| PrimitiveDateTime::new(date, time))
}

fn time_zoned() -> impl Strategy<Value = OffsetDateTime> {
    (time_date_time(), -86_399..86_400).prop_map(|(local, offset)| {
        local.assume_offset(UtcOffset::from_whole_seconds(offset).unwrap())
    })
}

fn decimal() -> impl Strategy<Value = Decimal> {
    (
        any::<u32>(),
        any::<u32>(),
        any::<u32>(),
        any::<bool>(),
        0u32..=28,
    )
        .prop_map(|(lo, mid, hi, negative, scale)| {
            Decimal::from_parts(lo, mid, hi, negative, scale)
        })
}

fn tree() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Json::from),
            vec((any::<String>(), inner), 0..8).prop_map(|m| Json::Object(m.into_iter().collect())),
        ]
    })
}

fn option_enum() -> impl Strategy<Value = OptionEnum> {
    (any::<String>(), proptest::option::of(any::<String>())).prop_map(|(name, value)| match value {
        None => OptionEnum::None(name.into()),
        Some(value) => OptionEnum::Some(Box::new(Enum {
            type_name: name.into(),
            value: value.into(),
        })),
    })
}

/// One strategy per variant of `Value`, save arrays.
fn scalars() -> Vec<BoxedStrategy<Value>> {
    let mut all = vec![
        optional(any::<bool>(), Value::Bool),
        optional(any::<i8>(), Value::TinyInt),
        optional(any::<i16>(), Value::SmallInt),
        optional(any::<i32>(), Value::Int),
        optional(any::<i64>(), Value::BigInt),
        optional(any::<u8>(), Value::TinyUnsigned),
        optional(any::<u16>(), Value::SmallUnsigned),
        optional(any::<u32>(), Value::Unsigned),
        optional(any::<u64>(), Value::BigUnsigned),
        optional(any::<u32>().prop_map(f32::from_bits), Value::Float),
        optional(any::<u64>().prop_map(f64::from_bits), Value::Double),
        optional(any::<String>(), Value::String),
        option_enum().prop_map(Value::Enum).boxed(),
        optional(any::<char>(), Value::Char),
        optional(any::<Vec<u8>>(), Value::Bytes),
        optional(tree().prop_map(Box::new), Value::Json),
        optional(date(), Value::ChronoDate),
        optional(time_of_day(), Value::ChronoTime),
        optional(date_time(), Value::ChronoDateTime),
        optional(
            date_time().prop_map(|t| t.and_utc()),
            Value::ChronoDateTimeUtc,
        ),
        optional(
            date_time().prop_map(|t| Local.from_utc_datetime(&t)),
            Value::ChronoDateTimeLocal,
        ),
        optional(zoned(), Value::ChronoDateTimeWithTimeZone),
        optional(time_date(), Value::TimeDate),
        optional(time_time(), Value::TimeTime),
        optional(time_date_time(), Value::TimeDateTime),
        optional(time_zoned(), Value::TimeDateTimeWithTimeZone),
        optional(any::<u128>().prop_map(Uuid::from_u128), Value::Uuid),
        optional(decimal(), Value::Decimal),
    ];
    all.extend(extra());
    all
}

fn extra() -> Vec<BoxedStrategy<Value>> {
    vec![
        #[cfg(feature = "with-bigdecimal")]
        optional((any::<i128>(), any::<i64>()), |v| {
            use sea_orm::prelude::BigDecimal;
            Value::BigDecimal(
                v.map(|(digits, scale)| Box::new(BigDecimal::new(digits.into(), scale))),
            )
        }),
        #[cfg(feature = "with-ipnetwork")]
        optional((any::<std::net::IpAddr>(), 0u8..=32), |v| {
            use sea_orm::prelude::IpNetwork;
            Value::IpNetwork(v.map(|(ip, prefix)| IpNetwork::new(ip, prefix).unwrap()))
        }),
        #[cfg(feature = "with-mac_address")]
        optional(any::<[u8; 6]>(), |v| Value::MacAddress(v.map(Into::into))),
    ]
}

fn array_type() -> impl Strategy<Value = ArrayType> {
    prop_oneof![
        proptest::sample::select(value::ARRAY_TYPES).prop_map(|(array_type, _)| array_type),
        any::<String>().prop_map(|name| ArrayType::Enum(Box::new(name.into()))),
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    proptest::strategy::Union::new(scalars()).prop_recursive(3, 32, 8, |inner| {
        (array_type(), proptest::option::of(vec(inner, 0..8)))
            .prop_map(|(array_type, values)| Value::Array(array_type, values.map(Box::new)))
    })
}

proptest! {
    #[test]
    fn every_type_survives_a_round_trip(values in scalars()) {
        values.into_iter().for_each(assert_round_trip);
    }

    #[test]
    fn arrays_of_anything_survive_a_round_trip(value in any_value()) {
        assert_round_trip(value);
    }

    #[test]
    fn bytes_cut_short_are_truncated(value in any_value()) {
        let bytes = encode(&value);
        for end in 0..bytes.len() {
            prop_assert_eq!(decode(&bytes[..end]), Err(CodecError::Truncated), "{}", end);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let mut reader = Reader::new(&bytes);
        while reader.value().is_ok() {}
    }

    #[test]
    fn a_changed_byte_never_panics(value in any_value(), at: prop::sample::Index, byte: u8) {
        let mut bytes = encode(&value);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Reader::new(&bytes).value();
    }

    #[test]
    fn varints_survive_a_round_trip(n: u64, signed: i64) {
        let mut out = Vec::new();
        put_varint(&mut out, n);
        put_signed(&mut out, signed);
        let mut reader = Reader::new(&out);
        prop_assert_eq!((reader.varint(), reader.signed()), (Ok(n), Ok(signed)));
        prop_assert!(reader.is_empty());
    }
}

#[test]
fn every_tag_with_any_content_never_panics() {
    for tag in 0..=u8::MAX {
        for fill in [0, 1, 0x7F, 0x80, 0xFF] {
            let mut bytes = vec![fill; 40];
            bytes[0] = tag;
            let _ = Reader::new(&bytes).value();
        }
    }
}

#[test]
fn small_values_take_few_bytes() {
    assert_eq!(encode(&Value::Int(None)).len(), 1);
    assert_eq!(encode(&Value::BigInt(Some(-64))).len(), 2);
    assert_eq!(encode(&"Oslo".into()).len(), 6);
    assert_eq!(encode(&json!({"a": [1, null]}).into()).len(), 10);
}

#[test]
fn the_bits_of_floats_are_kept() {
    for bits in [
        0,
        1 << 63,
        0x7FF8_0000_0000_0001,
        0xFFF0_0000_0000_0001,
        u64::MAX,
    ] {
        let decoded = decode(&encode(&f64::from_bits(bits).into())).unwrap();
        let Value::Double(Some(x)) = decoded else {
            panic!("{decoded:?}")
        };
        assert_eq!(x.to_bits(), bits);
    }
    for bits in [0, 1 << 31, 0x7FC0_0001, 0xFF80_0001, u32::MAX] {
        let decoded = decode(&encode(&f32::from_bits(bits).into())).unwrap();
        let Value::Float(Some(x)) = decoded else {
            panic!("{decoded:?}")
        };
        assert_eq!(x.to_bits(), bits);
    }
}

#[test]
fn the_first_and_the_last_instants_are_kept() {
    for utc in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC] {
        assert_round_trip(utc.into());
        assert_round_trip(utc.naive_utc().into());
        for offset in [-86_399, 0, 86_399] {
            let zone = FixedOffset::east_opt(offset).unwrap();
            let value = Value::from(utc.with_timezone(&zone));
            assert_eq!(decode(&encode(&value)).unwrap(), value);
        }
        let local = Value::from(Local.from_utc_datetime(&utc.naive_utc()));
        assert_eq!(decode(&encode(&local)).unwrap(), local);
    }
}

#[test]
fn leap_seconds_are_kept() {
    let leap = NaiveTime::from_hms_nano_opt(23, 59, 59, 1_999_999_999).unwrap();
    assert_round_trip(leap.into());
    assert_round_trip(
        NaiveDate::from_ymd_opt(2016, 12, 31)
            .unwrap()
            .and_time(leap)
            .into(),
    );
}

#[test]
fn the_scale_and_the_sign_of_decimals_are_kept() {
    for text in ["1.00", "-0.0", "0.0000000000000000000000000001"] {
        assert_round_trip(Decimal::from_str_exact(text).unwrap().into());
    }
    assert_round_trip(Decimal::MIN.into());
}

#[test]
fn numbers_in_json_are_exact() {
    assert_round_trip(
        json!([
            u64::MAX,
            i64::MIN,
            0,
            -0.0,
            1.0,
            0.1 + 0.2,
            5e-324,
            f64::MAX
        ])
        .into(),
    );
    assert_round_trip(Value::Json(Some(Box::new(Json::Null))));
}

#[test]
fn dates_out_of_range_are_corrupt() {
    let no_day = [0, 367, 511, i32::MIN, i32::MAX].map(|day| day.to_le_bytes().to_vec());
    let of_day = |second: u64| (second << 31).to_le_bytes()[..6].to_vec();
    let nanos = |nano: u64| nano.to_le_bytes()[..6].to_vec();
    let cases = [
        (Value::ChronoDate(Some(NaiveDate::MAX)), no_day.to_vec()),
        (Value::TimeDate(Some(Date::MAX)), no_day.to_vec()),
        // A day of seconds and more, a second of two and more.
        (
            Value::ChronoTime(Some(NaiveTime::MIN)),
            vec![of_day(86_400), nanos(2_000_000_000)],
        ),
        // An hour, a minute, a second too many.
        (
            Value::TimeTime(Some(Time::MIDNIGHT)),
            vec![
                of_day(24 << 12),
                of_day(60 << 6),
                of_day(60),
                nanos(1_000_000_000),
            ],
        ),
    ];
    for (value, contents) in cases {
        for content in contents {
            let bytes = [vec![encode(&value)[0]], content].concat();
            let error = Reader::new(&bytes).value().unwrap_err();
            assert!(matches!(error, CodecError::Corrupt(_)), "{bytes:?} {error}");
        }
    }
}

#[test]
fn malformed_contents_are_corrupt() {
    let head = |value: Value| encode(&value)[0];
    for bytes in [
        vec![0xFF],
        vec![head(true.into()) + 1],
        vec![head(0i8.into()) + 1, 0x80, 0x02],
        vec![head(0u8.into()) + 1, 0x00, 0x01],
        vec![head('x'.into()) + 1, 0x00, 0xD8],
        vec![head("x".into()), 1, 0xFF],
        [vec![head(Decimal::ONE.into())], vec![0xFF; 16]].concat(),
        [
            vec![head(json!(1.5).into()), 5],
            f64::NAN.to_le_bytes().to_vec(),
        ]
        .concat(),
        vec![head(json!(null).into()), 6, 1, b'x'],
        vec![head(json!(null).into()), 200],
        vec![head(json!(null).into()) + 1, 0],
        [vec![head(1.5f64.into()) + 1], vec![0; 8]].concat(),
        [vec![head(Uuid::nil().into()) + 6], vec![0; 16]].concat(),
    ] {
        let error = Reader::new(&bytes).value().unwrap_err();
        assert!(matches!(error, CodecError::Corrupt(_)), "{bytes:?} {error}");
    }
}

#[test]
fn a_number_takes_as_many_bytes_as_it_needs_and_is_read_at_the_end_and_before_more() {
    for shift in 0..64 {
        for n in [1u64 << shift, u64::MAX >> shift] {
            let mut bytes = encode(&n.into());
            let least = (64 - n.leading_zeros()).div_ceil(8);
            assert_eq!(bytes.len() as u32, 1 + least + u32::from(least == 7));
            assert_round_trip(n.into());
            bytes.extend_from_slice(&[0xFF; 8]);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.value(), Ok(n.into()));
            assert_eq!(reader.rest(), [0xFF; 8]);
        }
    }
}

#[test]
fn a_claimed_length_beyond_the_bytes_is_an_error_and_reserves_nothing() {
    let truncated = |bytes: Vec<u8>| {
        let taken = Reader::new(&bytes).value();
        assert_eq!(taken, Err(CodecError::Truncated), "{bytes:?}");
    };
    for length in [1 << 60, u64::MAX, 100] {
        for start in [
            encode(&Value::Array(ArrayType::Int, Some(Box::default())))[..2].to_vec(),
            vec![encode(&json!([]).into())[0], 8],
            vec![encode(&json!({}).into())[0], 9],
        ] {
            let mut bytes = start;
            put_varint(&mut bytes, length);
            truncated(bytes);
        }
        for empty in ["".into(), Value::from(vec![0u8; 0])] {
            let widest = encode(&empty)[0] | 7;
            truncated([&[widest][..], &length.to_le_bytes()].concat());
        }
    }
}

fn nested_json(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!([inner])).into()
}

fn nested_array(depth: usize) -> Value {
    (0..depth).fold(Value::from(1i32), |inner, _| {
        Value::Array(ArrayType::Int, Some(Box::new(vec![inner])))
    })
}

#[test]
fn nesting_is_bounded_both_ways() {
    for nested in [nested_json, nested_array] {
        assert_round_trip(nested(DEEPEST));
        let error = put_value(&mut Vec::new(), &nested(DEEPEST + 1)).unwrap_err();
        assert!(matches!(error, CodecError::Unsupported(_)));
    }
    let json = [vec![encode(&json!(1).into())[0]], [8, 1].repeat(100_000)].concat();
    let array = encode(&nested_array(1))[..3].repeat(100_000);
    for bytes in [json, array] {
        let error = Reader::new(&bytes).value().unwrap_err();
        assert!(matches!(error, CodecError::Corrupt(_)));
    }
}
