mod city {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "city")]
    #[cached(ttl = "soon", index(country_id, name))]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        #[sea_orm(unique)]
        pub slug: String,
        pub country_id: i32,
        pub name: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
}

async fn uses_of_the_rest(db: &sea_orm::DatabaseConnection) -> Result<(), sea_orm::DbErr> {
    city::Entity::cached_get(1, db).await?;
    city::Entity::cached_find_by_slug("paris", db).await?;
    city::Entity::cached_find_by_country_id_and_name(1, "Paris", db).await?;
    Ok(())
}

fn main() {}
