//! Everything that makes data stale becomes an [`Invalidation`].

use std::collections::{BTreeMap, BTreeSet};

use crate::config::WritePolicy;
use crate::key::{Key, VALUES};

/// The entries and generations that one write makes stale.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Invalidation {
    keys: BTreeSet<Key>,
    policy: WritePolicy,
}

impl Invalidation {
    /// Adds an entry or a generation.
    pub(crate) fn add(&mut self, key: Key) {
        self.keys.insert(key);
    }

    /// Adds all that `other` makes stale; the stricter write policy wins.
    pub(crate) fn merge(&mut self, other: Invalidation) {
        self.keys.extend(other.keys);
        self.demand(other.policy);
    }

    /// Asks for at least this write policy.
    pub(crate) fn demand(&mut self, policy: WritePolicy) {
        if policy == WritePolicy::Strict {
            self.policy = policy;
        }
    }

    /// What to do when the fences cannot be written.
    pub(crate) fn policy(&self) -> WritePolicy {
        self.policy
    }

    /// The entries and generations.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nothing is made stale.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The same with an entity's generations in place of its keys, where they are more than `most`.
    pub(crate) fn compacted(mut self, most: usize) -> Self {
        if self.keys.len() <= most {
            return self;
        }
        let mut by_entity: BTreeMap<String, Vec<Key>> = BTreeMap::new();
        for key in std::mem::take(&mut self.keys) {
            by_entity
                .entry(entity_prefix(&key).to_owned())
                .or_default()
                .push(key);
        }
        for keys in by_entity.into_values() {
            if keys.len() > most {
                self.keys.extend(collapse(keys));
            } else {
                self.keys.extend(keys);
            }
        }
        self
    }
}

/// In place of keys, the generations of their entities. Generations of tags stay themselves.
pub(crate) fn collapse(keys: impl IntoIterator<Item = Key>) -> impl Iterator<Item = Key> {
    let mut generations = BTreeSet::new();
    for key in keys {
        let prefix = entity_prefix(&key);
        if prefix.len() == key.as_str().len() {
            generations.insert(key);
        } else if is_value(prefix) {
            generations.insert(format!("{prefix}:gen:all").into());
        } else {
            generations.extend(
                ["rows", "index", "list"].map(|name| Key::from(format!("{prefix}:gen:{name}"))),
            );
        }
    }
    generations.into_iter()
}

/// Whether what begins so is a namespace's and no entity's.
fn is_value(prefix: &str) -> bool {
    let database = prefix.split(':').nth(1).unwrap_or_default();
    database.split('@').next() == Some(VALUES)
}

/// `prefix:database:entity` of an entity's key, and the whole of a tag's, `prefix:tag:name`. Escaping
/// keeps `:` out of the parts.
fn entity_prefix(key: &Key) -> &str {
    let text = key.as_str();
    let mut colons = text.match_indices(':').map(|(at, _)| at);
    match (colons.nth(1), colons.next()) {
        (Some(_), Some(third)) => &text[..third],
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacts_only_the_entity_that_is_past_the_bound() {
        let mut invalidation = Invalidation::default();
        for n in 0..20 {
            invalidation.add(format!("soc:main:city:pk:{n}").into());
        }
        invalidation.add("soc:main:country:pk:1".to_owned().into());
        invalidation.add("soc:tag:hot".to_owned().into());
        let keys: Vec<_> = invalidation
            .compacted(10)
            .keys
            .into_iter()
            .map(|key| key.to_string())
            .collect();
        assert_eq!(
            keys,
            [
                "soc:main:city:gen:index",
                "soc:main:city:gen:list",
                "soc:main:city:gen:rows",
                "soc:main:country:pk:1",
                "soc:tag:hot"
            ]
        );
    }

    #[test]
    fn the_stricter_policy_wins() {
        let mut invalidation = Invalidation::default();
        let mut strict = Invalidation::default();
        strict.demand(WritePolicy::Strict);
        invalidation.merge(strict);
        invalidation.merge(Invalidation::default());
        assert_eq!(invalidation.policy(), WritePolicy::Strict);
    }
}
