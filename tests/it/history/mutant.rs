//! Stores that lack one guard of the protocol. The judge must find out.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sea_orm_cache::store::{Op, RedisStore, Replies, Reply, Seen, Store, StoreError, Token};

/// Which guard is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    None,
    /// A loaded value is stored whatever has become of its lease.
    NoLease,
    /// A write deletes after its commit, and does nothing before.
    NoFence,
    /// All writers share one fence: the first that settles takes it away.
    SharedFence,
}

const ALL: [(Mutant, &str); 4] = [
    (Mutant::None, "none"),
    (Mutant::NoLease, "no-lease"),
    (Mutant::NoFence, "no-fence"),
    (Mutant::SharedFence, "shared-fence"),
];

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = ALL[*self as usize];
        f.write_str(name)
    }
}

impl FromStr for Mutant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = ALL.iter().find(|(_, name)| *name == text);
        found.map(|(mutant, _)| *mutant).ok_or(text.to_owned())
    }
}

/// The store of a [`Mutant`]. It also takes its time where the missing guard would have helped.
#[derive(Debug)]
pub struct Broken {
    redis: RedisStore,
    mutant: Mutant,
}

const LONGEST_PAUSE_MS: u64 = 30;

impl Broken {
    pub fn new(redis: RedisStore, mutant: Mutant) -> Self {
        Self { redis, mutant }
    }

    /// What is sent in place of this op, and whether the last answer is the op's.
    fn instead(&self, op: &Op) -> Vec<Op> {
        match (self.mutant, op.clone()) {
            (
                Mutant::NoLease,
                Op::Fill {
                    key, field, lease, ..
                },
            ) => {
                let ttl = Duration::from_secs(3);
                let seen = Seen::Nothing;
                let acquire = Op::Acquire {
                    key,
                    field,
                    lease,
                    seen,
                    ttl,
                };
                vec![acquire, op.clone()]
            }
            (Mutant::NoFence, Op::Fence { .. }) => vec![],
            (Mutant::SharedFence, Op::Fence { key, ttl, .. }) => {
                let writer = shared();
                vec![Op::Fence { key, writer, ttl }]
            }
            (Mutant::SharedFence, Op::Settle { key, .. }) => {
                let writer = shared();
                vec![Op::Settle { key, writer }]
            }
            (_, op) => vec![op],
        }
    }

    async fn take_time(&self, batch: &[Op]) {
        let has = |what: fn(&Op) -> bool| batch.iter().any(what);
        let slow = match self.mutant {
            Mutant::None => false,
            Mutant::NoLease => has(|op| matches!(op, Op::Fill { .. })),
            Mutant::NoFence | Mutant::SharedFence => has(|op| matches!(op, Op::Settle { .. })),
        };
        if slow {
            let pause = fastrand::u64(..LONGEST_PAUSE_MS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
}

fn shared() -> Token {
    Token::new(1).unwrap()
}

#[async_trait::async_trait]
impl Store for Broken {
    async fn run(&self, batch: Vec<Op>) -> Result<Replies, StoreError> {
        self.take_time(&batch).await;
        let sent: Vec<Vec<Op>> = batch.iter().map(|op| self.instead(op)).collect();
        let counts: Vec<usize> = sent.iter().map(Vec::len).collect();
        let replies = self.redis.run(sent.into_iter().flatten().collect()).await?;
        let mut items = replies.items.into_iter();
        let own = |count| items.by_ref().take(count).last().unwrap_or(Reply::Done);
        let items = counts.into_iter().map(own).collect();
        Ok(Replies {
            root: replies.root,
            items,
        })
    }

    async fn refresh_root(&self) -> Result<(), StoreError> {
        self.redis.refresh_root().await
    }
}
