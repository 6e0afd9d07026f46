//! The way to one server: a connection, made again when it broke.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::time::{Instant, timeout, timeout_at};

use super::address::{Address, Server};
use super::connection::{Connection, News};
use super::resp::{Answer, Request};
use super::sentinel::Sentinels;
use super::wire::{self, Call, Calls, LONGEST_RUN, SCRIPTS, Scripts};
use super::{RedisOptions, own_changes};
use crate::clock;
use crate::key::Key;
use crate::store::{Feed, Op, Reply, StoreError, Token};

/// After this many stalls in a row a connection is given up. One stall is more likely a slow server
/// than a dead connection.
const STALLS: u32 = 3;

/// How often the sentinels are asked whether the primary still is the same.
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(1);

/// Which server.
pub(super) enum Target {
    Server(Server),
    /// The one that is the primary when the connection is made.
    Primary(Sentinels),
    /// A node of a cluster: it has no root generation of its own.
    Node(Server),
}

/// The way to the server: what a store's batches and its connection attempt share.
pub(super) struct Link {
    pub(super) target: Target,
    pub(super) options: RedisOptions,
    /// Whom to tell of changes by others, where somebody wants to know.
    pub(super) feed: Option<Arc<Feed>>,
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
pub(super) struct Live {
    pub(super) id: Token,
    address: Option<Address>,
    connection: Connection,
    pub(super) run: Arc<str>,
    /// Of a cluster's node it means nothing.
    pub(super) root: Token,
    stalls: Arc<Stalls>,
    /// How many operations at most are one command.
    longest_run: Arc<AtomicUsize>,
    feed: Option<Arc<Feed>>,
}

/// How often in a row a connection did not answer in time.
struct Stalls {
    count: AtomicU32,
    last: Mutex<Instant>,
}

impl Link {
    pub(super) fn new(target: Target, options: RedisOptions, feed: Option<Arc<Feed>>) -> Self {
        Self {
            target,
            options,
            feed,
            state: Mutex::new(State::Idle),
        }
    }

    /// Runs `exchange` over the connection, all within the command timeout.
    pub(super) async fn with_live<T>(
        self: &Arc<Self>,
        exchange: impl AsyncFnOnce(Live) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let deadline = started + self.options.command_timeout;
        self.with_live_until(started, deadline, exchange).await
    }

    /// Runs `exchange` over the connection, from `started`, which is now, to `deadline`, which is no later
    /// than the command timeout.
    pub(super) async fn with_live_until<T>(
        self: &Arc<Self>,
        started: Instant,
        deadline: Instant,
        exchange: impl AsyncFnOnce(Live) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let limit = self.options.command_timeout;
        let late = |_| StoreError::Timeout(limit);
        let live = match self.live_now() {
            Some(live) => live,
            None => timeout_at(deadline, self.live()).await.map_err(late)??,
        };
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

    /// Some of the keys that begin with `prefix`, and the cursor to go on with, if that is not all.
    pub(super) async fn scan(
        self: &Arc<Self>,
        prefix: &str,
        cursor: &str,
    ) -> Result<(Vec<Key>, Option<String>), StoreError> {
        let request = wire::scan(prefix, cursor);
        let scan = async |live: Live| live.ask(&request).await;
        wire::scanned(self.with_live(scan).await?.pop())
    }

    /// The connection, if there is one.
    fn live_now(&self) -> Option<Live> {
        match &*self.state() {
            State::Live(live) => Some(live.clone()),
            _ => None,
        }
    }

    /// The connection, made if there is none.
    pub(super) async fn live(self: &Arc<Self>) -> Result<Live, StoreError> {
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
            if let (Ok(live), Some(feed)) = (&outcome, &link.feed) {
                let (link, feed) = (Arc::downgrade(&link), Arc::clone(feed));
                tokio::spawn(listen(link, feed, live.clone()));
            }
            if let (Ok(live), Target::Primary(_)) = (&outcome, &link.target) {
                tokio::spawn(follow(Arc::downgrade(&link), live.clone()));
            }
            outcome
        });
        let attempt = async {
            let cut_off = || StoreError::Unreachable("connecting was cut off".to_owned());
            task.await.unwrap_or_else(|_| Err(cut_off()))
        };
        (id, attempt.boxed().shared())
    }

