//! The judge finds what it must, and nothing else.

use super::judge::{Answer, Fault, Read, Span, Version, Write, judge};
use super::record::{Moment, OpId};

use std::collections::HashMap;

/// A history of one row in the making. Version 1 in group 0 is the seed's, before moment 1.
struct Story {
    versions: Vec<Version>,
    writes: HashMap<OpId, Write>,
    reads: Vec<Read>,
    lost: Vec<Span>,
    /// How old the reads that follow may be.
    bound: Moment,
}

fn story() -> Story {
    let mut story = Story {
        versions: Vec::new(),
        writes: HashMap::new(),
        reads: Vec::new(),
        lost: Vec::new(),
        bound: 0,
    };
    story.write(0, 0, 0);
    story
}

/// The write that makes this version, of process 1.
fn op(version: i64) -> OpId {
    OpId(OpId::first(1, 0).0 + version)
}

impl Story {
    fn version(&mut self, grp: Option<i32>, op: OpId) -> i64 {
        let number = self.versions.len() as i64 + 1;
        self.versions.push(Version { number, grp, op });
        number
    }

    /// The next version, in this group, by a write of process 1.
    fn write(&mut self, grp: i32, begun: Moment, ended: Moment) -> &mut Self {
        self.happen(Some(grp), begun, Some(ended), true)
    }

    fn happen(
        &mut self,
        grp: Option<i32>,
        begun: Moment,
        ended: Option<Moment>,
        acknowledged: bool,
    ) -> &mut Self {
        let op = op(self.versions.len() as i64 + 1);
        self.version(grp, op);
        let write = Write {
            begun,
            ended,
            acknowledged,
        };
        self.writes.insert(op, write);
        self
    }

    fn answer(&mut self, process: u16, answer: Answer, start: Moment, end: Moment) -> &mut Self {
        self.reads.push(Read {
            start,
            end,
            process,
            way: 0,
            bound: self.bound,
            answer,
        });
        self
    }

    /// A read of a version that is there, by process 2.
    fn read(&mut self, version: i64, start: Moment, end: Moment) -> &mut Self {
        self.read_by(2, version, start, end)
    }

    fn read_by(&mut self, process: u16, version: i64, start: Moment, end: Moment) -> &mut Self {
        let Version { grp, op, .. } = self.versions[version as usize - 1];
        let grp = grp.expect("it is there");
        self.answer(process, Answer::Row { version, grp, op }, start, end)
    }

    fn faults(&self) -> Vec<Fault> {
        let verdict = judge(&self.versions, &self.writes, &self.reads, &self.lost);
        verdict.violations.iter().map(|found| found.fault).collect()
    }
}

#[test]
fn a_read_may_see_any_write_that_is_under_way_and_the_last_one_before() {
    let mut story = story();
    story.write(0, 10, 20).write(0, 12, 30);
    story.read(1, 11, 13).read(1, 15, 21).read(2, 15, 25);
    story.read(3, 26, 27).read(3, 40, 41);
    assert_eq!(story.faults(), []);
}

#[test]
fn a_stale_read_is_found() {
    let mut story = story();
    story.write(0, 10, 20).read(1, 21, 22);
    assert_eq!(story.faults(), [Fault::Stale]);
    let verdict = judge(&story.versions, &story.writes, &story.reads, &[]);
    assert_eq!((verdict.stale_at_start, verdict.stale_at_end), (1, 2));
    assert_eq!(verdict.violations[0].floor, 2);
}

#[test]
fn a_bounded_read_may_be_as_old_as_its_bound_but_for_own_writes() {
    let mut story = story();
    story.bound = 10;
    // Version 2 is process 1's, acknowledged at 20.
    story.write(0, 10, 20).read(1, 30, 31).read(1, 31, 32);
    assert_eq!(story.faults(), [Fault::Stale]);
    story.reads.clear();
    story.read_by(1, 1, 20, 21).read_by(1, 1, 21, 22);
    assert_eq!(story.faults(), [Fault::OwnWriteMissed]);
    // What it has seen binds those that may be less old, and itself later.
    story.reads.clear();
    story.read(2, 15, 16).read(1, 26, 27);
    assert_eq!(story.faults(), []);
    story.bound = 0;
    story.read(1, 17, 18);
    assert_eq!(story.faults(), [Fault::OwnReadUndone]);
}

#[test]
fn an_answer_may_grow_old_on_its_way_to_the_caller() {
    let mut story = story();
    story.write(0, 10, 20).read(1, 15, 50);
    assert_eq!(story.faults(), []);
    let verdict = judge(&story.versions, &story.writes, &story.reads, &[]);
    assert_eq!((verdict.stale_at_start, verdict.stale_at_end), (0, 30));
}

