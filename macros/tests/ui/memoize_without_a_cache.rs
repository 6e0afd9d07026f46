use sea_orm_cache::memoize;

#[memoize(depends_on(city::Entity), ttl = "10m", tags("ranking"), jitter = 0.2)]
async fn ranking(country: i64) -> Vec<String> {
    vec![country.to_string()]
}

fn main() {
    let _ = (ranking(1), ranking::clear());
}
