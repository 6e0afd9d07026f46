//! Very many tasks ask for a cold key at the same moment.

use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use sea_orm_cache::{Cache, CachedConnection};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::model::city;
use crate::report::{Goal, Row};
use crate::world::connect;
use crate::{Bench, Outcome, runtime};

/// The first argument of a process that this one starts.
pub const CHILD: &str = "--child";

const TASKS: usize = 1_000;
const PROCESSES: usize = 4;

pub fn rows(bench: &Bench) -> Outcome<Vec<Row>> {
    let times = bench.plan.size(5, 1);
    // The worst of some storms.
    let worst = |storm: fn(&Bench, usize) -> Outcome<u64>| {
        let queries = (0..times).map(|n| storm(bench, n));
        queries.reduce(|a, b| Ok(a?.max(b?))).unwrap_or(Ok(0))
    };
    let row = |who, queries: u64| {
        let work = format!("cold key, {who}, queries");
        Row::figure(&work, queries as f64, "", Goal::Exactly(1.0))
    };
    Ok(vec![
        row("1,000 tasks", worst(in_one_process)?),
        row("4 processes of 250 tasks", worst(in_many_processes)?),
    ])
}

fn in_one_process(bench: &Bench, n: usize) -> Outcome<u64> {
    let (runtime, world) = (&bench.full.runtime, &bench.full.world);
    runtime.block_on(async {
        let cache = world.cache(&format!("storm{n}")).await?;
        let db = cache.attach(world.postgres.clone());
        storm(world.id(n), &db, TASKS).await?;
        Ok(cache.stats().entity("city").loads)
    })
}

/// All tasks are there before the first one reads.
async fn storm(id: i64, db: &CachedConnection, tasks: usize) -> Outcome<()> {
    let (start, mut running) = (Arc::new(Barrier::new(tasks)), JoinSet::new());
    for _ in 0..tasks {
        let (start, db) = (start.clone(), db.clone());
        running.spawn(async move {
            start.wait().await;
            city::Entity::cached_get(id, &db).await
        });
    }
    while let Some(done) = running.join_next().await {
        done??.ok_or("no such city")?;
    }
    Ok(())
}

fn in_many_processes(bench: &Bench, n: usize) -> Outcome<u64> {
    let world = &bench.full.world;
    let (redis, postgres) = (&world.servers.redis.url, &world.servers.postgres.url);
    let (id, prefix) = (world.id(n).to_string(), format!("storms{n}"));
    let start = |_| Process::start(&[redis, postgres, &prefix, &id]);
    let mut processes = (0..PROCESSES)
        .map(start)
        .collect::<Outcome<Vec<Process>>>()?;
    for process in &mut processes {
        process.line()?;
    }
    for process in &mut processes {
        process.stdin.write_all(b"go\n")?;
    }
    let loads = |process: &mut Process| Ok(process.line()?.trim().parse::<u64>()?);
    processes.iter_mut().map(loads).sum()
}

/// This program once more. It ends when this process does: at the end of its standard input.
struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(arguments: &[&str]) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(CHILD).args(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) = pipes.ok_or("no pipes to the process")?;
        let stdout = BufReader::new(stdout);
        Ok(Self {
            child,
            stdin,
            stdout,
        })
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says when it is ready, waits for its start, and says how many queries it sent.
pub fn child(arguments: &[String]) -> Outcome<()> {
    let [redis, postgres, prefix, id] = arguments else {
        return Err("not for use by hand".into());
    };
    let id = id.parse()?;
    runtime(2)?.block_on(async {
        let cache = Cache::builder().redis(redis).prefix(prefix);
        let cache = cache.build().await?;
        let db = cache.attach(connect(postgres).await?);
        writeln!(stdout(), "ready")?;
        if stdin().read_line(&mut String::new())? == 0 {
            return Ok(());
        }
        storm(id, &db, TASKS / PROCESSES).await?;
        writeln!(stdout(), "{}", cache.stats().entity("city").loads)?;
        Ok(())
    })
}
