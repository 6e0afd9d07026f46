//! A cluster: a link to each primary, and who owns which slot.
//!
//! A batch is split by node, sent to all of them at once, and put together again. So ops of one batch
//! on *different* keys run in no order, and nothing may rely on one. Nothing does:
//!
//! - A look-up reads a value and peeks its generations. Let a write that is acknowledged before the
//!   look-up begins have fenced any of these keys: it has taken the value away, or the generation's
//!   name for ever. Either is found out, whichever of them is asked first.
//! - An acquire notes generations and asks for a lease, and the database is read after all of them
//!   were answered. Each guards by itself: a write that fences the entry after the lease was granted
//!   deletes that lease, and one that fences a generation after it was noted takes its name away. What
//!   a write did before either was in the database when that was read. A write that fences the
//!   generation between noting and lease leaves a value under a name that is gone: a miss.
//! - To join a load is to find its lease, and the generations that it noted, standing after one's own
//!   read began. The same holds of each.
//! - Fences are all answered before the statement is sent, and settles are sent after it.
//!
//! Ops on *one* key stay in order: they go to one node in one pipeline, and what a node sends on is
//! sent on in order.
//!
//! **The root generation** is one for the whole cluster, because a value on one node depends on
//! generations on others. It is recorded under the `run_id`s of all primaries that own slots. A
//! batch's answers count only if every connection that gave one leads to a server that the [`View`]
//! names, in whose name the root was looked up: a server that took over from another may have missed
//! its last writes. Processes that see the cluster differently take the root from one another; each
//! finds out at the first value of the other, looks again, and has missed.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, join_all, select_ok};
use tokio::time::{Instant, timeout, timeout_at};

use super::address::{Address, Server};
use super::link::{Link, Live, Target};
use super::resp::{Answer, Request};
use super::wire::{self, Call};
use super::{RedisOptions, own_changes};
use crate::store::{Cursor, Feed, Op, Replies, StoreError, Token, Walked};

mod map;

use map::Map;

/// How often a call is sent on before it fails. The nodes agree after one or two.
const MOST_REDIRECTIONS: usize = 5;

/// How long after a look at the cluster a failure leads to another one.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// How many nodes are asked for the map before the seeds are.
const NODES_ASKED: usize = 2;

/// The way to a cluster.
pub(super) struct Cluster {
    /// Nodes that the user named.
    seeds: Vec<Server>,
    options: RedisOptions,
    pub(super) feed: Option<Arc<Feed>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    map: Option<Arc<Map>>,
    view: Option<Arc<View>>,
    links: HashMap<Address, Arc<Link>>,
    look: Option<(Token, Look)>,
    last_look: Option<Instant>,
}

/// A look at the cluster under way, for which all wait who need it.
type Look = Shared<BoxFuture<'static, Result<(), StoreError>>>;

/// A root generation, and the servers in whose name it was looked up.
struct View {
    root: Token,
    runs: HashMap<Address, Arc<str>>,
}

/// A call on its way.
#[derive(Clone)]
struct Routed<'a> {
    position: usize,
    call: Call<'a>,
    to: Address,
    /// `to` was named for this once: it need not own the slot.
    once: bool,
}

/// Who has answered.
struct Witness {
    address: Address,
    run: Arc<str>,
    once: bool,
}

impl View {
    /// Whether what this server answered may be judged by this root. One that owns no slot, and to
    /// which a key was on its way, has missed nothing.
    fn covers(&self, witness: &Witness) -> bool {
        match self.runs.get(&witness.address) {
            Some(run) => *run == witness.run,
            None => witness.once,
        }
    }
}

impl Cluster {
    pub(super) fn new(seeds: &[String], options: RedisOptions) -> Result<Self, StoreError> {
        let server = |url: &String| {
            let server = Server::new(url, &options)?;
            match server.address() {
                Some(_) => Ok(server),
                None => Err(lost("a node of a cluster has no unix socket".to_owned())),
            }
        };
        let seeds = seeds.iter().map(server).collect::<Result<Vec<_>, _>>()?;
        if seeds.is_empty() {
            return Err(lost("no node of the cluster is named".to_owned()));
        }
        Ok(Self {
            seeds,
            feed: options.feed(),
            options,
            state: Mutex::default(),
        })
    }

