//! Values past their ttl: what is answered while they are loaded anew, and where they cannot be.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sea_orm::ActiveValue::Set;
use sea_orm::{ActiveModelTrait, ConnectionTrait, DbErr, EntityTrait};
use sea_orm_cache::{Cache, CacheError, Event, Namespace, Policy, QueryCache};
use tokio::sync::Notify;

use crate::entities::city;
use crate::on_all;
use crate::outages::until;
use crate::reads::{country as a_country, paris};
use crate::world::World;

on_all!(
    while_one_loads_anew_the_others_are_answered,
    where_a_load_fails_what_there_was_is_answered,
    a_load_that_takes_long_is_not_waited_for,
    a_spawned_load_goes_on_and_nobody_waits_for_a_refresh,
    a_slow_value_is_loaded_anew_before_its_end,
    rows_and_selects_outlive_their_database,
);

mod note {
    use sea_orm::entity::prelude::*;
    use sea_orm_cache::CachedEntity;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, CachedEntity)]
    #[sea_orm(table_name = "aging")]
    #[cached(ttl = "1ms", jitter = 0.0, stale_if_error = "1h")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        #[cached(index)]
        pub name: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
}

const HOUR: Duration = Duration::from_secs(3_600);

fn policy() -> Policy {
    Policy::new().ttl(HOUR)
}

/// A value whose ttl has ended, and that is kept for an hour more.
async fn aged(cache: &Cache, key: &str, policy: Policy) -> Namespace {
    let values = cache.namespace("values");
    let ended = policy.ttl(Duration::from_millis(1)).stale_if_error(HOUR);
    values.set(key, &1, &ended).await.unwrap();
    until(async || values.get::<i32>(key).await.is_none()).await;
    values
}

async fn failing(values: &Namespace, key: &str, policy: &Policy) -> Result<i32, String> {
    let load = async { Err("down".to_owned()) };
    values.get_or_set(key, policy, load).await
}

fn down() -> Result<i32, String> {
    Err("down".to_owned())
}

async fn while_one_loads_anew_the_others_are_answered(world: World) {
    let policy = policy().stale_while_revalidate(HOUR);
    let values = aged(&world.cache, "k", Policy::new()).await;
    assert_eq!(values.ttl("k").await, None);
    let (begun, gate) = (Notify::new(), Notify::new());
    let leads = values.get_or_set("k", &policy, async {
        begun.notify_one();
        gate.notified().await;
        Ok::<_, DbErr>(2)
    });
    let (other, _) = world.another_process().await;
    let others = async {
        begun.notified().await;
        for values in [&values, &other.namespace("values")] {
            assert_eq!(failing(values, "k", &policy).await, Ok(1));
        }
        // Who wants no old one waits.
        let fresh = Policy::new().ttl(HOUR);
        let (waits, ()) = tokio::join!(failing(&values, "k", &fresh), async {
            gate.notify_one();
        });
        waits
    };
    let (led, waited) = tokio::join!(leads, others);
    assert_eq!((led, waited), (Ok(2), Ok(2)));
    assert_eq!(values.get("k").await, Some(2));
    assert_eq!(other.namespace("values").get("k").await, Some(2));
    let stats = world.cache.stats().entity("values");
    assert_eq!(stats.stale, 1);
}

async fn where_a_load_fails_what_there_was_is_answered(world: World) {
    world.seed([a_country(10, "FR")]).await;
    world.seed([paris()]).await;
    let depends = policy()
        .depends_on::<city::Entity>()
        .tags(["t"])
        .stale_if_error(HOUR);
    let values = aged(&world.cache, "k", depends.clone()).await;
    assert_eq!(failing(&values, "k", &depends).await, Ok(1));
    let unforgiving = depends.clone().stale_if_error(Duration::ZERO);
    assert_eq!(failing(&values, "k", &unforgiving).await, down());
    assert_eq!(failing(&values, "k", &depends).await, Ok(1), "it is left");

    // Nothing that was made stale.
    rename("new").update(&world.db).await.unwrap();
    assert_eq!(failing(&values, "k", &depends).await, down());
    aged(&world.cache, "k", depends.clone()).await;
    values.invalidate_tags(["t"]).await.unwrap();
    assert_eq!(failing(&values, "k", &depends).await, down());
    // Nor what is made stale while it loads.
    aged(&world.cache, "k", depends.clone()).await;
    let load = async {
        rename("newer").update(&world.db).await.unwrap();
        Err("down".to_owned())
    };
    assert_eq!(values.get_or_set("k", &depends, load).await, down());
    // A value that comes in its place ends that.
    aged(&world.cache, "k", depends.clone()).await;
    let load = async { Ok::<_, DbErr>(3) };
    assert_eq!(values.get_or_set("k", &depends, load).await, Ok(3));
    assert_eq!(values.get("k").await, Some(3));
    let touched = values.touch("k", Duration::from_millis(1)).await;
    assert!(touched.unwrap());
    until(async || values.get::<i32>("k").await.is_none()).await;
    assert_eq!(failing(&values, "k", &depends).await, Ok(3));
}

fn rename(name: &str) -> city::ActiveModel {
    city::ActiveModel {
        id: Set(1),
        name: Set(name.to_owned()),
        ..Default::default()
    }
}

