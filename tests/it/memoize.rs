//! Functions that remember what they have answered: in this process, and in a cache.

use std::num::ParseIntError;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use sea_orm::ActiveValue::Set;
use sea_orm::{
    ActiveModelTrait, ConnectionTrait, DatabaseConnection, DbErr, EntityTrait, QueryOrder,
    TransactionTrait,
};
use sea_orm_cache::{Cache, Namespace, memoize};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::entities::{city, country};
use crate::on_all;
use crate::outages::until;
use crate::reads::{country as a_country, paris};
use crate::world::{Place, Sql, World};

on_all!(
    a_ranking_goes_stale_with_what_it_was_made_of,
    nothing_is_remembered_and_an_error_is_not,
    one_of_all_who_make_the_same_call_works,
    homes_are_apart_and_cleared_apart,
);

type Count = AtomicU64;

fn tick(count: &Count) -> u64 {
    count.fetch_add(1, Ordering::Relaxed) + 1
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Ranked {
    name: String,
    rank: i32,
}

/// The cities of a country by their rank.
#[memoize(cache = cache, ttl = "10m", depends_on(city::Entity), tags("ranking", format!("country:{country}")))]
#[tracing::instrument(skip_all)]
async fn ranking(
    country: i64,
    #[memo(skip)] db: &DatabaseConnection,
    #[memo(skip)] cache: &Cache,
    #[memo(skip)] count: &Count,
) -> Result<Vec<Ranked>, DbErr> {
    tick(count);
    let cities = city::Entity::find().order_by_asc(city::Column::Rank);
    let cities = cities.all(db).await?;
    let here = cities
        .into_iter()
        .filter(|city| city.country_id == Some(country));
    Ok(here
        .map(|city| Ranked {
            name: city.name,
            rank: city.rank,
        })
        .collect())
}

async fn a_ranking_goes_stale_with_what_it_was_made_of(world: World) {
    world.seed([a_country(10, "FR")]).await;
    world
        .seed([paris(), crate::reads::city(2, Some(10), "lyon")])
        .await;
    let count = Count::new(0);
    let names = async || {
        let ranked = ranking(10, &world.raw, &world.cache, &count).await.unwrap();
        let names = ranked.into_iter().map(|city| city.name);
        names.collect::<Vec<_>>()
    };
    let before = names().await;
    assert_eq!(before.len(), 2);
    assert_eq!(names().await, before);
    assert_eq!(count.load(Ordering::Relaxed), 1);
    // Another process reads the same.
    let (other, _) = world.another_process().await;
    ranking(10, &world.raw, &other, &count).await.unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 1);

    let rename = |name: &str| city::ActiveModel {
        id: Set(1),
        name: Set(name.to_owned()),
        ..Default::default()
    };
    rename("edited").update(&world.db).await.unwrap();
    assert!(names().await.contains(&"edited".to_owned()));
    let txn = world.db.begin().await.unwrap();
    rename("never").update(&txn).await.unwrap();
    txn.rollback().await.unwrap();
    names().await;
    assert_eq!(count.load(Ordering::Relaxed), 2);
    world.cache.invalidate_tags(["country:10"]).await.unwrap();
    names().await;
    assert_eq!(count.load(Ordering::Relaxed), 3);
    world.cache.invalidate_tags(["country:11"]).await.unwrap();
    names().await;
    assert_eq!(count.load(Ordering::Relaxed), 3);
    ranking::clear(&world.cache).await.unwrap();
    names().await;
    assert_eq!(count.load(Ordering::Relaxed), 4);
    assert!(ranking::stats(&world.cache).hits >= 3);
    assert_eq!(ranking::stats(&world.cache).loads, 4);
}

struct Names {
    cache: Cache,
    db: DatabaseConnection,
    count: Count,
}

impl Names {
    #[memoize(cache = self.cache, depends_on_row(city::Entity = id))]
    async fn name(#[memo(skip)] &self, id: i64) -> Result<Option<String>, DbErr> {
        tick(&self.count);
        let city = city::Entity::find_by_id(id).one(&self.db).await?;
        Ok(city.map(|city| city.name))
    }

    #[memoize(cache = self.cache, key = "{text}")]
    async fn number(&self, text: &str) -> Result<u64, ParseIntError> {
        tick(&self.count);
        text.parse()
    }

    #[memoize(cache = &self.cache, absent_ttl = "10m")]
    async fn initial(#[memo(skip)] &self, text: String) -> Option<char> {
        tick(&self.count);
        text.chars().next()
    }
}

