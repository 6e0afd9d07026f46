use sea_orm_cache::memoize;

#[memoize]
fn parameter<'a, T: ToString>(value: &'a T) -> String {
    value.to_string()
}

#[memoize]
fn in_argument(n: u64, value: &(impl ToString + ?Sized)) -> String {
    format!("{n} {}", value.to_string())
}

fn main() {}
