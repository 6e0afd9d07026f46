use sea_orm::entity::prelude::*;
use sea_orm_cache::CachedEntity;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
#[sea_orm(table_name = "city")]
#[cached(index(name), index(country, name), unique(country, name))]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i32,
    #[sea_orm(unique)]
    #[cached(unique)]
    pub name: String,
    #[sea_orm(unique_key = "name")]
    pub country: String,
    #[sea_orm(unique_key = "name")]
    pub code: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

fn main() {}
