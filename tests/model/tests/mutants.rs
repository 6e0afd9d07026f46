//! The protocol without one of its guards: the model must find what goes wrong then.

use std::process::ExitCode;

use sea_orm_cache_model::configurations as of;
use sea_orm_cache_model::tiered::{Guard as tier, Tiered, TieredConfig};
use sea_orm_cache_model::{Check, Config, Guard, Protocol, run};

fn main() -> ExitCode {
    let mutant =
        |name, config: Config, guard| Check::violated(name, Protocol::without(config, guard));
    let tiered =
        |name, config: TieredConfig, guard| Check::violated(name, Tiered::without(config, guard));
    let checks = [
        mutant("no lease", of::ROW_WRITES, Guard::Lease),
        mutant("no fence", of::ROW_WRITES, Guard::Fence),
        mutant(
            "a fence leaves leases",
            of::ROW_WRITES,
            Guard::FenceTakesLeases,
        ),
        mutant("fence without owner", of::ROW_WRITES, Guard::FenceHasOwner),
        mutant("counted fences", of::FAILURES, Guard::FenceIsNotCounted),
        mutant(
            "fence expires while its writer lives",
            of::ROW_WRITES,
            Guard::FenceIsRenewed,
        ),
        mutant(
            "a fence clears one build",
            of::TWO_BUILDS,
            Guard::FenceTakesAllBuilds,
        ),
        mutant(
            "settles on success only",
            of::FAILURES,
            Guard::SettleOnFailure,
        ),
        mutant(
            "settles while the fence stands only",
            of::EVICTIONS,
            Guard::SettleWithoutFence,
        ),
        mutant(
            "settles without an answer",
            of::TRANSACTIONS,
            Guard::NoSettleWithoutAnswer,
        ),
        mutant(
            "fences the statement instead of COMMIT",
            of::TRANSACTIONS,
            Guard::FenceAtCommit,
        ),
        mutant(
            "flights join by lease alone",
            of::BULK_WRITES,
            Guard::FlightComparesGenerations,
        ),
        mutant(
            "generations noted after the load",
            of::BULK_WRITES,
            Guard::NoteBeforeLoad,
        ),
        mutant("no run_id", of::SNAPSHOT, Guard::RootComparesRun),
        mutant(
            "a writer without fence dies",
            of::EVICTIONS,
            Guard::LostFenceWriterLives,
        ),
        mutant(
            "the database outlasts a dead writer's fence",
            of::ROW_WRITES,
            Guard::DatabaseEndsBeforeFence,
        ),
        tiered("tier without PING", of::TIER, tier::Ping),
        tiered("tier without placeholders", of::TIER, tier::Placeholder),
        tiered("tier ignores own writes", of::TIER, tier::OwnWrites),
        tiered(
            "tier takes values during own writes",
            of::TIER,
            tier::OwnFence,
        ),
        tiered(
            "tier survives its connection",
            of::TIER_AND_LOSS,
            tier::LossEmpties,
        ),
        tiered(
            "linearizable reads from the tier",
            of::TIER_AND_BULK_WRITES,
            tier::LinearizableSkips,
        ),
    ];
    run(&checks)
}
