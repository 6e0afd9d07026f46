//! Reads of what is not cached.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use sea_orm::{DatabaseConnection, EntityTrait};
use sea_orm_cache::{Cache, CachedConnection};

use crate::contest::{Contest, Results};
use crate::model::city;
use crate::report::{Goal, Row};
use crate::world::World;
use crate::{Bench, Outcome};

/// A cache in which nothing is.
struct Cold {
    world: Arc<World>,
    cache: Cache,
    cached: CachedConnection,
    plain: DatabaseConnection,
}

impl Cold {
    fn open(bench: &Bench, prefix: &str, db: &DatabaseConnection) -> Outcome<Arc<Self>> {
        let world = bench.spare.world.clone();
        let cache = bench.spare.runtime.block_on(world.cache(prefix))?;
        Ok(Arc::new(Self {
            cached: cache.attach(db.clone()),
            plain: db.clone(),
            cache,
            world,
        }))
    }
}

pub fn cold(bench: &Bench) -> Outcome<Vec<Row>> {
    let world = &bench.spare.world;
    let row = |name, db, goal| -> Outcome<Row> {
        let results = crowd(bench, &Cold::open(bench, name, db)?)?;
        let work = format!("cold reads of different keys, 64 in flight, {name}");
        Ok(Row::speed(&work, &results, [0, 1], Goal::AtLeast(goal)))
    };
    Ok(vec![
        row("Postgres", &world.postgres, 4.0)?,
        row("SQLite", &world.sqlite, 1.0)?,
    ])
}

fn crowd(bench: &Bench, cold: &Arc<Cold>) -> Outcome<Results> {
    const IN_FLIGHT: usize = 64;
    let times = cold.world.cities.len() / (IN_FLIGHT * bench.plan.numbers());
    Contest::new(cold, IN_FLIGHT)
        .fixed(times)
        .enter("cached_get", ours)
        .enter("find_by_id", find)
        .run(&bench.spare.runtime, &bench.plan)
}

pub fn one(bench: &Bench) -> Outcome<Vec<Row>> {
    let world = &bench.spare.world;
    let cold = Cold::open(bench, "miss", &world.postgres)?;
    let results = Contest::new(&cold, 1)
        .fixed(bench.plan.size(200, 10))
        .enter("cached_get", ours)
        .enter("find_by_id, 3 PING", find_and_ping)
        .run(&bench.spare.runtime, &bench.plan)?;
    let stats = cold.cache.stats();
    let (misses, loads) = (stats.entity("city").misses, stats.entity("city").loads);
    let each = |n: u64| n as f64 / misses as f64;
    Ok(vec![
        Row::figure("miss, queries", each(loads), "", Goal::Exactly(1.0)),
        Row::figure(
            "miss, round trips",
            each(stats.round_trips),
            "",
            Goal::AtMost(3.0),
        ),
        Row::speed("miss", &results, [0, 1], Goal::AtMost(1.3)),
    ])
}

async fn ours(cold: Arc<Cold>, numbers: Range<usize>) -> Outcome<()> {
    for n in numbers {
        let found = city::Entity::cached_get(cold.world.id(n), &cold.cached).await?;
        black_box(found.ok_or("no such city")?);
    }
    Ok(())
}

async fn find(cold: Arc<Cold>, numbers: Range<usize>) -> Outcome<()> {
    for n in numbers {
        let find = city::Entity::find_by_id(cold.world.id(n));
        black_box(find.one(&cold.plain).await?.ok_or("no such city")?);
    }
    Ok(())
}

async fn find_and_ping(cold: Arc<Cold>, numbers: Range<usize>) -> Outcome<()> {
    for n in numbers {
        find(cold.clone(), n..n + 1).await?;
        ping(&cold.world.redis, 3).await?;
    }
    Ok(())
}

/// Bare round trips, one after another.
pub async fn ping(redis: &MultiplexedConnection, times: usize) -> Outcome<()> {
    for _ in 0..times {
        redis::cmd("PING").exec_async(&mut redis.clone()).await?;
    }
    Ok(())
}
