//! Feeds that are killed: wherever one dies, what was waiting is applied by the next.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sea_orm::{ConnectionTrait, Database};
use sea_orm_cache::store::{Op, RedisOptions, RedisStore, Store};
use sea_orm_cache::testing::FaultyStore;
use sea_orm_cache::{Cache, Event, Feed};

use super::{foreign, waiting, watched};
use crate::outages::until;
use crate::world::{Place, Sql, World};

/// Where the process is to stop, and its servers.
const PLAN: &str = "FEED_WORKER";

/// Where a feed is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// It has taken changes.
    BeforeApplying,
    /// The store has them.
    BeforeDeleting,
    /// It has applied some batches, and is anywhere.
    Anywhere,
}

const PLACES: [Where; 3] = [
    Where::BeforeApplying,
    Where::BeforeDeleting,
    Where::Anywhere,
];

/// What waits, and in how many batches at least.
const PENDING: [(&str, &str, u32); 4] = [
    ("one row", "UPDATE city SET name = 'n' WHERE id = 1", 1),
    (
        "a key",
        "UPDATE city SET id = id + 1000, slug = 'k' WHERE id = 1",
        1,
    ),
    (
        "many batches",
        "UPDATE city SET rank = rank + 1, country_id = 20",
        25,
    ),
    (
        "a table",
        "INSERT INTO sea_orm_cache_outbox (table_name) VALUES ('city')",
        1,
    ),
];

/// The other side: a feed that tells what it has done and may stop there. By itself it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_process() {
    let Ok(plan) = env::var(PLAN) else { return };
    let [place, redis, database] = plan.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{plan}")
    };
    let store = RedisStore::lazy(redis, RedisOptions::default()).unwrap();
    store.ready().await.unwrap();
    let store = FaultyStore::around(std::sync::Arc::new(store) as std::sync::Arc<dyn Store>);
    let told = |event: &Event<'_>| {
        if let Event::Fed { changes, .. } = event {
            println!("\nfed {changes}");
        }
    };
    let builder = Cache::builder().store(store.clone()).observer(told);
    let cache = builder.build().await.unwrap();
    let db = cache.attach(Database::connect(database).await.unwrap());
    let feed = Feed::new(&db).batch(2).idle(Duration::from_millis(10));
    let pause = match place {
        "BeforeApplying" => Some(store.pause_before(Op::is_settle)),
        "BeforeDeleting" => Some(store.pause_after(Op::is_settle)),
        _ => None,
    };
    println!("\nready");
    let arrived = async {
        if let Some(pause) = &pause {
            pause.arrived().await;
            println!("\nstopped");
        }
        std::future::pending::<()>().await
    };
    tokio::join!(feed.run(), arrived);
}

struct Worker(Child, BufReader<std::process::ChildStdout>);

impl Worker {
    fn start(place: Where, world: &World) -> Self {
        let redis = world.redis.as_ref().unwrap().url();
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "feed::processes::a_feed_process", "--nocapture"])
            .env(PLAN, format!("{place:?} {redis} {}", world.database.url()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let told = BufReader::new(child.stdout.take().unwrap());
        Self(child, told)
    }

    /// Waits until it says so.
    fn says(&mut self, word: &str) {
        let mut line = String::new();
        while self.1.read_line(&mut line).unwrap() > 0 {
            if line.starts_with(word) {
                return;
            }
            line.clear();
        }
        panic!("it ended before it said {word:?}");
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

async fn dies(place: Where, pending: (&str, &str, u32), sql: Sql) {
    let world = World::new(sql, Place::Redis).await;
    watched(&world).await;
    let rows = (100..150).map(|n| crate::reads::city(n, Some(10), &format!("s{n}")));
    world.seed(rows).await;
    Feed::new(&world.db).drain().await.unwrap();
    world.warm().await;
    let mut worker = Worker::start(place, &world);
    worker.says("ready");
    foreign(&world, pending.1).await;
    match place {
        Where::Anywhere => {
            for _ in 0..fastrand::u32(0..pending.2) {
                worker.says("fed");
            }
            std::thread::sleep(Duration::from_micros(fastrand::u64(0..3_000)));
        }
        _ => worker.says("stopped"),
    }
    worker.kill();
    // What others have read meanwhile may be old or new.
    world.warm_anyhow().await;
    let next = Feed::new(&world.db);
    until(async || {
        next.drain().await.unwrap();
        waiting(&world).await == 0
    })
    .await;
    world
        .assert_fresh(&format!("{place:?}, {}, {sql:?}", pending.0))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_a_feed_is_killed_nothing_that_waits_is_lost() {
    for place in PLACES {
        for pending in PENDING {
            for sql in [Sql::Postgres, Sql::MariaDb, Sql::Sqlite] {
                dies(place, pending, sql).await;
            }
        }
    }
}

/// The moment of the deletion itself: a trigger on the outbox holds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_is_killed_in_its_commit_or_its_delete_loses_nothing() {
    let slow_commit = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
        'BEGIN PERFORM pg_sleep(60); RETURN NULL; END'; \
        CREATE CONSTRAINT TRIGGER slow AFTER DELETE ON sea_orm_cache_outbox \
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()";
    let quick_commit = "DROP TRIGGER slow ON sea_orm_cache_outbox";
    let slow_delete = "CREATE TRIGGER slow AFTER DELETE ON sea_orm_cache_outbox FOR EACH ROW SET @slept = SLEEP(60)";
    let held = [
        (
            Sql::Postgres,
            slow_commit,
            quick_commit,
            "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()",
        ),
        (
            Sql::MariaDb,
            slow_delete,
            "DROP TRIGGER slow",
            "SELECT count(*) AS n FROM information_schema.processlist WHERE state = 'User sleep' AND db = DATABASE()",
        ),
    ];
    for (sql, slow, quick, sleeping) in held {
        let world = World::new(sql, Place::Redis).await;
        watched(&world).await;
        world.warm().await;
        world.raw.execute_unprepared(slow).await.unwrap();
        let mut worker = Worker::start(Where::Anywhere, &world);
        worker.says("ready");
        foreign(&world, "UPDATE city SET name = 'new'").await;
        until(async || super::number(&world, sleeping).await > 0).await;
        worker.kill();
        let kill = match sql {
            Sql::Postgres => {
                "SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
            }
            _ => sleeping,
        };
        super::number(&world, kill).await;
        if let Sql::MariaDb = sql {
            let id = super::number(&world, "SELECT id AS n FROM information_schema.processlist WHERE state = 'User sleep' AND db = DATABASE()").await;
            foreign(&world, &format!("KILL {id}")).await;
        }
        foreign(&world, quick).await;
        assert_eq!(waiting(&world).await, 4, "{sql:?}");
        assert_eq!(Feed::new(&world.db).drain().await.unwrap(), 4);
        world.assert_fresh("a killed delete").await;
    }
}
