use proptest::prelude::*;
use proptest::sample::select;
use sea_orm::DbBackend;
use sea_orm::sea_query::Value;

use super::{ALL, registry};
use crate::orm::effects::{Effects, Touched, effects, reads};

fn backend() -> impl Strategy<Value = DbBackend> {
    select(ALL)
}

fn values() -> Vec<Value> {
    vec![5.into(), "x".into(), Value::Int(None), 1.5.into()]
}

/// Pieces of SQL in no sensible order.
fn pieces() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "SELECT",
        "INSERT",
        "INTO",
        "UPDATE",
        "DELETE",
        "FROM",
        "WITH",
        "AS",
        "SET",
        "WHERE",
        "VALUES",
        "DEFAULT",
        "ON",
        "CONFLICT",
        "DO",
        "OR",
        "AND",
        "BETWEEN",
        "IN",
        "NOT",
        "JOIN",
        "EXPLAIN",
        "ANALYZE",
        "CREATE",
        "TRIGGER",
        "BEGIN",
        "END",
        "COPY",
        "TRUNCATE",
        "MERGE",
        "STATEMENT",
        "FOR",
        "RECURSIVE",
        "TABLE",
        "REPLACE",
        "city",
        "seat",
        "\"city\"",
        "`id`",
        "id",
        "slug",
        "log",
        "(",
        ")",
        "((",
        "))",
        ",",
        ".",
        ";",
        "=",
        "*",
        "-",
        "--",
        "/*",
        "*/",
        "/*!",
        "/*M!1",
        "#",
        "'",
        "''",
        "\"",
        "`",
        "[",
        "]",
        "$$",
        "$a$",
        "$1",
        "?",
        "?2",
        ":n",
        "@x",
        "\\",
        "E'",
        "U&\"",
        "1",
        "1.5e3",
        "0x1",
        "5x",
        "::",
        "\n",
        "\r",
        "é",
        "\u{2028}",
    ];
    let piece = (select(PIECES), select(&["", " "][..]));
    prop::collection::vec(piece, 0..40)
        .prop_map(|pieces| pieces.iter().flat_map(|(a, b)| [*a, *b]).collect())
}

fn hits_city(effects: &Effects) -> bool {
    effects.everything || effects.entities.iter().any(|e| e.meta.table == "city")
}

fn table() -> impl Strategy<Value = (DbBackend, &'static str)> {
    backend().prop_flat_map(|backend| {
        let names: &[&str] = match backend {
            DbBackend::Postgres => &["city", "City", "\"city\"", "public.city", "a . \"city\""],
            DbBackend::MySql => &["city", "CITY", "`city`", "db.`city`", "\"city\""],
            _ => &[
                "city",
                "[city]",
                "'city'",
                "\"city\"",
                "main.city",
                "`city`",
            ],
        };
        (Just(backend), select(names))
    })
}

fn blank() -> impl Strategy<Value = &'static str> {
    select(&[" ", "\n", "\t", " /* x */ ", " -- x ' ( \n", "/**/"][..])
}

/// A statement that writes the table `@`, in which `_` is any blank.
fn write() -> impl Strategy<Value = String> {
    let head = select(
        &[
            "",
            "SELECT 1;",
            "WITH_x_AS (SELECT 1)_",
            ";;",
            "SELECT ';', '''';",
        ][..],
    );
    let tail = select(&["", ";", "; SELECT 1", "; COMMIT", "_RETURNING_*"][..]);
    let body = select(
        &[
            "INSERT_INTO_@_(id)_VALUES_(1)",
            "INSERT_INTO_@_(id, slug)_SELECT_1, 'a'_FROM_log",
            "INSERT_INTO_@_DEFAULT_VALUES",
            "UPDATE_@_SET_name = 'x'",
            "UPDATE_@_SET_name = 'x'_WHERE_id = 5_AND (a_OR b)",
            "UPDATE_@_AS_c_SET_slug = lower('x')_WHERE_c.id_IN_(1, 2)",
            "DELETE_FROM_@",
            "DELETE_FROM_@_WHERE_id = 1",
            "DELETE_FROM_@_WHERE_name = 'it''s; --'_AND_x_BETWEEN_1_AND_2",
        ][..],
    );
    (head, body, tail).prop_map(|(head, body, tail)| format!("{head}{body}{tail}"))
}

