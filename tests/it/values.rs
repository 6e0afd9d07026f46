//! Values under names of one's own: what is read of them, and when they go stale.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter,
    TransactionTrait,
};
use sea_orm_cache::store::Op;
use sea_orm_cache::testing::{Fault, Pause};
use sea_orm_cache::{Cache, CacheError, Codec, Consistency, Namespace, Policy};
use serde::{Deserialize, Serialize};

use crate::entities::{city, country};
use crate::on_all;
use crate::outages::until;
use crate::reads::{country as a_country, paris};
use crate::world::World;

on_all!(
    what_is_set_is_read_until_it_is_removed,
    another_type_or_codec_is_a_miss,
    additions_and_numbers_lose_nothing,
    whenever_an_invalidation_comes_a_put_does_not_undo_it,
    whichever_request_fails_no_addition_is_lost,
    an_add_under_a_fence_takes_nothing_away,
    lives_are_told_and_prolonged,
    a_pattern_removes_what_matches_and_nothing_else,
    a_namespace_a_tag_and_a_tenant_are_apart,
    one_of_many_loads_in_all_processes,
    those_who_waited_for_a_load_that_failed_load_at_the_same_time,
    what_was_computed_from_a_row_goes_stale_with_it,
    what_was_computed_from_a_table_goes_stale_with_it,
    absence_is_kept_until_something_comes,
    a_write_during_the_load_is_not_lost,
    reads_cost_one_round_trip_or_none,
);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Profile {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    age: Option<u8>,
    scores: BTreeMap<String, f64>,
}

fn profile(name: &str) -> Profile {
    Profile {
        name: name.to_owned(),
        age: None,
        scores: [("one".to_owned(), 0.1)].into(),
    }
}

fn policy() -> Policy {
    Policy::new().ttl(Duration::from_secs(600))
}

/// The value, or what is loaded as it stands.
async fn load<T: sea_orm_cache::Cacheable>(
    namespace: &Namespace,
    key: &str,
    policy: &Policy,
    value: T,
) -> T {
    let load = async { Ok::<_, Infallible>(value) };
    let Ok(value) = namespace.get_or_set(key, policy, load).await;
    value
}

async fn what_is_set_is_read_until_it_is_removed(world: World) {
    let people = world.cache.namespace("people");
    assert_eq!(people.get::<Profile>("ann").await, None);
    for name in ["ann", "Ann", "a:n%n ü\0", ""] {
        people.set(name, &profile(name), &policy()).await.unwrap();
    }
    for name in ["ann", "Ann", "a:n%n ü\0", ""] {
        assert_eq!(people.get(name).await, Some(profile(name)));
    }
    people.set("ann", &profile("new"), &policy()).await.unwrap();
    let found: Vec<Option<Profile>> = people.get_many(["Ann", "bob", "ann", "ann"]).await;
    let new = Some(profile("new"));
    assert_eq!(
        found,
        [Some(profile("Ann")), None, new.clone(), new.clone()]
    );
    // The same name in another namespace is another key.
    assert_eq!(
        world.cache.namespace("pets").get::<Profile>("ann").await,
        None
    );

    let (other, _) = world.another_process().await;
    assert_eq!(other.namespace("people").get("ann").await, new);
    people.remove("ann").await.unwrap();
    assert_eq!(people.get::<Profile>("ann").await, None);
    assert_eq!(other.namespace("people").get::<Profile>("ann").await, None);
    let many = (0..10).map(|n| (n.to_string(), n));
    people.set_many(many, &policy()).await.unwrap();
    assert_eq!(people.get("7").await, Some(7));
    people.remove_many(["6", "7"]).await.unwrap();
    assert_eq!(
        people.get_many::<i32>(["5", "6", "7", "8"]).await,
        [Some(5), None, None, Some(8)]
    );
}

