//! The protocol without one of its guards: the model must find what goes wrong then.

use std::process::ExitCode;

use sea_orm_cache_model::configurations as of;
use sea_orm_cache_model::tiered::{self, BOUNDED, LINEARIZABLE, TIER_FRESH_AT_REST, Tiered};
use sea_orm_cache_model::{
    AGED_STAYS, Check, Config, FRESH_AT_REST, Guard, NO_STALE_READ, NONE_IS_STUCK, NOTHING_LOST,
    Protocol, run,
};

type Properties = &'static [&'static str];

const BOTH: Properties = &[NO_STALE_READ, FRESH_AT_REST];
const READS: Properties = &[NO_STALE_READ];
const REST: Properties = &[FRESH_AT_REST];
const COUNTS: Properties = &[NOTHING_LOST];

const MUTANTS: &[(&str, Config, Guard, Properties)] = &[
    ("no lease", of::ROW_WRITES, Guard::Lease, BOTH),
    ("no fence", of::ROW_WRITES, Guard::Fence, BOTH),
    (
        "a fence leaves leases",
        of::ROW_WRITES,
        Guard::FenceTakesLeases,
        BOTH,
    ),
    (
        "a fence without owner",
        of::ROW_WRITES,
        Guard::FenceHasOwner,
        BOTH,
    ),
    (
        "counted fences",
        of::FAILURES,
        Guard::FenceIsNotCounted,
        BOTH,
    ),
    (
        "a fence expires while its writer lives",
        of::ROW_WRITES,
        Guard::FenceIsRenewed,
        BOTH,
    ),
    (
        "a fence clears one build",
        of::TWO_BUILDS,
        Guard::FenceTakesAllBuilds,
        BOTH,
    ),
    (
        "settles on success only",
        of::FAILURES,
        Guard::SettleOnFailure,
        BOTH,
    ),
    (
        "settles while its fence stands only",
        of::FAILURES,
        Guard::SettleWithoutFence,
        BOTH,
    ),
    (
        "settles without an answer",
        of::FAILURES,
        Guard::NoSettleWithoutAnswer,
        BOTH,
    ),
    (
        "fences the statement instead of COMMIT",
        of::TRANSACTIONS,
        Guard::FenceAtCommit,
        BOTH,
    ),
    (
        "flights join by lease alone",
        of::BULK_WRITES,
        Guard::FlightComparesGenerations,
        READS,
    ),
    (
        "generations noted after the load",
        of::BULK_WRITES,
        Guard::NoteBeforeLoad,
        BOTH,
    ),
    ("no run_id", of::SNAPSHOT, Guard::RootComparesRun, BOTH),
    ("no journal", of::OUTAGES, Guard::Journal, REST),
    (
        "no bypass while the journal holds",
        of::OUTAGES,
        Guard::Bypass,
        READS,
    ),
    (
        "waits without end",
        of::ROW_WRITES,
        Guard::WaitIsBounded,
        &[NONE_IS_STUCK],
    ),
    (
        "a put under a fence",
        of::PUTS_UNDER_FENCES,
        Guard::PutMindsFences,
        BOTH,
    ),
    (
        "a put leaves leases",
        of::PUTS_UNDER_FENCES,
        Guard::PutTakesLeases,
        BOTH,
    ),
    (
        "a put clears one build",
        of::PUTS_UNDER_FENCES,
        Guard::PutTakesAllBuilds,
        BOTH,
    ),
    (
        "a put leaves its generation",
        of::PUTS,
        Guard::PutTakesGeneration,
        BOTH,
    ),
    (
        "a put notes after its value",
        of::PUTS,
        Guard::NoteBeforePut,
        BOTH,
    ),
    (
        "add notes after it has looked",
        of::ADDS,
        Guard::NoteBeforeLook,
        BOTH,
    ),
    (
        "incr notes after it has looked",
        of::INCRS,
        Guard::NoteBeforeLook,
        &[NO_STALE_READ, FRESH_AT_REST, NOTHING_LOST],
    ),
    (
        "add without its condition",
        of::ADDS,
        Guard::AddIsConditional,
        COUNTS,
    ),
    (
        "incr without its seal",
        of::INCRS,
        Guard::IncrIsConditional,
        COUNTS,
    ),
    (
        "touch without its seal",
        of::NUMBERS,
        Guard::TouchIsConditional,
        COUNTS,
    ),
    (
        "incr counts on from what it has not read",
        of::INCRS,
        Guard::LookFindsTheSame,
        COUNTS,
    ),
    (
        "a fenced add settles",
        of::ADDS,
        Guard::FencedTakesNothing,
        COUNTS,
    ),
    (
        "a fenced incr settles",
        of::INCRS,
        Guard::FencedTakesNothing,
        COUNTS,
    ),
    (
        "aged values are not judged",
        of::AGED,
        Guard::AgedIsJudged,
        READS,
    ),
    (
        "a fence leaves aged values",
        of::AGED_AND_DEATHS,
        Guard::FenceTakesAged,
        BOTH,
    ),
    (
        "a lease takes the aged value",
        of::AGED,
        Guard::AgedStays,
        &[AGED_STAYS],
    ),
    (
        "a failed load answers with what was seen",
        of::AGED,
        Guard::RescueLooksAgain,
        READS,
    ),
    (
        "assumption: a writer that lost its fence lives",
        of::FAILURES,
        Guard::LostFenceWriterLives,
        REST,
    ),
    (
        "assumption: the database ends before the fence",
        of::ROW_WRITES,
        Guard::DatabaseEndsBeforeFence,
        BOTH,
    ),
];

const TIERED: &[(&str, tiered::TieredConfig, tiered::Guard, Properties)] = &[
    (
        "tier without PING",
        of::TIER,
        tiered::Guard::Ping,
        &[BOUNDED],
    ),
    (
        "tier without placeholders",
        of::TIER,
        tiered::Guard::Placeholder,
        &[BOUNDED, TIER_FRESH_AT_REST],
    ),
    (
        "tier ignores own writes",
        of::TIER,
        tiered::Guard::OwnWrites,
        &[BOUNDED, TIER_FRESH_AT_REST],
    ),
    (
        "tier survives its connection",
        of::TIER_AND_LOSS,
        tiered::Guard::LossEmpties,
        &[BOUNDED, TIER_FRESH_AT_REST],
    ),
    (
        "linearizable reads from the tier",
        of::TIER_AND_BULK_WRITES,
        tiered::Guard::LinearizableSkips,
        &[LINEARIZABLE],
    ),
];

fn main() -> ExitCode {
    let protocol = MUTANTS.iter().map(|&(name, config, guard, properties)| {
        Check::violated(name, Protocol::without(config, guard), properties)
    });
    let tiered = TIERED.iter().map(|&(name, config, guard, properties)| {
        Check::violated(name, Tiered::without(config, guard), properties)
    });
    let checks: Vec<Check> = protocol.chain(tiered).collect();
    run(&checks)
}
