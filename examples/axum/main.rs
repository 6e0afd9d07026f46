//! A small service on real cities: pages and JSON that go stale with their rows, sessions, a ranking, metrics.
//!
//! `cargo run --example axum` needs no server: SQLite in a temporary file, and a cache in memory. With `REDIS_URL`
//! and `DATABASE_URL` set it runs on those servers; it drops and creates the table `axum_city` there. It listens
//! on `127.0.0.1:3000`, or on `LISTEN`.
//!
//! | path | what |
//! |---|---|
//! | `GET /` | the largest cities, as a page: stale with every change of a city |
//! | `GET /cities/{id}` | a city as JSON: stale with that city; in the language of `Accept-Language` |
//! | `PUT /cities/{id}/population/{n}` | changes it |
//! | `GET /ranking` | the countries by their inhabitants in cities, computed once |
//! | `GET /me` | how often this session was here |
//! | `GET /metrics` | for Prometheus |
//! | `GET /cache` | what the cache does, for people |

mod pages;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::time::Duration;

use axum::extract::{Path as Place, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use sea_orm::sea_query::Table;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ConnectionTrait, Database, DbErr, EntityTrait, QueryOrder,
    QuerySelect, Schema,
};
use sea_orm_cache::{
    Cache, CacheMetrics, CacheSessions, CachedConnection, Namespace, Policy, QueryCache,
    ResponseCache,
};
use tower_sessions::{Session, SessionManagerLayer};

mod city {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "axum_city")]
    #[cached(ttl = "10m", stale_if_error = "1h")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        pub country: String,
        pub name: String,
        pub population: i64,
    }
}

#[derive(Clone)]
struct App {
    db: CachedConnection,
    rankings: Namespace,
    metrics: PrometheusHandle,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .init();
    let file = std::env::temp_dir().join(format!("axum-{}.sqlite", std::process::id()));
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
    let metrics = PrometheusBuilder::new().install_recorder()?;
    let builder = Cache::builder()
        .observer(CacheMetrics::new("default"))
        .l1(32 << 20);
    let cache = match std::env::var("REDIS_URL") {
        Ok(url) => builder.redis(url).build().await?,
        Err(_) => builder.build().await?,
    };
    let db = cache.attach(Database::connect(url).await?);
    load(&db).await?;
    let app = App {
        rankings: cache.namespace("ranking"),
        db,
        metrics,
    };
    let listen = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(listen).await?;
    println!("http://{}/", listener.local_addr()?);
    let stop = async {
        // Without it nobody can stop the service but by force.
        let _ = tokio::signal::ctrl_c().await;
    };
    axum::serve(listener, routes(&cache, app))
        .with_graceful_shutdown(stop)
        .await?;
    Ok(())
}

fn routes(cache: &Cache, app: App) -> Router {
    let minutes = |n: u64| Policy::new().ttl(Duration::from_secs(60 * n));
    let list = ResponseCache::new(cache)
        .policy(minutes(15).depends_on::<city::Entity>())
        .key_prefix("list")
        .status_header();
    let one = ResponseCache::new(cache)
        .policy_for(move |request| {
            let id = request.uri.path().rsplit('/').next();
            match id.and_then(|id| id.parse::<i64>().ok()) {
                Some(id) => minutes(5).depends_on_row::<city::Entity>(id),
                None => minutes(5).depends_on::<city::Entity>(),
            }
        })
        .vary_on_headers(["accept-language"])
        .key_prefix("city")
        .status_header();
    let sessions = SessionManagerLayer::new(CacheSessions::new(cache)).with_secure(false);
    Router::new()
        .merge(Router::new().route("/", get(largest)).layer(list))
        .merge(
            Router::new()
                .route("/cities/{id}", get(the_city))
                .layer(one),
        )
        .route("/cities/{id}/population/{n}", put(set_population))
        .route("/ranking", get(ranking))
        .merge(Router::new().route("/me", get(me)).layer(sessions))
        .route(
            "/metrics",
            get(async |State(app): State<App>| app.metrics.render()),
        )
        .route("/cache", get(cache_page))
        .with_state(app)
}

