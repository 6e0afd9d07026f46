use sea_orm_cache::CachedEntity;

#[derive(CachedEntity)]
pub struct Model(i32);

fn main() {}
