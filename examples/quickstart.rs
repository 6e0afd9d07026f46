//! The main job, with real data: cached reads, and writes that invalidate by themselves.
//!
//! `cargo run --example quickstart` needs no server: SQLite in a temporary file, and a cache in
//! memory. With `REDIS_URL` and `DATABASE_URL` set it runs on those servers; it drops and creates
//! the tables `quickstart_country` and `quickstart_city` there.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sea_orm::sea_query::{Expr, ExprTrait, Table};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, Database, EntityTrait,
    IntoActiveModel, QueryFilter, QueryOrder, QuerySelect, Schema, TransactionTrait,
};
use sea_orm_cache::{Cache, CachedConnection, QueryCache};

mod country {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "quickstart_country")]
    #[cached(ttl = "1h")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        #[sea_orm(unique)]
        pub iso2: String,
        #[sea_orm(unique)]
        pub iso3: String,
        pub name: String,
        pub capital: String,
        pub continent: String,
        pub area_km2: f64,
        pub population: i64,
        #[sea_orm(has_many)]
        pub cities: HasMany<super::city::Entity>,
    }
}

mod city {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "quickstart_city")]
    #[cached(ttl = "10m")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        #[cached(index)]
        pub country_id: i64,
        pub name: String,
        pub latitude: f64,
        pub longitude: f64,
        pub population: i64,
        pub timezone: String,
        #[sea_orm(belongs_to, from = "country_id", to = "id", on_delete = "Cascade")]
        pub country: BelongsTo<super::country::Entity>,
    }
}

const PARIS: i64 = 2_988_507;
const LYON: i64 = 2_996_944;
const MARSEILLE: i64 = 2_995_469;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .init();
    let file = std::env::temp_dir().join(format!("quickstart-{}.sqlite", std::process::id()));
    let outcome = run(&file).await;
    for suffix in ["", "-wal", "-shm"] {
        // Not there when a database server was used.
        let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
    }
    outcome
}

async fn run(file: &Path) -> Result<(), Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL")
        .unwrap_or_else(|_| format!("sqlite://{}?mode=rwc", file.display()));
    let mut database = Database::connect(url).await?;
    let queries = Arc::new(AtomicU64::new(0));
    let counter = queries.clone();
    database.set_metric_callback(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let cache = match std::env::var("REDIS_URL") {
        Ok(url) => Cache::builder().redis(url).build().await?,
        Err(_) => Cache::in_memory(),
    };
    let db = cache.attach(database);
    println!(
        "database: {:?}, cache: {}",
        db.get_database_backend(),
        place()
    );

    let mut steps = Steps {
        cache: cache.clone(),
        queries,
        before: (0, 0, 0),
    };
    load(&db).await?;
    steps.done("load countries and cities", "252 countries, 34006 cities");
    read(&db, &mut steps).await?;
    write(&db, &mut steps).await?;

    let stats = cache.stats();
    println!(
        "\nhit rate: {:.0} %",
        stats.hit_rate().unwrap_or_default() * 100.0
    );
    for (entity, stats) in &stats.entities {
        println!(
            "{entity}: {} hits, {} misses, {} loads, {} fills",
            stats.hits, stats.misses, stats.loads, stats.fills
        );
    }
    Ok(())
}

async fn read(db: &CachedConnection, steps: &mut Steps) -> Result<(), Box<dyn Error>> {
    let paris = city::Entity::cached_get(PARIS, db)
        .await?
        .ok_or("no Paris")?;
    steps.done(
        "cached_get Paris",
        format!("{} has {} inhabitants", paris.name, paris.population),
    );
    let paris = city::Entity::cached_get(PARIS, db)
        .await?
        .ok_or("no Paris")?;
    steps.done(
        "cached_get Paris again",
        format!("{} has {} inhabitants", paris.name, paris.population),
    );

    let france = country::Entity::cached_find_by_iso2("FR", db)
        .await?
        .ok_or("no France")?;
    steps.done("cached_find_by_iso2 FR", &france.name);
    let country = paris
        .cached_related_one(country::Entity, db)
        .await?
        .ok_or("no country")?;
    steps.done("the country of Paris", &country.name);
    let cities = france.cached_related(city::Entity, db).await?;
    steps.done("the cities of France", cities.len());

    for label in ["the 3 largest cities", "the 3 largest cities again"] {
        let largest = city::Entity::find()
            .order_by_desc(city::Column::Population)
            .limit(3)
            .cached()
            .all(db)
            .await?;
        let names: Vec<&str> = largest.iter().map(|city| city.name.as_str()).collect();
        steps.done(label, names.join(", "));
    }
    let some = city::Entity::cached_get_many([PARIS, LYON, MARSEILLE], db).await?;
    steps.done("cached_get_many of 3", names(&some));
    let all = country::Entity::cached_all(db).await?;
    steps.done("cached_all countries", all.len());
    let mut inhabitants = 0;
    for turn in 0..1_000 {
        let city = city::Entity::cached_get([PARIS, LYON, MARSEILLE][turn % 3], db).await?;
        inhabitants += city.ok_or("no such city")?.population;
    }
    steps.done(
        "1,000 cached reads of the 3",
        format!("{inhabitants} inhabitants seen"),
    );
    Ok(())
}

