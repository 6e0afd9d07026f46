//! The whole protocol, in every configuration: all states are visited, and no property is violated.

use std::process::ExitCode;

use sea_orm_cache_model::tiered::Tiered;
use sea_orm_cache_model::{Check, Protocol, configurations, run};

fn main() -> ExitCode {
    let whole = configurations::ALL
        .map(|config| Check::holds(config.name, Protocol::new(config), Protocol::unseen));
    let tiered = configurations::TIERED
        .map(|config| Check::holds(config.name, Tiered::new(config), Tiered::unseen));
    let checks: Vec<Check> = whole.into_iter().chain(tiered).collect();
    run(&checks)
}
