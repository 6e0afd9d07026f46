//! The servers, the network between them and the workers, and what befalls them.

use std::path::PathBuf;
use std::time::Duration;

use fastrand::Rng;
use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, TransactionTrait};
use tokio::time::sleep;

use super::book::{Counts, Disturbance};
use super::fleet::Fleet;
use super::mutant::Mutant;
use super::record::now;
use super::table;
use super::worker::Plan;
use crate::support::{self, Database, PostgresServer, Proxy, RedisServer, Shutdown};

/// Everything that befalls, in an order that keeps a restart empty until the cache was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    WriterKilled,
    ProcessPaused,
    RedisRestartedEmpty,
    RedisSaved,
    RedisRestartedFromSnapshot,
    RedisPaused,
    RedisClientsKilled,
    RedisFlushed,
    RedisScriptsFlushed,
    RedisFull,
    RedisCut,
    RedisHalfOpen,
    RedisDelayed,
    PostgresCut,
    PostgresRestarted,
    PostgresCrashed,
}

use Fault::*;

/// At any time.
const ANY: [Fault; 16] = [
    WriterKilled,
    WriterKilled,
    WriterKilled,
    ProcessPaused,
    ProcessPaused,
    RedisPaused,
    RedisClientsKilled,
    RedisFlushed,
    RedisFlushed,
    RedisScriptsFlushed,
    RedisFull,
    RedisCut,
    RedisHalfOpen,
    RedisDelayed,
    PostgresCut,
    PostgresCut,
];

impl Fault {
    /// Each at least once, in a random order but for what the snapshot demands.
    pub fn all(rng: &mut Rng) -> Vec<Self> {
        let mut first = ANY.to_vec();
        rng.shuffle(&mut first);
        let mut last = first.split_off(first.len() / 2);
        first.extend([RedisRestartedEmpty, PostgresRestarted]);
        rng.shuffle(&mut first);
        last.extend([RedisRestartedFromSnapshot, PostgresCrashed]);
        rng.shuffle(&mut last);
        first.push(RedisSaved);
        first.extend(last);
        first
    }

    /// Of a name as it is reported.
    pub fn named(name: &str) -> Option<Self> {
        let once = [RedisRestartedEmpty, RedisSaved, RedisRestartedFromSnapshot];
        let all = once.into_iter().chain([PostgresRestarted, PostgresCrashed]);
        all.chain(ANY).find(|fault| fault.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            WriterKilled => "a writer killed",
            ProcessPaused => "a process stopped and continued",
            RedisRestartedEmpty => "Redis restarted empty",
            RedisSaved => "Redis saved",
            RedisRestartedFromSnapshot => "Redis restarted from a snapshot",
            RedisPaused => "Redis stopped and continued",
            RedisClientsKilled => "CLIENT KILL",
            RedisFlushed => "FLUSHALL",
            RedisScriptsFlushed => "SCRIPT FLUSH",
            RedisFull => "maxmemory",
            RedisCut => "connections to Redis cut",
            RedisHalfOpen => "connections to Redis half-open",
            RedisDelayed => "connections to Redis delayed",
            PostgresCut => "connections to Postgres cut",
            PostgresRestarted => "Postgres restarted",
            PostgresCrashed => "Postgres crashed",
        }
    }

    /// Whether it takes more than one thing that a write counts on.
    pub fn is_worst_amid_writes(self) -> bool {
        matches!(
            self,
            RedisRestartedEmpty | RedisRestartedFromSnapshot | PostgresCut
        )
    }

    fn loses_fences(self) -> bool {
        matches!(
            self,
            RedisRestartedEmpty | RedisRestartedFromSnapshot | RedisFlushed | RedisFull
        )
    }
}

pub struct Scene {
    pub fleet: Fleet,
    redis: RedisServer,
    postgres: PostgresServer,
    database: Database,
    /// Past the cache, and past the proxies.
    raw: DatabaseConnection,
    redis_proxy: Proxy,
    slow_redis: Proxy,
    postgres_proxy: Proxy,
    /// Holds a lock that no commit gets past.
    barrier: Option<DatabaseTransaction>,
    rows: i64,
    groups: i32,
    rng: Rng,
}

