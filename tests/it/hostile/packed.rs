//! Compressed values, well made and not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sea_orm::{ActiveValue::Set, EntityTrait};
use sea_orm_cache::store::{Acquired, Filled, Fingerprint, Op, Reply, Seen, Store, Token};
use sea_orm_cache::testing::Fault;
use sea_orm_cache::{Cache, CachedConnection, Event, Key};

use crate::entities::city;
use crate::reads::city as a_city;
use crate::world::{Place, Sql, World};

/// Where an envelope without a value that was asked for says what it holds, and where that begins.
const KIND: usize = 24;
const PAYLOAD: usize = 26;
const PLAIN: u8 = 1;
const COMPRESSED: u8 = 3;

type Stored = (Key, Fingerprint, Bytes);

/// A city that shrinks, one that does not, and a short one.
struct Packed {
    world: World,
    /// What was sent to be stored.
    stored: Arc<Mutex<Vec<Stored>>>,
}

impl Packed {
    async fn new(place: Place) -> Self {
        let world = World::new(Sql::Sqlite, place).await;
        let mut random = fastrand::Rng::with_seed(1);
        let noise = (0..5_000).map(|_| random.char(..)).collect();
        let names = ["x".repeat(5_000), noise, "short".to_owned()];
        let cities = names
            .into_iter()
            .zip(1..)
            .map(|(name, id)| city::ActiveModel {
                name: Set(name),
                ..a_city(id, None, &format!("city-{id}"))
            });
        world.seed(cities).await;
        let stored: Arc<Mutex<Vec<Stored>>> = Arc::default();
        let log = stored.clone();
        let watch = Fault::delay(Duration::ZERO).on(move |op| {
            if let Op::Fill {
                key, field, value, ..
            } = op
            {
                let value = (key.clone(), *field, value.clone());
                log.lock().unwrap().push(value);
            }
            false
        });
        world.store.inject(watch);
        Self { world, stored }
    }

    async fn process(&self, over: Option<usize>, most: usize) -> Process {
        let corrupt: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = corrupt.clone();
        let builder = Cache::builder()
            .store(self.world.store.clone())
            .max_value_bytes(most)
            .observer(move |event: &Event<'_>| {
                if let Event::Corrupt { reason, .. } = event {
                    log.lock().unwrap().push((*reason).to_owned());
                }
            });
        let builder = match over {
            Some(bytes) => builder.compress_over(bytes),
            None => builder,
        };
        let cache = builder.build().await.unwrap();
        let db = cache.attach(self.world.database.connect().await);
        Process { cache, db, corrupt }
    }

    /// All three as the database has them.
    async fn reads_are_right(&self, process: &Process) {
        let cached = city::Entity::cached_get_many([1, 2, 3], &process.db).await;
        let rows = city::Entity::find().all(&self.world.raw).await.unwrap();
        let cached: Vec<_> = cached.unwrap().into_iter().flatten().collect();
        assert!(cached.iter().map(|row| &**row).eq(rows.iter()));
    }

    fn take_stored(&self) -> Vec<Stored> {
        std::mem::take(&mut *self.stored.lock().unwrap())
    }

    /// Puts a value where another one stands.
    async fn replace(&self, (key, field, old): &Stored, value: Bytes) {
        let store = &self.world.store;
        let lease = Token::random();
        let seal = u64::from_be_bytes(*old.first_chunk().unwrap());
        let acquire = Op::Acquire {
            key: key.clone(),
            field: *field,
            lease,
            seen: Seen::Outdated(seal),
            ttl: Duration::from_secs(9),
        };
        let fill = Op::Fill {
            key: key.clone(),
            field: *field,
            lease,
            value,
            ttl: Duration::from_secs(60),
        };
        let replies = store.run(vec![acquire, fill]).await.unwrap();
        let done = [
            Reply::Acquired(Acquired::Granted),
            Reply::Filled(Filled::Stored),
        ];
        assert_eq!(replies.items, done);
    }
}

