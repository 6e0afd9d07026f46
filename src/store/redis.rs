//! Redis 7 or Valkey 8, standalone.
//!
//! One connection carries everything. Its root generation is looked up when it is made, and belongs
//! to it: a restarted server or another one is always another connection.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, IntoConnectionInfo, ProtocolVersion, RedisError, Value};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Op, Replies, Reply, Store, StoreError, Token};
use crate::key::escape;

mod wire;

use wire::{SCRIPTS, Scripts};

/// Longer batches are sent in parts of this many ops, one round trip each, so that neither side
/// holds all of a huge batch in its buffers, others need not wait for it, and its length is not taken
/// for a server that does not answer in time.
const LONGEST_PIPELINE: usize = 2_000;

/// After this many stalls in a row a connection is given up. One stall is more likely a slow server
/// than a dead connection.
const STALLS: u32 = 3;

/// How to talk to a Redis or Valkey server.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// How long a batch may take, waiting for a connection included; a longer one may take so long for
    /// every 2,000 ops. Defaults to 250 ms.
    pub command_timeout: Duration,
    /// How long connecting may take. A batch does not wait for all of it, but connecting goes on
    /// and later batches profit. Defaults to 1 s.
    pub connect_timeout: Duration,
    /// The prefix of the root generation's key. Defaults to `soc`.
    pub prefix: String,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            command_timeout: Duration::from_millis(250),
            connect_timeout: Duration::from_secs(1),
            prefix: "soc".to_owned(),
        }
    }
}

/// Entries in a Redis or Valkey server.
///
/// Connects again by itself after the connection broke; the batches that were under way fail. A
/// batch of up to 2,000 ops is one round trip, and one more after the server lost its scripts.
pub struct RedisStore {
    shared: Arc<Link>,
}

impl RedisStore {
    /// Connects, and fails if that fails.
    ///
    /// # Errors
    /// If the URL cannot be parsed, or the server cannot be reached within the connect timeout.
    pub async fn connect(url: &str, options: RedisOptions) -> Result<Self, StoreError> {
        let store = Self::lazy(url, options)?;
        store.shared.live().await?;
        Ok(store)
    }

    /// Does not connect yet: the first batch does.
    ///
    /// # Errors
    /// If the URL cannot be parsed.
    pub fn lazy(url: &str, options: RedisOptions) -> Result<Self, StoreError> {
        let client = client(url).map_err(|error| StoreError::Unreachable(error.to_string()))?;
        let state = Mutex::new(State::Idle);
        let shared = Arc::new(Link {
            client,
            options,
            state,
        });
        Ok(Self { shared })
    }

    async fn exchange(&self, part: &[Op]) -> Result<Replies, StoreError> {
        let exchange = async |live: Live| {
            let items = live.exchange(part).await?;
            let root = live.root;
            Ok(Replies { root, items })
        };
        self.shared.with_live(exchange).await
    }
}

fn client(url: &str) -> Result<Client, RedisError> {
    let info = url.into_connection_info()?;
    let settings = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3)
        .set_lib_name(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    Client::open(info.set_redis_settings(settings).set_tcp_settings(tcp))
}

