use sea_orm::entity::prelude::*;
use sea_orm_cache::{CachedEntity, cache_hooks};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
#[sea_orm(table_name = "city")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i32,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

#[cache_hooks]
impl Default for Model {
    fn default() -> Self {
        Self { id: 0 }
    }
}

#[cache_hooks]
impl Model {}

#[cache_hooks]
fn before_save() {}

fn main() {}
