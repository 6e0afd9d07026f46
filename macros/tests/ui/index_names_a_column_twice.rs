use sea_orm::entity::prelude::*;
use sea_orm_cache::CachedEntity;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
#[sea_orm(table_name = "city")]
#[cached(index(name, name))]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i32,
    pub name: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

fn main() {}
