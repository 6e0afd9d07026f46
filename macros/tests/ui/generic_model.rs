use sea_orm_cache::CachedEntity;

#[derive(CachedEntity)]
pub struct Model<'a, T> {
    pub id: &'a T,
}

fn main() {}
