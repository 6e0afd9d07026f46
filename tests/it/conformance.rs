//! What every store must do. Each behaviour runs against each store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use sea_orm_cache::Key;
use sea_orm_cache::store::{
    Acquired, Coalesced, Filled, Fingerprint, MemoryStore, Op, Over, RedisOptions, RedisStore,
    Reply, Seen, Store, Token,
};

mod model;
mod on_its_way;
mod redis_only;
pub mod server;

use model::Model;
use server::Server;

const A: Fingerprint = Fingerprint(0xa);
const B: Fingerprint = Fingerprint(0xb000_0000_0000_000b);
/// Outlives every test.
const LONG: Duration = Duration::from_secs(600);
/// Is over before the tests run out of patience, and not before a few ops were answered.
const SHORT: Duration = Duration::from_millis(80);
const PATIENCE: Duration = Duration::from_secs(20);

/// A server and its URL. The server lives as long as the first part.
fn redis_url() -> (Server, String) {
    let server = Server::start();
    let url = server.url();
    (server, url)
}

/// Patient, because the tests' machine may be busy.
fn patient() -> RedisOptions {
    RedisOptions {
        command_timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(10),
        ..RedisOptions::default()
    }
}

macro_rules! behaviours {
    ($($name:ident)*) => {
        mod in_memory {
            use super::*;
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(&MemoryStore::new(64 << 20)).await;
                }
            )*
        }

        mod in_redis {
            use super::*;
            $(
                #[tokio::test]
                async fn $name() {
                    let (_server, url) = redis_url();
                    let store = RedisStore::connect(&url, patient()).await.expect("a connection");
                    super::$name(&store).await;
                }
            )*
        }

        mod in_redis_coalesced {
            use super::*;
            $(
                #[tokio::test]
                async fn $name() {
                    let (_server, url) = redis_url();
                    let store = RedisStore::connect(&url, patient()).await.expect("a connection");
                    let limit = patient().command_timeout;
                    super::$name(&Coalesced::around(Arc::new(store), limit)).await;
                }
            )*
        }

        mod in_a_cluster {
            use super::*;
            $(
                #[tokio::test]
                async fn $name() {
                    let cluster = crate::support::cluster().await;
                    let store = RedisStore::cluster(&cluster.urls(), patient()).expect("addresses");
                    super::$name(&store).await;
                }
            )*
        }
    };
}

behaviours! {
    an_absent_key_holds_nothing_and_takes_every_op
    what_was_filled_is_read
    two_fingerprints_of_a_key_are_apart_and_a_fence_takes_both
    a_lease_keeps_others_away
    a_lease_is_granted_again_to_its_holder
    a_lease_is_taken_over_after_its_deadline
    a_fill_after_a_takeover_is_superseded
    a_fill_after_a_fence_is_superseded_also_when_it_was_settled
    a_late_fill_is_stored_if_nobody_took_the_lease_over
    a_fill_without_a_lease_is_superseded
    a_second_fill_under_one_lease_is_superseded
    a_fence_blocks_acquire_and_generation
    a_settle_leaves_the_fences_of_others
    a_settle_of_an_expired_fence_deletes_what_was_filled_since
    a_repeated_fence_is_renewed
    a_crashed_writers_fence_expires_while_others_go_on_writing
    a_generation_is_created_once_and_changes_with_a_fence
    peek_creates_nothing
    a_value_seen_to_be_outdated_is_replaced
    a_value_that_has_aged_stays_until_it_is_replaced_and_lives_no_longer
    a_value_with_another_seal_than_the_one_seen_is_answered
    a_value_too_short_for_a_seal_is_never_the_one_seen
    a_released_lease_is_free
    the_release_of_anothers_lease_does_nothing
    values_expire
    a_fill_does_not_prolong_another_builds_value
    a_lease_does_not_prolong_another_builds_value
    a_key_with_an_expired_value_can_be_filled_again
    a_put_takes_the_place_of_all_that_stands
    a_put_takes_the_place_of_what_it_was_told_and_of_nothing_else
    a_put_under_a_fence_is_superseded
    a_generation_of_an_entry_goes_with_it
    replies_come_one_for_each_op_in_order
    an_empty_batch_has_no_replies
    a_thousand_ops_are_answered_in_order
    values_are_bytes_of_any_kind_and_length
    keys_with_escapes_are_apart
    the_root_stays_and_refreshing_it_changes_nothing
    of_many_who_ask_at_once_one_is_granted
    any_sequence_of_ops_is_answered_as_by_the_model
}

fn key(name: &str) -> Key {
    Key::from(format!("test:{name}:{:016x}", fastrand::u64(..)))
}

fn seal(value: &[u8]) -> u64 {
    u64::from_be_bytes(value[..8].try_into().expect("eight bytes"))
}