/// A condition in which the rows that match are known by construction.
fn condition() -> impl Strategy<Value = (String, bool)> {
    let leaf = prop_oneof![
        Just(("id = 5".to_owned(), true)),
        Just(("5 = city.id".to_owned(), true)),
        Just(("id IN (5)".to_owned(), true)),
        Just(("name = 'x'".to_owned(), false)),
        Just(("id <> 5".to_owned(), false)),
        Just(("NOT id = 5".to_owned(), false)),
        Just(("name BETWEEN 'a' AND 'b'".to_owned(), false)),
    ];
    leaf.prop_recursive(4, 16, 2, |inner| {
        (inner.clone(), inner, any::<bool>(), any::<bool>()).prop_map(|(a, b, and, parens)| {
            let pins = if and { a.1 || b.1 } else { a.1 && b.1 };
            let text = match and {
                true => format!("({}) AND ({})", a.0, b.0),
                false => format!("({}) OR ({})", a.0, b.0),
            };
            let text = if parens { format!("({text})") } else { text };
            (text, pins)
        })
    })
}

/// Texts that nest and repeat more than anybody writes.
fn deep_and_long(times: usize) -> Vec<String> {
    let repeated = [
        "(",
        ")",
        "[",
        "((1)",
        "(SELECT ",
        "(WITH ",
        "(DELETE FROM city ",
        "WITH x AS (",
        "/*",
        "/*!",
        "'a' ",
        "$a$",
        "CASE ",
        "x.",
        "\"",
        ";",
        "DELETE FROM city;",
        "EXPLAIN ANALYZE ",
        "SET STATEMENT a = 1 FOR ",
        "NOT ",
        "id = ",
        "a JOIN b ON ",
        "(id, ",
        "?",
        "$1",
        "\\",
    ];
    let started = [
        "",
        "DELETE FROM city WHERE ",
        "INSERT INTO city (id) VALUES ",
        "UPDATE city SET name = ",
        "SELECT ",
    ];
    let texts = started
        .iter()
        .flat_map(|start| repeated.map(|piece| start.to_string() + &piece.repeat(times)));
    texts.collect()
}

#[test]
fn no_depth_or_length_panics_or_overflows_the_stack() {
    for sql in deep_and_long(200) {
        for &backend in ALL {
            effects(&sql, &values(), backend, registry());
            reads(&sql, backend, registry());
        }
    }
}

#[test]
fn long_lists_are_read_once() {
    for count in [1_000usize, 10_000, 30_000] {
        let ids: Vec<_> = (0..count).map(|id| id.to_string()).collect();
        let marks: Vec<_> = (1..=count).map(|at| format!("${at}")).collect();
        let bound: Vec<Value> = (0..count).map(|id| Value::from(id as i64)).collect();
        let rows: Vec<_> = (0..count).map(|id| format!("({id}, 1, 'x{id}')")).collect();
        let [delete, mark] =
            [&ids, &marks].map(|all| format!("DELETE FROM city WHERE id IN ({})", all.join(", ")));
        let update =
            "UPDATE city SET name = 'x' WHERE id = 1".to_owned() + &" AND id = 1".repeat(count);
        let insert = format!(
            "INSERT INTO city (id, country_id, slug) VALUES {}",
            rows.join(", ")
        );
        for (sql, bound, lists) in [
            (delete, &[][..], true),
            (mark, &bound[..], true),
            (update, &[][..], false),
            (insert, &[][..], true),
        ] {
            let started = std::time::Instant::now();
            let found = effects(&sql, bound, DbBackend::Postgres, registry());
            println!("{count}: {}..: {:.1?}", &sql[..32], started.elapsed());
            let whole = found.entities[0].rows == Touched::All;
            assert_eq!(whole, lists && count > 1_000, "{count}: {}", &sql[..32]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(sql in any::<String>(), backend in backend()) {
        effects(&sql, &values(), backend, registry());
        reads(&sql, backend, registry());
    }

    #[test]
    fn no_sequence_of_pieces_panics(sql in pieces(), backend in backend()) {
        effects(&sql, &values(), backend, registry());
        reads(&sql, backend, registry());
    }

    #[test]
    fn a_write_is_never_nothing((backend, table) in table(), write in write(), blank in blank()) {
        let sql = write.replace('_', blank).replace('@', table);
        let effects = effects(&sql, &values(), backend, registry());
        prop_assert!(hits_city(&effects), "{sql}\n{effects:?}");
    }

    #[test]
    fn words_before_a_write_do_not_hide_it(junk in pieces(), backend in backend()) {
        let sql = format!("DELETE FROM city WHERE {junk}");
        prop_assert!(hits_city(&effects(&sql, &values(), backend, registry())));
        let sql = format!("UPDATE city SET name = 1 {junk}");
        prop_assert!(hits_city(&effects(&sql, &values(), backend, registry())));
    }

    #[test]
    fn rows_are_exact_only_where_the_condition_pins_them(
        (condition, pins) in condition(),
        backend in backend(),
    ) {
        let sql = format!("DELETE FROM city WHERE {condition}");
        let effects = effects(&sql, &[], backend, registry());
        let exact = effects.entities[0].rows != Touched::All;
        prop_assert!(pins || !exact, "{sql}");
    }
}
