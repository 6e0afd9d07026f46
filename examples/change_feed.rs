//! Writes that do not come through the library: a row that another program changes is fresh in the service.
//!
//! `cargo run --example change_feed --features feed` needs no server: SQLite in a temporary file, and a second
//! connection that plays the other program.
//!
//! With `DATABASE_URL=postgres://.. --features feed-postgres` you play it, with `psql`: the example prints the line,
//! and ends with Ctrl-C. `REDIS_URL` puts the cache there. It creates the table `change_feed_city`, the outbox and the
//! triggers, and drops them at its end.

use std::error::Error;
use std::time::{Duration, Instant};

use sea_orm::{ActiveModelTrait, ConnectionTrait, Database, DatabaseConnection, Schema, Set};
use sea_orm_cache::{Cache, CachedConnection, Feed};
use sea_orm_cache_migration::{Watch, install};

mod city {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "change_feed_city")]
    #[cached(ttl = "1h")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        #[sea_orm(unique)]
        pub slug: String,
        pub population: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .init();
    match std::env::var("DATABASE_URL") {
        Ok(url) => run(&url, true).await,
        Err(_) => {
            let file =
                std::env::temp_dir().join(format!("change-feed-{}.sqlite", std::process::id()));
            let outcome = run(&format!("sqlite://{}?mode=rwc", file.display()), false).await;
            std::fs::remove_file(file)?;
            outcome
        }
    }
}

async fn run(url: &str, wait: bool) -> Result<(), Box<dyn Error>> {
    let plain = Database::connect(url).await?;
    let table = Schema::new(plain.get_database_backend()).create_table_from_entity(city::Entity);
    plain.execute(&table).await?;
    install(&plain).await?; // or a line for each entity in your own migrator
    let outcome = serve(url, &plain, wait).await;
    remove(&plain).await?;
    outcome
}

/// The service: it reads through the cache, and a feed runs beside it.
async fn serve(url: &str, plain: &DatabaseConnection, wait: bool) -> Result<(), Box<dyn Error>> {
    let cache = match std::env::var("REDIS_URL") {
        Ok(redis) => Cache::builder().redis(&redis).build().await?,
        Err(_) => Cache::in_memory(),
    };
    let db = cache.attach(plain.clone());
    let paris = city::ActiveModel {
        id: Set(362),
        slug: Set("paris".to_owned()),
        population: Set(2_100_000),
    };
    paris.insert(&db).await?;
    let feed = Feed::new(&db);
    let feeding = tokio::spawn(async move { feed.run().await });
    match wait {
        true => watch(url, &db).await?,
        false => play(url, &db).await?,
    }
    feeding.abort();
    Ok(())
}

async fn population(db: &CachedConnection) -> Result<i64, Box<dyn Error>> {
    let paris = city::Entity::cached_get(362, db).await?;
    Ok(paris.map_or(0, |paris| paris.population))
}

/// Another program, on a connection that knows nothing of the cache.
async fn play(url: &str, db: &CachedConnection) -> Result<(), Box<dyn Error>> {
    let other = Database::connect(url).await?;
    for people in [2_133_111, 2_145_906, 2_165_423] {
        println!("the service reads      {}", population(db).await?);
        let write = format!("UPDATE change_feed_city SET population = {people} WHERE id = 362");
        other.execute_unprepared(&write).await?;
        println!("another program writes {people}");
        let began = Instant::now();
        while population(db).await? != people {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        println!(
            "the service reads      {people}, {:?} later\n",
            began.elapsed()
        );
    }
    let stats = db.cache().stats().entity("change_feed_city");
    println!(
        "{} of {} reads were answered by the cache",
        stats.hits,
        stats.hits + stats.misses
    );
    Ok(())
}

/// Prints what is read whenever it is another, until Ctrl-C.
async fn watch(url: &str, db: &CachedConnection) -> Result<(), Box<dyn Error>> {
    println!("Now, in another terminal:\n");
    println!(
        "psql {url} -c \"UPDATE change_feed_city SET population = population + 1 WHERE id = 362\"\n"
    );
    let mut last = 0;
    let mut ended = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let people = population(db).await?;
        if people != last {
            println!("the service reads {people}");
            last = people;
        }
        tokio::select! {
            done = &mut ended => return Ok(done?),
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
    }
}

async fn remove(db: &DatabaseConnection) -> Result<(), Box<dyn Error>> {
    for watch in Watch::linked() {
        watch.remove(db).await?;
    }
    for table in ["change_feed_city", "sea_orm_cache_outbox"] {
        db.execute_unprepared(&format!("DROP TABLE {table}"))
            .await?;
    }
    Ok(())
}
