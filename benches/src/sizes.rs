//! How much memory the tiers take.

use sea_orm_cache::{Cache, CacheBuilder};
use tokio::runtime::Builder;

use crate::codec::encode;
use crate::model::city;
use crate::report::{Goal, Row};
use crate::world::{World, connect};
use crate::{Bench, Outcome};

const L1_BYTES: u64 = 8 << 20;

pub fn rows(bench: &Bench) -> Outcome<Vec<Row>> {
    let world = &bench.spare.world;
    let (bytes, used) = bench.spare.runtime.block_on(in_redis(world))?;
    let work = format!("Redis memory of a cached row of {bytes:.0} bytes, beyond them");
    Ok(vec![
        Row::figure(&work, (used - bytes).ceil(), " bytes", Goal::AtMost(230.0)),
        in_process(world)?,
    ])
}

/// Means over cities: the bytes of the row itself, and what the server takes for it in all.
async fn in_redis(world: &World) -> Outcome<(f64, f64)> {
    let rows = &world.cities[..world.hot_count().min(1_000)];
    let mut pipeline = redis::pipe();
    let mut bytes = 0;
    for (n, row) in rows.iter().enumerate() {
        bytes += encode(row)?.len();
        let mut usage = redis::cmd("MEMORY");
        usage
            .arg("USAGE")
            .arg(world.row_key(n))
            .arg("SAMPLES")
            .arg(0);
        pipeline.add_command(usage);
    }
    let used: Vec<usize> = pipeline.query_async(&mut world.redis.clone()).await?;
    let mean = |sum: usize| sum as f64 / rows.len() as f64;
    Ok((mean(bytes), mean(used.iter().sum())))
}

/// What the heap takes with a full tier and would not take without it.
fn in_process(world: &World) -> Outcome<Row> {
    let builder = || Cache::builder().redis(&world.servers.redis.url);
    let with = heap(world, builder().l1(L1_BYTES))?;
    let without = heap(world, builder())?;
    let mib = |bytes: i64| format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20));
    let figure = (with - without) as f64 / L1_BYTES as f64;
    Ok(Row::quotient(
        "L1, full, on the heap",
        mib(with - without),
        format!("budget: {}", mib(L1_BYTES as i64)),
        figure,
        Goal::Within(0.9, 1.1),
    ))
}

/// What is allocated after all cities were read through a cache, all of it on this thread.
fn heap(world: &World, builder: CacheBuilder) -> Outcome<i64> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let db = runtime.block_on(connect(&world.servers.postgres.url))?;
    let mut kept = None;
    let counted = allocation_counter::measure(|| {
        kept = Some(runtime.block_on(async {
            let db = builder.build().await?.attach(db);
            for chunk in world.cities.chunks(500) {
                city::Entity::cached_get_many(chunk.iter().map(|city| city.id), &db).await?;
            }
            Outcome::Ok(db)
        }));
    });
    kept.ok_or("nothing was read")??;
    Ok(counted.bytes_current)
}
