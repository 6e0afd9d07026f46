//! A cluster whose nodes die, whose slots move and which grows, under load.

use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::Value;
use sea_orm::{ActiveModelTrait, DatabaseConnection};
use sea_orm_cache::Cache;

use super::traffic::{ROWS, Traffic, empty_database};
use crate::entities::city;
use crate::outages::{database, hits_again, name, rename, until};
use crate::support::{self, Cluster, Node};

/// What a user gets who sets nothing.
const DEFAULT: Duration = Duration::from_millis(250);
/// Where a slow machine must not pass for a failure.
const PATIENT: Duration = Duration::from_secs(10);

async fn traffic(cluster: &Cluster, raw: &DatabaseConnection, timeout: Duration) -> Traffic {
    let urls = cluster.urls();
    let builder = || {
        Cache::builder()
            .cluster(urls.clone())
            .command_timeout(timeout)
    };
    let traffic = Box::pin(Traffic::begin(raw, builder)).await;
    traffic.goes_on(500).await;
    traffic
}

async fn slot_of(cluster: &Cluster, key: &str) -> u16 {
    let answer = cluster.nodes()[0].cli(&["CLUSTER", "KEYSLOT", key]).await;
    redis::from_redis_value(answer).unwrap()
}

async fn keys_on(cluster: &Cluster, node: usize) -> i64 {
    redis::from_redis_value(cluster.nodes()[node].cli(&["DBSIZE"]).await).unwrap()
}

