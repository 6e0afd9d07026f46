//! Somebody else's data, or damaged data, under our keys in Redis.

use std::sync::{Arc, Mutex};

use redis::Value;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, EntityTrait, PaginatorTrait};
use sea_orm_cache::store::Op;
use sea_orm_cache::{Cache, CachedConnection, Event, QueryCache};

use crate::entities::city;
use crate::reads::seed;
use crate::world::{Place, Sql, World};

struct Victim {
    world: World,
    db: CachedConnection,
    cache: Cache,
    /// The keys of what was found to be damaged.
    corrupt: Arc<Mutex<Vec<String>>>,
}

impl Victim {
    async fn new() -> Self {
        let world = World::new(Sql::Sqlite, Place::Redis).await;
        seed(&world).await;
        let corrupt: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = corrupt.clone();
        let cache = Cache::builder()
            .store(world.store.clone())
            .observer(move |event: &Event<'_>| {
                if let Event::Corrupt { key, .. } = event {
                    log.lock().unwrap().push(key.to_string());
                }
            })
            .build()
            .await
            .unwrap();
        let db = cache.attach(world.database.connect().await);
        Self {
            world,
            db,
            cache,
            corrupt,
        }
    }

    async fn redis(&self, words: &[&[u8]]) -> Value {
        let server = self.world.redis.as_ref().unwrap();
        let mut connection = server.connection().await;
        let mut command = redis::Cmd::new();
        command.arg(words);
        command
            .query_async(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    async fn texts(&self, words: &[&[u8]]) -> Vec<String> {
        let Value::Array(all) = self.redis(words).await else {
            panic!("{words:?}")
        };
        all.into_iter()
            .map(|one| redis::from_redis_value(one).unwrap())
            .collect()
    }

    async fn keys(&self) -> Vec<String> {
        let mut keys = self.texts(&[b"KEYS", b"*"]).await;
        keys.sort();
        keys
    }

    /// Reads by key, by index, all and the count: what the database holds.
    async fn reads_are_right(&self, what: &str) {
        for id in [1, 2, 99] {
            let cached = city::Entity::cached_get(id, &self.db).await.unwrap();
            let row = city::Entity::find_by_id(id)
                .one(&self.world.raw)
                .await
                .unwrap();
            assert_eq!(cached.as_deref(), row.as_ref(), "{what}");
        }
        let found = city::Entity::cached_find_by_slug("paris", &self.db)
            .await
            .unwrap();
        let rows = city::Entity::find().all(&self.world.raw).await.unwrap();
        let paris = rows.iter().find(|row| row.slug == "paris");
        assert_eq!(found.as_deref(), paris, "{what}");
        let cached = city::Entity::cached_all(&self.db).await.unwrap();
        assert!(
            cached.iter().map(|row| &**row).eq(rows.iter()),
            "{what}: {cached:?}"
        );
        let count = city::Entity::find().cached().count(&self.db).await.unwrap();
        assert_eq!(
            count,
            city::Entity::find().count(&self.world.raw).await.unwrap(),
            "{what}"
        );
    }

    /// Until all is hits again.
    async fn heals(&self, what: &str) {
        for _ in 0..6 {
            let misses = self.misses();
            self.reads_are_right(what).await;
            if self.misses() == misses {
                return;
            }
        }
        panic!("{what}: it has not healed");
    }

    fn misses(&self) -> u64 {
        self.cache.stats().entity("city").misses
    }

    async fn writes_are_seen(&self, what: &str) {
        let name = format!("{:x}", fastrand::u64(..));
        let row = city::ActiveModel {
            id: Set(1),
            name: Set(name),
            ..Default::default()
        };
        row.update(&self.db).await.unwrap();
        self.reads_are_right(what).await;
    }
}

/// What a value of each other type is made with.
const FOREIGN: &[&[&str]] = &[
    &["SET", "", "x"],
    &["LPUSH", "", "x"],
    &["SADD", "", "x"],
    &["ZADD", "", "1", "x"],
    &["XADD", "", "*", "a", "b"],
    &["SETBIT", "", "7", "1"],
    &["PFADD", "", "x"],
];

#[tokio::test]
async fn values_of_other_types_under_every_key_are_misses_and_are_wiped() {
    let victim = Victim::new().await;
    victim.heals("at first").await;
    let keys = victim.keys().await;
    assert!(
        keys.len() >= 9 && keys.contains(&"soc:root".to_owned()),
        "{keys:?}"
    );
    for key in &keys {
        for command in FOREIGN {
            let what = format!("{} {key}", command[0]);
            for read_first in [true, false] {
                victim.redis(&[b"DEL", key.as_bytes()]).await;
                let words: Vec<&[u8]> = command
                    .iter()
                    .map(|word| {
                        if word.is_empty() {
                            key.as_bytes()
                        } else {
                            word.as_bytes()
                        }
                    })
                    .collect();
                victim.redis(&words).await;
                if read_first {
                    victim.reads_are_right(&what).await;
                }
                victim.writes_are_seen(&what).await;
                victim.heals(&what).await;
            }
        }
    }
    let corrupt = victim.corrupt.lock().unwrap();
    for key in keys.iter().filter(|key| *key != "soc:root") {
        assert!(corrupt.contains(key), "no event told of {key}");
    }
    assert_eq!(victim.cache.stats().undelivered, 0);
}

/// Bytes that are no token, no deadline and no value.
const GARBAGE: &[&[u8]] = &[
    b"",
    b"x",
    b"0",
    b"-1",
    b"0123456789abcdef",
    b"0000000000000000",
    b"0123456789abcdeg",
    b"0123456789abcdef:",
    b"0123456789abcdef:x",
    b":1",
    b"99999999999999999999999999",
    b"1e99",
    b"nan",
    b"\xff\xfe\x00",
    &[0xFF; 64],
    &[0; 64],
];

#[tokio::test]
async fn garbage_in_every_field_is_a_miss_and_no_invalidation_is_lost() {
    let victim = Victim::new().await;
    victim.heals("at first").await;
    for key in victim.keys().await {
        let mut fields = victim.texts(&[b"HKEYS", key.as_bytes()]).await;
        fields.extend(
            [
                "l:0000000000000001",
                "f:0000000000000001",
                "f:",
                "g",
                "run",
                "v:",
                "",
                "x",
            ]
            .map(str::to_owned),
        );
        fields.extend(
            fields
                .clone()
                .iter()
                .filter(|f| f.starts_with("v:"))
                .map(|f| f.replace("v:", "l:")),
        );
        for field in fields {
            for garbage in GARBAGE {
                // It is a generation's name, and a fence of the past.
                let what = format!("{key} {field} {:?}", String::from_utf8_lossy(garbage));
                victim
                    .redis(&[b"HSET", key.as_bytes(), field.as_bytes(), garbage])
                    .await;
                victim.reads_are_right(&what).await;
            }
            victim
                .redis(&[b"HSET", key.as_bytes(), field.as_bytes(), b"x"])
                .await;
            victim.writes_are_seen(&format!("{key} {field}")).await;
            victim.heals(&format!("{key} {field}")).await;
        }
    }
    assert_eq!(victim.cache.stats().undelivered, 0);
}

/// A number of ten bytes, far more than there are.
const HUGE: &[u8] = &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];

