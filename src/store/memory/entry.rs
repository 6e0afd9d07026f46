//! One entry: what the Redis scripts do to a hash, as plain state.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::store::{Acquired, Filled, Fingerprint, LEASE_KEPT, Over, Seen, Token};

/// The fields of one key. Each list is short: one item per build or per writer.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    values: Vec<(Fingerprint, Bytes)>,
    leases: Vec<Lease>,
    fences: Vec<Fence>,
    generation: Option<Token>,
    /// When all of it is gone; `None` is never.
    expires: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Lease {
    field: Fingerprint,
    token: Token,
    deadline: Instant,
}

#[derive(Clone, Debug)]
struct Fence {
    writer: Token,
    deadline: Instant,
}

/// What is asked of [`Entry::acquire`].
pub(super) struct Request {
    pub(super) field: Fingerprint,
    pub(super) lease: Token,
    pub(super) seen: Seen,
    pub(super) ttl: Duration,
}

impl Entry {
    pub(super) fn has_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    pub(super) fn is_empty(&self) -> bool {
        let Self {
            values,
            leases,
            fences,
            generation,
            ..
        } = self;
        values.is_empty() && leases.is_empty() && fences.is_empty() && generation.is_none()
    }

    /// Whether it may be evicted: not while it carries a fence.
    pub(super) fn is_evictable(&self) -> bool {
        self.fences.is_empty()
    }

    /// The bytes of the values.
    pub(super) fn value_bytes(&self) -> usize {
        self.values.iter().map(|(_, value)| value.len()).sum()
    }

    pub(super) fn read(&self, field: Fingerprint) -> Option<Bytes> {
        let (_, value) = self.values.iter().find(|(other, _)| *other == field)?;
        Some(value.clone())
    }

    pub(super) fn life(&self, now: Instant) -> Option<Duration> {
        Some(self.expires?.saturating_duration_since(now))
    }

    pub(super) fn peek(&self) -> Option<Token> {
        self.generation
    }

    pub(super) fn generation(
        &mut self,
        fresh: Token,
        ttl: Option<Duration>,
        now: Instant,
    ) -> Option<Token> {
        if self.fenced(now) {
            return None;
        }
        if self.generation.is_none() {
            self.generation = Some(fresh);
            self.expires = ttl.map(|ttl| self.expires.unwrap_or_else(|| later(now, ttl)));
        }
        self.generation
    }

    pub(super) fn acquire(&mut self, request: Request, now: Instant) -> Acquired {
        let Request {
            field,
            lease,
            seen,
            ttl,
        } = request;
        if self.fenced(now) {
            return Acquired::Fenced;
        }
        if let Some(value) = self.read(field) {
            if seen.seal().is_none() || seen.seal() != seal(&value) {
                return Acquired::Value(value);
            }
            if let Seen::Outdated(_) = seen {
                self.values.retain(|(other, _)| *other != field);
            }
        }
        if let Some(holder) = self.lease(field)
            && holder.token != lease
            && holder.deadline > now
        {
            return Acquired::Busy(holder.token);
        }
        self.leases.retain(|lease| lease.field != field);
        self.leases.push(Lease {
            field,
            token: lease,
            deadline: later(now, ttl),
        });
        self.keep_for_the_lease(later(now, ttl.saturating_add(LEASE_KEPT)));
        Acquired::Granted
    }

    /// No value must outlive its own ttl for the sake of a lease: not another build's, nor one that stays.
    fn keep_for_the_lease(&mut self, until: Instant) {
        let too_soon = self.expires.is_none_or(|expires| expires < until);
        let free = self.expires.is_none() || self.values.is_empty();
        if too_soon && free {
            self.expires = Some(until);
        }
    }

    pub(super) fn fill(
        &mut self,
        (field, lease): (Fingerprint, Token),
        value: Bytes,
        ttl: Duration,
        now: Instant,
    ) -> Filled {
        if !self.release(field, lease) || self.fenced(now) {
            return Filled::Superseded;
        }
        let expires = later(now, ttl);
        self.expires = match self.expires {
            Some(sooner) if self.holds_another_than(field) => Some(sooner.min(expires)),
            _ => Some(expires),
        };
        self.values.retain(|(other, _)| *other != field);
        self.values.push((field, value));
        Filled::Stored
    }

    pub(super) fn put(
        &mut self,
        field: Fingerprint,
        value: Bytes,
        ttl: Duration,
        over: Over,
        now: Instant,
    ) -> Filled {
        let held = self.values.iter().find(|(other, _)| *other == field);
        let fits = match over {
            Over::Anything => true,
            Over::Nothing => held.is_none(),
            Over::Seal(seen) => held.is_some_and(|(_, value)| seal(value) == Some(seen)),
        };
        if self.fenced(now) || !fits {
            return Filled::Superseded;
        }
        *self = Self {
            values: vec![(field, value)],
            expires: Some(later(now, ttl)),
            ..Self::default()
        };
        Filled::Stored
    }

    /// Whether the lease stood.
    pub(super) fn release(&mut self, field: Fingerprint, lease: Token) -> bool {
        let held = self.leases.len();
        self.leases
            .retain(|other| other.field != field || other.token != lease);
        self.leases.len() < held
    }

    pub(super) fn fence(&mut self, writer: Token, ttl: Duration, now: Instant) {
        self.settle(writer, now);
        let deadline = later(now, ttl);
        self.fences.push(Fence { writer, deadline });
        self.expires = Some(self.expires.map_or(deadline, |last| last.max(deadline)));
    }

    pub(super) fn settle(&mut self, writer: Token, now: Instant) {
        let mut fences = std::mem::take(&mut self.fences);
        fences.retain(|fence| fence.writer != writer && fence.deadline > now);
        *self = Self {
            expires: fences.iter().map(|fence| fence.deadline).max(),
            fences,
            ..Self::default()
        };
    }

    /// Whether a fence stands. Removes those that have expired.
    fn fenced(&mut self, now: Instant) -> bool {
        self.fences.retain(|fence| fence.deadline > now);
        !self.fences.is_empty()
    }

    fn lease(&self, field: Fingerprint) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.field == field)
    }

    fn holds_another_than(&self, field: Fingerprint) -> bool {
        self.values.iter().any(|(other, _)| *other != field)
    }
}

/// The first eight bytes of a value.
fn seal(value: &[u8]) -> Option<u64> {
    value.first_chunk().copied().map(u64::from_be_bytes)
}

/// `now + time`, for any time.
fn later(now: Instant, time: Duration) -> Instant {
    const MOST: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    now + time.clamp(Duration::from_millis(1), MOST)
}
