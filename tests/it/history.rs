//! Several processes read and write one table in every way while servers, processes and the network fail, and every
//! answer is checked: each row's history must be that of a single register.
//!
//! The short form is a test like others. The long one, in rounds so that memory stays bounded:
//! `HISTORY_READS=20000000 cargo test --release --test it history::processes`. `HISTORY_SEED` repeats the choices
//! of a run, though not how its operations meet.
//!
//! Writes are `strict`, because an `available` one that cannot reach Redis makes no promise to other processes. And no
//! write lives through two faults, as CONSISTENCY.md has it.

mod book;
mod fleet;
mod judge;
mod judge_tests;
mod mutant;
mod reader;
mod record;
mod scene;
mod table;
mod worker;
mod writer;

use std::io::Write;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::time::sleep;

use book::Counts;
use mutant::Mutant;
use scene::{Fault, Scene};

const ROWS: i64 = 64;
const GROUPS: i32 = 8;

/// Of the short form, and of each round of the long one.
const READS: u64 = 1_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_never_read_stale_rows_whatever_fails() {
    let seed = setting("HISTORY_SEED").unwrap_or_else(|| fastrand::u64(..));
    let reads = setting("HISTORY_READS").unwrap_or(READS);
    let mut rng = Rng::with_seed(seed);
    let (started, mut all) = (Instant::now(), Counts::default());
    for round in 1..10_u64 {
        let counts = play((reads - all.reads).min(READS), &mut rng, seed).await;
        let last = all.reads + counts.reads >= reads;
        if !last {
            say(&format!("\nhistory, round {round}: {counts}\n"));
        }
        all.add(counts);
        if last {
            break;
        }
    }
    say(&format!("\nhistory in {:.0?}: {all}\n", started.elapsed()));
}

/// One round.
async fn play(reads: u64, rng: &mut Rng, seed: u64) -> Counts {
    let mut scene = Scene::set(ROWS, GROUPS, rng.u64(..)).await;
    scene.start_fleet();
    scene.fleet.move_on().await;
    while scene.reads() < reads {
        let faults = faults(rng);
        for (done, fault) in faults.iter().enumerate() {
            let amid = fault.is_worst_amid_writes() || rng.bool();
            scene.inflict(*fault, amid).await;
            // So that they are spread over a round.
            let due = reads * (done as u64 + 1) / faults.len() as u64;
            while scene.reads() < due {
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
    let (counts, kept) = scene.conclude(&seed.to_string()).await;
    if let Some(path) = kept {
        panic!("HISTORY_SEED={seed}: {counts}\nsee {}", path.display());
    }
    counts
}

/// `HISTORY_FAULT="Redis restarted empty"` is that one and no other.
fn faults(rng: &mut Rng) -> Vec<Fault> {
    let Ok(name) = std::env::var("HISTORY_FAULT") else {
        return Fault::all(rng);
    };
    let fault =
        Fault::named(&name).unwrap_or_else(|| panic!("HISTORY_FAULT={name}: no such fault"));
    vec![fault; 20]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_leases_is_found_out() {
    finds(Mutant::NoLease).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_fences_is_found_out() {
    finds(Mutant::NoFence).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_fences_belong_to_nobody_is_found_out() {
    finds(Mutant::SharedFence).await;
}

/// How long a mutant may remain undiscovered. Most are found in their first round; a round of two seconds misses one
/// of them about every other time, and on a busy machine more often.
const FOUND_WITHIN: Duration = Duration::from_secs(300);

async fn finds(mutant: Mutant) {
    let started = Instant::now();
    for round in 1_u64.. {
        let mut scene = Scene::set(4, 2, fastrand::u64(..)).await;
        scene.start_mutants(mutant);
        scene.fleet.move_on().await;
        sleep(Duration::from_secs(2 * round)).await;
        let (counts, kept) = scene.conclude(&mutant.to_string()).await;
        if kept.is_some() {
            let after = Duration::from_nanos(counts.found_after.unwrap_or_default());
            let text = format!(
                "\nhistory, {mutant}: found {after:.1?} after round {round}'s first write: {counts}\n"
            );
            return say(&text);
        }
        assert!(
            started.elapsed() < FOUND_WITHIN,
            "{mutant} was not found: {counts}"
        );
    }
}

/// Not `eprintln!`, which the test harness captures.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}
