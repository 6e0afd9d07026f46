//! Rows of an entity that has every type of column.

use sea_orm::entity::prelude::*;
use sea_orm::{FromJsonQueryResult, Set};
use serde::{Deserialize, Serialize};

use super::super::row::put_values;
use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "String(StringLen::N(1))")]
pub enum Grade {
    #[sea_orm(string_value = "A")]
    Good,
    #[sea_orm(string_value = "B")]
    Bad,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "i32", db_type = "Integer")]
pub enum Level {
    #[sea_orm(num_value = 0)]
    Low,
    #[sea_orm(num_value = 10)]
    High,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "Enum", db_type = "Enum", enum_name = "mood")]
pub enum Mood {
    #[sea_orm(string_value = "happy")]
    Happy,
    #[sea_orm(string_value = "sad")]
    Sad,
}

#[derive(Clone, Debug, PartialEq, Eq, DeriveValueType)]
pub struct Name(pub String);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, FromJsonQueryResult)]
pub struct Settings {
    #[serde(rename = "t")]
    theme: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    size: Option<f64>,
    #[serde(flatten)]
    rest: std::collections::BTreeMap<String, Json>,
}

pub(super) mod everything {
    use super::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, sea_orm_cache::CachedEntity)]
    #[sea_orm(table_name = "everything")]
    #[cached(hooks = false)]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub boolean: bool,
        pub tiny: i8,
        pub small: i16,
        pub int: i32,
        pub tiny_unsigned: u8,
        pub small_unsigned: u16,
        pub unsigned: u32,
        pub big_unsigned: u64,
        pub float: f32,
        pub double: f64,
        pub text: String,
        pub bytes: Vec<u8>,
        pub json: Json,
        pub chrono_date: ChronoDate,
        pub chrono_time: ChronoTime,
        pub chrono_date_time: ChronoDateTime,
        pub chrono_utc: ChronoDateTimeUtc,
        pub chrono_local: ChronoDateTimeLocal,
        pub chrono_zoned: ChronoDateTimeWithTimeZone,
        pub time_date: TimeDate,
        pub time_time: TimeTime,
        pub time_date_time: TimeDateTime,
        pub time_zoned: TimeDateTimeWithTimeZone,
        pub uuid: Uuid,
        pub decimal: Decimal,
        pub grade: Grade,
        pub level: Level,
        pub mood: Mood,
        pub name: Name,
        pub settings: Settings,
        pub ints: Vec<i32>,
        pub texts: Vec<String>,
        pub moods: Vec<Mood>,
        pub grades: Vec<Grade>,
        #[sea_orm(column_name = "renamed")]
        pub original: String,
        #[sea_orm(ignore)]
        pub ignored: String,
        pub maybe_int: Option<i32>,
        pub maybe_text: Option<String>,
        pub maybe_json: Option<Json>,
        pub maybe_utc: Option<ChronoDateTimeUtc>,
        pub maybe_uuid: Option<Uuid>,
        pub maybe_decimal: Option<Decimal>,
        pub maybe_grade: Option<Grade>,
        pub maybe_level: Option<Level>,
        pub maybe_mood: Option<Mood>,
        pub maybe_name: Option<Name>,
        pub maybe_settings: Option<Settings>,
        pub maybe_ints: Option<Vec<i32>>,
    }

    impl ActiveModelBehavior for ActiveModel {
        /// What a row must not pick up.
        fn new() -> Self {
            Self {
                name: Set(Name("from new".to_owned())),
                ..<Self as ActiveModelTrait>::default()
            }
        }
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        theme: "dark".to_owned(),
        size: None,
        rest: [("x".to_owned(), json!([0.1]))].into(),
    }
}

