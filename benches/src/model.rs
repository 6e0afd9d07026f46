//! The tables, and the real cities in them.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use sea_orm::prelude::DateTimeUtc;
use sea_orm::sea_query::Table;
use sea_orm::{
    ActiveModelTrait, ConnectionTrait, DatabaseConnection, EntityTrait, IntoActiveModel, Schema,
    TransactionTrait,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Outcome;

macro_rules! table {
    ($module:ident, $table:literal, $($derive:ident)?) => {
        pub mod $module {
            use sea_orm::entity::prelude::*;

            #[derive(Clone, Debug, PartialEq, DeriveEntityModel, serde::Serialize, serde::Deserialize)]
            #[derive(hitbox_fn::CacheableResponse)]
            $(#[derive(sea_orm_cache::$derive)] #[cached(ttl = "1h")])?
            #[sea_orm(table_name = $table)]
            pub struct Model {
                #[sea_orm(primary_key, auto_increment = false)]
                pub id: i64,
                pub country_id: i64,
                pub name: String,
                pub admin1: String,
                pub latitude: f64,
                pub longitude: f64,
                pub population: i64,
                pub timezone: String,
                pub about: String,
                pub updated_at: DateTimeUtc,
            }

            #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
            pub enum Relation {}
        }
    };
}

table!(city, "city", CachedEntity);
// The first thousand cities.
table!(town, "town", CachedEntity);

/// The same table as [`city`], for one who has no cache: no hooks look at its saves.
pub mod plain {
    table!(city, "city",);

    impl sea_orm::ActiveModelBehavior for city::ActiveModel {}
}

pub const TOWNS: usize = 1_000;

/// The data says nothing of times: some moment of 2026 and the city's number stand for one.
const UPDATED: u64 = 1_767_225_600;

#[derive(Deserialize)]
struct Country {
    id: i64,
    name: String,
}

#[derive(Deserialize)]
struct Place {
    id: i64,
    country_id: i64,
    name: String,
    admin1: String,
    latitude: f64,
    longitude: f64,
    population: i64,
    timezone: String,
}

/// The cities, `most` at most, in an order in which neighbours are of different countries.
pub fn cities(most: usize) -> Outcome<Vec<city::Model>> {
    let countries: Vec<Country> = read("countries.csv")?;
    let names: HashMap<i64, String> = countries.into_iter().map(|c| (c.id, c.name)).collect();
    let places: Vec<Place> = read("cities.csv")?;
    let city = |place: Place| {
        let country = names.get(&place.country_id).cloned().unwrap_or_default();
        about(place, country)
    };
    let mut cities: Vec<_> = places.into_iter().map(city).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut cities);
    cities.truncate(most);
    Ok(cities)
}

/// With the text about it, a row takes about 300 bytes.
fn about(place: Place, country: String) -> city::Model {
    let about = format!(
        "{} is a place of {} inhabitants in {country}, in its part {}, at {} degrees of latitude and {} degrees of \
         longitude. Its clocks show the time of {}. The places of this table have 15,000 inhabitants or more.",
        place.name, place.population, place.admin1, place.latitude, place.longitude, place.timezone
    );
    city::Model {
        id: place.id,
        country_id: place.country_id,
        name: place.name,
        admin1: place.admin1,
        latitude: place.latitude,
        longitude: place.longitude,
        population: place.population,
        timezone: place.timezone,
        about,
        updated_at: DateTimeUtc::UNIX_EPOCH
            + Duration::from_secs(UPDATED + place.id.unsigned_abs()),
    }
}

fn read<T: DeserializeOwned>(file: &str) -> Outcome<Vec<T>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/data");
    let rows = csv::Reader::from_path(path.join(file))?.into_deserialize();
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Makes and fills the tables.
pub async fn store(db: &DatabaseConnection, cities: &[city::Model]) -> Outcome<()> {
    create(db, city::Entity).await?;
    create(db, town::Entity).await?;
    let txn = db.begin().await?;
    for chunk in cities.chunks(1_000) {
        let rows = chunk
            .iter()
            .map(|row| row.clone().into_active_model().reset_all());
        city::Entity::insert_many(rows).exec(&txn).await?;
    }
    txn.commit().await?;
    db.execute_unprepared(&format!(
        "INSERT INTO town SELECT * FROM city ORDER BY id LIMIT {TOWNS}"
    ))
    .await?;
    Ok(())
}

async fn create<E: EntityTrait>(db: &DatabaseConnection, entity: E) -> Outcome<()> {
    db.execute(Table::drop().table(entity.table_ref()).if_exists())
        .await?;
    let schema = Schema::new(db.get_database_backend());
    db.execute(&schema.create_table_from_entity(entity)).await?;
    Ok(())
}

/// The same row for one who has no cache.
pub fn without_cache(row: &city::Model) -> plain::city::Model {
    let row = row.clone();
    plain::city::Model {
        id: row.id,
        country_id: row.country_id,
        name: row.name,
        admin1: row.admin1,
        latitude: row.latitude,
        longitude: row.longitude,
        population: row.population,
        timezone: row.timezone,
        about: row.about,
        updated_at: row.updated_at,
    }
}
