use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::*;
use crate::store::Seen;
use crate::store::{Acquired, MemoryStore, Token};

/// A store that notes its requests and holds them until the test lets them go.
#[derive(Debug)]
struct Gate {
    inner: MemoryStore,
    requests: Mutex<Vec<Vec<Op>>>,
    open: Semaphore,
    limit: Duration,
}

const LONG: Duration = Duration::from_secs(3600);
const FIELD: Fingerprint = Fingerprint(1);

#[async_trait::async_trait]
impl Store for Gate {
    async fn run(&self, batch: Vec<Op>) -> Answer {
        self.requests.lock().unwrap().push(batch.clone());
        let open = timeout(self.limit, self.open.acquire()).await;
        open.map_err(|_| StoreError::Timeout(self.limit))?
            .unwrap()
            .forget();
        if batch.iter().any(|op| op.key().as_str() == "down") {
            return Err(StoreError::Unreachable("down".to_owned()));
        }
        let mut replies = self.inner.run(batch.clone()).await?;
        for (op, reply) in batch.iter().zip(&mut replies.items) {
            if op.key().as_str() == "bad" {
                *reply = Reply::Failed("bad".to_owned());
            }
        }
        Ok(replies)
    }

    async fn refresh_root(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

struct Bench {
    gate: Arc<Gate>,
    store: Arc<Coalesced>,
}

impl Bench {
    fn new(limit: Duration) -> Self {
        let gate = Arc::new(Gate {
            inner: MemoryStore::new(64 << 20),
            requests: Mutex::default(),
            open: Semaphore::new(0),
            limit,
        });
        let store = Arc::new(Coalesced::around(gate.clone(), limit));
        Self { gate, store }
    }

    /// A store with all requests in flight that there may be.
    async fn busy() -> (Self, Vec<JoinHandle<Answer>>) {
        let bench = Self::new(LONG);
        let mut first = Vec::new();
        for _ in 0..AT_ONCE {
            first.push(bench.call(vec![peek("first")]).await);
        }
        (bench, first)
    }

    /// Somebody's batch, once it has come as far as it can.
    async fn call(&self, batch: Vec<Op>) -> JoinHandle<Answer> {
        let store = Arc::clone(&self.store);
        let call = tokio::spawn(async move { store.run(batch).await });
        yield_now().await;
        call
    }

    /// How many ops each request had after those of [`busy`](Self::busy).
    fn sizes(&self) -> Vec<usize> {
        let requests = self.gate.requests.lock().unwrap();
        requests[AT_ONCE..].iter().map(Vec::len).collect()
    }

    fn open(&self) {
        self.gate.open.add_permits(1_000);
    }

    /// Lets one request go, so that those who wait have a turn, and then all.
    async fn open_in_turn(&self) {
        self.gate.open.add_permits(1);
        while self.sizes().is_empty() {
            yield_now().await;
        }
        self.open();
    }

    /// Puts a value there, past the gate.
    async fn fill(&self, name: &str, bytes: usize) {
        let lease = Token::random();
        let value = Bytes::from(vec![7; bytes]);
        let batch = vec![acquire(name, lease), fill(name, lease, value)];
        self.gate.inner.run(batch).await.unwrap();
    }
}

fn key(name: &str) -> Key {
    name.to_owned().into()
}

fn read(name: &str) -> Op {
    let (key, field) = (key(name), FIELD);
    Op::Read { key, field }
}

fn peek(name: &str) -> Op {
    Op::Peek { key: key(name) }
}

fn generation(name: &str) -> Op {
    Op::Generation {
        key: key(name),
        fresh: Token::random(),
        ttl: None,
    }
}

fn acquire(name: &str, lease: Token) -> Op {
    Op::Acquire {
        key: key(name),
        field: FIELD,
        lease,
        seen: Seen::Nothing,
        ttl: LONG,
    }
}

fn fill(name: &str, lease: Token, value: Bytes) -> Op {
    Op::Fill {
        key: key(name),
        field: FIELD,
        lease,
        value,
        ttl: LONG,
    }
}

async fn items(call: JoinHandle<Answer>) -> Vec<Reply> {
    call.await.unwrap().unwrap().items
}

#[tokio::test]
async fn who_is_alone_is_sent_at_once_as_it_is() {
    let bench = Bench::new(LONG);
    bench.open();
    for n in 1..4 {
        items(bench.call(vec![read("a"), read("a"), peek("g")]).await).await;
        let requests = bench.gate.requests.lock().unwrap();
        assert_eq!((requests.len(), requests[n - 1].len()), (n, 3));
    }
    assert_eq!(bench.store.merged(), 0);
    assert_eq!(bench.store.0.state().in_flight, 0);
}

#[tokio::test]
async fn those_who_wait_share_the_requests_and_what_they_look_up_is_sent_once_in_each() {
    let (bench, first) = Bench::busy().await;
    let made = bench.gate.inner.run(vec![generation("rows")]).await;
    let rows = made.unwrap().items.remove(0);
    let mut calls = Vec::new();
    for n in 0..100 {
        let name = format!("k{}", n % 50);
        bench.fill(&name, n % 50 + 1).await;
        let batch = vec![read(&name), peek("rows"), peek("list")];
        calls.push((n, bench.call(batch).await));
    }
    assert!(bench.sizes().is_empty(), "they wait");
    bench.open_in_turn().await;
    for (n, call) in calls {
        let value = Reply::Value(Some(vec![7; n % 50 + 1].into()));
        assert_eq!(
            items(call).await,
            [value, rows.clone(), Reply::Generation(None)]
        );
    }
    for call in first {
        assert_eq!(items(call).await, [Reply::Generation(None)]);
    }
    // 51 callers, and the 49 others.
    assert_eq!(bench.sizes(), [50 + 2, 49 + 2]);
    assert_eq!(bench.store.merged(), 50 + 48);
}

#[tokio::test]
async fn what_changes_something_is_sent_for_each_caller() {
    let (bench, _first) = Bench::busy().await;
    let leases = [Token::random(), Token::random()];
    let mut calls = Vec::new();
    for lease in leases {
        calls.push(bench.call(vec![generation("g"), acquire("k", lease)]).await);
    }
    bench.open_in_turn().await;
    let second = items(calls.remove(1)).await;
    let first = items(calls.remove(0)).await;
    assert_eq!(bench.sizes(), [3], "the generation is made once");
    assert!(matches!(first[0], Reply::Generation(Some(_))));
    assert_eq!(first[0], second[0]);
    assert_eq!(first[1], Reply::Acquired(Acquired::Granted));
    assert_eq!(second[1], Reply::Acquired(Acquired::Busy(leases[0])));
}

#[tokio::test]
async fn a_look_up_behind_a_change_of_its_own_is_not_shared() {
    let (bench, _first) = Bench::busy().await;
    let lease = Token::random();
    let granted = bench.gate.inner.run(vec![acquire("k", lease)]).await;
    assert_eq!(granted.unwrap().items, [Reply::Acquired(Acquired::Granted)]);
    let before = bench.call(vec![read("k"), read("other")]).await;
    let value = Bytes::from_static(b"12345678 and more");
    let change = vec![fill("k", lease, value.clone()), read("k"), read("other")];
    let behind = bench.call(change).await;
    bench.open_in_turn().await;
    assert_eq!(items(behind).await[1], Reply::Value(Some(value)));
    assert_eq!(items(before).await[0], Reply::Value(None));
    assert_eq!(bench.sizes(), [4]);
}

#[tokio::test]
async fn a_request_that_fails_fails_all_and_an_op_that_fails_only_those_who_sent_it() {
    let (bench, _first) = Bench::busy().await;
    let bad = bench.call(vec![read("bad"), read("good")]).await;
    let good = bench.call(vec![read("good")]).await;
    bench.open_in_turn().await;
    let failed = Reply::Failed("bad".to_owned());
    assert_eq!(items(bad).await, [failed, Reply::Value(None)]);
    assert_eq!(items(good).await, [Reply::Value(None)]);

    let (bench, _first) = Bench::busy().await;
    let calls = [
        bench.call(vec![read("down")]).await,
        bench.call(vec![read("good")]).await,
    ];
    bench.open_in_turn().await;
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
    }
    assert_eq!(
        items(bench.call(vec![read("good")]).await).await,
        [Reply::Value(None)]
    );
}

#[tokio::test]
async fn writes_and_large_batches_do_not_wait() {
    let (bench, _first) = Bench::busy().await;
    let (writer, ttl) = (Token::random(), LONG);
    let fence = Op::Fence {
        key: key("k"),
        writer,
        ttl,
    };
    let settle = Op::Settle {
        key: key("k"),
        writer,
    };
    let large = fill("k", writer, vec![0; HEAVIEST_BATCH + 1].into());
    let long = vec![read("k"); LONGEST_BATCH + 1];
    bench.call(vec![read("k")]).await;
    for batch in [vec![fence], vec![settle], vec![large], long] {
        bench.call(batch).await;
    }
    assert_eq!(bench.sizes(), [1, 1, 1, LONGEST_BATCH + 1]);
}

#[tokio::test]
async fn a_caller_that_goes_away_harms_nobody() {
    let (bench, mut first) = Bench::busy().await;
    let mut calls = Vec::new();
    for name in ["a", "b", "c"] {
        calls.push(bench.call(vec![read(name)]).await);
    }
    calls.remove(1).abort();
    // One that is in flight goes away: its slot is for those who wait.
    let gone = first.remove(0);
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    while bench.sizes().is_empty() {
        yield_now().await;
    }
    assert_eq!(bench.sizes(), [2], "nobody wants b");
    assert_eq!(bench.store.merged(), 2);
    // One of several in a request goes away.
    calls.remove(0).abort();
    bench.open();
    assert_eq!(items(calls.remove(0)).await, [Reply::Value(None)]);
    for other in first {
        items(other).await;
    }
    while bench.store.0.state().in_flight > 0 {
        yield_now().await;
    }
}

#[tokio::test]
async fn nobody_waits_for_longer_than_the_limit() {
    let limit = Duration::from_secs(1);
    let bench = Bench::new(limit);
    let mut calls = Vec::new();
    for _ in 0..AT_ONCE {
        calls.push(bench.call(vec![read("first")]).await);
    }
    tokio::time::sleep(limit / 2).await;
    let (called, late) = (Instant::now(), bench.call(vec![read("late")]).await);
    calls.push(late);
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Timeout(after) if after == limit));
    }
    // Half of the time in line, the other half in flight.
    let took = called.elapsed();
    assert!(took >= limit && took < limit * 3 / 2, "{took:?}");
    assert_eq!(bench.sizes(), [1]);
}

