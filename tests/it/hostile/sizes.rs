//! Huge rows, long lists, long texts.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sea_orm::sea_query::{Expr, ExprTrait, Value};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, Statement,
};
use sea_orm_cache::{Cache, CachedConnection, Event, QueryCache};

use crate::entities::{city, word};
use crate::reads::city as a_city;
use crate::world::{Place, Sql, World};

/// A cache that caches values of up to `most` bytes, and what it said it did not cache.
async fn limited(world: &World, most: usize) -> (Cache, CachedConnection, Arc<Mutex<Vec<String>>>) {
    let said: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = said.clone();
    let cache = Cache::builder()
        .store(world.store.clone())
        .max_value_bytes(most)
        .observer(move |event: &Event<'_>| {
            if let Event::NotCached { reason, .. } = event {
                log.lock().unwrap().push((*reason).to_owned());
            }
        })
        .build()
        .await
        .unwrap();
    let db = cache.attach(world.database.connect().await);
    (cache, db, said)
}

async fn a_huge_row_among_others(place: Place) -> (World, String) {
    let world = World::new(Sql::Sqlite, place).await;
    let huge = city::ActiveModel {
        name: Set("x".repeat(5_000)),
        ..a_city(2, None, "huge")
    };
    world
        .seed([a_city(1, None, "a"), huge, a_city(3, None, "c")])
        .await;
    let (cache, db, said) = limited(&world, 2_000).await;
    for _ in 0..2 {
        let rows = city::Entity::cached_get_many([1, 2, 3], &db).await.unwrap();
        let lengths: Vec<_> = rows
            .iter()
            .map(|row| row.as_ref().unwrap().name.len())
            .collect();
        assert_eq!(lengths, [1, 5_000, 1]);
    }
    let stats = cache.stats().entity("city");
    assert_eq!((stats.fills, stats.hits, stats.misses), (2, 2, 4));
    let said = said.lock().unwrap().clone();
    assert_eq!(said.len(), 2, "one event for each load of it: {said:?}");
    assert!(
        said[0].ends_with("bytes are more than max_value_bytes, 2000"),
        "{said:?}"
    );
    (world, said[0].clone())
}

