//! Whether the history of one row is that of a single register.
//!
//! The writes of a row are totally ordered. Let the rank of the write of version v be v, and that of a read of v be
//! v + 1/2. Then the history is linearizable if and only if
//! - no operation that begins after another one's end has a lower rank, and
//! - no read ends before the write of its version begins.
//!
//! An answer that several versions would give ("absent", "not in the group") is taken for the smallest version that is
//! admissible, which restricts later reads the least.
//!
//! One exception, as CONSISTENCY.md has it: where the cache lost its contents while a write was under way, and so
//! maybe its fence, reads may see it and not see it until its call has returned.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;

use super::record::{Moment, OpId};

/// A committed version of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub number: i64,
    /// None if the row was deleted.
    pub grp: Option<i32>,
    pub op: OpId,
}

/// A write operation, which may have written several rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    pub begun: Moment,
    /// When its call returned, whatever it returned.
    pub ended: Option<Moment>,
    pub acknowledged: bool,
}

/// What a read says of the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Row { version: i64, grp: i32, op: OpId },
    Absent,
    NotIn(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    pub start: Moment,
    pub end: Moment,
    pub process: u16,
    pub way: u8,
    /// How old it may be.
    pub bound: Moment,
    pub answer: Answer,
}

impl Read {
    /// What was acknowledged before this must be in it.
    fn fresh_from(&self) -> Moment {
        self.start.saturating_sub(self.bound)
    }
}

/// From a moment to a moment.
pub type Span = (Moment, Moment);

/// What is wrong with a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// A write that was acknowledged before it began is not in it.
    Stale,
    /// So is one of its own process.
    OwnWriteMissed,
    /// An earlier read had seen a later version.
    WentBack,
    /// An earlier read of its own process had.
    OwnReadUndone,
    /// Nobody committed this version: rolled back, or made up.
    NeverCommitted,
    /// A state inside a transaction.
    Intermediate,
    /// Its write had not begun.
    FromTheFuture,
    /// No version that could have been read gives this answer.
    NoSuchState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    pub read: Read,
    pub fault: Fault,
    /// The version that it should have seen at least.
    pub floor: i64,
}

/// What was checked of a row.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub violations: Vec<Violation>,
    /// Reads that began after a write of their own process was acknowledged.
    pub after_own_write: u64,
    /// Reads that began after another read of their own process.
    pub after_own_read: u64,
    /// For how long the oldest answer had been outdated when its read began.
    pub stale_at_start: Moment,
    /// The same when the read returned, which a linearizable one may be.
    pub stale_at_end: Moment,
}

/// A version that others can see, with its write's times.
struct State {
    version: Version,
    begun: Moment,
    acknowledged: Moment,
    /// Until then reads may or may not see it.
    unsettled_until: Moment,
}

const NEVER: Moment = Moment::MAX;

/// Twice the version's place for a write, one more for a read.
type Rank = usize;

/// What one process knows of the row.
#[derive(Default)]
struct Own {
    read: Option<Rank>,
}

/// An operation that has ended and raises the floor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ended {
    at: Moment,
    rank: Rank,
    process: u16,
}

/// Checks the reads of one row. `versions` are all that were committed, in their order; `lost` are the times in which
/// the cache may have lost fences.
pub fn judge(
    versions: &[Version],
    writes: &HashMap<OpId, Write>,
    reads: &[Read],
    lost: &[Span],
) -> Verdict {
    let row = Row::new(versions, writes, lost);
    let mut order: Vec<&Read> = reads.iter().collect();
    order.sort_by_key(|read| read.fresh_from());
    let mut sweep = Sweep::over(&row);
    for read in order {
        sweep.until(read.fresh_from());
        sweep.judge(read);
    }
    sweep.verdict
}