pub(super) fn bare() -> everything::Model {
    let utc = ChronoDateTimeUtc::from_timestamp(1_700_000_000, 123_456_789).unwrap();
    let zoned = utc.with_timezone(&FixedOffset::east_opt(5 * 3600 + 1800).unwrap());
    let offset = UtcOffset::from_hms(-3, -30, 0).unwrap();
    let time_zoned = OffsetDateTime::UNIX_EPOCH.to_offset(offset);
    everything::Model {
        id: -7,
        boolean: true,
        tiny: i8::MIN,
        small: i16::MIN,
        int: i32::MIN,
        tiny_unsigned: u8::MAX,
        small_unsigned: u16::MAX,
        unsigned: u32::MAX,
        big_unsigned: u64::MAX,
        float: f32::MIN_POSITIVE,
        double: f64::INFINITY,
        text: "h\0é".to_owned(),
        bytes: vec![0, 255],
        json: json!({"b": 1, "a": [null, 0.1]}),
        chrono_date: utc.date_naive(),
        chrono_time: utc.time(),
        chrono_date_time: utc.naive_utc(),
        chrono_utc: utc,
        chrono_local: utc.into(),
        chrono_zoned: zoned,
        time_date: time_zoned.date(),
        time_time: time_zoned.time(),
        time_date_time: PrimitiveDateTime::new(time_zoned.date(), time_zoned.time()),
        time_zoned,
        uuid: Uuid::from_u128(1),
        decimal: Decimal::new(100, 2),
        grade: Grade::Bad,
        level: Level::High,
        mood: Mood::Sad,
        name: Name("n".to_owned()),
        settings: settings(),
        ints: vec![1, -1],
        texts: vec![],
        moods: vec![Mood::Happy, Mood::Sad],
        grades: vec![Grade::Good],
        original: "o".to_owned(),
        ignored: String::new(),
        maybe_int: None,
        maybe_text: None,
        maybe_json: None,
        maybe_utc: None,
        maybe_uuid: None,
        maybe_decimal: None,
        maybe_grade: None,
        maybe_level: None,
        maybe_mood: None,
        maybe_name: None,
        maybe_settings: None,
        maybe_ints: None,
    }
}

pub(super) fn full() -> everything::Model {
    everything::Model {
        maybe_int: Some(0),
        maybe_text: Some(String::new()),
        maybe_json: Some(Json::Null),
        maybe_utc: Some(ChronoDateTimeUtc::UNIX_EPOCH),
        maybe_uuid: Some(Uuid::nil()),
        maybe_decimal: Some(Decimal::ZERO),
        maybe_grade: Some(Grade::Good),
        maybe_level: Some(Level::Low),
        maybe_mood: Some(Mood::Happy),
        maybe_name: Some(Name(String::new())),
        maybe_settings: Some(settings()),
        maybe_ints: Some(vec![]),
        ..bare()
    }
}

pub(super) fn encode_row<M: ModelTrait<Entity: RowCodec<Model = M>>>(model: &M) -> Vec<u8> {
    let mut out = Vec::new();
    put_row(&mut out, model).unwrap();
    out
}

/// The bytes of a row of these values, of whatever types.
pub(super) fn row_of(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    put_values(&mut out, values).unwrap();
    out
}

/// The values of a row of whatever types.
pub(super) fn columns_of(bytes: &[u8]) -> Vec<Value> {
    let values = |reader: &mut Reader<'_>| {
        let next = || (!reader.is_empty()).then(|| value::take_column(reader));
        std::iter::from_fn(next).collect()
    };
    Reader::new(bytes).row(values).unwrap()
}

fn decode_row(bytes: &[u8]) -> Result<everything::Model, CodecError> {
    row::<everything::Entity>(&mut Reader::new(bytes))
}

#[test]
fn rows_of_every_type_survive_a_round_trip() {
    for model in [bare(), full()] {
        assert_same(&decode_row(&encode_row(&model)).unwrap(), &model);
    }
}

#[test]
fn rows_follow_each_other_without_a_gap() {
    let bytes = [encode_row(&bare()), encode_row(&full())].concat();
    let mut reader = Reader::new(&bytes);
    assert_eq!(row::<everything::Entity>(&mut reader), Ok(bare()));
    assert_eq!(row::<everything::Entity>(&mut reader), Ok(full()));
    assert!(reader.is_empty());
}

#[test]
fn ignored_fields_have_their_default() {
    let model = everything::Model {
        ignored: "set by hand".to_owned(),
        ..bare()
    };
    assert_eq!(decode_row(&encode_row(&model)), Ok(bare()));
}

