//! The tables that the behaviour tests use.

use sea_orm::{ConnectionTrait, DatabaseConnection, EntityTrait, Schema};

/// A table with everything: a made key, unique columns, an index, a plain column.
pub mod city {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "city")]
    #[cached(ttl = "10m")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        #[cached(index)]
        pub country_id: Option<i64>,
        #[sea_orm(unique)]
        pub slug: String,
        pub name: String,
        #[cached(index)]
        #[sea_orm(default_value = 7)]
        pub rank: i32,
        #[sea_orm(belongs_to, from = "country_id", to = "id", on_delete = "Cascade")]
        pub country: BelongsTo<Option<super::country::Entity>>,
        #[sea_orm(has_many, via = "city_tag")]
        pub tags: HasMany<super::tag::Entity>,
    }
}

pub mod country {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "country")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        #[sea_orm(unique)]
        pub iso2: String,
        pub name: String,
        #[sea_orm(has_many)]
        pub cities: HasMany<super::city::Entity>,
    }
}

pub mod tag {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "tag")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub label: String,
        #[sea_orm(has_many, via = "city_tag")]
        pub cities: HasMany<super::city::Entity>,
    }
}

pub mod city_tag {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "city_tag")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub city_id: i64,
        #[sea_orm(primary_key, auto_increment = false)]
        pub tag_id: i64,
        #[sea_orm(belongs_to, from = "city_id", to = "id", on_delete = "Cascade")]
        pub city: BelongsTo<super::city::Entity>,
        #[sea_orm(belongs_to, from = "tag_id", to = "id", on_delete = "Cascade")]
        pub tag: BelongsTo<super::tag::Entity>,
    }
}

/// Text keys, where a database may call different texts equal.
pub mod word {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "word")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        #[cached(index)]
        pub kind: String,
        pub meaning: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
}

/// A composite key of an integer and a text.
pub mod line {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "line")]
    #[cached(index(product, amount))]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub order_id: i64,
        #[sea_orm(primary_key, auto_increment = false)]
        pub position: String,
        pub product: String,
        pub amount: i32,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
}

pub mod document {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "document")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub title: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
}

pub mod blob {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "blob_store")]
    pub struct Model {
        #[sea_orm(
            primary_key,
            auto_increment = false,
            column_type = "VarBinary(StringLen::N(64))"
        )]
        pub id: Vec<u8>,
        pub size: i32,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
}

/// What the user's serde hides must still be cached.
pub mod account {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity, Serialize, Deserialize)]
    #[sea_orm(table_name = "account")]
    pub struct Model {
        #[sea_orm(primary_key)]
        #[serde(skip_deserializing)]
        pub id: i64,
        #[serde(rename = "login")]
        pub name: String,
        #[serde(skip)]
        pub password_hash: String,
        pub settings: Json,
        pub balance: Decimal,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
}

/// One table as an older build of a service maps it ...
pub mod gadget_old {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "gadget")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        pub name: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
}

/// ... and as a newer build does.
pub mod gadget_new {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "gadget")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        pub name: String,
        pub color: Option<String>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
}

/// A table that is no cached entity.
pub mod plain {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "plain")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        pub city_id: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// An entity with a behaviour of its own.
pub mod ledger {
    use sea_orm::ActiveValue::Set;
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::{CachedEntity, cache_hooks};

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "ledger")]
    #[cached(hooks = false, write_policy = "strict")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        pub note: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    #[cache_hooks]
    #[async_trait::async_trait]
    impl ActiveModelBehavior for ActiveModel {
        async fn before_save<C>(mut self, _db: &C, _insert: bool) -> Result<Self, DbErr>
        where
            C: ConnectionTrait,
        {
            if let Some(note) = self.note.try_as_ref() {
                let trimmed = note.trim().to_owned();
                self.note = Set(trimmed);
            }
            Ok(self)
        }
    }
}

/// Creates all tables.
pub async fn create_tables(db: &DatabaseConnection) {
    create(db, country::Entity).await;
    create(db, city::Entity).await;
    create(db, tag::Entity).await;
    create(db, city_tag::Entity).await;
    create(db, word::Entity).await;
    create(db, line::Entity).await;
    create(db, document::Entity).await;
    create(db, blob::Entity).await;
    create(db, account::Entity).await;
    create(db, gadget_new::Entity).await;
    create(db, plain::Entity).await;
    create(db, ledger::Entity).await;
}

async fn create<E: EntityTrait>(db: &DatabaseConnection, entity: E) {
    let table = Schema::new(db.get_database_backend()).create_table_from_entity(entity);
    db.execute(&table).await.expect("create table");
}
