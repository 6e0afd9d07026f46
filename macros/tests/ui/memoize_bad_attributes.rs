use sea_orm_cache::memoize;

#[memoize(ttl = "10", capacity = 0, size = 7, key, associated = true)]
fn one(n: u64, #[memo(skip = "yes")] other: u64) -> u64 {
    n + other
}

#[memoize(ttl = "1m", ttl = "2m", absent_ttl = "1m")]
fn two(n: u64) -> u64 {
    n
}

fn main() {
    let _ = (one(1, 2), two(3), two::stats());
}