struct Process {
    cache: Cache,
    db: CachedConnection,
    corrupt: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Hits and misses so far.
    fn counts(&self) -> (u64, u64) {
        let stats = self.cache.stats().entity("city");
        (stats.hits, stats.misses)
    }

    fn take_corrupt(&self) -> usize {
        std::mem::take(&mut *self.corrupt.lock().unwrap()).len()
    }
}

async fn what_shrinks_is_compressed_and_read_by_all(place: Place) {
    let packed = Packed::new(place).await;
    let one = packed.process(Some(1_000), 1 << 20).await;
    packed.reads_are_right(&one).await;
    let stored = packed.take_stored();
    let kinds: Vec<_> = stored.iter().map(|(.., bytes)| bytes[KIND]).collect();
    assert_eq!(kinds, [COMPRESSED, PLAIN, PLAIN]);
    let lengths: Vec<_> = stored.iter().map(|(.., bytes)| bytes.len()).collect();
    assert!(lengths[0] < 200 && lengths[1] > 5_000, "{lengths:?}");
    packed.reads_are_right(&one).await;
    assert_eq!(one.counts(), (3, 3));
    // Whoever does not compress reads it all the same.
    let other = packed.process(None, 1 << 20).await;
    packed.reads_are_right(&other).await;
    assert_eq!(other.counts(), (3, 0));
    assert_eq!(packed.take_stored().len(), 0);
    assert_eq!((one.take_corrupt(), other.take_corrupt()), (0, 0));
}

async fn what_is_too_large_for_one_program_is_a_miss_to_it_alone(place: Place) {
    let packed = Packed::new(place).await;
    let large = packed.process(Some(1_000), 1 << 20).await;
    packed.reads_are_right(&large).await;
    let small = packed.process(Some(1_000), 2_000).await;
    for _ in 0..2 {
        packed.reads_are_right(&small).await;
    }
    assert_eq!(small.take_corrupt(), 0);
    let (hits, misses) = small.counts();
    assert_eq!(hits + misses, 6);
    assert!(misses >= 2, "the first city, each time");
}

async fn claims_and_damage_are_misses_and_heal(place: Place) {
    let packed = Packed::new(place).await;
    let process = packed.process(Some(1_000), 1 << 20).await;
    packed.reads_are_right(&process).await;
    let mut stored = packed.take_stored().swap_remove(0);
    let claims: [(&[u8], usize); 5] = [
        // 2^60 and 2^64 - 1 bytes: another program may cache as much.
        (b"\x80\x80\x80\x80\x80\x80\x80\x80\x10", 0),
        (b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", 0),
        // A number that is none, no block, and a block that is none.
        (b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 1),
        (b"\x05", 1),
        (b"\x05\xFF\xFF\xFF", 1),
    ];
    for (payload, corrupt) in claims {
        let damaged = [&stored.2[..PAYLOAD], payload].concat();
        packed.replace(&stored, damaged.into()).await;
        packed.take_stored();
        packed.reads_are_right(&process).await;
        assert_eq!(process.take_corrupt(), corrupt, "{payload:?}");
        stored = packed.take_stored().swap_remove(0);
        let (hits, misses) = process.counts();
        packed.reads_are_right(&process).await;
        assert_eq!(process.counts(), (hits + 3, misses), "{payload:?}");
    }
}

macro_rules! on_both {
    ($($behaviour:ident),* $(,)?) => { $(
        mod $behaviour {
            use crate::world::Place;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn memory() { super::$behaviour(Place::Memory).await; }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn redis() { super::$behaviour(Place::Redis).await; }
        }
    )* };
}

on_both!(
    what_shrinks_is_compressed_and_read_by_all,
    what_is_too_large_for_one_program_is_a_miss_to_it_alone,
    claims_and_damage_are_misses_and_heal,
);
