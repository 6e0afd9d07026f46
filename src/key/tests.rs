use proptest::prelude::*;
use sea_orm::prelude::{ChronoDate, Decimal, TimeDate, Uuid};
use sea_orm::sea_query::{Alias, ColumnType, Enum, IntoIden, OptionEnum, StringLen, Value};

use super::*;

const BACKENDS: [DbBackend; 3] = [DbBackend::Postgres, DbBackend::MySql, DbBackend::Sqlite];
const KINDS: [ColumnKind; 9] = [
    ColumnKind::Integer,
    ColumnKind::Text,
    ColumnKind::Char,
    ColumnKind::CiText,
    ColumnKind::Uuid,
    ColumnKind::Bytes,
    ColumnKind::Decimal,
    ColumnKind::Date,
    ColumnKind::Other,
];

fn part(kind: ColumnKind, value: impl Into<Value>, backend: DbBackend) -> Option<String> {
    KeyPart::of([kind], [&value.into()], backend).map(|part| part.as_str().to_owned())
}

fn everywhere(kind: ColumnKind, value: impl Into<Value>) -> Option<String> {
    let value = value.into();
    let parts = BACKENDS.map(|backend| part(kind, value.clone(), backend));
    assert!(parts.iter().all(|p| *p == parts[0]), "{parts:?}");
    parts[0].clone()
}

