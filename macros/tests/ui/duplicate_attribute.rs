use sea_orm::entity::prelude::*;
use sea_orm_cache::CachedEntity;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
#[sea_orm(table_name = "city")]
#[cached(ttl = "10m", hooks = true)]
#[cached(ttl = "1h", cascades_from("country", "country"))]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i32,
    #[cached(index, unique)]
    pub name: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

fn main() {}
