//! Redis servers that work together: a cluster, and a sentinel. Always programs of this machine.

use std::fs;
use std::time::{Duration, Instant};

use redis::Value;
use tokio::time::sleep;

use super::local::{Process, redis_program};
use super::servers::command;
use super::{Kind, free_port, keeper};

const PRIMARIES: usize = 3;
const SLOTS: usize = 16_384;
/// How long a fleet may take to be whole, or a change of it to be known everywhere.
const PATIENCE: Duration = Duration::from_secs(60);

/// One of a cluster's servers.
#[derive(Debug)]
pub struct Node {
    process: Process,
    port: u16,
    bus: u16,
}

/// Three primaries and three replicas. They end with this value.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    more: Vec<String>,
}

impl Node {
    fn start(more: &[String]) -> Self {
        let (port, bus) = (free_port(), free_port());
        let line = format!(
            "--cluster-enabled yes --cluster-config-file nodes.conf --cluster-port {bus} \
             --cluster-node-timeout 1000 --cluster-replica-validity-factor 0 \
             --cluster-announce-ip 127.0.0.1 --repl-diskless-sync yes --repl-diskless-sync-delay 0"
        );
        let options = line.split_whitespace().map(str::to_owned);
        let options = options.chain(more.iter().cloned()).collect();
        let process = start(port, options);
        Self { process, port, bus }
    }