    /// Where it was said to be.
    pub(super) fn seeds(&self) -> Vec<String> {
        self.seeds.iter().map(Server::place).collect()
    }

    /// Connects to all primaries.
    pub(super) async fn ready(self: &Arc<Self>) -> Result<(), StoreError> {
        self.look(None).await
    }

    /// Runs a batch, within the command timeout.
    pub(super) async fn run(self: &Arc<Self>, part: &[Op]) -> Result<Replies, StoreError> {
        let deadline = Instant::now() + self.options.command_timeout;
        let _own = own_changes(self.feed.as_ref(), part);
        let mut witnesses = Vec::new();
        // Of one key each: the keys are in different slots.
        let calls = part.chunks(1).map(Call::Ops).collect();
        let answers = self.answers(calls, &mut witnesses, deadline).await?;
        let replies = part.iter().zip(answers);
        let items = replies
            .map(|(op, answer)| wire::reply(op, answer))
            .collect::<Result<_, _>>()?;
        let root = self.in_time(deadline, self.root(&witnesses)).await?;
        Ok(Replies { root, items })
    }

    /// A step of a walk: of the primary that the cursor names, and at its end of the next one by address. Where
    /// that one is none any more, the walk begins again.
    pub(super) async fn walk(
        self: &Arc<Self>,
        prefix: &str,
        from: &Cursor,
    ) -> Result<Walked, StoreError> {
        let deadline = Instant::now() + self.options.command_timeout;
        let map = self.in_time(deadline, self.map()).await?;
        let mut nodes: Vec<_> = map.primaries().iter().collect();
        nodes.sort_by_cached_key(ToString::to_string);
        let (place, cursor) = from.0.rsplit_once(' ').unwrap_or_default();
        let found = nodes.iter().position(|node| node.to_string() == place);
        let (at, cursor) = found.map_or((0, ""), |at| (at, cursor));
        let link = self.link(nodes[at]);
        let scanned = link.scan(prefix, cursor).await;
        let (keys, rest) = scanned.inspect_err(|_| self.look_soon(None))?;
        let next = match rest {
            Some(cursor) => Some((nodes[at], cursor)),
            None => nodes.get(at + 1).map(|node| (*node, String::new())),
        };
        let next = next.map(|(node, cursor)| Cursor(format!("{node} {cursor}")));
        Ok(Walked { keys, next })
    }

    /// Looks at the cluster again, and at its root generation.
    pub(super) async fn refresh_root(self: &Arc<Self>) -> Result<(), StoreError> {
        let deadline = Instant::now() + self.options.command_timeout;
        self.in_time(deadline, self.look(None)).await
    }

    async fn in_time<T>(
        &self,
        deadline: Instant,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let late = |_| StoreError::Timeout(self.options.command_timeout);
        timeout_at(deadline, work).await.map_err(late)?
    }