#[test]
fn rows_cut_short_are_truncated() {
    let bytes = encode_row(&full());
    for end in 0..bytes.len() {
        assert_eq!(
            decode_row(&bytes[..end]),
            Err(CodecError::Truncated),
            "{end}"
        );
    }
}

#[test]
fn a_null_in_a_column_without_nulls_is_corrupt() {
    let mut row = columns_of(&encode_row(&bare()));
    row[0] = Value::BigInt(None);
    let corrupt = CodecError::Corrupt("a value is not of its column's type");
    assert_eq!(decode_row(&row_of(&row)), Err(corrupt));
}

#[test]
fn a_row_whose_texts_are_not_those_of_its_columns_is_corrupt() {
    let model = serde_attributes::Model {
        id: 1,
        renamed: "ä".to_owned(),
        password_hash: "b".to_owned(),
        secret: None,
    };
    let bytes = encode_row(&model);
    let decode = |bytes: &[u8]| row::<serde_attributes::Entity>(&mut Reader::new(bytes));
    assert_eq!(decode(&bytes).as_ref(), Ok(&model));
    // Behind the three bytes of text and the key: how long the first text is.
    let at = 2 + 3 + 2 + 1;
    let corrupt = |reason| Err(CodecError::Corrupt(reason));
    for length in [0, 1, 3, 4] {
        let mut bytes = bytes.clone();
        bytes[at] = length;
        assert_eq!(decode(&bytes), corrupt("a text is not among its row's"));
    }
    let mut short = bytes.clone();
    short[at + 2] = 0;
    assert_eq!(decode(&short), corrupt("a text is no column's"));
    let mut bytes = bytes;
    bytes[2] = 0xFF;
    assert_eq!(decode(&bytes), corrupt("text is not UTF-8"));
    bytes[0] = 0;
    assert_eq!(decode(&bytes), corrupt("no row starts so"));
}

mod serde_attributes {
    use super::*;

