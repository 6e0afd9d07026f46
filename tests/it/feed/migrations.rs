//! Migrations: up, down, up; and what has changed since.

use sea_orm::DbBackend;
use sea_orm_cache::Feed;
use sea_orm_cache_migration::sea_orm_migration::{MigrationTrait, MigratorTrait, SchemaManager};
use sea_orm_cache_migration::{Outbox, Watch};

use super::{foreign, number, waiting};
use crate::entities::{
    blob, city, city_tag, country, document, gadget_new, gadget_old, line, word,
};
use crate::world::{Place, Sql, World};

/// A service's own.
struct First;

/// The same later: the keys of a city have changed.
struct Second;

impl MigratorTrait for First {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(Outbox),
            Box::new(Watch::of::<city::Entity>()),
            Box::new(Watch::of::<line::Entity>().bulk_over(10).without_notify()),
        ]
    }
}

impl MigratorTrait for Second {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let again = Watch::of::<city::Entity>().again(2);
        let mut all = First::migrations();
        all.push(Box::new(again));
        all
    }
}

async fn triggers(world: &World) -> i64 {
    let sql = match world.backend() {
        DbBackend::Postgres => {
            "SELECT count(*) AS n FROM pg_trigger WHERE tgname LIKE 'sea_orm_cache_%'"
        }
        DbBackend::MySql => {
            "SELECT count(*) AS n FROM information_schema.triggers WHERE trigger_schema = DATABASE()"
        }
        _ => "SELECT count(*) AS n FROM sqlite_master WHERE type = 'trigger'",
    };
    number(world, sql).await
}

#[tokio::test]
async fn they_go_up_and_down_and_up_again() {
    for sql in [Sql::Sqlite, Sql::Postgres, Sql::MariaDb] {
        let world = World::new(sql, Place::Memory).await;
        let each = if world.backend() == DbBackend::Postgres {
            4
        } else {
            3
        };
        let write =
            "INSERT INTO line (order_id, position, product, amount) VALUES (1, 'a', 'b', 2)";
        for _ in 0..2 {
            First::up(&world.raw, None).await.unwrap();
            assert_eq!(triggers(&world).await, 2 * each, "{sql:?}");
            Second::up(&world.raw, None).await.unwrap();
            assert_eq!(triggers(&world).await, 2 * each, "{sql:?}");
            assert_eq!(Feed::new(&world.db).drain().await.unwrap(), 3);
            foreign(&world, write).await;
            assert_eq!(waiting(&world).await, 1);
            Second::down(&world.raw, Some(1)).await.unwrap();
            assert_eq!(
                triggers(&world).await,
                2 * each,
                "those of the first time stay"
            );
            Second::down(&world.raw, None).await.unwrap();
            assert_eq!(triggers(&world).await, 0, "{sql:?}");
            foreign(&world, "DELETE FROM line").await;
        }
        // What is there is replaced, and what is not is not missed.
        First::up(&world.raw, None).await.unwrap();
        let watch = Watch::of::<city::Entity>();
        watch.install(&world.raw).await.unwrap();
        assert!(watch.is_installed(&world.raw).await.unwrap());
        let other = Watch::of::<line::Entity>();
        let as_it_is = world.backend() != DbBackend::Postgres;
        assert_eq!(other.is_installed(&world.raw).await.unwrap(), as_it_is);
        watch.remove(&world.raw).await.unwrap();
        watch.remove(&world.raw).await.unwrap();
        assert!(!watch.is_installed(&world.raw).await.unwrap());
        assert_eq!(triggers(&world).await, each);
    }
}

