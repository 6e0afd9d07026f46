//! Runs checks and reports on them as libtest would.

use std::fmt;
use std::fmt::Debug;
use std::hash::Hash;
use std::process::ExitCode;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Path};

/// A named check: what it finds is a line to print, or what is wrong.
pub struct Check {
    name: String,
    run: Box<dyn Fn() -> Result<String, String>>,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Check {
    /// Visits all states of a model: no property may be violated, and `unseen`, asked afterwards,
    /// must name nothing that should have been seen.
    pub fn holds<M>(name: &str, model: M, unseen: fn(&M) -> Vec<String>) -> Self
    where
        M: Model + Clone + Send + Sync + 'static,
        M::State: Clone + Debug + PartialEq + Hash + Send + Sync,
        M::Action: Clone + Debug + PartialEq,
    {
        let label = name.to_owned();
        let run = move || {
            let started = Instant::now();
            let checker = model
                .clone()
                .checker()
                .threads(THREADS)
                .finish_when(HasDiscoveries::AnyFailures)
                .spawn_dfs()
                .join();
            if let Some((property, path)) = checker.discoveries().into_iter().next() {
                return Err(format!("violated: {property}\n{}", all_steps(path)));
            }
            let unseen = unseen(checker.model());
            if !unseen.is_empty() {
                return Err(format!("never seen: {}", unseen.join(", ")));
            }
            Ok(format!(
                "model {label}: {} states (unique), {} steps, depth {}, {:.1} s, 0 violations",
                grouped(checker.unique_state_count()),
                grouped(checker.state_count()),
                checker.max_depth(),
                started.elapsed().as_secs_f64(),
            ))
        };
        Self {
            name: format!("holds::{name}"),
            run: Box::new(run),
        }
    }

    /// Looks for the shortest ways in which a mutant violates each of these properties. There must
    /// be one for each.
    pub fn violated<M>(name: &str, model: M, properties: &'static [&'static str]) -> Self
    where
        M: Model + Clone + Send + Sync + 'static,
        M::State: Clone + Debug + PartialEq + Hash + Send + Sync,
        M::Action: Clone + Debug + PartialEq,
    {
        let label = name.to_owned();
        let run = move || {
            let found = properties.iter().map(|property| {
                // One thread finds the shortest.
                let checker = model
                    .clone()
                    .checker()
                    .finish_when(HasDiscoveries::AnyOf([*property].into()))
                    .spawn_bfs()
                    .join();
                let states = grouped(checker.unique_state_count());
                let path = checker.discovery(property);
                let path = path.ok_or(format!("not violated in {states} states: {property}"))?;
                Ok(counterexample(&label, property, path))
            });
            let found: Result<Vec<String>, String> = found.collect();
            found.map(|lines| lines.join("\n  "))
        };
        Self {
            name: format!("violated::{name}"),
            run: Box::new(run),
        }
    }
}

fn counterexample<S, A: Debug>(label: &str, property: &str, path: Path<S, A>) -> String {
    const SHOWN: usize = 8;
    let steps = path.into_actions();
    let left_out = steps.len().saturating_sub(SHOWN);
    let shown = steps[left_out..].iter().map(|step| format!("{step:?}"));
    let dots = (left_out > 0).then(|| "..".to_owned());
    let shown: Vec<String> = dots.into_iter().chain(shown).collect();
    format!(
        "mutant {label}: counterexample of {} steps to \"{property}\": {}",
        steps.len(),
        shown.join(" "),
    )
}

/// How many threads visit states.
const THREADS: usize = 2;

fn all_steps<S: Debug, A: Debug>(path: Path<S, A>) -> String {
    let last = format!("{:?}", path.last_state());
    let steps = path.into_actions().into_iter();
    let lines = steps.map(|step| format!("  {step:?}"));
    lines.chain([last]).collect::<Vec<_>>().join("\n")
}

fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// What the command line asks for: filters and flags as libtest's.
#[derive(Default)]
struct Arguments {
    filters: Vec<String>,
    skipped: Vec<String>,
    exact: bool,
    list: bool,
    ignored: bool,
}

impl Arguments {
    /// Flags that are not known do nothing.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Self {
        let mut asked = Self::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--exact" => asked.exact = true,
                "--list" => asked.list = true,
                "--ignored" => asked.ignored = true,
                "--skip" => asked.skipped.extend(arguments.next()),
                "--test-threads" | "--color" | "--format" | "--logfile" | "-Z" => {
                    arguments.next();
                }
                flag if flag.starts_with('-') => {}
                _ => asked.filters.push(argument),
            }
        }
        asked
    }

    fn asks_for(&self, name: &str) -> bool {
        let matches = |filter: &String| {
            if self.exact {
                name == filter
            } else {
                name.contains(filter.as_str())
            }
        };
        let wanted = self.filters.is_empty() || self.filters.iter().any(matches);
        // None of these checks is marked as ignored.
        wanted && !self.skipped.iter().any(matches) && !self.ignored
    }
}

/// Runs the checks that the command line asks for.
pub fn run(checks: &[Check]) -> ExitCode {
    let arguments = Arguments::parse(std::env::args().skip(1));
    let asked = |check: &&Check| arguments.asks_for(&check.name);
    let asked: Vec<&Check> = checks.iter().filter(asked).collect();
    if arguments.list {
        for check in asked {
            println!("{}: test", check.name);
        }
        return ExitCode::SUCCESS;
    }
    report(&asked, checks.len() - asked.len())
}

fn report(checks: &[&Check], filtered: usize) -> ExitCode {
    let started = Instant::now();
    println!("\nrunning {} tests", checks.len());
    let mut failed = 0;
    for check in checks {
        match (check.run)() {
            Ok(line) => println!("test {} ... ok\n  {line}", check.name),
            Err(wrong) => {
                failed += 1;
                println!("test {} ... FAILED\n  {wrong}", check.name);
            }
        }
    }
    println!(
        "\ntest result: {}. {} passed; {failed} failed; 0 ignored; 0 measured; {filtered} filtered out; finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        checks.len() - failed,
        started.elapsed().as_secs_f64(),
    );
    ExitCode::from(u8::from(failed > 0))
}
