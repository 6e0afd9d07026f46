//! The code that the derive writes, beside the way through SeaORM's values: the same bytes, the same
//! models, the same verdicts.

use super::super::row::{ByValue as _, Column, Field, put_by_value, take_by_value};
use super::super::scalar::Scalar;
use super::rows::{Damage, Name, bare, columns_of, damage, everything, full, row_of};
use super::*;

/// A key, and one column for each strategy of [`scalars`] that SeaORM has a type for, in their order.
mod options {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "options")]
    #[cached(hooks = false)]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub boolean: Option<bool>,
        pub tiny: Option<i8>,
        pub small: Option<i16>,
        pub int: Option<i32>,
        pub big: Option<i64>,
        pub tiny_unsigned: Option<u8>,
        pub small_unsigned: Option<u16>,
        pub unsigned: Option<u32>,
        pub big_unsigned: Option<u64>,
        pub float: Option<f32>,
        pub double: Option<f64>,
        pub text: Option<String>,
        pub bytes: Option<Vec<u8>>,
        pub json: Option<Json>,
        pub chrono_date: Option<ChronoDate>,
        pub chrono_time: Option<ChronoTime>,
        pub chrono_date_time: Option<ChronoDateTime>,
        pub chrono_utc: Option<ChronoDateTimeUtc>,
        pub chrono_local: Option<ChronoDateTimeLocal>,
        pub chrono_zoned: Option<ChronoDateTimeWithTimeZone>,
        pub time_date: Option<TimeDate>,
        pub time_time: Option<TimeTime>,
        pub time_date_time: Option<TimeDateTime>,
        pub time_zoned: Option<TimeDateTimeWithTimeZone>,
        pub uuid: Option<Uuid>,
        pub decimal: Option<Decimal>,
        #[cfg(feature = "with-bigdecimal")]
        pub big_decimal: Option<BigDecimal>,
        #[cfg(feature = "with-ipnetwork")]
        pub network: Option<IpNetwork>,
        #[cfg(feature = "with-mac_address")]
        pub mac: Option<sea_orm::sea_query::value::prelude::MacAddress>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The values of a row of `options`.
fn row_of_options() -> impl Strategy<Value = Vec<Value>> {
    let mut columns = scalars();
    // The enum and the character.
    columns.drain(12..14);
    columns.insert(0, any::<i64>().prop_map(Value::from).boxed());
    columns
}

/// What a decoder makes of bytes: the row as `Debug` shows it, which tells more than `==`, and what
/// is left.
type Verdict = Result<(String, usize), CodecError>;

