//! What was written, and whether an answer may have been read.
//!
//! Writers of one row take turns, so a row's states have an order. A read that begins after a state
//! was acknowledged answers that state, a later one, or one whose write is under way when it ends.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

/// The columns of a row beside its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    pub country: Option<i64>,
    pub rank: i32,
    pub slug: String,
}

/// What a row is between two writes.
#[derive(Clone, PartialEq, Eq)]
pub struct State {
    /// Larger than those of all earlier states of this row.
    pub version: u64,
    /// None if there is no such row.
    pub fields: Option<Fields>,
    /// What wrote it.
    pub by: &'static str,
    /// How often the cache had been emptied when the write began.
    pub epoch: u64,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{} by {}: ", self.version, self.by)?;
        match &self.fields {
            None => f.write_str("absent"),
            Some(fields) => write!(
                f,
                "country {:?}, rank {}, slug {}",
                fields.country, fields.rank, fields.slug
            ),
        }
    }
}

#[derive(Debug)]
struct History {
    acknowledged: Vec<State>,
    under_way: Option<State>,
}

/// The states of all rows. Row `n` has the id `n + 1`.
#[derive(Debug)]
pub struct Ledger {
    rows: Vec<Mutex<History>>,
    versions: AtomicU64,
    epoch: AtomicU64,
    /// The versions of writes that wrote every row that there was.
    whole: Mutex<Vec<u64>>,
}

/// What a reader noted before its read: for each row the place of its last acknowledged state.
#[derive(Debug)]
pub struct Floors(Vec<usize>);

/// What one reader task has read last: a version of each row, and the epoch of its write.
#[derive(Clone, Debug)]
pub struct Seen(Vec<(u64, u64)>);

impl Seen {
    pub fn nothing(rows: usize) -> Self {
        Self(vec![(0, 0); rows])
    }
}

/// Versions by id.
pub type Answer = BTreeMap<i64, u64>;

impl Ledger {
    pub fn new(states: impl IntoIterator<Item = Option<Fields>>) -> Self {
        let first = |fields| State {
            version: 1,
            fields,
            by: "seed",
            epoch: 0,
        };
        let history = |fields| {
            Mutex::new(History {
                acknowledged: vec![first(fields)],
                under_way: None,
            })
        };
        Self {
            rows: states.into_iter().map(history).collect(),
            versions: AtomicU64::new(1),
            epoch: AtomicU64::new(0),
            whole: Mutex::default(),
        }
    }

    fn row(&self, id: i64) -> MutexGuard<'_, History> {
        self.rows[usize::try_from(id - 1).unwrap()].lock().unwrap()
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The next state of a row whose turn it is.
    pub fn next(&self, by: &'static str, fields: Option<Fields>) -> State {
        State {
            version: self.versions.fetch_add(1, Ordering::SeqCst) + 1,
            fields,
            by,
            epoch: self.epoch.load(Ordering::SeqCst),
        }
    }

    /// The state of a row while nobody writes it.
    pub fn now(&self, id: i64) -> State {
        self.row(id).acknowledged.last().unwrap().clone()
    }

    /// A write is about to be sent that may bring the row to this state.
    pub fn begin(&self, id: i64, state: &State) {
        self.row(id).under_way = Some(state.clone());
    }

    /// It was acknowledged.
    pub fn acknowledge(&self, id: i64, state: State) {
        let mut row = self.row(id);
        row.under_way = None;
        row.acknowledged.push(state);
    }

    /// It did not happen.
    pub fn take_back(&self, id: i64) {
        self.row(id).under_way = None;
    }

    /// Whoever reads this version, or a later one, of any row in one query reads no earlier one.
    pub fn wrote_all(&self, version: u64) {
        self.whole.lock().unwrap().push(version);
    }

