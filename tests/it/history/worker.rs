//! One process of the many: a cache handle and a pool of its own, tasks that read and tasks that write.

use std::env;
use std::fmt;
use std::io::{self, BufRead, BufWriter, Stdout, Write};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use sea_orm::{ConnectOptions, Database};
use sea_orm_cache::store::{RedisOptions, RedisStore, Store};
use sea_orm_cache::{Cache, CachedConnection, WritePolicy};
use tokio::task::JoinSet;

use super::mutant::{Broken, Mutant};
use super::reader::Reader;
use super::record::{OpId, Record};
use super::table::session_name;
use super::writer::Writer;

/// Holds a worker's [`Plan`].
pub const PLAN: &str = "HISTORY_WORKER";

/// No more writes, if a worker reads this line; and the end, if it reads another one or none.
pub const REST: &str = "rest";

/// How old what an in-process tier answers may be.
pub const MAX_SILENCE: Duration = Duration::from_millis(300);

/// What a worker is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub process: u16,
    pub seed: u64,
    pub redis: String,
    pub postgres: String,
    pub readers: u8,
    pub writers: u8,
    pub rows: i64,
    pub groups: i32,
    /// Whether it has an in-process tier.
    pub tiered: bool,
    pub mutant: Mutant,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            process,
            seed,
            redis,
            postgres,
            readers,
            writers,
            rows,
            groups,
            tiered,
            mutant,
        } = self;
        write!(
            f,
            "{process} {seed} {redis} {postgres} {readers} {writers} {rows} {groups} {tiered} {mutant}"
        )
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        fn next<'w, T: FromStr>(words: &mut impl Iterator<Item = &'w str>) -> Result<T, String> {
            let word = words.next().ok_or("a word is missing")?;
            word.parse().map_err(|_| format!("what is {word}?"))
        }
        let words = &mut text.split(' ');
        Ok(Self {
            process: next(words)?,
            seed: next(words)?,
            redis: next(words)?,
            postgres: next(words)?,
            readers: next(words)?,
            writers: next(words)?,
            rows: next(words)?,
            groups: next(words)?,
            tiered: next(words)?,
            mutant: next(words)?,
        })
    }
}

/// Where a worker's tasks tell what they do.
pub struct Log {
    lines: Mutex<BufWriter<Stdout>>,
    writing: AtomicBool,
    running: AtomicBool,
}

impl Log {
    /// It may be told some time.
    pub fn tell(&self, record: &Record) {
        writeln!(self.lines.lock().unwrap(), "{record}").expect("the parent listens");
    }

    /// It is told once this returns.
    pub fn tell_now(&self, record: &Record) {
        let mut lines = self.lines.lock().unwrap();
        writeln!(lines, "{record}").expect("the parent listens");
        lines.flush().expect("the parent listens");
    }

    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    pub fn is_writing(&self) -> bool {
        self.writing.load(Ordering::Relaxed)
    }
}

/// The other side of the history tests; by itself it does nothing.
#[test]
fn a_worker_process() {
    let Ok(plan) = env::var(PLAN) else { return };
    let plan: Plan = plan.parse().unwrap();
    let log = Arc::new(Log {
        lines: Mutex::new(BufWriter::with_capacity(1 << 14, io::stdout())),
        writing: AtomicBool::new(true),
        running: AtomicBool::new(true),
    });
    // libtest has begun a line.
    writeln!(log.lines.lock().unwrap()).unwrap();
    let listener = Arc::clone(&log);
    std::thread::spawn(move || obey(&listener));
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(work(&plan, &log));
    log.lines.lock().unwrap().flush().unwrap();
}

/// Ends with the parent, whatever this process is doing then.
fn obey(log: &Log) {
    for line in io::stdin().lock().lines() {
        match line.as_deref() {
            Ok(REST) => log.writing.store(false, Ordering::Relaxed),
            _ => {
                log.writing.store(false, Ordering::Relaxed);
                log.running.store(false, Ordering::Relaxed);
            }
        }
    }
    std::process::exit(1);
}

async fn work(plan: &Plan, log: &Arc<Log>) {
    let cache = cache(plan).await;
    let db = cache.attach(pool(plan).await);
    let mut rng = Rng::with_seed(plan.seed);
    let mut tasks = JoinSet::new();
    for task in 0..plan.writers {
        let first = OpId::first(plan.process, task);
        let writer = Writer::new(plan, first, db.clone(), log.clone(), rng.fork());
        tasks.spawn(writer.run());
    }
    for _ in 0..plan.readers {
        tasks.spawn(Reader::new(plan, db.clone(), log.clone(), rng.fork()).run());
    }
    tasks.join_all().await;
    while log.is_running() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let stats = cache.stats().entity("history_item");
    log.tell_now(&Record::Counted {
        hits: stats.hits,
        l1_hits: stats.l1_hits,
        misses: stats.misses,
    });
}

/// Everything as by default but the policy, because an `available` write makes no promise while Redis cannot be
/// reached; and fences, which stay for their whole life when Postgres fails, live half as long.
async fn cache(plan: &Plan) -> Cache {
    let builder = Cache::builder().write_policy(WritePolicy::Strict);
    let builder = builder.fence_ttl(Duration::from_secs(5));
    let builder = match plan.mutant {
        Mutant::None if plan.tiered => {
            let tiered = builder.redis(&plan.redis).l1(8 << 20);
            tiered.max_silence(MAX_SILENCE)
        }
        Mutant::None => builder.redis(&plan.redis),
        mutant => {
            let redis = RedisStore::connect(&plan.redis, RedisOptions::default()).await;
            let store: Arc<dyn Store> =
                Arc::new(Broken::new(redis.expect("Redis answers"), mutant));
            builder.store(store)
        }
    };
    // A worker may be started while Redis is away.
    builder.lazy().build().await.expect("the settings fit")
}

async fn pool(plan: &Plan) -> sea_orm::DatabaseConnection {
    let url = format!(
        "{}?application_name={}",
        plan.postgres,
        session_name(plan.process)
    );
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(u32::from(plan.readers + plan.writers) + 1)
        .connect_timeout(Duration::from_secs(10))
        .acquire_timeout(Duration::from_secs(10))
        .sqlx_logging(false);
    Database::connect(options)
        .await
        .expect("the database answers")
}

/// A pause between two operations.
pub async fn pause(rng: &mut Rng, most: Duration) {
    let micros = u64::try_from(most.as_micros()).unwrap();
    tokio::time::sleep(Duration::from_micros(rng.u64(..=micros))).await;
}

/// A connection to read and write through, for both entities.
pub type Db = CachedConnection;
