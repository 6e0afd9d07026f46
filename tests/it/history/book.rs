//! All that was told, row by row, and what the judge says of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use super::judge::{Answer, Fault, Read, Span, Version, Violation, Write, judge};
use super::reader::{is_linearizable, way_name};
use super::record::{Asked, Moment, OpId, Outcome, Record};
use super::worker::MAX_SILENCE;
use super::writer::Kind;

/// A disturbance, by name.
#[derive(Clone, Debug)]
pub struct Disturbance {
    pub name: &'static str,
    pub span: Span,
    /// Whether fences may have been lost.
    pub loses_fences: bool,
}

#[derive(Debug, Default)]
pub struct Book {
    pub writes: HashMap<OpId, Write>,
    kinds: HashMap<OpId, usize>,
    /// The processes that have an in-process tier.
    pub tiered: HashSet<u16>,
    rolled_back: HashSet<OpId>,
    /// The last operation that each task began.
    pub begun: HashMap<i64, OpId>,
    reads: Vec<Vec<Read>>,
    pub disturbances: Vec<Disturbance>,
    /// Answers that are wrong by themselves.
    odd: Vec<String>,
    pub counts: Counts,
}

/// What a run was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    pub processes: u64,
    /// Calls that were answered.
    pub calls: u64,
    pub calls_failed: u64,
    /// Answers for one row: the row, or that it is absent.
    pub reads: u64,
    pub linearizable: u64,
    /// Answers that a row is not in a group.
    pub not_in_group: u64,
    pub acknowledged: u64,
    pub failed: u64,
    pub rolled_back: u64,
    pub unknown: u64,
    pub versions: u64,
    pub hits: u64,
    pub l1_hits: u64,
    pub misses: u64,
    pub after_own_write: u64,
    pub after_own_read: u64,
    pub stale_at_start: Moment,
    pub stale_at_end: Moment,
    /// From the first operation to the start of the first wrong read.
    pub found_after: Option<Moment>,
    pub disturbances: BTreeMap<&'static str, u64>,
    pub violations: BTreeMap<Fault, u64>,
}

impl Book {
    pub fn new(rows: i64) -> Self {
        let seed = Write {
            begun: 0,
            ended: Some(0),
            acknowledged: true,
        };
        Self {
            writes: HashMap::from([(OpId::SEED, seed)]),
            reads: vec![Vec::new(); usize::try_from(rows).unwrap()],
            ..Self::default()
        }
    }

    /// Takes a record of this process.
    pub fn take(&mut self, process: u16, record: Record) {
        match record {
            Record::Begun { op, kind, at } => {
                let write = Write {
                    begun: at,
                    ended: None,
                    acknowledged: false,
                };
                self.writes.insert(op, write);
                self.kinds.insert(op, kind);
                self.begun.insert(op.task(), op);
            }
            Record::Ended { op, outcome, at } => self.ended(op, outcome, at),
            Record::Read {
                way,
                start,
                end,
                asked,
                found,
            } => {
                let read = |answer| Read {
                    start,
                    end,
                    process,
                    way: way as u8,
                    bound: if self.tiered.contains(&process) && !is_linearizable(way) {
                        MAX_SILENCE.as_nanos() as Moment
                    } else {
                        0
                    },
                    answer,
                };
                self.counts.calls += 1;
                let answers = match answers(&asked, &found, self.reads.len() as i64) {
                    Ok(answers) => answers,
                    Err(reason) => return self.odd.push(format!("{}: {reason}", way_name(way))),
                };
                for (id, answer) in answers {
                    let one = u64::from(!matches!(answer, Answer::NotIn(_)));
                    self.counts.reads += one;
                    self.counts.not_in_group += 1 - one;
                    self.counts.linearizable += one * u64::from(is_linearizable(way));
                    self.reads[usize::try_from(id - 1).unwrap()].push(read(answer));
                }
            }
            Record::ReadFailed { .. } => self.counts.calls_failed += 1,
            Record::Counted {
                hits,
                l1_hits,
                misses,
            } => {
                self.counts.hits += hits;
                self.counts.l1_hits += l1_hits;
                self.counts.misses += misses;
            }
        }
    }

    fn ended(&mut self, op: OpId, outcome: Outcome, at: Moment) {
        let write = self.writes.get_mut(&op).expect("it was begun");
        write.ended = Some(at);
        match outcome {
            Outcome::Acknowledged => {
                write.acknowledged = true;
                self.counts.acknowledged += 1;
            }
            Outcome::Failed => self.counts.failed += 1,
            Outcome::RolledBack => {
                self.rolled_back.insert(op);
                self.counts.rolled_back += 1;
            }
        }
    }

    /// This process was killed, and the database has ended its sessions: nothing more happens for it.
    pub fn gone(&mut self, process: u16, at: Moment) {
        let open = self
            .writes
            .iter_mut()
            .filter(|(op, write)| op.process() == process && write.ended.is_none());
        for (_, write) in open {
            write.ended = Some(at);
            self.counts.unknown += 1;
        }
        self.begun.retain(|task, _| task >> 8 != i64::from(process));
    }

