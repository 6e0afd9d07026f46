//! The configurations that are checked. Each is small, and visited completely.

use crate::model::{Config, ReaderKind, WriterKind};
use crate::putter::PutterKind;
use crate::seen::Sight;
use crate::store::Key;
use crate::tiered::{Level, TieredConfig, TieredReader, TieredSight, TieredWriter};

const fn reader(process: usize, build: usize) -> ReaderKind {
    ReaderKind { process, build }
}

const fn writer(keys: &'static [Key]) -> WriterKind {
    WriterKind {
        keys,
        transaction: false,
        process: 0,
    }
}

const fn transaction(keys: &'static [Key]) -> WriterKind {
    WriterKind {
        keys,
        transaction: true,
        process: 0,
    }
}

const ROW: &[Key] = &[Key::Row];
const ROWS: &[Key] = &[Key::Rows];
const BOTH: &[Key] = &[Key::Row, Key::Rows];

const NOTHING: Config = Config {
    name: "",
    readers: &[],
    writers: &[],
    putters: &[],
    generations: false,
    reads: 1,
    polls: 1,
    reader_crashes: 0,
    writer_crashes: 0,
    failures: false,
    evictions: 0,
    removals: 0,
    ages: 0,
    outages: 0,
    restarts: 0,
    snapshots: 0,
    only_old_restarts: false,
    sights: &[],
};

/// Leases, flights, fences: three readers in two processes, three writers of the row, deaths.
pub const ROW_WRITES: Config = Config {
    name: "row writes",
    readers: &[reader(0, 0), reader(0, 0), reader(1, 0)],
    writers: &[writer(ROW), writer(ROW), writer(ROW)],
    reader_crashes: 1,
    writer_crashes: 2,
    sights: &[
        Sight::Hit,
        Sight::Coalesced,
        Sight::Fenced,
        Sight::Stored,
        Sight::Superseded,
        Sight::Joined,
        Sight::TakenOver,
        Sight::GaveUp,
        Sight::DiedBeforeCommit,
        Sight::DiedBeforeSettle,
        Sight::LateCommit,
        Sight::FenceExpired,
    ],
    ..NOTHING
};

/// Generations: a writer of the row and a bulk writer, deaths.
pub const BULK_WRITES: Config = Config {
    name: "bulk writes",
    readers: &[reader(0, 0), reader(0, 0), reader(1, 0)],
    writers: &[writer(ROW), writer(ROWS)],
    generations: true,
    reader_crashes: 1,
    writer_crashes: 1,
    sights: &[
        Sight::Hit,
        Sight::Outdated,
        Sight::Fenced,
        Sight::Unstorable,
        Sight::Stored,
        Sight::Superseded,
        Sight::Joined,
        Sight::NotJoined,
    ],
    ..NOTHING
};

/// Evictions and a restart without any data.
pub const EVICTIONS: Config = Config {
    name: "evictions and an empty restart",
    readers: &[reader(0, 0), reader(1, 0)],
    writers: &[writer(ROW), writer(ROWS)],
    generations: true,
    writer_crashes: 1,
    evictions: 1,
    restarts: 1,
    sights: &[
        Sight::Hit,
        Sight::Outdated,
        Sight::FenceLost,
        Sight::CommitWithoutFence,
        Sight::RestartedEmpty,
        Sight::FenceExpired,
    ],
    ..NOTHING
};

/// A restart from an old snapshot, which the root's change makes worthless, and an eviction.
pub const SNAPSHOT: Config = Config {
    name: "old snapshot",
    readers: &[reader(0, 0), reader(1, 0)],
    writers: &[writer(ROW), writer(ROW)],
    reads: 2,
    evictions: 1,
    restarts: 1,
    snapshots: 1,
    only_old_restarts: true,
    sights: &[
        Sight::Hit,
        Sight::ForeignRoot,
        Sight::OldSnapshotRefused,
        Sight::FenceLost,
        Sight::RestartedOld,
    ],
    ..NOTHING
};

