//! The database, or the way to it, fails.

use std::time::Duration;

use sea_orm::{
    ActiveModelTrait, ConnectOptions, ConnectionTrait, DatabaseConnection, DbErr, EntityTrait,
    FromQueryResult, Statement, TransactionTrait,
};
use sea_orm_cache::{Cache, CachedConnection};

use crate::entities::{city, create_tables};
use crate::outages::{hits_again, name, rename, until, with_paris};
use crate::reads::city as a_city;
use crate::support::{self, Database, Proxy};

const FENCE: Duration = Duration::from_secs(2);

/// A cache over one database, by a connection that can be broken and by one that cannot.
struct Two {
    cache: Cache,
    proxy: Proxy,
    broken: CachedConnection,
    sound: CachedConnection,
    raw: DatabaseConnection,
    _database: Database,
}

async fn two(database: Database) -> Two {
    let raw = with_paris(&database).await;
    let builder = Cache::builder().fence_ttl(FENCE);
    let cache = builder.build().await.unwrap();
    let (_, rest) = database.url().split_once('@').unwrap();
    let (address, _) = rest.split_once('/').unwrap();
    let proxy = Proxy::to(address).await;
    let url = database.url().replace(address, &proxy.addr());
    let mut options = ConnectOptions::new(url);
    options.max_connections(4).sqlx_logging(false);
    options.acquire_timeout(Duration::from_secs(2));
    let through = sea_orm::Database::connect(options).await.unwrap();
    Two {
        broken: cache.attach(through),
        sound: cache.attach(raw.clone()),
        cache,
        proxy,
        raw,
        _database: database,
    }
}

#[derive(FromQueryResult)]
struct Backends {
    n: i64,
}

/// Waits until the server carries out a statement that contains this text.
async fn under_way(two: &Two, text: &str) {
    let sql = match two.raw.get_database_backend() {
        sea_orm::DbBackend::Postgres => format!(
            "SELECT count(*) AS n FROM pg_stat_activity WHERE state = 'active' \
             AND pid <> pg_backend_pid() AND query LIKE '%{text}%'"
        ),
        _ => format!(
            "SELECT count(*) AS n FROM information_schema.processlist \
             WHERE id <> connection_id() AND info LIKE '%{text}%'"
        ),
    };
    until(async || {
        let count = Statement::from_string(two.raw.get_database_backend(), sql.as_str());
        let backends = Backends::find_by_statement(count).one(&two.raw);
        backends.await.unwrap().unwrap().n > 0
    })
    .await;
}

async fn stored(two: &Two) -> String {
    let row = city::Entity::find_by_id(1).one(&two.raw).await;
    row.unwrap().unwrap().name
}

/// The connection breaks while the server is at work, which it does not notice, and goes on to commit.
async fn breaks_during(two: Two, statement: &'static str, mark: &str) {
    assert_eq!(name(&two.sound).await, "PARIS");
    let db = two.broken.clone();
    let write = tokio::spawn(async move { db.execute_unprepared(statement).await });
    under_way(&two, mark).await;
    two.proxy.cut();
    write.await.unwrap().unwrap_err();
    // Not committed yet. What is read now must not be stored.
    until(async || {
        name(&two.sound).await;
        stored(&two).await == "late"
    })
    .await;
    assert_eq!(name(&two.sound).await, "late");
    hits_again(&two.sound, "late").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_postgres_commits_after_its_connection_broke_is_not_stale() {
    let sql = "UPDATE city SET name = 'late' WHERE id = 1; SELECT pg_sleep(0.5)";
    breaks_during(two(support::postgres().await).await, sql, "pg_sleep").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_mariadb_commits_after_its_connection_broke_is_not_stale() {
    let sql = "UPDATE city SET name = 'late' WHERE id = 1 AND sleep(0.5) = 0";
    breaks_during(two(support::mariadb().await).await, sql, "sleep(0.5)").await;
}

/// A refused statement must not cost its keys the fence's life.
async fn refused_settles_at_once(two: Two) {
    let second = a_city(2, None, "lyon").insert(&two.sound).await.unwrap();
    name(&two.sound).await;
    let twice = a_city(3, None, "lyon").insert(&two.sound).await;
    twice.unwrap_err();
    let txn = two.sound.begin().await.unwrap();
    rename("x").update(&txn).await.unwrap();
    let mut doubled = sea_orm::IntoActiveModel::into_active_model(second);
    doubled.slug = sea_orm::Set("paris".to_owned());
    doubled.update(&txn).await.unwrap_err();
    drop(txn);
    name(&two.sound).await;
    let (all, again) = (all_hits(&two).await, all_hits(&two).await);
    assert_eq!(again, all + 1, "the table's list is cached");
}

async fn all_hits(two: &Two) -> u64 {
    city::Entity::cached_all(&two.sound).await.unwrap();
    two.cache.stats().entity("city").hits
}

#[tokio::test]
async fn what_postgres_refuses_is_settled_at_once() {
    refused_settles_at_once(two(support::postgres().await).await).await;
}

#[tokio::test]
async fn what_mariadb_refuses_is_settled_at_once() {
    refused_settles_at_once(two(support::mariadb().await).await).await;
}

#[tokio::test]
async fn what_sqlite_refuses_is_settled_at_once() {
    let database = support::sqlite().await;
    let raw = database.connect().await;
    create_tables(&raw).await;
    let cache = Cache::builder().fence_ttl(FENCE).build().await.unwrap();
    let db = cache.attach(raw);
    a_city(1, None, "lyon").insert(&db).await.unwrap();
    let error = a_city(2, None, "lyon").insert(&db).await.unwrap_err();
    assert!(error.sql_err().is_some(), "{error}");
    city::Entity::cached_all(&db).await.unwrap();
    city::Entity::cached_all(&db).await.unwrap();
    assert_eq!(cache.stats().entity("city").hits, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_away_hits_are_answered_and_misses_and_writes_fail() {
    let two = two(support::postgres().await).await;
    name(&two.sound).await;
    two.proxy.refuse().await;
    assert_eq!(name(&two.broken).await, "PARIS", "it is cached");
    let missed: Result<_, DbErr> = city::Entity::cached_get(2, &two.broken).await;
    missed.unwrap_err();
    rename("never").update(&two.broken).await.unwrap_err();
    assert_eq!(name(&two.sound).await, "PARIS");
    two.proxy.heal().await;
    rename("new").update(&two.broken).await.unwrap();
    assert_eq!(name(&two.sound).await, "new");
    assert!(
        city::Entity::cached_get(2, &two.broken)
            .await
            .unwrap()
            .is_none()
    );
    hits_again(&two.sound, "new").await;
}
