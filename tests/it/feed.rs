//! The change feed: what others write is fresh once it was applied, and is not lost.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sea_orm::ActiveValue::Set;
use sea_orm::{
    ActiveModelTrait, ConnectionTrait, DatabaseConnection, DbBackend, DbErr, EntityTrait,
    Statement, TransactionTrait,
};
use sea_orm_cache::store::Op;
use sea_orm_cache::{Cache, Change, Event, Feed, RowChange};
use sea_orm_cache_migration::sea_orm_migration::{MigrationTrait, SchemaManager};
use sea_orm_cache_migration::{Outbox, Watch};

use crate::entities::{account, blob, city, city_tag, country, document, line, tag, word};
use crate::on_all;
use crate::outages::name;
use crate::reads::{city as a_city, seed};
use crate::world::{Place, Sql, World};

mod faults;
mod keys;
mod measure;
mod migrations;
mod processes;

on_all!(
    foreign_writes_are_fresh_once_they_were_applied,
    a_foreign_write_leaves_other_rows_cached,
    what_is_rolled_back_leaves_nothing,
    a_load_under_way_that_read_the_old_row_is_not_stored,
    writes_through_the_library_are_applied_again_and_stay_fresh,
    rules_are_asked_about_foreign_changes,
    tables_of_no_entity_make_selects_stale,
);

/// The outbox, and the triggers of the tables that these tests use.
async fn install(db: &DatabaseConnection) -> Result<(), DbErr> {
    Outbox.up(&SchemaManager::new(db)).await?;
    for watch in [
        Watch::of::<city::Entity>(),
        Watch::of::<country::Entity>(),
        Watch::of::<tag::Entity>(),
        Watch::of::<city_tag::Entity>(),
        Watch::of::<word::Entity>(),
        Watch::of::<line::Entity>(),
        Watch::of::<document::Entity>(),
        Watch::of::<blob::Entity>(),
        Watch::of::<account::Entity>(),
    ] {
        watch.install(db).await?;
    }
    // What was written before the triggers were there.
    db.execute_unprepared("DELETE FROM sea_orm_cache_outbox")
        .await
        .map(drop)
}

/// The seed, watched, and all that it left in the outbox applied.
async fn watched(world: &World) -> Feed {
    install(&world.raw).await.expect("triggers");
    seed(world).await;
    let feed = Feed::new(&world.db);
    feed.drain().await.unwrap();
    feed
}

