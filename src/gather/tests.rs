use std::collections::BTreeSet;

use sea_orm::sea_query::Value;
use smallvec::smallvec;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, yield_now};

use super::*;

/// A database that notes its queries, holds them until the test lets them go, and fails all that
/// ask for [`BAD`].
struct Database {
    cache: Cache,
    gathers: Gathers,
    space: KeySpace,
    queries: Mutex<Vec<Vec<i64>>>,
    open: Semaphore,
}

const BAD: i64 = 7_013;
const FOREVER: Duration = Duration::from_secs(3600);

type Reader = JoinHandle<Result<Vec<i64>, DbErr>>;

impl Database {
    fn new(patience: Duration) -> Arc<Self> {
        let all = RwLock::default();
        Arc::new(Self {
            cache: Cache::in_memory(),
            gathers: Gathers { patience, all },
            space: KeySpace::new("soc", "test"),
            queries: Mutex::default(),
            open: Semaphore::new(0),
        })
    }

    async fn query(&self, wanted: Vec<Wanted>) -> Result<Vec<i64>, DbErr> {
        let keys: Vec<i64> = wanted
            .iter()
            .flat_map(|keys| keys.iter())
            .map(key)
            .collect();
        self.queries.lock().unwrap().push(keys.clone());
        self.open.acquire().await.unwrap().forget();
        match keys.contains(&BAD) {
            true => Err(DbErr::Custom("a bad key".to_owned())),
            false => Ok(keys.iter().map(|key| key * 10).collect()),
        }
    }

    /// A reader of some keys, once it has come as far as it can.
    async fn reader(self: &Arc<Self>, keys: impl IntoIterator<Item = i64>) -> Reader {
        let database = Arc::clone(self);
        let wanted = keys
            .into_iter()
            .map(|key| smallvec![Value::from(key)])
            .collect();
        let reader = tokio::spawn(async move {
            let load = Load {
                cache: &database.cache,
                gathers: &database.gathers,
                space: &database.space,
                entity: "city",
                most: 100,
            };
            let query = |wanted| database.query(wanted);
            load.run(wanted, query).await
        });
        yield_now().await;
        reader
    }

    /// One reader for each key.
    async fn readers(self: &Arc<Self>, keys: impl IntoIterator<Item = i64>) -> Vec<(i64, Reader)> {
        let mut readers = Vec::new();
        for key in keys {
            readers.push((key, self.reader([key]).await));
        }
        readers
    }

    fn queries(&self) -> Vec<Vec<i64>> {
        self.queries.lock().unwrap().clone()
    }

    fn stats(&self) -> crate::EntityStats {
        self.cache.stats().entity("city")
    }
}

fn key(pk: &Pk) -> i64 {
    match pk[..] {
        [Value::BigInt(Some(key))] => key,
        _ => panic!("no key of these tests: {pk:?}"),
    }
}

async fn assert_answered(readers: Vec<(i64, Reader)>) {
    for (key, reader) in readers {
        assert_eq!(reader.await.unwrap().unwrap(), [key * 10]);
    }
}

const PLACES: i64 = AT_ONCE as i64;

#[tokio::test]
async fn those_who_find_a_place_ask_at_once_and_all_others_are_one_query() {
    let database = Database::new(FOREVER);
    let readers = database.readers(1..=64).await;
    let own: Vec<Vec<i64>> = (1..=PLACES).map(|key| vec![key]).collect();
    assert_eq!(
        database.queries(),
        own,
        "each its own, while the others queue"
    );
    database.open.add_permits(64);
    assert_answered(readers).await;
    assert_eq!(
        database.queries()[AT_ONCE..],
        [(PLACES + 1..=64).collect::<Vec<_>>()]
    );
    let stats = database.stats();
    assert_eq!(
        (stats.loads, stats.coalesced),
        (AT_ONCE as u64 + 1, 63 - AT_ONCE as u64)
    );
    // Everything is as it was before.
    database.readers([7]).await;
    assert_eq!(database.queries().last(), Some(&vec![7]));
}

#[tokio::test]
async fn an_error_is_only_the_reader_s_whose_key_fails() {
    let database = Database::new(FOREVER);
    let mut readers = database.readers(BAD - PLACES..BAD + 20).await;
    database.open.add_permits(100);
    let (_, bad) = readers.remove(AT_ONCE);
    assert!(bad.await.unwrap().is_err());
    assert_answered(readers).await;
    // One each for those who found a place, one for the others together, and one each for them.
    assert_eq!(database.queries().len(), AT_ONCE + 1 + 20);
    assert_eq!(database.stats().loads, AT_ONCE as u64 + 21);
}

