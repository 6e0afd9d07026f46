//! Named caches on a real server, and what is told of what they do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sea_orm::{ActiveModelTrait, Set};
use sea_orm_cache::{Cache, Caches, CachesConfig, Event, Policy};
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::entities::city;
use crate::reads::{country as a_country, paris};
use crate::support;
use crate::world::{Place, Sql, World};

#[tokio::test]
async fn caches_on_one_server_never_see_each_other() {
    let redis = support::redis().await;
    let url = redis.url();
    let config = CachesConfig::from_toml(&format!(
        "[caches.default]\nurl = \"{url}\"\nprefix = \"myapp\"\nttl = \"5m\"\n\
         [caches.sessions]\nurl = \"{url}\"\nttl = \"24h\"\ncodec = \"json\"\nl1 = \"1 MiB\"\n"
    ));
    let caches = Caches::from_config(&config.unwrap()).await.unwrap();
    let (main, sessions) = (caches.main(), caches.named("sessions").unwrap());
    let policy = Policy::new().tags(["tag"]).jitter(0.0);
    main.set("key", &1, &policy).await.unwrap();
    assert_eq!(sessions.get::<i32>("key").await, None);
    sessions.set("key", &2, &policy).await.unwrap();

    let life = async |cache: &Cache| cache.ttl("key").await.unwrap().as_secs();
    assert!((290..=300).contains(&life(main).await));
    assert!((86_000..=86_400).contains(&life(sessions).await));

    main.invalidate_tags(["tag"]).await.unwrap();
    main.set("other", &1, &policy).await.unwrap();
    assert_eq!(
        main.remove_matching("*").await.unwrap(),
        2,
        "the stale one is there still"
    );
    assert_eq!(main.get::<i32>("key").await, None);
    assert_eq!(sessions.get::<i32>("key").await, Some(2));
    let keys = redis.cli(&["KEYS", "*"]).await;
    let keys: Vec<String> = redis::from_redis_value(keys).unwrap();
    assert!(
        keys.iter().any(|key| key.starts_with("sessions:")),
        "{keys:?}"
    );
    assert!(keys.iter().all(|key| !key.starts_with("soc:")), "{keys:?}");
}

#[tokio::test]
async fn a_walk_tells_of_each_of_its_steps() {
    let redis = support::redis().await;
    let steps = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&steps);
    let builder = Cache::builder().redis(redis.url());
    let builder = builder.observer(move |event: &Event<'_>| {
        if let Event::Walked {
            entity,
            keys,
            matched,
        } = event
        {
            told.lock()
                .unwrap()
                .push(((*entity).to_owned(), *keys, *matched));
        }
    });
    let cache = builder.build().await.unwrap();
    let numbers = cache.namespace("numbers");
    let many = (0..5_000).map(|n| (n.to_string(), n));
    numbers.set_many(many, &Policy::new()).await.unwrap();
    assert_eq!(numbers.remove_matching("?").await.unwrap(), 10);
    let steps = steps.lock().unwrap();
    assert!(steps.len() >= 4, "{steps:?}");
    assert!(steps.iter().all(|(entity, ..)| entity == "numbers"));
    let (keys, matched) = steps
        .iter()
        .fold((0, 0), |(keys, all), step| (keys + step.1, all + step.2));
    assert!(keys >= 5_000 && matched == 10, "{steps:?}");
}

/// Counts spans by their names.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<BTreeMap<&'static str, u32>>>);

impl<S: tracing::Subscriber> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        let name = attributes.metadata().name();
        *self.0.lock().unwrap().entry(name).or_default() += 1;
    }
}

#[tokio::test]
async fn what_takes_time_is_in_a_span() {
    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = World::new(Sql::Sqlite, Place::Memory).await;
    world.seed([a_country(10, "FR")]).await;
    world.seed([paris()]).await;
    let taken = || -> BTreeMap<&str, u32> {
        let mut spans = spans.0.lock().unwrap();
        let ours = spans.iter().filter(|(name, _)| name.starts_with("cache."));
        let ours = ours.map(|(name, count)| (*name, *count)).collect();
        spans.clear();
        ours
    };
    // Who else is told is not settled before each place has been passed once, with other tests beside it.
    city::Entity::cached_get(99, &world.db).await.unwrap();
    tracing::callsite::rebuild_interest_cache();
    taken();
    city::Entity::cached_get(1, &world.db).await.unwrap();
    let miss = taken();
    assert_eq!(miss["cache.fill"], 1);
    assert!(miss["cache.request"] >= 2, "{miss:?}");
    city::Entity::cached_get(1, &world.db).await.unwrap();
    assert_eq!(taken(), [("cache.request", 1)].into());
    let mut change: city::ActiveModel = paris();
    change.name = Set("Lutetia".to_owned());
    change.update(&world.db).await.unwrap();
    assert_eq!(taken()["cache.write"], 1);
}
