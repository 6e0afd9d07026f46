//! What only a server can do to a store: lose scripts, data, connections and itself.

use std::time::Instant;

use redis::{ConnectionLike, cmd};
use sea_orm_cache::store::{Replies, StoreError};

use super::server::free_port;
use super::*;

async fn connect(server: &Server) -> RedisStore {
    let store = RedisStore::connect(&server.url(), patient()).await;
    store.expect("a connection")
}

async fn root(store: &RedisStore) -> Token {
    store.run(vec![]).await.expect("an answer").root
}

/// Runs one harmless op.
async fn ping(store: &RedisStore) -> Result<Replies, StoreError> {
    store.run(vec![read_op(&key("ping"), A)]).await
}

fn run_raw(server: &Server, words: &[&str]) -> redis::Value {
    let mut command = cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    server.raw().req_command(&command).expect("an answer")
}

fn number(server: &Server, words: &[&str]) -> i64 {
    match run_raw(server, words) {
        redis::Value::Int(number) => number,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn connections_so_far(server: &Server) -> u64 {
    let info: redis::InfoDict =
        redis::from_redis_value(run_raw(server, &["INFO", "stats"])).expect("information");
    info.get("total_connections_received").expect("a number")
}

/// A field that is named by a small fingerprint.
fn field(name: &str, field: Fingerprint) -> String {
    assert!(field.0 < 26);
    let letter = char::from(b'A' + field.0 as u8);
    format!("{name}:AAAAAAAAAA{letter}")
}

#[tokio::test]
async fn scripts_that_the_server_lost_are_loaded_again_and_the_order_is_kept() {
    let server = Server::start();
    let store = connect(&server).await;
    let k = key("flushed");
    put(&store, &k, A, "v", LONG).await;
    run_raw(&server, &["SCRIPT", "FLUSH"]);

    let writer = Token::random();
    let (key, ttl) = (k.clone(), LONG);
    let batch = vec![
        read_op(&k, A),
        Op::Fence { key, writer, ttl },
        read_op(&k, A),
        acquire_op(&k, A, writer, LONG),
        Op::Settle {
            key: k.clone(),
            writer,
        },
        acquire_op(&k, A, writer, LONG),
    ];
    let replies = vec![
        Reply::Value(Some("v".into())),
        Reply::Done,
        Reply::Value(None),
        Reply::Acquired(Acquired::Fenced),
        Reply::Done,
        Reply::Acquired(Acquired::Granted),
    ];
    assert_eq!(run(&store, batch).await, replies);
}

/// How many scripts it was asked to run.
fn scripts_run(server: &Server) -> u64 {
    let info: String =
        redis::from_redis_value(run_raw(server, &["INFO", "commandstats"])).expect("information");
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    let calls = line.and_then(|line| line.split(',').next());
    calls.map_or(0, |calls| calls.parse().expect("a number"))
}

/// Writers' fences and settles on many keys, with other operations between them, do what each would alone.
async fn many_at_once(server: &Server, store: &RedisStore) {
    let keys: Vec<Key> = (0..250).map(|n| key(&format!("many:{n}"))).collect();
    let (one, other) = (Token::random(), Token::random());
    for key in &keys {
        put(store, key, A, "v", LONG).await;
    }
    run_raw(server, &["SET", keys[7].as_str(), "not ours"]);
    fence(store, &keys[3], other, LONG).await;

    let fences = |writer| {
        let fence = move |key: &Key| Op::Fence {
            key: key.clone(),
            writer,
            ttl: LONG,
        };
        keys.iter().map(fence)
    };
    let settles = |writer| {
        let settle = move |key: &Key| Op::Settle {
            key: key.clone(),
            writer,
        };
        keys.iter().map(settle)
    };
    let mut batch: Vec<Op> = fences(one).collect();
    batch.push(read_op(&keys[0], A));
    batch.push(acquire_op(&keys[249], A, Token::random(), LONG));
    batch.extend(settles(one).take(200));
    batch.extend(settles(other).skip(200));
    let replies = run(store, batch).await;
    assert_eq!(replies.len(), 502);
    assert_eq!(replies[250], Reply::Value(None));
    assert_eq!(replies[251], Reply::Acquired(Acquired::Fenced));
    for (at, reply) in replies.iter().enumerate() {
        assert!(
            *reply == Reply::Done || at == 250 || at == 251,
            "{at}: {reply:?}"
        );
    }

    // Another's fence stands before the 200th, and the writer's own behind it.
    for (at, key) in keys.iter().enumerate() {
        let expected = match at == 3 || at >= 200 {
            true => Acquired::Fenced,
            false => Acquired::Granted,
        };
        assert_eq!(acquire(store, key, A, one).await, expected, "{at}");
    }
}

#[tokio::test]
async fn fences_and_settles_of_a_writer_are_a_command_for_each_hundred() {
    let server = Server::start();
    let store = connect(&server).await;
    many_at_once(&server, &store).await;

    let keys = (0..250).map(|n| key(&format!("counted:{n}")));
    let writer = Token::random();
    let batch = keys.map(|key| Op::Settle { key, writer }).collect();
    let before = scripts_run(&server);
    run(&store, batch).await;
    assert_eq!(scripts_run(&server) - before, 3);
}

/// As a proxy does that has a cluster behind it.
#[tokio::test]
async fn where_keys_of_several_slots_are_refused_each_key_is_a_command() {
    let bus = free_port().to_string();
    let server = Server::start_with(&["--cluster-enabled", "yes", "--cluster-port", &bus]);
    run_raw(&server, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let whole = async || {
        let info = run_raw(&server, &["CLUSTER", "INFO"]);
        let info: String = redis::from_redis_value(info).expect("information");
        info.contains("cluster_state:ok")
    };
    until("the cluster of one is whole", whole).await;
    let store = connect(&server).await;
    many_at_once(&server, &store).await;
}

#[tokio::test]
async fn a_foreign_type_fails_its_ops_alone_and_a_fence_removes_it() {
    let server = Server::start();
    let store = connect(&server).await;
    let (k, other) = (key("foreign"), key("other"));
    run_raw(&server, &["SET", k.as_str(), "not ours"]);
    let lease = Token::random();
    let (field, ttl) = (A, LONG);
    let ops = vec![
        read_op(&k, A),
        Op::Peek { key: k.clone() },
        Op::Generation {
            key: k.clone(),
            fresh: lease,
            ttl: None,
        },
        acquire_op(&k, A, lease, LONG),
        Op::Fill {
            key: k.clone(),
            field,
            lease,
            value: "v".into(),
            ttl,
        },
        Op::Release {
            key: k.clone(),
            field,
            lease,
        },
        read_op(&other, A),
    ];
    let mut replies = run(&store, ops).await;
    assert_eq!(replies.pop(), Some(Reply::Value(None)));
    for reply in replies {
        let Reply::Failed(text) = reply else {
            panic!("{reply:?}");
        };
        assert!(text.starts_with("WRONGTYPE"), "{text}");
    }

    fence(&store, &k, lease, LONG).await;
    assert_eq!(acquire(&store, &k, A, lease).await, Acquired::Fenced);
    settle(&store, &k, lease).await;
    assert_eq!(acquire(&store, &k, A, lease).await, Acquired::Granted);

    run_raw(&server, &["SET", k.as_str(), "not ours"]);
    settle(&store, &k, lease).await;
    assert_eq!(acquire(&store, &k, A, lease).await, Acquired::Granted);
}

#[tokio::test]
async fn garbage_in_fields_counts_as_absent() {
    let server = Server::start();
    let store = connect(&server).await;
    let zero = "0000000000000000:99999999999999";
    let far = "00000000000000ff:9999999999999999999999";
    for lease in ["", "x", ":", "00ff:99999999999999", zero, far] {
        let k = key("garbage lease");
        run_raw(&server, &["HSET", k.as_str(), &field("l", A), lease]);
        let outcome = acquire(&store, &k, A, Token::random()).await;
        assert_eq!(outcome, Acquired::Granted, "{lease:?}");
    }
    for deadline in ["", "never", "-1", "1e30", "9999999999999999999999"] {
        let k = key("garbage fence");
        run_raw(&server, &["HSET", k.as_str(), "f:x", deadline]);
        let writer = Token::random();
        fence(&store, &k, writer, LONG).await;
        settle(&store, &k, writer).await;
        assert_eq!(number(&server, &["EXISTS", k.as_str()]), 0, "{deadline:?}");

        run_raw(&server, &["HSET", k.as_str(), "f:x", deadline]);
        let outcome = acquire(&store, &k, A, writer).await;
        assert_eq!(outcome, Acquired::Granted, "{deadline:?}");
    }
    for name in ["", "x", "0000000000000000", "00000000000000fg"] {
        let k = key("garbage generation");
        run_raw(&server, &["HSET", k.as_str(), "g", name]);
        assert_eq!(peek(&store, &k).await, None, "{name:?}");
        let fresh = Token::random();
        assert_eq!(generation(&store, &k, fresh).await, Some(fresh), "{name:?}");
    }
}

#[tokio::test]
async fn keys_live_as_long_as_what_they_hold() {
    let server = Server::start();
    let store = connect(&server).await;
    let k = key("life");
    let left = || number(&server, &["PTTL", k.as_str()]);
    let (lease, first, second) = (Token::random(), Token::random(), Token::random());
    let minute = Duration::from_secs(60);

    acquire_for(&store, &k, A, lease, minute).await;
    assert!((60_001..=120_000).contains(&left()), "{}", left());
    fill_for(&store, &k, A, lease, "v", minute).await;
    assert!((1..=60_000).contains(&left()), "{}", left());

    fence(&store, &k, first, LONG).await;
    fence(&store, &k, second, minute).await;
    assert!((60_001..=600_000).contains(&left()), "{}", left());
    settle(&store, &k, first).await;
    assert!((1..=60_000).contains(&left()), "{}", left());
    settle(&store, &k, second).await;
    assert_eq!(left(), -2);

    // An expired fence on a key that has not expired: so it is for the last millisecond of both.
    run_raw(&server, &["HSET", k.as_str(), "f:x", "1"]);
    run_raw(&server, &["PEXPIRE", k.as_str(), "60000"]);
    generation(&store, &k, lease).await;
    assert_eq!(left(), -1);
}

#[tokio::test]
async fn a_full_server_grants_no_lease_but_takes_fence_and_settle() {
    let server = Server::start();
    let store = connect(&server).await;
    let (k, other) = (key("full"), key("other"));
    put(&store, &k, A, "v", LONG).await;
    let policy = ["CONFIG", "SET", "maxmemory-policy", "noeviction"];
    run_raw(&server, &policy);
    run_raw(&server, &["CONFIG", "SET", "maxmemory", "1"]);
    let reply = one(&store, acquire_op(&other, A, Token::random(), LONG)).await;
    let Reply::Failed(text) = reply else {
        panic!("{reply:?}");
    };
    assert!(text.starts_with("OOM"), "{text}");
    let outcome = acquire(&store, &k, A, Token::random()).await;
    assert_eq!(outcome, Acquired::Value("v".into()));

    let writer = Token::random();
    for key in [&k, &other] {
        fence(&store, key, writer, LONG).await;
        let outcome = acquire(&store, key, A, Token::random()).await;
        assert_eq!(outcome, Acquired::Fenced);
        settle(&store, key, writer).await;
        assert_eq!(number(&server, &["EXISTS", key.as_str()]), 0);
    }
}

#[tokio::test]
async fn a_server_that_comes_back_is_used_again_under_another_root() {
    let mut server = Server::start();
    let store = connect(&server).await;
    let before = root(&store).await;
    server.kill();
    let started = Instant::now();
    let error = ping(&store).await.expect_err("no server");
    assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
    let error = ping(&store).await.expect_err("no server");
    assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));

    server.start_again();
    let after = ping(&store).await.expect("an answer").root;
    assert_ne!(before, after);
}

#[tokio::test]
async fn a_server_started_from_an_old_snapshot_has_another_root() {
    let mut server = Server::start();
    let store = connect(&server).await;
    let k = key("snapshot");
    put(&store, &k, A, "old", LONG).await;
    let before = root(&store).await;
    run_raw(&server, &["SAVE"]);
    settle(&store, &k, Token::random()).await;
    assert_eq!(read(&store, &k, A).await, None);
    server.kill();
    server.start_again();

    let error = ping(&store).await.expect_err("the connection is gone");
    assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
    let replies = store.run(vec![read_op(&k, A)]).await.expect("an answer");
    assert_eq!(replies.items, [Reply::Value(Some("old".into()))]);
    assert_ne!(replies.root, before);
    assert_eq!(root(&connect(&server).await).await, replies.root);
}

#[tokio::test]
async fn a_killed_connection_costs_one_batch_and_keeps_the_root() {
    let server = Server::start();
    let store = connect(&server).await;
    let before = root(&store).await;
    for _ in 0..5 {
        run_raw(&server, &["CLIENT", "KILL", "TYPE", "normal"]);
        let _ = ping(&store).await;
        assert_eq!(ping(&store).await.expect("an answer").root, before);
    }
}

#[tokio::test]
async fn a_lazy_store_connects_with_its_first_batch() {
    let port = free_port();
    let url = format!("redis://127.0.0.1:{port}/");
    let store = RedisStore::lazy(&url, patient()).expect("a URL");
    let error = ping(&store).await.expect_err("no server");
    assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
    let error = RedisStore::connect(&url, patient()).await;
    assert!(
        matches!(error, Err(StoreError::Unreachable(_))),
        "{error:?}"
    );

    let server = Server::start();
    let store = RedisStore::lazy(&server.url(), patient()).expect("a URL");
    let before = connections_so_far(&server);
    ping(&store).await.expect("an answer");
    assert_eq!(
        connections_so_far(&server),
        before + 2,
        "one is of the test itself"
    );
}

#[tokio::test]
async fn batches_at_the_same_moment_share_one_connection() {
    let server = Server::start();
    let store = RedisStore::lazy(&server.url(), patient()).expect("a URL");
    let before = connections_so_far(&server);
    for outcome in join_all((0..64).map(|_| ping(&store))).await {
        outcome.expect("an answer");
    }
    assert_eq!(
        connections_so_far(&server),
        before + 2,
        "one is of the test itself"
    );
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_end_the_connection_attempt() {
    let server = Server::start();
    let options = RedisOptions {
        command_timeout: Duration::from_millis(50),
        ..patient()
    };
    let store = RedisStore::lazy(&server.url(), options).expect("a URL");
    let before = connections_so_far(&server);
    server.freeze();
    for _ in 0..3 {
        let error = ping(&store).await.expect_err("no answer");
        assert!(matches!(error, StoreError::Timeout(_)), "{error}");
    }
    server.thaw();
    until("the attempt succeeds", async || ping(&store).await.is_ok()).await;
    assert_eq!(
        connections_so_far(&server),
        before + 2,
        "one is of the test itself"
    );
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_and_not_repeated() {
    for url in [
        "",
        "http://u:hunter2@h/",
        "redis://u:hunter2@h/x",
        "redis://u:hunter2@:h/",
    ] {
        let error = RedisStore::lazy(url, patient()).expect_err("no URL of a server");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn no_error_and_no_debug_text_shows_the_password() {
    let server = Server::start_with(&["--requirepass", "correct-horse"]);
    let url = |password| server.url().replace("//", &format!("//:{password}@"));
    let store = RedisStore::connect(&url("correct-horse"), patient()).await;
    let store = store.expect("the right password");
    ping(&store).await.expect("an answer");
    assert!(!format!("{store:?}").contains("correct-horse"));

    let error = RedisStore::connect(&url("hunter2"), patient()).await;
    let error = error.expect_err("a wrong password");
    assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    let error = RedisStore::connect(&server.url(), patient()).await;
    assert!(
        matches!(error, Err(StoreError::Unreachable(_))),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_frozen_server_costs_a_batch_the_command_timeout() {
    let server = Server::start();
    let limit = Duration::from_millis(250);
    let options = RedisOptions {
        command_timeout: limit,
        ..patient()
    };
    let store = RedisStore::connect(&server.url(), options).await;
    let store = store.expect("a connection");
    let before = root(&store).await;
    server.freeze();
    // More batches than make a connection be given up, but at one moment: that is one stall.
    let started = Instant::now();
    for outcome in join_all((0..10).map(|_| ping(&store))).await {
        let error = outcome.expect_err("no answer");
        assert!(
            matches!(error, StoreError::Timeout(time) if time == limit),
            "{error}"
        );
    }
    let elapsed = started.elapsed();
    assert!((limit..PATIENCE).contains(&elapsed), "{elapsed:?}");
    server.thaw();
    let connections = connections_so_far(&server);
    until("it answers", async || ping(&store).await.is_ok()).await;
    assert_eq!(root(&store).await, before);
    assert_eq!(connections_so_far(&server), connections + 1, "kept");
}

#[tokio::test]
async fn after_three_stalls_the_connection_is_given_up() {
    let server = Server::start();
    let options = RedisOptions {
        command_timeout: Duration::from_millis(50),
        ..patient()
    };
    let store = RedisStore::connect(&server.url(), options).await;
    let store = store.expect("a connection");
    let before = root(&store).await;
    let connections = connections_so_far(&server);
    server.freeze();
    for _ in 0..4 {
        let error = ping(&store).await.expect_err("no answer");
        assert!(matches!(error, StoreError::Timeout(_)), "{error}");
    }
    server.thaw();
    until("it answers", async || ping(&store).await.is_ok()).await;
    assert_eq!(root(&store).await, before);
    assert_eq!(connections_so_far(&server), connections + 2, "a new one");
}

#[tokio::test]
async fn processes_agree_on_the_root() {
    let server = Server::start();
    let (one, two) = (connect(&server).await, connect(&server).await);
    assert_eq!(root(&one).await, root(&two).await);
}

#[tokio::test]
async fn a_root_that_is_missing_is_planted_again_by_who_knows_it() {
    let server = Server::start();
    let store = connect(&server).await;
    let before = root(&store).await;
    run_raw(&server, &["DEL", "soc:root"]);
    store.refresh_root().await.expect("an answer");
    assert_eq!(root(&store).await, before);
    assert_eq!(root(&connect(&server).await).await, before);
}

#[tokio::test]
async fn a_root_that_another_process_planted_is_taken_over() {
    let server = Server::start();
    let store = connect(&server).await;
    let before = root(&store).await;
    run_raw(&server, &["FLUSHALL"]);
    let newer = root(&connect(&server).await).await;
    assert_ne!(newer, before);
    assert_eq!(root(&store).await, before);
    store.refresh_root().await.expect("an answer");
    assert_eq!(root(&store).await, newer);
}

#[tokio::test]
async fn a_root_recorded_on_another_server_is_not_believed() {
    let server = Server::start();
    let store = connect(&server).await;
    let before = root(&store).await;
    run_raw(&server, &["HSET", "soc:root", "run", "another"]);
    store.refresh_root().await.expect("an answer");
    let after = root(&store).await;
    assert_ne!(after, before);

    run_raw(&server, &["SET", "soc:root", "garbage"]);
    store.refresh_root().await.expect("an answer");
    assert_ne!(root(&store).await, after);
}

#[tokio::test]
async fn a_demoted_primary_is_not_written_to() {
    let server = Server::start();
    let store = connect(&server).await;
    let k = key("demoted");
    let writer = Token::random();
    run_raw(&server, &["REPLICAOF", "127.0.0.1", "1"]);
    let (key, ttl) = (k.clone(), LONG);
    let error = store.run(vec![Op::Fence { key, writer, ttl }]).await;
    assert!(
        matches!(error, Err(StoreError::Unreachable(_))),
        "{error:?}"
    );
    let error = ping(&store).await;
    assert!(
        matches!(error, Err(StoreError::Unreachable(_))),
        "{error:?}"
    );

    run_raw(&server, &["REPLICAOF", "NO", "ONE"]);
    fence(&store, &k, writer, LONG).await;
    assert_eq!(acquire(&store, &k, A, writer).await, Acquired::Fenced);
}

#[tokio::test]
async fn a_huge_batch_is_answered_in_order() {
    let server = Server::start();
    let store = connect(&server).await;
    let k = key("huge");
    put(&store, &k, A, "v", LONG).await;
    let fields = (0..25_000).map(|n| if n % 7 == 0 { A } else { B });
    let batch = fields.clone().map(|field| read_op(&k, field)).collect();
    let value = |field| (field == A).then(|| "v".into());
    let replies: Vec<_> = fields.map(|field| Reply::Value(value(field))).collect();
    assert!(run(&store, batch).await == replies);
}
