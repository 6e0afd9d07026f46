//! A Redis per test, a database per test.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use std::{fs, thread};

use redis::aio::MultiplexedConnection;
use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection, DbErr};
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, OnceCell, OwnedMutexGuard};
use tokio::time::{sleep, timeout};

use super::docker::Container;
use super::local::Process;
use super::{BACKEND, Backend, Files, Kind, free_port, keeper};

/// How long a server may take to answer after its start.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// Never ends, unlike the tests' own runtimes: what belongs to servers that outlive a test lives here.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime starts"));

/// Runs it on [`RUNTIME`], and fails this test if it fails.
async fn run<T: Send + 'static>(
    future: impl Future<Output = Result<T, String>> + Send + 'static,
) -> T {
    match RUNTIME.spawn(future).await {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => panic!("{error}"),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// A server of ours that answers.
#[derive(Debug)]
struct Server {
    kind: Kind,
    port: u16,
    host: Option<Host>,
}

#[derive(Debug)]
enum Host {
    Docker(Container),
    Local(Process),
}

impl Server {
    async fn start(kind: Kind, files: Files) -> Result<Self, String> {
        let mut attempts = 3;
        loop {
            let port = free_port();
            let host = Some(Host::start(kind, port, files).await?);
            let server = Self { kind, port, host };
            match server.wait().await {
                Ok(()) => return Ok(server),
                // Another process may have taken the port in the meantime.
                Err(_) if server.has_ended() && attempts > 1 => attempts -= 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn url(&self) -> String {
        self.kind.url(self.port)
    }

    fn host(&self) -> &Host {
        self.host.as_ref().expect("taken by drop only")
    }

    /// By itself.
    fn has_ended(&self) -> bool {
        matches!(self.host(), Host::Local(process) if process.has_ended())
    }

    /// Until it answers.
    async fn wait(&self) -> Result<(), String> {
        let deadline = Instant::now() + ANSWERS_WITHIN;
        loop {
            let ended = self.has_ended();
            let pinged = match ended {
                true => Err("it has ended".to_owned()),
                false => ping(self.kind, &self.url()).await,
            };
            match pinged {
                Ok(()) => return Ok(()),
                Err(error) if ended || Instant::now() > deadline => {
                    return Err(self.failure(&error).await);
                }
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// Starts again what was ended, and waits until it answers.
    async fn restart(&self) -> Result<(), String> {
        match self.host() {
            Host::Docker(container) => container.restart().await.map_err(|e| e.to_string())?,
            Host::Local(process) => process.restart()?,
        }
        self.wait().await
    }

    async fn failure(&self, error: &str) -> String {
        let log = match self.host() {
            Host::Docker(container) => container.log().await,
            Host::Local(process) => process.log(),
        };
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(30)..].join("\n");
        format!(
            "the {:?} server on port {} does not answer: {error}\n{tail}",
            self.kind, self.port
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(Host::Docker(container)) = self.host.take() {
            RUNTIME.spawn(container.remove());
        }
    }
}

impl Host {
    async fn start(kind: Kind, port: u16, files: Files) -> Result<Self, String> {
        match BACKEND.clone()? {
            Backend::Docker => {
                let started = Container::start(kind, port, files).await;
                started.map(Host::Docker)
            }
            Backend::Local => {
                let started = tokio::task::spawn_blocking(move || Process::start(kind, port));
                started.await.map_err(|e| e.to_string())?.map(Host::Local)
            }
        }
    }
}

/// Whether the server there answers.
async fn ping(kind: Kind, url: &str) -> Result<(), String> {
    let answer = async {
        match kind {
            Kind::Redis => command(url, &["PING"])
                .await
                .map(drop)
                .map_err(|e| e.to_string()),
            _ => admin(url, "SELECT 1").await.map_err(|e| e.to_string()),
        }
    };
    timeout(Duration::from_secs(3), answer)
        .await
        .unwrap_or_else(|_| Err("no answer".to_owned()))
}

pub(super) async fn command(url: &str, words: &[&str]) -> redis::RedisResult<redis::Value> {
    let mut connection = redis::Client::open(url)?
        .get_multiplexed_async_connection()
        .await?;
    let mut command = redis::Cmd::new();
    command.arg(words);
    command.query_async(&mut connection).await
}

/// One statement on a connection of its own.
async fn admin(url: &str, sql: &str) -> Result<(), DbErr> {
    let db = sea_orm::Database::connect(options(url, 1)).await?;
    let done = db.execute_unprepared(sql).await;
    db.close().await?;
    done.map(drop)
}

fn options(url: &str, connections: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options.max_connections(connections).sqlx_logging(false);
    options.connect_timeout(Duration::from_secs(2));
    // Without them sqlx starts no maintenance, whose count of idle connections may fall below zero in a
    // race, after which it spins for ever (sqlx-core 0.9.0).
    options.idle_timeout(None).max_lifetime(None);
    options
}

/// A Redis (or Valkey) server with nothing in it.
#[derive(Debug)]
pub struct RedisServer {
    url: String,
    source: RedisSource,
}

#[derive(Debug)]
enum RedisSource {
    /// One that the environment gives, for one test at a time.
    Given {
        _turn: OwnedMutexGuard<()>,
    },
    Own(Arc<Server>),
}

impl RedisServer {
    pub(super) async fn start() -> Self {
        match Kind::Redis.given_url() {
            Some(url) => Self::given(url).await,
            None => {
                let server = run(Server::start(Kind::Redis, Files::Stay)).await;
                Self {
                    url: server.url(),
                    source: RedisSource::Own(Arc::new(server)),
                }
            }
        }
    }

    async fn given(url: String) -> Self {
        static TURN: LazyLock<Arc<Mutex<()>>> = LazyLock::new(Arc::default);
        let turn = timeout(Duration::from_secs(300), Arc::clone(&TURN).lock_owned()).await;
        let _turn = turn.expect("TEST_REDIS_URL gives one server, and this test waits for two");
        command(&url, &["FLUSHALL"])
            .await
            .expect("the server of TEST_REDIS_URL can be flushed");
        Self {
            url,
            source: RedisSource::Given { _turn },
        }
    }

    /// Without a database number.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `host:port`.
    pub fn addr(&self) -> String {
        let client = redis::Client::open(self.url()).expect("it was opened before");
        client.get_connection_info().addr().to_string()
    }

    /// A connection of its own.
    pub async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("it was opened before");
        client
            .get_multiplexed_async_connection()
            .await
            .expect("the server answers")
    }

    /// Sends one command on a connection of its own.
    pub async fn cli(&self, words: &[&str]) -> redis::Value {
        command(self.url(), words)
            .await
            .unwrap_or_else(|e| panic!("{words:?}: {e}"))
    }

    /// Ends the server at once. What SAVE wrote is there after [`restart`](Self::restart), nothing else.
    pub async fn kill(&self) {
        self.control(|server| async move {
            match server.host() {
                Host::Docker(container) => container.kill().await.map_err(|e| e.to_string()),
                Host::Local(process) => process.kill().map_err(|e| e.to_string()),
            }
        })
        .await;
    }

    /// Starts the killed server on its old port, and waits until it answers.
    pub async fn restart(&self) {
        self.control(|server| async move { server.restart().await })
            .await;
    }

    /// Connections stay open and are accepted, and nothing answers.
    pub async fn pause(&self) {
        self.control(|server| async move {
            match server.host() {
                Host::Docker(container) => container.pause().await.map_err(|e| e.to_string()),
                Host::Local(process) => process.pause().map_err(|e| e.to_string()),
            }
        })
        .await;
    }

    /// Ends the pause, and waits until the server answers.
    pub async fn resume(&self) {
        self.control(|server| async move {
            match server.host() {
                Host::Docker(container) => container.resume().await.map_err(|e| e.to_string())?,
                Host::Local(process) => process.resume().map_err(|e| e.to_string())?,
            }
            server.wait().await
        })
        .await;
    }

    async fn control<F>(&self, act: impl FnOnce(Arc<Server>) -> F)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let RedisSource::Own(server) = &self.source else {
            panic!("this test stops its Redis, which that of TEST_REDIS_URL must not be: unset it");
        };
        run(act(Arc::clone(server))).await;
    }
}

/// A Postgres server that a test may stop.
#[derive(Debug)]
pub struct PostgresServer(Arc<Server>);

/// How a Postgres server ends.
#[derive(Clone, Copy, Debug)]
pub enum Shutdown {
    /// It ends its sessions, and then in order.
    Fast,
    /// At once; it recovers when it is started again.
    Immediate,
}

impl PostgresServer {
    pub(super) async fn start() -> Self {
        Self(Arc::new(
            run(Server::start(Kind::Postgres, Files::Stay)).await,
        ))
    }

    /// `host:port`.
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.0.port)
    }

    /// A new database, in which what was committed outlives any [`Shutdown`].
    pub async fn database(&self) -> Database {
        let admin_url = self.0.url();
        run(async move {
            let database = Database::create_on(Kind::Postgres, &admin_url).await?;
            let name = name_in(database.url());
            let lasting = format!("ALTER DATABASE {name} SET synchronous_commit = on");
            let done = admin(&admin_url, &lasting).await;
            done.map_err(|e| e.to_string())?;
            Ok(database)
        })
        .await
    }

    /// Ends the server.
    pub async fn stop(&self, how: Shutdown) {
        let server = Arc::clone(&self.0);
        run(async move {
            match (server.host(), how) {
                (Host::Docker(container), Shutdown::Fast) => {
                    container.stop().await.map_err(|e| e.to_string())
                }
                (Host::Docker(container), Shutdown::Immediate) => {
                    container.kill().await.map_err(|e| e.to_string())
                }
                (Host::Local(process), Shutdown::Fast) => {
                    process.stop("INT").map_err(|e| e.to_string())
                }
                (Host::Local(process), Shutdown::Immediate) => {
                    process.stop("QUIT").map_err(|e| e.to_string())
                }
            }
        })
        .await;
    }

    /// Starts the stopped server on its old port, and waits until it answers.
    pub async fn restart(&self) {
        let server = Arc::clone(&self.0);
        run(async move { server.restart().await }).await;
    }
}

/// An empty database.
#[derive(Debug)]
pub struct Database {
    url: String,
    left: Leftover,
}

/// What a database leaves to be removed.
#[derive(Debug)]
enum Leftover {
    /// Its server goes with this process.
    Nothing,
    Folder(PathBuf),
    /// By this statement, on the server with this URL.
    Schema {
        admin: String,
        drop: String,
    },
}

impl Database {
    pub(super) async fn on(kind: Kind) -> Self {
        run(Self::create(kind)).await
    }

    async fn create(kind: Kind) -> Result<Self, String> {
        let Some(admin_url) = kind.given_url() else {
            return Self::create_on(kind, &server(kind).await?.url()).await;
        };
        let database = Self::create_on(kind, &admin_url).await?;
        let name = name_in(&database.url);
        let force = if kind == Kind::Postgres {
            " WITH (FORCE)"
        } else {
            ""
        };
        let drop = format!("DROP DATABASE {name}{force}");
        let left = Leftover::Schema {
            admin: admin_url,
            drop,
        };
        Ok(Self {
            url: database.url.clone(),
            left,
        })
    }

    /// On a server of ours: nothing has to be removed.
    async fn create_on(kind: Kind, admin_url: &str) -> Result<Self, String> {
        let name = format!("it_{:016x}", fastrand::u64(..));
        let how = match kind {
            Kind::Postgres => "TEMPLATE template0",
            _ => "CHARACTER SET utf8mb4",
        };
        let created = admin(admin_url, &format!("CREATE DATABASE {name} {how}")).await;
        created.map_err(|e| format!("no new database on {admin_url}: {e}"))?;
        Ok(Self {
            url: with_database(admin_url, &name),
            left: Leftover::Nothing,
        })
    }

    pub(super) async fn sqlite() -> Self {
        let folder = keeper::new_folder("sqlite");
        let url = format!("sqlite://{}/db.sqlite?mode=rwc", folder.display());
        // The mode stays with the file.
        admin(&url, "PRAGMA journal_mode = WAL")
            .await
            .expect("an SQLite file can be made");
        Self {
            url,
            left: Leftover::Folder(folder),
        }
    }

    /// As `sea_orm::Database::connect` takes it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A pool of up to ten connections.
    pub async fn connect(&self) -> DatabaseConnection {
        sea_orm::Database::connect(options(self.url(), 10))
            .await
            .expect("the database answers")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.left, Leftover::Nothing) {
            Leftover::Nothing => {}
            Leftover::Folder(folder) => drop(fs::remove_dir_all(folder)),
            Leftover::Schema { admin: url, drop } => {
                // Waited for, because the process may end after this test. On a thread, because this one may be a
                // runtime's, which must not block on another.
                let _ = thread::spawn(move || RUNTIME.block_on(admin(&url, &drop))).join();
            }
        }
    }
}

/// The one server of this kind in this process, started by the first test that asks.
async fn server(kind: Kind) -> Result<&'static Server, String> {
    static POSTGRES: OnceCell<Server> = OnceCell::const_new();
    static MARIADB: OnceCell<Server> = OnceCell::const_new();
    let cell = if kind == Kind::Postgres {
        &POSTGRES
    } else {
        &MARIADB
    };
    cell.get_or_try_init(|| Server::start(kind, Files::MayGo))
        .await
}

/// The database that the URL names.
fn name_in(url: &str) -> &str {
    let front = url.split('?').next().unwrap_or_default();
    front.rsplit('/').next().unwrap_or_default()
}

/// The URL with another database.
fn with_database(url: &str, name: &str) -> String {
    let (front, query) = match url.split_once('?') {
        Some((front, query)) => (front, format!("?{query}")),
        None => (url, String::new()),
    };
    let host = front.find("://").map_or(0, |at| at + 3);
    let end = front[host..].find('/').map_or(front.len(), |at| host + at);
    format!("{}/{name}{query}", &front[..end])
}
