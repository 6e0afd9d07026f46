//! What SQLite changes is among what was found, for statements that nobody chose.

use std::cell::Cell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use sea_orm::sea_query::Value;
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, FromQueryResult,
    Statement, TransactionTrait,
};

use super::registry;
use crate::key::{ColumnKind, KeyPart};
use crate::orm::effects::{Effects, EntityEffect, Touched, effects};

/// A value, mostly.
fn leaf() -> impl Strategy<Value = String> {
    const LEAVES: &[&str] = &[
        "id",
        "city.id",
        "1",
        "2",
        "-1",
        "?",
        "country_id",
        "slug",
        "'a'",
        "'2'",
        "NULL",
        "TRUE",
    ];
    select(LEAVES).prop_map(str::to_owned)
}

/// Expressions without more parentheses than they need, so that precedence decides.
fn expression() -> impl Strategy<Value = String> {
    leaf().prop_recursive(5, 24, 3, |inner| {
        let pair = (inner.clone(), inner.clone());
        let operator = select(
            &[
                "=",
                "=",
                "=",
                "=",
                "AND",
                "AND",
                "AND",
                "OR",
                "<>",
                "<",
                ">=",
                "||",
                "IS",
                "IS NOT",
                "+",
                "IS NOT DISTINCT FROM",
                "LIKE",
            ][..],
        );
        prop_oneof![
            6 => (pair.clone(), operator).prop_map(|((a, b), op)| format!("{a} {op} {b}")),
            2 => pair.clone().prop_map(|(a, b)| format!("id IN ({a}, {b})")),
            1 => inner.clone().prop_map(|a| format!("id = {a}")),
            1 => inner.clone().prop_map(|a| format!("NOT {a}")),
            2 => inner.clone().prop_map(|a| format!("({a})")),
            1 => (pair.clone(), inner.clone())
                .prop_map(|((a, b), c)| format!("{a} BETWEEN {b} AND {c}")),
            1 => (pair, inner.clone())
                .prop_map(|((a, b), c)| format!("CASE WHEN {a} THEN {b} ELSE {c} END")),
            1 => inner.prop_map(|a| format!("{a} COLLATE NOCASE")),
        ]
    })
}

fn statement() -> impl Strategy<Value = String> {
    let value = || prop_oneof![4 => leaf(), 1 => expression()];
    let column = || select(&["id", "country_id", "slug", "name", "rowid", "\"slug\""][..]);
    let set = prop::collection::vec((column(), value()), 1..3).prop_map(|all| {
        let all: Vec<_> = all.iter().map(|(c, e)| format!("{c} = {e}")).collect();
        all.join(", ")
    });
    let verb = select(&["", "OR REPLACE ", "OR IGNORE "][..]);
    let rows = prop::collection::vec((value(), value(), value()), 1..3);
    let conflict = select(
        &[
            "",
            "",
            " ON CONFLICT DO NOTHING",
            " ON CONFLICT (id) DO UPDATE SET slug = 'z'",
        ][..],
    );
    let columns = select(
        &[
            "id, country_id, slug",
            "country_id, slug, id",
            "slug, country_id, name",
        ][..],
    );
    prop_oneof![
        expression().prop_map(|e| format!("DELETE FROM city WHERE {e}")),
        (verb.clone(), set, expression())
            .prop_map(|(verb, set, e)| format!("UPDATE {verb}city SET {set} WHERE {e}")),
        (verb, columns, rows, conflict).prop_map(|(verb, columns, rows, conflict)| {
            let rows: Vec<_> = rows
                .iter()
                .map(|(a, b, c)| format!("({a}, {b}, {c})"))
                .collect();
            // A column has no value here.
            let rows = rows.join(", ").replace("city.id", "3");
            format!("INSERT {verb}INTO city ({columns}) VALUES {rows}{conflict}")
        }),
    ]
}

#[derive(Clone, Debug, PartialEq, FromQueryResult)]
struct City {
    id: i64,
    country_id: Option<String>,
    slug: Option<String>,
    name: Option<String>,
}

type Cities = BTreeMap<i64, City>;