#[tokio::test]
async fn an_error_without_followers_is_told_at_once() {
    let database = Database::new(FOREVER);
    database.open.add_permits(100);
    assert!(database.reader([BAD]).await.await.unwrap().is_err());
    assert_eq!(database.queries(), [[BAD]]);
}

#[tokio::test]
async fn a_leader_that_goes_away_leaves_nobody_behind() {
    let database = Database::new(FOREVER);
    let first = database.readers(1..=PLACES).await;
    let mut readers = database.readers(100..110).await;
    // All but one of the first go on to wait for the database; so the first in the queue leads.
    database.open.add_permits(1);
    while database.queries().len() == AT_ONCE {
        yield_now().await;
    }
    let (leader, task) = readers.remove(0);
    assert_eq!(database.queries()[AT_ONCE], (100..110).collect::<Vec<_>>());
    assert_eq!(leader, 100);
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    database.open.add_permits(100);
    assert_answered(first).await;
    assert_answered(readers).await;
    let again: BTreeSet<i64> = database.queries()[AT_ONCE + 1..]
        .iter()
        .flatten()
        .copied()
        .collect();
    assert_eq!(again, (101..110).collect());
    assert_eq!(database.stats().loads, database.queries().len() as u64);
}

#[tokio::test]
async fn who_goes_away_from_the_queue_is_not_loaded_and_the_next_one_leads() {
    let database = Database::new(FOREVER);
    let first = database.readers(1..=PLACES).await;
    let mut readers = database.readers(100..104).await;
    for place in [2, 0] {
        let (_, gone) = readers.remove(place);
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
    }
    database.open.add_permits(100);
    assert_answered(first).await;
    assert_answered(readers).await;
    assert_eq!(database.queries()[AT_ONCE..], [[101, 103]]);
}

#[tokio::test]
async fn a_turn_that_nobody_takes_passes_on() {
    let database = Database::new(FOREVER);
    let first = database.readers(1..=PLACES).await;
    let mut readers = database.readers(100..103).await;
    // All queries end, and the first in the queue goes away before it hears that it leads.
    database.open.add_permits(100);
    assert_answered(first).await;
    readers.remove(0).1.abort();
    assert_answered(readers).await;
    let gather = database.gathers.of::<i64>(&database.space);
    let queue = gather.lock();
    assert_eq!((queue.under_way, queue.queued.len()), (0, 0));
}

#[tokio::test]
async fn a_query_that_hangs_holds_nobody_up() {
    let database = Database::new(Duration::from_millis(1));
    let hang = database.readers(1..=PLACES).await;
    let readers = database.readers(100..110).await;
    while database.queries().iter().flatten().count() < AT_ONCE + 10 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    database.open.add_permits(100);
    assert_answered(readers).await;
    assert_answered(hang).await;
}

#[tokio::test]
async fn a_query_has_no_more_keys_than_it_may_and_many_keys_go_alone() {
    let database = Database::new(FOREVER);
    let mut readers = vec![database.readers(1..=PLACES).await];
    let mut tens = Vec::new();
    for ten in 10..25 {
        tens.push((ten, database.reader(ten * 10..ten * 10 + 10).await));
    }
    let many = database.reader(1000..1011).await;
    assert_eq!(
        database.queries().last().unwrap().len(),
        11,
        "it does not queue"
    );
    database.open.add_permits(100);
    assert_answered(readers.remove(0)).await;
    for (ten, reader) in tens {
        let rows: Vec<i64> = (ten * 10..ten * 10 + 10).map(|key| key * 10).collect();
        assert_eq!(reader.await.unwrap().unwrap(), rows);
    }
    assert_eq!(many.await.unwrap().unwrap().len(), 11);
    let mut sizes: Vec<usize> = database.queries()[AT_ONCE + 1..]
        .iter()
        .map(Vec::len)
        .collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [50, 100]);
}

#[tokio::test]
async fn gathers_that_nobody_uses_are_forgotten() {
    let gathers = Gathers::default();
    let space = |tenant: usize| KeySpace::new("soc", &tenant.to_string());
    let used = gathers.of::<i64>(&space(0));
    for tenant in 1..3 * MOST_GATHERS {
        gathers.of::<i64>(&space(tenant));
    }
    assert!(gathers.all.read().unwrap().len() <= MOST_GATHERS);
    assert!(Arc::ptr_eq(&used, &gathers.of::<i64>(&space(0))));
}