fn enum_value(text: &str) -> Value {
    Value::Enum(OptionEnum::Some(Box::new(Enum {
        type_name: "mood".into(),
        value: text.to_owned().into(),
    })))
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn escape_keeps_words_and_hides_everything_else() {
    assert_eq!(escape("city-1_a.B"), "city-1_a.B");
    assert_eq!(escape("a:b{c}*%,@ é"), "a%3Ab%7Bc%7D%2A%25%2C%40%20%C3%A9");
    assert_eq!(escape(""), "");
}

#[test]
fn integers_of_any_width_and_booleans_share_a_part() {
    for value in [
        Value::from(1i8),
        1i16.into(),
        1i32.into(),
        1i64.into(),
        1u8.into(),
        1u16.into(),
        1u32.into(),
        1u64.into(),
        1f32.into(),
        1f64.into(),
        true.into(),
        "1".into(),
        Decimal::new(100, 2).into(),
        Decimal::ONE.into(),
    ] {
        assert_eq!(everywhere(ColumnKind::Integer, value), some("1"));
    }
    assert_eq!(
        everywhere(ColumnKind::Integer, i64::MIN),
        some("-9223372036854775808")
    );
    assert_eq!(
        everywhere(ColumnKind::Integer, u64::MAX),
        some("18446744073709551615")
    );
    assert_eq!(everywhere(ColumnKind::Integer, false), some("0"));
    assert_eq!(everywhere(ColumnKind::Integer, -0f64), some("0"));
    assert_eq!(
        everywhere(ColumnKind::Integer, Decimal::new(-0, 3)),
        some("0")
    );
    assert_eq!(everywhere(ColumnKind::Integer, "-362"), some("-362"));
}

#[test]
fn numbers_that_are_not_exact_integers_are_not_keyed() {
    for text in [
        "",
        "-",
        "+1",
        " 1",
        "1 ",
        "01",
        "-0",
        "1.0",
        "1e3",
        "0x1",
        "1234567890123456",
    ] {
        assert_eq!(everywhere(ColumnKind::Integer, text), None, "{text:?}");
    }
    for x in [
        0.5,
        f64::NAN,
        f64::INFINITY,
        9_007_199_254_740_992.0,
        -1e300,
    ] {
        assert_eq!(everywhere(ColumnKind::Integer, x), None, "{x}");
        assert_eq!(everywhere(ColumnKind::Decimal, x), None, "{x}");
    }
    assert_eq!(everywhere(ColumnKind::Integer, Decimal::new(15, 1)), None);
    assert_eq!(everywhere(ColumnKind::Decimal, Decimal::new(15, 1)), None);
    assert_eq!(everywhere(ColumnKind::Decimal, "1"), None);
    assert_eq!(everywhere(ColumnKind::Integer, vec![1u8]), None);
}

#[test]
fn whole_decimals_are_keyed_by_value() {
    for value in [
        Value::from(7i64),
        7u8.into(),
        7f64.into(),
        Decimal::new(7000, 3).into(),
    ] {
        assert_eq!(everywhere(ColumnKind::Decimal, value), some("7"));
    }
}

#[test]
fn large_decimals_are_not_keyed_where_they_are_kept_as_floats() {
    let large = Value::from(Decimal::from(1i64 << 53));
    for kind in [ColumnKind::Integer, ColumnKind::Decimal] {
        assert_eq!(part(kind, large.clone(), DbBackend::Sqlite), None);
        assert_eq!(
            part(kind, large.clone(), DbBackend::Postgres),
            some("9007199254740992")
        );
        assert_eq!(
            part(kind, large.clone(), DbBackend::MySql),
            some("9007199254740992")
        );
    }
    assert_eq!(
        part(ColumnKind::Decimal, 1i64 << 53, DbBackend::Sqlite),
        None
    );
}

#[test]
#[cfg(feature = "with-bigdecimal")]
fn whole_big_decimals_share_the_part_of_integers() {
    use sea_orm::prelude::BigDecimal;
    let big = |text: &str| Value::from(text.parse::<BigDecimal>().unwrap());
    assert_eq!(everywhere(ColumnKind::Integer, big("100.00")), some("100"));
    assert_eq!(everywhere(ColumnKind::Decimal, big("1e2")), some("100"));
    assert_eq!(everywhere(ColumnKind::Decimal, big("0.000")), some("0"));
    assert_eq!(everywhere(ColumnKind::Decimal, big("-7")), some("-7"));
    assert_eq!(everywhere(ColumnKind::Decimal, big("1.5")), None);
    assert_eq!(everywhere(ColumnKind::Decimal, big("1e1000000000")), None);
}

#[test]
fn text_is_exact_on_postgres_and_folded_elsewhere() {
    assert_eq!(
        part(ColumnKind::Text, "Ab c", DbBackend::Postgres),
        some("Ab%20c")
    );
    assert_eq!(
        part(ColumnKind::Text, "é\t", DbBackend::Postgres),
        some("%C3%A9%09")
    );
    for backend in [DbBackend::MySql, DbBackend::Sqlite] {
        for kind in [ColumnKind::Text, ColumnKind::Char, ColumnKind::CiText] {
            assert_eq!(part(kind, "Ab c  ", backend), some("ab%20c"));
            assert_eq!(part(kind, "é", backend), None);
            assert_eq!(part(kind, "a\tb", backend), None);
            assert_eq!(part(kind, "a\u{7f}", backend), None);
        }
    }
}

#[test]
fn postgres_varchar_may_cut_trailing_blanks_so_they_are_not_keyed() {
    assert_eq!(part(ColumnKind::Text, "a ", DbBackend::Postgres), None);
    assert_eq!(
        part(ColumnKind::Text, " a", DbBackend::Postgres),
        some("%20a")
    );
}

#[test]
fn padded_text_loses_its_blanks_and_citext_its_case() {
    assert_eq!(
        part(ColumnKind::Char, "Ab  ", DbBackend::Postgres),
        some("Ab")
    );
    assert_eq!(
        part(ColumnKind::Char, "é ", DbBackend::Postgres),
        some("%C3%A9")
    );
    assert_eq!(
        part(ColumnKind::CiText, "Ab ", DbBackend::Postgres),
        some("ab%20")
    );
    assert_eq!(part(ColumnKind::CiText, "É", DbBackend::Postgres), None);
}

#[test]
fn text_comes_from_strings_chars_and_enums_only() {
    assert_eq!(everywhere(ColumnKind::Text, "x"), some("x"));
    assert_eq!(everywhere(ColumnKind::Text, 'x'), some("x"));
    assert_eq!(everywhere(ColumnKind::Text, enum_value("x")), some("x"));
    assert_eq!(everywhere(ColumnKind::Text, 1i32), None);
    assert_eq!(everywhere(ColumnKind::Text, b"x".to_vec()), None);
}

#[test]
fn nul_and_long_text_are_not_keyed() {
    for kind in [ColumnKind::Text, ColumnKind::Char, ColumnKind::CiText] {
        assert_eq!(everywhere(kind, "a\0b"), None);
        assert_eq!(everywhere(kind, "x".repeat(1024)), some(&"x".repeat(1024)));
        assert_eq!(everywhere(kind, "x".repeat(1025)), None);
        assert_eq!(everywhere(kind, ":".repeat(342)), None);
    }
    assert_eq!(everywhere(ColumnKind::Bytes, vec![1u8; 513]), None);
}

#[test]
fn uuids_share_a_part_with_their_bytes() {
    let uuid = Uuid::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_de00);
    let hex = "123456789abcdef0123456789abcde00";
    assert_eq!(everywhere(ColumnKind::Uuid, uuid), some(hex));
    assert_eq!(
        everywhere(ColumnKind::Uuid, uuid.as_bytes().to_vec()),
        some(hex)
    );
    assert_eq!(everywhere(ColumnKind::Uuid, vec![1u8; 15]), None);
    let text = uuid.hyphenated().to_string().to_uppercase();
    assert_eq!(
        part(ColumnKind::Uuid, text.as_str(), DbBackend::Postgres),
        some(hex)
    );
    assert_eq!(
        part(ColumnKind::Uuid, text.as_str(), DbBackend::MySql),
        None
    );
    assert_eq!(part(ColumnKind::Uuid, "no uuid", DbBackend::Postgres), None);
    assert_eq!(everywhere(ColumnKind::Bytes, uuid), some(&hex[..30]));
}

