//! What an open transaction has made stale, one level per savepoint.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::invalidation::Invalidation;

/// Past this many keys a level is compacted.
pub(crate) const MOST_KEYS: usize = 10_000;

/// One open level. Dropped, it is rolled back and its part forgotten.
///
/// A level stands for one handle, but not for one place in the stack: the driver merely counts how
/// deep it is, so whichever handle ends first ends the innermost savepoint, and the last one ends
/// the transaction. We count in the same way.
#[derive(Debug)]
pub(crate) struct Level {
    stack: Arc<Mutex<Stack>>,
    open: bool,
}

#[derive(Debug, Default)]
struct Stack {
    root: Invalidation,
    savepoints: Vec<Invalidation>,
    loose: bool,
}

impl Level {
    /// The outermost level of a new transaction.
    pub(crate) fn root() -> Self {
        Self {
            stack: Arc::default(),
            open: true,
        }
    }

    /// Announces a savepoint. Unless it is [made](Nesting::made), the transaction is loose: a driver
    /// that fails to open a savepoint rolls back one level too many, at worst the transaction, after
    /// which its handles still take statements.
    pub(crate) fn nest(&self) -> Nesting {
        Nesting(Some(Arc::clone(&self.stack)))
    }

    /// Adds what a statement makes stale, whichever handle it goes through.
    pub(crate) fn add(
        &self,
        invalidation: Invalidation,
        compact: impl FnOnce(Invalidation) -> Invalidation,
    ) {
        let mut stack = lock(&self.stack);
        let innermost = stack.innermost();
        innermost.merge(invalidation);
        if innermost.len() > MOST_KEYS {
            *innermost = compact(mem::take(innermost));
        }
    }

    /// Notes that statements may be committed as they run, in spite of the transaction: it was ended
    /// by a statement, or the driver has lost count.
    pub(crate) fn loosen(&self) {
        lock(&self.stack).loose = true;
    }

    /// Whether statements may be committed as they run.
    pub(crate) fn is_loose(&self) -> bool {
        lock(&self.stack).loose
    }

    /// Everything in this transaction.
    pub(crate) fn all(&self) -> Invalidation {
        lock(&self.stack).all()
    }

    /// Ends one level and keeps its part. Answers all that must be fenced if this may end the
    /// transaction.
    pub(crate) fn release(mut self) -> Option<Invalidation> {
        self.open = false;
        let mut stack = lock(&self.stack);
        let ends = stack.loose || stack.savepoints.is_empty();
        let all = ends.then(|| stack.all());
        stack.hand_up();
        all
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        if self.open {
            lock(&self.stack).discard();
        }
    }
}

impl Stack {
    fn innermost(&mut self) -> &mut Invalidation {
        self.savepoints.last_mut().unwrap_or(&mut self.root)
    }

    fn all(&self) -> Invalidation {
        let mut all = self.root.clone();
        for savepoint in &self.savepoints {
            all.merge(savepoint.clone());
        }
        all
    }

    fn hand_up(&mut self) {
        if let Some(released) = self.savepoints.pop() {
            self.innermost().merge(released);
        }
    }

    fn discard(&mut self) {
        if self.loose {
            // Which of the handles' statements this rolls back is not known.
            self.hand_up();
        } else if self.savepoints.pop().is_none() {
            self.root = Invalidation::default();
        }
    }
}

/// A savepoint that is being made.
#[derive(Debug)]
pub(crate) struct Nesting(Option<Arc<Mutex<Stack>>>);

impl Nesting {
    /// The savepoint is made: its level.
    pub(crate) fn made(mut self) -> Level {
        let stack = self.0.take().unwrap_or_default();
        lock(&stack).savepoints.push(Invalidation::default());
        Level { stack, open: true }
    }
}

impl Drop for Nesting {
    fn drop(&mut self) {
        if let Some(stack) = &self.0 {
            lock(stack).loose = true;
        }
    }
}

