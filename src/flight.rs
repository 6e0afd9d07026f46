//! Loads under way: leases across processes, flights within this one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::cache::Cache;
use crate::envelope::Noted;
use crate::key::Key;
use crate::store::{Fingerprint, Op, Token};
use crate::tier;

/// The loads under way in this process, by their lease.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<Token, watch::Receiver<Option<Landing>>>>);

/// How a load ended. One that was given up has none: its flight is dropped.
#[derive(Clone, Debug)]
pub(crate) enum Landing {
    Loaded(Landed),
    Failed,
}

/// A finished load.
#[derive(Clone, Debug)]
pub(crate) struct Landed {
    /// Somebody else may have moved the lease to another key.
    pub(crate) key: Key,
    pub(crate) noted: Arc<Noted>,
    /// As in [`Request`](crate::fill::Request): the lease is the key's, which may stand for other values as well.
    pub(crate) asked: Vec<u8>,
    pub(crate) value: tier::Value,
}

impl Flights {
    fn take_off(&self, lease: Token) -> watch::Sender<Option<Landing>> {
        let (sender, receiver) = watch::channel(None);
        self.lock().insert(lease, receiver);
        sender
    }

    pub(crate) fn find(&self, lease: Token) -> Option<watch::Receiver<Option<Landing>>> {
        self.lock().get(&lease).cloned()
    }

    fn land(&self, lease: Token) {
        self.lock().remove(&lease);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Token, watch::Receiver<Option<Landing>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lease that one request asks for, and the flight that others may join while it is held.
///
/// Dropped without a fill (an error, a panic, a caller that went away), it gives the lease back.
pub(crate) struct Lease<'c> {
    cache: &'c Cache,
    pub(crate) token: Token,
    pub(crate) flight: watch::Sender<Option<Landing>>,
    /// The entry, once the lease is granted.
    pub(crate) held: Option<(Key, Fingerprint)>,
}

impl<'c> Lease<'c> {
    pub(crate) fn new(cache: &'c Cache) -> Self {
        let token = Token::random();
        // The flight is there before the lease is asked for, so that whoever meets the lease finds it.
        let flight = cache.flights().take_off(token);
        Self {
            cache,
            token,
            flight,
            held: None,
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.cache.flights().land(self.token);
        let (Some((key, field)), Ok(runtime)) =
            (self.held.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let (cache, lease) = (self.cache.clone(), self.token);
        runtime.spawn(async move {
            // A failure costs the others the lease's life, nothing more.
            let _ = cache
                .run(None, vec![Op::Release { key, field, lease }])
                .await;
        });
    }
}