async fn write(db: &CachedConnection, steps: &mut Steps) -> Result<(), Box<dyn Error>> {
    // To change a row, read it afresh: a cached one is shared, and another writer may be ahead of it.
    let txn = db.begin().await?;
    let mut paris = city::Entity::find_by_id(PARIS)
        .one(&txn)
        .await?
        .ok_or("no Paris")?
        .into_active_model();
    paris.population = Set(2_200_000);
    paris.update(&txn).await?;
    txn.rollback().await?;
    steps.done("update Paris, roll back", population(PARIS, db).await?);

    let txn = db.begin().await?;
    let mut paris = city::Entity::find_by_id(PARIS)
        .one(&txn)
        .await?
        .ok_or("no Paris")?
        .into_active_model();
    paris.population = Set(2_200_001);
    paris.update(&txn).await?;
    txn.commit().await?;
    steps.done("update Paris, commit", population(PARIS, db).await?);
    steps.done("read it once more", population(PARIS, db).await?);

    let mut lyon = city::Entity::find_by_id(LYON)
        .one(db)
        .await?
        .ok_or("no Lyon")?
        .into_active_model();
    lyon.population = Set(600_000);
    lyon.update(db).await?;
    steps.done("update Lyon", population(LYON, db).await?);

    city::Entity::update_many()
        .col_expr(
            city::Column::Population,
            Expr::col(city::Column::Population).add(1),
        )
        .filter(city::Column::Timezone.eq("Europe/Paris"))
        .exec(db)
        .await?;
    steps.done("add 1 to all in Europe/Paris", population(LYON, db).await?);

    db.execute_unprepared(&format!(
        "UPDATE quickstart_city SET population = 7 WHERE id = {MARSEILLE}"
    ))
    .await?;
    steps.done(
        "raw SQL sets Marseille to 7",
        population(MARSEILLE, db).await?,
    );

    country::Entity::delete_many()
        .filter(country::Column::Iso2.eq("FR"))
        .exec(db)
        .await?;
    let gone = city::Entity::cached_get(PARIS, db).await?;
    steps.done(
        "delete France: its cities go along",
        format!("Paris is there: {}", gone.is_some()),
    );
    Ok(())
}

async fn population(id: i64, db: &CachedConnection) -> Result<String, Box<dyn Error>> {
    let city = city::Entity::cached_get(id, db)
        .await?
        .ok_or("no such city")?;
    Ok(format!("{} has {} inhabitants", city.name, city.population))
}

fn names(cities: &[Option<Arc<city::Model>>]) -> String {
    let names: Vec<&str> = cities
        .iter()
        .flatten()
        .map(|city| city.name.as_str())
        .collect();
    names.join(", ")
}

fn place() -> &'static str {
    if std::env::var_os("REDIS_URL").is_some() {
        "Redis"
    } else {
        "in memory"
    }
}

/// Prints each step with what it cost.
struct Steps {
    cache: Cache,
    queries: Arc<AtomicU64>,
    before: (u64, u64, u64),
}

impl Steps {
    fn done(&mut self, step: &str, answer: impl std::fmt::Display) {
        let stats = self.cache.stats();
        let sum = |of: fn(&sea_orm_cache::EntityStats) -> u64| {
            stats.entities.values().map(of).sum::<u64>()
        };
        let now = (
            self.queries.load(Ordering::Relaxed),
            sum(|e| e.hits),
            sum(|e| e.misses),
        );
        println!(
            "{step:36} {answer:<42} statements {:>3}, hits {:>4}, misses {:>4}",
            now.0 - self.before.0,
            now.1 - self.before.1,
            now.2 - self.before.2,
        );
        self.before = now;
    }
}

async fn load(db: &CachedConnection) -> Result<(), Box<dyn Error>> {
    let schema = Schema::new(db.get_database_backend());
    db.execute(Table::drop().table(city::Entity).if_exists())
        .await?;
    db.execute(Table::drop().table(country::Entity).if_exists())
        .await?;
    db.execute(&schema.create_table_from_entity(country::Entity))
        .await?;
    db.execute(&schema.create_table_from_entity(city::Entity))
        .await?;
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data");

    let mut countries = Vec::new();
    for row in csv::Reader::from_path(data.join("countries.csv"))?.deserialize() {
        let row: CountryRow = row?;
        countries.push(country::ActiveModel {
            id: Set(row.id),
            iso2: Set(row.iso2),
            iso3: Set(row.iso3),
            name: Set(row.name),
            capital: Set(row.capital),
            continent: Set(row.continent),
            area_km2: Set(row.area_km2),
            population: Set(row.population),
        });
    }
    country::Entity::insert_many(countries).exec(db).await?;

    let mut cities = Vec::new();
    for row in csv::Reader::from_path(data.join("cities.csv"))?.deserialize() {
        let row: CityRow = row?;
        cities.push(city::ActiveModel {
            id: Set(row.id),
            country_id: Set(row.country_id),
            name: Set(row.name),
            latitude: Set(row.latitude),
            longitude: Set(row.longitude),
            population: Set(row.population),
            timezone: Set(row.timezone),
        });
    }
    let txn = db.begin().await?;
    for chunk in cities.chunks(1_000) {
        city::Entity::insert_many(chunk.to_vec()).exec(&txn).await?;
    }
    txn.commit().await?;
    Ok(())
}

#[derive(serde::Deserialize)]
struct CountryRow {
    id: i64,
    iso2: String,
    iso3: String,
    name: String,
    capital: String,
    continent: String,
    area_km2: f64,
    population: i64,
}

#[derive(serde::Deserialize)]
struct CityRow {
    id: i64,
    country_id: i64,
    name: String,
    latitude: f64,
    longitude: f64,
    population: i64,
    timezone: String,
}
