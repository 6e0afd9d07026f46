use sea_orm_cache::CachedEntity;

#[derive(CachedEntity)]
pub enum Model {
    City,
}

fn main() {}
