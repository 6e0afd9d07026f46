//! Where the figures come from.

use std::fs;
use std::process::Command;

use crate::{Outcome, servers};

const LOCK: &str = include_str!("../../Cargo.lock");

const PACKAGES: [&str; 13] = [
    "sea-orm-cache",
    "sea-orm",
    "redis",
    "tokio",
    "quick_cache",
    "moka",
    "cached",
    "hitbox",
    "hitbox-redis",
    "foyer",
    "serde_json",
    "rmp-serde",
    "sqlx",
];

/// The machine, the date and all versions.
pub fn describe() -> Outcome<String> {
    let packages: Vec<_> = PACKAGES
        .iter()
        .map(|name| format!("{name} {}", locked(name)))
        .collect();
    Ok(format!(
        "{date}. {cpu}, {cores} cores, Linux {kernel}. Redis {redis}, Postgres {postgres}. {packages}.",
        date = output("date", &["-u", "+%F"])?,
        cpu = cpu()?,
        cores = std::thread::available_parallelism()?,
        kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        redis = servers::version("redis-server")?,
        postgres = servers::version("postgres")?,
        packages = packages.join(", "),
    ))
}

fn output(program: &str, arguments: &[&str]) -> Outcome<String> {
    let output = Command::new(program).args(arguments).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn cpu() -> Outcome<String> {
    let info = fs::read_to_string("/proc/cpuinfo")?;
    let model = info.lines().find(|line| line.starts_with("model name"));
    let name = model.and_then(|line| line.split_once(": "));
    Ok(name.map_or("unknown CPU", |(_, name)| name).to_owned())
}

/// The version in the lock file that this program was built with.
fn locked(name: &str) -> &'static str {
    let head = format!("name = \"{name}\"\nversion = \"");
    let version = LOCK.split_once(&head).map(|(_, rest)| rest);
    version
        .and_then(|rest| rest.split('"').next())
        .unwrap_or("?")
}
