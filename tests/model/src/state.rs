//! Everything that the model remembers between two steps.

use crate::putter::Putter;
use crate::reader::Reader;
use crate::store::Store;
use crate::token::{Numbering, Token, Tokens};
use crate::writer::Writer;

/// How many readers there are at most.
pub const READERS: usize = 4;
/// How many writers there are at most.
pub const WRITERS: usize = 3;
/// How many putters there are at most.
pub const PUTTERS: usize = 3;
/// How many processes that read there are at most.
pub const PROCESSES: usize = 2;

/// A state of the whole system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// What is in the store.
    pub store: Store,
    /// The `run_id` of the store's server.
    pub run: u8,
    /// What the server would load if it were restarted now.
    pub snapshot: Option<Store>,
    /// For each process the root of its connection; none if it has no connection.
    pub roots: [Token; PROCESSES],
    /// The newest version of the row in the database.
    pub database: u8,
    /// The readers.
    pub readers: [Reader; READERS],
    /// The writers.
    pub writers: [Writer; WRITERS],
    /// Those who put values.
    pub putters: [Putter; PUTTERS],
    /// For each process, whether it has an invalidation of the row to deliver.
    pub journals: [bool; PROCESSES],
    /// What has happened to the environment.
    pub used: Used,
    /// What readers may rely on.
    pub history: History,
}

/// How often the environment has done what it may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Used {
    /// Keys evicted.
    pub evictions: u8,
    /// Restarts of the store.
    pub restarts: u8,
    /// Snapshots taken.
    pub snapshots: u8,
    /// Connections made, and looks at the root.
    pub connects: u8,
    /// Readers that died.
    pub reader_crashes: u8,
    /// Writers that died.
    pub writer_crashes: u8,
    /// Requests of writers that failed.
    pub outages: u8,
    /// Deliveries of what had failed.
    pub deliveries: u8,
    /// Values removed.
    pub removals: u8,
    /// Times at which values aged.
    pub ages: u8,
}

impl Used {
    /// All of it together.
    pub fn sum(self) -> u32 {
        let Self {
            evictions,
            restarts,
            snapshots,
            connects,
            reader_crashes,
            writer_crashes,
            outages,
            deliveries,
            removals,
            ages,
        } = self;
        [
            evictions,
            restarts,
            snapshots,
            connects,
            reader_crashes,
            writer_crashes,
            outages,
            deliveries,
            removals,
            ages,
        ]
        .into_iter()
        .map(u32::from)
        .sum()
    }
}

/// What has been acknowledged and returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// The newest version whose write was acknowledged.
    pub acknowledged: u8,
    /// The newest version that a finished read returned, other than those in `unfenced`.
    pub returned: u8,
    /// A bit for each version whose writer had lost its fence when it was committed, and has not
    /// acknowledged it yet: until it does, reads may go back behind that version.
    pub unfenced: u8,
    /// For each process a bit for each version that it has acknowledged without having told the
    /// others: neither its fence nor its settling had arrived.
    pub owed: [u8; PROCESSES],
    /// Whether a read returned a version older than its floor.
    pub stale_read: bool,
    /// Whether a valid value was taken away by who had found it to have aged.
    pub wasted: bool,
    /// How often a number was counted up since there was none: since it was evicted, removed or made
    /// stale.
    pub tally: u8,
}

impl History {
    /// What a read that starts now in this process must return, at least.
    pub fn floor(&self, process: usize) -> u8 {
        let owed = self.owed[process].checked_ilog2().unwrap_or(0);
        // A bit of eight, so the cast loses nothing.
        self.acknowledged.max(self.returned).max(owed as u8)
    }

    /// Notes that a read with this floor returned that version.
    pub fn finished(&mut self, floor: u8, version: u8) {
        self.stale_read |= version < floor;
        let sure = (0..=version)
            .rev()
            .find(|version| self.unfenced & 1 << version == 0);
        self.returned = self.returned.max(sure.unwrap_or(0));
    }

    /// Notes that the others have been told what a process owed them.
    pub fn pay(&mut self, process: usize) {
        let owed = std::mem::take(&mut self.owed[process]);
        for version in (0..8).filter(|version| owed & 1 << version != 0) {
            self.acknowledge(version);
        }
    }

    /// Notes that the write of a version was acknowledged.
    pub fn acknowledge(&mut self, version: u8) {
        self.acknowledged = self.acknowledged.max(version);
        self.unfenced &= !(1 << version);
    }
}

impl Tokens for State {
    fn tokens(&mut self, visit: &mut impl FnMut(&mut Token)) {
        self.store.tokens(visit);
        self.snapshot.tokens(visit);
        self.roots.tokens(visit);
        self.readers.tokens(visit);
        self.putters.tokens(visit);
    }
}

impl State {
    /// Numbers the tokens in the order in which they stand, and puts what is alike in one order:
    /// `alike(i, j)` says whether readers (or writers, or putters) `i` and `j` may change places.
    pub fn canonical(
        &mut self,
        readers_alike: impl Fn(usize, usize) -> bool,
        writers_alike: impl Fn(usize, usize) -> bool,
        putters_alike: impl Fn(usize, usize) -> bool,
    ) {
        let mut numbering = Numbering::default();
        numbering.number(&mut self.store);
        numbering.number(&mut self.snapshot);
        numbering.number(&mut self.roots);
        sort(&mut self.readers, &numbering, readers_alike);
        numbering.number(&mut self.readers);
        sort(&mut self.putters, &numbering, putters_alike);
        numbering.number(&mut self.putters);
        self.sort_writers(writers_alike);
    }

    fn sort_writers(&mut self, alike: impl Fn(usize, usize) -> bool) {
        for end in (1..WRITERS).rev() {
            for at in 0..end {
                if alike(at, at + 1) && self.writer_key(at) > self.writer_key(at + 1) {
                    self.writers.swap(at, at + 1);
                    self.fences(|fences| *fences = swapped(*fences, at));
                }
            }
        }
    }

    fn writer_key(&self, writer: usize) -> (Writer, u8) {
        let mut bits = 0;
        let mut copy = *self;
        copy.fences(|fences| bits = bits << 1 | (*fences >> writer & 1));
        (self.writers[writer], bits)
    }

    fn fences(&mut self, mut visit: impl FnMut(&mut u8)) {
        for store in [Some(&mut self.store), self.snapshot.as_mut()]
            .into_iter()
            .flatten()
        {
            visit(&mut store.row.fences);
            visit(&mut store.rows.fences);
        }
    }
}

/// Puts those that are alike in the order of what is the same under all names.
fn sort<T: Copy + Ord + Tokens, const N: usize>(
    items: &mut [T; N],
    numbering: &Numbering,
    alike: impl Fn(usize, usize) -> bool,
) {
    for end in (1..N).rev() {
        for at in 0..end {
            if alike(at, at + 1) {
                let [left, right] = [at, at + 1].map(|item| {
                    let mut key = items[item];
                    key.tokens(&mut |token| token.0 = numbering.peek(*token));
                    key
                });
                if left > right {
                    items.swap(at, at + 1);
                }
            }
        }
    }
}

/// With bits `at` and `at + 1` exchanged.
fn swapped(bits: u8, at: usize) -> u8 {
    let (low, high) = (bits >> at & 1, bits >> (at + 1) & 1);
    let others = bits & !(3 << at);
    others | low << (at + 1) | high << at
}
