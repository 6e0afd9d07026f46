//! What was seen to happen: a model in which nothing happens violates nothing.

use std::sync::atomic::{AtomicBool, Ordering};

macro_rules! sights {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Something that must be possible.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Sight { $($(#[$doc])* $name,)* }

        const SIGHTS: usize = [$(Sight::$name,)*].len();
    };
}

sights! {
    /// A value that was looked up answered a read.
    Hit,
    /// Somebody had filled the entry between look-up and lease.
    Coalesced,
    /// A value was found whose generation had gone.
    Outdated,
    /// A value was found that was cached under another root.
    ForeignRoot,
    /// The value that a snapshot brought back was older than an acknowledged write, and refused.
    OldSnapshotRefused,
    /// A read met a fence.
    Fenced,
    /// A load could not be stored because its generation was fenced.
    Unstorable,
    /// A fill was stored.
    Stored,
    /// A fill came too late.
    Superseded,
    /// A flight was joined.
    Joined,
    /// A flight could not be joined because it had noted another generation.
    NotJoined,
    /// A lease was taken over after its deadline.
    TakenOver,
    /// A reader gave up waiting.
    GaveUp,
    /// A writer died before its statement was carried out.
    DiedBeforeCommit,
    /// A writer died between its commit and the end of settling.
    DiedBeforeSettle,
    /// What a dead writer had sent was carried out after its death.
    LateCommit,
    /// A dead writer's fence expired.
    FenceExpired,
    /// A statement failed.
    Failed,
    /// A commit was carried out and reported as failed.
    FailedCommitHappened,
    /// A transaction was rolled back.
    RolledBack,
    /// A fence was lost while its writer lived.
    FenceLost,
    /// A write was committed whose fence had been lost.
    CommitWithoutFence,
    /// The store was restarted empty.
    RestartedEmpty,
    /// The store was restarted from a snapshot older than its last contents.
    RestartedOld,
    /// A fence did not arrive.
    FenceUndelivered,
    /// Settling did not arrive.
    SettleUndelivered,
    /// A read left the cache alone because of what its process could not deliver.
    Bypassed,
    /// What could not be delivered was.
    Delivered,
    /// Two builds had values under one key.
    TwoBuilds,
    /// A value was put that whoever reads it accepts.
    Put,
    /// A value was put that was stale by then.
    PutStale,
    /// A value was not put because what it depends on was fenced.
    PutFenced,
    /// A value was not put because its key was fenced, or held something else.
    PutSuperseded,
    /// `add` found a value.
    NotAdded,
    /// A number was counted up from another one.
    CountedOn,
    /// A value was given a new life.
    Touched,
    /// A value was removed.
    Removed,
    /// A reader found a value that had aged.
    Aged,
    /// A reader was answered with it while another one loaded.
    Revalidated,
    /// A reader was answered with it and loaded afterwards.
    Spawned,
    /// It was replaced by what was loaded.
    Refreshed,
    /// A reader was answered with it because the load failed.
    Rescued,
    /// The load failed, and it was no longer there, or stale.
    NotRescued,
}

/// What was seen in one check, by its number.
#[derive(Debug)]
pub struct Seen<const N: usize = SIGHTS>([AtomicBool; N]);

impl<const N: usize> Default for Seen<N> {
    fn default() -> Self {
        Self([const { AtomicBool::new(false) }; N])
    }
}

impl<const N: usize> Seen<N> {
    /// Notes a sight.
    pub fn note(&self, sight: usize) {
        let seen = &self.0[sight];
        if !seen.load(Ordering::Relaxed) {
            seen.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was seen.
    pub fn has(&self, sight: usize) -> bool {
        self.0[sight].load(Ordering::Relaxed)
    }
}