#[tokio::test]
async fn of_large_values_few_are_asked_for_at_once() {
    let bench = Bench::new(LONG);
    for n in 0..9 {
        bench.fill(&format!("k{n}"), 100 << 10).await;
    }
    let mut calls = Vec::new();
    for n in 0..9 {
        calls.push(bench.call(vec![read(&format!("k{n}"))]).await);
    }
    bench.open();
    for call in calls {
        assert!(
            matches!(&items(call).await[..], [Reply::Value(Some(value))] if value.len() == 100 << 10)
        );
    }
    let sizes = bench.sizes();
    assert_eq!(sizes.iter().sum::<usize>(), 9 - AT_ONCE);
    assert!(sizes.iter().all(|size| *size <= 2), "{sizes:?}");
}

#[test]
fn a_store_that_is_far_away_has_more_requests_in_flight_and_one_that_is_busy_has_not() {
    let line = Bench::new(LONG).store;
    let after = |millis: f64, requests: usize| {
        let took = Duration::from_secs_f64(millis / 1e3);
        (0..requests).for_each(|_| line.0.time(took));
        line.0.at_once()
    };
    assert_eq!(line.0.at_once(), 2);
    assert_eq!(after(0.3, 1_000), 3);
    assert_eq!(after(20.0, 1_000), 4);
    assert_eq!(after(0.05, 1), 2);
    // Now and then one is as fast as ever.
    for _ in 0..100 {
        assert_eq!((after(5.0, 30), after(0.05, 1)), (2, 2));
    }
}

#[test]
fn a_runtime_that_ends_cuts_off_those_who_wait() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let (ends, goes_on) = (runtime(), runtime());
    let (bench, first) = ends.block_on(Bench::busy());
    // It waits for requests of a runtime that is not its own.
    let waits = goes_on.block_on(bench.call(vec![read("a")]));
    drop((ends, first));
    let error = goes_on.block_on(waits).unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
    assert_eq!(bench.store.0.state().in_flight, 0);
    bench.open();
    let again = goes_on.block_on(bench.call(vec![read("a")]));
    assert_eq!(goes_on.block_on(items(again)), [Reply::Value(None)]);
}
