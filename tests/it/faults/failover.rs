//! Sentinel makes a replica the primary that has missed writes.
//!
//! The service has one address for the primary, as behind a TCP proxy that follows Sentinel.

use sea_orm::ActiveModelTrait;
use sea_orm_cache::{Cache, WritePolicy};

use crate::conformance::server::Server;
use crate::outages::{database, hits_again, name, rename, until};
use crate::support::{Proxy, Sentinel};

fn info(server: &Server, section: &str) -> String {
    redis::cmd("INFO")
        .arg(section)
        .query(&mut server.raw())
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_to_a_replica_that_missed_writes_serves_nothing_stale() {
    let mut primary = Server::start();
    let link = Proxy::to(primary.address()).await;
    let port = link.addr().rsplit_once(':').unwrap().1.to_owned();
    let replica = Server::start_with(&["--replicaof", "127.0.0.1", &port]);
    until(async || info(&replica, "replication").contains("master_link_status:up")).await;
    let sentinel = Sentinel::of(primary.port()).await;
    until(async || sentinel.knows_a_replica().await).await;
    let front = Proxy::to(primary.address()).await;
    let (_database, raw) = database().await;
    let builder = || {
        Cache::builder()
            .write_policy(WritePolicy::Strict)
            .redis(front.redis_url())
    };
    let near = builder().build().await.unwrap().attach(raw.clone());
    let far = builder().build().await.unwrap().attach(raw);

    hits_again(&near, "PARIS").await;
    let holds_it = async || {
        let key = redis::cmd("EXISTS")
            .arg("soc:main:city:pk:1")
            .query(&mut replica.raw());
        key.unwrap_or(0) == 1
    };
    until(holds_it).await;
    link.stall();
    rename("missed by the replica").update(&near).await.unwrap();
    hits_again(&far, "missed by the replica").await;

    primary.kill();
    assert_eq!(
        name(&near).await,
        "missed by the replica",
        "without any Redis"
    );
    until(async || sentinel.primary().await == Some(replica.address())).await;
    until(async || info(&replica, "replication").contains("role:master")).await;
    assert!(holds_it().await, "the old row is still there");
    front.retarget(replica.address());
    for db in [&near, &far] {
        hits_again(db, "missed by the replica").await;
    }
    until(async || rename("written after it").update(&far).await.is_ok()).await;
    assert_eq!(name(&near).await, "written after it");
}
