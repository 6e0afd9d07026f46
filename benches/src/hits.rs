//! Hits in Redis.

use std::hint::{black_box, spin_loop};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use redis::AsyncCommands;
use sea_orm::{DatabaseConnection, EntityTrait};

use crate::contest::{Contest, Results};
use crate::model::city;
use crate::report::{Goal, Row};
use crate::world::World;
use crate::{Bench, Outcome};

pub fn alone(bench: &Bench) -> Outcome<Vec<Row>> {
    let stage = &bench.spare;
    let results = Contest::new(&stage.world, 1)
        .enter("cached_get", ours)
        .enter("bare GET", bare)
        .enter("by hand, JSON", by_hand)
        .enter("cached", cached)
        .enter("hitbox", hitbox)
        .enter("find_by_id", find_in_postgres)
        .enter("find_by_id", find_in_sqlite)
        .run(&stage.runtime, &bench.plan)?;
    let speed = |beside, peer, goal| {
        let work = format!("L2 hit, 1 in flight, beside {beside}");
        Row::speed(&work, &results, [0, peer], goal)
    };
    Ok(vec![
        speed("redis-rs", 1, Goal::AtMost(1.15)),
        speed("cache-aside by hand", 2, Goal::AtLeast(1.0)),
        speed("`cached`", 3, Goal::AtLeast(1.0)),
        speed("`hitbox`", 4, Goal::AtLeast(1.0)),
        speed("SeaORM on Postgres", 5, Goal::AtLeast(1.0)),
        speed("SeaORM on SQLite", 6, Goal::AtLeast(1.0)),
    ])
}

pub fn crowds(bench: &Bench) -> Outcome<Vec<Row>> {
    let mut rows = crowd(bench, 16, 1.0, 1.1)?;
    rows.extend(crowd(bench, 64, 1.0, 0.7)?);
    rows.extend(peers(bench)?);
    rows.extend(crowd(bench, 256, 1.4, 0.5)?);
    Ok(rows)
}

fn crowd(bench: &Bench, in_flight: usize, speed: f64, cpu: f64) -> Outcome<Vec<Row>> {
    let results = contest(bench, in_flight)?;
    let work = |what| format!("L2 hit, {in_flight} in flight, a core to spare, {what}");
    let bare = [0, 1];
    Ok(vec![
        Row::speed(&work("throughput"), &results, bare, Goal::AtLeast(speed)),
        Row::cpu(&work("client CPU"), &results, bare, Goal::AtMost(cpu)),
        Row::speed(&work("throughput"), &results, [0, 2], Goal::AtLeast(1.3)),
    ])
}

fn contest(bench: &Bench, in_flight: usize) -> Outcome<Results> {
    let stage = &bench.spare;
    Contest::new(&stage.world, in_flight)
        .enter("cached_get", ours)
        .enter("bare GET", bare)
        .enter("by hand, JSON", by_hand)
        .run(&stage.runtime, &bench.plan)
}

fn peers(bench: &Bench) -> Outcome<Vec<Row>> {
    let stage = &bench.spare;
    let results = Contest::new(&stage.world, 64)
        .enter("cached_get", ours)
        .enter("cached", cached)
        .enter("hitbox", hitbox)
        .run(&stage.runtime, &bench.plan)?;
    let work = "L2 hit, 64 in flight, a core to spare, throughput";
    let row = |peer| Row::speed(work, &results, [0, peer], Goal::AtLeast(1.0));
    Ok(vec![row(1), row(2)])
}

/// Two threads of ours and one that only takes time, on the cores that Redis needs as well.
pub fn full(bench: &Bench) -> Outcome<Vec<Row>> {
    let stage = &bench.full;
    let _busy = Busy::start();
    let row = |in_flight| {
        let results = Contest::new(&stage.world, in_flight)
            .enter("cached_get", ours)
            .enter("bare GET", bare)
            .run(&stage.runtime, &bench.plan)?;
        let work = format!("L2 hit, {in_flight} in flight, cores full, throughput");
        Ok(Row::speed(&work, &results, [0, 1], Goal::AtLeast(2.0)))
    };
    [64, 256].into_iter().map(row).collect()
}

async fn ours(world: Arc<World>, numbers: Range<usize>) -> Outcome<()> {
    for n in numbers {
        let found = city::Entity::cached_get(world.hot(n), &world.l2).await?;
        black_box(found.ok_or("no such city")?);
    }
    Ok(())
}

async fn bare(world: Arc<World>, numbers: Range<usize>) -> Outcome<()> {
    let mut redis = world.redis.clone();
    for n in numbers {
        let bytes: Option<Vec<u8>> = redis.get(world.raw_key(n)).await?;
        black_box(bytes.ok_or("no such value")?);
    }
    Ok(())
}

async fn by_hand(world: Arc<World>, numbers: Range<usize>) -> Outcome<()> {
    for n in numbers {
        black_box(world.peers.by_hand.get(world.hot(n)).await?);
    }
    Ok(())
}

async fn cached(world: Arc<World>, numbers: Range<usize>) -> Outcome<()> {
    for n in numbers {
        black_box(world.peers.cached(world.hot(n)).await?);
    }
    Ok(())
}

async fn hitbox(world: Arc<World>, numbers: Range<usize>) -> Outcome<()> {
    for n in numbers {
        black_box(world.peers.hitbox(world.hot(n)).await?);
    }
    Ok(())
}

async fn find_in_postgres(world: Arc<World>, numbers: Range<usize>) -> Outcome<()> {
    find(&world, &world.postgres, numbers).await
}

async fn find_in_sqlite(world: Arc<World>, numbers: Range<usize>) -> Outcome<()> {
    find(&world, &world.sqlite, numbers).await
}

async fn find(world: &World, db: &DatabaseConnection, numbers: Range<usize>) -> Outcome<()> {
    for n in numbers {
        let found = city::Entity::find_by_id(world.hot(n)).one(db).await?;
        black_box(found.ok_or("no such city")?);
    }
    Ok(())
}

/// A thread that takes all the time that it gets.
struct Busy {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Busy {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                spin_loop();
            }
        });
        let thread = Some(thread);
        Self { stop, thread }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It cannot panic.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