async fn largest(State(app): State<App>) -> Result<Html<String>, Failure> {
    let cities = city::Entity::find()
        .order_by_desc(city::Column::Population)
        .limit(20)
        .cached()
        .all(&app.db)
        .await?;
    Ok(Html(pages::cities(&cities)))
}

async fn the_city(
    State(app): State<App>,
    Place(id): Place<i64>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let Some(city) = city::Entity::cached_get(id, &app.db).await? else {
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    let language = headers.get(header::ACCEPT_LANGUAGE);
    let german = language.is_some_and(|language| language.as_bytes().starts_with(b"de"));
    let inhabitants = if german { "einwohner" } else { "inhabitants" };
    Ok(Json(serde_json::json!({
        "id": city.id,
        "name": city.name,
        "country": city.country,
        inhabitants: city.population,
    }))
    .into_response())
}

async fn set_population(
    State(app): State<App>,
    Place((id, population)): Place<(i64, i64)>,
) -> Result<StatusCode, Failure> {
    let change = city::ActiveModel {
        id: Set(id),
        population: Set(population),
        ..Default::default()
    };
    match change.update(&app.db).await {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(DbErr::RecordNotUpdated) => Ok(StatusCode::NOT_FOUND),
        Err(error) => Err(error.into()),
    }
}

/// Computed from all cities, by one caller at a time, and again when one of them has changed.
async fn ranking(State(app): State<App>) -> Result<Json<Vec<(String, i64)>>, Failure> {
    let policy = Policy::new()
        .ttl(Duration::from_secs(600))
        .depends_on::<city::Entity>()
        .stale_if_error(Duration::from_secs(3_600));
    let load = async {
        let mut inhabitants: HashMap<String, i64> = HashMap::new();
        for city in city::Entity::find().all(&app.db).await? {
            *inhabitants.entry(city.country).or_default() += city.population;
        }
        let mut countries: Vec<(String, i64)> = inhabitants.into_iter().collect();
        countries.sort_by_key(|(_, inhabitants)| Reverse(*inhabitants));
        countries.truncate(10);
        Ok::<Vec<(String, i64)>, DbErr>(countries)
    };
    let ranking = app.rankings.get_or_set("countries", &policy, load).await?;
    Ok(Json(ranking))
}

async fn me(session: Session) -> Result<String, Failure> {
    let visits = session.get::<u64>("visits").await?.unwrap_or_default() + 1;
    session.insert("visits", visits).await?;
    Ok(format!("{visits} visits\n"))
}

async fn cache_page(State(app): State<App>) -> Html<String> {
    Html(pages::cache(&app.db.cache().stats()))
}

/// What a handler fails with: told to the log, and not to the client.
struct Failure(Box<dyn Error + Send + Sync>);

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        tracing::error!(error = %self.0, "a request failed");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

/// Lines of the files, as far as they are used.
#[derive(serde::Deserialize)]
struct Country {
    id: i64,
    name: String,
}

#[derive(serde::Deserialize)]
struct City {
    id: i64,
    country_id: i64,
    name: String,
    population: i64,
}

async fn load(db: &CachedConnection) -> Result<(), Box<dyn Error>> {
    let schema = Schema::new(db.get_database_backend());
    db.execute(Table::drop().table(city::Entity).if_exists())
        .await?;
    db.execute(&schema.create_table_from_entity(city::Entity))
        .await?;
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data");
    let mut countries = HashMap::new();
    for row in csv::Reader::from_path(data.join("countries.csv"))?.deserialize() {
        let Country { id, name } = row?;
        countries.insert(id, name);
    }
    let mut cities = Vec::new();
    for row in csv::Reader::from_path(data.join("cities.csv"))?.deserialize() {
        let row: City = row?;
        let country = countries.get(&row.country_id).cloned();
        cities.push(city::ActiveModel {
            id: Set(row.id),
            country: Set(country.unwrap_or_default()),
            name: Set(row.name),
            population: Set(row.population),
        });
    }
    // Databases bound the number of values in a statement.
    for chunk in cities.chunks(1_000) {
        city::Entity::insert_many(chunk.to_vec()).exec(db).await?;
    }
    Ok(())
}