    /// The cache is about to be emptied. A write that is under way has lost its fences then: until
    /// it is acknowledged, one reader may see it and the next one not.
    pub fn emptying(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    pub fn floors(&self) -> Floors {
        let last = |row: &Mutex<History>| row.lock().unwrap().acknowledged.len() - 1;
        Floors(self.rows.iter().map(last).collect())
    }

    /// The states that a read which ends now may have met.
    fn window(&self, id: i64, floors: &Floors, seen: &Seen) -> Vec<State> {
        let place = usize::try_from(id - 1).unwrap();
        let row = self.row(id);
        let (version, epoch) = seen.0[place];
        let known = if epoch == self.epoch.load(Ordering::SeqCst) {
            version
        } else {
            0
        };
        let states = row.acknowledged[floors.0[place]..].iter();
        states
            .chain(&row.under_way)
            .filter(|state| state.version >= known)
            .cloned()
            .collect()
    }

    /// Whether these may be the rows among `ids` that `fit`.
    pub fn check(
        &self,
        ids: impl IntoIterator<Item = i64>,
        answer: &Answer,
        floors: &Floors,
        seen: &mut Seen,
        fit: impl Fn(&Fields) -> bool,
    ) -> Result<(), String> {
        for id in ids {
            let read = answer.get(&id).copied();
            let window = self.window(id, floors, seen);
            let met = window.iter().find(|state| match read {
                Some(version) => {
                    state.version == version && state.fields.as_ref().is_some_and(&fit)
                }
                None => !state.fields.as_ref().is_some_and(&fit),
            });
            let Some(met) = met else {
                return Err(self.violation(id, read, &window));
            };
            seen.0[usize::try_from(id - 1).unwrap()] = (met.version, met.epoch);
        }
        Ok(())
    }

    /// Whether this may be the number of rows that `fit`.
    pub fn check_count(
        &self,
        count: u64,
        floors: &Floors,
        seen: &Seen,
        fit: impl Fn(&Fields) -> bool,
    ) -> Result<(), String> {
        let (mut least, mut most) = (0, 0);
        for id in 1..=self.len() as i64 {
            let window = self.window(id, floors, seen);
            let fits = |state: &State| state.fields.as_ref().is_some_and(&fit);
            least += u64::from(window.iter().all(fits));
            most += u64::from(window.iter().any(fits));
        }
        if (least..=most).contains(&count) {
            return Ok(());
        }
        Err(format!("counted {count}, and it is {least} to {most}"))
    }

    /// Whether the rows of one query are of one moment.
    pub fn check_moment(&self, answer: &Answer) -> Result<(), String> {
        let newest = answer.values().max().copied().unwrap_or_default();
        let whole = self.whole.lock().unwrap();
        let last = whole.iter().filter(|version| **version <= newest).max();
        match answer.iter().find(|(_, version)| Some(*version) < last) {
            None => Ok(()),
            Some((id, version)) => Err(format!(
                "row {id} was read at v{version} beside v{newest}, and v{last:?} wrote all rows"
            )),
        }
    }

    fn violation(&self, id: i64, read: Option<u64>, window: &[State]) -> String {
        let row = self.row(id);
        let last = row.acknowledged.len().saturating_sub(10);
        let read = read.map_or("not read".to_owned(), |version| {
            format!("read at v{version}")
        });
        format!(
            "row {id} was {read}\n  allowed: {window:?}\n  its last states: {:?}\n  under way: {:?}",
            &row.acknowledged[last..],
            row.under_way
        )
    }
}

mod tests {
    use super::*;

    fn fields(rank: i32) -> Option<Fields> {
        let slug = "s".to_owned();
        Some(Fields {
            country: None,
            rank,
            slug,
        })
    }

    fn check(ledger: &Ledger, read: Option<u64>, floors: &Floors, seen: &mut Seen) -> bool {
        let answer = read.map(|version| (1, version)).into_iter().collect();
        let fit = |fields: &Fields| fields.rank == 0;
        ledger.check([1], &answer, floors, seen, fit).is_ok()
    }

    #[test]
    fn the_judge_accepts_what_is_concurrent_and_nothing_older() {
        let ledger = Ledger::new([fields(0)]);
        let (early, mut fresh) = (ledger.floors(), Seen::nothing(1));
        let second = ledger.next("test", fields(0));
        assert!(!check(&ledger, Some(2), &early, &mut fresh), "not yet sent");
        ledger.begin(1, &second);
        assert!(check(&ledger, Some(1), &early, &mut fresh.clone()));
        assert!(check(&ledger, Some(2), &early, &mut fresh.clone()));
        assert!(!check(&ledger, None, &early, &mut fresh), "it is there");
        ledger.acknowledge(1, second);
        assert!(check(&ledger, Some(1), &early, &mut fresh));
        assert!(!check(&ledger, Some(1), &ledger.floors(), &mut fresh));
        let moved = ledger.next("test", fields(1));
        ledger.begin(1, &moved);
        ledger.acknowledge(1, moved);
        assert!(check(&ledger, None, &ledger.floors(), &mut fresh));
        assert!(
            !check(&ledger, Some(3), &ledger.floors(), &mut fresh),
            "it fits no more"
        );
    }

    #[test]
    fn the_judge_sees_a_reader_go_back_in_time_unless_fences_were_lost() {
        let ledger = Ledger::new([fields(0)]);
        let (floors, mut seen) = (ledger.floors(), Seen::nothing(1));
        ledger.begin(1, &ledger.next("test", fields(0)));
        assert!(check(&ledger, Some(2), &floors, &mut seen));
        assert!(!check(&ledger, Some(1), &floors, &mut seen));
        ledger.emptying();
        assert!(check(&ledger, Some(1), &floors, &mut seen));
    }

    #[test]
    fn the_judge_sees_a_list_of_two_moments_and_a_wrong_count() {
        let ledger = Ledger::new([fields(0), fields(0)]);
        ledger.wrote_all(5);
        assert!(ledger.check_moment(&Answer::from([(1, 5), (2, 6)])).is_ok());
        assert!(ledger.check_moment(&Answer::from([(1, 4), (2, 3)])).is_ok());
        assert!(
            ledger
                .check_moment(&Answer::from([(1, 4), (2, 6)]))
                .is_err()
        );
        let count = |n| ledger.check_count(n, &ledger.floors(), &Seen::nothing(2), |_| true);
        assert!(count(2).is_ok() && count(1).is_err());
    }
}
