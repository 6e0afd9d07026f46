//! Transactions that are opened and ended in raw SQL on a connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::effects::Control;
use super::site::Planned;
use crate::invalidation::Invalidation;

/// What was made stale since raw SQL opened a transaction; `None` when there is none.
///
/// It is one for all users of a connection, because a statement does not say in which of the pooled
/// connections it will run. Where that is wrong, more is invalidated than need be.
#[derive(Debug, Default)]
pub(crate) struct Manual {
    collected: Mutex<Option<Invalidation>>,
    /// Whether there is one: every read asks, and takes no lock for it.
    open: AtomicBool,
}

/// A statement's write, ready to be guarded.
#[derive(Debug, PartialEq)]
pub(crate) struct Write {
    /// What to guard. May be empty.
    pub(crate) invalidation: Invalidation,
    /// Whether the statement's answer closes the transaction.
    pub(crate) closes: Closes,
}

/// Which answer of a statement leaves no transaction open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closes {
    /// None does, or not for certain.
    Never,
    /// Its success: it was a `COMMIT` or a `ROLLBACK`.
    OnSuccess,
    /// Its failure: it was a `BEGIN`.
    OnFailure,
}

impl Manual {
    /// Takes note of what `sql` makes stale, before it runs. `None` if there is nothing to do.
    ///
    /// What opens or ends a transaction is guarded with everything collected, because a statement
    /// that opens one may end another (MySQL).
    pub(crate) fn note(&self, sql: &str, planned: Planned) -> Option<Write> {
        let Planned {
            mut invalidation,
            control,
        } = planned;
        if control == Control::None && invalidation.is_empty() {
            return None;
        }
        let mut open = self.lock();
        let was_open = open.is_some();
        if control == Control::Begin {
            open.get_or_insert_default();
            self.open.store(true, Ordering::Release);
        }
        if let Some(collected) = open.as_mut() {
            collected.merge(invalidation.clone());
            if control != Control::None {
                invalidation = collected.clone();
            }
        }
        Some(Write {
            invalidation,
            closes: closes(sql, control, was_open),
        })
    }

    /// Adopts a smaller form of what was collected, if that has grown past `most` keys.
    pub(crate) fn compact(&self, most: usize, compact: impl FnOnce(Invalidation) -> Invalidation) {
        let mut open = self.lock();
        if let Some(collected) = open.take_if(|collected| collected.len() > most) {
            *open = Some(compact(collected));
        }
    }