async fn a_load_that_takes_long_is_not_waited_for(world: World) {
    let soft = policy()
        .stale_if_error(HOUR)
        .soft_timeout(Duration::from_millis(5));
    let values = aged(&world.cache, "k", Policy::new()).await;
    let never = || pending::<Result<i32, DbErr>>();
    assert_eq!(values.get_or_set("k", &soft, never()).await, Ok(1));
    assert_eq!(values.get_or_set("k", &soft, never()).await, Ok(1));
    // Where there is nothing else it is waited for.
    let load = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok::<_, DbErr>(2)
    };
    assert_eq!(values.get_or_set("new", &soft, load).await, Ok(2));
    let hard = policy().load_timeout(Duration::from_millis(5));
    let late = values.get_or_spawn("late", &hard, never()).await;
    let late = late.unwrap_err().to_string();
    assert!(late.contains("given up after 5ms"), "{late}");
}

async fn a_spawned_load_goes_on_and_nobody_waits_for_a_refresh(world: World) {
    let policy = policy().stale_while_revalidate(HOUR);
    let values = aged(&world.cache, "k", Policy::new()).await;
    let gate = Arc::new(Notify::new());
    let gated = |value: i32| {
        let gate = Arc::clone(&gate);
        async move {
            gate.notified().await;
            Ok::<_, CacheError>(value)
        }
    };
    let at_once = values.get_or_spawn("k", &policy, gated(2)).await;
    assert_eq!(at_once.unwrap(), 1);
    gate.notify_one();
    until(async || values.get::<i32>("k").await == Some(2)).await;
    let hit = values.get_or_spawn("k", &policy, gated(3)).await;
    assert_eq!(hit.unwrap(), 2);

    // The caller goes away.
    let (begun, told) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let load = {
        let (begun, told) = (Arc::clone(&begun), Arc::clone(&told));
        async move {
            begun.notify_one();
            told.notified().await;
            Ok::<_, CacheError>(4)
        }
    };
    let (there, asked) = (values.clone(), policy.clone());
    let caller = tokio::spawn(async move { there.get_or_spawn("gone", &asked, load).await });
    begun.notified().await;
    caller.abort();
    told.notify_one();
    until(async || values.get::<i32>("gone").await == Some(4)).await;
}

async fn a_slow_value_is_loaded_anew_before_its_end(world: World) {
    let values = world.cache.namespace("values");
    let loads = AtomicU64::new(0);
    let get = async |policy: &Policy| {
        let load = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok::<_, DbErr>(loads.fetch_add(1, Ordering::Relaxed))
        };
        values.get_or_set("k", policy, load).await.unwrap()
    };
    let never = policy().early_refresh(0.0);
    // 5 ms and more, by this factor, are days.
    let always = policy().early_refresh(1e9);
    assert_eq!(get(&always).await, 0);
    assert_eq!(get(&always).await, 1);
    assert_eq!(values.get("k").await, Some(1_u64));
    // One that fails harms nobody.
    let load = async { Err::<u64, _>("down") };
    assert_eq!(values.get_or_set("k", &always, load).await, Ok(1));
    assert_eq!(get(&never).await, 1);
}

async fn rows_and_selects_outlive_their_database(world: World) {
    let create = "CREATE TABLE aging (id BIGINT PRIMARY KEY, name VARCHAR(20))";
    world.raw.execute_unprepared(create).await.unwrap();
    let row = note::Model {
        id: 1,
        name: "one".to_owned(),
    };
    let insert = "INSERT INTO aging (id, name) VALUES (1, 'one')";
    world.raw.execute_unprepared(insert).await.unwrap();
    let get = async || note::Entity::cached_get(1, &world.db).await;
    let all = async || note::Entity::cached_all(&world.db).await;
    let named = async || note::Entity::cached_find_by_name("one", &world.db).await;
    let select = async || note::Entity::find().cached().all(&world.db).await;
    let warm = async || {
        get().await.unwrap();
        all().await.unwrap();
        named().await.unwrap();
        select().await.unwrap();
        // Longer than the ttl.
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    warm().await;
    let away = "ALTER TABLE aging RENAME TO away";
    world.raw.execute_unprepared(away).await.unwrap();
    assert_eq!(get().await.unwrap().as_deref(), Some(&row));
    assert_eq!(*all().await.unwrap()[0], row);
    assert_eq!(*named().await.unwrap()[0], row);
    assert_eq!(*select().await.unwrap()[0], row);
    assert!(world.stats("aging").stale >= 4);
    let back = "ALTER TABLE away RENAME TO aging";
    world.raw.execute_unprepared(back).await.unwrap();
    warm().await;
    note::Entity::invalidate(1, &world.db).await.unwrap();
    world.raw.execute_unprepared(away).await.unwrap();
    assert!(get().await.is_err());
    assert!(all().await.is_err());
    assert!(named().await.is_err());
    assert!(select().await.is_err());
}

#[tokio::test]
async fn a_refresh_that_fails_is_told_of() {
    let failed = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&failed);
    let observer = move |event: &Event<'_>| {
        if let Event::RefreshFailed { entity: "values" } = event {
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    let cache = Cache::builder().observer(observer).build().await.unwrap();
    let values = aged(&cache, "k", Policy::new()).await;
    let policy = policy().stale_while_revalidate(HOUR);
    let load = async { Err::<i32, _>(CacheError::NoCache) };
    let answer = values.get_or_spawn("k", &policy, load).await;
    assert_eq!(answer.unwrap(), 1);
    until(async || failed.load(Ordering::Relaxed) == 1).await;
}