fn verdict<M: Debug>(
    take: impl FnOnce(&mut Reader<'_>) -> Result<M, CodecError>,
    bytes: &[u8],
) -> Verdict {
    let mut reader = Reader::new(bytes);
    let model = take(&mut reader)?;
    Ok((format!("{model:?}"), reader.rest().len()))
}

/// Both verdicts, which are one.
fn agreed<E: RowCodec>(bytes: &[u8]) -> Verdict {
    let generated = verdict(E::take_row, bytes);
    assert_eq!(generated, verdict(take_by_value::<E>, bytes));
    generated
}

/// The bytes of a row, which are the same either way, and of which both make the same row.
fn agreed_bytes<E: RowCodec>(model: &E::Model) -> Vec<u8> {
    let (mut generated, mut by_value) = (Vec::new(), Vec::new());
    E::put_row(&mut generated, model).unwrap();
    put_by_value::<E>(&mut by_value, model).unwrap();
    assert_eq!(generated, by_value);
    let (_, left) = agreed::<E>(&generated).unwrap();
    assert_eq!(left, 0);
    generated
}

proptest! {
    #[test]
    fn rows_of_all_plain_types_are_the_bytes_of_their_values(row in row_of_options()) {
        let bytes = row_of(&row);
        let model = options::Entity::take_row(&mut Reader::new(&bytes)).unwrap();
        prop_assert_eq!(agreed_bytes::<options::Entity>(&model), bytes);
    }

    #[test]
    fn a_value_of_any_type_in_any_column_has_one_verdict(
        at: prop::sample::Index,
        value in any_value(),
        whole: bool,
    ) {
        let model = if whole { full() } else { bare() };
        let mut row = columns_of(&agreed_bytes::<everything::Entity>(&model));
        let at = at.index(row.len());
        row[at] = value;
        agreed::<everything::Entity>(&row_of(&row)).ok();
    }

    #[test]
    fn a_value_of_another_type_is_corrupt(row in row_of_options(), at: prop::sample::Index) {
        let at = at.index(row.len());
        let mut other = row.clone();
        other[at] = row[(at + 2) % row.len()].clone();
        let verdict = agreed::<options::Entity>(&row_of(&other));
        let corrupt = CodecError::Corrupt("a value is not of its column's type");
        prop_assert_eq!(verdict, Err(corrupt));
    }

    #[test]
    fn damaged_rows_have_one_verdict(
        damages in vec((any::<prop::sample::Index>(), damage()), 1..4),
    ) {
        let mut bytes = agreed_bytes::<everything::Entity>(&full());
        for (at, damage) in damages {
            let at = at.index(bytes.len() + 1).min(bytes.len());
            Damage::of(&damage, &mut bytes, at);
        }
        agreed::<everything::Entity>(&bytes).ok();
    }

    #[test]
    fn damaged_rows_of_plain_types_have_one_verdict(
        row in row_of_options(),
        at: prop::sample::Index,
        damage in damage(),
    ) {
        let mut bytes = row_of(&row);
        let at = at.index(bytes.len());
        Damage::of(&damage, &mut bytes, at);
        agreed::<options::Entity>(&bytes).ok();
    }
}

#[test]
fn rows_cut_short_or_of_nulls_have_one_verdict() {
    let bytes = agreed_bytes::<everything::Entity>(&full());
    for end in 0..bytes.len() {
        let cut = agreed::<everything::Entity>(&bytes[..end]);
        assert_eq!(cut, Err(CodecError::Truncated), "{end}");
    }
    let row = columns_of(&agreed_bytes::<everything::Entity>(&bare()));
    for (at, value) in row.iter().enumerate() {
        let mut row = row.clone();
        row[at] = value.as_null();
        let verdict = agreed::<everything::Entity>(&row_of(&row));
        // The columns that take NULL hold it already.
        assert_eq!(verdict.is_ok(), row[at] == *value, "{value:?}");
    }
}

#[test]
fn plain_types_and_options_of_them_do_not_go_through_values() {
    // What a `Value` answers for any type.
    const GUESS: usize = 32;
    assert_ne!(Field::<i64>::of(&0).most(), GUESS);
    assert_ne!(Field::<Option<ChronoUtc>>::of(&None).most(), GUESS);
    assert_ne!(Field::<String>::of(&String::new()).most(), GUESS);
    assert_ne!(Field::<Json>::of(&Json::Null).most(), GUESS);
    assert_eq!(Field::<Name>::of(&Name(String::new())).most(), GUESS);
    assert_eq!(Field::<Option<Name>>::of(&None).most(), GUESS);
    assert_eq!(Field::<Vec<i32>>::of(&vec![]).most(), GUESS);
}

type ChronoUtc = DateTime<Utc>;

#[test]
fn no_scalar_takes_more_room_than_was_reserved_for_it() {
    fn check<T: Scalar + Debug>(values: impl IntoIterator<Item = T>) {
        for value in values {
            let mut out = Vec::new();
            Scalar::put(&value, &mut out).unwrap();
            assert!(out.len() <= Scalar::most(&value), "{value:?}");
        }
    }
    let instants = [NaiveDateTime::MIN, NaiveDateTime::MAX];
    let zone = |seconds| FixedOffset::east_opt(seconds).unwrap();
    check([true]);
    check([i8::MIN, i8::MAX]);
    check([i16::MIN, i16::MAX]);
    check([i32::MIN, i32::MAX]);
    check([i64::MIN, i64::MAX]);
    check([u8::MAX]);
    check([u16::MAX]);
    check([u32::MAX]);
    check([u64::MAX]);
    check([f32::MAX]);
    check([f64::MAX]);
    check([char::MAX]);
    check([String::new(), "x".repeat(1 << 20)]);
    check([vec![], vec![0; 1 << 20]]);
    check([Uuid::max()]);
    check([Decimal::MIN]);
    check(instants.map(|instant| instant.date()));
    check([NaiveTime::from_hms_nano_opt(23, 59, 59, 1_999_999_999).unwrap()]);
    check(instants);
    check(instants.map(|instant| instant.and_utc()));
    check(instants.map(|instant| Local.from_utc_datetime(&instant)));
    check([DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC].map(|t| t.with_timezone(&zone(0))));
    check([-86_399, 86_399].map(|seconds| zone(seconds).from_utc_datetime(&instants[0])));
    check([Date::MIN, Date::MAX]);
    check([Time::MAX]);
    check([PrimitiveDateTime::MIN, PrimitiveDateTime::MAX]);
    check([PrimitiveDateTime::MIN, PrimitiveDateTime::MAX].map(|t| t.assume_utc()));
}

/// What SeaORM's attributes say does not change a row.
mod attributes {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[sea_orm::compact_model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "attributes", rename_all = "camelCase")]
    #[cached(hooks = false)]
    pub struct Model {
        #[sea_orm(ignore)]
        pub first: Option<String>,
        #[sea_orm(primary_key, auto_increment = false)]
        pub r#type: String,
        #[sea_orm(select_as = "text", save_as = "citext")]
        pub folded: String,
        #[sea_orm(column_name = "other", enum_name = "Another")]
        pub renamed: i32,
        #[sea_orm(ignore)]
        pub ignored: Vec<String>,
        #[sea_orm(column_type = "JsonBinary", nullable)]
        pub json: Option<Json>,
        pub strange: super::Named<i64>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// A name for a type that is plain.
type Named<T> = Option<T>;

#[test]
fn attributes_do_not_change_a_row_and_ignored_fields_have_their_default() {
    let model = attributes::Model {
        first: None,
        r#type: "t".to_owned(),
        folded: "Folded".to_owned(),
        renamed: 7,
        ignored: vec![],
        json: Some(json!({"a": 1})),
        strange: Some(1),
    };
    let bytes = agreed_bytes::<attributes::Entity>(&attributes::Model {
        first: Some("by hand".to_owned()),
        ignored: vec!["by hand".to_owned()],
        ..model.clone()
    });
    let decoded = attributes::Entity::take_row(&mut Reader::new(&bytes));
    assert_eq!(decoded, Ok(model));
}

/// The expanded format, its columns in another order than the fields.
mod expanded {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[derive(Copy, Clone, Default, Debug, DeriveEntity)]
    pub struct Entity;

    impl EntityName for Entity {
        fn table_name(&self) -> &'static str {
            "expanded"
        }
    }

    #[derive(Clone, Debug, PartialEq, DeriveModel, DeriveActiveModel, CachedEntity)]
    #[cached(hooks = false)]
    pub struct Model {
        pub id: i64,
        pub one: String,
        pub other: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveColumn)]
    pub enum Column {
        Other,
        Id,
        One,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DerivePrimaryKey)]
    pub enum PrimaryKey {
        Id,
    }

    impl PrimaryKeyTrait for PrimaryKey {
        type ValueType = i64;
        fn auto_increment() -> bool {
            true
        }
    }

    impl ColumnTrait for Column {
        type EntityName = Entity;
        fn def(&self) -> ColumnDef {
            match self {
                Self::Id => ColumnType::BigInteger.def(),
                Self::One | Self::Other => ColumnType::Text.def(),
            }
        }
    }

    #[derive(Copy, Clone, Debug, EnumIter)]
    pub enum Relation {}

    impl RelationTrait for Relation {
        fn def(&self) -> RelationDef {
            match *self {}
        }
    }

    impl ActiveModelBehavior for ActiveModel {}
}

