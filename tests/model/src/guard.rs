//! What keeps the protocol safe, one guard each: a mutant is the same model without one of them.

/// A guard of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// A fill is stored only while its lease stands.
    Lease,
    /// A writer fences before its statement is sent.
    Fence,
    /// A fence takes leases away.
    FenceTakesLeases,
    /// Each writer has a fence of its own; without: all share one field.
    FenceHasOwner,
    /// Fences are told apart; without: they are counted.
    FenceIsNotCounted,
    /// A fence stands while its writer lives.
    FenceIsRenewed,
    /// A fence takes away the values of all builds.
    FenceTakesAllBuilds,
    /// A writer settles whatever the database answered.
    SettleOnFailure,
    /// A writer settles also when its fence has gone.
    SettleWithoutFence,
    /// A writer whose connection to the database broke fences once more and leaves its fences to
    /// expire: that is no answer, the commit may still happen.
    NoSettleWithoutAnswer,
    /// A transaction fences before COMMIT; without: around each of its statements.
    FenceAtCommit,
    /// A flight is joined only if it noted the same generations.
    FlightComparesGenerations,
    /// Generations are noted before the database is read.
    NoteBeforeLoad,
    /// The root changes when the server's `run_id` does.
    RootComparesRun,
    /// A reader waits for another's load only so long.
    WaitIsBounded,
    /// An invalidation that could not be delivered is kept until it is.
    Journal,
    /// While it is kept, its process leaves the cache alone for its key.
    Bypass,
    /// A put is not stored while a fence stands on its key.
    PutMindsFences,
    /// A put takes leases away.
    PutTakesLeases,
    /// A put takes away the values of all builds.
    PutTakesAllBuilds,
    /// A put takes away the generation beside the value.
    PutTakesGeneration,
    /// What a value that is put depends on is noted before that value is known.
    NoteBeforePut,
    /// `add` and `incr` note what they depend on after they have read what stands there, and before they look
    /// whether it is valid; without: after both.
    NoteBeforeLook,
    /// `add` stores only over what it has read.
    AddIsConditional,
    /// `incr` stores only over what it has read.
    IncrIsConditional,
    /// `touch` stores only over what it has read.
    TouchIsConditional,
    /// What `incr` counts on from is what it has read.
    LookFindsTheSame,
    /// `add` and `incr` take nothing away when what they depend on is fenced.
    FencedTakesNothing,
    /// A value that has aged is judged like any other.
    AgedIsJudged,
    /// A fence takes away values that have aged.
    FenceTakesAged,
    /// Who asks for a lease leaves a value that has aged where it is.
    AgedStays,
    /// Who answers with an aged value because its load failed looks it up once more first.
    RescueLooksAgain,
    /// Assumption: a writer whose fence was lost before its commit does not die before it settles.
    LostFenceWriterLives,
    /// Assumption: what a dead writer had sent to the database ends before its fence expires.
    DatabaseEndsBeforeFence,
}