#[test]
fn bytes_are_keyed_without_trailing_zeros() {
    assert_eq!(
        everywhere(ColumnKind::Bytes, vec![0u8, 0xAB, 0, 0]),
        some("00ab")
    );
    assert_eq!(everywhere(ColumnKind::Bytes, vec![0u8, 0]), some(""));
    assert_eq!(everywhere(ColumnKind::Bytes, "ab"), None);
}

#[test]
fn dates_of_both_libraries_share_a_part() {
    let chrono = ChronoDate::from_ymd_opt(2024, 2, 29).unwrap();
    let time = TimeDate::from_ordinal_date(2024, 60).unwrap();
    assert_eq!(everywhere(ColumnKind::Date, chrono), some("2024-02-29"));
    assert_eq!(everywhere(ColumnKind::Date, time), some("2024-02-29"));
    assert_eq!(everywhere(ColumnKind::Date, "2024-02-29"), None);
    assert_eq!(
        everywhere(ColumnKind::Date, chrono.and_hms_opt(0, 0, 0).unwrap()),
        None
    );
    for year in [-1, 10_000] {
        let chrono = ChronoDate::from_ymd_opt(year, 1, 1).unwrap();
        assert_eq!(everywhere(ColumnKind::Date, chrono), None);
    }
    assert_eq!(everywhere(ColumnKind::Date, TimeDate::MIN), None);
}

#[test]
fn composite_keys_need_one_value_per_column() {
    let kinds = [ColumnKind::Integer, ColumnKind::Text];
    let of = |values: &[Value]| KeyPart::of(kinds, values, DbBackend::Postgres);
    let (one, text) = (Value::from(1i32), Value::from("a,b"));
    assert_eq!(
        of(&[one.clone(), text.clone()]).unwrap().as_str(),
        "1,a%2Cb"
    );
    assert_eq!(of(&[one.clone(), "".into()]).unwrap().as_str(), "1,");
    assert_eq!(of(std::slice::from_ref(&one)), None);
    assert_eq!(of(&[one.clone(), text.clone(), one.clone()]), None);
    assert_eq!(of(&[one, Value::String(None)]), None);
    assert_eq!(KeyPart::of([], [], DbBackend::Postgres), None);
}