    #[sea_orm::model]
    #[derive(
        Clone,
        Debug,
        PartialEq,
        DeriveEntityModel,
        Serialize,
        Deserialize,
        sea_orm_cache::CachedEntity,
    )]
    #[sea_orm(table_name = "user")]
    #[cached(hooks = false)]
    pub struct Model {
        #[sea_orm(primary_key)]
        #[serde(skip_deserializing)]
        pub id: i32,
        #[serde(rename(serialize = "out", deserialize = "in"))]
        pub renamed: String,
        #[serde(skip)]
        pub password_hash: String,
        #[serde(skip_serializing, default)]
        pub secret: Option<String>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

#[test]
fn the_serde_attributes_of_a_model_do_not_matter() {
    let model = serde_attributes::Model {
        id: 1,
        renamed: "r".to_owned(),
        password_hash: "hash".to_owned(),
        secret: Some("s".to_owned()),
    };
    let bytes = encode_row(&model);
    let decoded = row::<serde_attributes::Entity>(&mut Reader::new(&bytes));
    assert_eq!(decoded, Ok(model));
}

/// Entities that differ in one thing each, and one that does not differ.
// SeaORM makes more of a model than these tests use.
#[allow(dead_code)]
mod shapes {
    macro_rules! shape {
        ($name:ident, $table:literal, $column:literal, $type:ty) => {
            pub mod $name {
                use sea_orm::entity::prelude::*;

                #[sea_orm::model]
                #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
                #[sea_orm(table_name = $table)]
                pub struct Model {
                    #[sea_orm(primary_key)]
                    pub id: i32,
                    #[sea_orm(column_name = $column)]
                    pub value: $type,
                }

                impl ActiveModelBehavior for ActiveModel {}

                impl crate::codec::RowCodec for Entity {}
            }
        };
    }
    shape!(one, "shape", "value", Vec<crate::codec::tests::rows::Grade>);
    shape!(
        same,
        "shape",
        "value",
        Vec<crate::codec::tests::rows::Grade>
    );
    shape!(
        table,
        "other",
        "value",
        Vec<crate::codec::tests::rows::Grade>
    );
    shape!(
        column,
        "shape",
        "other",
        Vec<crate::codec::tests::rows::Grade>
    );
    shape!(texts, "shape", "value", Vec<String>);
    shape!(ints, "shape", "value", Vec<i32>);
}

#[test]
fn fingerprints_tell_shapes_apart() {
    use std::collections::HashSet;
    let one = fingerprint::<shapes::one::Entity>();
    assert_eq!(one, fingerprint::<shapes::same::Entity>());
    let all: HashSet<u64> = [
        one,
        fingerprint::<shapes::table::Entity>(),
        fingerprint::<shapes::column::Entity>(),
        fingerprint::<shapes::texts::Entity>(),
        fingerprint::<shapes::ints::Entity>(),
        fingerprint::<everything::Entity>(),
    ]
    .map(|fingerprint| fingerprint.0)
    .into();
    assert_eq!(all.len(), 6);
    assert!(!all.contains(&0));
}

#[test]
fn an_enum_unknown_to_this_build_in_an_array_is_corrupt_and_no_panic() {
    let bytes = encode_row(&shapes::texts::Model {
        id: 1,
        value: vec!["A".to_owned(), "C".to_owned()],
    });
    let corrupt = CodecError::Corrupt("a value is not of its column's type");
    assert_eq!(
        row::<shapes::one::Entity>(&mut Reader::new(&bytes)),
        Err(corrupt)
    );
}

proptest! {
    #[test]
    fn a_changed_byte_in_a_row_never_panics(at: prop::sample::Index, byte: u8) {
        let mut bytes = encode_row(&full());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode_row(&bytes);
    }

    #[test]
    fn a_row_damaged_in_several_places_never_panics(
        damages in vec((any::<prop::sample::Index>(), damage()), 1..6),
    ) {
        let mut bytes = encode_row(&full());
        for (at, damage) in damages {
            let at = at.index(bytes.len() + 1).min(bytes.len());
            damage.of(&mut bytes, at);
        }
        let _ = decode_row(&bytes);
    }

    #[test]
    fn arbitrary_bytes_are_no_row(bytes in vec(any::<u8>(), 0..50)) {
        prop_assert!(decode_row(&bytes).is_err());
    }
}

#[derive(Debug, Clone)]
pub(super) enum Damage {
    Cut,
    Flip(u8),
    Insert(Vec<u8>),
    Remove(usize),
    /// A number, in the place of whatever number is there.
    Claim(u64),
}

pub(super) fn damage() -> impl Strategy<Value = Damage> {
    let claims = [0, 127, 128, 1 << 20, 1 << 32, 1 << 60, u64::MAX];
    prop_oneof![
        Just(Damage::Cut),
        (1u8..).prop_map(Damage::Flip),
        vec(any::<u8>(), 1..10).prop_map(Damage::Insert),
        (1usize..10).prop_map(Damage::Remove),
        prop::sample::select(claims.to_vec()).prop_map(Damage::Claim),
    ]
}

impl Damage {
    pub(super) fn of(&self, bytes: &mut Vec<u8>, at: usize) {
        let end = |length: usize, bytes: &[u8]| (at + length).min(bytes.len());
        match self {
            Self::Cut => bytes.truncate(at),
            Self::Flip(bits) => bytes
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|byte| *byte ^= bits),
            Self::Insert(more) => drop(bytes.splice(at..at, more.iter().copied())),
            Self::Remove(length) => drop(bytes.drain(at..end(*length, bytes))),
            Self::Claim(number) => {
                let mut varint = Vec::new();
                put_varint(&mut varint, *number);
                let over = at..end(1, bytes);
                drop(bytes.splice(over, varint));
            }
        }
    }
}

#[test]
fn a_claim_of_any_size_at_any_place_of_a_row_is_an_error_or_a_row() {
    let bytes = encode_row(&full());
    for at in 0..bytes.len() {
        for claim in [1 << 14, 1 << 32, 1 << 60, u64::MAX] {
            let mut claims = bytes.clone();
            Damage::Claim(claim).of(&mut claims, at);
            let _ = decode_row(&claims);
        }
    }
}
