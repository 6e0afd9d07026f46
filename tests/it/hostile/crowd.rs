//! Another user of the same Redis writes to our keys all the time.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use redis::aio::MultiplexedConnection;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, ConnectOptions, Database, EntityTrait};
use sea_orm_cache::{Cache, CachedConnection, QueryCache};

use crate::entities::city;
use crate::reads::city as a_city;
use crate::world::{Place, Sql, World};

const ROWS: i64 = 6;
const WRITES: u64 = 150;

/// One thing that somebody else does to one of our keys. It never puts back what it has taken away:
/// who can write a value of ours, can write an old one.
fn vandalism(rng: &mut Rng, keys: &[String], fields: &[String]) -> Vec<Vec<u8>> {
    let key = keys[rng.usize(..keys.len())].clone();
    let field = fields.get(rng.usize(..fields.len() + 3)).cloned();
    let field = field.unwrap_or_else(|| ["g", "run", "f:zz"][rng.usize(..3)].to_owned());
    let garbage: Vec<u8> = (0..rng.usize(..60)).map(|_| rng.u8(..)).collect();
    let junk = format!("junk:{:016x}", rng.u64(..));
    let words: Vec<&[u8]> = match rng.usize(..14) {
        0 => vec![b"SET", key.as_bytes(), &garbage],
        1 => vec![b"LPUSH", key.as_bytes(), &garbage],
        2 => vec![b"SADD", key.as_bytes(), &garbage],
        3..=4 => vec![b"DEL", key.as_bytes()],
        5 => vec![b"PEXPIRE", key.as_bytes(), b"3"],
        6 => vec![b"PERSIST", key.as_bytes()],
        7 => vec![b"RENAME", key.as_bytes(), junk.as_bytes()],
        8 => vec![b"HDEL", key.as_bytes(), field.as_bytes()],
        9..=11 => vec![b"HSET", key.as_bytes(), field.as_bytes(), &garbage],
        12 if rng.usize(..10) == 0 => vec![b"FLUSHALL"],
        12 if rng.usize(..10) == 0 => vec![b"SCRIPT", b"FLUSH"],
        _ => {
            // Upwards only, so that nothing returns.
            let to = keys[rng.usize(..keys.len())].clone();
            let (from, to) = (key.clone().min(to.clone()), key.max(to));
            return ["RENAME", &from, &to]
                .map(|word| word.as_bytes().to_vec())
                .into();
        }
    };
    words.into_iter().map(<[u8]>::to_vec).collect()
}

async fn vandalize(mut redis: MultiplexedConnection, done: Arc<AtomicBool>, seed: u64) -> u64 {
    let mut rng = Rng::with_seed(seed);
    let mut count = 0;
    while !done.load(Ordering::SeqCst) {
        let asked = redis::cmd("KEYS")
            .arg("soc:*")
            .query_async(&mut redis)
            .await;
        let keys: Vec<String> = asked.unwrap();
        for _ in 0..20 {
            let Some(key) = keys.get(rng.usize(..keys.len().max(1))) else {
                break;
            };
            // Fails where there is a value of another type.
            let fields = redis::cmd("HKEYS").arg(key).query_async(&mut redis).await;
            let fields: Vec<String> = fields.unwrap_or_default();
            let words = vandalism(&mut rng, &keys, &fields);
            let mut command = redis::Cmd::new();
            command.arg(&words);
            let _: redis::RedisResult<redis::Value> = command.query_async(&mut redis).await;
            count += 1;
        }
        tokio::task::yield_now().await;
    }
    count
}

/// The highest version that was acknowledged, of each row.
type Acknowledged = Arc<Vec<AtomicU64>>;

fn version(row: &city::Model) -> u64 {
    row.name.parse().unwrap()
}