async fn a_pattern_removes_what_matches_and_nothing_else(world: World) {
    let search = world.cache.namespace("search");
    let of_tenant = search.scoped("ann");
    let searches = world.cache.namespace("searches");
    let others = [&of_tenant, &searches];
    for namespace in [&search, &of_tenant, &searches] {
        let many = (0..3_000).map(|n| (format!("page:{n}"), n));
        namespace.set_many(many, &policy()).await.unwrap();
        for key in ["page*", "Page:1", "päge:1", "a:page:1"] {
            namespace.set(key, &0, &policy()).await.unwrap();
        }
    }
    let has = async |namespace: &Namespace, key: &str| namespace.get::<i32>(key).await.is_some();

    assert_eq!(search.remove_matching(r"page\*").await.unwrap(), 1);
    assert!(!has(&search, "page*").await && has(&search, "page:1").await);
    assert_eq!(search.remove_matching("p?ge:1").await.unwrap(), 2);
    assert!(!has(&search, "päge:1").await && !has(&search, "page:1").await);
    assert_eq!(search.remove_matching("page:[0-4]??").await.unwrap(), 400);
    assert!(!has(&search, "page:499").await && has(&search, "page:500").await);
    assert_eq!(search.remove_matching("page:*").await.unwrap(), 3_000 - 401);
    assert_eq!(search.remove_matching("page:*").await.unwrap(), 0);
    assert!(has(&search, "Page:1").await && has(&search, "a:page:1").await);
    assert_eq!(search.remove_matching("*").await.unwrap(), 2);
    for namespace in others {
        let keys = (0..3_000).map(|n| format!("page:{n}"));
        let all = namespace.get_many::<i32>(keys).await;
        assert_eq!(all.iter().flatten().count(), 3_000);
    }

    let error = search.remove_matching("page:[0-4").await.unwrap_err();
    let text = "the pattern `page:[0-4`: a `[` without its `]`: write `\\[` for a bracket";
    assert_eq!(error.to_string(), text);

    // A load that is under way counts as what it is about to store.
    let removing = async {
        search.remove_matching("slo*").await.unwrap();
        Ok::<_, Infallible>(1)
    };
    let Ok(_) = search.get_or_set("slow", &policy(), removing).await;
    assert!(!has(&search, "slow").await);
}

async fn another_type_or_codec_is_a_miss(world: World) {
    let values = world.cache.namespace("values");
    values.set("k", &7_u8, &policy()).await.unwrap();
    assert_eq!(values.get::<u16>("k").await, None);
    assert_eq!(values.get::<u8>("k").await, Some(7));
    let json = values.clone().codec(Codec::Json);
    assert_eq!(json.get::<u8>("k").await, None);
    json.set("k", &8_u8, &policy()).await.unwrap();
    // JSON says itself what it is.
    assert_eq!(json.get::<u16>("k").await, Some(8));
    assert_eq!(json.get::<String>("k").await, None);
    assert_eq!(
        values.get::<u8>("k").await,
        None,
        "the newer one has taken its place"
    );
    assert_eq!(load(&json, "k", &policy(), "text".to_owned()).await, "text");

    // What serde cannot write is told before anything is changed.
    json.set("k", &1_u8, &policy()).await.unwrap();
    let wrong: BTreeMap<(u8, u8), u8> = [((1, 2), 3)].into();
    let error = json.set("k", &wrong, &policy()).await.unwrap_err();
    assert!(matches!(error, CacheError::Value { .. }), "{error}");
    assert!(
        error.to_string().contains("key must be a string"),
        "{error}"
    );
}

async fn additions_and_numbers_lose_nothing(world: World) {
    let (other, _) = world.another_process().await;
    let caches = [world.cache.clone(), other];
    let policy = policy();
    let adds = (0..8).map(|n| {
        let values = caches[n % 2].namespace("values");
        let policy = &policy;
        async move { values.add("first", &n, policy).await.unwrap() }
    });
    let added = join_all(adds).await;
    assert_eq!(added.iter().filter(|added| **added).count(), 1);
    let first = added.iter().position(|added| *added);
    let values = caches[0].namespace("values");
    assert_eq!(values.get::<usize>("first").await, first);

    let counts = (0..12).map(|n| {
        let values = caches[n % 2].namespace("values");
        let policy = &policy;
        async move { values.incr("count", 2, policy).await.unwrap() }
    });
    let mut counts = join_all(counts).await;
    counts.sort_unstable();
    assert_eq!(counts, (1..=12).map(|n| 2 * n).collect::<Vec<i64>>());
    assert_eq!(values.get::<i64>("count").await, Some(24));
    assert_eq!(values.incr("count", -30, &policy).await.unwrap(), -6);
    values
        .set("text", &"seven".to_owned(), &policy)
        .await
        .unwrap();
    let error = values.incr("text", 1, &policy).await.unwrap_err();
    assert!(error.to_string().contains("not an `i64`"), "{error}");
    values.set("most", &i64::MAX, &policy).await.unwrap();
    let error = values.incr("most", 1, &policy).await.unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
    assert_eq!(values.get::<i64>("most").await, Some(i64::MAX));
}

