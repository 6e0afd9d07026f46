//! Pause points: where a batch waits until the test has done what must come between.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::store::Op;

/// Picks ops.
pub(super) type Which = Box<dyn Fn(&Op) -> bool + Send + Sync>;

/// How long [`Pause::arrived`] waits.
const PATIENCE: Duration = Duration::from_secs(30);

/// On which side of being carried out a batch waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    After,
}

/// A pause point of a [`FaultyStore`](super::FaultyStore): batches wait at it until it is resumed or
/// dropped.
pub struct Pause(Arc<Point>);

pub(super) struct Point {
    side: Side,
    stops: Which,
    /// One permit for each batch that has arrived and was not yet asked for.
    arrivals: Semaphore,
    /// Has no permits: closed when the batches may go on.
    waiting: Semaphore,
}

impl Pause {
    pub(super) fn new(side: Side, stops: Which) -> Self {
        Self(Arc::new(Point {
            side,
            stops,
            arrivals: Semaphore::new(0),
            waiting: Semaphore::new(0),
        }))
    }

    pub(super) fn point(&self) -> Arc<Point> {
        Arc::clone(&self.0)
    }

    /// Waits until a batch stands here; called again, until the next one does.
    ///
    /// # Panics
    /// If none comes within 30 seconds.
    pub async fn arrived(&self) {
        match timeout(PATIENCE, self.0.arrivals.acquire()).await {
            Ok(arrival) => {
                if let Ok(permit) = arrival {
                    permit.forget();
                }
            }
            Err(_) => panic!("no batch arrived at the pause point within {PATIENCE:?}"),
        }
    }

    /// Lets all batches go on, those that stand here and those to come.
    pub fn resume(self) {}
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.waiting.close();
    }
}

impl fmt::Debug for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pause")
            .field("side", &self.0.side)
            .finish_non_exhaustive()
    }
}

impl Point {
    pub(super) fn is_over(&self) -> bool {
        self.waiting.is_closed()
    }

    pub(super) fn stops(&self, side: Side, batch: &[Op]) -> bool {
        self.side == side && !self.is_over() && batch.iter().any(&self.stops)
    }

    pub(super) async fn wait(&self) {
        self.arrivals.add_permits(1);
        // Only ever answers that it was closed.
        let _ = self.waiting.acquire().await;
    }
}
