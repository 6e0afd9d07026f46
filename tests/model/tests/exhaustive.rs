//! The whole protocol, in every configuration: all states are visited, and no property is violated.

use std::process::ExitCode;

use sea_orm_cache_model::{Check, Protocol, configurations, run};

fn main() -> ExitCode {
    let checks = configurations::ALL
        .map(|config| Check::holds(config.name, Protocol::new(config), Protocol::unseen));
    run(&checks)
}