/// The `n`th operation of all.
fn nth(n: u64) -> impl Fn(&Op) -> bool + Send + Sync + 'static {
    let seen = AtomicU64::new(0);
    move |_| seen.fetch_add(1, Ordering::Relaxed) == n
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Add,
    Incr,
    Touch,
}

impl Call {
    async fn run(self, values: &Namespace) -> Result<i64, CacheError> {
        match self {
            Self::Add => Ok(values.add("n", &6, &policy()).await?.into()),
            Self::Incr => values.incr("n", 1, &policy()).await,
            Self::Touch => Ok(values.touch("n", Duration::from_secs(60)).await?.into()),
        }
    }
}

/// Before each operation of the call in turn, everything is made stale by another process.
async fn whenever_an_invalidation_comes_a_put_does_not_undo_it(world: World) {
    let (other, _) = world.another_process().await;
    for (call, stands) in [
        (Call::Incr, true),
        (Call::Incr, false),
        (Call::Add, false),
        (Call::Touch, true),
    ] {
        for n in 0.. {
            let values = world.cache.namespace("whenever");
            other.namespace("whenever").invalidate().await.unwrap();
            if stands {
                values.set("n", &5_i64, &policy()).await.unwrap();
            }
            let pause = world.store.pause_before(nth(n));
            let mut running = {
                let values = values.clone();
                tokio::spawn(async move { call.run(&values).await })
            };
            let came = tokio::select! {
                () = pause.arrived() => true,
                said = &mut running => {
                    said.unwrap().unwrap();
                    false
                }
            };
            if !came {
                assert!(n > 2, "{call:?}");
                break;
            }
            other.namespace("whenever").invalidate().await.unwrap();
            pause.resume();
            let said = running.await.unwrap().unwrap();
            let now = values.get::<i64>("n").await;
            let fits = match (call, said, now) {
                // Before the invalidation, and gone with it.
                (_, _, None) => true,
                // After it.
                (Call::Incr, 1, Some(1)) => true,
                // What was added may be no older than the call.
                (Call::Add, 1, Some(6)) => n == 0,
                _ => false,
            };
            assert!(
                fits,
                "{call:?} {stands}, {n}: said {said}, and there is {now:?}"
            );
        }
    }
}

async fn whichever_request_fails_no_addition_is_lost(world: World) {
    let values = world.cache.namespace("failing");
    let mut count = 5_i64;
    values.set("n", &count, &policy()).await.unwrap();
    for call in [Call::Incr, Call::Add, Call::Touch] {
        // Of five operations at most, so that the last time none fails.
        for n in 0..5 {
            world.store.inject(Fault::refuse().on(nth(n)).times(1));
            let said = call.run(&values).await;
            world.store.heal();
            if let (Call::Incr, Ok(sum)) = (call, &said) {
                count += 1;
                assert_eq!(*sum, count, "{n}");
            }
            assert_eq!(
                values.get("n").await,
                Some(count),
                "{call:?}, {n}: {said:?}"
            );
        }
    }
    assert!(values.incr("n", 0, &policy()).await.unwrap() > 5);
}

