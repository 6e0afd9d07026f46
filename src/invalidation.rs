//! Everything that makes data stale becomes an [`Invalidation`].

use std::collections::BTreeSet;

use crate::config::WritePolicy;
use crate::key::Key;

/// The entries and generations that one write makes stale.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invalidation {
    keys: BTreeSet<Key>,
    policy: WritePolicy,
}

impl Invalidation {
    /// Adds an entry or a generation.
    pub fn add(&mut self, key: Key) {
        self.keys.insert(key);
    }

    /// Adds all that `other` makes stale; the stricter write policy wins.
    pub fn merge(&mut self, other: Invalidation) {
        self.keys.extend(other.keys);
        self.demand(other.policy);
    }

    /// Asks for at least this write policy.
    pub fn demand(&mut self, policy: WritePolicy) {
        if policy == WritePolicy::Strict {
            self.policy = policy;
        }
    }

    /// What to do when the fences cannot be written.
    pub fn policy(&self) -> WritePolicy {
        self.policy
    }

    /// The entries and generations.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nothing is made stale.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}
