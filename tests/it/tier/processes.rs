//! Real processes: one writes, one has an in-process tier, and between that one and Redis is a proxy that can be
//! frozen.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use sea_orm::ActiveModelTrait;
use sea_orm_cache::Cache;

use crate::outages::{name, rename, with_paris};
use crate::support::{self, Proxy};

use super::{MAX_SILENCE, stats, tiered};

/// What a child is: `proxy <target>` or `reader <redis> <database>`.
const ROLE: &str = "TIER_CHILD";

#[tokio::test]
async fn the_write_of_one_empties_the_tier_of_the_other_and_a_frozen_connection_ends_it() {
    let redis = support::redis().await;
    let database = support::sqlite().await;
    let raw = with_paris(&database).await;
    let writer = Cache::builder().redis(redis.url()).build().await.unwrap();
    let writer = writer.attach(raw);
    let mut proxy = Process::start(&format!("proxy {}", redis.addr()));
    let port = proxy.hear();
    let url = format!("redis://127.0.0.1:{port}/");
    let mut reader = Process::start(&format!("reader {url} {}", database.url()));
    assert_eq!(reader.hear(), "ready");

    reader.reads_from_its_tier("PARIS");
    let mut slowest = Duration::ZERO;
    for round in 0..20 {
        let new = format!("round {round}");
        rename(&new).update(&writer).await.unwrap();
        let written = Instant::now();
        while reader.read().0 != new {
            assert!(written.elapsed() < MAX_SILENCE);
        }
        slowest = slowest.max(written.elapsed());
        reader.reads_from_its_tier(&new);
    }

    proxy.freeze();
    let frozen = Instant::now();
    rename("while frozen").update(&writer).await.unwrap();
    let written = Instant::now();
    let mut last_hit = Duration::ZERO;
    while frozen.elapsed() < MAX_SILENCE * 3 {
        let asked = Instant::now();
        let (answer, hit) = reader.read();
        if hit {
            last_hit = asked - frozen;
        }
        assert!(
            answer == "while frozen" || asked - written < MAX_SILENCE,
            "{answer}, {:?} after the write",
            asked - written
        );
    }
    assert!(last_hit > Duration::ZERO, "it did not answer at all");
    assert!(
        last_hit < MAX_SILENCE,
        "it answered {last_hit:?} after the freeze"
    );
    proxy.signal("CONT");
    reader.reads_from_its_tier("while frozen");
    let text = format!(
        "\ntier: the other process saw a write after {slowest:.1?} at most; the last answer after the freeze came \
         {last_hit:.0?} after it, of {MAX_SILENCE:?}\n"
    );
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}

/// A child of this process. It ends when its input does.
struct Process {
    child: Child,
    orders: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Process {
    fn start(role: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "tier::processes::a_child", "--nocapture"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be run again");
        let orders = child.stdin.take().unwrap();
        let told = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            orders,
            told,
        }
    }

    /// The next thing that it says to us, and not libtest.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.told.read_line(&mut line).unwrap(), 0, "it has ended");
            if let Some(said) = line.trim_end().strip_prefix("> ") {
                return said.to_owned();
            }
        }
    }

    /// What a reader answers, and whether its tier did.
    fn read(&mut self) -> (String, bool) {
        writeln!(self.orders, "read").unwrap();
        let said = self.hear();
        let (hit, answer) = said.split_once(' ').unwrap();
        (answer.to_owned(), hit == "hit")
    }

    fn reads_from_its_tier(&mut self, expected: &str) {
        let begun = Instant::now();
        loop {
            let (answer, hit) = self.read();
            assert_eq!(answer, expected);
            if hit {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20));
        }
    }

    /// It is stopped when this returns.
    fn freeze(&self) {
        self.signal("STOP");
        let stat = format!("/proc/{}/stat", self.child.id());
        let stopped = || std::fs::read_to_string(&stat).unwrap().contains(") T ");
        while !stopped() {
            std::thread::yield_now();
        }
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} {}", self.child.id());
        let sent = Command::new("/bin/sh").args(["-c", &kill]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{kill}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other side; by itself it does nothing.
#[test]
fn a_child() {
    let Ok(role) = env::var(ROLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    match words[..] {
        ["proxy", target] => runtime.block_on(proxy(target)),
        ["reader", redis, database] => runtime.block_on(read(redis, database)),
        _ => panic!("what is {role}?"),
    }
}

fn say(what: &str) {
    println!("\n> {what}");
}

async fn proxy(target: &str) {
    let proxy = Proxy::to(target).await;
    let addr = proxy.addr();
    say(addr.rsplit(':').next().unwrap());
    let end = tokio::task::spawn_blocking(|| std::io::stdin().lock().lines().count());
    end.await.unwrap();
}

async fn read(redis: &str, database: &str) {
    let cache = tiered(redis.to_owned()).build().await.unwrap();
    let db = cache.attach(sea_orm::Database::connect(database).await.unwrap());
    say("ready");
    loop {
        let next = tokio::task::spawn_blocking(|| std::io::stdin().lock().lines().next());
        if next.await.unwrap().is_none() {
            return;
        }
        let before = stats(&db).l1_hits;
        let answer = name(&db).await;
        let hit = if stats(&db).l1_hits > before {
            "hit"
        } else {
            "miss"
        };
        say(&format!("{hit} {answer}"));
    }
}
