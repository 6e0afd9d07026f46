use sea_orm_cache::memoize;

struct Service {
    factor: u64,
}

impl Service {
    // Two services would share what they remember, and no text tells them apart.
    #[memoize]
    fn scaled(&self, n: u64) -> u64 {
        self.factor * n
    }
}

fn main() {}
