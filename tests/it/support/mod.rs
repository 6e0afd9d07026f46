//! Real servers for the tests.
//!
//! Where a server comes from, in this order:
//! 1. a URL in `TEST_REDIS_URL`, `TEST_POSTGRES_URL` or `TEST_MARIADB_URL`. The SQL ones must name an account that may
//!    create databases; each test makes its own and drops it. **The Redis one is flushed before every test**, and
//!    its tests run one after the other.
//! 2. Docker, if its engine answers within two seconds. `TEST_REDIS_IMAGE` and the like choose other images.
//! 3. Server programs of this machine; `TEST_REDIS_PROGRAM` and the like name others than those on PATH.
//!
//! `TEST_SERVERS=docker` or `TEST_SERVERS=local` forces one of the last two. Every test has its own Redis, because
//! FLUSHALL, CONFIG, client tracking and outages are global; SQL servers are started once per process, and a test
//! has its own database. Clusters and sentinels are always programs of this machine. Nothing outlives the test process, however it ends: see [`keeper`].

mod docker;
mod fleet;
mod keeper;
mod local;
pub mod proxy;
mod servers;

use std::env;
use std::io::{self, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, LazyLock};

use tokio::sync::{Mutex, OnceCell, OwnedMutexGuard};

pub use fleet::{Cluster, Node, Sentinel, Watched};
pub use local::redis_program;
pub use proxy::Proxy;
pub use servers::{Database, PostgresServer, RedisServer, Shutdown};

/// A Redis (or Valkey) server for this test alone.
pub async fn redis() -> RedisServer {
    RedisServer::start().await
}

/// An empty cluster for this test alone. It is started once, and may not be stopped: for that start one
/// of your own.
pub async fn cluster() -> Turn<Cluster> {
    static CLUSTER: OnceCell<Arc<Mutex<Cluster>>> = OnceCell::const_new();
    // A busy machine may leave a server without time for seconds: nobody is to take over from it.
    let patient = ["--cluster-node-timeout", "60000"];
    let start = async || Arc::new(Mutex::new(Cluster::start_with(&patient).await));
    let turn = Turn::at(CLUSTER.get_or_init(start).await).await;
    turn.flush().await;
    turn
}

/// A sentinel with an empty server for this test alone, shared as [`cluster`] is.
pub async fn sentinel() -> Turn<Watched> {
    static WATCHED: OnceCell<Arc<Mutex<Watched>>> = OnceCell::const_new();
    let start = async || Arc::new(Mutex::new(Watched::start().await));
    let turn = Turn::at(WATCHED.get_or_init(start).await).await;
    turn.flush().await;
    turn
}

/// What tests share, while it is this test's.
#[derive(Debug)]
pub struct Turn<T> {
    guard: OwnedMutexGuard<T>,
}

impl<T> Turn<T> {
    async fn at(shared: &Arc<Mutex<T>>) -> Self {
        let guard = Arc::clone(shared).lock_owned().await;
        Self { guard }
    }
}

impl<T> std::ops::Deref for Turn<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

/// An empty Postgres database for this test alone.
pub async fn postgres() -> Database {
    Database::on(Kind::Postgres).await
}

/// A Postgres server for this test alone, which it may stop.
pub async fn postgres_server() -> PostgresServer {
    PostgresServer::start().await
}

/// An empty MariaDB (or MySQL) database for this test alone.
pub async fn mariadb() -> Database {
    Database::on(Kind::Mariadb).await
}

/// An empty SQLite database in a file, in WAL mode.
pub async fn sqlite() -> Database {
    Database::sqlite().await
}

/// The servers that the tests know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Redis,
    Postgres,
    Mariadb,
}

impl Kind {
    /// As in `TEST_<NAME>_URL`.
    fn name(self) -> &'static str {
        match self {
            Kind::Redis => "REDIS",
            Kind::Postgres => "POSTGRES",
            Kind::Mariadb => "MARIADB",
        }
    }

    /// The server that the environment gives.
    fn given_url(self) -> Option<String> {
        env::var(format!("TEST_{}_URL", self.name())).ok()
    }

    /// Of the server on this loopback port, with its administrator's account.
    fn url(self, port: u16) -> String {
        match self {
            Kind::Redis => format!("redis://127.0.0.1:{port}/"),
            Kind::Postgres => format!("postgres://postgres@127.0.0.1:{port}/postgres"),
            Kind::Mariadb => format!("mysql://root@127.0.0.1:{port}/mysql"),
        }
    }
}

/// What becomes of a stopped server's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Files {
    MayGo,
    Stay,
}

/// Who runs the servers that the environment does not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    Docker,
    Local,
}

/// Chosen, and printed, once.
static BACKEND: LazyLock<Result<Backend, String>> = LazyLock::new(|| {
    let engine = docker::engine_version();
    let backend = match (env::var("TEST_SERVERS").as_deref(), &engine) {
        (Ok("docker") | Err(_), Some(_)) => Backend::Docker,
        (Ok("local"), _) | (Err(_), None) => Backend::Local,
        (Ok("docker"), None) => {
            return Err("TEST_SERVERS=docker, but no engine answers `docker version`".to_owned());
        }
        (Ok(other), _) => return Err(format!("TEST_SERVERS={other}: it is docker or local")),
    };
    let words = match backend {
        Backend::Docker => format!("docker (engine {})", engine.unwrap_or_default()),
        Backend::Local => format!("local programs ({})", local::versions()),
    };
    // Not `eprintln!`, which the test harness captures.
    let _ = writeln!(io::stderr(), "test servers: {words}");
    Ok(backend)
});

/// A free loopback port that no client's socket will be given: those start at 32768.
fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..)));
    loop {
        let port = 20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
