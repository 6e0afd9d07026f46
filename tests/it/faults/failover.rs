//! Sentinel makes a replica the primary that has missed writes.
//!
//! The service has one address for the primary, as behind a TCP proxy that follows Sentinel.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use sea_orm::ActiveModelTrait;
use sea_orm_cache::{Cache, WritePolicy};

use crate::conformance::server::{Server, free_port};
use crate::outages::{database, hits_again, name, rename, until};
use crate::support::Proxy;

/// A `redis-server --sentinel` that watches one primary.
struct Sentinel {
    process: Child,
    port: u16,
    folder: PathBuf,
}

impl Sentinel {
    fn of(primary: &Server) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("sentinel-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let watched = primary.port();
        let settings = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {watched} 1\n\
             sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 5000\n",
            folder.display()
        );
        let file = folder.join("sentinel.conf");
        fs::write(&file, settings).unwrap();
        let process = Command::new("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server, which `apt-get install redis-server` provides");
        Self {
            process,
            port,
            folder,
        }
    }

    fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> Option<T> {
        let client = redis::Client::open(("127.0.0.1", self.port)).unwrap();
        let mut connection = client.get_connection().ok()?;
        let mut command = redis::Cmd::new();
        command.arg(words);
        command.query(&mut connection).ok()
    }

    /// Where it says that the primary is.
    fn primary(&self) -> Option<String> {
        let (host, port): (String, String) =
            self.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"])?;
        Some(format!("{host}:{port}"))
    }

    fn knows_a_replica(&self) -> bool {
        let all: Option<Vec<redis::Value>> = self.ask(&["SENTINEL", "REPLICAS", "main"]);
        all.is_some_and(|all| !all.is_empty())
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

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
    let sentinel = Sentinel::of(&primary);
    until(async || sentinel.knows_a_replica()).await;
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
    until(async || {
        sentinel
            .primary()
            .is_some_and(|now| now == replica.address())
    })
    .await;
    until(async || info(&replica, "replication").contains("role:master")).await;
    assert!(holds_it().await, "the old row is still there");
    front.retarget(replica.address());
    for db in [&near, &far] {
        hits_again(db, "missed by the replica").await;
    }
    until(async || rename("written after it").update(&far).await.is_ok()).await;
    assert_eq!(name(&near).await, "written after it");
}