fn lock(stack: &Mutex<Stack>) -> MutexGuard<'_, Stack> {
    stack.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::convert::identity;

    use super::*;

    fn keys(names: &[&str]) -> Invalidation {
        let mut invalidation = Invalidation::default();
        for name in names {
            invalidation.add(name.to_string().into());
        }
        invalidation
    }

    fn add(level: &Level, name: &str) {
        level.add(keys(&[name]), identity);
    }

    #[test]
    fn the_root_gives_out_everything_at_its_end() {
        let root = Level::root();
        add(&root, "a");
        add(&root, "b");
        assert_eq!(root.release(), Some(keys(&["a", "b"])));
    }

    #[test]
    fn a_released_savepoint_hands_up() {
        let root = Level::root();
        add(&root, "a");
        let outer = root.nest().made();
        let inner = outer.nest().made();
        add(&inner, "b");
        assert_eq!(inner.release(), None);
        assert_eq!(outer.release(), None);
        assert_eq!(root.release(), Some(keys(&["a", "b"])));
    }

    #[test]
    fn a_dropped_savepoint_is_forgotten_with_what_it_took_over() {
        let root = Level::root();
        add(&root, "a");
        let outer = root.nest().made();
        let inner = outer.nest().made();
        add(&inner, "b");
        assert_eq!(inner.release(), None);
        assert_eq!(root.all(), keys(&["a", "b"]));
        drop(outer);
        assert_eq!(root.release(), Some(keys(&["a"])));
    }

    #[test]
    fn a_statement_of_the_parent_belongs_to_the_open_savepoint() {
        let root = Level::root();
        let savepoint = root.nest().made();
        add(&root, "a");
        drop(savepoint);
        assert_eq!(root.release(), Some(keys(&[])));
    }

    #[test]
    fn the_last_handle_ends_the_transaction_whichever_it_is() {
        let root = Level::root();
        add(&root, "a");
        let savepoint = root.nest().made();
        add(&savepoint, "b");
        assert_eq!(root.release(), None);
        assert_eq!(savepoint.release(), Some(keys(&["a", "b"])));
    }

    #[test]
    fn a_parent_dropped_first_rolls_the_savepoint_back() {
        let root = Level::root();
        add(&root, "a");
        let savepoint = root.nest().made();
        add(&savepoint, "b");
        drop(root);
        assert_eq!(savepoint.release(), Some(keys(&["a"])));
    }

    #[test]
    fn a_savepoint_that_was_not_made_loosens_the_transaction() {
        let root = Level::root();
        assert!(!root.is_loose());
        drop(root.nest());
        assert!(root.is_loose());
    }

    #[test]
    fn any_handle_of_a_loose_transaction_gives_out_everything() {
        let root = Level::root();
        add(&root, "a");
        let savepoint = root.nest().made();
        add(&savepoint, "b");
        root.loosen();
        assert_eq!(savepoint.release(), Some(keys(&["a", "b"])));
        assert_eq!(root.release(), Some(keys(&["a", "b"])));
    }

    #[test]
    fn a_loose_transaction_forgets_nothing() {
        let root = Level::root();
        let savepoint = root.nest().made();
        add(&savepoint, "b");
        root.loosen();
        drop(savepoint);
        assert_eq!(root.release(), Some(keys(&["b"])));
    }

    #[test]
    fn a_level_past_the_limit_is_compacted() {
        let root = Level::root();
        let names: Vec<_> = (0..=MOST_KEYS).map(|n| n.to_string()).collect();
        for name in &names[..MOST_KEYS] {
            add(&root, name);
        }
        assert_eq!(root.all().len(), MOST_KEYS);
        root.add(keys(&[&names[MOST_KEYS]]), |all| {
            assert_eq!(all.len(), MOST_KEYS + 1);
            keys(&["generation"])
        });
        assert_eq!(root.release(), Some(keys(&["generation"])));
    }
}
