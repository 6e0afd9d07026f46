use sea_orm_cache::{Cache, memoize};

#[memoize(cache = cache)]
fn without_async(n: u64, #[memo(skip)] cache: &Cache) -> u64 {
    let _ = cache;
    n
}

#[memoize(cache = cache, capacity = 10, absent_ttl = "1m")]
async fn with_capacity(n: u64, #[memo(skip)] cache: &Cache) -> u64 {
    n
}

#[memoize(cache = cache)]
async fn borrowed(n: u64, #[memo(skip)] cache: &Cache) -> &'static str {
    let _ = (n, cache);
    "text"
}

fn main() {}