/// Writes as another program does.
async fn foreign(world: &World, sql: &str) {
    let done = world.raw.execute_unprepared(sql).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// How many changes wait.
async fn waiting(world: &World) -> i64 {
    let sql = "SELECT count(*) AS n FROM sea_orm_cache_outbox";
    number(world, sql).await
}

async fn number(world: &World, sql: &str) -> i64 {
    let row = world
        .raw
        .query_one_raw(Statement::from_string(world.backend(), sql));
    row.await.unwrap().unwrap().try_get("", "n").unwrap()
}

async fn foreign_writes_are_fresh_once_they_were_applied(world: World) {
    let feed = watched(&world).await;
    let writes = [
        (
            "INSERT INTO city (id, country_id, slug, name, rank) VALUES (5, 10, 'oslo', 'Oslo', 3)",
            1,
        ),
        ("INSERT INTO city (slug, name) VALUES ('bern', 'Bern')", 1),
        ("UPDATE city SET name = 'new' WHERE id = 1", 1),
        (
            "UPDATE city SET name = 'odd' WHERE lower(name) LIKE '%e%'",
            3,
        ),
        ("UPDATE city SET slug = 'oslo2' WHERE id = 5", 1),
        (
            "UPDATE city SET country_id = 20, rank = 9 WHERE id IN (1, 2)",
            2,
        ),
        ("UPDATE city SET country_id = NULL WHERE id = 2", 1),
        ("UPDATE city SET id = 11 WHERE id = 3", 1),
        (
            "UPDATE city SET id = id + 100, slug = 'paris2' WHERE slug = 'paris'",
            1,
        ),
        ("DELETE FROM city WHERE id = 11", 1),
        ("DELETE FROM city", 5),
    ];
    if world.backend() == DbBackend::Postgres {
        foreign(&world, "ALTER SEQUENCE city_id_seq RESTART WITH 50").await;
    }
    world.warm().await;
    for (sql, changes) in writes {
        foreign(&world, sql).await;
        let postgres = world.backend() == DbBackend::Postgres;
        let rows = if sql.contains(" id = ") && sql.contains("SET id") || sql.contains("paris2") {
            // A changed key is a row that went and one that came.
            changes * (1 + i64::from(postgres))
        } else {
            changes
        };
        let applied = feed.drain().await.unwrap() as i64;
        assert_eq!((applied, waiting(&world).await), (rows, 0), "{sql}");
        world.assert_fresh(sql).await;
    }
}

async fn a_foreign_write_leaves_other_rows_cached(world: World) {
    let feed = watched(&world).await;
    world.warm().await;
    foreign(&world, "UPDATE city SET name = 'new' WHERE id = 1").await;
    feed.drain().await.unwrap();
    for (read, statements) in [(1, 1), (1, 0), (2, 0), (3, 0)] {
        let (row, cost) = world.cost(city::Entity::cached_get(read, &world.db)).await;
        assert!(row.unwrap().is_some());
        assert_eq!(cost.statements, statements, "row {read}");
    }
    let by_index = city::Entity::cached_find_by_country_id(20, &world.db);
    let (rows, cost) = world.cost(by_index).await;
    assert_eq!((rows.unwrap().len(), cost.statements), (1, 0));
}

async fn what_is_rolled_back_leaves_nothing(world: World) {
    let feed = watched(&world).await;
    world.warm().await;
    let txn = world.raw.begin().await.unwrap();
    txn.execute_unprepared("UPDATE city SET name = 'lost'")
        .await
        .unwrap();
    txn.rollback().await.unwrap();
    assert_eq!(feed.drain().await.unwrap(), 0);

    let txn = world.raw.begin().await.unwrap();
    txn.execute_unprepared("UPDATE city SET name = 'kept' WHERE id = 1")
        .await
        .unwrap();
    let savepoint = txn.begin().await.unwrap();
    savepoint
        .execute_unprepared("UPDATE city SET name = 'lost' WHERE id = 2")
        .await
        .unwrap();
    savepoint.rollback().await.unwrap();
    let savepoint = txn.begin().await.unwrap();
    savepoint
        .execute_unprepared("UPDATE city SET name = 'kept' WHERE id = 3")
        .await
        .unwrap();
    savepoint.commit().await.unwrap();
    if world.backend() != DbBackend::Sqlite {
        assert_eq!(feed.drain().await.unwrap(), 0, "not before the commit");
    }
    txn.commit().await.unwrap();
    assert_eq!(feed.drain().await.unwrap(), 2);
    world.assert_fresh("the commit").await;
}

async fn a_load_under_way_that_read_the_old_row_is_not_stored(world: World) {
    let feed = watched(&world).await;
    let pause = world.store.pause_before(Op::is_fill);
    let db = world.db.clone();
    let reader = tokio::spawn(async move { city::Entity::cached_get(1, &db).await });
    pause.arrived().await;
    foreign(&world, "UPDATE city SET name = 'new' WHERE id = 1").await;
    feed.drain().await.unwrap();
    pause.resume();
    assert_eq!(reader.await.unwrap().unwrap().unwrap().name, "PARIS");
    world.assert_fresh("a slow reader").await;
}

async fn writes_through_the_library_are_applied_again_and_stay_fresh(world: World) {
    let feed = watched(&world).await;
    world.warm().await;
    a_city(9, Some(10), "bern").insert(&world.db).await.unwrap();
    let rename = city::ActiveModel {
        id: Set(1),
        name: Set("own".to_owned()),
        ..Default::default()
    };
    rename.update(&world.db).await.unwrap();
    world.assert_fresh("own writes").await;
    assert_eq!(feed.drain().await.unwrap(), 2);
    world.assert_fresh("own writes, again").await;
}

async fn rules_are_asked_about_foreign_changes(world: World) {
    let feed = watched(&world).await;
    let seen: Arc<Mutex<Vec<Change>>> = Arc::default();
    let told = Arc::clone(&seen);
    world.cache.on_change::<city::Entity>(move |change, stale| {
        told.lock().unwrap().push(change.clone());
        stale.tag("cities");
    });
    foreign(&world, "UPDATE city SET name = 'new' WHERE id = 2").await;
    feed.drain().await.unwrap();
    let rows: Vec<_> = seen
        .lock()
        .unwrap()
        .iter()
        .map(|c| c.rows().map(<[_]>::to_vec))
        .collect();
    assert_eq!(rows, [Some(vec!["2".to_owned()])]);
}

async fn tables_of_no_entity_make_selects_stale(world: World) {
    let plain = Watch::table(None, "plain");
    install(&world.raw).await.unwrap();
    plain.install(&world.raw).await.unwrap();
    foreign(&world, "INSERT INTO plain (id, city_id) VALUES (1, 1)").await;
    let feed = Feed::new(&world.db);
    assert_eq!(feed.drain().await.unwrap(), 2);
    plain.remove(&world.raw).await.unwrap();
    foreign(&world, "INSERT INTO plain (id, city_id) VALUES (2, 1)").await;
    assert_eq!(feed.drain().await.unwrap(), 0);
}

#[tokio::test]
async fn truncate_and_bulk_statements_are_one_change_on_postgres() {
    let world = World::new(Sql::Postgres, Place::Memory).await;
    let feed = watched(&world).await;
    let watch = Watch::of::<city::Entity>().bulk_over(20);
    watch.install(&world.raw).await.unwrap();
    assert_eq!(feed.drain().await.unwrap(), 1);
    let insert = "INSERT INTO city (id, slug, name, rank) \
        SELECT n, 'slug' || n, 'name', 1 FROM generate_series(1001, 1050) AS n";
    for (sql, changes) in [
        (insert, 1),
        ("UPDATE city SET name = 'bulk' WHERE id > 1000", 1),
        ("UPDATE city SET name = 'less' WHERE id <= 1010", 14),
        ("DELETE FROM city WHERE id > 1030", 20),
        ("DELETE FROM city WHERE id > 1009", 1),
        ("UPDATE city SET name = 'none' WHERE id = -1", 0),
        ("TRUNCATE city, city_tag", 2),
    ] {
        world.warm().await;
        foreign(&world, sql).await;
        assert_eq!(waiting(&world).await, changes, "{sql}");
        feed.drain().await.unwrap();
        world.assert_fresh(sql).await;
    }
}

#[tokio::test]
async fn cascades_of_foreign_deletes_are_seen_whatever_fires_for_them() {
    for sql in [Sql::Sqlite, Sql::Postgres, Sql::MariaDb] {
        let world = World::new(sql, Place::Memory).await;
        let feed = watched(&world).await;
        world.warm().await;
        foreign(&world, "DELETE FROM country WHERE id = 10").await;
        feed.drain().await.unwrap();
        assert_eq!(city::Entity::find().all(&world.raw).await.unwrap().len(), 2);
        world.assert_fresh("a cascade").await;
        assert!(
            country::Entity::cached_get(10, &world.db)
                .await
                .unwrap()
                .is_none()
        );
    }
}

#[tokio::test]
async fn what_a_program_asks_about_its_last_insert_is_not_changed_by_the_triggers() {
    for (sql, asked) in [
        (Sql::Postgres, "SELECT lastval() AS n"),
        (Sql::MariaDb, "SELECT CAST(LAST_INSERT_ID() AS SIGNED) AS n"),
        (Sql::Sqlite, "SELECT last_insert_rowid() AS n"),
    ] {
        let world = World::new(sql, Place::Memory).await;
        install(&world.raw).await.unwrap();
        // More changes than rows of the table.
        for n in 0..3 {
            foreign(
                &world,
                &format!("INSERT INTO country (id, iso2, name) VALUES ({n}, 'X{n}', '')"),
            )
            .await;
        }
        let txn = world.raw.begin().await.unwrap();
        txn.execute_unprepared("INSERT INTO city (slug, name) VALUES ('a', 'A')")
            .await
            .unwrap();
        let row = txn.query_one_raw(Statement::from_string(world.backend(), asked));
        let last: i64 = row.await.unwrap().unwrap().try_get("", "n").unwrap();
        txn.commit().await.unwrap();
        assert_eq!(
            last,
            number(&world, "SELECT id AS n FROM city").await,
            "{sql:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_feed_is_woken_by_postgres_and_stops_when_told() {
    let world = World::new(Sql::Postgres, Place::Memory).await;
    watched(&world).await;
    world.warm().await;
    let feed = Feed::new(&world.db).idle(Duration::from_secs(3600));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(async move { feed.run_until(async { drop(stopped.await) }).await });
    for n in 0..5 {
        foreign(
            &world,
            &format!("UPDATE city SET name = 'new {n}' WHERE id = 1"),
        )
        .await;
        crate::outages::until(async || waiting(&world).await == 0).await;
        world.assert_fresh("a notification").await;
    }
    stop.send(()).unwrap();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_feed_finds_changes_where_nobody_wakes_it() {
    for sql in [Sql::MariaDb, Sql::Sqlite] {
        let world = World::new(sql, Place::Memory).await;
        watched(&world).await;
        world.warm().await;
        let feed = Feed::new(&world.db).idle(Duration::from_millis(5)).batch(2);
        let running = tokio::spawn(async move { feed.run().await });
        foreign(&world, "UPDATE city SET name = 'new'").await;
        crate::outages::until(async || waiting(&world).await == 0).await;
        world.assert_fresh("a poll").await;
        running.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feeds_share_the_work_and_apply_each_change_once_where_rows_can_be_locked() {
    for sql in [Sql::Postgres, Sql::MariaDb, Sql::Sqlite] {
        let world = World::new(sql, Place::Memory).await;
        watched(&world).await;
        world.warm().await;
        for n in 0..200 {
            foreign(
                &world,
                &format!("UPDATE city SET name = 'n{n}' WHERE id = {}", 1 + n % 4),
            )
            .await;
        }
        let (_, other) = world.another_process().await;
        let [one, two] = [&world.db, &other].map(|db| Feed::new(db).batch(3));
        let (one, two) = tokio::join!(one.drain(), two.drain());
        let (one, two) = (one.unwrap(), two.unwrap());
        // The last rows may be another's when one looks: then it ends.
        let rest = Feed::new(&world.db).drain().await.unwrap();
        match world.backend() {
            DbBackend::Sqlite => assert!(one + two + rest >= 200),
            _ => assert_eq!(one + two + rest, 200),
        }
        assert_eq!(waiting(&world).await, 0);
        world.assert_fresh("two feeds").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_foreign_changes_leave_nothing_stale() {
    for (sql, series) in [
        (Sql::Postgres, "SELECT n FROM generate_series(1, 1000) AS n"),
        (Sql::MariaDb, "SELECT seq AS n FROM seq_1_to_1000"),
        (
            Sql::Sqlite,
            "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 1000) SELECT n FROM s",
        ),
    ] {
        let world = World::new(sql, Place::Redis).await;
        let feed = watched(&world).await;
        foreign(&world, "DELETE FROM city").await;
        let text = match sql {
            Sql::MariaDb => "CONCAT('s', n)",
            _ => "'s' || n",
        };
        foreign(&world, &format!("INSERT INTO city (id, slug, name, rank) SELECT n, {text}, '', n FROM ({series}) AS s")).await;
        feed.drain().await.unwrap();
        world.warm().await;
        for n in 0..100 {
            let set = match n % 4 {
                0 => "name = 'plain'",
                1 => "rank = rank + 7",
                2 => "country_id = 10",
                _ => "country_id = NULL, name = 'x'",
            };
            let set = set.replace('x', &n.to_string());
            foreign(&world, &format!("UPDATE city SET {set}")).await;
        }
        assert_eq!(waiting(&world).await, 100_000);
        let began = std::time::Instant::now();
        assert_eq!(feed.drain().await.unwrap(), 100_000);
        let rate = 100_000.0 / began.elapsed().as_secs_f64();
        println!("{sql:?}: {rate:.0} changes a second");
        world.assert_fresh("100,000 changes").await;
    }
}

#[tokio::test]
async fn a_log_of_ones_own_is_applied() {
    let world = World::new(Sql::Sqlite, Place::Memory).await;
    seed(&world).await;
    world.warm().await;
    foreign(
        &world,
        "UPDATE city SET name = 'new', rank = 5 WHERE id = 1",
    )
    .await;
    foreign(&world, "DELETE FROM city WHERE id = 2").await;
    foreign(&world, "UPDATE country SET name = 'x'").await;
    let row = |text: &str| Some(text.parse().unwrap());
    let changes = [
        RowChange::row(
            "city",
            None,
            row(r#"{"id": 1, "country_id": 10, "slug": "paris", "rank": 5}"#),
        ),
        RowChange::row("City", row(r#"{"id": 2}"#), None),
        RowChange::table("country"),
    ];
    world.db.apply(changes).await.unwrap();
    world.db.apply([]).await.unwrap();
    world.assert_fresh("a log").await;
}

#[tokio::test]
async fn tenants_and_labels_are_told_as_well() {
    let world = World::new(Sql::Sqlite, Place::Memory).await;
    watched(&world).await;
    let tenant = world.db.scoped("tenant");
    let label = world.cache.attach_as("other", world.raw.clone());
    let feed = Feed::new(&world.db).also(&tenant).also(&label);
    for db in [&world.db, &tenant, &label] {
        assert_eq!(name(db).await, "PARIS");
    }
    foreign(&world, "UPDATE city SET name = 'new' WHERE id = 1").await;
    feed.drain().await.unwrap();
    for db in [&world.db, &tenant, &label] {
        assert_eq!(name(db).await, "new");
    }
}

#[tokio::test]
async fn events_tell_what_was_applied_and_what_waits() {
    let world = World::new(Sql::Sqlite, Place::Memory).await;
    watched(&world).await;
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&seen);
    let observe = move |event: &Event<'_>| match event {
        Event::Fed { changes, .. } => told.lock().unwrap().push(format!("fed {changes}")),
        Event::FeedLag { oldest } if oldest.is_zero() => {
            told.lock().unwrap().push("none".to_owned())
        }
        Event::FeedLag { .. } => told.lock().unwrap().push("some".to_owned()),
        _ => {}
    };
    let builder = Cache::builder()
        .store(world.store.clone())
        .observer(observe);
    let feed = Feed::new(&builder.build().await.unwrap().attach(world.raw.clone())).batch(3);
    assert_eq!(feed.drain().await.unwrap(), 0);
    foreign(&world, "UPDATE city SET name = 'new'").await;
    foreign(
        &world,
        "UPDATE sea_orm_cache_outbox SET created_at = created_at - 5000",
    )
    .await;
    assert_eq!(feed.drain().await.unwrap(), 4);
    assert_eq!(feed.drain().await.unwrap(), 0);
    assert_eq!(
        *seen.lock().unwrap(),
        ["some", "fed 3", "some", "fed 1", "none"]
    );
}
