use sea_orm_cache::CachedEntity;

#[derive(CachedEntity)]
#[cached(ttl = "10m")]
pub struct City {
    pub id: i32,
}

fn main() {}
