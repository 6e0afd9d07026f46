//! The table that `sea-orm-cache` keeps in your database, as a migration.
//!
//! The library needs no table to cache or to invalidate. This one is for the change feed, which is
//! not part of the library yet: triggers and other programs write down in it what they changed, and
//! the feed invalidates it. Nothing reads the table today.
//!
//! # Examples
//! Run it on the plain database connection. SeaORM's migrator does not take a `CachedConnection`.
//! ```no_run
//! use sea_orm_cache_migration::{Migrator, sea_orm_migration::MigratorTrait};
//!
//! # async fn run(db: sea_orm::DatabaseConnection) -> Result<(), sea_orm::DbErr> {
//! Migrator::up(&db, None).await?;
//! # Ok(()) }
//! ```
//! Or add [`Outbox`] to the list of your own migrator. Use one way or the other: both write to
//! SeaORM's table of applied migrations.
//!
//! `Migrator::fresh` and the read-only status need the feature of your database (`sqlx-postgres`, ..)
//! on `sea-orm-migration` in your own `Cargo.toml`.

pub use sea_orm_migration;

use sea_orm_migration::{MigrationTrait, MigratorTrait};

mod outbox;

pub use outbox::Outbox;

/// All migrations of this crate.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(Outbox)]
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::{
        ConnectionTrait, Database, DatabaseConnection, ExecResult, QueryResult, Statement,
    };

    use super::*;

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
            "SELECT id, table_name, key_json, created_at FROM sea_orm_cache_outbox ORDER BY id";
        db.query_all_raw(Statement::from_string(db.get_database_backend(), sql))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn goes_up_and_down_and_up_again() {
        let db = sqlite().await;
        Migrator::up(&db, None).await.unwrap();
        insert(&db, "table_name", "'city'").await.unwrap();
        assert_eq!(rows(&db).await.len(), 1);

        Migrator::down(&db, None).await.unwrap();
        let gone = insert(&db, "table_name", "'city'").await.unwrap_err();
        assert!(
            gone.to_string()
                .contains("no such table: sea_orm_cache_outbox"),
            "{gone}"
        );

        Migrator::up(&db, None).await.unwrap();
        assert_eq!(rows(&db).await.len(), 0);
    }

    #[tokio::test]
    async fn a_change_is_numbered_and_dated_by_the_database() {
        let db = sqlite().await;
        Migrator::up(&db, None).await.unwrap();
        insert(&db, "table_name, key_json", "'city', '[362]'")
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
            .map(|row| row.try_get("", "key_json").unwrap())
            .collect();
        assert_eq!(keys, [Some("[362]".to_owned()), None]);
        let dated: Option<String> = rows[0].try_get("", "created_at").unwrap();
        assert!(dated.is_some());
    }

    #[tokio::test]
    async fn a_change_names_its_table() {
        let db = sqlite().await;
        Migrator::up(&db, None).await.unwrap();
        let refused = insert(&db, "key_json", "'[362]'").await.unwrap_err();
        assert!(refused.to_string().contains("NOT NULL"), "{refused}");
    }
}
