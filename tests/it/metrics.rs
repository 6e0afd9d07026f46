//! Metrics: that each documented one is there, and says what the counters say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use sea_orm::{ActiveModelTrait, Set};
use sea_orm_cache::testing::Fault;
use sea_orm_cache::{Cache, CacheMetrics, Policy};

use crate::entities::city;
use crate::outages::until;
use crate::reads::{country as a_country, paris};
use crate::world::{Place, Sql, World};

/// A number by its name and labels, in the order of their names.
type Numbers = BTreeMap<(String, Vec<String>), f64>;

fn numbers(snapshotter: &Snapshotter) -> Numbers {
    let all = snapshotter.snapshot().into_vec().into_iter();
    let numbers = all.map(|(key, _, _, value)| {
        let (_, key) = key.into_parts();
        let labels = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()));
        let mut labels: Vec<String> = labels.collect();
        labels.sort();
        let value = match value {
            DebugValue::Counter(n) => n as f64,
            DebugValue::Gauge(n) => n.into_inner(),
            DebugValue::Histogram(all) => all.len() as f64,
        };
        ((key.name().to_owned(), labels), value)
    });
    numbers.collect()
}

#[tokio::test]
async fn they_say_what_the_counters_say_and_each_that_is_documented_is_there() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let world = World::new(Sql::Sqlite, Place::Tiered).await;
    world.seed([a_country(10, "FR")]).await;
    world.seed([paris()]).await;
    let store = world.store.clone();
    let builder = Cache::builder()
        .store(store.clone())
        .prefix("metrics")
        .l1(1 << 20);
    let metrics = CacheMetrics::new("it");
    assert!(format!("{metrics:?}").contains("it"));
    // Observers do not replace each other.
    let builder = builder
        .observer(metrics)
        .observer(|_: &sea_orm_cache::Event<'_>| {});
    let cache = builder.build().await.unwrap();
    let db = cache.attach(world.raw.clone());

    for id in [1, 1, 99, 99] {
        city::Entity::cached_get(id, &db).await.unwrap();
    }
    let linearizable = db.with_consistency(sea_orm_cache::Consistency::Linearizable);
    city::Entity::cached_get(1, &linearizable).await.unwrap();
    let rename = city::ActiveModel {
        id: Set(1),
        name: Set("new".to_owned()),
        ..Default::default()
    };
    rename.update(&db).await.unwrap();
    let values = cache.namespace("values");
    values.set("k", &1, &Policy::new()).await.unwrap();
    store.inject(Fault::refuse());
    assert!(values.set("k", &2, &Policy::new()).await.is_err());
    store.heal();
    until(async || cache.stats().undelivered == 0).await;

    let (numbers, stats) = (numbers(&snapshotter), cache.stats());
    let get = |name: &str, labels: &[&str]| {
        let mut labels: Vec<String> = labels.iter().map(|label| label.to_string()).collect();
        labels.push("cache=it".to_owned());
        labels.sort();
        numbers[&(format!("sea_orm_cache_{name}"), labels)]
    };
    let city = stats.entity("city");
    let of_city = |name: &str| get(name, &["entity=city"]) as u64;
    let lookups =
        |tier: &str, outcome: &str| get("lookups_total", &["entity=city", tier, outcome]) as u64;
    assert!(
        city.l1_hits > 0 && city.hits > city.l1_hits && city.misses > 0,
        "{city:?}"
    );
    assert_eq!(lookups("tier=l1", "outcome=hit"), city.l1_hits);
    assert_eq!(lookups("tier=l2", "outcome=hit"), city.hits - city.l1_hits);
    assert_eq!(lookups("tier=l2", "outcome=miss"), city.misses);
    assert_eq!(of_city("absent_hits_total"), city.absent_hits);
    assert_eq!(of_city("loads_total"), city.loads);
    assert_eq!(of_city("load_seconds"), city.loads);
    assert!(city.slowest_load > Duration::ZERO && city.load_time >= city.slowest_load);
    assert_eq!(of_city("invalidations_total"), city.invalidations);
    let fills = get("fills_total", &["entity=city", "outcome=stored"]);
    assert_eq!(fills as u64, city.fills);
    assert_eq!(get("round_trip_seconds", &[]) as u64, stats.round_trips);
    assert!(get("store_errors_total", &[]) > 0.0);
    assert_eq!(get("undelivered_keys", &[]), 0.0);
    assert_eq!(get("degraded", &[]), 0.0);

    // Those in the table of the documentation are those that there are.
    let source = include_str!("../../src/observe/metrics.rs");
    let rows = source
        .lines()
        .filter_map(|line| line.strip_prefix("/// | `sea_orm_cache_"));
    let documented: BTreeSet<String> = rows
        .map(|row| format!("sea_orm_cache_{}", row.split('`').next().unwrap()))
        .collect();
    let there: BTreeSet<String> = numbers.keys().map(|(name, _)| name.clone()).collect();
    assert_eq!(documented, there);
    assert_eq!(documented.len(), 20);
}

#[tokio::test]
async fn they_are_rendered_for_prometheus() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let metrics = CacheMetrics::new("it");
    let cache = Cache::builder().observer(metrics).build().await.unwrap();
    assert_eq!(cache.get::<i32>("k").await, None);
    let text = handle.render();
    let line = "sea_orm_cache_lookups_total{cache=\"it\",entity=\"default\",tier=\"l2\",outcome=\"miss\"} 1";
    assert!(text.contains(line), "{text}");
    assert!(
        text.contains("# HELP sea_orm_cache_lookups_total distinct keys asked for"),
        "{text}"
    );
}