/// Has a replica take over from its primary. Under load the two may not come to an end in time, and give it up.
async fn promote(replica: &Node) {
    until(async || {
        // An error says that it has happened meanwhile.
        replica.text(&["CLUSTER", "FAILOVER"]).await;
        for _ in 0..30 {
            if replica.is_primary().await {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rows_of_one_entity_lie_on_all_nodes() {
    let cluster = support::cluster().await;
    let (_database, raw) = empty_database().await;
    let traffic = traffic(&cluster, &raw, PATIENT).await;
    traffic.end("spread").await;
    for node in 0..3 {
        let keys = keys_on(&cluster, node).await;
        assert!((ROWS / 8..ROWS).contains(&keys), "{keys} keys on {node}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_under_load_costs_hits_and_nothing_else() {
    let cluster = Cluster::start().await;
    let (_database, raw) = empty_database().await;
    let traffic = traffic(&cluster, &raw, DEFAULT).await;
    for lost in [0, 1] {
        cluster.nodes()[lost].kill();
        let hits = traffic.hits();
        traffic.goes_on(500).await;
        cluster.successor(lost).await;
        println!("{} hits during the failover", traffic.hits() - hits);
        traffic.goes_on(500).await;
        cluster.nodes()[lost].restart();
        cluster.whole().await;
    }
    traffic.end("failover").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_was_frozen_and_replaced_is_not_believed_when_it_wakes() {
    let cluster = Cluster::start().await;
    let (_database, raw) = empty_database().await;
    let traffic = traffic(&cluster, &raw, DEFAULT).await;
    cluster.nodes()[0].pause();
    cluster.successor(0).await;
    traffic.goes_on(500).await;
    cluster.nodes()[0].resume();
    cluster.whole().await;
    traffic.goes_on(500).await;
    traffic.end("frozen").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_promoted_by_hand_takes_over_under_load() {
    let cluster = Cluster::start().await;
    let (_database, raw) = empty_database().await;
    let traffic = traffic(&cluster, &raw, DEFAULT).await;
    for node in [3, 0] {
        let node = &cluster.nodes()[node];
        promote(node).await;
        cluster.whole().await;
        traffic.goes_on(500).await;
    }
    traffic.end("promoted").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_under_load_cost_nothing() {
    let cluster = Cluster::start().await;
    let (_database, raw) = empty_database().await;
    let traffic = traffic(&cluster, &raw, PATIENT).await;
    let before = traffic
        .caches()
        .map(|cache| cache.stats().entity("city").errors);
    let before: u64 = before.sum();
    let mut moved = 0;
    let names = (1..=ROWS).map(|id| format!("soc:main:city:pk:{id}"));
    for key in names.chain(["soc:main:city:gen:rows".into(), "soc:root".into()]) {
        let slot = slot_of(&cluster, &key).await;
        let owner = cluster.owner(slot).await.port();
        let primaries = cluster.nodes()[..3].iter();
        let to = primaries
            .filter(|node| node.port() != owner)
            .last()
            .unwrap();
        moved += cluster
            .move_slot(slot, to, async || {
                tokio::time::sleep(Duration::from_millis(5)).await
            })
            .await;
    }
    traffic.goes_on(500).await;
    let errors: u64 = traffic
        .caches()
        .map(|cache| cache.stats().entity("city").errors)
        .sum();
    println!("{moved} keys moved, {} batches failed", errors - before);
    assert!(moved as i64 > ROWS / 2, "{moved} live keys moved");
    let failures = traffic.failures();
    assert_eq!(
        errors - before,
        0,
        "no batch fails because a slot moves: {failures:?}"
    );
    assert_eq!(
        traffic.counts().refused.load(Ordering::SeqCst),
        0,
        "{failures:?}"
    );
    traffic.end("migration").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_that_gets_slots_is_found_under_load() {
    let mut cluster = Cluster::start().await;
    let (_database, raw) = empty_database().await;
    let traffic = traffic(&cluster, &raw, PATIENT).await;
    cluster.grow().await;
    let new = cluster.nodes().last().unwrap();
    for id in 1..=8 {
        let slot = slot_of(&cluster, &format!("soc:main:city:pk:{id}")).await;
        cluster
            .move_slot(slot, new, async || traffic.goes_on(20).await)
            .await;
    }
    traffic.goes_on(500).await;
    traffic.end("growth").await;
    let keys: i64 = redis::from_redis_value(new.cli(&["DBSIZE"]).await).unwrap();
    assert!(keys >= 8, "{keys} keys on the new node");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_missed_is_served_by_nobody() {
    let cluster = Cluster::start().await;
    let (_database, raw) = database().await;
    let process = async || {
        let cache = Cache::builder().cluster(cluster.urls()).build();
        cache.await.unwrap().attach(raw.clone())
    };
    let (near, far) = (process().await, process().await);
    hits_again(&near, "PARIS").await;
    let slot = slot_of(&cluster, "soc:main:city:pk:1").await;
    let port = cluster.owner(slot).await.port();
    let lost = cluster.nodes().iter().position(|node| node.port() == port);
    let lost = lost.unwrap();
    let replica = &cluster.nodes()[lost + 3];
    let holds_it = async || {
        let slot = slot.to_string();
        let question = ["CLUSTER", "COUNTKEYSINSLOT", &slot];
        replica.text(&question).await == "1"
    };
    until(holds_it).await;
    // Nothing that is written from now on reaches the replica.
    let primary = &cluster.nodes()[lost];
    let refuse = ["ACL", "SETUSER", "default", "-psync", "-sync"];
    primary.cli(&refuse).await;
    primary.cli(&["CLIENT", "KILL", "TYPE", "replica"]).await;
    let info = async || replica.text(&["INFO", "replication"]).await;
    until(async || info().await.contains("master_link_status:down")).await;
    rename("missed by the replica").update(&near).await.unwrap();
    primary.kill();
    cluster.successor(lost).await;
    assert!(holds_it().await, "the old row is still there");
    for db in [&near, &far] {
        hits_again(db, "missed by the replica").await;
    }
}

/// A process with an in-process tier, and one without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_in_process_tier_hears_of_every_node_and_of_slots_that_moved() {
    let cluster = Cluster::start().await;
    let (_database, raw) = database().await;
    let builder = || Cache::builder().cluster(cluster.urls());
    let near = builder().l1(1 << 20).build().await.unwrap();
    let near = near.attach(raw.clone());
    let far = builder().build().await.unwrap().attach(raw);
    let l1_hit = async |expected: &str| {
        until(async || {
            let hits = || near.cache().stats().entity("city").l1_hits;
            let before = hits();
            assert_eq!(name(&near).await, expected);
            hits() > before
        })
        .await;
    };
    l1_hit("PARIS").await;
    let change = async |new: &str| {
        until(async || rename(new).update(&far).await.is_ok()).await;
        until(async || name(&near).await == new).await;
        l1_hit(new).await;
    };
    change("first").await;

    let slot = slot_of(&cluster, "soc:main:city:pk:1").await;
    let owner = cluster.owner(slot).await;
    let mut others = cluster.nodes()[..3].iter();
    let to = others.find(|node| node.port() != owner.port()).unwrap();
    assert!(cluster.move_slot(slot, to, async || ()).await >= 1);
    change("after the slot moved").await;

    // Connections stay open: nobody tells that this node is no primary any more.
    let demoted = cluster
        .nodes()
        .iter()
        .position(|node| node.port() == to.port());
    let replica = &cluster.nodes()[demoted.unwrap() + 3];
    promote(replica).await;
    change("after a failover by hand").await;
    assert_eq!(to.cli(&["PING"]).await, Value::SimpleString("PONG".into()));
}

#[tokio::test]
async fn a_cluster_that_is_none_is_told_apart() {
    let server = support::redis().await;
    let error = Cache::builder().cluster([server.url()]).build().await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("cluster support disabled"), "{error}");
    let error = Cache::builder().cluster(Vec::<String>::new()).build().await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("no node of the cluster is named"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_that_is_known_is_enough_and_may_be_a_replica() {
    let cluster = support::cluster().await;
    let (_database, raw) = database().await;
    let seeds = ["redis://127.0.0.1:1/".to_owned(), cluster.nodes()[4].url()];
    let cache = Cache::builder().cluster(seeds).build().await.unwrap();
    let db = cache.attach(raw);
    hits_again(&db, "PARIS").await;
    let cities = city::Entity::cached_get_many([1, 2, 3, 4, 5, 6], &db).await;
    assert_eq!(cities.unwrap().len(), 6);
}