async fn nothing_is_remembered_and_an_error_is_not(world: World) {
    let names = Names {
        cache: world.cache.clone(),
        db: world.raw.clone(),
        count: Count::new(0),
    };
    let counted = || names.count.swap(0, Ordering::Relaxed);
    for _ in 0..2 {
        assert_eq!(names.name(1).await.unwrap(), None);
        assert_eq!(names.initial(String::new()).await, None);
        assert_eq!(names.initial("abc".to_owned()).await, Some('a'));
    }
    assert_eq!(counted(), 3);
    // Until it comes.
    world.seed([a_country(10, "FR")]).await;
    paris().insert(&world.db).await.unwrap();
    for _ in 0..2 {
        assert_eq!(names.name(1).await.unwrap().as_deref(), Some("PARIS"));
    }
    assert_eq!(counted(), 1);
    for _ in 0..2 {
        names.number("x").await.unwrap_err();
    }
    assert_eq!(counted(), 2);
    for _ in 0..2 {
        assert_eq!(names.number("7").await, Ok(7));
    }
    assert_eq!(counted(), 1);
    Names::number_clear(&world.cache).await.unwrap();
    assert_eq!(names.number("7").await, Ok(7));
    names.name(1).await.unwrap();
    assert_eq!(counted(), 1, "the others are still there");
    assert_eq!(Names::number_stats(&world.cache).loads, 4);
}

#[memoize(cache = cache)]
async fn slow(
    n: u64,
    #[memo(skip)] cache: &Cache,
    #[memo(skip)] count: &Count,
    #[memo(skip)] gate: &Semaphore,
) -> u64 {
    tick(count);
    let _pass = gate.acquire().await.unwrap();
    n + 1
}

async fn one_of_all_who_make_the_same_call_works(world: World) {
    let (other, _) = world.another_process().await;
    let (count, gate) = (Count::new(0), Semaphore::new(0));
    let calls = (0..500).map(|n| slow(7, [&world.cache, &other][n % 2], &count, &gate));
    let opened = async {
        until(async || count.load(Ordering::Relaxed) > 0).await;
        gate.add_permits(1);
    };
    let (answers, ()) = tokio::join!(join_all(calls), opened);
    assert!(answers.iter().all(|answer| *answer == 8));
    assert_eq!(count.into_inner(), 1);
}

#[memoize(cache = home, tags("greetings"))]
async fn greeting(
    name: &str,
    #[memo(skip)] greeter: &str,
    #[memo(skip)] home: Namespace,
) -> String {
    format!("{greeter}: {name}")
}

#[memoize(cache = home)]
async fn farewell(name: &str, #[memo(skip)] home: Namespace) -> String {
    format!("bye, {name}")
}

async fn homes_are_apart_and_cleared_apart(world: World) {
    let cache = &world.cache;
    let homes = [
        cache.namespace("one"),
        cache.namespace("two"),
        cache.namespace("one").scoped("acme"),
        cache.namespace("one").scoped("umbrella"),
        cache.scoped("acme"),
    ];
    let fill = async || {
        for (home, greeter) in homes.iter().zip(["a", "b", "c", "d", "e"]) {
            let greeted = greeting("you", greeter, home.clone()).await;
            assert_eq!(greeted, format!("{greeter}: you"), "they do not mix");
        }
    };
    // Which of them are as they were.
    let left = async || {
        let mut left = String::new();
        for home in &homes {
            let greeted = greeting("you", "-", home.clone()).await;
            left.push_str(&greeted[..1]);
        }
        for home in &homes {
            greeting::clear(home).await.unwrap();
        }
        fill().await;
        left
    };
    fill().await;
    assert_eq!(left().await, "abcde");
    greeting::clear(&homes[0]).await.unwrap();
    assert_eq!(left().await, "-b--e", "of all tenants, where none is named");
    greeting::clear(&homes[2]).await.unwrap();
    assert_eq!(left().await, "ab-de");
    homes[1].invalidate().await.unwrap();
    assert_eq!(
        left().await,
        "a-cde",
        "answers go with the namespace they are in"
    );
    cache.invalidate_tags(["greetings"]).await.unwrap();
    assert_eq!(left().await, "-----");
    // Another function with the same arguments in the same place.
    assert_eq!(farewell("you", homes[0].clone()).await, "bye, you");
    greeting::clear(&homes[0]).await.unwrap();
    let loads = farewell::stats(&homes[0]).loads;
    farewell("you", homes[0].clone()).await;
    assert_eq!(farewell::stats(&homes[0]).loads, loads);
}