async fn what_is_too_large_is_not_cached(place: Place) {
    let (world, said) = a_huge_row_among_others(place).await;
    // Another process finds no lease to wait for.
    let (_, other, _) = limited(&world, 2_000).await;
    let get = city::Entity::cached_get(2, &other);
    let row = tokio::time::timeout(Duration::from_secs(2), get).await;
    assert_eq!(row.expect("at once").unwrap().unwrap().slug, "huge");
    // A list of rows is one value.
    let (_, db, events) = limited(&world, 2_000).await;
    assert_eq!(city::Entity::cached_all(&db).await.unwrap().len(), 3);
    assert_eq!(events.lock().unwrap().len(), 1);

    let bytes: usize = said.split(' ').next().unwrap().parse().unwrap();
    let (under, under_db, _) = limited(&world, bytes - 1).await;
    let (just, just_db, said) = limited(&world, bytes).await;
    city::Entity::cached_get(2, &under_db).await.unwrap();
    assert_eq!(under.stats().entity("city").fills, 0);
    city::Entity::cached_get(2, &just_db).await.unwrap();
    assert_eq!(just.stats().entity("city").fills, 1);
    assert!(said.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_too_large_is_not_cached_in_memory() {
    what_is_too_large_is_not_cached(Place::Memory).await;
}

#[tokio::test]
async fn what_is_too_large_is_not_cached_in_redis() {
    what_is_too_large_is_not_cached(Place::Redis).await;
}

/// `?` or `$n`, or the numbers themselves.
fn listed(ids: &[i64], bound: bool, sql: Sql) -> String {
    let one = |(at, id): (usize, &i64)| match (bound, sql) {
        (false, _) => id.to_string(),
        (true, Sql::Postgres) => format!("${}", at + 1),
        (true, _) => "?".to_owned(),
    };
    ids.iter()
        .enumerate()
        .map(one)
        .collect::<Vec<_>>()
        .join(", ")
}

async fn run(world: &World, sql: Sql, verb: &str, count: i64, bound: bool) {
    let ids: Vec<i64> = (1..=count).collect();
    let text = format!("{verb} WHERE id IN ({})", listed(&ids, bound, sql));
    let values: Vec<Value> = if bound {
        ids.into_iter().map(Value::from).collect()
    } else {
        Vec::new()
    };
    world.store.take_fenced();
    let started = Instant::now();
    let statement = Statement::from_sql_and_values(world.backend(), text, values);
    world.db.execute_raw(statement).await.unwrap();
    let (time, fenced) = (started.elapsed(), world.store.take_fenced());
    println!("{sql:?}: {verb}, {count} ids, bound: {bound}: {time:.1?}");
    let exact = fenced
        .iter()
        .filter(|key| key.contains(":city:pk:"))
        .count();
    let whole = fenced.contains("soc:main:city:gen:rows");
    let few = count <= 1_000;
    assert_eq!(
        (exact, whole),
        (if few { count as usize } else { 0 }, !few),
        "{verb}, {count}"
    );
}

async fn long_lists_invalidate(sql: Sql) {
    let world = World::new(sql, Place::Memory).await;
    world
        .seed((1..=20).map(|id| a_city(id, None, &format!("slug{id}"))))
        .await;
    for (at, (count, bound)) in [
        (1_000, true),
        (1_001, true),
        (10_000, true),
        (30_000, true),
        (1_000, false),
        (10_000, false),
        (30_000, false),
    ]
    .into_iter()
    .enumerate()
    {
        for id in 1..=20 {
            city::Entity::cached_get(id, &world.db).await.unwrap();
        }
        run(
            &world,
            sql,
            &format!("UPDATE city SET name = 'v{at}'"),
            count,
            bound,
        )
        .await;
        for id in 1..=20 {
            let row = city::Entity::cached_get(id, &world.db)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(row.name, format!("v{at}"));
        }
    }
    let select = || {
        city::Entity::find()
            .filter(city::Column::Id.is_in(1i64..=10_000))
            .cached()
    };
    assert_eq!(select().all(&world.db).await.unwrap().len(), 20);
    assert_eq!(world.cost(select().all(&world.db)).await.1, world.free());
    run(&world, sql, "DELETE FROM city", 10_000, true).await;
    assert_eq!(select().all(&world.db).await.unwrap().len(), 0);
    assert_eq!(city::Entity::cached_get(7, &world.db).await.unwrap(), None);
}

#[tokio::test]
async fn long_lists_invalidate_on_sqlite() {
    long_lists_invalidate(Sql::Sqlite).await;
}

#[tokio::test]
async fn long_lists_invalidate_on_postgres() {
    long_lists_invalidate(Sql::Postgres).await;
}

#[tokio::test]
async fn long_lists_invalidate_on_mariadb() {
    long_lists_invalidate(Sql::MariaDb).await;
}

async fn ten_thousand_keys_at_once(place: Place) {
    let world = World::new(Sql::Sqlite, place).await;
    world
        .seed((1..=300).map(|id| a_city(id, None, &format!("slug{id}"))))
        .await;
    // Each of 300 rows many times, and as many that there are not.
    let ids: Vec<i64> = (0..10_000)
        .map(|at| {
            if at % 2 == 0 {
                at % 300 + 1
            } else {
                100_000 + at
            }
        })
        .collect();
    for round in 0..2 {
        let rows = city::Entity::cached_get_many(ids.clone(), &world.db)
            .await
            .unwrap();
        assert_eq!(rows.len(), ids.len());
        for (id, row) in ids.iter().zip(&rows) {
            let expected = (*id <= 300).then_some(*id);
            assert_eq!(row.as_ref().map(|row| row.id), expected, "round {round}");
        }
    }
    let stats = world.stats("city");
    assert_eq!(
        (stats.hits, stats.absent_hits, stats.misses),
        (5_150, 5_000, 5_150)
    );
    city::Entity::update_many()
        .col_expr(city::Column::Name, Expr::value("new"))
        .filter(Expr::col(city::Column::Id).is_in(ids.clone()))
        .exec(&world.db)
        .await
        .unwrap();
    let rows = city::Entity::cached_get_many(ids, &world.db).await.unwrap();
    assert!(rows.iter().flatten().all(|row| row.name == "new"));
}

#[tokio::test]
async fn ten_thousand_keys_at_once_in_memory() {
    ten_thousand_keys_at_once(Place::Memory).await;
}

#[tokio::test]
async fn ten_thousand_keys_at_once_in_redis() {
    ten_thousand_keys_at_once(Place::Redis).await;
}

/// Texts around the length from which on they are no keys.
fn long_texts() -> Vec<String> {
    let mut texts: Vec<String> = [1_023, 1_024, 1_025, 100_000]
        .map(|length| "a".repeat(length))
        .into();
    texts.extend([
        "é".repeat(170),
        "é".repeat(171),
        "é".repeat(512),
        "日".repeat(400),
        ":".repeat(342),
    ]);
    texts
}

async fn long_texts_are_fresh(sql: Sql) {
    let world = World::new(sql, Place::Memory).await;
    for text in long_texts() {
        let row = word::ActiveModel {
            id: Set(text.clone()),
            kind: Set(text.clone()),
            meaning: Set("old".to_owned()),
        };
        world.seed([row]).await;
        let (short, length) = (text.chars().next(), text.len());
        for meaning in ["old", "new", "newer"] {
            let update = word::Entity::update_many()
                .col_expr(word::Column::Meaning, Expr::value(meaning))
                .filter(word::Column::Id.eq(&text));
            update.exec(&world.db).await.unwrap();
            for _ in 0..3 {
                let row = word::Entity::cached_get(text.as_str(), &world.db)
                    .await
                    .unwrap()
                    .unwrap();
                assert_eq!(row.meaning, meaning, "{short:?} x {length}");
                let rows = word::Entity::cached_find_by_kind(text.as_str(), &world.db)
                    .await
                    .unwrap();
                assert_eq!(rows.len(), 1, "{short:?} x {length}");
                assert_eq!(rows[0].meaning, meaning, "{short:?} x {length}");
            }
        }
    }
}

#[tokio::test]
async fn long_texts_are_fresh_on_sqlite() {
    long_texts_are_fresh(Sql::Sqlite).await;
}

#[tokio::test]
async fn long_texts_are_fresh_on_postgres() {
    long_texts_are_fresh(Sql::Postgres).await;
}

#[tokio::test]
async fn names_of_any_length_and_letters_make_a_key() {
    let world = World::new(Sql::Sqlite, Place::Redis).await;
    world.seed([a_city(1, None, "a")]).await;
    let redis = world.redis.as_ref().unwrap();
    let odd = [":*?[a]{b}\u{0}\n\u{1F600} ".to_owned(), "l".repeat(20_000)];
    for name in odd {
        let cache = Cache::builder()
            .redis(redis.url())
            .prefix(&name)
            .build()
            .await
            .unwrap();
        let db = cache
            .attach_as(&name, world.database.connect().await)
            .scoped(&name);
        for cost in [1, 0] {
            let loads = cache.stats().entity("city").loads;
            let tagged = city::Entity::find().cached().tags([&name]);
            assert_eq!(tagged.all(&db).await.unwrap().len(), 1);
            assert_eq!(cache.stats().entity("city").loads - loads, cost);
        }
        cache.invalidate_tags([&name]).await.unwrap();
        let loads = cache.stats().entity("city").loads;
        city::Entity::find()
            .cached()
            .tags([&name])
            .all(&db)
            .await
            .unwrap();
        assert_eq!(cache.stats().entity("city").loads - loads, 1);
    }
    let redis::Value::Array(keys) = redis.cli(&["KEYS", "*"]).await else {
        panic!("no keys")
    };
    for key in keys {
        let key: String = redis::from_redis_value(key).unwrap();
        let special = |c: char| !c.is_ascii_graphic() || "{}*?[]\\".contains(c);
        assert!(!key.contains(special), "{key:?}");
    }
}