    /// Whether a transaction is open.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// The transaction has ended.
    pub(crate) fn close(&self) {
        let mut open = self.lock();
        *open = None;
        self.open.store(false, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Invalidation>> {
        self.collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Closes {
    /// Whether this answer leaves no transaction open.
    pub(crate) fn after<T, E>(self, answer: &Result<T, E>) -> bool {
        match self {
            Closes::Never => false,
            Closes::OnSuccess => answer.is_ok(),
            Closes::OnFailure => answer.is_err(),
        }
    }
}

fn closes(sql: &str, control: Control, was_open: bool) -> Closes {
    let statements = sql.trim_end_matches(|c: char| c == ';' || c.is_whitespace());
    let (before, last) = statements.rsplit_once(';').unwrap_or(("", statements));
    match control {
        Control::None => Closes::Never,
        _ if is_plain_end(last) => Closes::OnSuccess,
        Control::Begin if !was_open && before.is_empty() => Closes::OnFailure,
        _ => Closes::Never,
    }
}

/// Whether the statement is a `COMMIT` or `ROLLBACK` and nothing more: `ROLLBACK TO` and `AND CHAIN`
/// leave a transaction open.
fn is_plain_end(statement: &str) -> bool {
    let mut words = statement.split_whitespace();
    let is_one_of = |word: &str, all: &[&str]| all.iter().any(|one| word.eq_ignore_ascii_case(one));
    words
        .next()
        .is_some_and(|verb| is_one_of(verb, &["commit", "end", "rollback", "abort"]))
        && words
            .next()
            .is_none_or(|noun| is_one_of(noun, &["work", "transaction"]))
        && words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&str]) -> Invalidation {
        let mut invalidation = Invalidation::default();
        for name in names {
            invalidation.add(name.to_string().into());
        }
        invalidation
    }

    fn note(manual: &Manual, sql: &str, control: Control, names: &[&str]) -> Option<Write> {
        let invalidation = keys(names);
        manual.note(
            sql,
            Planned {
                invalidation,
                control,
            },
        )
    }

    fn write(names: &[&str], closes: Closes) -> Option<Write> {
        let invalidation = keys(names);
        Some(Write {
            invalidation,
            closes,
        })
    }

    #[test]
    fn a_statement_without_effect_is_none() {
        assert_eq!(
            note(&Manual::default(), "SELECT 1", Control::None, &[]),
            None
        );
    }

    #[test]
    fn outside_of_a_transaction_nothing_is_collected() {
        let manual = Manual::default();
        let plain = note(&manual, "UPDATE a", Control::None, &["a"]);
        assert_eq!(plain, write(&["a"], Closes::Never));
        let end = note(&manual, "CREATE TABLE b", Control::End, &["b"]);
        assert_eq!(end, write(&["b"], Closes::Never));
        assert!(!manual.is_open());
    }

    #[test]
    fn a_commit_guards_all_since_the_begin() {
        let manual = Manual::default();
        let begin = note(&manual, "BEGIN", Control::Begin, &[]);
        assert_eq!(begin, write(&[], Closes::OnFailure));
        assert!(manual.is_open());
        let update = note(&manual, "UPDATE a", Control::None, &["a"]);
        assert_eq!(update, write(&["a"], Closes::Never));
        note(&manual, "UPDATE b", Control::None, &["b"]);
        let commit = note(&manual, "COMMIT", Control::End, &[]);
        assert_eq!(commit, write(&["a", "b"], Closes::OnSuccess));
        // A commit that fails may be tried again.
        assert!(manual.is_open());
        manual.close();
        assert!(!manual.is_open());
    }

    #[test]
    fn a_second_begin_guards_what_the_first_collected() {
        let manual = Manual::default();
        note(&manual, "BEGIN", Control::Begin, &[]);
        note(&manual, "UPDATE a", Control::None, &["a"]);
        let begin = note(&manual, "BEGIN", Control::Begin, &[]);
        assert_eq!(begin, write(&["a"], Closes::Never));
    }

    #[test]
    fn what_may_leave_a_transaction_open_does_not_close() {
        for sql in [
            "ROLLBACK TO SAVEPOINT a",
            "COMMIT AND CHAIN",
            "COMMIT; BEGIN",
            "ALTER TABLE commit",
            "/* the end */ COMMIT",
            "",
        ] {
            let manual = Manual::default();
            note(&manual, "BEGIN", Control::Begin, &["a"]);
            let end = note(&manual, sql, Control::End, &["b"]);
            assert_eq!(end, write(&["a", "b"], Closes::Never), "{sql}");
        }
    }

    #[test]
    fn what_certainly_ends_a_transaction_closes() {
        for sql in [
            "COMMIT",
            "commit;",
            " End ; ",
            "ROLLBACK WORK",
            "commit\ntransaction",
            "BEGIN; UPDATE a SET b = 1; COMMIT;",
        ] {
            for control in [Control::Begin, Control::End] {
                assert_eq!(closes(sql, control, false), Closes::OnSuccess, "{sql}");
            }
        }
    }

    #[test]
    fn a_begin_that_fails_leaves_nothing_open_unless_more_came_before_it() {
        assert_eq!(closes("BEGIN", Control::Begin, false), Closes::OnFailure);
        assert_eq!(closes("BEGIN", Control::Begin, true), Closes::Never);
        assert_eq!(
            closes("BEGIN; UPDATE a", Control::Begin, false),
            Closes::Never
        );
        assert!(Closes::OnFailure.after(&Err::<(), _>(())));
        assert!(!Closes::OnFailure.after(&Ok::<_, ()>(())));
        assert!(Closes::OnSuccess.after(&Ok::<_, ()>(())));
        assert!(!Closes::Never.after(&Ok::<_, ()>(())));
    }

    #[test]
    fn past_the_limit_what_was_collected_is_compacted() {
        let manual = Manual::default();
        note(&manual, "BEGIN", Control::Begin, &["a", "b"]);
        manual.compact(2, |_| unreachable!());
        manual.compact(1, |_| keys(&["c"]));
        let commit = note(&manual, "COMMIT", Control::End, &[]);
        assert_eq!(commit, write(&["c"], Closes::OnSuccess));
    }
}
