use sea_orm_cache::memoize;

#[memoize]
const fn constant(n: u64) -> u64 {
    n
}

#[memoize]
unsafe fn not_safe(n: u64) -> u64 {
    n
}

#[memoize]
extern "C" fn foreign(n: u64) -> u64 {
    n
}

#[memoize]
struct Structure;

trait Trait {
    #[memoize]
    fn without_body(n: u64) -> u64;
}

fn main() {}