impl fmt::Debug for RedisStore {
    /// The address and the options; never the credentials of the URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.shared.client.get_connection_info().addr();
        f.debug_struct("RedisStore")
            .field("address", &format_args!("{address}"))
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl Store for RedisStore {
    async fn run(&self, batch: Vec<Op>) -> Result<Replies, StoreError> {
        let mut parts = batch.chunks(LONGEST_PIPELINE);
        let mut replies = self.exchange(parts.next().unwrap_or_default()).await?;
        for part in parts {
            let more = self.exchange(part).await?;
            if more.root != replies.root {
                let changed = "another root generation in the middle of a batch";
                return Err(StoreError::Protocol(changed.to_owned()));
            }
            replies.items.extend(more.items);
        }
        Ok(replies)
    }

    async fn refresh_root(&self) -> Result<(), StoreError> {
        let refresh = async |live: Live| {
            let root = live.root_now(&self.shared.root_key()).await?;
            self.shared.adopt(live.id, root);
            Ok(())
        };
        self.shared.with_live(refresh).await
    }
}

/// The way to the server: what a store's batches and its connection attempt share.
struct Link {
    client: Client,
    options: RedisOptions,
    state: Mutex<State>,
}

enum State {
    Idle,
    /// All batches wait for one attempt.
    Connecting(Token, Attempt),
    Live(Live),
}

type Attempt = Shared<BoxFuture<'static, Result<Live, StoreError>>>;

/// A connection and what was found out when it was made.
#[derive(Clone)]
struct Live {
    id: Token,
    connection: MultiplexedConnection,
    run: Arc<str>,
    root: Token,
    stalls: Arc<Stalls>,
}

/// How often in a row a connection did not answer in time.
struct Stalls {
    count: AtomicU32,
    last: Mutex<Instant>,
}

impl Link {
    /// Runs `exchange` over the connection, all within the command timeout.
    async fn with_live<T>(
        self: &Arc<Self>,
        exchange: impl AsyncFnOnce(Live) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let limit = self.options.command_timeout;
        let started = Instant::now();
        let deadline = started + limit;
        let late = |_| StoreError::Timeout(limit);
        let live = timeout_at(deadline, self.live()).await.map_err(late)??;
        let (id, stalls) = (live.id, Arc::clone(&live.stalls));
        match timeout_at(deadline, exchange(live)).await {
            Ok(Ok(outcome)) => {
                stalls.clear();
                Ok(outcome)
            }
            Ok(Err(error)) => {
                self.give_up(id);
                Err(error)
            }
            Err(_) => {
                if stalls.count_from(started) >= STALLS {
                    self.give_up(id);
                }
                Err(StoreError::Timeout(limit))
            }
        }
    }

    /// The connection, made if there is none.
    async fn live(self: &Arc<Self>) -> Result<Live, StoreError> {
        let (id, attempt) = match &mut *self.state() {
            State::Live(live) => return Ok(live.clone()),
            State::Connecting(id, attempt) => (*id, attempt.clone()),
            idle @ State::Idle => {
                let (id, attempt) = self.attempt();
                *idle = State::Connecting(id, attempt.clone());
                (id, attempt)
            }
        };
        let outcome = attempt.await;
        // The attempt's own task does this too, unless its runtime was shut down.
        self.conclude(id, &outcome);
        outcome
    }

    /// Starts to connect, in a task of its own: a caller that gives up must not end the attempt
    /// for the others, or a slow connection would never be made.
    fn attempt(self: &Arc<Self>) -> (Token, Attempt) {
        let id = Token::random();
        let link = Arc::clone(self);
        let task = tokio::spawn(async move {
            let limit = link.options.connect_timeout;
            let outcome = timeout(limit, link.open(id)).await;
            let outcome = outcome.unwrap_or(Err(StoreError::Timeout(limit)));
            link.conclude(id, &outcome);
            outcome
        });
        let attempt = async {
            let cut_off = || StoreError::Unreachable("connecting was cut off".to_owned());
            task.await.unwrap_or_else(|_| Err(cut_off()))
        };
        (id, attempt.boxed().shared())
    }

    async fn open(&self, id: Token) -> Result<Live, StoreError> {
        // Both timeouts are ours: one timer for a batch is cheaper than one for each request.
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(unreachable)?;
        let mut setup = redis::pipe();
        setup.cmd("INFO").arg("server");
        for script in SCRIPTS.all() {
            setup.add_command(wire::load(script));
        }
        let mut answers = send(connection.clone(), setup).await?.into_iter();
        let run = answers.next().and_then(wire::run_id);
        // Without a run_id each connection has a root of its own: slow, but never outdated.
        let run = run.unwrap_or_else(|| format!("{:?}", Token::random()));
        for answer in answers {
            if let Value::ServerError(error) = answer {
                return Err(StoreError::Unreachable(wire::error_text(&error)));
            }
        }
        let root = root(connection.clone(), wire::root(&self.root_key(), &run, None)).await?;
        Ok(Live {
            id,
            connection,
            run: run.into(),
            root,
            stalls: Arc::new(Stalls::new()),
        })
    }

    fn root_key(&self) -> String {
        format!("{}:root", escape(&self.options.prefix))
    }