/// Values that are none, made of one that is. What stands behind the first 25 bytes (seal, root,
/// stamp, kind) is read only where those are right.
fn damaged(value: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = value.to_vec();
    let at = rng.usize(..bytes.len());
    match rng.usize(..6) {
        0 => bytes.truncate(at),
        1 => bytes[8 + at % 17] ^= 1 << rng.usize(..8),
        2 => bytes.extend_from_slice(&value[at..]),
        3 => drop(bytes.splice(25.., HUGE.to_vec())),
        4 => bytes = (0..at).map(|_| rng.u8(..)).collect(),
        _ => drop(bytes.pop()),
    }
    bytes
}

#[tokio::test]
async fn damaged_bytes_of_every_kind_of_value_are_misses_and_heal() {
    let victim = Victim::new().await;
    victim.heals("at first").await;
    let mut rng = fastrand::Rng::with_seed(7);
    let mut tried = 0;
    for key in victim.keys().await {
        let fields = victim.texts(&[b"HKEYS", key.as_bytes()]).await;
        for field in fields.iter().filter(|field| field.starts_with("v:")) {
            for _ in 0..60 {
                let Value::BulkString(value) = victim
                    .redis(&[b"HGET", key.as_bytes(), field.as_bytes()])
                    .await
                else {
                    panic!("{key} has healed, and holds no value")
                };
                let bytes = damaged(&value, &mut rng);
                let what = format!("{key} {bytes:02x?}");
                victim
                    .redis(&[b"HSET", key.as_bytes(), field.as_bytes(), &bytes])
                    .await;
                let misses = victim.misses();
                victim.reads_are_right(&what).await;
                let missed = victim.misses() - misses;
                assert!((1..=2).contains(&missed), "{what}: {missed} misses");
                let misses = victim.misses();
                victim.reads_are_right(&what).await;
                assert_eq!(victim.misses(), misses, "{what}: it has healed");
                tried += 1;
            }
        }
    }
    assert!(tried >= 300, "{tried}");
    assert!(victim.corrupt.lock().unwrap().len() > tried / 3);
}

