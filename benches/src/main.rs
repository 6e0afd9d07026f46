//! What cached reads and their writes cost, beside what one would use or write instead.
//!
//! `cargo run --release -p sea-orm-cache-bench` takes less than three minutes and prints a table with one row for each
//! goal. It starts a Redis and a Postgres of its own, and ends with 1 if a goal is not reached, with 2 if it fails.
//!
//! - `--only WORD`: only the parts whose names contain the word
//! - `--smoke`: seconds; says nothing about speed, and only failure makes it end with another code than 0
//! - `--markdown`: prints the table for `docs/PERFORMANCE.md`

mod codec;
mod contest;
mod hits;
mod machine;
mod many;
mod memory;
mod misses;
mod model;
mod peers;
mod removal;
mod report;
mod servers;
mod sizes;
mod storm;
mod world;
mod writes;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};

use contest::Plan;
use report::{Row, Table};
use world::{Servers, World};

/// What may fail.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What the parts need.
struct Bench {
    plan: Plan,
    /// One thread: another core is left to Redis.
    spare: Stage,
    /// A thread for each of two cores.
    full: Stage,
}

/// A runtime and the world whose connections belong to it.
struct Stage {
    runtime: Runtime,
    world: Arc<World>,
}

type Part = fn(&Bench) -> Outcome<Vec<Row>>;

const PARTS: [(&str, Part); 14] = [
    ("l1", memory::hits),
    ("l1-threads", memory::threads),
    ("l2", hits::alone),
    ("l2-crowd", hits::crowds),
    ("l2-full", hits::full),
    ("many", many::rows),
    ("codec", codec::rows),
    ("size", sizes::rows),
    ("cold", misses::cold),
    ("miss", misses::one),
    ("storm", storm::rows),
    ("drop", writes::drops),
    ("write", writes::rows),
    ("remove", removal::rows),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[String]) -> Outcome<ExitCode> {
    if let [first, rest @ ..] = arguments
        && first == storm::CHILD
    {
        storm::child(rest)?;
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options::parse(arguments)?;
    let table = measure(&options)?;
    match options.markdown {
        true => table.print_markdown()?,
        false => table.print(),
    }
    match options.smoke || table.short() == 0 {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::from(1)),
    }
}

#[derive(Default)]
struct Options {
    only: Option<String>,
    smoke: bool,
    markdown: bool,
}

impl Options {
    fn parse(arguments: &[String]) -> Outcome<Self> {
        let mut options = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--smoke" => options.smoke = true,
                "--markdown" => options.markdown = true,
                "--only" => options.only = arguments.next().cloned(),
                other => return Err(format!("{other}? --only WORD, --smoke, --markdown").into()),
            }
        }
        Ok(options)
    }

    fn wants(&self, part: &str) -> bool {
        let word = self.only.as_deref().unwrap_or_default();
        part.contains(word)
    }
}

fn measure(options: &Options) -> Outcome<Table> {
    let parts: Vec<_> = PARTS
        .into_iter()
        .filter(|(name, _)| options.wants(name))
        .collect();
    if parts.is_empty() {
        let names = PARTS.map(|(name, _)| name).join(", ");
        return Err(format!("no such part; there are {names}").into());
    }
    eprintln!("servers and tables");
    let bench = Bench::open(options.smoke)?;
    let mut table = Table::default();
    for (name, part) in parts {
        eprintln!("{name}");
        table.0.extend(part(&bench)?);
    }
    Ok(table)
}

impl Bench {
    fn open(smoke: bool) -> Outcome<Self> {
        let plan = if smoke { Plan::SMOKE } else { Plan::FULL };
        let cities: Arc<[_]> = model::cities(plan.size(usize::MAX, 1_500))?.into();
        let runtime = runtime(1)?;
        let servers = Arc::new(runtime.block_on(Servers::start(&cities))?);
        let stage = |runtime: Runtime| -> Outcome<Stage> {
            let open = World::open(servers.clone(), cities.clone(), &plan);
            let world = Arc::new(runtime.block_on(open)?);
            Ok(Stage { runtime, world })
        };
        Ok(Self {
            spare: stage(runtime)?,
            full: stage(self::runtime(2)?)?,
            plan,
        })
    }
}

fn runtime(threads: usize) -> Outcome<Runtime> {
    let mut builder = Builder::new_multi_thread();
    Ok(builder.worker_threads(threads).enable_all().build()?)
}