    pub fn url(&self) -> String {
        Kind::Redis.url(self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it at once.
    pub fn kill(&self) {
        self.process.kill().expect("a running node");
    }

    /// Starts it again; it remembers its cluster.
    pub fn restart(&self) {
        self.process.restart().expect("a program that starts");
    }

    /// Stops its clock.
    pub fn pause(&self) {
        self.process.pause().expect("a running node");
    }

    /// Ends the pause.
    pub fn resume(&self) {
        self.process.resume().expect("a paused node");
    }

    pub async fn try_cli(&self, words: &[&str]) -> redis::RedisResult<Value> {
        command(&self.url(), words).await
    }

    pub async fn cli(&self, words: &[&str]) -> Value {
        let answer = self.try_cli(words).await;
        answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// The answer as text; nothing if there is none.
    pub async fn text(&self, words: &[&str]) -> String {
        let answer = self.try_cli(words).await.ok();
        let text = answer.and_then(|answer| redis::from_redis_value(answer).ok());
        text.unwrap_or_default()
    }

    pub async fn id(&self) -> String {
        self.text(&["CLUSTER", "MYID"]).await
    }

    pub async fn is_primary(&self) -> bool {
        let role = self.text(&["INFO", "replication"]).await;
        role.contains("role:master")
    }

    async fn is_ready(&self, nodes: usize) -> bool {
        let info = self.text(&["CLUSTER", "INFO"]).await;
        let known = format!("cluster_known_nodes:{nodes}");
        let link = self.text(&["INFO", "replication"]).await;
        info.contains("cluster_state:ok")
            && info.contains(&known)
            && (link.contains("role:master") && link.contains("state=online")
                || link.contains("master_link_status:up"))
    }
}

impl Cluster {
    /// Starts one, and waits until it is whole.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with more options for each node.
    pub async fn start_with(options: &[&str]) -> Self {
        let more: Vec<_> = options.iter().map(ToString::to_string).collect();
        let start = |_| Node::start(&more);
        let nodes: Vec<_> = (0..2 * PRIMARIES).map(start).collect();
        let cluster = Self { nodes, more };
        cluster.form().await;
        cluster
    }

    async fn form(&self) {
        for node in &self.nodes {
            until("a node answers", async || {
                node.try_cli(&["PING"]).await.is_ok()
            })
            .await;
        }
        for (at, node) in self.nodes.iter().enumerate() {
            let epoch = (at + 1).to_string();
            node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
            if at < PRIMARIES {
                let first = (at * SLOTS / PRIMARIES).to_string();
                let last = ((at + 1) * SLOTS / PRIMARIES - 1).to_string();
                node.cli(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await;
            }
            self.meet(node).await;
        }
        self.know_each_other().await;
        for at in 0..PRIMARIES {
            let primary = self.nodes[at].id().await;
            let replica = &self.nodes[PRIMARIES + at];
            replica.cli(&["CLUSTER", "REPLICATE", &primary]).await;
        }
        self.whole().await;
    }

    async fn meet(&self, node: &Node) {
        let (port, bus) = (
            self.nodes[0].port.to_string(),
            self.nodes[0].bus.to_string(),
        );
        node.cli(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])
            .await;
    }

    async fn know_each_other(&self) {
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        for node in &self.nodes {
            let knows = async || node.text(&["CLUSTER", "INFO"]).await.contains(&known);
            until("the nodes know each other", knows).await;
        }
    }

    /// Waits until every node knows all others, and every replica follows.
    pub async fn whole(&self) {
        for node in &self.nodes {
            let count = self.nodes.len();
            until("the cluster is whole", async || node.is_ready(count).await).await;
        }
    }

    /// Empties all primaries.
    pub async fn flush(&self) {
        for node in &self.nodes {
            if node.is_primary().await {
                node.cli(&["FLUSHALL"]).await;
            }
        }
    }

    /// Adds a primary without slots.
    pub async fn grow(&mut self) {
        let node = Node::start(&self.more);
        until("a node answers", async || {
            node.try_cli(&["PING"]).await.is_ok()
        })
        .await;
        self.meet(&node).await;
        self.nodes.push(node);
        self.know_each_other().await;
        let new = &self.nodes[self.nodes.len() - 1];
        until("the new node takes part", async || {
            let info = new.text(&["CLUSTER", "INFO"]).await;
            info.contains("cluster_state:ok")
        })
        .await;
    }

    /// Primaries first, as they were at the start.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Node::url).collect()
    }

    /// The replica that took this primary's place, once all others know.
    pub async fn successor(&self, lost: usize) -> &Node {
        let replica = &self.nodes[lost + PRIMARIES];
        let took_over = format!(":{}@", replica.port);
        until("a replica takes over", async || {
            let mut know = true;
            for (at, node) in self.nodes.iter().enumerate() {
                let nodes = node.text(&["CLUSTER", "NODES"]).await;
                let line = nodes.lines().find(|line| line.contains(&took_over));
                know &= at == lost || line.is_some_and(|line| line.contains("master"));
            }
            know
        })
        .await;
        replica
    }

    /// The node that owns a slot, as it says itself.
    pub async fn owner(&self, slot: u16) -> &Node {
        for node in &self.nodes {
            let key = node.text(&["CLUSTER", "NODES"]).await;
            let owns = |line: &str| {
                let mut words = line.split_whitespace();
                let own = words.nth(2).is_some_and(|flags| flags.contains("myself"));
                own && words.skip(5).any(|range| holds(range, slot))
            };
            if key.lines().any(owns) {
                return node;
            }
        }
        panic!("slot {slot} has no owner");
    }

    /// Says that a slot is on its way, and answers from where. No key moves yet.
    pub async fn begin_to_move(&self, slot: u16, to: &Node) -> &Node {
        let from = self.owner(slot).await;
        let (from_id, to_id) = (from.id().await, to.id().await);
        let number = slot.to_string();
        to.cli(&["CLUSTER", "SETSLOT", &number, "IMPORTING", &from_id])
            .await;
        from.cli(&["CLUSTER", "SETSLOT", &number, "MIGRATING", &to_id])
            .await;
        from
    }

    /// Moves a slot with its keys as an operator does, and tells how many keys moved. `pause` is run
    /// while a half of the keys has moved.
    pub async fn move_slot(&self, slot: u16, to: &Node, pause: impl AsyncFn()) -> usize {
        let from = self.begin_to_move(slot, to).await;
        let (to_id, number) = (to.id().await, slot.to_string());
        let mut moved = 0;
        loop {
            let keys = from.cli(&["CLUSTER", "GETKEYSINSLOT", &number, "10"]).await;
            let keys: Vec<String> = redis::from_redis_value(keys).expect("keys");
            if keys.is_empty() {
                break;
            }
            let port = to.port.to_string();
            let head = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            let half = keys.len().div_ceil(2);
            for part in [&keys[..half], &keys[half..]] {
                let words = head.into_iter().chain(part.iter().map(String::as_str));
                let words: Vec<_> = words.collect();
                if words.len() > head.len() {
                    from.cli(&words).await;
                }
                pause().await;
            }
            moved += keys.len();
        }
        for node in [to, from] {
            node.cli(&["CLUSTER", "SETSLOT", &number, "NODE", &to_id])
                .await;
        }
        moved
    }
}

fn holds(range: &str, slot: u16) -> bool {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let bounds = (first.parse::<u16>(), last.parse::<u16>());
    matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&slot))
}

