//! The outbox: changes that the library did not see.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend};

/// Creates and drops the table `sea_orm_cache_outbox`, which the change feed reads.
///
/// | column | type | meaning |
/// |---|---|---|
/// | `id` | `uuid` on Postgres, else a `bigint` that counts up | the change |
/// | `table_name` | text | the table that changed |
/// | `old_json` | text, may be NULL | the row before: an object of its primary key and of the columns with a cached index |
/// | `new_json` | text, may be NULL | the row after. Neither: any rows of the table |
/// | `created_at` | `bigint` | when it was written down, in milliseconds since 1970, by the database's clock |
///
/// A program may write into it what no trigger sees: `INSERT INTO sea_orm_cache_outbox (table_name) VALUES ('city')`.
#[derive(Debug)]
pub struct Outbox;

pub(crate) const TABLE: &str = "sea_orm_cache_outbox";

impl MigrationName for Outbox {
    // Kept in the user's database: it must not change.
    fn name(&self) -> &str {
        "m20250101_000001_sea_orm_cache_outbox"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Outbox {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        db.execute_unprepared(create(manager.get_database_backend()))
            .await
            .map(drop)
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let drop_it = Table::drop().table(TABLE).if_exists().to_owned();
        manager.drop_table(drop_it).await
    }
}

pub(crate) fn create(backend: DbBackend) -> &'static str {
    match backend {
        DbBackend::Postgres => POSTGRES,
        DbBackend::MySql => MYSQL,
        _ => SQLITE,
    }
}

/// A sequence would change what `lastval()` answers to the programs whose writes fire the triggers. The table is
/// small and changes all the time, so it is cleaned by its number of rows and not by its share.
const POSTGRES: &str = "CREATE TABLE IF NOT EXISTS sea_orm_cache_outbox (\
    id uuid NOT NULL DEFAULT gen_random_uuid(), \
    table_name text NOT NULL, \
    old_json text, \
    new_json text, \
    created_at bigint NOT NULL DEFAULT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint), \
    PRIMARY KEY (created_at, id)) \
    WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)";

const MYSQL: &str = "CREATE TABLE IF NOT EXISTS sea_orm_cache_outbox (\
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
    table_name VARCHAR(128) NOT NULL, \
    old_json LONGTEXT, \
    new_json LONGTEXT, \
    created_at BIGINT NOT NULL DEFAULT (CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED))) \
    ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4";

const SQLITE: &str = "CREATE TABLE IF NOT EXISTS sea_orm_cache_outbox (\
    id INTEGER PRIMARY KEY AUTOINCREMENT, \
    table_name TEXT NOT NULL, \
    old_json TEXT, \
    new_json TEXT, \
    created_at INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)))";
