//! Sessions for tower-sessions, in a cache.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use sea_orm::prelude::TimeDateTimeWithTimeZone as Instant;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tower_sessions_core::SessionStore;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::session_store::{Error, Result};

use crate::cache::Cache;
use crate::error::CacheError;
use crate::values::{Namespace, Policy};

/// A store of sessions for tower-sessions 0.15, in the namespace `session` of a cache.
///
/// A session lives until its expiry date, exactly. It can be lost before, as all that is cached: then its user has
/// to log in again. Under memory pressure a store evicts what was not used for long; to keep sessions apart from
/// what may go at any time, give them a cache of their own.
///
/// # Consistency
/// What is saved is what is loaded from then on, in every process. The in-process tier is not asked.
///
/// # Errors
/// A session that could not be saved, and one that could not be looked up because the cache is away, is an error:
/// neither is silently another session, or none.
///
/// # Security
/// Its id is all that a session's owner proves himself by. The store, and logs, have only the SHA-256 of it: who
/// reads them can read what is in a session, but not take it over.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use sea_orm_cache::{Cache, CacheSessions};
/// use tower_sessions::SessionManagerLayer;
///
/// let cache = Cache::in_memory();
/// let layer = SessionManagerLayer::new(CacheSessions::new(&cache));
/// # let _ = layer;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct CacheSessions {
    sessions: Namespace,
}

/// A session as it is stored. Its fields are part of the format.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    data: HashMap<String, serde_json::Value>,
    /// Since 1970, in UTC.
    seconds: i64,
    nanos: u32,
}

/// So often another id is tried where one is taken, or a session saved that is not stored.
const TRIES: usize = 8;

impl CacheSessions {
    /// Sessions in this cache.
    pub fn new(cache: &Cache) -> Self {
        Self::within(cache.namespace("session"))
    }

    /// Sessions in this namespace, which should hold nothing else.
    pub fn within(sessions: Namespace) -> Self {
        Self { sessions }
    }

    /// Where they are, for instance to end all of them by [`invalidate`](Namespace::invalidate).
    pub fn namespace(&self) -> &Namespace {
        &self.sessions
    }
}

#[async_trait]
impl SessionStore for CacheSessions {
    async fn create(&self, record: &mut Record) -> Result<()> {
        let Some(policy) = policy(record) else {
            return Ok(());
        };
        let stored = Stored::of(record);
        for _ in 0..TRIES {
            let key = name(record.id);
            if self
                .sessions
                .add(&key, &stored, &policy)
                .await
                .map_err(backend)?
            {
                return Ok(());
            }
            record.id = Id::default();
        }
        Err(not_stored())
    }

    async fn save(&self, record: &Record) -> Result<()> {
        let Some(policy) = policy(record) else {
            return self.delete(&record.id).await;
        };
        let (key, stored) = (name(record.id), Stored::of(record));
        for _ in 0..TRIES {
            let done = self.sessions.store(&key, &stored, &policy).await;
            if done.map_err(backend)? {
                return Ok(());
            }
        }
        Err(not_stored())
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        let found = self.sessions.look_up::<Stored>(&name(*id)).await;
        let record = found
            .map_err(backend)?
            .and_then(|stored| stored.record(*id));
        Ok(record.filter(|record| life(record).is_some()))
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        let removed = self.sessions.remove(&name(*id)).await;
        removed.map_err(backend)
    }
}

impl Stored {
    fn of(record: &Record) -> Self {
        Self {
            data: record.data.clone(),
            seconds: record.expiry_date.unix_timestamp(),
            nanos: record.expiry_date.nanosecond(),
        }
    }

    fn record(self, id: Id) -> Option<Record> {
        let expiry_date = Instant::from_unix_timestamp(self.seconds).ok()?;
        Some(Record {
            id,
            data: self.data,
            expiry_date: expiry_date.replace_nanosecond(self.nanos).ok()?,
        })
    }
}

/// Under which key the session is.
fn name(id: Id) -> String {
    let digest = Sha256::digest(id.0.to_le_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How long the session will live; `None` if it is over.
fn life(record: &Record) -> Option<Duration> {
    let left = record.expiry_date - Instant::now_utc();
    Duration::try_from(left).ok().filter(|left| !left.is_zero())
}

fn policy(record: &Record) -> Option<Policy> {
    Some(Policy::new().ttl(life(record)?).jitter(0.0))
}

fn backend(error: CacheError) -> Error {
    Error::Backend(error.to_string())
}

fn not_stored() -> Error {
    let why = "the session was not stored: it is larger than the cache's `max_value_bytes`, or all sessions were \
               being invalidated";
    Error::Backend(why.to_owned())
}
