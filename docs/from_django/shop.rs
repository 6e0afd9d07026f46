// The shop that the blocks of ../FROM_DJANGO.md are about: in SQLite and a cache in memory.

use std::error::Error;

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, Database, EntityTrait, IntoActiveModel,
    QueryFilter, QueryOrder, QuerySelect, Schema, Set, TransactionTrait,
};
use sea_orm_cache::{Cache, CachedConnection, Policy, QueryCache};

mod product {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "product")]
    #[cached(ttl = "5m")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        #[cached(index)]
        pub category_id: i64,
        pub name: String,
        pub price: i64,
        pub sales_count: i64,
        pub status: String,
    }
}

mod user_profile {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "user_profile")]
    #[cached(ttl = "15m")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        #[sea_orm(unique)]
        pub user_id: i64,
        pub city: String,
    }
}

mod order {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "shop_order")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub total: i64,
    }
}

async fn shop() -> Result<(Cache, CachedConnection), Box<dyn Error>> {
    let mut options = sea_orm::ConnectOptions::new("sqlite::memory:");
    options.max_connections(1);
    let cache = Cache::in_memory();
    let db = cache.attach(Database::connect(options).await?);
    let schema = Schema::new(db.get_database_backend());
    db.execute(&schema.create_table_from_entity(product::Entity)).await?;
    db.execute(&schema.create_table_from_entity(user_profile::Entity)).await?;
    db.execute(&schema.create_table_from_entity(order::Entity)).await?;
    for id in 1..=30 {
        let product = product::ActiveModel {
            id: Set(id),
            category_id: Set(id % 3),
            name: Set(format!("product {id}")),
            price: Set(100 * id),
            sales_count: Set(1_000 - id),
            status: Set("active".to_owned()),
        };
        product.insert(&db).await?;
    }
    let profile = user_profile::ActiveModel {
        id: Set(1),
        user_id: Set(42),
        city: Set("Paris".to_owned()),
    };
    profile.insert(&db).await?;
    Ok((cache, db))
}