async fn run(store: &dyn Store, batch: Vec<Op>) -> Vec<Reply> {
    store.run(batch).await.expect("an answer").items
}

async fn one(store: &dyn Store, op: Op) -> Reply {
    let mut replies = run(store, vec![op]).await;
    assert_eq!(replies.len(), 1);
    replies.remove(0)
}

async fn read(store: &dyn Store, key: &Key, field: Fingerprint) -> Option<Bytes> {
    match one(store, read_op(key, field)).await {
        Reply::Value(value) => value,
        other => panic!("{other:?}"),
    }
}

fn read_op(key: &Key, field: Fingerprint) -> Op {
    let key = key.clone();
    Op::Read { key, field }
}

async fn peek(store: &dyn Store, key: &Key) -> Option<Token> {
    match one(store, Op::Peek { key: key.clone() }).await {
        Reply::Generation(name) => name,
        other => panic!("{other:?}"),
    }
}

async fn generation(store: &dyn Store, key: &Key, fresh: Token) -> Option<Token> {
    generation_for(store, key, fresh, None).await
}

async fn generation_for(
    store: &dyn Store,
    key: &Key,
    fresh: Token,
    ttl: Option<Duration>,
) -> Option<Token> {
    let key = key.clone();
    match one(store, Op::Generation { key, fresh, ttl }).await {
        Reply::Generation(name) => name,
        other => panic!("{other:?}"),
    }
}

fn acquire_op(key: &Key, field: Fingerprint, lease: Token, ttl: Duration) -> Op {
    Op::Acquire {
        key: key.clone(),
        field,
        lease,
        seen: Seen::Nothing,
        ttl,
    }
}

async fn acquire(store: &dyn Store, key: &Key, field: Fingerprint, lease: Token) -> Acquired {
    acquire_for(store, key, field, lease, LONG).await
}

async fn acquire_for(
    store: &dyn Store,
    key: &Key,
    field: Fingerprint,
    lease: Token,
    ttl: Duration,
) -> Acquired {
    acquired(one(store, acquire_op(key, field, lease, ttl)).await)
}

async fn acquire_seen(store: &dyn Store, key: &Key, lease: Token, seen: u64) -> Acquired {
    acquire_with(store, key, lease, Seen::Outdated(seen)).await
}

async fn acquire_with(store: &dyn Store, key: &Key, lease: Token, seen: Seen) -> Acquired {
    let op = Op::Acquire {
        key: key.clone(),
        field: A,
        lease,
        seen,
        ttl: LONG,
    };
    acquired(one(store, op).await)
}