#[test]
fn nulls_are_not_keyed() {
    for kind in KINDS {
        for value in [
            Value::Int(None),
            Value::Bool(None),
            Value::Double(None),
            Value::Decimal(None),
            Value::String(None),
            Value::Char(None),
            Value::Enum(OptionEnum::None("mood".into())),
            Value::Uuid(None),
            Value::Bytes(None),
            Value::ChronoDate(None),
            Value::TimeDate(None),
        ] {
            assert_eq!(everywhere(kind, value.clone()), None, "{kind:?} {value:?}");
        }
    }
}

#[test]
fn column_types_have_kinds() {
    use ColumnType as T;
    let custom = |name: &str| T::Custom(Alias::new(name).into_iden());
    for (column_type, kind) in [
        (T::BigUnsigned, ColumnKind::Integer),
        (T::Boolean, ColumnKind::Integer),
        (T::String(StringLen::N(3)), ColumnKind::Text),
        (
            T::Enum {
                name: Alias::new("e").into_iden(),
                variants: vec![],
            },
            ColumnKind::Text,
        ),
        (T::Char(Some(2)), ColumnKind::Char),
        (custom("CiText"), ColumnKind::CiText),
        (custom("tsvector"), ColumnKind::Other),
        (T::Binary(16), ColumnKind::Bytes),
        (T::Decimal(None), ColumnKind::Decimal),
        (T::Money(None), ColumnKind::Other),
        (T::Uuid, ColumnKind::Uuid),
        (T::Date, ColumnKind::Date),
        (T::Double, ColumnKind::Other),
        (T::Timestamp, ColumnKind::Other),
        (T::JsonBinary, ColumnKind::Other),
    ] {
        assert_eq!(ColumnKind::of(&column_type), kind, "{column_type:?}");
    }
}

#[test]
fn only_kinds_that_lose_something_are_folded() {
    let folded = |backend| {
        KINDS
            .into_iter()
            .filter(move |kind| kind.is_folded(backend))
    };
    let always = [ColumnKind::Char, ColumnKind::CiText, ColumnKind::Bytes];
    assert!(folded(DbBackend::Postgres).eq(always));
    let text = [ColumnKind::Text].into_iter().chain(always);
    assert!(folded(DbBackend::MySql).eq(text.clone()));
    assert!(folded(DbBackend::Sqlite).eq(text));
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        any::<char>().prop_map(Value::from),
        any::<String>().prop_map(|text| enum_value(&text)),
        any::<Vec<u8>>().prop_map(Value::from),
        any::<u128>().prop_map(|n| Uuid::from_u128(n).into()),
        any::<[u8; 16]>().prop_map(|b| Decimal::deserialize(b).into()),
        (-400_000..5_000_000)
            .prop_map(|n| ChronoDate::from_num_days_from_ce_opt(n).unwrap().into()),
    ]
}

