mod country {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "country")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        #[sea_orm(has_many)]
        #[cached(index)]
        pub cities: HasMany<super::city::Entity>,
    }
}

mod city {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "city")]
    #[cached(index(country))]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub country_id: i32,
        #[sea_orm(belongs_to, from = "country_id", to = "id")]
        pub country: HasOne<super::country::Entity>,
    }
}

fn main() {}
