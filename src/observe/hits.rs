//! Hits of the in-process tier, counted so that threads do not get in each other's way.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Entities with larger numbers are counted the ordinary way.
const ENTITIES: usize = 512;

/// So many threads at a time have a cell of their own.
const OWNED: usize = 16;

/// The others share these.
const SHARED: usize = 16;

const CELLS: usize = OWNED + SHARED;

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
        let cell = cell();
        let counts = &entity.cells[cell];
        add(&counts.hits, cell);
        if !present {
            add(&counts.absent, cell);
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

/// Nobody but its thread writes to a cell that is owned, and so needs no locked instruction.
#[inline]
fn add(counter: &AtomicU64, cell: usize) {
    if cell < OWNED {
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    } else {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The numbers of threads that have ended, and the first that no thread has had.
static FREE: Mutex<(BTreeSet<usize>, usize)> = Mutex::new((BTreeSet::new(), 0));

thread_local! {
    // Needs no destructor, so the normal call costs one plain load.
    static CELL: Cell<usize> = const { Cell::new(usize::MAX) };
    static NUMBER: Number = Number::take();
}

/// The cell of this thread.
#[inline]
fn cell() -> usize {
    match CELL.get() {
        usize::MAX => find_cell(),
        cell => cell,
    }
}

#[cold]
fn find_cell() -> usize {
    // A thread that is about to end has given its number back.
    let cell = NUMBER.try_with(Number::cell).unwrap_or(OWNED);
    CELL.set(cell);
    cell
}

/// The number of a thread, which no other has until it ends.
struct Number(usize);

impl Number {
    fn take() -> Self {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        Self(free.0.pop_first().unwrap_or_else(|| {
            free.1 += 1;
            free.1 - 1
        }))
    }

    fn cell(&self) -> usize {
        match self.0 {
            owned if owned < OWNED => owned,
            shared => OWNED + shared % SHARED,
        }
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        CELL.set(OWNED);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free.0.insert(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_of_many_threads_add_up() {
        let hits = Hits::default();
        std::thread::scope(|scope| {
            for _ in 0..3 * OWNED {
                scope.spawn(|| (0..1_000).for_each(|n| assert!(hits.count(3, "city", n > 9))));
            }
        });
        assert!(hits.count(0, "country", true));
        assert!(!hits.count(ENTITIES as u32, "many", true));
        let counted: Vec<_> = hits.counted().collect();
        assert_eq!(counted, [("country", 1, 0), ("city", 48_000, 480)]);
    }
}