/// All ways to read a row are as fresh as what was acknowledged before.
async fn check(id: i64, db: &CachedConnection, acknowledged: &Acknowledged) {
    let least = || acknowledged[id as usize - 1].load(Ordering::SeqCst);
    let at_least = least();
    let row = city::Entity::cached_get(id, db)
        .await
        .unwrap()
        .expect("there is such a row");
    assert!(
        version(&row) >= at_least,
        "row {id}: {row:?}, {at_least} was acknowledged"
    );
    assert_eq!(row.id, id);
    let at_least = least();
    let slug = format!("slug{id}");
    let row = city::Entity::cached_find_by_slug(slug.as_str(), db)
        .await
        .unwrap()
        .expect("there is such a slug");
    assert!(
        version(&row) >= at_least,
        "slug {id}: {row:?}, {at_least} was acknowledged"
    );
    let at_least = least();
    let rows = city::Entity::cached_all(db).await.unwrap();
    assert_eq!(rows.len() as i64, ROWS);
    let row = &rows[id as usize - 1];
    assert!(
        version(row) >= at_least,
        "all: {row:?}, {at_least} was acknowledged"
    );
    let at_least = least();
    let rank = row.rank;
    let rows = city::Entity::cached_find_by_rank(rank, db).await.unwrap();
    let row = rows
        .iter()
        .find(|row| row.id == id)
        .expect("ranks do not change");
    assert!(
        version(row) >= at_least,
        "rank: {row:?}, {at_least} was acknowledged"
    );
    assert_eq!(
        city::Entity::find().cached().count(db).await.unwrap(),
        ROWS as u64
    );
}

async fn write(id: i64, db: CachedConnection, acknowledged: Acknowledged) {
    for version in 1..=WRITES {
        let row = city::ActiveModel {
            id: Set(id),
            name: Set(version.to_string()),
            ..Default::default()
        };
        row.update(&db).await.unwrap();
        acknowledged[id as usize - 1].store(version, Ordering::SeqCst);
        check(id, &db, &acknowledged).await;
    }
}

async fn read(db: CachedConnection, acknowledged: Acknowledged, done: Arc<AtomicBool>) -> u64 {
    let mut rounds = 0;
    while !done.load(Ordering::SeqCst) {
        check(fastrand::i64(1..=ROWS), &db, &acknowledged).await;
        rounds += 1;
    }
    rounds
}

/// The database through a pool that waits for as long as a busy machine makes it wait.
async fn patient(world: &World, cache: &Cache) -> CachedConnection {
    let mut options = ConnectOptions::new(world.database.url());
    options
        .acquire_timeout(Duration::from_secs(60))
        .sqlx_logging(false);
    options.idle_timeout(None).max_lifetime(None);
    cache.attach(Database::connect(options).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_vandalism_no_read_fails_and_none_is_stale() {
    let world = World::new(Sql::Postgres, Place::Redis).await;
    let rows = (1..=ROWS).map(|id| city::ActiveModel {
        name: Set("0".to_owned()),
        ..a_city(id, None, &format!("slug{id}"))
    });
    world.seed(rows).await;
    let (other, _) = world.another_process().await;
    let (first, second) = (
        patient(&world, &world.cache).await,
        patient(&world, &other).await,
    );
    let acknowledged: Acknowledged = Arc::new((0..ROWS).map(|_| AtomicU64::new(0)).collect());
    let done = Arc::new(AtomicBool::new(false));
    let server = world.redis.as_ref().unwrap();
    let mut vandals = Vec::new();
    for seed in 0..2 {
        vandals.push(tokio::spawn(vandalize(
            server.connection().await,
            done.clone(),
            seed,
        )));
    }
    let readers: Vec<_> = [&first, &second, &second]
        .into_iter()
        .map(|db| tokio::spawn(read(db.clone(), acknowledged.clone(), done.clone())))
        .collect();
    let writers: Vec<_> = (1..=3)
        .map(|id| {
            let db = if id == 1 { &second } else { &first };
            tokio::spawn(write(id, db.clone(), acknowledged.clone()))
        })
        .collect();
    let mut failed = None;
    for writer in writers {
        failed = failed.or(writer.await.err());
    }
    done.store(true, Ordering::SeqCst);
    let (mut reads, mut acts) = (0, 0);
    for reader in readers {
        reads += reader.await.unwrap();
    }
    for vandal in vandals {
        acts += vandal.await.unwrap();
    }
    let stats = world.cache.stats().entity("city");
    let _ = writeln!(
        io::stderr(),
        "{acts} acts of vandalism, {reads} rounds of reads, {stats:?}"
    );
    assert!(failed.is_none(), "{failed:?}");
    assert!(
        acts > 100 && stats.errors > 0 && stats.hits > 0,
        "{stats:?}"
    );
    assert_eq!(world.cache.stats().undelivered, 0);
}
