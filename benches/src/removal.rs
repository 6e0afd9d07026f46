//! Removing very much by a pattern: how long it takes, and for how long others wait meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use redis::AsyncCommands;
use sea_orm_cache::{Namespace, Policy};

use crate::report::{Goal, Row};
use crate::world::World;
use crate::{Bench, Outcome};

/// How long something took, and the longest that another client waited for an answer meanwhile.
#[derive(Clone, Copy)]
struct Measured {
    took: Duration,
    worst: Duration,
}

impl Measured {
    fn text(self) -> String {
        let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
        format!("{:.1} ms, others {:.1} ms", ms(self.took), ms(self.worst))
    }
}

pub fn rows(bench: &Bench) -> Outcome<Vec<Row>> {
    let keys = bench.plan.size(100_000, 2_000);
    bench
        .spare
        .runtime
        .block_on(measure(&bench.spare.world, keys))
}

async fn measure(world: &World, keys: usize) -> Outcome<Vec<Row>> {
    let cache = world.cache("removal").await?;
    let many = cache.namespace("many");
    let url = &world.servers.redis.url;
    fill(&many, keys).await?;
    let (removed, walked) = beside(url, many.remove_matching("page:*")).await?;
    if removed? < keys as u64 {
        return Err("keys were left".into());
    }
    plain(world, keys).await?;
    let (removed, by_hand) = beside(url, by_hand(world)).await?;
    if removed? < keys {
        return Err("keys were left by hand".into());
    }
    let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64().max(1e-9);
    Ok(vec![
        Row::quotient(
            &format!("remove_matching of {keys}"),
            walked.text(),
            format!("SCAN and UNLINK: {}", by_hand.text()),
            ratio(walked.took, by_hand.took),
            Goal::AtMost(2.0),
        ),
        Row::figure(
            "remove_matching, the longest that others wait",
            walked.worst.as_secs_f64() * 1_000.0,
            " ms",
            Goal::AtMost(20.0),
        ),
    ])
}

async fn fill(namespace: &Namespace, keys: usize) -> Outcome<()> {
    let policy = Policy::new();
    for first in (0..keys).step_by(1_000) {
        let chunk = (first..keys.min(first + 1_000)).map(|n| (format!("page:{n}"), n as u64));
        namespace.set_many(chunk, &policy).await?;
    }
    Ok(())
}

/// What the same would be without the library.
async fn plain(world: &World, keys: usize) -> Outcome<()> {
    let mut redis = world.redis.clone();
    for first in (0..keys).step_by(1_000) {
        let mut sets = redis::pipe();
        for n in first..keys.min(first + 1_000) {
            sets.set_ex(format!("plain:page:{n}"), n, 300).ignore();
        }
        sets.exec_async(&mut redis).await?;
    }
    Ok(())
}

/// As `delete_pattern` does it: a thousand at a time.
async fn by_hand(world: &World) -> Outcome<usize> {
    let mut redis = world.redis.clone();
    let (mut cursor, mut removed) = (0_u64, 0);
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg("plain:page:*")
            .arg("COUNT")
            .arg(1_000);
        let (next, keys): (u64, Vec<String>) = scan.query_async(&mut redis).await?;
        removed += keys.len();
        if !keys.is_empty() {
            redis.unlink::<_, ()>(keys).await?;
        }
        cursor = next;
        if cursor == 0 {
            return Ok(removed);
        }
    }
}

/// Does the work while a client in a thread of its own asks for one key again and again.
async fn beside<T>(url: &str, work: impl Future<Output = T>) -> Outcome<(T, Measured)> {
    let over = Arc::new(AtomicBool::new(false));
    let (ends, mut client) = (over.clone(), redis::Client::open(url)?.get_connection()?);
    let other = thread::spawn(move || -> redis::RedisResult<Duration> {
        let mut worst = Duration::ZERO;
        while !ends.load(Ordering::Relaxed) {
            let asked = Instant::now();
            redis::cmd("GET").arg("nothing").exec(&mut client)?;
            worst = worst.max(asked.elapsed());
            thread::sleep(Duration::from_micros(200));
        }
        Ok(worst)
    });
    // Until it asks.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let began = Instant::now();
    let done = work.await;
    let took = began.elapsed();
    over.store(true, Ordering::Relaxed);
    let worst = other.join().map_err(|_| "the other client panicked")??;
    Ok((done, Measured { took, worst }))
}