/// Two builds of the service.
pub const TWO_BUILDS: Config = Config {
    name: "two builds",
    readers: &[reader(0, 0), reader(0, 0), reader(1, 1), reader(1, 1)],
    writers: &[writer(ROW), writer(ROW)],
    writer_crashes: 1,
    sights: &[Sight::TwoBuilds, Sight::Hit, Sight::Superseded],
    ..NOTHING
};

/// Transactions that fence several keys, are rolled back, fail, or are committed late.
pub const TRANSACTIONS: Config = Config {
    name: "transactions",
    readers: &[reader(0, 0), reader(1, 0)],
    writers: &[transaction(BOTH), transaction(ROW)],
    generations: true,
    writer_crashes: 1,
    failures: true,
    sights: &[
        Sight::RolledBack,
        Sight::Failed,
        Sight::FailedCommitHappened,
        Sight::LateCommit,
        Sight::DiedBeforeSettle,
        Sight::FenceExpired,
    ],
    ..NOTHING
};

/// Statements that fail, and fences that are evicted.
pub const FAILURES: Config = Config {
    name: "failures and evictions",
    readers: &[reader(0, 0), reader(0, 0), reader(1, 0)],
    writers: &[writer(ROW), writer(ROW)],
    writer_crashes: 1,
    failures: true,
    evictions: 2,
    sights: &[
        Sight::Failed,
        Sight::FailedCommitHappened,
        Sight::FenceLost,
        Sight::CommitWithoutFence,
    ],
    ..NOTHING
};

/// Requests of writers that fail, under `available`.
pub const OUTAGES: Config = Config {
    name: "outages",
    readers: &[reader(0, 0), reader(0, 0), reader(1, 0)],
    writers: &[
        writer(ROW),
        WriterKind {
            process: 1,
            ..writer(ROW)
        },
    ],
    writer_crashes: 1,
    outages: 2,
    sights: &[
        Sight::FenceUndelivered,
        Sight::SettleUndelivered,
        Sight::Bypassed,
        Sight::Delivered,
        Sight::CommitWithoutFence,
        Sight::Hit,
    ],
    ..NOTHING
};

/// A value that is put: it depends on what a bulk writer changes and on another key, which is put, too.
pub const PUTS: Config = Config {
    name: "puts",
    readers: &[reader(0, 0), reader(1, 0)],
    writers: &[writer(ROWS)],
    putters: &[PutterKind::Set, PutterKind::SetOther],
    generations: true,
    writer_crashes: 1,
    evictions: 1,
    sights: &[
        Sight::Hit,
        Sight::Put,
        Sight::PutStale,
        Sight::PutFenced,
        Sight::Superseded,
    ],
    ..NOTHING
};

/// Values that are put under a key that a writer fences, beside loads of two builds.
pub const PUTS_UNDER_FENCES: Config = Config {
    name: "puts under fences",
    readers: &[reader(0, 0), reader(1, 1), reader(1, 1)],
    writers: &[writer(ROW)],
    putters: &[PutterKind::Set, PutterKind::Set],
    reader_crashes: 1,
    writer_crashes: 1,
    evictions: 1,
    sights: &[
        Sight::Hit,
        Sight::Put,
        Sight::PutSuperseded,
        Sight::Superseded,
    ],
    ..NOTHING
};

/// Two that `incr`, beside a load, a bulk writer, a removal and an eviction.
pub const INCRS: Config = Config {
    name: "incr and incr",
    readers: &[reader(0, 0)],
    writers: &[writer(ROWS)],
    putters: &[PutterKind::Incr, PutterKind::Incr],
    generations: true,
    evictions: 1,
    removals: 1,
    sights: &[
        Sight::Hit,
        Sight::Put,
        Sight::PutStale,
        Sight::PutFenced,
        Sight::PutSuperseded,
        Sight::CountedOn,
        Sight::Removed,
    ],
    ..NOTHING
};

/// Two that `add`, beside the same.
pub const ADDS: Config = Config {
    name: "add and add",
    putters: &[PutterKind::Add, PutterKind::Add],
    sights: &[
        Sight::Hit,
        Sight::Put,
        Sight::PutStale,
        Sight::PutSuperseded,
        Sight::NotAdded,
    ],
    ..INCRS
};