    /// The answers of the nodes that own the keys, in the order of the calls.
    async fn answers<'a>(
        self: &Arc<Self>,
        calls: Vec<Call<'a>>,
        witnesses: &mut Vec<Witness>,
        deadline: Instant,
    ) -> Result<Vec<Answer>, StoreError> {
        let map = self.in_time(deadline, self.map()).await?;
        let mut answers = vec![Answer::Nil; calls.len()];
        let mut open = self.route(&map, calls)?;
        for _ in 0..=MOST_REDIRECTIONS {
            let groups = by_node(open);
            let asked = groups.iter().map(|group| self.ask(group, deadline));
            let given = join_all(asked).await;
            open = Vec::new();
            for (group, given) in groups.into_iter().zip(given) {
                let (run, given) = given?;
                let teller = group[0].to.clone();
                let once = group.iter().all(|routed| routed.once);
                for (routed, answer) in group.into_iter().zip(given) {
                    match self.sent_on(&routed, &answer, &teller)? {
                        Some(routed) => open.push(routed),
                        None => answers[routed.position] = answer,
                    }
                }
                witnesses.push(Witness {
                    address: teller,
                    run,
                    once,
                });
            }
            if open.is_empty() {
                return Ok(answers);
            }
            open.sort_unstable_by_key(|routed| routed.position);
        }
        Err(lost("the nodes send us on and on".to_owned()))
    }

    fn route<'a>(
        self: &Arc<Self>,
        map: &Map,
        calls: Vec<Call<'a>>,
    ) -> Result<Vec<Routed<'a>>, StoreError> {
        let route = |(position, call): (usize, Call<'a>)| {
            let to = map.owner(call.key())?.clone();
            Some(Routed {
                position,
                call,
                to,
                once: false,
            })
        };
        let routed: Option<_> = calls.into_iter().enumerate().map(route).collect();
        routed.ok_or_else(|| {
            self.look_soon(None);
            lost("a slot has no owner".to_owned())
        })
    }

    /// What one node answers, and which server it is.
    async fn ask(
        self: &Arc<Self>,
        group: &[Routed<'_>],
        deadline: Instant,
    ) -> Result<(Arc<str>, Vec<Answer>), StoreError> {
        let link = self.link(&group[0].to);
        let exchange = async |live: Live| {
            let calls = group.iter().map(|routed| (routed.call, routed.once));
            Ok((Arc::clone(&live.run), live.answers(calls).await?))
        };
        let answer = link
            .with_live_until(Instant::now(), deadline, exchange)
            .await;
        if !matches!(&answer, Ok((_, answers)) if !answers.iter().any(wire::is_lost)) {
            self.look_soon(None);
        }
        answer
    }

    /// The call as it is to be sent again, if the answer says so.
    fn sent_on<'a>(
        self: &Arc<Self>,
        routed: &Routed<'a>,
        answer: &Answer,
        teller: &Address,
    ) -> Result<Option<Routed<'a>>, StoreError> {
        let Some(redirection) = wire::redirection(answer) else {
            return Ok(wire::is_cut_short(answer).then(|| routed.clone()));
        };
        let to = Address::parse(redirection.to, teller)
            .ok_or_else(|| StoreError::Protocol("a redirection to nowhere".to_owned()))?;
        let once = redirection.once;
        if !once {
            self.look_soon(Some(to.clone()));
        }
        let routed = routed.clone();
        Ok(Some(Routed { to, once, ..routed }))
    }

    /// The root generation by which what these servers answered is judged. That it may be younger
    /// than the answers does no harm: it makes more of them outdated.
    async fn root(self: &Arc<Self>, witnesses: &[Witness]) -> Result<Token, StoreError> {
        // More than once, because a look that was under way may have begun before the servers changed.
        // Who has answered knows what it is.
        for _ in 0..2 {
            match self.root_known(witnesses) {
                Ok(root) => return Ok(root),
                Err(stranger) => self.look(stranger).await?,
            }
        }
        let changed = |_| lost("the cluster changed in the middle of a batch".to_owned());
        self.root_known(witnesses).map_err(changed)
    }

    /// Fails with a server that the view does not name, if there is a view.
    fn root_known(&self, witnesses: &[Witness]) -> Result<Token, Option<Address>> {
        let state = self.state();
        let view = state.view.as_deref().ok_or(None)?;
        match witnesses.iter().find(|witness| !view.covers(witness)) {
            None => Ok(view.root),
            Some(stranger) => Err(Some(stranger.address.clone())),
        }
    }

    /// Who owns what, looked up if it is not known. Also of a cluster that is not whole.
    async fn map(self: &Arc<Self>) -> Result<Arc<Map>, StoreError> {
        if let Some(map) = self.known_map() {
            return Ok(map);
        }
        let looked = self.look(None).await;
        self.known_map().ok_or_else(|| match looked {
            Err(error) => error,
            Ok(()) => lost("no node tells who owns what".to_owned()),
        })
    }

    fn known_map(&self) -> Option<Arc<Map>> {
        self.state().map.clone()
    }

    /// The link to a node, made if there is none.
    fn link(&self, address: &Address) -> Arc<Link> {
        let mut state = self.state();
        if let Some(link) = state.links.get(address) {
            return Arc::clone(link);
        }
        let target = Target::Node(self.seeds[0].at(address));
        let link = Link::new(target, self.options.clone(), self.feed.clone());
        let link = Arc::new(link);
        state.links.insert(address.clone(), Arc::clone(&link));
        link
    }

    /// Looks at the cluster, or waits for a look that is under way; `first` is asked first.
    async fn look(self: &Arc<Self>, first: Option<Address>) -> Result<(), StoreError> {
        let look = match &mut *self.state() {
            State {
                look: Some((_, look)),
                ..
            } => look.clone(),
            state => self.begin_look(state, first),
        };
        look.await
    }

    /// Has the cluster looked at, unless that was just done; nobody waits for it.
    fn look_soon(self: &Arc<Self>, first: Option<Address>) {
        let mut state = self.state();
        let recent = |at: Instant| at.elapsed() < BETWEEN_LOOKS;
        if state.look.is_none() && !state.last_look.is_some_and(recent) {
            drop(self.begin_look(&mut state, first));
        }
    }

    /// In a task of its own, as in [`Link`]: a caller that gives up must not end it for the others.
    fn begin_look(self: &Arc<Self>, state: &mut State, first: Option<Address>) -> Look {
        let id = Token::random();
        let cluster = Arc::clone(self);
        let task = tokio::spawn(async move {
            let limit = cluster.options.connect_timeout * 2;
            let looked = timeout(limit, cluster.look_now(first)).await;
            cluster.end_look(id);
            looked.unwrap_or(Err(StoreError::Timeout(limit)))
        });
        let cluster = Arc::downgrade(self);
        let look = async move {
            let cut_off = || lost("a look at the cluster was cut off".to_owned());
            let looked = task.await.unwrap_or_else(|_| Err(cut_off()));
            // The task does this too, unless its runtime was shut down.
            if let Some(cluster) = cluster.upgrade() {
                cluster.end_look(id);
            }
            looked
        };
        let look = look.boxed().shared();
        state.look = Some((id, look.clone()));
        state.last_look = Some(Instant::now());
        look
    }

    fn end_look(&self, id: Token) {
        let mut state = self.state();
        if matches!(&state.look, Some((current, _)) if *current == id) {
            state.look = None;
        }
    }

    async fn look_now(self: &Arc<Self>, first: Option<Address>) -> Result<(), StoreError> {
        let map = Arc::new(self.asked_map(first).await?);
        self.adopt_map(&map);
        let runs = self.runs(&map).await?;
        let known = self.state().view.clone();
        // A root that is merely missing is planted again only in the name of the same servers.
        let known = known.filter(|view| view.runs == runs);
        let root = self.asked_root(&runs, known.map(|view| view.root)).await?;
        self.adopt_view(View { root, runs });
        Ok(())
    }

    /// What nodes that are known say, or else what seeds do.
    async fn asked_map(self: &Arc<Self>, first: Option<Address>) -> Result<Map, StoreError> {
        let mut known: Vec<Address> = first.into_iter().collect();
        if let Some(map) = self.known_map() {
            let mut primaries = map.primaries().to_vec();
            fastrand::shuffle(&mut primaries);
            known.extend(primaries);
        }
        for address in known.into_iter().take(NODES_ASKED) {
            let asked = async |live: Live| live.ask(&slots()).await;
            if let Ok(answer) = self.link(&address).with_live(asked).await
                && let Ok(map) = read(answer, &address)
            {
                return Ok(map);
            }
        }
        let seeds = self.seeds.iter().map(|seed| ask_seed(seed).boxed());
        Ok(select_ok(seeds).await?.0)
    }

    fn adopt_map(self: &Arc<Self>, map: &Arc<Map>) {
        let mut moved = false;
        let left: Vec<Arc<Link>> = {
            let mut state = self.state();
            match state.map.replace(Arc::clone(map)) {
                Some(old) => moved = !old.agrees_with(map),
                None => self.watch(),
            }
            let primaries = map.primaries();
            let left = state
                .links
                .extract_if(|address, _| !primaries.contains(address));
            left.map(|(_, link)| link).collect()
        };
        // Outside of the lock: a link that ends tells the feed.
        drop(left);
        if let (true, Some(feed)) = (moved, &self.feed) {
            feed.all_changed();
        }
    }

    /// For the sake of the in-process tier, which may answer for long without a request: a node tells
    /// of no changes to slots that have left it, nor for sure once it is no primary any more.
    fn watch(self: &Arc<Self>) {
        if let Some(max_silence) = self.options.max_silence {
            tokio::spawn(watch(Arc::downgrade(self), max_silence / 2));
        }
    }

    /// Which servers the primaries are.
    async fn runs(&self, map: &Map) -> Result<HashMap<Address, Arc<str>>, StoreError> {
        let runs = map.primaries().iter().map(|address| async move {
            let live = self.link(address).live().await?;
            Ok((address.clone(), live.run))
        });
        join_all(runs).await.into_iter().collect()
    }

    async fn asked_root(
        self: &Arc<Self>,
        runs: &HashMap<Address, Arc<str>>,
        known: Option<Token>,
    ) -> Result<Token, StoreError> {
        let key = self.options.root_key();
        let run = wire::run_of_all(runs.values().map(AsRef::as_ref).collect());
        let call = Call::Root {
            key: &key,
            run: &run,
            known,
        };
        let deadline = Instant::now() + self.options.command_timeout;
        let mut witnesses = Vec::new();
        let answers = self.answers(vec![call], &mut witnesses, deadline).await?;
        let root = wire::root_name(answers.into_iter().next().unwrap_or(Answer::Nil))?;
        let runs = runs.clone();
        let view = View { root, runs };
        if !witnesses.iter().all(|witness| view.covers(witness)) {
            return Err(lost("the cluster changed during a look at it".to_owned()));
        }
        Ok(root)
    }

    fn adopt_view(&self, view: View) {
        let changed = {
            let mut state = self.state();
            let root = state.view.as_ref().map(|view| view.root);
            let changed = root.is_some_and(|root| root != view.root);
            state.view = Some(Arc::new(view));
            changed
        };
        if let (true, Some(feed)) = (changed, &self.feed) {
            feed.all_changed();
        }
    }

    /// Never held across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the cluster again and again. Ends with it.
