//! What something costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sea_orm::DatabaseConnection;

use crate::cache::Cache;

/// What something cost, counted exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Statements sent to the database.
    pub statements: u64,
    /// Requests sent to the cache, whatever the number of keys in each.
    pub round_trips: u64,
}

/// Counts the statements of a database connection and the round trips of a cache.
///
/// `execute_unprepared` is not counted, nor are `BEGIN`, `COMMIT`, `ROLLBACK` and savepoints: SeaORM
/// does not tell of them.
#[derive(Clone, Debug)]
pub struct Meter {
    statements: Arc<AtomicU64>,
    cache: Cache,
}

impl Meter {
    /// Counts from now on what goes through `database`, its clones made later, and `cache`. To be
    /// called before [`Cache::attach`]; it takes the place of the connection's metric callback.
    pub fn new(cache: &Cache, database: &mut DatabaseConnection) -> Self {
        let statements = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&statements);
        database.set_metric_callback(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        Self {
            statements,
            cache: cache.clone(),
        }
    }

    /// Runs `work` and tells what it cost. What others do meanwhile is counted with it.
    pub async fn cost<T>(&self, work: impl Future<Output = T>) -> (T, Cost) {
        let before = self.total();
        let answer = work.await;
        let after = self.total();
        let cost = Cost {
            statements: after.statements - before.statements,
            round_trips: after.round_trips - before.round_trips,
        };
        (answer, cost)
    }

    /// The statements counted so far, and all round trips of the cache.
    pub fn total(&self) -> Cost {
        Cost {
            statements: self.statements.load(Ordering::SeqCst),
            round_trips: self.cache.stats().round_trips,
        }
    }
}
