//! What the change feed of `sea-orm-cache` keeps in your database, as migrations: a table, and triggers that write into
//! it what was changed, whoever has changed it.
//!
//! The library needs neither to cache or to invalidate what is written through it.
//!
//! # Examples
//! In your own migrator: [`Outbox`], and a [`Watch`] for each cached entity. Run it on the plain database connection:
//! SeaORM's migrator does not take a `CachedConnection`.
//!
//! Without a migrator of your own, when the program starts:
//! ```no_run
//! # async fn run(db: sea_orm::DatabaseConnection) -> Result<(), sea_orm::DbErr> {
//! sea_orm_cache_migration::install(&db).await?;
//! # Ok(()) }
//! ```
//! Or [`Migrator`], which does the same with SeaORM's table of applied migrations. It is for programs that have no
//! other: both would write to that table.
//!
//! The program `sea-orm-cache-migration` (feature `cli`) does it from a shell, for a table that it is told the name
//! of:
//! ```sh
//! cargo install sea-orm-cache-migration --features cli
//! DATABASE_URL=postgres://.. sea-orm-cache-migration up city:slug,country_code country
//! ```
//!
//! `Migrator::fresh` and the read-only status need the feature of your database (`sqlx-postgres`, ..)
//! on `sea-orm-migration` in your own `Cargo.toml`.

pub use sea_orm_migration;

use sea_orm_migration::{MigrationTrait, MigratorTrait};

mod described;
mod outbox;
mod sql;
mod watch;

pub use outbox::Outbox;
pub use watch::{Watch, install};

/// The outbox, and the triggers of all cached entities that are linked into this program.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let watches = Watch::linked().into_iter();
        let watches = watches.map(|watch| Box::new(watch) as Box<dyn MigrationTrait>);
        [Box::new(Outbox) as Box<dyn MigrationTrait>]
            .into_iter()
            .chain(watches)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::{
        ConnectionTrait, Database, DatabaseConnection, ExecResult, QueryResult, Statement,
    };

    use super::*;

    /// The outbox alone.
    struct Bare;

    #[async_trait::async_trait]
    impl MigratorTrait for Bare {
        fn migrations() -> Vec<Box<dyn MigrationTrait>> {
            vec![Box::new(Outbox)]
        }
    }

    async fn sqlite() -> DatabaseConnection {
        Database::connect("sqlite::memory:").await.unwrap()
    }

    async fn insert(
        db: &DatabaseConnection,
        columns: &str,
        values: &str,
    ) -> Result<ExecResult, sea_orm::DbErr> {
        db.execute_unprepared(&format!(
            "INSERT INTO sea_orm_cache_outbox ({columns}) VALUES ({values})"
        ))
        .await
    }

    async fn rows(db: &DatabaseConnection) -> Vec<QueryResult> {
        let sql =
            "SELECT id, table_name, new_json, created_at FROM sea_orm_cache_outbox ORDER BY id";
        db.query_all_raw(Statement::from_string(db.get_database_backend(), sql))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn goes_up_and_down_and_up_again() {
        let db = sqlite().await;
        Bare::up(&db, None).await.unwrap();
        insert(&db, "table_name", "'city'").await.unwrap();
        assert_eq!(rows(&db).await.len(), 1);

        Bare::down(&db, None).await.unwrap();
        let gone = insert(&db, "table_name", "'city'").await.unwrap_err();
        assert!(
            gone.to_string()
                .contains("no such table: sea_orm_cache_outbox"),
            "{gone}"
        );

        Bare::up(&db, None).await.unwrap();
        assert_eq!(rows(&db).await.len(), 0);
    }

    #[tokio::test]
    async fn a_change_is_numbered_and_dated_by_the_database() {
        let db = sqlite().await;
        Bare::up(&db, None).await.unwrap();
        insert(&db, "table_name, new_json", r#"'city', '{"id":362}'"#)
            .await
            .unwrap();
        insert(&db, "table_name", "'country'").await.unwrap();

        let rows = rows(&db).await;
        let ids: Vec<i64> = rows
            .iter()
            .map(|row| row.try_get("", "id").unwrap())
            .collect();
        assert_eq!(ids, [1, 2]);
        let keys: Vec<Option<String>> = rows
            .iter()
            .map(|row| row.try_get("", "new_json").unwrap())
            .collect();
        assert_eq!(keys, [Some("{\"id\":362}".to_owned()), None]);
        let dated: i64 = rows[0].try_get("", "created_at").unwrap();
        assert!(dated > 1_700_000_000_000);
    }

    #[tokio::test]
    async fn a_change_names_its_table() {
        let db = sqlite().await;
        Bare::up(&db, None).await.unwrap();
        let refused = insert(&db, "new_json", r#"'{"id":362}'"#)
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("NOT NULL"), "{refused}");
    }

    mod city {
        use sea_orm::entity::prelude::*;
        use sea_orm_cache::CachedEntity;

        #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
        #[sea_orm(table_name = "city")]
        pub struct Model {
            #[sea_orm(primary_key)]
            pub id: i64,
            #[sea_orm(unique)]
            pub slug: String,
            pub name: String,
        }

        #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
        pub enum Relation {}
    }

    async fn with_city() -> DatabaseConnection {
        let db = sqlite().await;
        let table = "CREATE TABLE city (id INTEGER PRIMARY KEY, slug TEXT, name TEXT)";
        db.execute_unprepared(table).await.unwrap();
        db
    }

    /// What the change of a slug is written down as.
    async fn changed(db: &DatabaseConnection) -> Option<String> {
        for sql in [
            "DELETE FROM sea_orm_cache_outbox",
            "INSERT INTO city VALUES (1, 'paris', 'Paris')",
        ] {
            db.execute_unprepared(sql).await.unwrap();
        }
        rows(db).await[0].try_get("", "new_json").unwrap()
    }

    #[tokio::test]
    async fn a_program_without_a_migrator_installs_it_whenever_it_starts() {
        let db = with_city().await;
        install(&db).await.unwrap();
        install(&db).await.unwrap();
        assert_eq!(
            changed(&db).await.as_deref(),
            Some(r#"{"id":1,"slug":"paris"}"#)
        );
    }

    #[tokio::test]
    async fn an_installation_of_what_is_there_writes_nothing_down() {
        let db = with_city().await;
        install(&db).await.unwrap();
        let installed = rows(&db).await.len();
        install(&db).await.unwrap();
        assert_eq!((installed, rows(&db).await.len()), (1, 1));
    }

    #[tokio::test]
    async fn the_ready_migrator_watches_all_linked_entities() {
        let db = with_city().await;
        Migrator::up(&db, None).await.unwrap();
        assert!(changed(&db).await.is_some());
    }

    #[test]
    fn a_name_stays_and_another_time_has_another_one() {
        use sea_orm_migration::MigrationName;

        let watch = Watch::of::<city::Entity>();
        assert_eq!(watch.name(), "m20250101_000002_sea_orm_cache_watch_city");
        assert_eq!(
            watch.again(2).name(),
            "m20250101_000002_sea_orm_cache_watch_city_2"
        );
        let other = Watch::table(Some("shop"), "city");
        assert_eq!(
            other.name(),
            "m20250101_000002_sea_orm_cache_watch_shop.city"
        );
    }
}