proptest! {
    #[test]
    fn escape_is_injective(a: String, b: String) {
        prop_assert_eq!(a == b, escape(&a) == escape(&b));
    }

    #[test]
    fn text_on_postgres_is_injective(a: [String; 2], b: [String; 2]) {
        let of = |pair: &[String; 2]| {
            let values = pair.clone().map(Value::from);
            KeyPart::of([ColumnKind::Text; 2], &values, DbBackend::Postgres)
        };
        if let (Some(x), Some(y)) = (of(&a), of(&b)) {
            prop_assert_eq!(a == b, x == y);
        }
    }

    #[test]
    fn equal_numbers_share_a_part(n in -(1i64 << 53) + 1..1 << 53, scale in 0u32..8) {
        let parts = [ColumnKind::Integer, ColumnKind::Decimal].map(|kind| {
            let mut decimal = Decimal::from(n);
            decimal.rescale(scale);
            let forms = [n.into(), (n as f64).into(), Value::from(decimal)];
            forms.map(|value| everywhere(kind, value))
        });
        prop_assert_eq!(parts.as_flattened(), vec![Some(n.to_string()); 6]);
    }

    #[test]
    fn case_and_trailing_blanks_do_not_matter_outside_postgres(text in "[ -~]{0,20}", blanks in 0usize..4) {
        let other = text.to_ascii_uppercase() + &" ".repeat(blanks);
        for backend in [DbBackend::MySql, DbBackend::Sqlite] {
            let of = |text: &str| part(ColumnKind::Text, text, backend);
            prop_assert!(of(&text).is_some());
            prop_assert_eq!(of(&text), of(&other));
        }
    }

    #[test]
    fn no_part_can_imitate_another_key(values in proptest::collection::vec(value(), 1..4)) {
        for backend in BACKENDS {
            for kind in KINDS {
                let kinds = values.iter().map(|_| kind);
                if let Some(part) = KeyPart::of(kinds, &values, backend) {
                    prop_assert!(part.as_str().len() <= LONGEST_PART);
                    let special = part.as_str().contains([':', '{', '}', '*', '@', '\0']);
                    prop_assert!(!special, "{part:?}");
                    prop_assert_eq!(part.as_str().matches(',').count(), values.len() - 1);
                }
            }
        }
    }

    #[test]
    fn values_that_share_a_part_are_ones_that_a_database_may_call_equal(
        a in proptest::collection::vec(value(), 1..4),
        b in proptest::collection::vec(value(), 1..4),
    ) {
        for backend in BACKENDS {
            for kind in KINDS {
                let of = |values: &[Value]| KeyPart::of(values.iter().map(|_| kind), values, backend);
                if let (Some(x), Some(y)) = (of(&a), of(&b)) {
                    let equal = a.len() == b.len()
                        && a.iter().zip(&b).all(|(a, b)| same(kind, a, b, backend));
                    prop_assert_eq!(x == y, equal, "{:?} {:?} {:?}", kind, a, b);
                }
            }
        }
    }

    #[test]
    fn near_texts_and_bytes_share_a_part_only_where_they_may_be_equal(
        a in "[aA\0 :,%{}*é]{0,4}",
        b in "[aA\0 :,%{}*é]{0,4}",
    ) {
        for backend in BACKENDS {
            for kind in [ColumnKind::Text, ColumnKind::Char, ColumnKind::CiText, ColumnKind::Bytes] {
                let value = |text: &str| match kind {
                    ColumnKind::Bytes => Value::from(text.as_bytes().to_vec()),
                    _ => text.into(),
                };
                let (a, b) = (value(&a), value(&b));
                if let (Some(x), Some(y)) = (part(kind, a.clone(), backend), part(kind, b.clone(), backend)) {
                    prop_assert_eq!(x == y, same(kind, &a, &b, backend), "{:?} {:?} {:?}", kind, a, b);
                }
            }
        }
    }

    #[test]
    fn no_name_can_imitate_another(a in names(), b in names()) {
        for ((key, means), (other, other_means)) in named_keys(&a).iter().zip(&named_keys(&b)) {
            let plain = |c: char| c.is_ascii_graphic() && !"{}*?[]\\\"'".contains(c);
            prop_assert!(key.as_str().chars().all(plain), "{}", key);
            prop_assert_eq!(key == other, means == other_means, "{} {}", key, other);
        }
        let keys: std::collections::BTreeSet<_> = named_keys(&a).into_iter().map(|(key, _)| key).collect();
        prop_assert_eq!(keys.len(), 7);
    }
}

/// Prefix, label, tenant, entity and index.
type Names = (String, String, Option<String>, String, String);

fn names() -> impl Strategy<Value = Names> {
    let name = || "[:@a.%\0*é]{0,2}";
    (name(), name(), proptest::option::of(name()), name(), name())
}