/// What the program `sea-orm-cache-migration` finds out about a table is what its entity knows.
#[tokio::test]
async fn a_table_is_described_as_its_entity_is() {
    for sql in [Sql::Sqlite, Sql::Postgres, Sql::MariaDb] {
        let world = World::new(sql, Place::Memory).await;
        let db = &world.raw;
        Outbox.up(&SchemaManager::new(db)).await.unwrap();
        let tables: [(&str, &[&str], Watch); 7] = [
            (
                "city",
                &["slug", "country_id", "rank"],
                Watch::of::<city::Entity>(),
            ),
            ("country", &["iso2"], Watch::of::<country::Entity>()),
            ("city_tag", &[], Watch::of::<city_tag::Entity>()),
            ("word", &["kind"], Watch::of::<word::Entity>()),
            ("line", &["product", "amount"], Watch::of::<line::Entity>()),
            ("document", &[], Watch::of::<document::Entity>()),
            ("blob_store", &[], Watch::of::<blob::Entity>()),
        ];
        for (table, columns, entity) in tables {
            let found = Watch::described(None, table, columns, db).await.unwrap();
            found.install(db).await.unwrap();
            assert!(entity.is_installed(db).await.unwrap(), "{sql:?}: {table}");
        }
        if matches!(sql, Sql::Postgres) {
            foreign(&world, "CREATE SCHEMA \"Shop\"").await;
            foreign(&world, "CREATE DOMAIN \"Shop\".code AS bigint").await;
            let create =
                "CREATE TABLE \"Shop\".\"Or der\" (b \"Shop\".code, a text, PRIMARY KEY (b, a))";
            foreign(&world, create).await;
            let found = Watch::described(Some("Shop"), "Or der", &["a"], db).await;
            let watch = found.unwrap();
            watch.install(db).await.unwrap();
            foreign(&world, "DELETE FROM sea_orm_cache_outbox").await;
            foreign(&world, "INSERT INTO \"Shop\".\"Or der\" VALUES (7, 'x')").await;
            let told = "SELECT count(*) AS n FROM sea_orm_cache_outbox WHERE table_name = 'Or der' \
                        AND new_json::jsonb = '{\"b\": 7, \"a\": \"x\"}'";
            assert_eq!(number(&world, told).await, 1);
        }
        for (table, columns, reason) in [
            ("nowhere", &[][..], "there is no table nowhere"),
            (
                "tag",
                &["lable"][..],
                "tag has no column lable; it has id, label",
            ),
        ] {
            let error = Watch::described(None, table, columns, db)
                .await
                .unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}

#[tokio::test]
async fn triggers_that_know_fewer_columns_than_the_entity_cost_misses_only() {
    for sql in [Sql::Sqlite, Sql::Postgres, Sql::MariaDb] {
        let world = World::new(sql, Place::Memory).await;
        let feed = super::watched(&world).await;
        // As if the entity had got its indexes since.
        Watch::table(None, "city")
            .install(&world.raw)
            .await
            .unwrap();
        world.warm().await;
        foreign(
            &world,
            "UPDATE city SET slug = 'new', country_id = 20 WHERE id = 1",
        )
        .await;
        feed.drain().await.unwrap();
        world.assert_fresh("old triggers").await;
    }
}

#[tokio::test]
async fn a_program_without_rights_to_the_outbox_can_write_to_what_is_watched() {
    let world = World::new(Sql::Postgres, Place::Memory).await;
    let feed = super::watched(&world).await;
    world.warm().await;
    let role = format!("foreign_{:08x}", fastrand::u32(..));
    foreign(
        &world,
        &format!("CREATE ROLE {role}; GRANT SELECT, UPDATE ON city TO {role}"),
    )
    .await;
    let write = format!(
        "SET ROLE {role}; SET search_path = pg_catalog; SET standard_conforming_strings = off; \
         SET bytea_output = 'escape'; UPDATE public.city SET name = 'new'; RESET ALL; RESET ROLE"
    );
    foreign(&world, &write).await;
    assert_eq!(feed.drain().await.unwrap(), 4);
    world.assert_fresh("a foreign role").await;
    foreign(
        &world,
        &format!("REVOKE ALL ON city FROM {role}; DROP ROLE {role}"),
    )
    .await;
}

#[tokio::test]
async fn two_entities_of_one_table_are_watched_by_the_same_triggers() {
    use sea_orm_cache_migration::sea_orm_migration::MigrationName;
    let names = [
        Watch::of::<gadget_old::Entity>(),
        Watch::of::<gadget_new::Entity>(),
    ];
    let names = names.map(|watch| watch.name().to_owned());
    assert_eq!(names[0], names[1]);
    let linked = Watch::linked();
    assert_eq!(
        linked
            .iter()
            .filter(|watch| watch.name() == names[0])
            .count(),
        1
    );
    let world = World::new(Sql::Sqlite, Place::Memory).await;
    assert!(Feed::new(&world.db).drain().await.is_err());
}