impl Scene {
    pub async fn set(rows: i64, groups: i32, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let redis = Box::pin(support::redis()).await;
        let postgres = Box::pin(support::postgres_server()).await;
        let database = postgres.database().await;
        let raw = database.connect().await;
        table::create(&raw, rows, groups)
            .await
            .expect("an empty database");
        let slow_redis = Proxy::to(redis.addr()).await;
        slow_redis.delay(Duration::from_millis(2));
        Self {
            fleet: Fleet::new(rows, rng.fork()),
            redis_proxy: Proxy::to(redis.addr()).await,
            slow_redis,
            postgres_proxy: Proxy::to(postgres.addr()).await,
            redis,
            postgres,
            database,
            raw,
            barrier: None,
            rows,
            groups,
            rng,
        }
    }

    fn plan(&self, readers: u8, writers: u8, mutant: Mutant) -> Plan {
        Plan {
            process: 0,
            seed: 0,
            redis: self.redis.url().to_owned(),
            postgres: self.database.url().to_owned(),
            readers,
            writers,
            rows: self.rows,
            groups: self.groups,
            tiered: false,
            mutant,
        }
    }

    /// Six processes that reach the servers on different ways.
    pub fn start_fleet(&mut self) {
        let plan = Plan {
            tiered: true,
            ..self.plan(3, 0, Mutant::None)
        };
        let behind_proxy = Plan {
            tiered: true,
            redis: self.redis_proxy.redis_url(),
            ..self.plan(2, 1, Mutant::None)
        };
        let slow = Plan {
            redis: self.slow_redis.redis_url(),
            ..self.plan(1, 1, Mutant::None)
        };
        let url = self.database.url();
        let postgres = url.replace(&self.postgres.addr(), &self.postgres_proxy.addr());
        assert_ne!(postgres, url);
        let behind_other_proxy = Plan {
            tiered: true,
            postgres,
            ..self.plan(1, 2, Mutant::None)
        };
        let both = self.plan(3, 1, Mutant::None);
        // Nobody in it finds out that a connection is broken before a write does.
        let writer = self.plan(0, 2, Mutant::None);
        for plan in [plan, both, writer, behind_proxy, behind_other_proxy, slow] {
            self.fleet.start(plan);
        }
    }

    /// Three processes whose stores lack a guard.
    pub fn start_mutants(&mut self, mutant: Mutant) {
        for _ in 0..3 {
            let plan = self.plan(2, 3, mutant);
            self.fleet.start(plan);
        }
    }

    /// What befalls, and waits until all writers have gone on: no write lives through two faults.
    ///
    /// `amid`: while commits have been sent and wait in the database.
    pub async fn inflict(&mut self, fault: Fault, amid: bool) {
        if amid {
            self.raise_barrier().await;
        }
        let start = now();
        self.happen(fault).await;
        self.lower_barrier().await;
        let span = (start, now());
        self.fleet.book().disturbances.push(Disturbance {
            name: fault.name(),
            span,
            loses_fences: fault.loses_fences(),
        });
        self.fleet.move_on().await;
        self.rest(30..250).await;
    }

    async fn raise_barrier(&mut self) {
        let txn = self.raw.begin().await.expect("the database answers");
        let lock = txn.execute_unprepared(table::NOBODY_COMMITS);
        lock.await.expect("commits end");
        self.barrier = Some(txn);
        self.rest(20..60).await;
    }

    /// After readers had time to do harm: some ask Redis again 200 ms after it is back.
    async fn lower_barrier(&mut self) {
        if let Some(txn) = self.barrier.take() {
            self.rest(50..500).await;
            // It may have ended with its server.
            let _ = txn.rollback().await;
        }
    }

    async fn rest(&mut self, ms: std::ops::Range<u64>) {
        sleep(Duration::from_millis(self.rng.u64(ms))).await;
    }