#[tokio::test]
async fn a_load_whose_lease_was_moved_to_another_key_is_not_joined() {
    let victim = Victim::new().await;
    let get = |id: i64| {
        let db = victim.db.clone();
        tokio::spawn(async move { city::Entity::cached_get(id, &db).await.unwrap().unwrap() })
    };
    let gate = victim.world.store.pause_before(Op::is_fill);
    let first = get(1);
    gate.arrived().await;
    victim
        .redis(&[b"RENAME", b"soc:main:city:pk:1", b"soc:main:city:pk:2"])
        .await;
    let before = victim.cache.stats().round_trips;
    let second = get(2);
    // It has met the lease, and asked again, or it has been answered.
    while victim.cache.stats().round_trips < before + 4 && !second.is_finished() {
        tokio::task::yield_now().await;
    }
    gate.resume();
    assert_eq!((first.await.unwrap().id, second.await.unwrap().id), (1, 2));
}

#[tokio::test]
async fn a_value_of_another_key_or_entity_is_a_miss() {
    let victim = Victim::new().await;
    victim.heals("at first").await;
    let keys: Vec<_> = victim
        .keys()
        .await
        .into_iter()
        .filter(|key| key != "soc:root")
        .collect();
    for from in &keys {
        for to in keys.iter().filter(|to| *to != from) {
            let what = format!("{from} as {to}");
            victim
                .redis(&[b"COPY", from.as_bytes(), to.as_bytes(), b"REPLACE"])
                .await;
            victim.reads_are_right(&what).await;
            victim.writes_are_seen(&what).await;
            victim.heals(&what).await;
        }
        // Every value of it under every other name of a value.
        for to in keys.iter().filter(|to| *to != from) {
            let fields = async |key: &String| victim.texts(&[b"HKEYS", key.as_bytes()]).await;
            for (theirs, ours) in fields(from).await.iter().zip(fields(to).await) {
                let Value::BulkString(value) = victim
                    .redis(&[b"HGET", from.as_bytes(), theirs.as_bytes()])
                    .await
                else {
                    continue;
                };
                victim
                    .redis(&[b"HSET", to.as_bytes(), ours.as_bytes(), &value])
                    .await;
                victim
                    .reads_are_right(&format!("{from} {theirs} as {to} {ours}"))
                    .await;
            }
        }
        victim.heals(from).await;
    }
}
