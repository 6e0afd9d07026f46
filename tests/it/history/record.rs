//! What a worker tells of its operations: one line each.
//!
//! A write is told twice, before it is sent and after its call has returned: of a worker that was killed in
//! between, the first line is all there is. Other lines, as libtest writes them, are nothing.

use std::fmt::{self, Write};
use std::str::FromStr;

/// Nanoseconds of the clock that all processes of this machine share.
pub type Moment = u64;

/// Now.
pub fn now() -> Moment {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

/// The name of one write operation, which every row carries that it wrote. The seed is operation 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(pub i64);

impl OpId {
    pub const SEED: Self = Self(0);

    /// The first of a task of a process. The next ones follow.
    pub fn first(process: u16, task: u8) -> Self {
        Self(i64::from(process) << 40 | i64::from(task) << 32)
    }

    pub fn process(self) -> u16 {
        (self.0 >> 40) as u16
    }

    /// Of all tasks of all processes.
    pub fn task(self) -> i64 {
        self.0 >> 32
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (task, number) = (self.task() & 0xff, self.0 & 0xffff_ffff);
        write!(f, "{}.{task}.{number}", self.process())
    }
}

/// What became of a write, as its caller knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Acknowledged,
    /// The call failed: it may have happened or not.
    Failed,
    /// It must not have happened.
    RolledBack,
}

/// Which rows a read answers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// These: those that are not found are absent.
    Keys(Vec<i64>),
    /// All that are in this group: the others are not in it.
    Group(i32),
    /// All: those that are not found are absent.
    All,
}

/// A row as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub id: i64,
    pub version: i64,
    pub grp: i32,
    pub op: OpId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Begun {
        op: OpId,
        kind: usize,
        at: Moment,
    },
    Ended {
        op: OpId,
        outcome: Outcome,
        at: Moment,
    },
    Read {
        way: usize,
        start: Moment,
        end: Moment,
        asked: Asked,
        found: Vec<Found>,
    },
    /// The database's fault.
    ReadFailed {
        way: usize,
    },
    /// The last one of a worker that ends in order.
    Counted {
        hits: u64,
        l1_hits: u64,
        misses: u64,
    },
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun { op, kind, at } => write!(f, "begun {} {kind} {at}", op.0),
            Self::Ended { op, outcome, at } => {
                let outcome = match outcome {
                    Outcome::Acknowledged => 'a',
                    Outcome::Failed => 'f',
                    Outcome::RolledBack => 'r',
                };
                write!(f, "ended {} {outcome} {at}", op.0)
            }
            Self::Read {
                way,
                start,
                end,
                asked,
                found,
            } => {
                write!(f, "read {way} {start} {end} {asked}")?;
                for Found {
                    id,
                    version,
                    grp,
                    op,
                } in found
                {
                    write!(f, " {id}:{version}:{grp}:{}", op.0)?;
                }
                Ok(())
            }
            Self::ReadFailed { way } => write!(f, "unread {way}"),
            Self::Counted {
                hits,
                l1_hits,
                misses,
            } => write!(f, "counted {hits} {l1_hits} {misses}"),
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Group(grp) => write!(f, "g{grp}"),
            Self::Keys(ids) => {
                f.write_char('k')?;
                ids.iter().try_for_each(|id| write!(f, "{id},"))
            }
        }
    }
}

impl Record {
    /// The record in a line; `None` if it is another line, or not whole.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_suffix('\n')?.split(' ');
        Some(match words.next()? {
            "begun" => Self::Begun {
                op: OpId(next(&mut words)?),
                kind: next(&mut words)?,
                at: next(&mut words)?,
            },
            "ended" => Self::Ended {
                op: OpId(next(&mut words)?),
                outcome: match words.next()? {
                    "a" => Outcome::Acknowledged,
                    "f" => Outcome::Failed,
                    "r" => Outcome::RolledBack,
                    _ => return None,
                },
                at: next(&mut words)?,
            },
            "read" => Self::Read {
                way: next(&mut words)?,
                start: next(&mut words)?,
                end: next(&mut words)?,
                asked: Asked::parse(words.next()?)?,
                found: words.map(Found::parse).collect::<Option<_>>()?,
            },
            "unread" => Self::ReadFailed {
                way: next(&mut words)?,
            },
            "counted" => Self::Counted {
                hits: next(&mut words)?,
                l1_hits: next(&mut words)?,
                misses: next(&mut words)?,
            },
            _ => return None,
        })
    }
}

impl Asked {
    fn parse(word: &str) -> Option<Self> {
        if word == "all" {
            return Some(Self::All);
        }
        if let Some(grp) = word.strip_prefix('g') {
            return grp.parse().ok().map(Self::Group);
        }
        let ids = word.strip_prefix('k')?.split_terminator(',');
        let ids = ids.map(|id| id.parse().ok()).collect::<Option<_>>()?;
        Some(Self::Keys(ids))
    }
}

impl Found {
    fn parse(word: &str) -> Option<Self> {
        let mut parts = word.split(':');
        Some(Self {
            id: next(&mut parts)?,
            version: next(&mut parts)?,
            grp: next(&mut parts)?,
            op: OpId(next(&mut parts)?),
        })
    }
}

fn next<'w, T: FromStr>(words: &mut impl Iterator<Item = &'w str>) -> Option<T> {
    words.next()?.parse().ok()
}

#[test]
fn records_are_read_as_they_were_written_and_other_lines_are_nothing() {
    let op = OpId::first(7, 3);
    assert_eq!(
        (op.process(), op.to_string().as_str()),
        (7, "7.3.0"),
        "{op:?}"
    );
    let found = |id| Found {
        id,
        version: 5,
        grp: -1,
        op,
    };
    let read = |asked, found| Record::Read {
        way: 1,
        start: 2,
        end: 3,
        asked,
        found,
    };
    let ended = |outcome| Record::Ended { op, outcome, at: 9 };
    for record in [
        Record::Begun { op, kind: 4, at: 8 },
        ended(Outcome::Acknowledged),
        ended(Outcome::Failed),
        ended(Outcome::RolledBack),
        read(Asked::All, vec![found(1), found(2)]),
        read(Asked::Group(3), vec![]),
        read(Asked::Keys(vec![1, 2]), vec![found(2)]),
        Record::ReadFailed { way: 0 },
        Record::Counted {
            hits: 1,
            l1_hits: 3,
            misses: 2,
        },
    ] {
        let line = format!("{record}\n");
        assert_eq!(Record::parse(&line), Some(record));
        assert_eq!(Record::parse(line.trim_end()), None, "cut off");
    }
    for line in ["running 1 test\n", "\n", "read 1 2\n", "ended 1 x 2\n"] {
        assert_eq!(Record::parse(line), None);
    }
}
