//! The servers that the other tests stand on.

use std::env;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use redis::Value;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::{self, Proxy, RedisServer};

/// Longer than any answer takes, shorter than a reader's patience.
const SILENCE: Duration = Duration::from_millis(300);

async fn ping(server: &RedisServer) -> Value {
    server.cli(&["PING"]).await
}

fn pong() -> Value {
    Value::SimpleString("PONG".to_owned())
}

#[tokio::test]
async fn each_test_has_an_empty_redis_of_its_own() {
    let first = support::redis().await;
    first.cli(&["SET", "key", "value"]).await;
    drop(first);

    let second = support::redis().await;
    assert_eq!(second.cli(&["DBSIZE"]).await, Value::Int(0));
}

#[tokio::test]
async fn a_killed_redis_refuses_and_returns_on_its_port_with_what_was_saved() {
    let server = support::redis().await;
    server.cli(&["SET", "saved", "1"]).await;
    server.cli(&["SAVE"]).await;
    server.cli(&["SET", "unsaved", "1"]).await;

    server.kill().await;
    let refused = TcpStream::connect(server.addr()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    server.restart().await;
    assert_eq!(server.cli(&["EXISTS", "saved"]).await, Value::Int(1));
    assert_eq!(server.cli(&["EXISTS", "unsaved"]).await, Value::Int(0));
}

#[tokio::test]
async fn a_paused_redis_is_silent_until_it_is_resumed() {
    let server = support::redis().await;
    let mut connection = server.connection().await;
    server.pause().await;
    let asked: Result<redis::RedisResult<()>, _> =
        timeout(SILENCE, redis::cmd("PING").exec_async(&mut connection)).await;
    assert!(asked.is_err());

    server.resume().await;
    assert_eq!(ping(&server).await, pong());
}

#[tokio::test]
async fn a_paused_redis_can_be_dropped() {
    let server = support::redis().await;
    server.pause().await;
}

/// Set in a process that starts servers and then waits to be killed, or for the end of its input.
const WAIT_TO_BE_KILLED: &str = "TEST_WAIT_TO_BE_KILLED";

/// The other side of the next test; by itself it does nothing.
#[tokio::test]
async fn a_process_that_waits_to_be_killed() {
    if env::var(WAIT_TO_BE_KILLED).is_err() {
        return;
    }
    let (redis, file) = (support::redis().await, support::sqlite().await);
    let postgres = support::postgres().await;
    let folder = file
        .url()
        .trim_start_matches("sqlite://")
        .split("/db.sqlite")
        .next()
        .unwrap();
    let at = postgres.url().split(['@', '/']).nth(3).unwrap();
    println!("\nservers {} {at} {folder}", redis.addr());
    io::stdin().read_line(&mut String::new()).unwrap();
}

#[tokio::test]
async fn nothing_outlives_a_killed_process() {
    let mut process = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "servers::a_process_that_waits_to_be_killed",
            "--nocapture",
        ])
        .env(WAIT_TO_BE_KILLED, "1")
        .env_remove("TEST_REDIS_URL")
        .env_remove("TEST_POSTGRES_URL")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let line = lines
        .find(|line| line.starts_with("servers "))
        .expect("it starts servers");
    let [_, redis, postgres, folder] = line.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{line}")
    };
    for address in [redis, postgres] {
        TcpStream::connect(address).await.unwrap();
    }

    process.kill().unwrap();
    process.wait().unwrap();
    let folder = PathBuf::from(folder);
    let gone = async {
        for address in [redis, postgres] {
            while TcpStream::connect(address).await.is_ok() {
                sleep(SILENCE / 10).await;
            }
        }
        while folder.exists() {
            sleep(SILENCE / 10).await;
        }
    };
    timeout(Duration::from_secs(30), gone)
        .await
        .expect("servers and folder go with the process");
}

async fn one_table_per_database(first: DatabaseConnection, second: DatabaseConnection) {
    for db in [first, second] {
        db.execute_unprepared("CREATE TABLE city (id INT)")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn each_test_has_an_empty_postgres_database() {
    let (first, second) = (support::postgres().await, support::postgres().await);
    assert_ne!(first.url(), second.url());
    one_table_per_database(first.connect().await, second.connect().await).await;
}

#[tokio::test]
async fn each_test_has_an_empty_mariadb_database() {
    let (first, second) = (support::mariadb().await, support::mariadb().await);
    assert_ne!(first.url(), second.url());
    one_table_per_database(first.connect().await, second.connect().await).await;
}

#[tokio::test]
async fn each_test_has_an_empty_sqlite_database() {
    let (first, second) = (support::sqlite().await, support::sqlite().await);
    one_table_per_database(first.connect().await, second.connect().await).await;
}

#[tokio::test]
async fn sqlite_databases_are_in_wal_mode() -> Result<(), DbErr> {
    let file = support::sqlite().await;
    let row = file
        .connect()
        .await
        .query_one_raw(statement("PRAGMA journal_mode"))
        .await?
        .unwrap();
    assert_eq!(row.try_get_by_index::<String>(0)?, "wal");
    Ok(())
}

fn statement(sql: &str) -> sea_orm::Statement {
    sea_orm::Statement::from_string(sea_orm::DbBackend::Sqlite, sql)
}

/// A Redis, a proxy before it, and a connection through it.
async fn proxied() -> (RedisServer, Proxy, redis::aio::MultiplexedConnection) {
    let server = support::redis().await;
    let proxy = Proxy::to(server.addr()).await;
    let client = redis::Client::open(proxy.redis_url()).unwrap();
    // Without the client's own time limits, which are not what is tested.
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .unwrap();
    (server, proxy, connection)
}

async fn ask(connection: &mut redis::aio::MultiplexedConnection) -> redis::RedisResult<String> {
    redis::cmd("PING").query_async(connection).await
}

#[tokio::test]
async fn a_delaying_proxy_delays_both_directions() {
    let (_server, proxy, mut connection) = proxied().await;
    proxy.delay(Duration::from_millis(50));
    let asked = Instant::now();
    assert_eq!(ask(&mut connection).await.unwrap(), "PONG");
    assert!(asked.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_stalled_proxy_holds_the_traffic_back_until_healed() {
    let (_server, proxy, mut connection) = proxied().await;
    proxy.stall();
    let mut asking = Box::pin(ask(&mut connection));
    assert!(timeout(SILENCE, &mut asking).await.is_err());
    proxy.heal().await;
    assert_eq!(asking.await.unwrap(), "PONG");
}

#[tokio::test]
async fn a_cut_ends_connections_and_lets_new_ones_through() {
    let (server, proxy, mut connection) = proxied().await;
    proxy.cut();
    assert!(ask(&mut connection).await.unwrap_err().is_io_error());

    let client = redis::Client::open(proxy.redis_url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    assert_eq!(ask(&mut connection).await.unwrap(), "PONG");
    assert_eq!(ping(&server).await, pong());
}

#[tokio::test]
async fn a_refusing_proxy_refuses_until_healed() {
    let (_server, proxy, mut connection) = proxied().await;
    proxy.refuse().await;
    assert!(ask(&mut connection).await.is_err());
    let refused = TcpStream::connect(proxy.addr()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    proxy.heal().await;
    let client = redis::Client::open(proxy.redis_url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    assert_eq!(ask(&mut connection).await.unwrap(), "PONG");
}