#[test]
fn rows_are_in_the_order_of_the_columns_where_the_user_lists_them() {
    let model = expanded::Model {
        id: 1,
        one: "one".to_owned(),
        other: "other".to_owned(),
    };
    let bytes = agreed_bytes::<expanded::Entity>(&model);
    let expected = ["other".into(), Value::from(1i64), "one".into()];
    assert_eq!(columns_of(&bytes), expected);
}

fn heap_size_of<E: RowCodec>(change: impl FnOnce(&mut E::Model), model: &E::Model) -> usize {
    let mut changed = model.clone();
    change(&mut changed);
    E::heap_size(&changed) - E::heap_size(model)
}

#[test]
fn a_row_owns_what_its_fields_own() {
    type Change = fn(&mut everything::Model);
    let model = everything::Model {
        text: String::new(),
        bytes: Vec::new(),
        json: Json::Null,
        ints: Vec::new(),
        texts: Vec::new(),
        name: Name(String::new()),
        ..bare()
    };
    let changes: [(Change, std::ops::RangeInclusive<usize>); 10] = [
        (|m| m.int = 7, 0..=0),
        (|m| m.ignored = "not counted".to_owned(), 0..=0),
        (|m| m.text.reserve_exact(100), 100..=100),
        (|m| m.bytes.reserve_exact(100), 100..=100),
        (|m| m.maybe_text = Some("12345".to_owned()), 5..=5),
        (|m| m.name = Name("12345".to_owned()), 5..=5),
        (|m| m.maybe_uuid = Some(Uuid::nil()), 0..=0),
        (|m| m.ints = vec![1; 10], 40..=40),
        (|m| m.texts = vec!["12345".to_owned(); 2], 58..=58),
        (|m| m.json = json!({"name": [1, "12345"]}), 100..=300),
    ];
    for (nth, (change, expected)) in changes.into_iter().enumerate() {
        let owned = heap_size_of::<everything::Entity>(change, &model);
        assert!(expected.contains(&owned), "{nth}: {owned}");
    }
}