/// Who may not add because of a write under way takes nothing away that another adds once it is over.
async fn an_add_under_a_fence_takes_nothing_away(world: World) {
    let values = world.cache.namespace("fenced");
    let others = world.another_process().await.0.namespace("fenced");
    let on_cities = policy().depends_on::<city::Entity>();
    let txn = world.db.begin().await.unwrap();
    let written = city::Entity::update_many()
        .col_expr(city::Column::Name, Expr::value("new"))
        .exec(&txn)
        .await;
    written.unwrap();
    let commit = world.store.pause_after(Op::is_fence);
    let committing = tokio::spawn(async move { txn.commit().await });
    commit.arrived().await;

    let puts = AtomicU64::new(0);
    let last = world.store.pause_before(move |op| {
        let puts_or_removes = op.is_settle() || matches!(op, Op::Put { .. });
        let here = puts_or_removes && op.key().as_str().contains("fenced");
        here && puts.fetch_add(1, Ordering::Relaxed) == 0
    });
    let policy_of_add = on_cities.clone();
    let mut adding = tokio::spawn(async move { others.add("n", &2, &policy_of_add).await });
    let early = tokio::select! {
        () = last.arrived() => None,
        added = &mut adding => Some(added),
    };
    commit.resume();
    committing.await.unwrap().unwrap();
    // Its own put must not be taken for what was waited for.
    let last = Some(last).filter(|_| early.is_none());
    assert!(values.add("n", &1, &on_cities).await.unwrap());
    last.into_iter().for_each(Pause::resume);
    let added = match early {
        Some(added) => added,
        None => adding.await,
    };
    assert!(!added.unwrap().unwrap());
    assert_eq!(values.get("n").await, Some(1));
}

async fn lives_are_told_and_prolonged(world: World) {
    let values = world.cache.namespace("values");
    let short = Policy::new().ttl(Duration::from_secs(60)).jitter(0.0);
    let near = |life: Option<Duration>, secs: u64| {
        let life = life.expect("there is one").as_secs_f64();
        assert!(life > secs as f64 - 20.0 && life <= secs as f64, "{life}");
    };
    assert_eq!(values.ttl("k").await, None);
    assert!(!values.touch("k", Duration::from_secs(9)).await.unwrap());
    values.set("k", &1, &short).await.unwrap();
    near(values.ttl("k").await, 60);
    assert!(values.touch("k", Duration::from_secs(600)).await.unwrap());
    near(values.ttl("k").await, 600);
    assert_eq!(values.get("k").await, Some(1));
    // An addition leaves the life as it is.
    values.set("n", &1_i64, &short).await.unwrap();
    values.incr("n", 1, &policy()).await.unwrap();
    near(values.ttl("n").await, 60);
    // What is stale has none.
    values.invalidate().await.unwrap();
    assert_eq!(values.ttl("k").await, None);
    assert!(!values.touch("k", Duration::from_secs(9)).await.unwrap());
    assert_eq!(values.get::<i32>("k").await, None);

    let soon = Policy::new().ttl(Duration::from_millis(50));
    values.set("k", &1, &soon).await.unwrap();
    until(async || values.get::<i32>("k").await.is_none()).await;
}

async fn a_namespace_a_tag_and_a_tenant_are_apart(world: World) {
    let one = world.cache.namespace("one");
    let two = world.cache.namespace("two");
    let tenant = one.scoped("acme");
    let other = one.scoped("other");
    let red = policy().tags(["red", "all"]);
    let blue = policy().tags(["blue", "all"]);
    let fill = async || {
        for namespace in [&one, &two, &tenant, &other] {
            namespace.set("red", &1, &red).await.unwrap();
            namespace.set("blue", &2, &blue).await.unwrap();
            namespace.set("plain", &3, &policy()).await.unwrap();
        }
    };
    let left = async |namespace: &Namespace| {
        let found = namespace.get_many::<i32>(["red", "blue", "plain"]).await;
        found.into_iter().flatten().collect::<Vec<_>>()
    };
    fill().await;
    assert_eq!(left(&one).await, [1, 2, 3]);
    tenant.invalidate_tags(["red"]).await.unwrap();
    assert_eq!(left(&tenant).await, [2, 3]);
    for namespace in [&one, &two, &other] {
        assert_eq!(left(namespace).await, [1, 2, 3]);
    }
    world.cache.invalidate_tags(["blue"]).await.unwrap();
    assert_eq!(left(&tenant).await, [3]);
    for namespace in [&one, &two, &other] {
        assert_eq!(left(namespace).await, [1, 3], "of all tenants");
    }
    fill().await;
    tenant.invalidate().await.unwrap();
    assert_eq!(left(&tenant).await, [0; 0]);
    for namespace in [&one, &two, &other] {
        assert_eq!(left(namespace).await, [1, 2, 3]);
    }
    fill().await;
    one.invalidate().await.unwrap();
    for namespace in [&one, &tenant, &other] {
        assert_eq!(left(namespace).await, [0; 0], "of all tenants");
    }
    assert_eq!(left(&two).await, [1, 2, 3]);
    // Whoever asks for a value of more than it was stored for does not get it.
    assert_eq!(load(&two, "plain", &red, 4).await, 4);
    assert_eq!(load(&two, "plain", &policy(), 5).await, 4);
}

