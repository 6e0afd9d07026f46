//! Starts workers, listens to them, and ends them.

use std::collections::HashMap;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{sleep, timeout};

use super::book::Book;
use super::record::{OpId, Record};
use super::worker::{PLAN, Plan, REST};

/// How long every writer may take for what it has begun, whatever just happened.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Fleet {
    workers: Vec<Worker>,
    book: Arc<Mutex<Book>>,
    rng: Rng,
    started: u16,
}

struct Worker {
    plan: Plan,
    child: Child,
    orders: ChildStdin,
    listener: JoinHandle<()>,
}

impl Fleet {
    pub fn new(rows: i64, rng: Rng) -> Self {
        Self {
            workers: Vec::new(),
            book: Arc::new(Mutex::new(Book::new(rows))),
            rng,
            started: 0,
        }
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// Starts a worker with this plan, but a number and a seed of its own.
    pub fn start(&mut self, plan: Plan) {
        self.started += 1;
        let (process, seed) = (self.started, self.rng.u64(..));
        let plan = Plan {
            process,
            seed,
            ..plan
        };
        if plan.tiered {
            self.book().tiered.insert(process);
        }
        let worker = Worker::start(plan, Arc::clone(&self.book));
        self.workers.push(worker);
        self.book().counts.processes += 1;
    }

    /// Those that live and have such a plan.
    pub fn processes(&self, fits: impl Fn(&Plan) -> bool) -> Vec<u16> {
        let plans = self.workers.iter().map(|worker| &worker.plan);
        plans
            .filter(|plan| fits(plan))
            .map(|plan| plan.process)
            .collect()
    }

    /// One of them, chosen at random.
    pub fn any(&mut self, fits: impl Fn(&Plan) -> bool) -> u16 {
        let processes = self.processes(fits);
        processes[self.rng.usize(..processes.len())]
    }

    /// Sends a signal to a process that lives.
    pub fn signal(&self, process: u16, name: &str) {
        let worker = self.workers.iter().find(|w| w.plan.process == process);
        let id = worker.expect("it runs").child.id();
        let kill = format!("kill -s {name} {id}");
        let sent = Command::new("/bin/sh").args(["-c", &kill]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{kill}");
    }

    /// SIGKILL. What it told before is in the book.
    pub fn kill(&mut self, process: u16) -> Plan {
        let place = self.workers.iter().position(|w| w.plan.process == process);
        let mut worker = self.workers.remove(place.expect("it runs"));
        worker.child.kill().expect("it runs");
        worker.child.wait().expect("it is ours");
        worker.listener.join().expect("what it told is sound");
        worker.plan
    }

    /// Waits until every writing task of every worker has begun a new operation, so that none is under way that was
    /// when this was called.
    pub async fn move_on(&self) {
        let before = self.last_begun();
        let moved = async {
            while self
                .last_begun()
                .iter()
                .any(|(task, op)| before.get(task) == Some(op))
            {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let moved = timeout(PATIENCE, moved).await;
        moved.unwrap_or_else(|_| panic!("a writer is stuck: {:?}", self.last_begun()));
    }

    /// Of every task that lives.
    fn last_begun(&self) -> HashMap<i64, OpId> {
        let book = self.book();
        let tasks = self.workers.iter().flat_map(|worker| {
            (0..worker.plan.writers).map(|task| OpId::first(worker.plan.process, task).task())
        });
        tasks
            .map(|task| (task, book.begun.get(&task).copied().unwrap_or_default()))
            .collect()
    }

    /// No more writes.
    pub fn rest(&mut self) {
        for worker in &mut self.workers {
            writeln!(worker.orders, "{REST}").expect("it runs");
        }
    }

    /// Lets all end in order.
    pub async fn end(&mut self) {
        for mut worker in self.workers.drain(..) {
            writeln!(worker.orders, "end").expect("it runs");
            while !worker.listener.is_finished() {
                sleep(Duration::from_millis(5)).await;
            }
            let status = worker.child.wait().expect("it is ours");
            assert!(status.success(), "worker {}: {status}", worker.plan.process);
            worker.listener.join().expect("what it told is sound");
        }
    }
}

impl Worker {
    fn start(plan: Plan, book: Arc<Mutex<Book>>) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "history::worker::a_worker_process",
                "--nocapture",
            ])
            .env(PLAN, plan.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be run again");
        let (orders, told) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let process = plan.process;
        let listener = std::thread::spawn(move || listen(process, told, &book));
        Self {
            plan,
            child,
            orders,
            listener,
        }
    }
}

fn listen(process: u16, told: ChildStdout, book: &Mutex<Book>) {
    let mut told = BufReader::with_capacity(1 << 16, told);
    let mut line = String::new();
    while told.read_line(&mut line).unwrap_or(0) > 0 {
        if let Some(record) = Record::parse(&line) {
            book.lock().unwrap().take(process, record);
        }
        line.clear();
    }
}
