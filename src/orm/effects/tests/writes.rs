use sea_orm::DatabaseBackend::{MySql, Postgres, Sqlite};
use sea_orm::sea_query::Value;

use super::{ALL, LITE, MY, PG, bound, changed, check};

#[test]
fn an_insert_touches_its_key_and_the_entries_of_its_values() {
    let oslo = "INSERT INTO city (id, country_id, slug) VALUES (5, 7, 'oslo')";
    check(&[
        (ALL, oslo, vec![], "city 5 | country_id=7 slug=oslo"),
        (ALL, "insert into CITY (ID, Country_Id, SLUG) values (5, 7, 'oslo')", vec![], "city 5 | country_id=7 slug=oslo"),
        (PG, r#"INSERT INTO "public"."city" AS c ("id", "country_id", "slug") VALUES ($1, $2, $3) RETURNING "id""#, bound![5, 7i64, "oslo"], "city 5 | country_id=7 slug=oslo"),
        (PG, "INSERT INTO city (slug, id, country_id) VALUES ($3, $1, $2)", bound![5, 7, "oslo"], "city 5 | country_id=7 slug=oslo"),
        (MY, "INSERT INTO `db`.`city` (`id`, `country_id`, `slug`) VALUES (?, ?, ?)", bound![5, 7, "oslo"], "city 5 | country_id=7 slug=oslo"),
        (LITE, "INSERT INTO [city] ([id], 'country_id', `slug`) VALUES (?, ?, ?)", bound![5, 7, "oslo"], "city 5 | country_id=7 slug=oslo"),
        (LITE, "INSERT INTO city (id, country_id, slug) VALUES (?3, ?1, ?2)", bound![7, "oslo", 5], "city 5 | country_id=7 slug=oslo"),
        (LITE, "INSERT INTO city (id, country_id, slug) VALUES ($1, $2, $3)", bound![5, 7, "oslo"], "city 5 | country_id=7 slug=oslo"),
        (MY, "INSERT LOW_PRIORITY INTO city (id, country_id, slug) VALUE (5, 7, 'oslo')", vec![], "city 5 | country_id=7 slug=oslo"),
        (MY, "INSERT city (id, country_id, slug) VALUES ROW(5, 7, 'oslo')", vec![], "city 5 | country_id=7 slug=oslo"),
        (MY, "INSERT INTO city PARTITION (p0) (id, country_id, slug) VALUES (5, 7, 'oslo') AS new", vec![], "city 5 | country_id=7 slug=oslo"),
        (MY, "INSERT INTO city SET id = 5, country_id = 7, slug = ?", bound!["oslo"], "city 5 | country_id=7 slug=oslo"),
        (PG, "INSERT INTO city (id, country_id, slug) OVERRIDING SYSTEM VALUE VALUES (5, 7, 'oslo')", vec![], "city 5 | country_id=7 slug=oslo"),
        (ALL, "INSERT INTO city (id, country_id, slug) VALUES (-5, 7, 'oslo')", vec![], "city -5 | country_id=7 slug=oslo"),
    ]);
}

#[test]
fn every_row_of_an_insert_counts() {
    check(&[
        (ALL, "INSERT INTO city (id, country_id, slug) VALUES (1, 7, 'a'), (2, 7, 'b')", vec![], "city 1 2 | country_id=7 slug=a slug=b"),
        (MY, "INSERT INTO city (country_id, slug) VALUES (?, ?), (?, ?)", bound![1, "a", 2, "b"], "city - | country_id=1 country_id=2 slug=a slug=b"),
        (MY, "INSERT INTO doc (code) VALUES (?), ('x'), (?)", bound!["A ", "b"], "doc a b x | -"),
        (PG, "INSERT INTO doc (code) VALUES ($1)", bound!["A"], "doc A | -"),
        (ALL, "INSERT INTO seat (hall, no, owner) VALUES (1, 2, 'ann'), (1, 3, 'bob')", vec![], "seat 1,2 1,3 | by_owner=ann,1 by_owner=bob,1"),
    ]);
}

#[test]
fn a_key_that_the_database_makes_was_nowhere_before() {
    check(&[
        (ALL, "INSERT INTO city (country_id, slug) VALUES (7, 'oslo')", vec![], "city - | country_id=7 slug=oslo"),
        (ALL, "INSERT INTO city (id, country_id, slug) VALUES (DEFAULT, 7, 'oslo')", vec![], "city - | country_id=7 slug=oslo"),
        (ALL, "INSERT INTO city (id, country_id, slug) VALUES (NULL, 7, 'oslo')", vec![], "city - | country_id=7 slug=oslo"),
        (ALL, "INSERT INTO seat (hall, owner) VALUES (1, 'ann')", vec![], "seat - | by_owner=ann,1"),
        (MY, "INSERT INTO city (id, country_id, slug) VALUES (?, 7, 'oslo')", vec![Value::Int(None)], "city - | country_id=7 slug=oslo"),
    ]);
}

#[test]
fn a_default_that_is_not_known_touches_every_entry() {
    check(&[
        (ALL, "INSERT INTO city (slug) VALUES ('oslo')", vec![], "city - | *"),
        (ALL, "INSERT INTO city DEFAULT VALUES", vec![], "city - | *"),
        (PG, "INSERT INTO city VALUES (DEFAULT)", vec![], "city - | *"),
        (MY, "INSERT INTO city VALUES ()", vec![], "city - | *"),
        (MY, "INSERT INTO city () VALUES (), ()", vec![], "city - | *"),
        (ALL, "INSERT INTO crumb DEFAULT VALUES", vec![], "crumb - | -"),
        (ALL, "INSERT INTO city (id, country_id, slug) VALUES (5, DEFAULT, 'x')", vec![], "city 5 | *"),
    ]);
}

#[test]
fn nothing_is_looked_up_by_null() {
    check(&[
        (ALL, "INSERT INTO city (id, country_id, slug) VALUES (5, NULL, 'x')", vec![], "city 5 | slug=x"),
        (ALL, "INSERT INTO seat (hall, no, owner) VALUES (1, 2, NULL)", vec![], "seat 1,2 | -"),
        (PG, "INSERT INTO city (id, country_id, slug) VALUES ($1, $2, $3)", vec![5.into(), Value::BigInt(None), Value::String(None)], "city 5 | -"),
        (ALL, "UPDATE city SET country_id = NULL WHERE id = 5", vec![], "city 5 | -"),
        (ALL, "UPDATE city SET name = 'x' WHERE id = NULL", vec![], "city - | -"),
        (ALL, "DELETE FROM city WHERE id IN (NULL, 5)", vec![], "city 5 | -"),
    ]);
}

#[test]
fn a_key_column_that_may_be_generated_is_no_index_value() {
    check(&[
        (ALL, "INSERT INTO seat (hall, no, owner) VALUES (NULL, 2, 'ann')", vec![], "seat - | *"),
        (MY, "INSERT INTO seat (hall, no, owner) VALUES (0, 2, 'ann')", vec![], "seat 0,2 | *"),
        (&[Postgres, Sqlite], "INSERT INTO seat (hall, no, owner) VALUES (0, 2, 'ann')", vec![], "seat 0,2 | by_owner=ann,0"),
    ]);
}

#[test]
fn what_is_no_plain_value_is_every_value() {
    check(&[
        (ALL, "INSERT INTO city (id, country_id, slug) VALUES (1 + 1, 7, 'x')", vec![], "city * | country_id=7 slug=x"),
        (ALL, "INSERT INTO city (id, country_id, slug) VALUES (5, 3 + 4, 'x')", vec![], "city 5 | *"),
        (ALL, "INSERT INTO city (id, country_id, slug) VALUES (5, (SELECT 7), 'x')", vec![], "city 5 | *"),
        (ALL, "INSERT INTO city (id, country_id, slug) VALUES (5, 7, lower('X'))", vec![], "city 5 | *"),
        (ALL, "INSERT INTO city (id, country_id, slug) VALUES (5, 7, 'it''s')", vec![], "city 5 | *"),
        (ALL, "INSERT INTO city (id, country_id, slug) VALUES (5, 7.5, 'x')", vec![], "city 5 | *"),
        (ALL, "INSERT INTO city (id, country_id, slug) VALUES (5, 7, 8)", vec![], "city 5 | *"),
        (PG, "INSERT INTO city (id, country_id, slug) VALUES ($1::int, CAST($2 AS int), $3)", bound![5, 7, "x"], "city * | *"),
        (PG, "INSERT INTO city (id, country_id, slug) VALUES (5, 7, E'x')", vec![], "city 5 | *"),
        (PG, "INSERT INTO city (id, country_id, slug) VALUES (5, 7, $$x$$)", vec![], "city 5 | *"),
        (MY, r"INSERT INTO city (id, country_id, slug) VALUES (5, 7, 'x\'y')", vec![], "city 5 | *"),
        (MY, "INSERT INTO city (id, country_id, slug) VALUES (5, 0x1F, 'x')", vec![], "city 5 | *"),
        (MY, r#"INSERT INTO city (id, country_id, slug) VALUES (5, 7, "x")"#, vec![], "city 5 | *"),
        (&[MySql, Sqlite], "INSERT INTO city (id, country_id, slug) VALUES (5, 7, ?)", bound!["Ålesund"], "city 5 | *"),
        (PG, "INSERT INTO city (id, country_id, slug) VALUES (5, 7, $1)", bound!["Ålesund"], "city 5 | country_id=7 slug=%C3%85lesund"),
        (PG, "INSERT INTO city (id, country_id, slug) VALUES (5, 7, $1)", vec![], "city 5 | *"),
        (PG, "INSERT INTO city (id, country_id, slug) VALUES (5, ARRAY[1,2], 'x')", vec![], "city 5 | *"),
    ]);
}

#[test]
fn an_insert_of_rows_that_are_not_in_the_text_is_wide() {
    check(&[
        (ALL, "INSERT INTO city VALUES (5, 7, 'x', 'y')", vec![], "city * | *"),
        (ALL, "INSERT INTO city (id, slug) SELECT id, slug FROM cake", vec![], "city * | *"),
        (ALL, "INSERT INTO city (SELECT * FROM cake)", vec![], "city * | *"),
        (ALL, "INSERT INTO city SELECT * FROM cake WHERE id = 1", vec![], "city * | *"),
        (&[Postgres, MySql], "INSERT INTO city TABLE cake", vec![], "city * | *"),
        (ALL, "INSERT INTO city (id, slug) WITH x AS (SELECT 1) SELECT 1, 'a' FROM x", vec![], "city * | *"),
        (ALL, "INSERT INTO city (id) VALUES (1) UNION SELECT id FROM cake", vec![], "city * | *"),
        (ALL, "INSERT INTO city (id, slug) VALUES (1)", vec![], "city * | *"),
        (PG, "INSERT INTO city (id, slug) OVERRIDING USER VALUE VALUES (1, 'a')", vec![], "city * | *"),
        (PG, "INSERT INTO city (tags[1], id) VALUES (1, 2)", vec![], "city * | *"),
    ]);
}

#[test]
fn an_upsert_is_wide_and_one_that_does_nothing_is_not() {
    let values = "INSERT INTO city (id, country_id, slug) VALUES (5, 7, 'x')";
    let plain = "city 5 | country_id=7 slug=x";
    let pg_lite = &[Postgres, Sqlite][..];
    check(&[
        (pg_lite, &format!("{values} ON CONFLICT (id) DO UPDATE SET slug = EXCLUDED.slug"), vec![], "city * | *"),
        (pg_lite, &format!("{values} ON CONFLICT DO NOTHING RETURNING id"), vec![], plain),
        (MY, &format!("{values} ON DUPLICATE KEY UPDATE slug = VALUES(slug)"), vec![], "city * | *"),
        (MY, &format!("{values} AS new ON DUPLICATE KEY UPDATE slug = new.slug"), vec![], "city * | *"),
        (MY, "INSERT INTO city SET id = 5 ON DUPLICATE KEY UPDATE slug = 'x'", vec![], "city * | *"),
        (&[MySql, Sqlite], "REPLACE INTO city (id, slug) VALUES (5, 'x')", vec![], "city * | *"),
        (MY, "REPLACE city SET id = 5", vec![], "city * | *"),
        (LITE, "INSERT OR REPLACE INTO city (id) VALUES (5)", vec![], "city * | *"),
        (LITE, "INSERT OR IGNORE INTO city (id, country_id, slug) VALUES (5, 7, 'x')", vec![], plain),
        (LITE, "INSERT OR ABORT INTO city (id, country_id, slug) VALUES (5, 7, 'x')", vec![], plain),
        (LITE, "INSERT OR FAIL INTO city (id, country_id, slug) VALUES (5, 7, 'x')", vec![], plain),
        (LITE, "INSERT OR ROLLBACK INTO city (id, country_id, slug) VALUES (5, 7, 'x')", vec![], "city 5 | country_id=7 slug=x; end"),
    ]);
}

#[test]
fn insert_ignore_on_mysql_may_store_other_values() {
    check(&[
        (MY, "INSERT IGNORE INTO city (id, country_id, slug) VALUES (5, 7, 'x')", vec![], "city * | *"),
        (MY, "INSERT IGNORE INTO city (country_id, slug) VALUES (7, 'x')", vec![], "city - | *"),
        (MY, "INSERT IGNORE INTO tree (parent_id) VALUES (7)", vec![], "tree - | -"),
    ]);
}

#[test]
fn an_update_by_key_touches_those_rows_and_the_entries_of_new_values() {
    check(&[
        (ALL, "UPDATE city SET name = 'x' WHERE id = 5", vec![], "city 5 | -"),
        (ALL, "update CITY set NAME = 'x' where ID = 5", vec![], "city 5 | -"),
        (ALL, "UPDATE city SET name = 'x' WHERE 5 = id", vec![], "city 5 | -"),
        (ALL, "UPDATE city SET name = 'x' WHERE ((id = 5))", vec![], "city 5 | -"),
        (ALL, "UPDATE city SET name = 'x' WHERE city.id = 5", vec![], "city 5 | -"),
        (ALL, "UPDATE city AS c SET name = 'x' WHERE c.id = 5", vec![], "city 5 | -"),
        (ALL, "UPDATE city SET name = 'x' WHERE (id = 5 AND name = 'y') AND (slug = 'a' OR slug = 'b')", vec![], "city 5 | -"),
        (ALL, "UPDATE city SET name = 'x' WHERE name BETWEEN 'a' AND 'b' AND id = 5", vec![], "city 5 | -"),
        (ALL, "UPDATE city SET name = 'x' WHERE id IN (5, 6, 5)", vec![], "city 5 6 | -"),
        (ALL, "UPDATE city SET slug = 'b', country_id = 9 WHERE id = 5", vec![], "city 5 | country_id=9 slug=b"),
        (PG, r#"UPDATE "city" SET "slug" = $1 WHERE "city"."id" = $2 RETURNING "id", "slug""#, bound!["b", 5], "city 5 | slug=b"),
        (PG, r#"UPDATE "public"."city" SET "slug" = $1 WHERE "public"."city"."id" = $2"#, bound!["b", 5], "city 5 | slug=b"),
        (PG, "UPDATE ONLY city * SET name = 'x' WHERE id = 5", vec![], "city 5 | -"),
        (MY, "UPDATE `city` SET `slug` = ? WHERE `city`.`id` = ?", bound!["b", 5], "city 5 | slug=b"),
        (MY, "UPDATE city c SET c.slug = ? WHERE c.id = ? ORDER BY id LIMIT 1", bound!["b", 5], "city 5 | slug=b"),
        (LITE, "UPDATE city SET slug = ? WHERE id IN (?, ?)", bound!["b", 5, 6], "city 5 6 | slug=b"),
        (LITE, "UPDATE OR IGNORE city SET slug = 'b' WHERE id = 5", vec![], "city 5 | slug=b"),
        (LITE, "UPDATE OR ROLLBACK city SET name = 'b' WHERE id = 5", vec![], "city 5 | -; end"),
        (PG, "UPDATE city SET name = 'x', flag = a IS DISTINCT FROM b, slug = 'b' WHERE id = 5", vec![], "city 5 | slug=b"),
        (PG, "UPDATE city SET name = (SELECT name FROM cake WHERE id = 1) WHERE id = 5", vec![], "city 5 | -"),
    ]);
}

#[test]
fn all_columns_of_a_key_must_be_compared() {
    check(&[
        (ALL, "UPDATE seat SET note = 'x' WHERE hall = 1 AND no = 2", vec![], "seat 1,2 | -"),
        (ALL, "UPDATE seat SET note = 'x' WHERE no = 2 AND (note IS NULL) AND hall = 1", vec![], "seat 1,2 | -"),
        (ALL, "UPDATE seat SET note = 'x' WHERE hall = 1", vec![], "seat * | -"),
        (ALL, "UPDATE seat SET note = 'x' WHERE hall = 1 AND no IN (2, 3)", vec![], "seat * | -"),
        (ALL, "UPDATE seat SET note = 'x' WHERE (hall, no) IN ((1, 2))", vec![], "seat * | -"),
        (ALL, "DELETE FROM seat WHERE hall = 1 AND no = 2", vec![], "seat 1,2 | -"),
        (PG, "DELETE FROM seat WHERE seat.no = $2 AND seat.hall = $1", bound![1, 2], "seat 1,2 | -"),
    ]);
}

#[test]
fn a_condition_that_does_not_pin_the_key_touches_every_row() {
    let set = "UPDATE city SET name = 'x'";
    let all = |condition: &str| {
        let sql = format!("{set} WHERE {condition}");
        check(&[(ALL, &sql, vec![], "city * | -")]);
    };
    check(&[(ALL, set, vec![], "city * | -")]);
    for condition in [
        "slug = 'a'",
        "id = 5 OR slug = 'a'",
        "slug = 'a' AND id = 5 OR TRUE",
        "(id = 5 OR id = 6)",
        "id > 5",
        "id >= 5",
        "id <> 5",
        "id != 5",
        "NOT id = 5",
        "NOT (id = 5)",
        "id NOT IN (5)",
        "id IN (SELECT id FROM cake)",
        "id = id",
        "id = country_id",
        "id = 5 + 1",
        "id = 5 IS NULL",
        "id = 5.0",
        "id = 99999999999999999999999999",
        "other.id = 5",
        "name BETWEEN 'a' AND id = 5",
        "CASE WHEN a AND id = 5 AND b THEN 1 ELSE 0 END",
        "x || y AND id = 5",
        "id = CAST(5 AS int)",
        "EXISTS (SELECT 1 FROM cake WHERE id = 5)",
        "(id) = (5)",
        "id IS NULL",
        "id BETWEEN 5 AND 5",
    ] {
        all(condition);
    }
    check(&[
        (PG, "UPDATE city SET name = 'x' WHERE id = ANY($1)", bound![5], "city * | -"),
        (PG, "UPDATE city SET name = 'x' WHERE CURRENT OF c", vec![], "city * | -"),
        (PG, "UPDATE city SET name = 'x' WHERE id = 1 AND z = 2OR true", vec![], "city * | -"),
        (MY, r#"UPDATE city SET name = 'x' WHERE "id" = 0"#, vec![], "city * | -"),
        (MY, "UPDATE city SET name = 'x' WHERE id = 5 XOR true", vec![], "city * | -"),
        (MY, "UPDATE city SET returning = 1, slug = 'b' WHERE id = 5", vec![], "city 5 | slug=b"),
        (MY, "DELETE FROM city WHERE id = 5 AND returning = 1 OR true", vec![], "city * | -"),
        (MY, "UPDATE doc SET body = 'x' WHERE code = 0", vec![], "doc * | -"),
        (LITE, "UPDATE city SET name = 'x' WHERE rowid = 5", vec![], "city * | -"),
        (LITE, "UPDATE doc SET body = 'x' WHERE code = 'a' COLLATE NOCASE", vec![], "doc * | -"),
    ]);
}

#[test]
fn a_new_key_is_wide() {
    check(&[
        (ALL, "UPDATE city SET id = 6 WHERE id = 5", vec![], "city * | *"),
        (ALL, "UPDATE city SET name = 'x', ID = 6 WHERE id = 5", vec![], "city * | *"),
        (ALL, "UPDATE city SET (name, id) = ('x', 6) WHERE id = 5", vec![], "city * | *"),
        (LITE, "UPDATE city SET rowid = 6 WHERE id = 5", vec![], "city * | *"),
        (&[Postgres, MySql], "UPDATE city SET rowid = 6 WHERE id = 5", vec![], "city 5 | -"),
        (ALL, "UPDATE seat SET no = 6 WHERE hall = 1 AND no = 2", vec![], "seat * | *"),
    ]);
}

#[test]
fn an_index_value_that_is_not_known_touches_every_entry() {
    check(&[
        (ALL, "UPDATE city SET country_id = country_id + 1 WHERE id = 5", vec![], "city 5 | *"),
        (ALL, "UPDATE city SET slug = DEFAULT WHERE id = 5", vec![], "city 5 | *"),
        (ALL, "UPDATE city SET (slug, name) = ('a', 'b') WHERE id = 5", vec![], "city 5 | *"),
        (ALL, "UPDATE city SET slug = 'a', slug = 'b' WHERE id = 5", vec![], "city 5 | *"),
        (ALL, "UPDATE seat SET owner = 'ann' WHERE hall = 1 AND no = 2", vec![], "seat 1,2 | *"),
        (PG, "UPDATE city SET slug = $1::text WHERE id = $2", bound!["a", 5], "city 5 | *"),
        (PG, "UPDATE city SET slug[1] = 'a' WHERE id = 5", vec![], "city 5 | *"),
        (PG, "UPDATE city SET country_id.part = 1 WHERE id = 5", vec![], "city 5 | *"),
        (MY, "UPDATE IGNORE city SET slug = 'a' WHERE id = 5", vec![], "city 5 | *"),
        (MY, "UPDATE IGNORE city SET name = 'a' WHERE id = 5", vec![], "city 5 | -"),
    ]);
}

#[test]
fn an_update_of_more_than_one_table_is_wide() {
    check(&[
        (PG, "UPDATE city SET slug = 'a' FROM cake WHERE city.id = 5", vec![], "city * | slug=a"),
        (LITE, "UPDATE city SET name = cake.name FROM cake WHERE city.id = cake.id", vec![], "city * | -"),
        (LITE, "UPDATE OR REPLACE city SET name = 'a' WHERE id = 5", vec![], "city * | -"),
        (MY, "UPDATE city, seat SET name = 'a' WHERE city.id = 5", vec![], "city * | *; seat * | *"),
        (MY, "UPDATE city JOIN seat s ON s.no = city.id SET name = 'a'", vec![], "city * | *; seat * | *"),
        (MY, "UPDATE city c LEFT JOIN other o USING (id) SET c.name = 'a'", vec![], "city * | *; ?other"),
        (MY, "UPDATE a, b SET a.x = 1", vec![], "?a; ?b"),
        (MY, "UPDATE city PARTITION (p0) SET name = 'a' WHERE id = 5", vec![], "city * | *"),
        (LITE, "UPDATE city INDEXED BY i SET name = 'a' WHERE id = 5", vec![], "city * | *"),
    ]);
}

#[test]
fn a_delete_by_key_touches_those_rows() {
    check(&[
        (ALL, "DELETE FROM city WHERE id = 5", vec![], "city 5 | -"),
        (ALL, "DELETE FROM city WHERE id IN (5, 6)", vec![], "city 5 6 | -"),
        (ALL, "DELETE FROM city", vec![], "city * | -"),
        (ALL, "DELETE FROM city WHERE country_id = 5", vec![], "city * | -"),
        (ALL, "DELETE FROM city AS c WHERE c.id = 5 AND c.name = 'x'", vec![], "city 5 | -"),
        (PG, r#"DELETE FROM "city" WHERE "city"."id" = $1 RETURNING *"#, bound![5], "city 5 | -"),
        (PG, "DELETE FROM ONLY city WHERE id = 5", vec![], "city 5 | -"),
        (PG, "DELETE FROM ONLY city c USING cake k WHERE c.id = 5", vec![], "city * | -"),
        (PG, "DELETE FROM ONLY (city) WHERE id = 5", vec![], "city * | *"),
        (MY, "DELETE LOW_PRIORITY QUICK IGNORE FROM city WHERE id = 5 ORDER BY id LIMIT 1", vec![], "city 5 | -"),
        (MY, "DELETE c, s FROM city c JOIN seat s ON s.no = c.id WHERE c.id = 5", vec![], "city * | *; seat * | *"),
        (MY, "DELETE FROM c, s USING city c JOIN seat s WHERE c.id = 5", vec![], "city * | *; seat * | *"),
        (MY, "DELETE city.* FROM city JOIN other WHERE city.id = 5", vec![], "city * | *; ?other"),
        (MY, "DELETE a FROM log a JOIN other WHERE a.id = 5", vec![], "?log; ?other"),
        (LITE, "DELETE FROM 'city' WHERE id = ?", bound![5], "city 5 | -"),
    ]);
}

#[test]
fn too_many_keys_are_all_of_them() {
    let ids = |n: usize| {
        (1..=n)
            .map(|id| id.to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let rows = |n: usize| {
        (1..=n)
            .map(|id| format!("({id})"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let delete = |n| {
        changed(
            &format!("DELETE FROM city WHERE id IN ({})", ids(n)),
            &[],
            Postgres,
        )
    };
    let insert = |n| {
        changed(
            &format!("INSERT INTO crumb (id) VALUES {}", rows(n)),
            &[],
            Postgres,
        )
    };
    assert_eq!(delete(1001), "city * | -");
    assert_eq!(delete(1000).split(' ').count(), 1003);
    assert_eq!(insert(1001), "crumb * | -");
    assert_eq!(insert(1000).split(' ').count(), 1003);
}

#[test]
fn rows_that_go_take_others_with_them() {
    let children = "slice * | *; crumb * | *";
    let with = |own: &str| format!("{own}; {children}");
    check(&[
        (ALL, "DELETE FROM cake WHERE id = 1", vec![], &with("cake 1 | -")),
        (ALL, "DELETE FROM slice WHERE id = 1", vec![], "slice 1 | -; crumb * | *"),
        (ALL, "UPDATE cake SET id = 2 WHERE id = 1", vec![], &with("cake * | *")),
        (ALL, "UPDATE cake SET name = 'a' WHERE id = 1", vec![], &with("cake 1 | name=a")),
        (ALL, "UPDATE slice SET cake_id = 2 WHERE id = 1", vec![], "slice 1 | -"),
        (ALL, "INSERT INTO cake (id, name) VALUES (1, 'a')", vec![], "cake 1 | name=a"),
        (&[MySql, Sqlite], "REPLACE INTO cake (id) VALUES (1)", vec![], &with("cake * | *")),
        (LITE, "INSERT OR REPLACE INTO cake (id) VALUES (1)", vec![], &with("cake * | *")),
        (LITE, "UPDATE OR REPLACE cake SET other = 1 WHERE id = 1", vec![], &with("cake * | -")),
        (PG, "INSERT INTO cake (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET id = 2", vec![], &with("cake * | *")),
        (PG, "TRUNCATE cake", vec![], &with("cake * | *")),
        (PG, "MERGE INTO cake USING x ON TRUE WHEN MATCHED THEN DELETE", vec![], &with("cake * | *")),
        (ALL, "DELETE FROM gone WHERE id = 1", vec![], "crumb * | *; ?gone"),
        (ALL, "UPDATE gone SET x = 1", vec![], "crumb * | *; ?gone"),
        (ALL, "DELETE FROM tree WHERE id = 1", vec![], "tree * | *"),
        (ALL, "DELETE FROM tree WHERE parent_id = 1", vec![], "tree * | *"),
    ]);
}

#[test]
fn tables_of_no_entity_are_named() {
    check(&[
        (ALL, "INSERT INTO Log (id) VALUES (1)", vec![], "?log"),
        (ALL, "UPDATE app.log SET id = 1", vec![], "?log"),
        (ALL, "DELETE FROM log", vec![], "?log"),
        (PG, r#"DELETE FROM "we""ird""#, vec![], "?we\"ird"),
        (ALL, "DELETE FROM log; DELETE FROM log; DELETE FROM city", vec![], "city * | -; ?log"),
        (PG, "SELECT * INTO TEMPORARY TABLE log FROM city", vec![], "?log"),
        (PG, "SELECT * INTO city FROM cake", vec![], "city * | *"),
        (PG, "REFRESH MATERIALIZED VIEW CONCURRENTLY totals", vec![], "?totals"),
        (PG, "REFRESH MATERIALIZED VIEW city", vec![], "city * | *"),
    ]);
}

#[test]
fn data_changing_ctes_are_seen() {
    check(&[
        (PG, "WITH x AS (DELETE FROM city WHERE id = 5 RETURNING *) SELECT * FROM x", vec![], "city 5 | -"),
        (PG, "WITH x AS (SELECT 1), y (a) AS MATERIALIZED (UPDATE city SET slug = 'a' RETURNING id) SELECT 1", vec![], "city * | slug=a"),
        (PG, "WITH x AS (INSERT INTO log (id) VALUES (1)) DELETE FROM city WHERE id = $1", bound![5], "city 5 | -; ?log"),
        (ALL, "WITH x AS (SELECT 1 AS id) UPDATE city SET name = 'x' WHERE id IN (SELECT id FROM x)", vec![], "city * | -"),
        (ALL, "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x) INSERT INTO city SELECT * FROM x", vec![], "city * | *"),
        (ALL, "WITH x AS (SELECT * FROM city) SELECT * FROM x", vec![], ""),
        (PG, "WITH update AS (SELECT 1) DELETE FROM city WHERE id = 5", vec![], "city 5 | -"),
        (PG, "WITH a AS (WITH b AS (SELECT 1) DELETE FROM city WHERE id = 5 RETURNING *) SELECT 1", vec![], "city 5 | -"),
        (PG, "(WITH x AS (DELETE FROM city RETURNING *) SELECT * FROM x)", vec![], "city * | -"),
        (PG, "WITH RECURSIVE x AS (SELECT 1) SEARCH DEPTH FIRST BY a SET b DELETE FROM city", vec![], "city * | *"),
        (PG, "COPY (DELETE FROM city WHERE id = 5 RETURNING *) TO STDOUT", vec![], "city 5 | -"),
    ]);
}

#[test]
fn statements_that_run_others_are_followed() {
    check(&[
        (PG, "EXPLAIN ANALYZE DELETE FROM city WHERE id = 5", vec![], "city 5 | -"),
        (PG, "EXPLAIN (ANALYZE, BUFFERS) WITH x AS (SELECT 1) UPDATE city SET name = 'x'", vec![], "city * | -"),
        (PG, "EXPLAIN DELETE FROM city WHERE id = 5", vec![], ""),
        (PG, "EXPLAIN ANALYZE SELECT * FROM city", vec![], ""),
        (LITE, "EXPLAIN QUERY PLAN DELETE FROM city", vec![], ""),
        (MY, "ANALYZE FORMAT=JSON UPDATE city SET name = 'x' WHERE id = 5", vec![], "city 5 | -; end"),
        (MY, "SET STATEMENT max_statement_time = 1 FOR DELETE FROM city WHERE id = 5", vec![], "city 5 | -"),
        (PG, "PREPARE p AS DELETE FROM city", vec![], ""),
    ]);
}

#[test]
fn opaque_statements_touch_everything() {
    check(&[
        (ALL, "CALL f()", vec![], "everything"),
        (PG, "DO $$ BEGIN DELETE FROM city; END $$", vec![], "everything"),
        (ALL, "EXECUTE p", vec![], "everything"),
        (PG, "COMMIT PREPARED 'x'", vec![], "everything"),
        (ALL, "FROBNICATE x", vec![], "everything"),
        (ALL, "FROBNICATE city", vec![], "city * | *"),
        (ALL, &format!("INSERT INTO seat (owner) VALUES {}(REPLACE(1, 2, 3))", "(REPLACE(1, 2, 3)), ".repeat(200)), vec![], "seat - | *"),
        (PG, &format!("WITH a AS (DELETE FROM city){} SELECT 1", ", b AS (DELETE FROM seat)".repeat(99)), vec![], "city * | -; seat * | -"),
        (PG, &format!("WITH a AS (DELETE FROM city){} SELECT 1", ", b AS (DELETE FROM seat)".repeat(100)), vec![], "everything"),
        (MY, "IF EXISTS (SELECT 1 FROM city) THEN CALL f()", vec![], "everything"),
        (MY, "IF EXISTS (SELECT 1 FROM city) THEN EXECUTE IMMEDIATE 'DELETE FROM seat'", vec![], "everything"),
        (PG, "CREATE TABLE log AS EXECUTE p", vec![], "everything"),
        (LITE, "DELETE FROM \u{feff}city WHERE id = 5", vec![], "city 5 | -"),
        (LITE, "\u{feff}DELETE FROM city WHERE id =\u{feff}5", vec![], "city 5 | -"),
        (LITE, "DELETE FROM city WHERE id\u{feff} = 5", vec![], "city * | -"),
        (ALL, "DELETE FROM city WHERE name = 'x", vec![], "everything"),
        (ALL, r#"DELETE FROM "city"#, vec![], "everything"),
        (ALL, "DELETE FROM city /* ", vec![], "everything"),
        (ALL, "DELETE FROM city \0 WHERE id = 5", vec![], "everything"),
        (PG, "DELETE FROM $a$x", vec![], "everything"),
        (PG, r#"DELETE FROM U&"c\0069ty" WHERE id = 5"#, vec![], "everything"),
        (MY, "DELETE FROM city /*! ", vec![], "everything"),
        (ALL, "UPDATE 5", vec![], "everything"),
        (ALL, "INSERT", vec![], "everything"),
        (ALL, "UPDATE city", vec![], "city * | *"),
        (MY, "BEGIN NOT ATOMIC DELETE FROM city; END", vec![], "everything; end"),
    ]);
}

#[test]
fn whole_tables_are_emptied_and_filled() {
    check(&[
        (PG, "TRUNCATE TABLE city, ONLY seat RESTART IDENTITY", vec![], "city * | *; seat * | *"),
        (PG, "TRUNCATE city, log CASCADE", vec![], "?log; everything"),
        (MY, "TRUNCATE city", vec![], "city * | *; end"),
        (PG, "COPY city (id, name) FROM STDIN", vec![], "city * | *"),
        (PG, "COPY city TO STDOUT", vec![], ""),
        (PG, "COPY (SELECT * FROM city) TO STDOUT", vec![], ""),
        (MY, "LOAD DATA LOCAL INFILE 'x' REPLACE INTO TABLE city FIELDS TERMINATED BY ','", vec![], "city * | *"),
        (PG, "MERGE INTO ONLY city AS c USING cake ON c.id = cake.id WHEN MATCHED THEN DELETE", vec![], "city * | *"),
        (PG, "MERGE INTO log USING city ON TRUE WHEN MATCHED THEN DELETE", vec![], "?log"),
    ]);
}

#[test]
fn definitions_touch_the_tables_that_they_name() {
    let pg_lite = &[Postgres, Sqlite][..];
    check(&[
        (pg_lite, "CREATE TABLE log (id int)", vec![], ""),
        (pg_lite, "CREATE INDEX i ON log (id)", vec![], ""),
        (pg_lite, "CREATE INDEX i ON city (name)", vec![], "city * | *"),
        (pg_lite, "CREATE OR REPLACE VIEW city AS SELECT 1", vec![], "city * | *"),
        (PG, "CREATE OR REPLACE VIEW v AS SELECT 1", vec![], "?v"),
        (PG, "CREATE OR REPLACE FUNCTION f() RETURNS TABLE (a int) LANGUAGE sql AS $$ SELECT 1 $$", vec![], ""),
        (pg_lite, "ALTER TABLE city ADD COLUMN x int", vec![], "city * | *"),
        (pg_lite, "ALTER TABLE log RENAME TO city", vec![], "city * | *; ?log"),
        (pg_lite, "DROP TABLE IF EXISTS log, city", vec![], "city * | *; ?log"),
        (pg_lite, "DROP INDEX i", vec![], ""),
        (PG, "DROP SCHEMA app CASCADE", vec![], "everything"),
        (PG, "DROP TYPE mood CASCADE", vec![], "everything"),
        (PG, "ALTER TYPE mood RENAME VALUE 'a' TO 'b'", vec![], "everything"),
        (MY, "CREATE TABLE log (id int)", vec![], "end"),
        (MY, "CREATE TEMPORARY TABLE log (id int)", vec![], ""),
        (MY, "RENAME TABLE city TO town", vec![], "city * | *; end"),
        (MY, "DROP DATABASE app", vec![], "everything; end"),
        (LITE, "CREATE TRIGGER t AFTER INSERT ON log BEGIN DELETE FROM seat; SELECT 1; END", vec![], "seat * | *"),
        (LITE, "CREATE TRIGGER t AFTER INSERT ON log BEGIN SELECT 1; END; COMMIT", vec![], "end"),
    ]);
}

#[test]
fn reading_statements_touch_nothing() {
    for sql in [
        "",
        " ; ; ",
        "SELECT 1",
        "select * from city for update",
        " \n SELECT 'DELETE FROM city'",
        "SELECT 'a;b' FROM city; SELECT 2",
        "(SELECT * FROM city) UNION (SELECT * FROM cake)",
        "VALUES (1)",
        "TABLE city",
        "SHOW x",
        "EXPLAIN SELECT 1",
        "SAVEPOINT city",
        "RELEASE SAVEPOINT city",
        "-- DELETE FROM city",
        "/* DELETE FROM city; */",
        "SELECT 1; -- DELETE FROM city",
        "ROLLBACK TO SAVEPOINT x",
    ] {
        check(&[(ALL, sql, vec![], "")]);
    }
    check(&[
        (LITE, "PRAGMA table_info(city)", vec![], ""),
        (LITE, "ANALYZE city", vec![], ""),
        (LITE, "VACUUM", vec![], ""),
        (PG, "SET search_path TO city", vec![], ""),
        (PG, "LISTEN city", vec![], ""),
        (PG, "SELECT $$; DELETE FROM city $$, $a$ $$ INTO city $a$", vec![], ""),
        (PG, "SELECT 'x\\'; /* /* */ DELETE FROM city */", vec![], ""),
        (MY, "SELECT id INTO @x FROM city", vec![], ""),
        (MY, "SELECT * INTO OUTFILE '/tmp/x' FROM city", vec![], ""),
        (MY, "SELECT 1; # DELETE FROM city", vec![], ""),
        (MY, "SELECT 'it\\'s; DELETE FROM city'; SELECT 2", vec![], ""),
        (MY, "/*!40101 SET NAMES utf8 */", vec![], ""),
        (MY, "SELECT /*!40001 SQL_NO_CACHE */ * FROM city;", vec![], ""),
    ]);
}

#[test]
fn every_statement_of_a_text_counts() {
    check(&[
        (ALL, "DELETE FROM city WHERE id = 1; UPDATE city SET slug = 'a' WHERE id = 2;", vec![], "city 1 2 | slug=a"),
        (ALL, "DELETE FROM city WHERE id = 1; DELETE FROM city", vec![], "city * | -"),
        (ALL, "SELECT 1; DELETE FROM city WHERE id = 1", vec![], "city 1 | -"),
        (LITE, "UPDATE city SET slug = ? WHERE id = ?; DELETE FROM seat WHERE hall = ? AND no = ?", bound!["a", 1, 2, 3], "city 1 | slug=a; seat 2,3 | -"),
        (ALL, "DELETE FROM city WHERE name = ';' AND id = 1", vec![], "city 1 | -"),
        (ALL, "DELETE FROM city -- WHERE id = 1\n; SELECT 1", vec![], "city * | -"),
        (PG, "SELECT 1 -- x\rDELETE FROM city; DELETE FROM city", vec![], "city * | -"),
        (MY, "SELECT 5--1; DELETE FROM city", vec![], "city * | -"),
        (ALL, "DELETE/**/FROM/* x */city/**/WHERE/**/id=/**/1", vec![], "city 1 | -"),
        (PG, "SELECT 'a\\'; DELETE FROM city WHERE id = 1; -- '", vec![], "city 1 | -"),
    ]);
}

#[test]
fn comments_that_some_servers_execute_count_both_ways() {
    check(&[
        (MY, "/*! DELETE FROM city WHERE id = 1 */", vec![], "city * | *"),
        (MY, "DELETE FROM city WHERE id = 1 /*!50700 AND name = 'x' */", vec![], "city * | *"),
        (MY, "/*M!100400 DELETE FROM log */", vec![], "?log; everything"),
        (MY, "UPDATE city SET name = 'x' /*!99999 , ' */ ; DELETE FROM seat -- '", vec![], "everything"),
        (PG, "/*! DELETE FROM city WHERE id = 1 */", vec![], ""),
    ]);
}

#[test]
fn placeholders_of_mixed_styles_are_not_followed() {
    check(&[
        (LITE, "DELETE FROM city WHERE id = ?2 AND name = ?", bound![1, 2], "city 2 | -"),
        (LITE, "DELETE FROM city WHERE name = ?2 AND id = ?", bound![1, 2], "city * | -"),
        (LITE, "DELETE FROM city WHERE id = :id", bound![1], "city * | -"),
        (LITE, "DELETE FROM city WHERE id = @id", bound![1], "city * | -"),
        (LITE, "DELETE FROM city WHERE id = $2", bound![1, 2], "city * | -"),
        (PG, "DELETE FROM city WHERE id = $2", bound![1, 2], "city 2 | -"),
        (PG, "DELETE FROM city WHERE data ? 'x' AND id = $1", bound![1], "city 1 | -"),
        (ALL, "DELETE FROM city WHERE id = $0", bound![1], "city * | -"),
        (MY, "DELETE FROM city WHERE name = '?' AND id = ?", bound![1], "city 1 | -"),
    ]);
}

#[test]
fn transactions_begin_and_end() {
    let pg_lite = &[Postgres, Sqlite][..];
    check(&[
        (pg_lite, "BEGIN", vec![], "begin"),
        (LITE, "BEGIN IMMEDIATE TRANSACTION", vec![], "begin"),
        (pg_lite, "START TRANSACTION READ ONLY", vec![], "begin"),
        (MY, "BEGIN", vec![], "begin"),
        (MY, "START TRANSACTION", vec![], "begin"),
        (ALL, "COMMIT", vec![], "end"),
        (ALL, "END", vec![], "end"),
        (ALL, "ROLLBACK", vec![], "end"),
        (ALL, "ROLLBACK AND CHAIN", vec![], "end"),
        (PG, "ABORT", vec![], "end"),
        (PG, "PREPARE TRANSACTION 'x'", vec![], "end"),
        (PG, "ROLLBACK PREPARED 'x'", vec![], ""),
        (LITE, "ROLLBACK TRANSACTION TO x", vec![], ""),
        (ALL, "BEGIN; DELETE FROM city WHERE id = 1; COMMIT", vec![], "city 1 | -; end"),
        (ALL, "COMMIT; BEGIN", vec![], "begin"),
        (MY, "SET autocommit = 0", vec![], "begin"),
        (MY, "SET autocommit = 1", vec![], "end"),
        (MY, "SET @@session.autocommit = 1", vec![], "end"),
        (MY, "SET NAMES utf8mb4", vec![], ""),
        (PG, "SET autocommit = 0", vec![], ""),
        (MY, "LOCK TABLES city WRITE", vec![], "end"),
        (PG, "LOCK TABLE city", vec![], ""),
        (MY, "GRANT ALL ON city TO x", vec![], "end"),
        (MY, "ANALYZE TABLE city", vec![], "end"),
    ]);
}