/// One of each, beside the same without the removal.
pub const NUMBERS: Config = Config {
    name: "add, incr and touch",
    putters: &[PutterKind::Add, PutterKind::Incr, PutterKind::Touch],
    removals: 0,
    sights: &[
        Sight::Hit,
        Sight::Put,
        Sight::PutStale,
        Sight::NotAdded,
        Sight::CountedOn,
        Sight::Touched,
    ],
    ..INCRS
};

/// Values past their ttl: who answers with them, who loads, and writers of the row and in bulk.
pub const AGED: Config = Config {
    name: "aged values",
    readers: &[reader(0, 0), reader(0, 0), reader(1, 0)],
    writers: &[writer(ROW), writer(ROWS)],
    generations: true,
    ages: 1,
    sights: &[
        Sight::Aged,
        Sight::Revalidated,
        Sight::Spawned,
        Sight::Refreshed,
        Sight::Rescued,
        Sight::NotRescued,
        Sight::Outdated,
        Sight::Superseded,
    ],
    ..NOTHING
};

/// The same with one writer of the row; who loads and who writes may die.
pub const AGED_AND_DEATHS: Config = Config {
    name: "aged values and deaths",
    writers: &[writer(ROW)],
    reader_crashes: 1,
    writer_crashes: 1,
    evictions: 1,
    sights: &[
        Sight::Revalidated,
        Sight::Refreshed,
        Sight::Rescued,
        Sight::NotRescued,
        Sight::DiedBeforeSettle,
        Sight::TakenOver,
    ],
    ..AGED
};

/// All of them.
pub const ALL: [Config; 15] = [
    ROW_WRITES,
    BULK_WRITES,
    EVICTIONS,
    SNAPSHOT,
    TWO_BUILDS,
    TRANSACTIONS,
    FAILURES,
    OUTAGES,
    PUTS,
    PUTS_UNDER_FENCES,
    INCRS,
    ADDS,
    NUMBERS,
    AGED,
    AGED_AND_DEATHS,
];

const fn bounded(reads: u8) -> TieredReader {
    TieredReader {
        level: Level::Bounded,
        reads,
    }
}

const LINEARIZABLE: TieredReader = TieredReader {
    level: Level::Linearizable,
    reads: 1,
};

const fn own_writer(key: Key) -> TieredWriter {
    TieredWriter { key, own: true }
}

const fn other_writer(key: Key) -> TieredWriter {
    TieredWriter { key, own: false }
}

/// The in-process tier: two readers, a writer in the same process and one in another.
pub const TIER: TieredConfig = TieredConfig {
    name: "in-process tier",
    readers: &[bounded(2), bounded(1)],
    writers: &[other_writer(Key::Row), own_writer(Key::Row)],
    generations: false,
    max_silence: 1,
    ticks: 2,
    evictions: 0,
    losses: 0,
    sights: &[
        TieredSight::TierHit,
        TieredSight::OldTierHit,
        TieredSight::Silent,
        TieredSight::Pushed,
        TieredSight::Kept,
        TieredSight::NotKept,
    ],
};

/// The same with a connection that is lost, half open at first, and an eviction.
pub const TIER_AND_LOSS: TieredConfig = TieredConfig {
    name: "in-process tier and lost connection",
    writers: &[other_writer(Key::Row)],
    evictions: 1,
    losses: 1,
    ..TIER
};

/// The in-process tier and a bulk writer; one of the readers is not content with it.
pub const TIER_AND_BULK_WRITES: TieredConfig = TieredConfig {
    name: "in-process tier and bulk writes",
    readers: &[bounded(2), LINEARIZABLE],
    writers: &[other_writer(Key::Rows)],
    generations: true,
    ..TIER
};

/// All with an in-process tier.
pub const TIERED: [TieredConfig; 3] = [TIER, TIER_AND_LOSS, TIER_AND_BULK_WRITES];
