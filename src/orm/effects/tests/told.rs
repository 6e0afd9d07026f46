//! What a log tells: a table, the row before, the row after, and what that makes stale.

use sea_orm::{DbBackend, JsonValue};

use super::{ALL, LITE, MY, PG, registry, show};
use crate::key::ColumnKind;
use crate::orm::effects::{RowChange, told};

fn shown(backend: DbBackend, table: &str, old: &str, new: &str) -> String {
    let row = |text: &str| (!text.is_empty()).then(|| text.parse::<JsonValue>().unwrap());
    let change = RowChange::row(table, row(old), row(new));
    show(&told(&[change], backend, registry()))
}

#[rustfmt::skip]
#[test]
fn a_change_names_its_rows_and_the_index_entries_that_are_new() {
    let cases: &[(&[DbBackend], &str, &str, &str, &str)] = &[
        // An insert, a delete, an update of a plain column, of an index, of the key.
        (ALL, "city", "", r#"{"id":1,"country_id":2,"slug":"a"}"#, "city 1 | country_id=2 slug=a"),
        (ALL, "CITY", r#"{"id":1,"country_id":2,"slug":"a"}"#, "", "city 1 | -"),
        (ALL, "city", r#"{"id":1,"country_id":2,"slug":"a"}"#, r#"{"id":1,"country_id":2,"slug":"a"}"#, "city 1 | -"),
        (ALL, "city", r#"{"id":1,"country_id":2,"slug":"a"}"#, r#"{"id":1,"country_id":3,"slug":"a"}"#, "city 1 | country_id=3"),
        (ALL, "city", r#"{"id":1,"country_id":2,"slug":"a"}"#, r#"{"id":9,"country_id":2,"slug":"a"}"#, "city 1 9 | country_id=2 slug=a"),
        (ALL, "seat", r#"{"hall":1,"no":2,"owner":"x"}"#, r#"{"hall":1,"no":2,"owner":"y"}"#, "seat 1,2 | by_owner=y,1"),
        // Of the old row nothing is known.
        (ALL, "city", "", r#"{"id":1,"country_id":null,"slug":"a"}"#, "city 1 | slug=a"),
        // The index columns of the new row are not told.
        (ALL, "city", "", r#"{"id":1}"#, "city 1 | *"),
        (ALL, "city", r#"{"id":1}"#, r#"{"id":1,"country_id":2,"slug":"a"}"#, "city 1 | country_id=2 slug=a"),
        // The key is not told, or is not what it should be.
        (ALL, "city", r#"{"slug":"a"}"#, "", "city * | -"),
        (ALL, "city", r#"{"id":"1"}"#, "", "city * | -"),
        (ALL, "city", r#"{"id":1.5}"#, "", "city * | -"),
        (ALL, "city", r#"{"id":null}"#, "", "city * | -"),
        (ALL, "city", r#"{"id":true}"#, "", "city 1 | -"),
        (ALL, "city", r#"{"id":18446744073709551615}"#, "", "city 18446744073709551615 | -"),
        (ALL, "city", r#"{"id":184467440737095516150}"#, "", "city * | -"),
        (ALL, "city", "[1]", "", "city * | -"),
        // Text is folded as it is in keys, but compared as it is.
        (MY, "city", r#"{"id":1,"country_id":2,"slug":"a"}"#, r#"{"id":1,"country_id":2,"slug":"A "}"#, "city 1 | slug=a"),
        (LITE, "city", "", r#"{"id":1,"country_id":2,"slug":"é"}"#, "city 1 | *"),
        (LITE, "city", r#"{"id":1,"country_id":2,"slug":"é"}"#, r#"{"id":1,"country_id":2,"slug":"é"}"#, "city 1 | -"),
        (PG, "city", "", r#"{"id":1,"country_id":2,"slug":"é"}"#, "city 1 | country_id=2 slug=%C3%A9"),
        // Unknown on both sides is not the same.
        (ALL, "city", r#"{"id":1,"country_id":2,"slug":0}"#, r#"{"id":1,"country_id":2,"slug":0}"#, "city 1 | *"),
        // Neither row, or no such entity.
        (ALL, "city", "", "", "city * | *"),
        (ALL, "nothing", r#"{"id":1}"#, "", "?nothing"),
        // What refers to it goes along with a delete, and with a key that changes.
        (ALL, "cake", r#"{"id":1,"name":"a"}"#, "", "cake 1 | -; Slice * | *; crumb * | *"),
        (ALL, "cake", r#"{"id":1,"name":"a"}"#, r#"{"id":1,"name":"b"}"#, "cake 1 | name=b; Slice * | *; crumb * | *"),
        (ALL, "cake", r#"{"id":1,"name":"a"}"#, r#"{"id":1,"name":"a"}"#, "cake 1 | -"),
        (ALL, "cake", "", r#"{"id":1,"name":"a"}"#, "cake 1 | name=a"),
        (ALL, "gone", r#"{"id":1}"#, "", "?gone; crumb * | *"),
    ];
    for (backends, table, old, new, expected) in cases {
        for backend in *backends {
            let found = shown(*backend, table, old, new).replace("slice", "Slice");
            assert_eq!(found, expected.replace("?gone; crumb * | *", "crumb * | *; ?gone"), "{backend:?} {table} {old} {new}");
        }
    }
}

#[test]
fn only_what_is_certain_is_a_value() {
    let value = |kind, text: &str| {
        let told = super::super::told::value(kind, &text.parse().unwrap());
        told.map(|value| format!("{value}"))
    };
    let uuid = r#""00000000-0000-0000-0000-00000000000a""#;
    assert!(value(ColumnKind::Uuid, uuid).is_some());
    assert_eq!(
        value(ColumnKind::Uuid, r#""0000000000000000000000000000000A""#),
        value(ColumnKind::Uuid, uuid)
    );
    // As Debezium writes 16 bytes.
    assert_eq!(
        value(ColumnKind::Uuid, r#""AAAAAAAAAAAAAAAAAAAACg==""#),
        None
    );
    assert!(value(ColumnKind::Bytes, r#""\\x00ff""#).is_some());
    for other in [r#""00ff""#, r#""\\x0""#, r#""\\xzz""#, r#""\\x+1""#, "1"] {
        assert_eq!(value(ColumnKind::Bytes, other), None, "{other}");
    }
    assert!(value(ColumnKind::Date, r#""2026-11-28""#).is_some());
    for other in [
        r#""2026-11-8""#,
        r#""0000-00-00""#,
        "20420",
        r#""2026-11-28 00:00:00""#,
    ] {
        assert_eq!(value(ColumnKind::Date, other), None, "{other}");
    }
    assert_eq!(value(ColumnKind::Decimal, "1"), None);
    assert_eq!(value(ColumnKind::Other, "1"), None);
    assert_eq!(value(ColumnKind::Text, "1"), None);
    assert_eq!(value(ColumnKind::CiText, "null"), None);
}