    /// Judges everything. Violations are described in a file, whose path is answered.
    pub fn conclude(&mut self, truth: &[Vec<Version>], file: &Path) -> Option<PathBuf> {
        let spans: Vec<Span> = self
            .disturbances
            .iter()
            .filter(|disturbance| disturbance.loses_fences)
            .map(|disturbance| disturbance.span)
            .collect();
        for disturbance in &self.disturbances {
            *self
                .counts
                .disturbances
                .entry(disturbance.name)
                .or_default() += 1;
        }
        let begun = self.writes.values().map(|write| write.begun);
        let first = begun.filter(|begun| *begun > 0).min().unwrap_or_default();
        let mut text = String::new();
        for (place, versions) in truth.iter().enumerate() {
            self.counts.versions += versions.len() as u64;
            self.check_rolled_back(place, versions);
            let verdict = judge(versions, &self.writes, &self.reads[place], &spans);
            let counts = &mut self.counts;
            counts.after_own_write += verdict.after_own_write;
            counts.after_own_read += verdict.after_own_read;
            counts.stale_at_start = counts.stale_at_start.max(verdict.stale_at_start);
            counts.stale_at_end = counts.stale_at_end.max(verdict.stale_at_end);
            for violation in &verdict.violations {
                let after = violation.read.start.saturating_sub(first);
                let earlier = counts.found_after.unwrap_or(Moment::MAX);
                counts.found_after = Some(after.min(earlier));
                *counts.violations.entry(violation.fault).or_default() += 1;
            }
            for violation in verdict.violations.iter().take(5) {
                self.describe(&mut text, place, versions, violation);
            }
            if !verdict.violations.is_empty() {
                self.tell_all(&mut text, place, versions);
            }
        }
        for odd in &self.odd {
            let _ = writeln!(text, "odd: {odd}");
        }
        if text.is_empty() {
            return None;
        }
        std::fs::write(file, text).expect("the history can be kept");
        Some(file.to_owned())
    }

    fn check_rolled_back(&mut self, place: usize, versions: &[Version]) {
        let kept = versions.iter().filter(|v| self.rolled_back.contains(&v.op));
        let odd = kept.map(|v| format!("row {}: {v:?} was rolled back", place + 1));
        self.odd.extend(odd.collect::<Vec<_>>());
    }

    /// One violation, with the operations and disturbances around it.
    fn describe(&self, text: &mut String, place: usize, versions: &[Version], found: &Violation) {
        let Violation { read, fault, floor } = found;
        let at = read.start;
        let _ = writeln!(
            text,
            "row {}: {fault:?}, v{floor} was known.\n  {}",
            place + 1,
            self.read_line(read, at)
        );
        let near = |version: &&Version| (version.number - floor).abs() <= 3;
        for version in versions.iter().filter(near) {
            let _ = writeln!(text, "  {}", self.write_line(version, at));
        }
        let before = self.reads[place]
            .iter()
            .filter(|other| other.end < read.start && *other != read);
        let mut before: Vec<&Read> = before.collect();
        before.sort_by_key(|other| other.end);
        for other in before.iter().rev().take(6) {
            let _ = writeln!(text, "  before: {}", self.read_line(other, at));
        }
        for Disturbance { name, span, .. } in &self.disturbances {
            if span.0 < read.end + 2_000_000_000 && span.1 + 12_000_000_000 > at {
                let _ = writeln!(text, "  {name}: {} to {}", ms(span.0, at), ms(span.1, at));
            }
        }
    }

    /// Every operation of a row, in the order of their beginnings.
    fn tell_all(&self, text: &mut String, place: usize, versions: &[Version]) {
        let _ = writeln!(text, "all of row {}:", place + 1);
        let begun = |op: &OpId| self.writes.get(op).map_or(0, |write| write.begun);
        let writes = versions
            .iter()
            .map(|version| (begun(&version.op), self.write_line(version, 0)));
        let reads = self.reads[place]
            .iter()
            .map(|read| (read.start, self.read_line(read, 0)));
        let mut lines: Vec<_> = writes.chain(reads).collect();
        lines.sort();
        for (_, line) in lines {
            let _ = writeln!(text, "    {line}");
        }
    }

    fn read_line(&self, read: &Read, at: Moment) -> String {
        format!(
            "{} to {}: process {} reads {} by {}",
            ms(read.start, at),
            ms(read.end, at),
            read.process,
            read.answer,
            way_name(usize::from(read.way))
        )
    }

    fn write_line(&self, version: &Version, at: Moment) -> String {
        let write = self.writes.get(&version.op);
        let kind = self.kinds.get(&version.op);
        let (begun, ended, acknowledged) = write.map_or((0, None, false), |write| {
            (write.begun, write.ended, write.acknowledged)
        });
        format!(
            "{} to {}: {} writes v{} ({}) by {}{}",
            ms(begun, at),
            ended.map_or("never".to_owned(), |ended| ms(ended, at)),
            version.op,
            version.number,
            version
                .grp
                .map_or("deleted".to_owned(), |grp| format!("group {grp}")),
            kind.map_or("seed", |kind| Kind::name(*kind)),
            if acknowledged {
                ""
            } else {
                ", not acknowledged"
            },
        )
    }
}

