use std::borrow::Cow;

use sea_orm_cache::memoize;

#[memoize]
fn reference(text: &str) -> Option<&str> {
    text.lines().next()
}

#[memoize]
async fn lifetime(text: &str) -> Cow<'_, str> {
    text.into()
}

#[memoize]
fn opaque(n: u64) -> impl Iterator<Item = u64> {
    0..n
}

#[memoize]
fn nothing(n: u64) {
    let _ = n;
}

fn main() {}
