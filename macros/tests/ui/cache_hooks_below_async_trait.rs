use sea_orm::entity::prelude::*;
use sea_orm_cache::{CachedEntity, cache_hooks};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
#[sea_orm(table_name = "city")]
#[cached(hooks = false)]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i32,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

#[async_trait::async_trait]
#[cache_hooks]
impl ActiveModelBehavior for ActiveModel {
    async fn before_save<C>(self, _db: &C, _insert: bool) -> Result<Self, DbErr>
    where
        C: ConnectionTrait,
    {
        Ok(self)
    }
}

fn main() {}
