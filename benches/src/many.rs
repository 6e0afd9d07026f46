//! Many rows in one read.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

use sea_orm::EntityTrait;
use sea_orm_cache::CachedConnection;

use crate::contest::Contest;
use crate::model::{city, town};
use crate::report::{Goal, Row};
use crate::world::World;
use crate::{Bench, Outcome};

const MANY: usize = 100;

pub fn rows(bench: &Bench) -> Outcome<Vec<Row>> {
    let mut rows = all(bench)?;
    rows.extend(by_key(bench)?);
    Ok(rows)
}

fn all(bench: &Bench) -> Outcome<Vec<Row>> {
    let stage = &bench.spare;
    let results = Contest::new(&stage.world, 1)
        .enter("cached_all", |world, numbers| async move {
            cached_all(&world.l2, numbers).await
        })
        .enter("cached_all", |world, numbers| async move {
            cached_all(&world.l1, numbers).await
        })
        .enter("find().all()", find_all)
        .run(&stage.runtime, &bench.plan)?;
    let speed = |work, ours, goal| Row::speed(work, &results, [ours, 2], Goal::AtLeast(goal));
    Ok(vec![
        speed("all of 1,000 rows, from Redis", 0, 8.0),
        speed("all of 1,000 rows, from L1", 1, 1_000.0),
    ])
}

async fn cached_all(db: &CachedConnection, numbers: Range<usize>) -> Outcome<()> {
    for _ in numbers {
        black_box(town::Entity::cached_all(db).await?);
    }
    Ok(())
}

async fn find_all(world: Arc<World>, numbers: Range<usize>) -> Outcome<()> {
    for _ in numbers {
        black_box(town::Entity::find().all(&world.postgres).await?);
    }
    Ok(())
}

fn by_key(bench: &Bench) -> Outcome<Vec<Row>> {
    let stage = &bench.spare;
    let field: Arc<str> = stage.runtime.block_on(stage.world.field())?.into();
    let results = Contest::new(&stage.world, 1)
        .enter("cached_get_many", |world, numbers| async move {
            get_many(&world, &world.l2, numbers).await
        })
        .enter("cached_get_many", |world, numbers| async move {
            get_many(&world, &world.l1, numbers).await
        })
        .enter("pipeline of 100 HGET", move |world, numbers| {
            pipeline(world, field.clone(), numbers)
        })
        .run(&stage.runtime, &bench.plan)?;
    let micros = results.time(1) * 1e6;
    Ok(vec![
        round_trips(bench)?,
        Row::speed(
            "100 rows by key, all in Redis",
            &results,
            [0, 2],
            Goal::AtMost(1.3),
        ),
        Row::figure(
            "100 rows by key, all in L1",
            micros,
            " us",
            Goal::AtMost(15.0),
        ),
    ])
}

fn keys(world: &World, n: usize) -> Vec<i64> {
    (n..n + MANY).map(|n| world.hot(n)).collect()
}

async fn get_many(world: &World, db: &CachedConnection, numbers: Range<usize>) -> Outcome<()> {
    for n in numbers {
        let found = city::Entity::cached_get_many(keys(world, n), db).await?;
        black_box(found);
    }
    Ok(())
}

async fn pipeline(world: Arc<World>, field: Arc<str>, numbers: Range<usize>) -> Outcome<()> {
    let mut redis = world.redis.clone();
    for n in numbers {
        let mut pipeline = redis::pipe();
        for n in n..n + MANY {
            pipeline.hget(world.row_key(n), &*field);
        }
        let values: Vec<Vec<u8>> = pipeline.query_async(&mut redis).await?;
        black_box(values);
    }
    Ok(())
}

fn round_trips(bench: &Bench) -> Outcome<Row> {
    let (runtime, world) = (&bench.spare.runtime, &bench.spare.world);
    let before = world.cache.stats().round_trips;
    runtime.block_on(get_many(world, &world.l2, 0..1))?;
    let figure = (world.cache.stats().round_trips - before) as f64;
    let work = "100 rows by key, all in Redis, round trips";
    Ok(Row::figure(work, figure, "", Goal::Exactly(1.0)))
}