struct Row<'h> {
    versions: &'h [Version],
    states: Vec<State>,
    /// By when they began: the smallest place among those that began then or later.
    begun: Vec<(Moment, usize)>,
    /// By place: when the first later one was acknowledged.
    outdated: Vec<Moment>,
}

impl<'h> Row<'h> {
    fn new(versions: &'h [Version], writes: &HashMap<OpId, Write>, lost: &[Span]) -> Self {
        let visible = versions.iter().enumerate().filter(|(place, version)| {
            let next = versions.get(place + 1);
            next.is_none_or(|next| next.op != version.op)
        });
        let states: Vec<State> = visible
            .map(|(_, version)| state(*version, writes, lost))
            .collect();
        let mut begun: Vec<_> = states.iter().map(|state| state.begun).zip(0..).collect();
        begun.sort_unstable();
        for later in (1..begun.len()).rev() {
            begun[later - 1].1 = begun[later - 1].1.min(begun[later].1);
        }
        let mut outdated = vec![NEVER; states.len()];
        for place in (1..states.len()).rev() {
            outdated[place - 1] = outdated[place].min(states[place].acknowledged);
        }
        Self {
            versions,
            states,
            begun,
            outdated,
        }
    }

    /// The first place that a read may not see which ended then.
    fn ceiling(&self, end: Moment) -> usize {
        let after = self.begun.partition_point(|(begun, _)| *begun <= end);
        self.begun
            .get(after)
            .map_or(self.states.len(), |(_, place)| *place)
    }

    /// The place of what a read answered.
    fn place(&self, answer: Answer, floor: usize, ceiling: usize) -> Result<usize, Fault> {
        let holds = |state: &State| match answer {
            Answer::NotIn(grp) => state.version.grp != Some(grp),
            Answer::Absent | Answer::Row { .. } => state.version.grp.is_none(),
        };
        let Answer::Row { version, grp, op } = answer else {
            let mut places = floor..ceiling.max(floor);
            let place = places.find(|place| self.states.get(*place).is_some_and(holds));
            return place.ok_or(Fault::NoSuchState);
        };
        let asked = Version {
            number: version,
            grp: Some(grp),
            op,
        };
        let found = self
            .states
            .binary_search_by_key(&version, |state| state.version.number);
        match found {
            Ok(place) if self.states[place].version == asked => Ok(place),
            _ if self.versions.contains(&asked) => Err(Fault::Intermediate),
            _ => Err(Fault::NeverCommitted),
        }
    }
}

fn state(version: Version, writes: &HashMap<OpId, Write>, lost: &[Span]) -> State {
    // A committed version whose beginning nobody told of is a fault of the test itself.
    let write = writes
        .get(&version.op)
        .unwrap_or_else(|| panic!("{version:?} was never begun"));
    let ended = write.ended.unwrap_or(NEVER);
    let tainted = lost
        .iter()
        .any(|(from, to)| write.begun <= *to && ended >= *from);
    State {
        version,
        begun: write.begun,
        acknowledged: if write.acknowledged { ended } else { NEVER },
        unsettled_until: if tainted { ended } else { 0 },
    }
}

fn written(acknowledged: &[Ended]) -> HashMap<u16, Vec<(Moment, Rank)>> {
    let mut written: HashMap<u16, Vec<(Moment, Rank)>> = HashMap::new();
    for write in acknowledged.iter().rev() {
        let own = written.entry(write.process).or_default();
        let last = own.last().map_or(0, |(_, rank)| *rank);
        own.push((write.at, write.rank.max(last)));
    }
    written
}

/// Goes through the time.
struct Sweep<'h> {
    row: &'h Row<'h>,
    /// Acknowledged writes, the next one last.
    acknowledged: Vec<Ended>,
    reads: BinaryHeap<Reverse<Ended>>,
    floor: Rank,
    own: HashMap<u16, Own>,
    /// Of each process, when a write was acknowledged, and the rank of the last one by then.
    written: HashMap<u16, Vec<(Moment, Rank)>>,
    verdict: Verdict,
}