    async fn happen(&mut self, fault: Fault) {
        match fault {
            WriterKilled => self.kill_a_writer().await,
            ProcessPaused => {
                let process = self.fleet.any(|_| true);
                self.fleet.signal(process, "STOP");
                self.rest(300..1_500).await;
                self.fleet.signal(process, "CONT");
            }
            RedisRestartedEmpty | RedisRestartedFromSnapshot => {
                self.redis.kill().await;
                self.redis.restart().await;
            }
            RedisSaved => {
                self.redis.cli(&["SAVE"]).await;
            }
            RedisPaused => {
                self.redis.pause().await;
                self.rest(500..1_500).await;
                self.redis.resume().await;
            }
            RedisClientsKilled => {
                self.redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]).await;
            }
            RedisFlushed => {
                self.redis.cli(&["FLUSHALL"]).await;
            }
            RedisScriptsFlushed => {
                self.redis.cli(&["SCRIPT", "FLUSH"]).await;
            }
            RedisFull => self.fill_redis().await,
            RedisCut => self.redis_proxy.cut(),
            RedisHalfOpen => {
                self.redis_proxy.stall();
                self.rest(300..1_200).await;
                self.redis_proxy.cut();
                self.redis_proxy.heal().await;
            }
            RedisDelayed => {
                self.redis_proxy
                    .delay(Duration::from_millis(self.rng.u64(5..40)));
                self.rest(500..1_000).await;
                self.redis_proxy.heal().await;
            }
            PostgresCut => self.cut_postgres().await,
            PostgresRestarted => self.restart_postgres(Shutdown::Fast).await,
            PostgresCrashed => self.restart_postgres(Shutdown::Immediate).await,
        }
    }

    /// Another one takes its place when the database has done with it.
    async fn kill_a_writer(&mut self) {
        let process = self.fleet.any(|plan| plan.writers > 0);
        let plan = self.fleet.kill(process);
        let theirs = self.sessions(process).await;
        self.lower_barrier().await;
        self.until_gone(process, &theirs).await;
        self.fleet.book().gone(process, now());
        self.fleet.start(plan);
    }

    /// And waits until the database has done with what was sent before.
    async fn cut_postgres(&mut self) {
        let proxy = self.postgres_proxy.addr();
        let behind = |plan: &Plan| plan.postgres.contains(&proxy);
        let mut theirs = Vec::new();
        for process in self.fleet.processes(behind) {
            theirs.push((process, self.sessions(process).await));
        }
        self.postgres_proxy.cut();
        self.lower_barrier().await;
        for (process, sessions) in theirs {
            self.until_gone(process, &sessions).await;
        }
    }

    async fn restart_postgres(&mut self, how: Shutdown) {
        self.postgres.stop(how).await;
        self.postgres.restart().await;
    }

    /// Too little memory for what is cached, for a while.
    async fn fill_redis(&mut self) {
        let info = self.redis.cli(&["INFO", "memory"]).await;
        let info = redis::from_redis_value::<String>(info).expect("INFO is text");
        let used = info
            .lines()
            .find_map(|line| line.strip_prefix("used_memory:"));
        let used: u64 = used
            .and_then(|used| used.trim().parse().ok())
            .expect("INFO says it");
        let limit = (used - 4_096).to_string();
        let config = async |name, value: &str| {
            self.redis.cli(&["CONFIG", "SET", name, value]).await;
        };
        config("maxmemory-policy", "allkeys-lru").await;
        config("maxmemory", &limit).await;
        sleep(Duration::from_secs(1)).await;
        config("maxmemory", "0").await;
        config("maxmemory-policy", "noeviction").await;
    }

    async fn sessions(&self, process: u16) -> Vec<i32> {
        table::sessions(&self.raw, process)
            .await
            .expect("the database answers")
    }

    async fn until_gone(&self, process: u16, theirs: &[i32]) {
        while self
            .sessions(process)
            .await
            .iter()
            .any(|pid| theirs.contains(pid))
        {
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Reads of this many rows were told.
    pub fn reads(&self) -> u64 {
        self.fleet.book().counts.reads
    }

    /// Lets the writers end first, then the readers, and judges.
    pub async fn conclude(mut self, name: &str) -> (Counts, Option<PathBuf>) {
        self.fleet.rest();
        sleep(Duration::from_millis(500)).await;
        self.fleet.end().await;
        let rows = usize::try_from(self.rows).unwrap();
        let truth = table::truth(&self.raw, rows)
            .await
            .expect("the database answers");
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("history-{name}.txt"));
        let mut book = self.fleet.book();
        let kept = book.conclude(&truth, &file);
        (book.counts.clone(), kept)
    }
}