async fn connect() -> DatabaseConnection {
    let mut options = ConnectOptions::new("sqlite::memory:");
    options.max_connections(1);
    let db = Database::connect(options).await.unwrap();
    db.execute_unprepared(
        "CREATE TABLE city (id INTEGER PRIMARY KEY, country_id INT, slug TEXT UNIQUE, name TEXT);
         INSERT INTO city VALUES (-1, 1, 'a', 'x'), (0, 1, 'A', 'x'), (1, 2, 'b', 'x'), (2, NULL, '2', 'y'), (3, 1, NULL, '')",
    )
    .await
    .unwrap();
    db
}

async fn cities<C: ConnectionTrait>(db: &C) -> Cities {
    let sql = "SELECT id, CAST(country_id AS TEXT) country_id, slug, name FROM city";
    let all = City::find_by_statement(Statement::from_string(DbBackend::Sqlite, sql));
    let all = all.all(db).await.unwrap();
    all.into_iter().map(|city| (city.id, city)).collect()
}

/// The rows after `sql`, which is then undone; `None` if it is no valid statement.
async fn after(db: &DatabaseConnection, sql: &str, values: &[Value]) -> Option<Cities> {
    let txn = db.begin().await.unwrap();
    let statement = Statement::from_sql_and_values(DbBackend::Sqlite, sql, values.iter().cloned());
    let done = txn.execute_raw(statement).await;
    let after = cities(&txn).await;
    txn.rollback().await.unwrap();
    done.ok().map(|_| after)
}

fn covers<T: PartialEq>(touched: &Touched<T>, key: &T) -> bool {
    match touched {
        Touched::All => true,
        Touched::Only(keys) => keys.contains(key),
    }
}

fn key(kind: ColumnKind, value: impl Into<Value>) -> Option<KeyPart> {
    KeyPart::of([kind], [&value.into()], DbBackend::Sqlite)
}

/// Whether the row that was `before` and is `after` is among what was found.
fn explained(effect: &EntityEffect, before: Option<&City>, after: Option<&City>) -> bool {
    let row =
        before.is_none_or(|city| covers(&effect.rows, &key(ColumnKind::Integer, city.id).unwrap()));
    let entry = |at: usize, old: Option<&String>, new: Option<&String>, kind| {
        let part = new.and_then(|new| key(kind, new.as_str()));
        // A value that is no key is never looked up.
        old == new || part.is_none_or(|part| covers(&effect.index, &(at, part)))
    };
    let entries = after.is_none_or(|new| {
        let old = |f: fn(&City) -> Option<&String>| before.and_then(f);
        entry(
            0,
            old(|c| c.country_id.as_ref()),
            new.country_id.as_ref(),
            ColumnKind::Integer,
        ) && entry(
            1,
            old(|c| c.slug.as_ref()),
            new.slug.as_ref(),
            ColumnKind::Text,
        )
    });
    row && entries
}

fn holds(found: &Effects, before: &Cities, after: &Cities) -> bool {
    let effect = found.entities.iter().find(|e| e.meta.table == "city");
    let changed = before
        .keys()
        .chain(after.keys())
        .filter(|id| before.get(id) != after.get(id));
    let explained =
        |id: &i64| effect.is_some_and(|effect| explained(effect, before.get(id), after.get(id)));
    found.everything || changed.into_iter().all(explained)
}

#[test]
fn what_sqlite_changes_is_among_what_was_found() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let db = runtime.block_on(connect());
    let before = runtime.block_on(cities(&db));
    let values: Vec<Value> = [2, 1, 3, 2, 1, 3, 2, 1, 3, 2, 1, 3].map(Value::from).into();
    let config = ProptestConfig {
        cases: 1_500,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let valid = Cell::new(0);
    let result = TestRunner::new(config).run(&statement(), |sql| {
        let bound = &values[..sql.matches('?').count().min(values.len())];
        let found = effects(&sql, bound, DbBackend::Sqlite, registry());
        if let Some(after) = runtime.block_on(after(&db, &sql, bound)) {
            valid.set(valid.get() + 1);
            prop_assert!(
                holds(&found, &before, &after),
                "{sql}\n{found:?}\n{after:?}"
            );
        }
        Ok(())
    });

    result.unwrap();
    assert!(
        valid.get() > 500,
        "only {} statements were valid",
        valid.get()
    );
}