// In this process.

#[memoize]
fn fibonacci(n: u64) -> u64 {
    match n {
        0 | 1 => n,
        _ => fibonacci(n - 1) + fibonacci(n - 2),
    }
}

/// Deeper than there is room.
#[memoize(capacity = 4)]
fn sum(n: u64) -> u64 {
    match n {
        0 => 0,
        _ => n + sum(n - 1),
    }
}

#[test]
fn a_function_may_call_itself() {
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for n in 87..91 {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                fibonacci(n)
            });
        }
    });
    assert_eq!(fibonacci(90), 2_880_067_194_370_816_120);
    let stats = fibonacci::stats();
    assert_eq!(
        (stats.misses, stats.entries, stats.capacity),
        (91, 91, 1_000)
    );
    assert_eq!(sum(500), 125_250);
    assert!(sum::stats().entries <= 4, "{:?}", sum::stats());
}

#[memoize]
async fn fibonacci_async(n: u64) -> u64 {
    match n {
        0 | 1 => n,
        _ => Box::pin(fibonacci_async(n - 1)).await + Box::pin(fibonacci_async(n - 2)).await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_async_function_may_call_itself() {
    let tasks = (0..4).map(|n| tokio::spawn(fibonacci_async(87 + n)));
    let answers = join_all(tasks).await;
    assert_eq!(*answers[3].as_ref().unwrap(), 2_880_067_194_370_816_120);
    assert_eq!(fibonacci_async::stats().misses, 91);
}

#[memoize]
fn parse(text: &str, #[memo(skip)] count: &Count) -> Result<Option<i64>, ParseIntError> {
    tick(count);
    if text.is_empty() {
        return Ok(None);
    }
    let number = text.parse()?;
    Ok(Some(number))
}

#[test]
fn arguments_tell_calls_apart_and_errors_are_not_remembered() {
    let count = Count::new(0);
    for _ in 0..3 {
        assert_eq!(parse("1", &count), Ok(Some(1)));
        assert_eq!(parse("2", &count), Ok(Some(2)));
        assert_eq!(parse("", &count), Ok(None));
    }
    assert_eq!(count.swap(0, Ordering::Relaxed), 3);
    for _ in 0..3 {
        parse("x", &count).unwrap_err();
    }
    assert_eq!(count.swap(0, Ordering::Relaxed), 3);
    let stats = parse::stats();
    assert_eq!((stats.hits, stats.misses, stats.entries), (6, 6, 3));
    parse::clear();
    assert_eq!(parse::stats().entries, 0);
    assert_eq!(parse("1", &count), Ok(Some(1)));
    assert_eq!(count.into_inner(), 1);
}

#[memoize(capacity = 10)]
fn bounded(n: u64) -> u64 {
    n
}

#[memoize(ttl = "10m", absent_ttl = "20ms")]
fn positive(n: i64, #[memo(skip)] count: &Count) -> Option<i64> {
    tick(count);
    (n > 0).then_some(n)
}

#[tokio::test]
async fn answers_end_by_their_number_and_their_age() {
    for n in 0..100 {
        assert_eq!(bounded(n), n);
    }
    assert!(bounded::stats().entries <= 10, "{:?}", bounded::stats());
    let count = Count::new(0);
    until(async || {
        assert_eq!(positive(-1, &count), None);
        assert_eq!(positive(1, &count), Some(1));
        count.load(Ordering::Relaxed) > 3
    })
    .await;
    assert_eq!(positive::stats().entries, 2);
}

#[memoize]
async fn gated(n: u64, #[memo(skip)] count: &Count, #[memo(skip)] gate: &Semaphore) -> u64 {
    tick(count);
    gate.acquire().await.unwrap().forget();
    n
}

#[tokio::test]
async fn who_goes_away_leaves_the_work_to_the_next() {
    let (count, gate) = (Count::new(0), Semaphore::new(0));
    let call = || gated(1, &count, &gate);
    let mut first = Box::pin(call());
    assert!(first.as_mut().now_or_never().is_none());
    let mut others = Box::pin(join_all((0..500).map(|_| call())));
    assert!(others.as_mut().now_or_never().is_none());
    assert_eq!(count.load(Ordering::Relaxed), 1);
    drop(first);
    gate.add_permits(1);
    assert!(others.await.iter().all(|answer| *answer == 1));
    assert_eq!(count.load(Ordering::Relaxed), 2);
    // Another call does not wait for this one.
    let mut waiting = Box::pin(gated(2, &count, &gate));
    assert!(waiting.as_mut().now_or_never().is_none());
    assert_eq!(call().now_or_never(), Some(1));
}

#[memoize]
async fn cleared(#[memo(skip)] count: &Count, #[memo(skip)] gate: &Semaphore) -> u64 {
    let answer = tick(count);
    gate.acquire().await.unwrap().forget();
    answer
}

#[tokio::test]
async fn what_is_worked_out_while_it_is_cleared_is_not_remembered() {
    let (count, gate) = (Count::new(0), Semaphore::new(0));
    let mut first = Box::pin(cleared(&count, &gate));
    assert!(first.as_mut().now_or_never().is_none());
    cleared::clear();
    gate.add_permits(2);
    assert_eq!(first.await, 1);
    assert_eq!(cleared(&count, &gate).await, 2);
    assert_eq!(cleared(&count, &gate).await, 2);
}

#[memoize]
fn explosive(n: u64, #[memo(skip)] count: &Count) -> u64 {
    assert!(tick(count) > 1, "the first one explodes");
    n
}

#[test]
fn a_panic_is_its_callers_and_poisons_nothing() {
    let count = Count::new(0);
    catch_unwind(|| explosive(1, &count)).unwrap_err();
    assert_eq!(explosive(1, &count), 1);
    assert_eq!(explosive(1, &count), 1);
    assert_eq!(count.into_inner(), 2);
}

type Maybe = Option<u64>;
type Parsed<T> = Result<T, ParseIntError>;

#[memoize(absent_ttl = "1h")]
fn doubled(n: u64, #[memo(skip)] count: &Count) -> Maybe {
    tick(count);
    n.checked_mul(2)
}

#[memoize]
fn number(text: &str, #[memo(skip)] count: &Count) -> Parsed<Maybe> {
    tick(count);
    text.parse().map(Some)
}

#[test]
fn a_type_is_known_whatever_it_is_called() {
    let count = Count::default();
    for _ in 0..2 {
        assert_eq!(doubled(2, &count), Some(4));
        assert_eq!(doubled(u64::MAX, &count), None);
    }
    assert_eq!(count.swap(0, Ordering::SeqCst), 2);
    for _ in 0..2 {
        assert_eq!(number("7", &count), Ok(Some(7)));
        number("seven", &count).unwrap_err();
    }
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[memoize(cache = cache, tags(slug), depends_on_row(country::Entity = id))]
async fn of_any_connection<C: ConnectionTrait>(
    slug: String,
    id: i64,
    #[memo(skip)] cache: &Cache,
    #[memo(skip)] db: &C,
    #[memo(skip)] count: &(impl AsRef<Count> + Sync),
) -> Result<String, DbErr> {
    tick(count.as_ref());
    db.execute_unprepared("SELECT 1").await?;
    Ok(format!("{slug}{id}"))
}

#[tokio::test]
async fn what_is_skipped_may_be_generic_and_a_tag_may_be_used_again() {
    let world = World::new(Sql::Sqlite, Place::Memory).await;
    let count = Arc::new(Count::default());
    for _ in 0..2 {
        let text = of_any_connection("a".to_owned(), 1, &world.cache, &world.raw, &count).await;
        assert_eq!(text.unwrap(), "a1");
    }
    world.cache.invalidate_tags(["a"]).await.unwrap();
    let text = of_any_connection("a".to_owned(), 1, &world.cache, &world.db, &count).await;
    assert_eq!(text.unwrap(), "a1");
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[memoize]
async fn failing(
    n: u64,
    #[memo(skip)] begun: &Semaphore,
    #[memo(skip)] all: &tokio::sync::Barrier,
) -> Result<u64, String> {
    // The first one fails when the others wait for it; those fail when all of them are here.
    if let Ok(first) = begun.try_acquire() {
        first.forget();
        tokio::task::yield_now().await;
    } else {
        all.wait().await;
    }
    Err(format!("{n}"))
}

#[tokio::test]
async fn who_waits_for_work_that_fails_does_not_wait_for_each_other() {
    let (begun, all) = (Semaphore::new(1), tokio::sync::Barrier::new(20));
    let calls = (0..21).map(|_| failing(1, &begun, &all));
    let answers = tokio::time::timeout(Duration::from_secs(20), join_all(calls)).await;
    let answers = answers.expect("all work at once");
    assert!(answers.iter().all(|answer| *answer == Err("1".to_owned())));
    assert_eq!(failing::stats().misses, 21);
}

#[memoize]
fn shared(n: u64, #[memo(skip)] count: &Count, #[memo(skip)] begun: &Barrier) -> u64 {
    if tick(count) == 1 {
        begun.wait();
    }
    n
}

#[test]
fn threads_that_make_the_same_call_work_once() {
    let (count, begun) = (Count::new(0), Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| shared(1, &count, &begun));
        for _ in 0..16 {
            scope.spawn(|| shared(1, &count, &begun));
        }
        begun.wait();
    });
    assert_eq!(count.into_inner(), 1);
    assert_eq!(shared::stats().misses, 1);
}

struct ProductService {
    id: u64,
    factor: f64,
}

impl ProductService {
    /// No `self` shows that it is in here.
    #[memoize(capacity = 1_000, associated)]
    fn calculate_discount(price: f64, discount_percent: f64) -> f64 {
        price * (1.0 - discount_percent / 100.0)
    }

    #[memoize(key = (self.id, price))]
    fn price(&self, price: u64) -> f64 {
        self.factor * price as f64
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Point {
    x: i64,
    y: i64,
}

impl Point {
    /// `self` is an argument like any other.
    #[memoize]
    fn turned(&self, (sin, cos): (i64, i64), mut times: u8) -> Self {
        let mut point = self.clone();
        while times > 0 {
            let Self { x, y } = point;
            point = Self {
                x: cos * x - sin * y,
                y: sin * x + cos * y,
            };
            times -= 1;
        }
        point
    }
}

struct Typed<T>(T);

impl<T: Default + ToString> Typed<T> {
    #[memoize]
    fn text(#[memo(skip)] &self) -> String {
        let Self(_) = self;
        T::default().to_string()
    }

    #[memoize(associated)]
    fn name() -> &'static str {
        std::any::type_name::<T>()
    }
}

#[test]
fn objects_do_not_share_what_they_remember() {
    assert_eq!(ProductService::calculate_discount(200.0, 25.0), 150.0);
    assert_eq!(ProductService::calculate_discount(200.0, 25.0), 150.0);
    let stats = ProductService::calculate_discount_stats();
    assert_eq!((stats.hits, stats.misses), (1, 1));
    ProductService::calculate_discount_clear();
    assert_eq!(ProductService::calculate_discount_stats().entries, 0);

    let services = [(1, 0.5), (2, 2.0)].map(|(id, factor)| ProductService { id, factor });
    for _ in 0..2 {
        assert_eq!(services[0].price(10), 5.0);
        assert_eq!(services[1].price(10), 20.0);
    }
    assert_eq!(ProductService::price_stats().misses, 2);

    let (one, two) = (Point { x: 1, y: 0 }, Point { x: 0, y: 1 });
    for _ in 0..2 {
        assert_eq!(one.turned((1, 0), 1), two);
        assert_eq!(two.turned((1, 0), 3), one);
    }
    assert_eq!(Point::turned_stats().misses, 2);

    for _ in 0..2 {
        assert_eq!(Typed(0).text(), "0");
        assert_eq!(Typed(false).text(), "false");
    }
    assert_eq!(Typed::<u8>::text_stats().misses, 2, "one for each type");
    assert_eq!((Typed::<u8>::name(), Typed::<i8>::name()), ("u8", "i8"));
}

/// Two functions of one name, each in another function.
mod within {
    use super::*;

    pub async fn one(cache: &Cache) -> String {
        #[memoize(cache = cache)]
        async fn load(n: u32, #[memo(skip)] cache: &Cache) -> String {
            format!("one {n}")
        }
        load(1, cache).await
    }

    pub async fn other(cache: &Cache) -> String {
        #[memoize(cache = cache)]
        async fn load(n: u32, #[memo(skip)] cache: &Cache) -> String {
            format!("other {n}")
        }
        load(1, cache).await
    }
}

#[tokio::test]
async fn functions_of_one_name_in_different_functions_are_apart() {
    let cache = Cache::in_memory();
    for _ in 0..2 {
        assert_eq!(within::one(&cache).await, "one 1");
        assert_eq!(within::other(&cache).await, "other 1");
    }
}