/// A sentinel that watches one primary, which it calls `main`.
#[derive(Debug)]
pub struct Sentinel {
    process: std::process::Child,
    port: u16,
    password: String,
}

impl Sentinel {
    pub async fn of(primary: u16) -> Self {
        Self::with(primary, "", "").await
    }

    /// The same, with a password that it asks for, and more lines in its settings.
    pub async fn with(primary: u16, password: &str, more: &str) -> Self {
        let port = free_port();
        let folder = keeper::new_folder("sentinel");
        let settings = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {primary} 1\n\
             sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 5000\nrequirepass \"{password}\"\n{more}\n",
            folder.display()
        );
        let file = folder.join("sentinel.conf");
        fs::write(&file, settings).expect("a file can be written");
        let process = keeper::guarded("KILL", &redis_program(), &folder)
            .arg(&file)
            .arg("--sentinel")
            .spawn()
            .expect("the program starts");
        let password = password.to_owned();
        let sentinel = Self {
            process,
            port,
            password,
        };
        until("a sentinel answers", async || {
            sentinel.primary().await.is_some()
        })
        .await;
        sentinel
    }

    pub fn url(&self) -> String {
        match self.password.as_str() {
            "" => Kind::Redis.url(self.port),
            password => format!("redis://:{password}@{}/", self.address()),
        }
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> Option<T> {
        let answer = command(&self.url(), words).await.ok()?;
        redis::from_redis_value(answer).ok()
    }

    /// Where it says that the primary is.
    pub async fn primary(&self) -> Option<String> {
        let (host, port): (String, String) = self
            .ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"])
            .await?;
        Some(format!("{host}:{port}"))
    }

    pub async fn knows_a_replica(&self) -> bool {
        let all: Option<Vec<Value>> = self.ask(&["SENTINEL", "REPLICAS", "main"]).await;
        all.is_some_and(|all| !all.is_empty())
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        keeper::gone(self.process.id());
    }
}

/// A server and the sentinel that watches it.
#[derive(Debug)]
pub struct Watched {
    _server: Process,
    url: String,
    pub sentinel: Sentinel,
}

impl Watched {
    pub async fn start() -> Self {
        let port = free_port();
        let server = start(port, Vec::new());
        let url = Kind::Redis.url(port);
        until("a server answers", async || {
            command(&url, &["PING"]).await.is_ok()
        })
        .await;
        Self {
            _server: server,
            url,
            sentinel: Sentinel::of(port).await,
        }
    }

    pub async fn flush(&self) {
        let flushed = command(&self.url, &["FLUSHALL"]).await;
        flushed.expect("the server answers");
    }
}

fn start(port: u16, options: Vec<String>) -> Process {
    redis_program();
    let process = Process::start_with(Kind::Redis, port, options);
    process.unwrap_or_else(|error| panic!("{error}"))
}

/// Waits for a condition, not for a time.
async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        sleep(Duration::from_millis(20)).await;
    }
}