    async fn open(&self, id: Token) -> Result<Live, StoreError> {
        let server = match &self.target {
            Target::Server(server) | Target::Node(server) => server.clone(),
            Target::Primary(sentinels) => sentinels.primary().await?,
        };
        let address = server.address();
        let connection = server.connect(teller(self.feed.clone(), id)).await?;
        let sent = clock::now();
        let mut setup = Request::default();
        setup.command([b"INFO", b"server"]);
        if self.feed.is_some() {
            // Not of our own changes: what they cost the tier is not left to the server to say.
            setup.command([b"CLIENT", b"TRACKING", b"ON", b"NOLOOP"]);
        }
        for script in SCRIPTS.all() {
            wire::load(&mut setup, script);
        }
        let mut answers = connection.ask(&setup).await?.into_iter();
        let run = answers.next().and_then(wire::run_id);
        // Without a run_id each connection has a root of its own: slow, but never outdated.
        let run = run.unwrap_or_else(|| format!("{:?}", Token::random()));
        for answer in answers {
            if let Answer::Error(refusal) = answer {
                return Err(StoreError::Unreachable(refusal.text().to_owned()));
            }
        }
        let root = match self.target {
            Target::Node(_) => Token::random(),
            // It is a write, which a replica refuses: an outdated sentinel does no harm.
            _ => root(&connection, &self.options.root_key(), &run, None).await?,
        };
        if let Some(feed) = &self.feed {
            feed.connected(id, sent);
        }
        Ok(Live {
            id,
            address,
            connection,
            run: run.into(),
            root,
            stalls: Arc::new(Stalls::new()),
            longest_run: Arc::new(LONGEST_RUN.into()),
            feed: self.feed.clone(),
        })
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
            // In this order: what is asked for from here on goes over another connection.
            drop(state);
            self.lost(id);
        }
    }

    fn lost(&self, id: Token) {
        if let Some(feed) = &self.feed {
            feed.lost(id);
        }
    }

    fn is_live(&self, id: Token) -> bool {
        matches!(&*self.state(), State::Live(live) if live.id == id)
    }

    /// Takes over the root generation that was found over the connection.
    pub(super) fn adopt(&self, id: Token, root: Token) {
        let changed = match &mut *self.state() {
            State::Live(live) if live.id == id => std::mem::replace(&mut live.root, root) != root,
            _ => false,
        };
        // Outside of the lock: it wakes those who wait.
        if let (true, Some(feed)) = (changed, &self.feed) {
            feed.all_changed();
        }
    }

    /// Never held across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the feed what the server has to tell. Called by the connection before it reads on, so that an
/// answer means that all earlier news was told.
fn teller(feed: Option<Arc<Feed>>, id: Token) -> impl Fn(News) + Send + 'static {
    move |news| {
        let Some(feed) = &feed else { return };
        match news {
            News::Lost => feed.lost(id),
            News::Told(words) => match &words[..] {
                [Answer::Text(kind), keys @ ..] if kind == "invalidate" => match keys {
                    [Answer::Array(keys)] => keys.iter().for_each(|key| match key {
                        Answer::Text(key) => feed.changed(key),
                        _ => feed.all_changed(),
                    }),
                    // FLUSHALL.
                    _ => feed.all_changed(),
                },
                _ => {}
            },
        }
    }
}

/// Asks the server again and again whether it is still there, and gives the connection up if it is not.
/// Ends with the connection.
async fn listen(link: Weak<Link>, feed: Arc<Feed>, live: Live) {
    let Some(max_silence) = feed.max_silence() else {
        return;
    };
    loop {
        tokio::time::sleep(max_silence / 3).await;
        let is_live = |link: Arc<Link>| link.is_live(live.id);
        if !link.upgrade().is_some_and(is_live) {
            return;
        }
        let sent = clock::now();
        if live.ping(max_silence).await {
            feed.heard(live.id, sent);
        } else if let Some(link) = link.upgrade() {
            link.give_up(live.id);
        }
    }
}

/// Gives the connection up when the sentinels name another primary: one that was cut off from them may
/// not know that it is none any more. Ends with the connection.
async fn follow(link: Weak<Link>, live: Live) {
    loop {
        tokio::time::sleep(BETWEEN_QUESTIONS).await;
        let Some(link) = link.upgrade().filter(|link| link.is_live(live.id)) else {
            return;
        };
        let Target::Primary(sentinels) = &link.target else {
            return;
        };
        let answer = timeout(link.options.connect_timeout, sentinels.primary()).await;
        if matches!(answer, Ok(Ok(primary)) if primary.address() != live.address) {
            link.give_up(live.id);
        }
    }
}