/// A key of each kind, and the names that it stands for.
fn named_keys((prefix, label, tenant, entity, index): &Names) -> Vec<(Key, String)> {
    let space = KeySpace::new(prefix, label);
    let space = tenant
        .as_ref()
        .map_or(space.clone(), |tenant| space.scoped(tenant));
    let part = KeyPart::of([ColumnKind::Text], [&"x".into()], DbBackend::Postgres).unwrap();
    let means = format!("{:?}", (prefix, label, tenant, entity));
    let generation = |generation| (space.generation(entity, generation), means.clone());
    vec![
        generation(Generation::Rows),
        generation(Generation::Index),
        generation(Generation::List),
        (space.row(entity, &part), means.clone()),
        (
            space.index(entity, index, &part),
            format!("{means} {index:?}"),
        ),
        (space.query(entity, "all", 7), means.clone()),
        (
            tag_key(prefix, None, entity),
            format!("{:?}", (prefix, entity)),
        ),
    ]
}

/// Whether a database may call the values of such a column equal.
fn same(kind: ColumnKind, a: &Value, b: &Value, backend: DbBackend) -> bool {
    match kind {
        ColumnKind::Integer | ColumnKind::Decimal => number(a) == number(b),
        ColumnKind::Text | ColumnKind::Char | ColumnKind::CiText => {
            let fold = |value: &Value| {
                let text = match value {
                    Value::String(Some(text)) => text.clone(),
                    Value::Char(Some(c)) => c.to_string(),
                    Value::Enum(OptionEnum::Some(value)) => value.value.to_string(),
                    other => panic!("{other:?} is no text"),
                };
                let pads = backend != DbBackend::Postgres || kind == ColumnKind::Char;
                let folds = backend != DbBackend::Postgres || kind == ColumnKind::CiText;
                let text = if pads {
                    text.trim_end_matches(' ').to_owned()
                } else {
                    text
                };
                if folds { text.to_lowercase() } else { text }
            };
            fold(a) == fold(b)
        }
        ColumnKind::Bytes | ColumnKind::Uuid => {
            let bytes = |value: &Value| match value {
                Value::Bytes(Some(bytes)) => bytes.clone(),
                Value::Uuid(Some(uuid)) => uuid.as_bytes().to_vec(),
                Value::String(Some(text)) => text.parse::<Uuid>().unwrap().as_bytes().to_vec(),
                other => panic!("{other:?} is no bytes"),
            };
            let trim = |mut bytes: Vec<u8>| {
                while kind == ColumnKind::Bytes && bytes.last() == Some(&0) {
                    bytes.pop();
                }
                bytes
            };
            trim(bytes(a)) == trim(bytes(b))
        }
        ColumnKind::Date => a == b,
        ColumnKind::Other => panic!("it has no key"),
    }
}

/// A whole number, whatever its type.
fn number(value: &Value) -> i128 {
    match value {
        Value::BigInt(Some(n)) => i128::from(*n),
        Value::Double(Some(x)) => *x as i128,
        Value::Decimal(Some(d)) => d.trunc().mantissa(),
        Value::String(Some(text)) => text.parse().unwrap(),
        other => panic!("{other:?} is no whole number"),
    }
}

#[test]
fn texts_around_the_longest_are_keyed_by_their_escaped_length() {
    let keyed = |text: String| part(ColumnKind::Text, text, DbBackend::Postgres).is_some();
    assert!(keyed("x".repeat(1_024)) && !keyed("x".repeat(1_025)));
    // Two bytes are six letters.
    assert!(keyed("é".repeat(170)) && !keyed("é".repeat(171)));
    assert!(keyed("日".repeat(113)) && !keyed("日".repeat(114)));
    assert!(keyed(":".repeat(341)) && !keyed(":".repeat(342)));
    let pair = |a: usize, b: usize| {
        let values = [Value::from("x".repeat(a)), Value::from("y".repeat(b))];
        KeyPart::of([ColumnKind::Text; 2], &values, DbBackend::Postgres).is_some()
    };
    assert!(pair(512, 511) && !pair(512, 512) && !pair(1_024, 0) && pair(1_023, 0));
    assert!(part(ColumnKind::Bytes, vec![1u8; 512], DbBackend::Sqlite).is_some());
}