    /// Ends the attempt, if it is still the current one.
    fn conclude(&self, id: Token, outcome: &Result<Live, StoreError>) {
        let mut state = self.state();
        if matches!(&*state, State::Connecting(current, _) if *current == id) {
            *state = match outcome {
                Ok(live) => State::Live(live.clone()),
                Err(_) => State::Idle,
            };
        }
    }

    /// Drops the connection, if it is still the current one: the next batch makes a new one.
    fn give_up(&self, id: Token) {
        let mut state = self.state();
        if matches!(&*state, State::Live(live) if live.id == id) {
            *state = State::Idle;
        }
    }

    /// Takes over the root generation that was found over the connection.
    fn adopt(&self, id: Token, root: Token) {
        if let State::Live(live) = &mut *self.state()
            && live.id == id
        {
            live.root = root;
        }
    }

    /// Never held across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    async fn exchange(&self, ops: &[Op]) -> Result<Vec<Reply>, StoreError> {
        // An empty pipeline is no request.
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        let answers = self.answers(ops).await?.into_iter();
        let replies = ops.iter().zip(answers);
        replies
            .map(|(op, answer)| wire::reply(op, answer))
            .collect()
    }

    /// The server's answers, one for each op.
    ///
    /// After SCRIPT FLUSH everything from the first op that failed on is run once more, to keep the
    /// order. An op among them that had succeeded is repeated with the same outcome, except that a
    /// fill which was stored may answer that it was superseded, which is safe.
    async fn answers(&self, ops: &[Op]) -> Result<Vec<Value>, StoreError> {
        let mut answers = self.send(pipeline(ops)).await?;
        if let Some(first) = answers.iter().position(wire::is_unknown_script) {
            let mut again = redis::pipe();
            for script in SCRIPTS.all() {
                again.add_command(wire::load(script));
            }
            for op in &ops[first..] {
                again.add_command(wire::command(op));
            }
            answers.truncate(first);
            answers.extend(self.send(again).await?.drain(Scripts::COUNT..));
        }
        Ok(answers)
    }

    async fn send(&self, pipeline: redis::Pipeline) -> Result<Vec<Value>, StoreError> {
        send(self.connection.clone(), pipeline).await
    }

    async fn root_now(&self, key: &str) -> Result<Token, StoreError> {
        let command = wire::root(key, &self.run, Some(self.root));
        root(self.connection.clone(), command).await
    }
}

fn pipeline(ops: &[Op]) -> redis::Pipeline {
    let mut pipeline = redis::Pipeline::with_capacity(ops.len());
    for op in ops {
        pipeline.add_command(wire::command(op));
    }
    pipeline
}

/// Sends a pipeline and receives exactly one answer for each command, errors included.
async fn send(
    mut connection: MultiplexedConnection,
    pipeline: redis::Pipeline,
) -> Result<Vec<Value>, StoreError> {
    let expected = pipeline.len();
    let answers = connection
        .send_packed_commands(&pipeline, 0, expected)
        .await
        .map_err(unreachable)?;
    if answers.len() != expected {
        let text = format!("{} answers to {expected} commands", answers.len());
        return Err(StoreError::Protocol(text));
    }
    Ok(answers)
}

async fn root(mut connection: MultiplexedConnection, command: Cmd) -> Result<Token, StoreError> {
    let answer = connection.send_packed_command(&command).await;
    wire::root_name(answer.map_err(unreachable)?)
}

fn unreachable(error: RedisError) -> StoreError {
    StoreError::Unreachable(error.to_string())
}

impl Stalls {
    fn new() -> Self {
        Self {
            count: AtomicU32::new(0),
            last: Mutex::new(Instant::now()),
        }
    }

    fn clear(&self) {
        if self.count.load(Ordering::Relaxed) != 0 {
            self.count.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a batch that was not answered in time. Batches that were sent before the last stall
    /// was counted are part of it: a hundred of them do not make a hundred stalls.
    fn count_from(&self, started: Instant) -> u32 {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if started < *last {
            return self.count.load(Ordering::Relaxed);
        }
        *last = Instant::now();
        self.count.fetch_add(1, Ordering::Relaxed) + 1
    }
}
