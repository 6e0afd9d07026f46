//! What SeaQuery makes of statements, for each database.

use sea_orm::sea_query::{Alias, Expr, ExprTrait, OnConflict, Query};
use sea_orm::{DbBackend, StatementBuilder};

use super::{ALL, bound, changed};

fn column(name: &str) -> (Alias, Alias) {
    (Alias::new("city"), Alias::new(name))
}

#[track_caller]
fn check<S: StatementBuilder>(backends: &[DbBackend], statement: &S, expected: &str) {
    for backend in backends {
        let built = backend.build(statement);
        let values = built.values.map_or(Vec::new(), |values| values.0);
        assert_eq!(
            changed(&built.sql, &values, *backend),
            expected,
            "{}",
            built.sql
        );
    }
}

fn insert() -> sea_orm::sea_query::InsertStatement {
    Query::insert()
        .into_table(Alias::new("city"))
        .columns(["country_id", "slug", "name"].map(Alias::new))
        .values_panic(bound![7, "oslo", "Oslo"].into_iter().map(Expr::from))
        .values_panic(bound![8, "bonn", "Bonn"].into_iter().map(Expr::from))
        .to_owned()
}

#[test]
fn inserts_are_exact() {
    let entries = "city - | country_id=7 country_id=8 slug=bonn slug=oslo";
    check(ALL, &insert(), entries);
    check(ALL, insert().returning_all(), entries);
    check(ALL, insert().or_default_values(), entries);
    let mut defaults = Query::insert();
    defaults.into_table(Alias::new("city")).or_default_values();
    check(ALL, &defaults, "city - | *");
}

#[test]
fn upserts_are_wide() {
    let conflict = OnConflict::column(Alias::new("slug"))
        .update_column(Alias::new("name"))
        .to_owned();
    check(ALL, insert().on_conflict(conflict), "city * | *");
}

#[test]
fn upserts_that_do_nothing_are_exact() {
    let entries = "city - | country_id=7 country_id=8 slug=bonn slug=oslo";
    let conflict = OnConflict::column(Alias::new("slug"))
        .do_nothing()
        .to_owned();
    check(
        &[DbBackend::Postgres, DbBackend::Sqlite],
        insert().on_conflict(conflict.clone()),
        entries,
    );
    // `ON DUPLICATE KEY UPDATE id = id`.
    let same = OnConflict::new()
        .do_nothing_on([Alias::new("id")])
        .to_owned();
    check(
        &[DbBackend::MySql],
        insert().on_conflict(same),
        "city * | *",
    );
}

#[test]
fn updates_by_key_are_exact() {
    let mut update = Query::update();
    update
        .table(Alias::new("city"))
        .value(Alias::new("name"), "Bergen")
        .value(Alias::new("slug"), "bergen")
        .and_where(Expr::col(column("id")).eq(5));
    check(ALL, &update, "city 5 | slug=bergen");
    check(ALL, update.returning_all(), "city 5 | slug=bergen");
    update.and_where(Expr::col(column("name")).is_null());
    check(ALL, &update, "city 5 | slug=bergen");
    update.value(
        Alias::new("country_id"),
        Expr::col(Alias::new("country_id")).add(1),
    );
    check(ALL, &update, "city 5 | *");
}

#[test]
fn deletes_by_key_are_exact() {
    let delete = || Query::delete().from_table(Alias::new("city")).to_owned();
    check(
        ALL,
        delete().and_where(Expr::col(column("id")).eq(5)),
        "city 5 | -",
    );
    check(
        ALL,
        delete().and_where(Expr::col(column("id")).is_in([5, 6])),
        "city 5 6 | -",
    );
    check(
        ALL,
        delete().and_where(Expr::col(column("name")).eq("x")),
        "city * | -",
    );
    check(
        ALL,
        delete().and_where(Expr::col(column("id")).is_in([0; 0])),
        "city * | -",
    );
    check(ALL, &delete(), "city * | -");
}

#[test]
fn selects_write_nothing() {
    let mut select = Query::select();
    select
        .column(column("id"))
        .from(Alias::new("city"))
        .and_where(Expr::col(column("id")).eq(5))
        .lock_exclusive();
    check(ALL, &select, "");
}