async fn watch(cluster: Weak<Cluster>, pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        match cluster.upgrade() {
            // A failure is met by those who ask.
            Some(cluster) => drop(cluster.look(None).await),
            None => return,
        }
    }
}

/// The calls of each node, each in order.
fn by_node(calls: Vec<Routed<'_>>) -> Vec<Vec<Routed<'_>>> {
    let mut groups: Vec<Vec<Routed<'_>>> = Vec::new();
    for routed in calls {
        match groups.iter_mut().find(|group| group[0].to == routed.to) {
            Some(group) => group.push(routed),
            None => groups.push(vec![routed]),
        }
    }
    groups
}

/// Over a connection of its own: a seed need not be a primary, nor be named as it names itself.
async fn ask_seed(seed: &Server) -> Result<Map, StoreError> {
    let connection = seed.connect(|_| {}).await?;
    let answer = connection.ask(&slots()).await?;
    let address = seed.address();
    read(
        answer,
        &address.ok_or_else(|| lost("a seed without a host".to_owned()))?,
    )
}

/// Asks who owns which slot.
fn slots() -> Request {
    let mut request = Request::default();
    request.command([b"CLUSTER", b"SLOTS"]);
    request
}

fn read(answer: Vec<Answer>, teller: &Address) -> Result<Map, StoreError> {
    if let [Answer::Error(refusal)] = &answer[..] {
        return Err(lost(refusal.text().to_owned()));
    }
    let map = answer.first().and_then(|answer| Map::read(answer, teller));
    map.ok_or_else(|| lost("a node that knows no cluster".to_owned()))
}

fn lost(text: String) -> StoreError {
    StoreError::Unreachable(text)
}