#[test]
fn a_read_that_goes_back_is_found_also_under_a_write_that_never_ended() {
    let mut story = story();
    story.happen(Some(0), 10, None, false);
    story.read(2, 11, 12).read_by(3, 1, 13, 14);
    assert_eq!(story.faults(), [Fault::WentBack]);
    story.read(1, 13, 14);
    assert_eq!(story.faults(), [Fault::WentBack, Fault::OwnReadUndone]);
}

#[test]
fn reads_that_overlap_may_be_of_either_order() {
    let mut story = story();
    story.write(0, 10, 20).read(2, 11, 14).read(1, 13, 15);
    assert_eq!(story.faults(), []);
}

#[test]
fn a_process_that_misses_its_own_write_is_found() {
    let mut story = story();
    story.write(0, 10, 20).read_by(1, 1, 21, 22);
    assert_eq!(story.faults(), [Fault::OwnWriteMissed]);
    let verdict = judge(&story.versions, &story.writes, &story.reads, &[]);
    assert_eq!(verdict.after_own_write, 1);
}

#[test]
fn a_read_of_a_write_that_had_not_begun_is_found() {
    let mut story = story();
    story.write(0, 10, 20).read(2, 8, 9);
    assert_eq!(story.faults(), [Fault::FromTheFuture]);
}

#[test]
fn a_version_that_was_rolled_back_or_made_up_is_found() {
    let mut story = story();
    story.write(0, 10, 20);
    let by = |op| Answer::Row {
        version: 2,
        grp: 0,
        op,
    };
    story.answer(2, by(op(7)), 11, 12);
    story.answer(2, by(op(2)), 21, 22);
    let elsewhere = Answer::Row {
        version: 2,
        grp: 5,
        op: op(2),
    };
    story.answer(2, elsewhere, 23, 24);
    assert_eq!(
        story.faults(),
        [Fault::NeverCommitted, Fault::NeverCommitted]
    );
}

#[test]
fn a_state_inside_a_transaction_is_found() {
    let mut story = story();
    story.write(0, 10, 20);
    story.version(None, op(2));
    story.read(2, 11, 12).answer(2, Answer::Absent, 21, 22);
    assert_eq!(story.faults(), [Fault::Intermediate]);
}

#[test]
fn absence_is_checked_like_a_version() {
    let mut story = story();
    story.answer(2, Answer::Absent, 1, 2);
    story.happen(None, 10, Some(20), true);
    story.write(0, 30, 40);
    story
        .answer(2, Answer::Absent, 21, 22)
        .answer(2, Answer::Absent, 35, 36);
    story.read(3, 37, 38).answer(2, Answer::Absent, 39, 39);
    assert_eq!(story.faults(), [Fault::NoSuchState, Fault::NoSuchState]);
}

#[test]
fn a_row_that_is_missing_from_its_group_is_found_and_one_that_left_it_is_not() {
    let mut story = story();
    story.write(3, 10, 20).answer(2, Answer::NotIn(3), 15, 16);
    story.answer(2, Answer::NotIn(0), 21, 22);
    assert_eq!(story.faults(), []);
    story.answer(2, Answer::NotIn(3), 21, 22);
    assert_eq!(story.faults(), [Fault::NoSuchState]);
}

#[test]
fn an_ambiguous_answer_is_the_oldest_version_that_it_may_be() {
    let mut story = story();
    // Both 1 and 3 are not in group 5: seen under way, the answer must not demand 3 of the next reader.
    story.write(5, 10, 40).write(0, 11, 41);
    story.answer(2, Answer::NotIn(5), 12, 13).read(2, 14, 15);
    assert_eq!(story.faults(), []);
    // But after 2 was read it can be 3 only.
    story
        .answer(2, Answer::NotIn(5), 16, 17)
        .read_by(3, 2, 18, 19);
    assert_eq!(story.faults(), [Fault::WentBack]);
}

#[test]
fn reads_may_waver_until_a_write_is_acknowledged_that_may_have_lost_its_fence() {
    let mut story = story();
    story.write(0, 10, 20).read(2, 12, 13).read(1, 14, 15);
    assert_eq!(story.faults(), [Fault::OwnReadUndone]);
    story.lost.push((11, 11));
    assert_eq!(story.faults(), []);
    story.read(1, 21, 22);
    assert_eq!(story.faults(), [Fault::Stale], "and not after it");
    story.lost = vec![(21, 30)];
    assert!(
        story.faults().contains(&Fault::OwnReadUndone),
        "nor when the loss came later"
    );
}

#[test]
fn writes_whose_beginnings_are_in_another_order_than_their_versions_are_judged_too() {
    let mut story = story();
    // The write of 2 begins after that of 3, and waits for no lock.
    story.write(0, 15, 20).write(0, 10, 30);
    story.read(1, 11, 12).read(3, 18, 19);
    assert_eq!(story.faults(), []);
    story.reads.clear();
    story.read(3, 11, 12);
    assert_eq!(
        story.faults(),
        [Fault::FromTheFuture],
        "version 2 had not begun"
    );
}
