use sea_orm::entity::prelude::*;
use sea_orm_cache::CachedEntity;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
#[sea_orm(table_name = "membership")]
#[cached(unique(club_id, person_id))]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub person_id: i32,
    #[sea_orm(primary_key, auto_increment = false)]
    pub club_id: i32,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

fn main() {}
