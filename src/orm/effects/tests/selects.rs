use sea_orm::DatabaseBackend::{MySql, Postgres, Sqlite};
use sea_orm::DbBackend;

use super::{ALL, LITE, MY, PG, registry};
use crate::orm::effects::reads;

/// The entities, then `?name` for what is unknown, then `uncacheable`.
fn read(sql: &str, backend: DbBackend) -> String {
    let reads = reads(sql, backend, registry());
    let mut parts: Vec<String> = reads.entities.iter().map(|e| e.name.clone()).collect();
    parts.extend(reads.unknown.iter().map(|name| format!("?{name}")));
    parts.extend(reads.uncacheable.then(|| "uncacheable".to_owned()));
    parts.join(" ")
}

#[track_caller]
fn check(cases: &[(&[DbBackend], &str, &str)]) {
    let mut wrong = Vec::new();
    for (backends, sql, expected) in cases {
        for &backend in *backends {
            let found = read(sql, backend);
            if found != *expected {
                wrong.push(format!(
                    "{backend:?}: {sql}\n  expected {expected}\n  found    {found}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_select_reads_the_entities_that_it_mentions() {
    check(&[
        (ALL, "SELECT * FROM city", "city"),
        (
            ALL,
            "SELECT * FROM City WHERE id = 1 ORDER BY name LIMIT 5;",
            "city",
        ),
        (
            PG,
            r#"SELECT "c"."id" FROM "public"."city" AS "c" LEFT JOIN "slice" ON TRUE"#,
            "city slice",
        ),
        (
            MY,
            "SELECT `c`.`id` FROM `db`.`city` `c`, `cake`",
            "city cake",
        ),
        (MY, r#"SELECT id FROM "city""#, "city"),
        (LITE, "SELECT id FROM [city] JOIN 'cake'", "city cake"),
        (
            ALL,
            "SELECT (SELECT count(*) FROM cake) FROM city",
            "cake city",
        ),
        (
            ALL,
            "SELECT * FROM city WHERE id IN (SELECT id FROM cake) AND EXISTS (SELECT 1 FROM seat)",
            "city cake seat",
        ),
        (
            ALL,
            "SELECT * FROM city UNION ALL SELECT * FROM cake",
            "city cake",
        ),
        (
            ALL,
            "(SELECT * FROM city) UNION (SELECT * FROM cake)",
            "city cake",
        ),
        (
            ALL,
            "SELECT * FROM (SELECT * FROM city) AS x JOIN (cake JOIN seat ON TRUE) ON TRUE",
            "city cake seat",
        ),
        (ALL, "SELECT * FROM (city, (cake))", "city cake"),
        (
            ALL,
            "SELECT cake FROM city -- seat\n /* doc */ WHERE name = 'doc'",
            "cake city",
        ),
        (ALL, "VALUES (1), (2)", ""),
        (ALL, "SELECT 1", ""),
        (&[Postgres, MySql], "TABLE city", "city"),
        (
            PG,
            "SELECT * FROM ONLY city, LATERAL (SELECT * FROM cake) x",
            "city cake",
        ),
        (MY, "SELECT 1 FROM DUAL", ""),
        (
            MY,
            "SELECT STRAIGHT_JOIN x FROM city STRAIGHT_JOIN cake",
            "city cake",
        ),
        (LITE, "SELECT * FROM city WHERE id IN cake", "city cake"),
        (
            LITE,
            "SELECT * FROM city WHERE id IN (?) AND name IN ?",
            "city",
        ),
    ]);
}

#[test]
fn tables_of_no_entity_are_unknown() {
    check(&[
        (ALL, "SELECT * FROM log", "?log"),
        (
            ALL,
            "SELECT * FROM city, app.Log l, stats",
            "city ?log ?stats",
        ),
        (
            ALL,
            "SELECT * FROM city JOIN log ON city.id = log.id, stats WHERE a = b",
            "city ?log ?stats",
        ),
        (
            ALL,
            "SELECT * FROM city WHERE id IN (SELECT id FROM log)",
            "city ?log",
        ),
        (ALL, "SELECT * FROM (log)", "?log"),
        (
            ALL,
            "SELECT * FROM city UNION SELECT * FROM log",
            "city ?log",
        ),
        (ALL, "SELECT * FROM f(1)", "?f"),
        (ALL, "SELECT * FROM city CROSS JOIN city(1) x", "city ?city"),
        (
            PG,
            "SELECT * FROM unnest($1) u, generate_series(1, 2)",
            "?unnest ?generate_series",
        ),
        (PG, "SELECT * FROM ROWS FROM (f(1))", "?rows"),
        (PG, "TABLE log", "?log"),
        (PG, "SELECT 1 UNION TABLE log", "?log"),
        (LITE, "SELECT * FROM city WHERE id IN log", "city ?log"),
        (PG, "SELECT count(*) FILTER (WHERE x) FROM log", "?log"),
    ]);
}

#[test]
fn columns_and_functions_are_no_tables() {
    check(&[
        (
            ALL,
            "SELECT EXTRACT(YEAR FROM born), a, b FROM city",
            "city",
        ),
        (
            ALL,
            "SELECT SUBSTRING(a FROM b), TRIM(LEADING FROM c) FROM city",
            "city",
        ),
        (
            ALL,
            "SELECT a IS DISTINCT FROM b FROM city WHERE a IS NOT DISTINCT FROM c",
            "city",
        ),
        (
            ALL,
            "SELECT a FROM city GROUP BY a, b HAVING x ORDER BY c, d",
            "city",
        ),
        (
            ALL,
            "SELECT a FROM city c JOIN cake USING (x, y) WHERE f(a, b) = coalesce(c, d)",
            "city cake",
        ),
        (PG, "SELECT a FROM city AS c(x, y), cake", "city cake"),
        (
            MY,
            "SELECT a FROM city USE INDEX (a, b), cake LIMIT 1, 2",
            "city cake",
        ),
        (
            PG,
            "SELECT row_number() OVER (PARTITION BY a, b ORDER BY c, d) FROM city",
            "city",
        ),
    ]);
}

#[test]
fn ctes_are_known_in_their_scope_only() {
    check(&[
        (
            ALL,
            "WITH x AS (SELECT * FROM city) SELECT * FROM x",
            "city",
        ),
        (
            ALL,
            "WITH x AS (SELECT * FROM city), y (a, b) AS (SELECT * FROM x) SELECT * FROM x, y",
            "city",
        ),
        (
            PG,
            "WITH x AS NOT MATERIALIZED (SELECT * FROM city) SELECT * FROM x JOIN y ON TRUE",
            "city ?y",
        ),
        (
            ALL,
            "WITH RECURSIVE x (n) AS (SELECT id FROM city UNION SELECT n FROM x) SELECT * FROM x",
            "city",
        ),
        (ALL, "WITH city AS (SELECT 1) SELECT * FROM city", "city"),
        (
            ALL,
            "WITH log AS (SELECT * FROM log) SELECT * FROM log",
            "?log",
        ),
        (ALL, "WITH x AS (SELECT 1) SELECT * FROM app.x", "?x"),
        (ALL, "WITH x AS (SELECT 1) SELECT * FROM x(1)", "?x"),
        (
            ALL,
            "SELECT * FROM (WITH x AS (SELECT 1) SELECT * FROM x) a JOIN x ON TRUE",
            "?x",
        ),
        (
            ALL,
            "WITH x AS (SELECT 1) (SELECT * FROM x) UNION SELECT * FROM x",
            "",
        ),
        (
            PG,
            "SELECT CAST(a AS timestamp WITH TIME ZONE) FROM city, zone",
            "city ?zone",
        ),
    ]);
}

#[test]
fn what_locks_or_writes_or_is_not_understood_is_not_cached() {
    check(&[
        (ALL, "SELECT * FROM city FOR UPDATE", "city uncacheable"),
        (
            PG,
            "SELECT * FROM city FOR NO KEY UPDATE OF city NOWAIT",
            "city uncacheable",
        ),
        (PG, "SELECT * FROM city FOR KEY SHARE", "city uncacheable"),
        (
            ALL,
            "SELECT * FROM city FOR SHARE SKIP LOCKED",
            "city uncacheable",
        ),
        (
            MY,
            "SELECT * FROM city LOCK IN SHARE MODE",
            "city uncacheable",
        ),
        (MY, "SELECT * INTO @x FROM city", "city uncacheable"),
        (
            PG,
            "WITH x AS (DELETE FROM city RETURNING *) SELECT * FROM x",
            "city uncacheable",
        ),
        (ALL, "INSERT INTO city (id) VALUES (1)", "city uncacheable"),
        (ALL, "SELECT 1; SELECT 2", "uncacheable"),
        (ALL, "SELECT 'x", "uncacheable"),
        (ALL, "SELECT (1", "uncacheable"),
        (ALL, "SELECT 1)", "uncacheable"),
        (ALL, "SELECT * FROM", "uncacheable"),
        (MY, "SELECT /*!50700 1 */ FROM city", "city uncacheable"),
        (ALL, "SHOW city", "city uncacheable"),
        (ALL, "", "uncacheable"),
        (
            &[MySql, Sqlite],
            "SELECT replace(a, 'x', 'y') FROM city",
            "city",
        ),
        (PG, r#"SELECT "update" FROM city"#, "city"),
    ]);
}