fn acquired(reply: Reply) -> Acquired {
    match reply {
        Reply::Acquired(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

async fn fill(store: &dyn Store, key: &Key, field: Fingerprint, lease: Token, v: &str) -> Filled {
    fill_for(store, key, field, lease, v, LONG).await
}

async fn fill_for(
    store: &dyn Store,
    key: &Key,
    field: Fingerprint,
    lease: Token,
    value: &str,
    ttl: Duration,
) -> Filled {
    let op = Op::Fill {
        key: key.clone(),
        field,
        lease,
        value: Bytes::copy_from_slice(value.as_bytes()),
        ttl,
    };
    match one(store, op).await {
        Reply::Filled(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

/// Acquires and fills.
async fn put(store: &dyn Store, key: &Key, field: Fingerprint, value: &str, ttl: Duration) {
    let lease = Token::random();
    assert_eq!(acquire(store, key, field, lease).await, Acquired::Granted);
    let outcome = fill_for(store, key, field, lease, value, ttl).await;
    assert_eq!(outcome, Filled::Stored);
}

async fn release(store: &dyn Store, key: &Key, field: Fingerprint, lease: Token) {
    let key = key.clone();
    let reply = one(store, Op::Release { key, field, lease }).await;
    assert_eq!(reply, Reply::Done);
}

async fn fence(store: &dyn Store, key: &Key, writer: Token, ttl: Duration) {
    let key = key.clone();
    let reply = one(store, Op::Fence { key, writer, ttl }).await;
    assert_eq!(reply, Reply::Done);
}

async fn settle(store: &dyn Store, key: &Key, writer: Token) {
    let key = key.clone();
    assert_eq!(one(store, Op::Settle { key, writer }).await, Reply::Done);
}

/// Waits until `holds` answers true.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, wait).await;
    outcome.unwrap_or_else(|_| panic!("in vain: {what}"));
}

/// Waits until everything that was given `SHORT` to live before has passed its deadline, by the
/// store's own clock.
async fn until_short_is_over(store: &dyn Store) {
    let witness = key("witness");
    let (first, next) = (Token::random(), Token::random());
    acquire_for(store, &witness, A, first, SHORT).await;
    until("the witness's lease ends", async || {
        acquire(store, &witness, A, next).await == Acquired::Granted
    })
    .await;
}

async fn an_absent_key_holds_nothing_and_takes_every_op(store: &dyn Store) {
    let k = key("absent");
    let (lease, writer) = (Token::random(), Token::random());
    assert_eq!(read(store, &k, A).await, None);
    assert_eq!(peek(store, &k).await, None);
    assert_eq!(fill(store, &k, A, lease, "v").await, Filled::Superseded);
    release(store, &k, A, lease).await;
    settle(store, &k, writer).await;
    assert_eq!(read(store, &k, A).await, None);
    assert_eq!(acquire_seen(store, &k, lease, 7).await, Acquired::Granted);
}

async fn what_was_filled_is_read(store: &dyn Store) {
    let k = key("filled");
    let lease = Token::random();
    assert_eq!(acquire(store, &k, A, lease).await, Acquired::Granted);
    assert_eq!(read(store, &k, A).await, None);
    assert_eq!(fill(store, &k, A, lease, "paris").await, Filled::Stored);
    assert_eq!(read(store, &k, A).await, Some("paris".into()));
    let outcome = acquire(store, &k, A, Token::random()).await;
    assert_eq!(outcome, Acquired::Value("paris".into()));
}

async fn two_fingerprints_of_a_key_are_apart_and_a_fence_takes_both(store: &dyn Store) {
    let k = key("builds");
    let (a, b) = (Token::random(), Token::random());
    assert_eq!(acquire(store, &k, A, a).await, Acquired::Granted);
    assert_eq!(acquire(store, &k, B, b).await, Acquired::Granted);
    assert_eq!(fill(store, &k, B, a, "x").await, Filled::Superseded);
    assert_eq!(fill(store, &k, A, a, "of a").await, Filled::Stored);
    assert_eq!(read(store, &k, B).await, None);
    assert_eq!(fill(store, &k, B, b, "of b").await, Filled::Stored);
    assert_eq!(read(store, &k, A).await, Some("of a".into()));
    assert_eq!(read(store, &k, B).await, Some("of b".into()));

    fence(store, &k, Token::random(), LONG).await;
    assert_eq!(read(store, &k, A).await, None);
    assert_eq!(read(store, &k, B).await, None);
}

async fn a_lease_keeps_others_away(store: &dyn Store) {
    let k = key("busy");
    let (first, second) = (Token::random(), Token::random());
    assert_eq!(acquire(store, &k, A, first).await, Acquired::Granted);
    let outcome = acquire(store, &k, A, second).await;
    assert_eq!(outcome, Acquired::Busy(first));
    assert_eq!(fill(store, &k, A, second, "no").await, Filled::Superseded);
    assert_eq!(fill(store, &k, A, first, "yes").await, Filled::Stored);
    assert_eq!(read(store, &k, A).await, Some("yes".into()));
}

async fn a_lease_is_granted_again_to_its_holder(store: &dyn Store) {
    let k = key("again");
    let lease = Token::random();
    assert_eq!(acquire(store, &k, A, lease).await, Acquired::Granted);
    assert_eq!(acquire(store, &k, A, lease).await, Acquired::Granted);
    assert_eq!(fill(store, &k, A, lease, "v").await, Filled::Stored);
}

async fn a_lease_is_taken_over_after_its_deadline(store: &dyn Store) {
    let k = key("takeover");
    let (first, second) = (Token::random(), Token::random());
    acquire_for(store, &k, A, first, SHORT).await;
    until("the lease is taken over", async || {
        match acquire(store, &k, A, second).await {
            Acquired::Granted => true,
            other => {
                assert_eq!(other, Acquired::Busy(first));
                false
            }
        }
    })
    .await;
    let outcome = acquire(store, &k, A, first).await;
    assert_eq!(outcome, Acquired::Busy(second));
}

async fn a_fill_after_a_takeover_is_superseded(store: &dyn Store) {
    let k = key("superseded");
    let (slow, quick) = (Token::random(), Token::random());
    acquire_for(store, &k, A, slow, SHORT).await;
    until_short_is_over(store).await;
    assert_eq!(acquire(store, &k, A, quick).await, Acquired::Granted);
    assert_eq!(fill(store, &k, A, slow, "slow").await, Filled::Superseded);
    assert_eq!(read(store, &k, A).await, None);
    assert_eq!(fill(store, &k, A, quick, "quick").await, Filled::Stored);
    assert_eq!(fill(store, &k, A, slow, "slow").await, Filled::Superseded);
    assert_eq!(read(store, &k, A).await, Some("quick".into()));
}

async fn a_fill_after_a_fence_is_superseded_also_when_it_was_settled(store: &dyn Store) {
    let k = key("late");
    let (during, after, writer) = (Token::random(), Token::random(), Token::random());
    assert_eq!(acquire(store, &k, A, during).await, Acquired::Granted);
    assert_eq!(acquire(store, &k, B, after).await, Acquired::Granted);
    fence(store, &k, writer, LONG).await;
    assert_eq!(fill(store, &k, A, during, "old").await, Filled::Superseded);
    settle(store, &k, writer).await;
    assert_eq!(fill(store, &k, B, after, "old").await, Filled::Superseded);
    assert_eq!(read(store, &k, A).await, None);
    assert_eq!(read(store, &k, B).await, None);
}

async fn a_late_fill_is_stored_if_nobody_took_the_lease_over(store: &dyn Store) {
    let k = key("late fill");
    let lease = Token::random();
    acquire_for(store, &k, A, lease, SHORT).await;
    until_short_is_over(store).await;
    assert_eq!(fill(store, &k, A, lease, "late").await, Filled::Stored);
    assert_eq!(read(store, &k, A).await, Some("late".into()));
}

async fn a_fill_without_a_lease_is_superseded(store: &dyn Store) {
    let k = key("no lease");
    put(store, &k, A, "v", LONG).await;
    let outcome = fill(store, &k, A, Token::random(), "w").await;
    assert_eq!(outcome, Filled::Superseded);
    assert_eq!(read(store, &k, A).await, Some("v".into()));
}

async fn a_second_fill_under_one_lease_is_superseded(store: &dyn Store) {
    let k = key("twice");
    let lease = Token::random();
    assert_eq!(acquire(store, &k, A, lease).await, Acquired::Granted);
    assert_eq!(fill(store, &k, A, lease, "one").await, Filled::Stored);
    assert_eq!(fill(store, &k, A, lease, "two").await, Filled::Superseded);
    assert_eq!(read(store, &k, A).await, Some("one".into()));
}

async fn a_fence_blocks_acquire_and_generation(store: &dyn Store) {
    let k = key("fenced");
    let writer = Token::random();
    fence(store, &k, writer, LONG).await;
    let outcome = acquire(store, &k, A, Token::random()).await;
    assert_eq!(outcome, Acquired::Fenced);
    assert_eq!(acquire_seen(store, &k, writer, 7).await, Acquired::Fenced);
    assert_eq!(generation(store, &k, Token::random()).await, None);
    assert_eq!(peek(store, &k).await, None);
    assert_eq!(read(store, &k, A).await, None);

    settle(store, &k, writer).await;
    let outcome = acquire(store, &k, A, Token::random()).await;
    assert_eq!(outcome, Acquired::Granted);
}

async fn a_settle_leaves_the_fences_of_others(store: &dyn Store) {
    let k = key("two writers");
    let (first, second) = (Token::random(), Token::random());
    fence(store, &k, first, LONG).await;
    fence(store, &k, second, LONG).await;
    settle(store, &k, first).await;
    let reader = Token::random();
    assert_eq!(acquire(store, &k, A, reader).await, Acquired::Fenced);
    settle(store, &k, first).await;
    assert_eq!(acquire(store, &k, A, reader).await, Acquired::Fenced);
    settle(store, &k, second).await;
    assert_eq!(acquire(store, &k, A, reader).await, Acquired::Granted);
}

async fn a_settle_of_an_expired_fence_deletes_what_was_filled_since(store: &dyn Store) {
    let k = key("expired fence");
    let (writer, reader) = (Token::random(), Token::random());
    fence(store, &k, writer, SHORT).await;
    until("the fence expires", async || {
        acquire(store, &k, A, reader).await == Acquired::Granted
    })
    .await;
    assert_eq!(fill(store, &k, A, reader, "old").await, Filled::Stored);
    let pending = Token::random();
    assert_eq!(acquire(store, &k, B, pending).await, Acquired::Granted);

    settle(store, &k, writer).await;
    assert_eq!(read(store, &k, A).await, None);
    assert_eq!(fill(store, &k, B, pending, "old").await, Filled::Superseded);
}

async fn a_repeated_fence_is_renewed(store: &dyn Store) {
    let k = key("renewed");
    let writer = Token::random();
    fence(store, &k, writer, SHORT).await;
    fence(store, &k, writer, LONG).await;
    until_short_is_over(store).await;
    let outcome = acquire(store, &k, A, Token::random()).await;
    assert_eq!(outcome, Acquired::Fenced);
    settle(store, &k, writer).await;
    let outcome = acquire(store, &k, A, Token::random()).await;
    assert_eq!(outcome, Acquired::Granted);
}

async fn a_crashed_writers_fence_expires_while_others_go_on_writing(store: &dyn Store) {
    let k = key("crashed");
    let (crashed, alive) = (Token::random(), Token::random());
    fence(store, &k, crashed, SHORT).await;
    fence(store, &k, alive, LONG).await;
    until_short_is_over(store).await;
    let reader = Token::random();
    assert_eq!(acquire(store, &k, A, reader).await, Acquired::Fenced);
    settle(store, &k, alive).await;
    assert_eq!(acquire(store, &k, A, reader).await, Acquired::Granted);
}

async fn a_generation_is_created_once_and_changes_with_a_fence(store: &dyn Store) {
    let k = key("generation");
    let (first, second, third) = (Token::random(), Token::random(), Token::random());
    assert_eq!(generation(store, &k, first).await, Some(first));
    assert_eq!(generation(store, &k, second).await, Some(first));
    assert_eq!(peek(store, &k).await, Some(first));

    let writer = Token::random();
    fence(store, &k, writer, LONG).await;
    assert_eq!(peek(store, &k).await, None);
    assert_eq!(generation(store, &k, second).await, None);
    settle(store, &k, writer).await;
    assert_eq!(peek(store, &k).await, None);
    assert_eq!(generation(store, &k, third).await, Some(third));

    settle(store, &k, writer).await;
    assert_eq!(peek(store, &k).await, None);
}

async fn peek_creates_nothing(store: &dyn Store) {
    let k = key("peek");
    assert_eq!(peek(store, &k).await, None);
    let fresh = Token::random();
    assert_eq!(generation(store, &k, fresh).await, Some(fresh));
}

async fn a_value_seen_to_be_outdated_is_replaced(store: &dyn Store) {
    let k = key("seen");
    put(store, &k, A, "version1 old", LONG).await;
    let lease = Token::random();
    let outcome = acquire_seen(store, &k, lease, seal(b"version1")).await;
    assert_eq!(outcome, Acquired::Granted);
    assert_eq!(read(store, &k, A).await, None);
    let outcome = fill(store, &k, A, lease, "version2 new").await;
    assert_eq!(outcome, Filled::Stored);
    assert_eq!(read(store, &k, A).await, Some("version2 new".into()));
}

async fn a_value_that_has_aged_stays_until_it_is_replaced_and_lives_no_longer(store: &dyn Store) {
    let k = key("aged");
    let life = Duration::from_secs(5);
    put(store, &k, A, "version1 old", life).await;
    let (first, second) = (Token::random(), Token::random());
    let aged = Seen::Aged(seal(b"version1"));
    let outcome = acquire_with(store, &k, first, aged).await;
    assert_eq!(outcome, Acquired::Granted);
    let left = one(store, Op::Life { key: k.clone() }).await;
    assert!(
        matches!(left, Reply::Life(Some(left)) if left <= life),
        "{left:?}"
    );
    let outcome = acquire_with(store, &k, second, aged).await;
    assert_eq!(outcome, Acquired::Busy(first));
    assert_eq!(read(store, &k, A).await, Some("version1 old".into()));
    let outcome = fill(store, &k, A, first, "version2 new").await;
    assert_eq!(outcome, Filled::Stored);
    let outcome = acquire_with(store, &k, second, aged).await;
    assert_eq!(outcome, Acquired::Value("version2 new".into()));
}

async fn a_value_with_another_seal_than_the_one_seen_is_answered(store: &dyn Store) {
    let k = key("newer");
    put(store, &k, A, "version2 new", LONG).await;
    let outcome = acquire_seen(store, &k, Token::random(), seal(b"version1")).await;
    assert_eq!(outcome, Acquired::Value("version2 new".into()));
    assert_eq!(read(store, &k, A).await, Some("version2 new".into()));
}

async fn a_value_too_short_for_a_seal_is_never_the_one_seen(store: &dyn Store) {
    let k = key("short");
    put(store, &k, A, "v", LONG).await;
    let outcome = acquire_seen(store, &k, Token::random(), seal(b"v\0\0\0\0\0\0\0")).await;
    assert_eq!(outcome, Acquired::Value("v".into()));
}

async fn a_released_lease_is_free(store: &dyn Store) {
    let k = key("released");
    let (first, second) = (Token::random(), Token::random());
    assert_eq!(acquire(store, &k, A, first).await, Acquired::Granted);
    release(store, &k, A, first).await;
    assert_eq!(fill(store, &k, A, first, "v").await, Filled::Superseded);
    assert_eq!(acquire(store, &k, A, second).await, Acquired::Granted);
}

async fn the_release_of_anothers_lease_does_nothing(store: &dyn Store) {
    let k = key("not mine");
    let (first, second) = (Token::random(), Token::random());
    assert_eq!(acquire(store, &k, A, first).await, Acquired::Granted);
    release(store, &k, A, second).await;
    release(store, &k, B, first).await;
    let outcome = acquire(store, &k, A, second).await;
    assert_eq!(outcome, Acquired::Busy(first));
}

async fn values_expire(store: &dyn Store) {
    let k = key("ttl");
    put(store, &k, A, "v", SHORT).await;
    until("the value expires", async || {
        read(store, &k, A).await.is_none()
    })
    .await;
    let outcome = acquire(store, &k, A, Token::random()).await;
    assert_eq!(outcome, Acquired::Granted);
}

async fn a_fill_does_not_prolong_another_builds_value(store: &dyn Store) {
    let k = key("two ttls");
    put(store, &k, A, "short", SHORT).await;
    put(store, &k, B, "long", LONG).await;
    until("the short value expires", async || {
        read(store, &k, A).await.is_none()
    })
    .await;
}

async fn a_lease_does_not_prolong_another_builds_value(store: &dyn Store) {
    let k = key("lease and ttl");
    put(store, &k, A, "short", SHORT).await;
    acquire(store, &k, B, Token::random()).await;
    until("the short value expires", async || {
        read(store, &k, A).await.is_none()
    })
    .await;
}

async fn a_key_with_an_expired_value_can_be_filled_again(store: &dyn Store) {
    let k = key("second life");
    put(store, &k, A, "one", SHORT).await;
    until("the value expires", async || {
        read(store, &k, A).await.is_none()
    })
    .await;
    put(store, &k, A, "two", LONG).await;
    until_short_is_over(store).await;
    assert_eq!(read(store, &k, A).await, Some("two".into()));
}

async fn put_over(store: &dyn Store, key: &Key, value: &str, over: Over, ttl: Duration) -> Filled {
    let op = Op::Put {
        key: key.clone(),
        field: A,
        value: Bytes::copy_from_slice(value.as_bytes()),
        ttl,
        over,
    };
    match one(store, op).await {
        Reply::Filled(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

async fn a_put_takes_the_place_of_all_that_stands(store: &dyn Store) {
    let k = key("put");
    let (lease, fresh) = (Token::random(), Token::random());
    put(store, &k, B, "another build's", LONG).await;
    assert_eq!(acquire(store, &k, A, lease).await, Acquired::Granted);
    assert_eq!(
        generation_for(store, &k, fresh, Some(LONG)).await,
        Some(fresh)
    );
    let stored = put_over(store, &k, "one", Over::Anything, SHORT).await;
    assert_eq!(stored, Filled::Stored);
    assert_eq!(read(store, &k, A).await, Some("one".into()));
    assert_eq!(read(store, &k, B).await, None);
    assert_eq!(peek(store, &k).await, None);
    assert_eq!(
        fill(store, &k, A, lease, "late").await,
        Filled::Superseded,
        "what was loaded before is older"
    );
    until("the value expires", async || {
        read(store, &k, A).await.is_none()
    })
    .await;
    // Its time is that of the latest.
    put_over(store, &k, "one", Over::Anything, SHORT).await;
    put_over(store, &k, "two", Over::Anything, LONG).await;
    until_short_is_over(store).await;
    assert_eq!(read(store, &k, A).await, Some("two".into()));
}

async fn a_put_takes_the_place_of_what_it_was_told_and_of_nothing_else(store: &dyn Store) {
    let k = key("put over");
    let over = |value: &str| Over::Seal(seal(value.as_bytes()));
    let steps = [
        ("version1", over("version0"), Filled::Superseded),
        ("version1", Over::Nothing, Filled::Stored),
        ("version2", Over::Nothing, Filled::Superseded),
        ("version2", over("version0"), Filled::Superseded),
        ("version2", over("version1"), Filled::Stored),
        ("version3", over("version1"), Filled::Superseded),
        ("short", Over::Anything, Filled::Stored),
        ("version3", over("version2"), Filled::Superseded),
    ];
    for (value, over, outcome) in steps {
        let before = read(store, &k, A).await;
        assert_eq!(put_over(store, &k, value, over, LONG).await, outcome);
        let stored = (outcome == Filled::Stored).then(|| Bytes::copy_from_slice(value.as_bytes()));
        assert_eq!(read(store, &k, A).await, stored.or(before), "{value}");
    }
}

async fn a_put_under_a_fence_is_superseded(store: &dyn Store) {
    let k = key("put fenced");
    let (writer, crashed) = (Token::random(), Token::random());
    fence(store, &k, writer, LONG).await;
    fence(store, &k, crashed, SHORT).await;
    for over in [Over::Anything, Over::Nothing] {
        assert_eq!(
            put_over(store, &k, "v", over, LONG).await,
            Filled::Superseded
        );
    }
    settle(store, &k, writer).await;
    until("the crashed writer's fence expires", async || {
        put_over(store, &k, "v", Over::Nothing, LONG).await == Filled::Stored
    })
    .await;
    assert_eq!(read(store, &k, A).await, Some("v".into()));
}

async fn a_generation_of_an_entry_goes_with_it(store: &dyn Store) {
    let k = key("row");
    let (one, two) = (Token::random(), Token::random());
    put(store, &k, A, "v", SHORT).await;
    let noted = generation_for(store, &k, one, Some(LONG)).await;
    assert_eq!(noted, Some(one));
    until("the value expires", async || {
        read(store, &k, A).await.is_none()
    })
    .await;
    // Another value of the same entry leaves it as it is, a change does not.
    let noted = generation_for(store, &k, one, Some(LONG)).await;
    assert_eq!(noted, Some(one));
    put(store, &k, A, "w", LONG).await;
    assert_eq!(generation_for(store, &k, two, Some(LONG)).await, Some(one));
    settle(store, &k, Token::random()).await;
    assert_eq!(peek(store, &k).await, None);
    // Alone it lives for as long as it was told.
    generation_for(store, &k, one, Some(SHORT)).await;
    until("the generation expires", async || {
        peek(store, &k).await.is_none()
    })
    .await;
}

async fn replies_come_one_for_each_op_in_order(store: &dyn Store) {
    let k = key("order");
    let (lease, writer, fresh) = (Token::random(), Token::random(), Token::random());
    let (key, field, ttl) = (k.clone(), A, LONG);
    let batch = vec![
        read_op(&k, A),
        acquire_op(&k, A, lease, LONG),
        Op::Fill {
            key: k.clone(),
            field,
            lease,
            value: "v".into(),
            ttl,
        },
        read_op(&k, A),
        Op::Generation {
            key: k.clone(),
            fresh,
            ttl: None,
        },
        Op::Peek { key: k.clone() },
        Op::Fence {
            key: k.clone(),
            writer,
            ttl,
        },
        read_op(&k, A),
        Op::Peek { key: k.clone() },
        acquire_op(&k, A, lease, LONG),
        Op::Settle {
            key: k.clone(),
            writer,
        },
        acquire_op(&k, A, lease, LONG),
        Op::Release { key, field, lease },
    ];
    let replies = vec![
        Reply::Value(None),
        Reply::Acquired(Acquired::Granted),
        Reply::Filled(Filled::Stored),
        Reply::Value(Some("v".into())),
        Reply::Generation(Some(fresh)),
        Reply::Generation(Some(fresh)),
        Reply::Done,
        Reply::Value(None),
        Reply::Generation(None),
        Reply::Acquired(Acquired::Fenced),
        Reply::Done,
        Reply::Acquired(Acquired::Granted),
        Reply::Done,
    ];
    assert_eq!(run(store, batch).await, replies);
}

async fn an_empty_batch_has_no_replies(store: &dyn Store) {
    assert_eq!(run(store, vec![]).await, vec![]);
}

async fn a_thousand_ops_are_answered_in_order(store: &dyn Store) {
    let keys: Vec<_> = (0..250).map(|n| key(&format!("bulk{n}"))).collect();
    let mut batch = Vec::new();
    let mut replies = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        let lease = Token::random();
        let value = Bytes::from(format!("value {number}"));
        batch.push(read_op(key, A));
        batch.push(acquire_op(key, A, lease, LONG));
        batch.push(Op::Fill {
            key: key.clone(),
            field: A,
            lease,
            value: value.clone(),
            ttl: LONG,
        });
        batch.push(read_op(key, A));
        replies.push(Reply::Value(None));
        replies.push(Reply::Acquired(Acquired::Granted));
        replies.push(Reply::Filled(Filled::Stored));
        replies.push(Reply::Value(Some(value)));
    }
    assert_eq!(run(store, batch).await, replies);
}

async fn values_are_bytes_of_any_kind_and_length(store: &dyn Store) {
    let every_byte: Bytes = (0..=255u8).collect();
    let large: Bytes = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
    for value in [Bytes::new(), "\r\n\0".into(), every_byte, large] {
        let k = key("bytes");
        let lease = Token::random();
        let fill = Op::Fill {
            key: k.clone(),
            field: A,
            lease,
            value: value.clone(),
            ttl: LONG,
        };
        let batch = vec![
            acquire_op(&k, A, lease, LONG),
            fill,
            read_op(&k, A),
            acquire_op(&k, A, Token::random(), LONG),
        ];
        let replies = vec![
            Reply::Acquired(Acquired::Granted),
            Reply::Filled(Filled::Stored),
            Reply::Value(Some(value.clone())),
            Reply::Acquired(Acquired::Value(value.clone())),
        ];
        assert!(run(store, batch).await == replies, "{} bytes", value.len());
    }
}

async fn keys_with_escapes_are_apart(store: &dyn Store) {
    let texts = ["a%20b", "a b", "a%2520b", "{a}b", "a*", "a\r\nb", "a:b"];
    for text in texts {
        put(store, &Key::from(text.to_owned()), A, text, LONG).await;
    }
    for text in texts {
        let value = read(store, &Key::from(text.to_owned()), A).await;
        assert_eq!(value, Some(text.into()), "{text:?}");
    }
}

async fn the_root_stays_and_refreshing_it_changes_nothing(store: &dyn Store) {
    let before = store.run(vec![]).await.expect("an answer").root;
    put(store, &key("root"), A, "v", LONG).await;
    store.refresh_root().await.expect("an answer");
    let after = store.run(vec![]).await.expect("an answer").root;
    assert_eq!(before, after);
}

async fn of_many_who_ask_at_once_one_is_granted(store: &dyn Store) {
    let k = key("crowd");
    let leases: Vec<_> = (0..64).map(|_| Token::random()).collect();
    let asked = leases.iter().map(|lease| acquire(store, &k, A, *lease));
    let outcomes = join_all(asked).await;
    let granted: Vec<_> = leases
        .iter()
        .zip(&outcomes)
        .filter(|(_, outcome)| **outcome == Acquired::Granted)
        .map(|(lease, _)| *lease)
        .collect();
    assert_eq!(granted.len(), 1, "{outcomes:?}");
    let others = outcomes
        .iter()
        .filter(|o| **o == Acquired::Busy(granted[0]));
    assert_eq!(others.count(), 63);
}

async fn any_sequence_of_ops_is_answered_as_by_the_model(store: &dyn Store) {
    for seed in 0..10 {
        let mut random = Random::new(seed);
        let mut model = Model::default();
        for round in 0..400 {
            let batch = random.batch();
            let expected: Vec<_> = batch.iter().cloned().map(|op| model.run(op)).collect();
            let replies = run(store, batch.clone()).await;
            assert_eq!(replies, expected, "seed {seed}, round {round}: {batch:?}");
        }
    }
}

/// Random ops over a few keys, builds, leases and writers, so that they meet.
struct Random {
    rng: fastrand::Rng,
    keys: Vec<Key>,
    leases: Vec<Token>,
    writers: Vec<Token>,
}

impl Random {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut tokens = |count: usize| -> Vec<_> {
            let tokens = std::iter::repeat_with(|| Token::new(rng.u64(1..)).expect("not zero"));
            tokens.take(count).collect()
        };
        Self {
            leases: tokens(3),
            writers: tokens(2),
            keys: (0..3).map(|n| key(&format!("random{n}"))).collect(),
            rng,
        }
    }

    fn batch(&mut self) -> Vec<Op> {
        let length = self.rng.usize(1..10);
        (0..length).map(|_| self.op()).collect()
    }

    /// Writers settle more often than they fence: else everything is fenced nearly always.
    fn op(&mut self) -> Op {
        let key = self.rng.choice(&self.keys).expect("keys").clone();
        let field = self.rng.choice([A, B]).expect("fields");
        let lease = *self.rng.choice(&self.leases).expect("leases");
        let writer = *self.rng.choice(&self.writers).expect("writers");
        let ttl = LONG;
        match self.rng.u32(0..23) {
            0..4 => Op::Read { key, field },
            4 => Op::Peek { key },
            5..7 => Op::Generation {
                key,
                fresh: Token::new(self.rng.u64(1..)).expect("not zero"),
                ttl: self.rng.bool().then_some(ttl),
            },
            7..11 => Op::Acquire {
                key,
                field,
                lease,
                seen: self.seen(),
                ttl,
            },
            11..16 => Op::Fill {
                key,
                field,
                lease,
                value: self.value().into(),
                ttl,
            },
            16 => Op::Release { key, field, lease },
            20..23 => Op::Put {
                key,
                field,
                value: self.value().into(),
                ttl,
                over: self.over(),
            },
            17 => Op::Fence { key, writer, ttl },
            _ => Op::Settle { key, writer },
        }
    }

    fn over(&mut self) -> Over {
        let seal = Over::Seal(seal(self.value().as_bytes()));
        let overs = [Over::Anything, Over::Nothing, seal, seal];
        self.rng.choice(overs).expect("some")
    }

    fn seen(&mut self) -> Seen {
        let seal = seal(self.value().as_bytes());
        let all = [Seen::Nothing, Seen::Outdated(seal), Seen::Aged(seal)];
        self.rng.choice(all).expect("some")
    }

    fn value(&mut self) -> String {
        format!("version{}", self.rng.u32(0..3))
    }
}

/// In this store, unlike over one connection, ops of many threads do run at the same time.
#[test]
fn of_many_threads_that_ask_a_memory_store_at_once_one_is_granted() {
    use futures_util::FutureExt;
    let store = MemoryStore::new(64 << 20);
    for _ in 0..200 {
        let k = key("threads");
        let ask = || acquire(&store, &k, A, Token::random()).now_or_never();
        let granted = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            let outcomes = threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"));
            outcomes.filter(|o| *o == Some(Acquired::Granted)).count()
        });
        assert_eq!(granted, 1);
    }
}