impl Drop for Link {
    /// A link to a node that has left its cluster: nobody tells of what was read through it.
    fn drop(&mut self) {
        let id = match &*self.state() {
            State::Live(live) => live.id,
            _ => return,
        };
        self.lost(id);
    }
}

impl Live {
    /// The replies to a batch.
    pub(super) async fn exchange(&self, batch: &[Op]) -> Result<Vec<Reply>, StoreError> {
        let _own = own_changes(self.feed.as_ref(), batch);
        let longest = self.longest_run.load(Ordering::Relaxed);
        let mut replies = self.replies(batch, longest).await?;
        if replies.len() < batch.len() {
            self.longest_run.store(1, Ordering::Relaxed);
            replies.extend(self.replies(&batch[replies.len()..], 1).await?);
        }
        Ok(replies)
    }

    /// The replies up to the first run of operations that the server refuses for its keys.
    async fn replies(&self, batch: &[Op], longest: usize) -> Result<Vec<Reply>, StoreError> {
        let calls = Calls::new(batch, longest);
        let answers = self.answers(calls.clone().map(|call| (call, false)));
        let mut replies = Vec::with_capacity(batch.len());
        for (call, answer) in calls.zip(answers.await?) {
            let Call::Ops(ops) = call else { continue };
            if ops.len() > 1 && wire::is_of_many_slots(&answer) {
                break;
            }
            for (op, answer) in ops.iter().zip(std::iter::repeat_n(answer, ops.len())) {
                replies.push(wire::reply(op, answer)?);
            }
        }
        Ok(replies)
    }

    /// The server's answers, one for each call. Before a call with a true beside it the node is told
    /// that we come because it was named for this once.
    ///
    /// After SCRIPT FLUSH everything from the first op that failed on is run once more, to keep the
    /// order. An op among them that had succeeded is repeated with the same outcome, except that a
    /// fill which was stored may answer that it was superseded, which is safe.
    pub(super) async fn answers<'a>(
        &self,
        calls: impl Iterator<Item = (Call<'a>, bool)> + Clone,
    ) -> Result<Vec<Answer>, StoreError> {
        let request = Request::with_capacity(calls.size_hint().1.unwrap_or_default());
        let mut answers = self.send_calls(request, calls.clone()).await?;
        if let Some(first) = answers.iter().position(wire::is_unknown_script) {
            let mut again = Request::default();
            for script in SCRIPTS.all() {
                wire::load(&mut again, script);
            }
            answers.truncate(first);
            let more = self.send_calls(again, calls.skip(first)).await?;
            answers.extend(more.into_iter().skip(Scripts::COUNT));
        }
        Ok(answers)
    }

    /// Adds the calls to the request and sends it. The answers are those to what it held before and
    /// to the calls.
    async fn send_calls<'a>(
        &self,
        mut request: Request,
        calls: impl Iterator<Item = (Call<'a>, bool)>,
    ) -> Result<Vec<Answer>, StoreError> {
        let mut announcements = Vec::new();
        for (call, announced) in calls {
            if announced {
                announcements.push(request.len());
                request.command([b"ASKING"]);
            }
            call.write(&mut request);
        }
        let mut answers = self.ask(&request).await?;
        for at in announcements.into_iter().rev() {
            answers.remove(at);
        }
        Ok(answers)
    }

    /// The server's answers to commands that are about no key of an operation.
    pub(super) async fn ask(&self, request: &Request) -> Result<Vec<Answer>, StoreError> {
        self.connection.ask(request).await
    }

    /// Whether the server answers in time.
    async fn ping(&self, limit: Duration) -> bool {
        let mut ping = Request::default();
        ping.command([b"PING"]);
        let answer = timeout(limit, self.ask(&ping)).await;
        matches!(answer, Ok(Ok(answer)) if !matches!(answer[..], [Answer::Error(_)]))
    }

    pub(super) async fn root_now(&self, key: &str) -> Result<Token, StoreError> {
        root(&self.connection, key, &self.run, Some(self.root)).await
    }
}

async fn root(
    connection: &Connection,
    key: &str,
    run: &str,
    known: Option<Token>,
) -> Result<Token, StoreError> {
    let mut request = Request::default();
    Call::Root { key, run, known }.write(&mut request);
    let answer = connection.ask(&request).await?.pop();
    wire::root_name(answer.unwrap_or(Answer::Nil))
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
