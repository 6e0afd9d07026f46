//! The outbox: changes that the library did not see.

use sea_orm_migration::prelude::*;

/// Creates and drops the table `sea_orm_cache_outbox`, which the change feed is to read.
///
/// | column | type | meaning |
/// |---|---|---|
/// | `id` | `bigint`, counts up | the change |
/// | `table_name` | `varchar(128)` | the table that changed |
/// | `key_json` | `text`, may be NULL | the primary key of the row as a JSON array, `[362]`; NULL: the whole table |
/// | `created_at` | `timestamp`, defaults to now | when it was written down |
#[derive(Debug)]
pub struct Outbox;

#[derive(DeriveIden)]
enum Column {
    Id,
    TableName,
    KeyJson,
    CreatedAt,
}

const TABLE: &str = "sea_orm_cache_outbox";

impl MigrationName for Outbox {
    // Kept in the user's database: it must not change.
    fn name(&self) -> &str {
        "m20250101_000001_sea_orm_cache_outbox"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Outbox {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let now = Expr::current_timestamp();
        let table = Table::create()
            .table(TABLE)
            .col(
                ColumnDef::new(Column::Id)
                    .big_integer()
                    .not_null()
                    .auto_increment()
                    .primary_key(),
            )
            .col(ColumnDef::new(Column::TableName).string_len(128).not_null())
            .col(ColumnDef::new(Column::KeyJson).text())
            .col(
                ColumnDef::new(Column::CreatedAt)
                    .timestamp()
                    .not_null()
                    .default(now),
            )
            .to_owned();
        manager.create_table(table).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table(TABLE).to_owned())
            .await
    }
}
