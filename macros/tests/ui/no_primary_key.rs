use sea_orm::FromQueryResult;
use sea_orm_cache::CachedEntity;

// SeaORM's own derive says the same in its own words; this one leaves room to hear ours.
#[derive(FromQueryResult, CachedEntity)]
#[sea_orm(table_name = "city")]
pub struct Model {
    pub id: i64,
    pub name: String,
}

fn main() {}