impl Counts {
    /// Adds those of another run.
    pub fn add(&mut self, other: Self) {
        self.processes += other.processes;
        self.calls += other.calls;
        self.calls_failed += other.calls_failed;
        self.reads += other.reads;
        self.linearizable += other.linearizable;
        self.not_in_group += other.not_in_group;
        self.acknowledged += other.acknowledged;
        self.failed += other.failed;
        self.rolled_back += other.rolled_back;
        self.unknown += other.unknown;
        self.versions += other.versions;
        self.hits += other.hits;
        self.l1_hits += other.l1_hits;
        self.misses += other.misses;
        self.after_own_write += other.after_own_write;
        self.after_own_read += other.after_own_read;
        self.stale_at_start = self.stale_at_start.max(other.stale_at_start);
        self.stale_at_end = self.stale_at_end.max(other.stale_at_end);
        for (name, count) in other.disturbances {
            *self.disturbances.entry(name).or_default() += count;
        }
        for (fault, count) in other.violations {
            *self.violations.entry(fault).or_default() += count;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lookups = self.hits + self.misses;
        let hit_rate = self.hits as f64 / lookups.max(1) as f64 * 100.0;
        let ms = |moment| moment as f64 / 1e6;
        let violations: u64 = self.violations.values().sum();
        writeln!(
            f,
            "{} reads checked ({} linearizable) in {} calls of {} processes; {} more that a row is not in a group; \
             {} calls failed; hit rate {hit_rate:.0} % of {lookups}, {} by in-process tiers",
            self.reads,
            self.linearizable,
            self.calls,
            self.processes,
            self.not_in_group,
            self.calls_failed,
            self.l1_hits,
        )?;
        writeln!(
            f,
            "  writes: {} acknowledged, {} failed, {} rolled back, {} unknown; {} row versions",
            self.acknowledged, self.failed, self.rolled_back, self.unknown, self.versions
        )?;
        writeln!(
            f,
            "  read-your-writes checked {} times, monotonic reads {} times; outdated for at most {:.1} ms when a read \
             began, {:.1} ms when it returned",
            self.after_own_write,
            self.after_own_read,
            ms(self.stale_at_start),
            ms(self.stale_at_end),
        )?;
        writeln!(f, "  faults: {:?}", self.disturbances)?;
        write!(f, "  violations: {violations} {:?}", self.violations)
    }
}

/// What an answer says of each row.
fn answers(
    asked: &Asked,
    found: &[super::record::Found],
    rows: i64,
) -> Result<Vec<(i64, Answer)>, String> {
    let mut found: BTreeMap<i64, Answer> = found
        .iter()
        .map(|row| {
            if let Asked::Group(grp) = asked
                && row.grp != *grp
            {
                return Err(format!("{row:?} in group {grp}"));
            }
            let (version, grp, op) = (row.version, row.grp, row.op);
            Ok((row.id, Answer::Row { version, grp, op }))
        })
        .collect::<Result<_, _>>()?;
    let mut one = |id| (id, found.remove(&id));
    let (answers, missing): (Vec<_>, _) = match asked {
        Asked::Keys(ids) => (ids.iter().map(|id| one(*id)).collect(), Answer::Absent),
        Asked::All => ((1..=rows).map(&mut one).collect(), Answer::Absent),
        Asked::Group(grp) => ((1..=rows).map(&mut one).collect(), Answer::NotIn(*grp)),
    };
    if !found.is_empty() {
        return Err(format!("{found:?} were not asked for"));
    }
    let whole = |(id, answer): (i64, Option<Answer>)| (id, answer.unwrap_or(missing));
    Ok(answers.into_iter().map(whole).collect())
}

/// Milliseconds from `zero`.
fn ms(moment: Moment, zero: Moment) -> String {
    format!("{:+.3} ms", (moment as f64 - zero as f64) / 1e6)
}

#[test]
fn an_answer_speaks_of_all_rows_that_it_was_asked_for_and_of_no_others() {
    let found = super::record::Found {
        id: 2,
        version: 7,
        grp: 1,
        op: OpId::SEED,
    };
    let row = Answer::Row {
        version: 7,
        grp: 1,
        op: OpId::SEED,
    };
    let all = answers(&Asked::All, &[found], 2).unwrap();
    assert_eq!(all, [(1, Answer::Absent), (2, row)]);
    let group = answers(&Asked::Group(1), &[found], 2).unwrap();
    assert_eq!(group, [(1, Answer::NotIn(1)), (2, row)]);
    let keys = answers(&Asked::Keys(vec![2]), &[found], 2).unwrap();
    assert_eq!(keys, [(2, row)]);
    assert!(answers(&Asked::Keys(vec![1]), &[found], 2).is_err());
    assert!(
        answers(&Asked::Group(0), &[found], 2).is_err(),
        "it is in group 1"
    );
}
