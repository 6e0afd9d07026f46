//! Writes, and dropping what is cached of a whole entity.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use sea_orm::{ActiveModelTrait, ConnectionTrait, Set, TransactionTrait};
use sea_orm_cache::{Cache, CachedConnection};

use crate::contest::{Contest, Results};
use crate::misses::ping;
use crate::model::{city, plain};
use crate::report::{Goal, Row};
use crate::world::World;
use crate::{Bench, Outcome};

const ROWS: usize = 100;

pub fn rows(bench: &Bench) -> Outcome<Vec<Row>> {
    let stage = &bench.spare;
    let (runtime, world) = (&stage.runtime, &stage.world);
    let single = Contest::new(world, 1)
        .enter("update", write)
        .enter("update, 2 PING", write_plainly)
        .run(runtime, &bench.plan)?;
    let many = Contest::new(world, 1)
        .enter("transaction", transaction)
        .enter("transaction, 2 PING", transaction_plainly)
        .run(runtime, &bench.plan)?;
    let round_trips = |work| runtime.block_on(round_trips(&world.cache, work));
    let single_trips = round_trips(Box::pin(write(world.clone(), 0..1)))?;
    let many_trips = round_trips(Box::pin(transaction(world.clone(), 0..1)))?;
    let [a, b] = pair("write", &single, single_trips);
    let [c, d] = pair("transaction of 100 rows", &many, many_trips);
    Ok(vec![a, b, c, d])
}

fn pair(work: &str, results: &Results, round_trips: f64) -> [Row; 2] {
    let extra = format!("{work}, extra round trips");
    [
        Row::figure(&extra, round_trips, "", Goal::AtMost(2.0)),
        Row::speed(work, results, [0, 1], Goal::AtMost(1.1)),
    ]
}

type Work = std::pin::Pin<Box<dyn Future<Output = Outcome<()>> + Send>>;

async fn round_trips(cache: &Cache, work: Work) -> Outcome<f64> {
    let before = cache.stats().round_trips;
    work.await?;
    Ok((cache.stats().round_trips - before) as f64)
}

async fn write(world: Arc<World>, numbers: Range<usize>) -> Outcome<()> {
    for n in numbers {
        update(world.id(n), n, &world.l2).await?;
    }
    Ok(())
}

async fn write_plainly(world: Arc<World>, numbers: Range<usize>) -> Outcome<()> {
    for n in numbers {
        update_plainly(world.id(n), n, &world.postgres).await?;
        ping(&world.redis, 2).await?;
    }
    Ok(())
}

async fn transaction(world: Arc<World>, numbers: Range<usize>) -> Outcome<()> {
    for n in numbers {
        let txn = world.l2.begin().await?;
        for row in n * ROWS..(n + 1) * ROWS {
            update(world.id(row), n, &txn).await?;
        }
        txn.commit().await?;
    }
    Ok(())
}

async fn transaction_plainly(world: Arc<World>, numbers: Range<usize>) -> Outcome<()> {
    for n in numbers {
        let txn = world.postgres.begin().await?;
        for row in n * ROWS..(n + 1) * ROWS {
            update_plainly(world.id(row), n, &txn).await?;
        }
        txn.commit().await?;
        ping(&world.redis, 2).await?;
    }
    Ok(())
}

async fn update(id: i64, population: usize, db: &impl ConnectionTrait) -> Outcome<()> {
    let change = city::ActiveModel {
        id: Set(id),
        population: Set(population as i64),
        ..Default::default()
    };
    change.update(db).await?;
    Ok(())
}

async fn update_plainly(id: i64, population: usize, db: &impl ConnectionTrait) -> Outcome<()> {
    let change = plain::city::ActiveModel {
        id: Set(id),
        population: Set(population as i64),
        ..Default::default()
    };
    change.update(db).await?;
    Ok(())
}

/// Caches of which one has few keys, one many, one very many.
struct Namespaces {
    caches: [(Cache, CachedConnection); 3],
}

pub fn drops(bench: &Bench) -> Outcome<Vec<Row>> {
    let (runtime, sizes) = (
        &bench.spare.runtime,
        [
            1_000,
            bench.plan.size(100_000, 2_000),
            bench.plan.size(1_000_000, 3_000),
        ],
    );
    let namespaces = Arc::new(runtime.block_on(Namespaces::open(&bench.spare.world, sizes))?);
    let results = Contest::new(&namespaces, 1)
        .enter("1 k keys", |world, numbers| drop_keys(world, 0, numbers))
        .enter("100 k keys", |world, numbers| drop_keys(world, 1, numbers))
        .enter("1 M keys", |world, numbers| drop_keys(world, 2, numbers))
        .run(runtime, &bench.plan)?;
    let work = Box::pin(drop_keys(namespaces.clone(), 2, 0..1));
    let trips = runtime.block_on(round_trips(&namespaces.caches[2].0, work))?;
    runtime.block_on(clear(&bench.spare.world))?;
    let goal = Goal::AtMost(1.5);
    let speed = |work, ours| Row::speed(work, &results, [ours, 0], goal);
    Ok(vec![
        speed("drop a namespace of 100 k keys", 1),
        speed("drop a namespace of 1 M keys", 2),
        Row::figure(
            "drop a namespace, round trips",
            trips,
            "",
            Goal::AtMost(2.0),
        ),
    ])
}

async fn drop_keys(
    namespaces: Arc<Namespaces>,
    which: usize,
    numbers: Range<usize>,
) -> Outcome<()> {
    for _ in numbers {
        city::Entity::invalidate_all(&namespaces.caches[which].1).await?;
    }
    Ok(())
}

/// A database of the server that nothing else is in.
fn url(world: &World) -> String {
    format!("{}1", world.servers.redis.url)
}

impl Namespaces {
    async fn open(world: &World, sizes: [usize; 3]) -> Outcome<Self> {
        let mut caches = Vec::new();
        for size in sizes {
            let prefix = format!("drop{size}");
            let cache = Cache::builder().redis(url(world)).prefix(&prefix);
            let cache = cache.build().await?;
            let db = cache.attach(world.postgres.clone());
            // So that there are generations to drop.
            city::Entity::cached_get(world.id(0), &db).await?;
            plant(world, &prefix, size).await?;
            caches.push((cache, db));
        }
        let caches = caches.try_into().map_err(|_| "three sizes")?;
        Ok(Self { caches })
    }
}

/// Keys as rows of the entity have them.
async fn plant(world: &World, prefix: &str, count: usize) -> Outcome<()> {
    let mut redis = connect(world).await?;
    for first in (0..count).step_by(10_000) {
        let mut pipeline = redis::pipe();
        for n in first..count.min(first + 10_000) {
            pipeline.hset(format!("{prefix}:main:city:pk:{n}"), "v:0", "x");
        }
        pipeline.exec_async(&mut redis).await?;
    }
    Ok(())
}

async fn clear(world: &World) -> Outcome<()> {
    let mut redis = connect(world).await?;
    redis::cmd("FLUSHDB")
        .arg("ASYNC")
        .exec_async(&mut redis)
        .await?;
    Ok(())
}

async fn connect(world: &World) -> Outcome<redis::aio::MultiplexedConnection> {
    let client = redis::Client::open(url(world))?;
    // Thousands of commands in one request take their time.
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    Ok(client
        .get_multiplexed_async_connection_with_config(&patient)
        .await?)
}
