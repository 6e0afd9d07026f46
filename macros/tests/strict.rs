//! What the macros write is clean in the strictest crate.
#![forbid(unsafe_code)]
#![deny(
    warnings,
    unused,
    missing_docs,
    missing_debug_implementations,
    future_incompatible
)]
#![deny(
    trivial_casts,
    trivial_numeric_casts,
    unused_qualifications,
    unused_lifetimes,
    unreachable_pub
)]
#![deny(
    elided_lifetimes_in_paths,
    explicit_outlives_requirements,
    let_underscore_drop
)]

/// Looked up by nobody.
pub mod city {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    /// A city.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "city")]
    #[cached(ttl = "10m", write_policy = "available", index(name, country_id))]
    pub struct Model {
        /// Its key.
        #[sea_orm(primary_key)]
        pub id: i32,
        /// Its name.
        #[sea_orm(unique)]
        pub name: String,
        /// Its country.
        #[cached(index)]
        pub country_id: Option<i32>,
    }

    /// Of a city.
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
}

/// With a behaviour of its own.
pub mod country {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::{CachedEntity, cache_hooks};

    /// A country.
    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "country")]
    #[cached(hooks = false)]
    pub struct Model {
        /// Its key.
        #[sea_orm(primary_key)]
        pub id: i32,
        /// Its name.
        #[sea_orm(unique)]
        pub name: String,
    }

    #[cache_hooks]
    #[async_trait::async_trait]
    impl ActiveModelBehavior for ActiveModel {
        async fn before_save<C>(mut self, _db: &C, _insert: bool) -> Result<Self, DbErr>
        where
            C: ConnectionTrait,
        {
            self.name = self.name.take().map_or(sea_orm::NotSet, sea_orm::Set);
            Ok(self)
        }
    }
}

#[test]
fn works() {}
