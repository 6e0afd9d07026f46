//! Hits in this process.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

use futures_util::FutureExt;

use crate::contest::Contest;
use crate::model::city;
use crate::report::{Goal, Row};
use crate::world::World;
use crate::{Bench, Outcome};

pub fn hits(bench: &Bench) -> Outcome<Vec<Row>> {
    let stage = &bench.spare;
    let results = Contest::new(&stage.world, 1)
        .enter("cached_get", ours)
        .enter("quick_cache get", quick_cache)
        .enter("moka try_get_with", moka)
        .enter("foyer get", foyer)
        .run(&stage.runtime, &bench.plan)?;
    let speed =
        |work, peer, goal| Row::speed(&format!("L1 hit, {work}"), &results, [0, peer], goal);
    Ok(vec![
        speed("1 thread", 1, Goal::AtMost(3.0)),
        allocations(&stage.world)?,
        speed("beside moka before Redis", 2, Goal::AtLeast(5.0)),
        speed("beside foyer in memory", 3, Goal::AtLeast(1.0)),
    ])
}

pub fn threads(bench: &Bench) -> Outcome<Vec<Row>> {
    let stage = &bench.full;
    let results = Contest::new(&stage.world, 1)
        .enter("1 thread", ours)
        .enter_with(2, "2 threads", ours)
        .run(&stage.runtime, &bench.plan)?;
    let goal = Goal::AtLeast(1.8);
    Ok(vec![Row::speed(
        "L1 hit, 2 threads",
        &results,
        [1, 0],
        goal,
    )])
}

async fn ours(world: Arc<World>, numbers: Range<usize>) -> Outcome<()> {
    for n in numbers {
        black_box(city::Entity::cached_get(world.popular(n), &world.l1).await?);
    }
    Ok(())
}

async fn quick_cache(world: Arc<World>, numbers: Range<usize>) -> Outcome<()> {
    for n in numbers {
        black_box(world.peers.quick.get(&world.popular(n)));
    }
    Ok(())
}

async fn moka(world: Arc<World>, numbers: Range<usize>) -> Outcome<()> {
    for n in numbers {
        black_box(world.peers.moka(world.popular(n)).await?);
    }
    Ok(())
}

async fn foyer(world: Arc<World>, numbers: Range<usize>) -> Outcome<()> {
    for n in numbers {
        black_box(world.peers.foyer.get(&world.popular(n)));
    }
    Ok(())
}

/// Of a hundred hits, none of which has to wait.
fn allocations(world: &World) -> Outcome<Row> {
    let mut waited = false;
    let counted = allocation_counter::measure(|| {
        for n in 0..100 {
            let read = city::Entity::cached_get(world.popular(n), &world.l1).now_or_never();
            waited |= !matches!(read, Some(Ok(Some(_))));
        }
    });
    if waited {
        return Err("a hit in this process had to wait".into());
    }
    let each = counted.count_total as f64 / 100.0;
    Ok(Row::figure(
        "L1 hit, heap allocations",
        each,
        "",
        Goal::Exactly(0.0),
    ))
}