async fn one_of_many_loads_in_all_processes(world: World) {
    let (other, _) = world.another_process().await;
    let loads = AtomicU64::new(0);
    let policy = policy();
    let reads = (0..200).map(|n| {
        let values = [&world.cache, &other][n % 2].namespace("values");
        let (loads, policy) = (&loads, &policy);
        async move {
            let load = async {
                loads.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok::<_, Infallible>(7)
            };
            let Ok(value) = values.get_or_set("cold", policy, load).await;
            value
        }
    });
    assert!(join_all(reads).await.iter().all(|value| *value == 7));
    assert_eq!(loads.into_inner(), 1);

    // An error is the caller's, and is not kept.
    let values = world.cache.namespace("values");
    let failing = async { Err::<u8, _>("no") };
    assert_eq!(
        values.get_or_set("failing", &policy, failing).await,
        Err("no")
    );
    assert_eq!(load(&values, "failing", &policy, 8_u8).await, 8);
}

/// And not one after the other, each waiting for the failures of all before it.
async fn those_who_waited_for_a_load_that_failed_load_at_the_same_time(world: World) {
    let values = world.cache.namespace("failing");
    let (asked, running, most) = (
        Arc::new(AtomicU64::new(0)),
        AtomicU64::new(0),
        AtomicU64::new(0),
    );
    let count = Arc::clone(&asked);
    let _counts = world.store.pause_before(move |op| {
        if matches!(op, Op::Acquire { .. }) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        false
    });
    // A number that is no number has no jitter.
    let policy = policy().jitter(f64::NAN);
    let first = AtomicU64::new(0);
    let reads = (0..20).map(|_| async {
        let load = async {
            if first.fetch_add(1, Ordering::Relaxed) == 0 {
                running.fetch_add(1, Ordering::Relaxed);
                // Until all others wait for this one.
                while asked.load(Ordering::Relaxed) < 20 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            } else {
                most.fetch_max(
                    1 + running.fetch_add(1, Ordering::Relaxed),
                    Ordering::Relaxed,
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            running.fetch_sub(1, Ordering::Relaxed);
            Err::<u8, _>("no")
        };
        values.get_or_set("key", &policy, load).await
    });
    let answers = join_all(reads).await;
    assert!(answers.iter().all(|answer| *answer == Err("no")));
    assert_eq!(first.into_inner(), 20);
    assert!(most.into_inner() >= 10, "they loaded one by one");
    assert_eq!(load(&values, "key", &policy, 8_u8).await, 8);
    assert_eq!(values.get("key").await, Some(8_u8));
}

async fn population(world: &World, key: &str, policy: &Policy) -> String {
    let load = async {
        let city = city::Entity::find_by_id(1).one(&world.raw).await?;
        Ok::<_, DbErr>(city.map_or_else(String::new, |city| city.name))
    };
    let values = world.cache.namespace("pages");
    values.get_or_set(key, policy, load).await.unwrap()
}

async fn what_was_computed_from_a_row_goes_stale_with_it(world: World) {
    world.seed([a_country(10, "FR")]).await;
    world
        .seed([paris(), crate::reads::city(2, Some(10), "lyon")])
        .await;
    let policy = policy().depends_on_row::<city::Entity>(1);
    let page = async || population(&world, "paris", &policy).await;
    let cached = async || {
        let found = world.cache.namespace("pages").get::<String>("paris").await;
        found.is_some()
    };
    assert_eq!(page().await, "PARIS");
    assert!(cached().await);
    // Another row is another matter.
    rename(2, "LYON!").update(&world.db).await.unwrap();
    assert!(cached().await);
    rename(1, "one").update(&world.db).await.unwrap();
    assert!(!cached().await);
    assert_eq!(page().await, "one");
    city::Entity::update_many()
        .col_expr(city::Column::Name, Expr::value("bulk"))
        .filter(city::Column::Name.ne("x"))
        .exec(&world.db)
        .await
        .unwrap();
    assert_eq!(page().await, "bulk");
    world
        .db
        .execute_unprepared("UPDATE city SET name = 'raw' WHERE id = 1")
        .await
        .unwrap();
    assert_eq!(page().await, "raw");
    let txn = world.db.begin().await.unwrap();
    rename(1, "never").update(&txn).await.unwrap();
    txn.rollback().await.unwrap();
    assert!(cached().await);
    let txn = world.db.begin().await.unwrap();
    rename(1, "txn").update(&txn).await.unwrap();
    assert!(cached().await, "not before the commit");
    txn.commit().await.unwrap();
    assert_eq!(page().await, "txn");
    // Also where the row itself is cached beside.
    world.warm().await;
    assert!(cached().await);
    rename(1, "again").update(&world.db).await.unwrap();
    assert_eq!(page().await, "again");
    city::Entity::delete_by_id(1).exec(&world.db).await.unwrap();
    assert_eq!(page().await, "");
}

fn rename(id: i64, name: &str) -> city::ActiveModel {
    city::ActiveModel {
        id: Set(id),
        name: Set(name.to_owned()),
        ..Default::default()
    }
}

async fn what_was_computed_from_a_table_goes_stale_with_it(world: World) {
    world.seed([a_country(10, "FR")]).await;
    let policy = policy().depends_on::<city::Entity>();
    let count = async || {
        let load = async {
            let cities = city::Entity::find().all(&world.raw).await?;
            Ok::<_, DbErr>(cities.len())
        };
        let values = world.cache.namespace("counts");
        values.get_or_set("cities", &policy, load).await.unwrap()
    };
    assert_eq!(count().await, 0);
    paris().insert(&world.db).await.unwrap();
    assert_eq!(count().await, 1);
    // Another table's write is nothing to it.
    let cached = async || world.cache.namespace("counts").get::<usize>("cities").await;
    let rename = country::ActiveModel {
        id: Set(10),
        name: Set("France".to_owned()),
        ..Default::default()
    };
    rename.update(&world.db).await.unwrap();
    assert_eq!(cached().await, Some(1));
    city::Entity::delete_many().exec(&world.db).await.unwrap();
    assert_eq!(cached().await, None);
    assert_eq!(count().await, 0);

    // A tenant's page, whoever writes the row.
    let tenant = world.cache.namespace("counts").scoped("acme");
    for db in [&world.db, &world.db.scoped("acme")] {
        load(&tenant, "cities", &policy, 0).await;
        assert_eq!(tenant.get("cities").await, Some(0));
        paris().insert(db).await.unwrap();
        assert_eq!(tenant.get::<i32>("cities").await, None);
        city::Entity::delete_many().exec(&world.raw).await.unwrap();
    }
}

async fn absence_is_kept_until_something_comes(world: World) {
    world.seed([a_country(10, "FR")]).await;
    let policy = policy().depends_on_row::<city::Entity>(1);
    let values = world.cache.namespace("pages");
    let page = async || {
        let load = async {
            let city = city::Entity::find_by_id(1).one(&world.raw).await?;
            Ok::<_, DbErr>(city.map(|city| city.name))
        };
        values
            .get_or_set_optional("paris", &policy, load)
            .await
            .unwrap()
    };
    assert_eq!(page().await, None);
    // Past the cache: nobody is told.
    world.seed([paris()]).await;
    assert_eq!(page().await, None);
    assert_eq!(values.get::<String>("paris").await, None);
    // A write to the table, whatever its row.
    crate::reads::city(2, Some(10), "lyon")
        .insert(&world.db)
        .await
        .unwrap();
    assert_eq!(page().await.as_deref(), Some("PARIS"));
    // Who must have something is not answered with nothing.
    city::Entity::delete_by_id(1).exec(&world.db).await.unwrap();
    assert_eq!(page().await, None);
    assert_eq!(
        load(&values, "paris", &policy, "new".to_owned()).await,
        "new"
    );
    assert_eq!(page().await.as_deref(), Some("new"));
}

async fn a_write_during_the_load_is_not_lost(world: World) {
    world.seed([a_country(10, "FR")]).await;
    world.seed([paris()]).await;
    let policy = policy()
        .depends_on_row::<city::Entity>(1)
        .consistency(Consistency::Linearizable);
    let pause = world.store.pause_before(Op::is_fill);
    let late = population(&world, "paris", &policy);
    let write = async {
        pause.arrived().await;
        rename(1, "new").update(&world.db).await.unwrap();
        pause.resume();
    };
    let (late, ()) = tokio::join!(late, write);
    assert_eq!(late, "PARIS", "it was asked for before the write");
    assert_eq!(population(&world, "paris", &policy).await, "new");
}

async fn reads_cost_one_round_trip_or_none(world: World) {
    let values = world.cache.namespace("values");
    let tagged = policy().tags(["t"]);
    values
        .set_many([("a", 1), ("b", 2)], &policy())
        .await
        .unwrap();
    values.set("c", &3, &tagged).await.unwrap();
    let read = async |keys: &[&str]| {
        let read = values.get_many::<i32>(keys.iter().copied());
        let (found, cost) = world.cost(read).await;
        assert!(found.iter().all(Option::is_some));
        cost.round_trips
    };
    assert_eq!(read(&["a", "b"]).await, 1);
    assert!(read(&["c"]).await <= 2);
    assert_eq!(read(&["a", "b"]).await, world.hits(1).round_trips);
    // Who says what it depends on has it in one.
    let (_, cost) = world.cost(load(&values, "c", &tagged, 0)).await;
    assert!(cost.round_trips <= 1);
    let ((), cost) = world
        .cost(async { values.invalidate().await.unwrap() })
        .await;
    assert_eq!(cost.round_trips, 1);
}

#[tokio::test]
async fn without_the_store_there_is_nothing_and_loads_go_on() {
    let world = World::new(crate::world::Sql::Sqlite, crate::world::Place::Redis).await;
    let values = world.cache.namespace("values");
    values.set("k", &1, &policy()).await.unwrap();
    world.store.inject(Fault::refuse());
    assert_eq!(values.get::<i32>("k").await, None);
    assert_eq!(load(&values, "k", &policy(), 2).await, 2);
    let error = values.set("k", &3, &policy()).await.unwrap_err();
    assert!(matches!(error, CacheError::Store(_)), "{error}");
    assert!(values.incr("n", 1, &policy()).await.is_err());
    assert!(values.touch("k", Duration::from_secs(1)).await.is_err());
    assert!(values.add("n", &1, &policy()).await.is_err());
    assert_eq!(values.ttl("k").await, None);
    world.store.heal();
    // What could not be replaced is not read again.
    until(async || world.cache.stats().undelivered == 0).await;
    assert_eq!(values.get::<i32>("k").await, None);
    values.set("k", &4, &policy()).await.unwrap();
    assert_eq!(values.get("k").await, Some(4));
}

#[tokio::test]
async fn what_cannot_be_cached_is_loaded_each_time() {
    let cache = Cache::builder()
        .max_value_bytes(1_000)
        .build()
        .await
        .unwrap();
    let values = cache.namespace("values");
    let long = "long".repeat(1_000);
    values
        .set("k", &"short".to_owned(), &policy())
        .await
        .unwrap();
    values.set("k", &long, &policy()).await.unwrap();
    assert_eq!(
        values.get::<String>("k").await,
        None,
        "nor is the old one read"
    );
    assert_eq!(load(&values, "l", &policy(), long.clone()).await, long);
    assert_eq!(load(&values, "l", &policy(), "now".to_owned()).await, "now");
    // No database is attached, so nobody can say when the city changes.
    let policy = policy().depends_on::<city::Entity>();
    for n in 0..2 {
        assert_eq!(load(&values, "m", &policy, n).await, n);
    }
    let error = values.set("m", &1, &policy).await.unwrap_err();
    assert!(error.to_string().contains("`main`"), "{error}");
    let always = Policy::new().consistency(Consistency::Database);
    for n in 0..2 {
        assert_eq!(load(&values, "n", &always, n).await, n);
    }
}
