//! Hits of the in-process tier, counted so that threads do not get in each other's way.

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Entities with larger numbers are counted the ordinary way.
const ENTITIES: usize = 512;

const CELLS: usize = 16;

/// The hits of each entity.
pub(super) struct Hits(Box<[OnceLock<Entity>]>);

struct Entity {
    name: String,
    cells: [Counts; CELLS],
}

/// On cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Counts {
    hits: AtomicU64,
    absent: AtomicU64,
}

impl Default for Hits {
    fn default() -> Self {
        Self((0..ENTITIES).map(|_| OnceLock::new()).collect())
    }
}

impl fmt::Debug for Hits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hits")
    }
}

impl Hits {
    /// Counts a hit; `false` if the entity's number is too large.
    #[inline]
    pub(super) fn count(&self, entity: u32, name: &str, present: bool) -> bool {
        let Some(entity) = self.0.get(entity as usize) else {
            return false;
        };
        let entity = entity.get_or_init(|| Entity {
            name: name.to_owned(),
            cells: Default::default(),
        });
        let counts = &entity.cells[cell()];
        counts.hits.fetch_add(1, Ordering::Relaxed);
        if !present {
            counts.absent.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// For each entity its name, its hits, and how many of them were "no such row".
    pub(super) fn counted(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.0.iter().filter_map(OnceLock::get).map(|entity| {
            let sum = |count: fn(&Counts) -> &AtomicU64| {
                let counts = entity.cells.iter().map(count);
                counts.map(|count| count.load(Ordering::Relaxed)).sum()
            };
            let (hits, absent) = (sum(|counts| &counts.hits), sum(|counts| &counts.absent));
            (entity.name.as_str(), hits, absent)
        })
    }
}

/// The cell of this thread: threads that were started one after another have different ones.
#[inline]
fn cell() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static CELL: Cell<usize> = const { Cell::new(usize::MAX) });
    CELL.with(|cell| {
        if cell.get() == usize::MAX {
            cell.set(NEXT.fetch_add(1, Ordering::Relaxed) % CELLS);
        }
        cell.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_of_many_threads_add_up() {
        let hits = Hits::default();
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| (0..1_000).for_each(|n| assert!(hits.count(3, "city", n > 9))));
            }
        });
        assert!(hits.count(0, "country", true));
        assert!(!hits.count(ENTITIES as u32, "many", true));
        let counted: Vec<_> = hits.counted().collect();
        assert_eq!(counted, [("country", 1, 0), ("city", 20_000, 200)]);
    }
}