impl<'h> Sweep<'h> {
    fn over(row: &'h Row<'h>) -> Self {
        let states = row.states.iter().enumerate();
        let mut acknowledged: Vec<Ended> = states
            .filter(|(_, state)| state.acknowledged != NEVER)
            .map(|(place, state)| Ended {
                at: state.acknowledged,
                rank: 2 * place,
                process: state.version.op.process(),
            })
            .collect();
        acknowledged.sort_unstable_by_key(|ended| Reverse(ended.at));
        Self {
            row,
            written: written(&acknowledged),
            acknowledged,
            reads: BinaryHeap::new(),
            floor: 0,
            own: HashMap::new(),
            verdict: Verdict::default(),
        }
    }

    /// Notes all that ended before.
    fn until(&mut self, moment: Moment) {
        while let Some(write) = self.acknowledged.pop_if(|ended| ended.at < moment) {
            self.floor = self.floor.max(write.rank);
        }
        while let Some(Reverse(read)) = self.reads.peek().copied()
            && read.at < moment
        {
            self.reads.pop();
            self.floor = self.floor.max(read.rank);
            let own = self.own.entry(read.process).or_default();
            own.read = own.read.max(Some(read.rank));
        }
    }

    /// The rank of the last write that its own process had acknowledged. However old a read may be, that is in it.
    fn own_write(&self, read: &Read) -> Option<Rank> {
        let written = self.written.get(&read.process)?;
        let before = written.partition_point(|(at, _)| *at < read.start);
        Some(written[before.checked_sub(1)?].1)
    }

    fn judge(&mut self, read: &Read) {
        let floor = self.floor.max(self.own_write(read).unwrap_or(0)) / 2;
        let ceiling = self.row.ceiling(read.end);
        match self.row.place(read.answer, floor, ceiling) {
            Ok(place) => self.judge_place(read, place, ceiling),
            Err(fault) => self.violated(read, fault),
        }
    }

    fn judge_place(&mut self, read: &Read, place: usize, ceiling: usize) {
        let rank = 2 * place + 1;
        let wrote = self.own_write(read);
        let seen = self.own.entry(read.process).or_default().read;
        self.verdict.after_own_write += u64::from(wrote.is_some());
        self.verdict.after_own_read += u64::from(seen.is_some());
        let outdated = self.row.outdated[place];
        let stale = |moment: Moment| moment.saturating_sub(outdated);
        // Of others it is not known which version they are.
        if matches!(read.answer, Answer::Row { .. }) {
            self.verdict.stale_at_start = self.verdict.stale_at_start.max(stale(read.start));
            self.verdict.stale_at_end = self.verdict.stale_at_end.max(stale(read.end));
        }
        if place >= ceiling {
            return self.violated(read, Fault::FromTheFuture);
        }
        if rank < self.floor.max(wrote.unwrap_or(0)) {
            let fault = if wrote > Some(rank) {
                Fault::OwnWriteMissed
            } else if outdated < read.start {
                Fault::Stale
            } else if seen > Some(rank) {
                Fault::OwnReadUndone
            } else {
                Fault::WentBack
            };
            return self.violated(read, fault);
        }
        let at = read.end.max(self.row.states[place].unsettled_until);
        if at != NEVER {
            self.reads.push(Reverse(Ended {
                at,
                rank,
                process: read.process,
            }));
        }
    }

    fn violated(&mut self, read: &Read, fault: Fault) {
        let floor = self.row.states.get(self.floor / 2);
        self.verdict.violations.push(Violation {
            read: *read,
            fault,
            floor: floor.map_or(0, |state| state.version.number),
        });
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row { version, grp, op } => write!(f, "v{version} in group {grp} by {op}"),
            Self::Absent => f.write_str("absent"),
            Self::NotIn(grp) => write!(f, "not in group {grp}"),
        }
    }
}
