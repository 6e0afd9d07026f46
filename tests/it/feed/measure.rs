//! What the feed costs and how fast it is: `cargo test --release --all-features --test it feed::measure -- --ignored
//! --nocapture`. Compare figures of one run only.

use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, DatabaseConnection};
use sea_orm_cache::Feed;
use sea_orm_cache_migration::Watch;

use super::{foreign, watched};
use crate::entities::city;
use crate::world::{Place, Sql, World};

const SQLS: [Sql; 3] = [Sql::Postgres, Sql::MariaDb, Sql::Sqlite];

fn quantile(times: &mut [Duration], part: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * part) as usize]
}

/// From the answer to a foreign UPDATE to the first cached read that sees it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn staleness() {
    for sql in SQLS {
        let world = World::new(sql, Place::Redis).await;
        watched(&world).await;
        let feed = Feed::new(&world.db);
        let running = tokio::spawn(async move { feed.run().await });
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (mut times, mut commits) = (Vec::new(), Vec::new());
        for n in 0..200 {
            city::Entity::cached_get(1, &world.db).await.unwrap();
            tokio::time::sleep(Duration::from_micros(fastrand::u64(0..300_000))).await;
            let name = format!("n{n}");
            let began = Instant::now();
            foreign(
                &world,
                &format!("UPDATE city SET name = '{name}' WHERE id = 1"),
            )
            .await;
            let committed = Instant::now();
            commits.push(committed - began);
            while city::Entity::cached_get(1, &world.db)
                .await
                .unwrap()
                .unwrap()
                .name
                != name
            {
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
            times.push(committed.elapsed());
        }
        println!(
            "{sql:?}: stale p50 {:?}, p99 {:?}, max {:?}; the write itself p50 {:?}",
            quantile(&mut times, 0.5),
            quantile(&mut times, 0.99),
            quantile(&mut times, 1.0),
            quantile(&mut commits, 0.5),
        );
        running.abort();
    }
}

async fn timed(db: &DatabaseConnection, sql: impl Fn(usize) -> String, times: usize) -> f64 {
    let mut took = Vec::new();
    for n in 0..times {
        let sql = sql(n);
        let began = Instant::now();
        db.execute_unprepared(&sql).await.unwrap();
        took.push(began.elapsed());
    }
    quantile(&mut took, 0.5).as_secs_f64() * 1e6
}

/// The same statements with and without triggers, in turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn the_cost_of_a_write() {
    for sql in SQLS {
        let world = World::new(sql, Place::Memory).await;
        watched(&world).await;
        let rows = (1..=5_000).map(|n| crate::reads::city(10_000 + n, Some(10), &format!("s{n}")));
        for some in rows.collect::<Vec<_>>().chunks(500) {
            world.seed(some.to_vec()).await;
        }
        let single = |n: usize| {
            format!(
                "UPDATE city SET name = 'n{n}' WHERE id = {}",
                10_001 + n % 5_000
            )
        };
        let hundred =
            |n: usize| format!("UPDATE city SET name = 'n{n}' WHERE id BETWEEN 10001 AND 10100");
        let bulk = |n: usize| format!("UPDATE city SET name = 'n{n}' WHERE id > 10000");
        let watches = [
            ("without triggers", None),
            ("with", Some(Watch::of::<city::Entity>())),
            (
                "with, not notifying",
                Some(Watch::of::<city::Entity>().without_notify()),
            ),
        ];
        let mut all: Vec<[Vec<f64>; 3]> = (0..3).map(|_| Default::default()).collect();
        for _ in 0..7 {
            for (way, (_, watch)) in watches.iter().enumerate() {
                Watch::of::<city::Entity>()
                    .remove(&world.raw)
                    .await
                    .unwrap();
                if let Some(watch) = watch {
                    watch.install(&world.raw).await.unwrap();
                }
                all[way][0].push(timed(&world.raw, single, 400).await);
                all[way][1].push(timed(&world.raw, hundred, 40).await);
                all[way][2].push(timed(&world.raw, bulk, 5).await);
                foreign(&world, "DELETE FROM sea_orm_cache_outbox").await;
            }
        }
        let median = |figures: &mut Vec<f64>| {
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        let bare: Vec<f64> = all[0].clone().iter_mut().map(median).collect();
        for (way, (name, _)) in watches.iter().enumerate() {
            for (what, rows) in ["1 row", "100 rows", "5,000 rows"].iter().enumerate() {
                let figure = median(&mut all[way][what]);
                let more = 100.0 * (figure / bare[what] - 1.0);
                println!("{sql:?}, {rows}, {name}: {figure:.0} us ({more:+.0} %)");
            }
        }
    }
}
